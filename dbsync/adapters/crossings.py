"""Reading the crossings' files: etl/<revision>_<slug>.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
            raise _broken(path, f"revision {revision} has another file, {found[revision].path.name}")
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
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise _broken(path, _cause(path, error)) from error
    directions = {name: getattr(module, name, None) for name in ("forward", "reverse")}
    for name, given in directions.items():
        if given is not None and not _is_crossing(given):
            raise _broken(path, f"{name} is a {type(given).__name__}, not a Crossing")
    if directions == {"forward": None, "reverse": None}:
        raise _broken(path, "it gives neither forward nor reverse")
    return CrossingFile(directions["forward"], directions["reverse"], path)


def _is_crossing(given: object) -> bool:
    tables = getattr(given, "tables", None)
    return isinstance(tables, tuple) and all(hasattr(each, "name") and hasattr(each, "sql") for each in tables)


def _cause(path: Path, error: BaseException) -> str:
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
