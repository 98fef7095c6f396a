"""Reading the crossings' files: etl/<revision>_<slug>.py."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dbsync.errors import ConfigError, DbsyncError


@dataclass(frozen=True, slots=True)
class CrossingFile:
    """Both directions of one revision's crossing (None: by column name), and the file."""

    forward: Any
    reverse: Any
    path: Path
    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By direction and folded table, where the file speaks of it."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """A crossing's file that cannot be used: its revision (None: no revision is called so), and why."""

    revision: str | None
    path: Path
    error: ConfigError


def load_each(folder: Path, revisions: Sequence[str]) -> tuple[dict[str, CrossingFile], list[Faulty]]:
    """As `load_crossings`, but what is wrong with a file is given beside the others instead of being raised."""
    found: dict[str, CrossingFile] = {}
    faulty: list[Faulty] = []
    for path in sorted(folder.glob("*.py")):
        revision = revision_of(path, revisions)
        if revision is None:
            found_none = _broken(path, "its name begins with no revision of the migrations, so nothing reads it")
            faulty.append(Faulty(None, path, found_none))
        elif revision in found:
            faulty.append(Faulty(revision, path, _second(path, revision, found)))
        else:
            try:
                found[revision] = _load(path, revision)
            except ConfigError as error:
                faulty.append(Faulty(revision, path, error))
    return found, faulty


def load_crossings(folder: Path, revisions: Sequence[str]) -> dict[str, CrossingFile]:
    """The crossings of these revisions, by revision; empty when the folder does not exist.

    Raises ConfigError (`broken-crossing`), with the file and the cause, for a file that cannot be used.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", code="broken-crossing", remedy="correct [etl] path")
    found: dict[str, CrossingFile] = {}
    for path in sorted(folder.glob("*.py")):
        revision = revision_of(path, revisions)
        if revision is None:
            continue
        if revision in found:
            raise _second(path, revision, found)
        found[revision] = _load(path, revision)
    return found


def revision_of(path: Path, revisions: Sequence[str]) -> str | None:
    """The revision that a file's name begins with (the longest one), or None."""
    stem = path.stem
    matching = [each for each in revisions if stem == each or stem.startswith(f"{each}_")]
    return max(matching, key=len, default=None)


def _load(path: Path, revision: str) -> CrossingFile:
    module = ModuleType(f"dbsync_crossing_{revision}")
    module.__file__ = str(path)
    before = sys.modules.get(module.__name__)
    # Some of the standard library looks a class's module up by name while the file runs.
    sys.modules[module.__name__] = module
    try:
        # Compiled from the text each time: a stale cache must never decide how rows cross.
        text = path.read_text(encoding="utf-8")
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise _broken(path, cause_of(path, error)) from error
    directions = {name: getattr(module, name, None) for name in ("forward", "reverse")}
    for name, given in directions.items():
        if given is not None and not _is_crossing(given):
            raise _broken(path, f"{name} is a {type(given).__name__}, not a Crossing")
    if directions == {"forward": None, "reverse": None}:
        raise _broken(path, "it gives neither forward nor reverse")
    return CrossingFile(directions["forward"], directions["reverse"], path, _lines(text))


def _lines(text: str) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for statement in ast.parse(text).body:
        for target in statement.targets if isinstance(statement, ast.Assign) else ():
            if isinstance(target, ast.Name) and target.id in ("forward", "reverse"):
                for call in ast.walk(statement):
                    first = call.args[0] if isinstance(call, ast.Call) and call.args else None
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        found.setdefault((target.id, first.value.casefold()), first.lineno)
    return found


def _second(path: Path, revision: str, found: Mapping[str, CrossingFile]) -> ConfigError:
    return _broken(path, f"revision {revision} has another file, {found[revision].path.name}")


def _is_crossing(given: object) -> bool:
    tables = getattr(given, "tables", None)
    return isinstance(tables, tuple) and all(hasattr(each, "name") and hasattr(each, "sql") for each in tables)


def cause_of(path: Path, error: BaseException) -> str:
    """What went wrong in a file that was run, with its line where one is known."""
    if isinstance(error, DbsyncError):
        return error.message
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"line {line}: " if line is not None else ""
    return f"{place}{type(error).__name__}: {error}"


def _broken(path: Path, found: str) -> ConfigError:
    return ConfigError(f"{path}: {found}", code="broken-crossing", remedy="correct the crossing's file")
