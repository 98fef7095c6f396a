"""Reading the jobs' files: etl/jobs/<name>.py, each of which gives `job`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dbsync.adapters.crossings import cause_of
from dbsync.errors import ConfigError

RESERVED = frozenset({"sync"})
"""Names of jobs that are built in."""

_NAME = re.compile(r"[^\W_][\w-]*")


def load_jobs(folder: Path) -> dict[str, Any]:
    """The jobs of a folder (etl/jobs) by name, sorted; empty when it does not exist. A file `_…` is no job.

    Raises ConfigError (`broken-job`), with the file and the cause, for a file that cannot be used.
    """
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", code="broken-job", remedy="let it be a folder of jobs")
    return {path.stem: _load(path) for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def _load(path: Path) -> Any:
    if path.stem in RESERVED:
        raise _broken(path, f"{path.stem} is the name of a built-in job")
    if _NAME.fullmatch(path.stem) is None:
        raise _broken(path, "a job's name is made of letters, digits, _ and -")
    module = ModuleType(f"dbsync_job_{path.stem}")
    module.__file__ = str(path)
    before = sys.modules.get(module.__name__)
    # Some of the standard library looks a class's module up by name while the file runs.
    sys.modules[module.__name__] = module
    try:
        # Compiled from the text each time: a stale cache must never decide what a job does.
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        if before is None:
            del sys.modules[module.__name__]
        else:
            sys.modules[module.__name__] = before
        raise _broken(path, cause_of(path, error), getattr(error, "remedy", "")) from error
    job = getattr(module, "job", None)
    if job is None:
        raise _broken(path, "it gives no `job`")
    if not all(hasattr(job, part) for part in ("extract", "into", "key", "mode", "schedule")):
        raise _broken(path, f"job is a {type(job).__name__}, not a Job")
    return job


def _broken(path: Path, found: str, remedy: str = "") -> ConfigError:
    return ConfigError(f"{path}: {found}", code="broken-job", remedy=remedy or "correct the job's file")
