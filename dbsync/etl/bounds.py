"""From where to where a run of a job reads. Never skips: where something is in doubt it reads more, never less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dbsync.etl.job import Job
from dbsync.etl.runs import moment_of, moment_text
from dbsync.model import Position

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
"""Before every row."""

MARGIN = timedelta(seconds=1)
"""An application stamps a row a little before the database records its change, perhaps in whole seconds."""

LATE_COMMITS, CLOCK_WENT_BACK, SOURCE_CHANGED = "late-commits", "clock-went-back", "source-changed"
INTO_CHANGED, SINCE_TOO_LATE, REACHED_BACK = "into-changed", "since-too-late", "reached-back"


@dataclass(frozen=True, slots=True)
class Ended:
    """Where the last finished run of a job ended, as it is stored on the target with what that run loaded.

    `source` is the identity of the database it read, at which `epoch`; `into` the table it wrote.
    """

    source: str
    epoch: int
    into: str
    until: datetime
    position: Position
    run: str

    def as_document(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "source": self.source,
            "epoch": self.epoch,
            "into": self.into,
            "until": moment_text(self.until),
            "position": str(self.position),
            "run": self.run,
        }


def from_document(document: Mapping[str, Any] | None) -> Ended | None:
    """What a stored document says, None where there is none."""
    if document is None:
        return None
    until = moment_of(document["until"]) or EARLIEST
    position = Position(document["position"])
    return Ended(document["source"], document["epoch"], document["into"], until, position, document["run"])


@dataclass(frozen=True, slots=True)
class Source:
    """The source at the moment that a run reads: identity, epoch, the time by its own clock, the position.

    `oldest` is the stamp of the oldest change recorded after the last finished run's position, None when there is
    none. `captured`: the changes of every table that the job reads are recorded since then, so that `oldest` speaks of
    them. `reflects` is the moment up to which an idle source is known to follow.
    """

    identity: str
    epoch: int
    clock: datetime
    position: Position
    oldest: datetime | None = None
    captured: bool = False
    reflects: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run reads. `since` EARLIEST: everything; `after` (through only) None: every key. `exact`: see `floor`."""

    since: datetime
    until: datetime
    after: Position | None
    warnings: tuple[str, ...] = ()
    exact: bool = False

    @property
    def floor(self) -> datetime:
        """What is bound as `:since`: unless it is exact, just before its whole second.

        A row stamped 12:00:05 by a clock of whole seconds may have been committed at 12:00:05.9, after a run that
        ended at 12:00:05.3; and as a text that stamp stands before 12:00:05.000000.
        """
        return self.since if self.exact else _less(self.since.replace(microsecond=0), timedelta(microseconds=1))


def bounds(job: Job, ended: Ended | None, source: Source, since: datetime | None = None) -> Bounds:
    """This run's bounds.

    The usual ones are the last finished run's end less `overlap`, and now by the source's clock. A replacing job, a
    first run, another source than before or a handover since (another clock, other positions) and a clock that stands
    before the stored end all read from the beginning.
    """
    warnings: list[str] = []
    if job.bounded and job.mode != "replace" and not job.late:
        warnings.append(LATE_COMMITS)
    until = source.clock if source.reflects is None else min(source.clock, source.reflects)
    known = _comparable(job, ended, source, until, warnings)
    if known is None or job.mode == "replace":
        # Only a first run may begin where it was told to: of every other one something would be left out.
        begin = since if since is not None and ended is None and job.mode != "replace" else EARLIEST
        return Bounds(begin, until, None, tuple(warnings))
    if since is not None and job.through is not None:
        return Bounds(EARLIEST, until, None, tuple(warnings))
    usual = _less(known.until, job.late)
    if source.oldest is not None and _less(source.oldest, MARGIN) < usual:
        # Something was recorded after the last run had read, and is stamped before where this one would begin: it was
        # committed late, or stamped in whole seconds, or the clock was moved back meanwhile.
        usual = _less(source.oldest, MARGIN)
        if source.oldest < _less(known.until, job.late + MARGIN):
            warnings.append(REACHED_BACK)
    if since is not None and since > usual:
        warnings.append(SINCE_TOO_LATE)
    return Bounds(min(usual, since or usual), until, known.position, tuple(warnings), source.captured)


def _comparable(job: Job, ended: Ended | None, source: Source, until: datetime, warnings: list[str]) -> Ended | None:
    """The last run's end, where this run may go on from it."""
    if ended is None:
        return None
    # Rows that came in while the other side was live carry its clock's stamps; keys need no clock.
    if ended.source != source.identity or (job.bounded and ended.epoch != source.epoch):
        warnings.append(SOURCE_CHANGED)
        return None
    if ended.into.casefold() != job.into.casefold():
        warnings.append(INTO_CHANGED)
        return None
    if job.bounded and until < ended.until:
        warnings.append(CLOCK_WENT_BACK)
        return None
    return ended


def _less(moment: datetime, by: timedelta) -> datetime:
    """A moment less a time, never before the earliest one."""
    return EARLIEST if moment - EARLIEST <= by else moment - by
