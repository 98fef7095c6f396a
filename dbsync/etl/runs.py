"""What one run of a job did, as a value and as the document that is stored of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from math import isfinite
from typing import Any

from dbsync.model import Value

DONE, REJECTED, FAILED = "done", "rejected", "failed"
INTERRUPTED, SKIPPED, MISSED = "interrupted", "skipped", "missed"

KEPT_RUNS = 1_000
"""How many runs of a job are kept."""

KEPT_REJECTS = 1_000
"""How many rejected rows of one run are kept; all are counted."""

KEPT_REJECTING = 50
"""Of how many runs of a job the rejected rows are kept."""

_PLAIN = ("job", "run", "status", "read", "written", "rejected", "attempts", "reason", "database")
_MOMENTS = ("since", "until", "started", "ended", "due")

_LONGEST = 500
"""Characters of one cell that are kept of a rejected row."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job. `since` None: from the beginning; both None also where the job has no clock bounds."""

    job: str
    run: str
    status: str
    """done | rejected (some rows were set aside) | failed | interrupted | skipped | missed."""
    read: int = 0
    written: int = 0
    rejected: int = 0
    since: datetime | None = None
    until: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 1
    reason: str = ""
    warnings: tuple[str, ...] = ()
    database: str = ""
    """The environment on which it is recorded: the job's target at that time."""
    due: datetime | None = None
    """The due time of the schedule that it was started for, None for a run by hand."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        if self.started is None or self.ended is None:
            return 0.0
        return max(0.0, round((self.ended - self.started).total_seconds(), 3))

    def as_document(self) -> dict[str, Any]:
        """The run as plain JSON; moments in ISO 8601, UTC."""
        return {
            "job": self.job,
            "run": self.run,
            "status": self.status,
            "read": self.read,
            "written": self.written,
            "rejected": self.rejected,
            "since": moment_text(self.since),
            "until": moment_text(self.until),
            "started": moment_text(self.started),
            "ended": moment_text(self.ended),
            "seconds": self.seconds,
            "attempts": self.attempts,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "database": self.database,
            "due": moment_text(self.due),
        }


def from_document(document: Mapping[str, Any]) -> Run:
    """The run that a stored document tells of."""
    given: dict[str, Any] = {name: document[name] for name in _PLAIN}
    given |= {name: moment_of(document.get(name)) for name in _MOMENTS}
    return Run(**given, warnings=tuple(document["warnings"]))


def moment_text(moment: datetime | None) -> str | None:
    """A moment in ISO 8601 with microseconds, or None."""
    return None if moment is None else moment.isoformat(timespec="microseconds")


def moment_of(text: str | None) -> datetime | None:
    """The moment that such a text names, or None."""
    return None if text is None else datetime.fromisoformat(text)


def in_order(runs: Iterable[Run]) -> list[Run]:
    """Runs from the oldest to the newest."""
    return sorted(runs, key=lambda run: (moment_text(run.started) or "", run.run))


def outlived(runs: Iterable[Run], job: str) -> tuple[list[str], list[str]]:
    """Which runs of a job are too old to be kept, and of which the rejected rows are: their names."""
    ordered = [run for run in in_order(runs) if run.job == job]
    rejecting = [run for run in ordered if run.rejected]
    old = [run.run for run in ordered[:-KEPT_RUNS]]
    return old, sorted({*old, *(run.run for run in rejecting[:-KEPT_REJECTING])})


def shown(value: Value) -> Any:
    """A cell of a rejected row as plain JSON; long ones are cut."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, bytes | bytearray):
        value = value.hex()
    elif isinstance(value, datetime | date | time):
        value = value.isoformat()
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
