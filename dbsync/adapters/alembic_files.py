"""The revision files of a migrations folder, loaded and put in order; nothing here touches a database.

Files are compiled from their text, never from a cached byte code: a file rewritten within the same second would
otherwise run as it was before.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

from alembic.script import Script
from alembic.script.revision import RevisionError, RevisionMap

from dbsync.errors import ConfigError, Interrupted, Refused


class Files:
    """Every revision under `versions/`, by its id, and which one each of them follows."""

    def __init__(self, folder: Path) -> None:
        """Loads them. Raises ConfigError (`migrations-missing`, `broken-revision`), Refused (`merge-revision`)."""
        self.folder = folder
        versions = folder / "versions"
        if not versions.is_dir():
            raise ConfigError(
                f"there is no folder {versions}",
                code="migrations-missing",
                remedy="correct [migrate] path: it names an Alembic script location, with versions/ inside",
            )
        self.scripts = _load(versions)
        self.parents = {revision: _parent(script, self.scripts) for revision, script in self.scripts.items()}
        self.map = RevisionMap(self.scripts.values)
        self._check_order()

    @property
    def heads(self) -> tuple[str, ...]:
        """Revisions that none follows."""
        followed = set(self.parents.values())
        return tuple(sorted(revision for revision in self.parents if revision not in followed))

    def file(self, revision: str) -> Path:
        """The file of a revision."""
        return Path(self.scripts[revision].path)

    def chain(self) -> tuple[str, ...]:
        """Revisions from base to head. Refused (`several-heads`)."""
        head = self.head()
        return self.line(head) if head is not None else ()

    def head(self) -> str | None:
        """The last revision, None when there is none at all. Refused (`several-heads`)."""
        heads = self.heads
        if len(heads) > 1:
            named = ", ".join(f"{head} ({self.file(head).name})" for head in heads)
            raise Refused(
                f"the migrations have several heads: {named}",
                code="several-heads",
                remedy="make one of them follow the other (its down_revision)",
            )
        return heads[0] if heads else None

    def line(self, revision: str | None) -> tuple[str, ...]:
        """Revisions from base up to and including this one."""
        found: list[str] = []
        while revision is not None and revision not in found:
            found.append(revision)
            revision = self.parents[revision]
        return tuple(reversed(found))

    def resolve(self, name: str | None) -> str | None:
        """The revision that a name stands for: an id, the unique beginning of one, `head`, or `base` (None).

        Raises ConfigError (`unknown-revision`), Refused (`several-heads`).
        """
        if name is None or name == "base":
            return None
        if name in ("head", "heads"):
            return self.head()
        if name in self.scripts:
            return name
        begun = sorted(revision for revision in self.scripts if name and revision.startswith(name))
        if len(begun) == 1:
            return begun[0]
        found = f"{name!r} is the beginning of {', '.join(begun)}" if begun else f"there is no revision {name!r}"
        raise ConfigError(
            f"{found} in {self.folder / 'versions'}",
            code="unknown-revision",
            remedy="name one revision" if begun else "bring its file back, or name another revision",
        )

    def _check_order(self) -> None:
        """Every revision leads back to base. Raises ConfigError (`broken-revision`)."""
        for revision in self.parents:
            if self.parents[self.line(revision)[0]] is not None:
                raise broken(self.file(revision), f"revision {revision} follows itself, by way of its down_revision")
        try:
            self.map.heads  # noqa: B018  (the map is made, and its dependencies looked up, when it is first read)
        except (RevisionError, KeyError) as error:
            raise ConfigError(
                f"the revisions in {self.folder} do not form an order: {error}",
                code="broken-revision",
                remedy="correct depends_on or branch_labels",
            ) from error


def broken(file: Path, found: str) -> ConfigError:
    """The error for a revision file that cannot be used."""
    return ConfigError(f"{file.name}: {found}", code="broken-revision", remedy=f"correct {file}")


def _load(versions: Path) -> dict[str, Script]:
    found: dict[str, Script] = {}
    for file in sorted(versions.glob("*.py")):
        if file.name == "__init__.py" or file.name.startswith("."):
            continue
        script = _script(file, _module(file))
        if script.revision in found:
            other = Path(found[script.revision].path).name
            raise broken(file, f"revision {script.revision} is in {other} as well")
        found[script.revision] = script
    return found


def _module(file: Path) -> ModuleType:
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    try:
        # What a revision prints is for people: stdout belongs to the one JSON object.
        with redirect_stdout(sys.stderr):
            exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except Interrupted:
        raise
    except (Exception, SystemExit) as error:
        raise broken(file, f"it does not load{place(error, file)}: {type(error).__name__}: {error}") from error
    return module


def _script(file: Path, module: ModuleType) -> Script:
    revision = getattr(module, "revision", None)
    if not isinstance(revision, str) or not revision:
        raise broken(file, 'it does not say which revision it is (revision = "…")')
    if not hasattr(module, "down_revision"):
        raise broken(file, f"revision {revision} does not say which one it follows (down_revision = …)")
    upgrade: Callable[[], None] | None = getattr(module, "upgrade", None)
    if not callable(upgrade):
        raise broken(file, f"revision {revision} has no upgrade()")
    module.__dict__.setdefault("downgrade", _no_downgrade)
    try:
        return Script(module, revision, file)
    except RevisionError as error:
        raise broken(file, str(error)) from error


def _no_downgrade() -> None:
    raise NotImplementedError("it has no downgrade()")


def _parent(script: Script, scripts: Mapping[str, Script]) -> str | None:
    named = script.module.down_revision
    parents = (named,) if isinstance(named, str) else tuple(named or ())
    for parent in parents:
        if parent not in scripts:
            raise broken(
                Path(script.path), f"revision {script.revision} follows {parent!r}, and there is no such revision"
            )
    if len(parents) > 1:
        raise Refused(
            f"{Path(script.path).name}: revision {script.revision} merges {' and '.join(parents)};"
            " dbsync walks one line of revisions",
            code="merge-revision",
            remedy="make the merged revisions follow one another (down_revision), and delete the merge",
        )
    return str(parents[0]) if parents else None


def place(error: BaseException, file: Path) -> str:
    """` (line N)`: where in this file an error came from; empty when it did not come from there."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f" (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f" (line {lines[-1]})" if lines else ""
