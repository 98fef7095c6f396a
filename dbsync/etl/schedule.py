"""What is due: from a schedule, what was taken before, and the present, to what to start and what to record.

A due time is *taken* by whoever runs it, under a lock on the target and before it runs, so that of two schedulers one
runs it. What was taken is stored as a document beside the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from dbsync.etl.cron import last_run, longest_wait, next_run, runs_between

SYNC = "sync"
"""The built-in job: one drain of the windows through the crossings."""

KIND = "due"
"""Under which kind the documents of what was taken are stored, one a job."""

CLOCK_WENT_BACK = "clock-went-back"
SKEW = timedelta(minutes=2)
"""Clocks of two machines may differ by this much; a taken time that lies further ahead means a clock that went back."""

NOW = timedelta(minutes=1)
"""What was due within this time is due now."""

ON_TIME = timedelta(minutes=2)
"""A due time that is older than this when it is seen was missed: nothing was running."""

TRIES = 3
"""How often a due time is begun again whose process died."""

MOST_COUNTED = 1_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is due: a cron expression, read in a time zone."""

    expression: str
    zone: str

    def next(self, after: datetime) -> datetime:
        """The first due time (UTC) later than `after`."""
        return next_run(self.expression, self.zone, after)

    def wait(self, after: datetime) -> float:
        """The longest time in seconds between two due times, looked for in the days to come."""
        return longest_wait(self.expression, self.zone, after)


@dataclass(frozen=True, slots=True)
class Open:
    """A due time that was taken and has not come to its end. `told`: its interruption is recorded already."""

    due: datetime
    tries: int = 1
    owner: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """Up to which due time a job's schedule has been dealt with; `open` is the one that is being run, if any.

    `last` is the document of the last scheduled run.
    """

    due: datetime
    open: Open | None = None
    last: Mapping[str, Any] | None = None

    def as_document(self) -> dict[str, Any]:
        """As plain JSON."""
        going = self.open
        return {
            "due": self.due.isoformat(),
            "open": None
            if going is None
            else {"due": going.due.isoformat(), "tries": going.tries, "owner": going.owner, "told": going.told},
            "last": None if self.last is None else dict(self.last),
        }


def from_document(document: Mapping[str, Any] | None) -> Taken | None:
    """What a stored document says, None where there is none."""
    if document is None:
        return None
    going = document.get("open")
    opened = None
    if going is not None:
        opened = Open(datetime.fromisoformat(going["due"]), going["tries"], going["owner"], going["told"])
    return Taken(datetime.fromisoformat(document["due"]), opened, document.get("last"))


def latest(here: Taken | None, others: Iterable[Taken | None]) -> Taken | None:
    """What is stored on the target, brought up to what the other database knows: the sides may have changed since."""
    known = [one for one in (here, *others) if one is not None]
    if not known:
        return None
    newest = max(known, key=lambda one: one.due)
    return Taken(newest.due, here.open if here is not None else None, newest.last)


@dataclass(frozen=True, slots=True)
class Passed:
    """Due times for which no run was started: the first, the last, and how many."""

    first: datetime
    last: datetime
    count: int

    def __str__(self) -> str:
        """As it stands in the history."""
        many = f"more than {MOST_COUNTED}" if self.count > MOST_COUNTED else str(self.count)
        times = "time" if self.count == 1 else "times"
        return f"{many} due {times}, {told(self.first)}" + (f" to {told(self.last)}" if self.count > 1 else "")


def told(moment: datetime) -> str:
    """A due time for people."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. `taken` is what to store (None: nothing changed), `start` the due time to run for.

    `died` is a due time whose run ended without a word; `skipped` and `missed` are to be recorded.
    """

    taken: Taken | None = None
    start: datetime | None = None
    died: datetime | None = None
    skipped: Passed | None = None
    missed: Passed | None = None
    warning: str = ""


def decide(
    schedule: Schedule,
    taken: Taken | None,
    busy: bool,
    now: datetime,
    owner: str = "",
    on_time: timedelta | None = ON_TIME,
) -> Decision:
    """What a look at a job's schedule says. `busy`: its last scheduled run still goes.

    A schedule that is seen for the first time begins with the present minute. However many due times have passed with
    nothing running, they are made up by one run, which carries the last of them. `on_time` None: the last one is
    never called missed (for a scheduler that is itself run from time to time).
    """
    if taken is None:
        begun = Taken(now - NOW)
        found = decide(schedule, begun, busy, now, owner, on_time)
        return found if found.taken is not None else Decision(begun)
    if taken.due > now + SKEW:
        return Decision(replace(taken, due=now), warning=CLOCK_WENT_BACK)
    left = None if busy else taken.open
    died = left.due if left is not None and not left.told else None
    last = last_run(schedule.expression, schedule.zone, taken.due, now)
    if last is None:
        return _again(taken, left, died, owner)
    if busy:
        return Decision(replace(taken, due=last), skipped=_passed(schedule, taken.due, last))
    begun = replace(taken, due=last, open=Open(last, owner=owner))
    late = on_time is not None and now - last > on_time
    before = last if late else last - timedelta(seconds=1)
    return Decision(begun, start=last, died=died, missed=_passed(schedule, taken.due, before))


def _again(taken: Taken, left: Open | None, died: datetime | None, owner: str) -> Decision:
    """Nothing new is due; what died or was stopped is begun again, a few times."""
    if left is None:
        return Decision()
    if died is not None and left.tries >= TRIES:
        return Decision(replace(taken, open=None), died=died)
    tries = left.tries + 1 if died is not None else left.tries
    return Decision(replace(taken, open=Open(left.due, tries, owner)), start=left.due, died=died)


def _passed(schedule: Schedule, after: datetime, until: datetime) -> Passed | None:
    """The due times with `after` < time <= `until`; None when there is none."""
    last = last_run(schedule.expression, schedule.zone, after, until)
    if last is None:
        return None
    counted = list(islice(runs_between(schedule.expression, schedule.zone, after, last), MOST_COUNTED + 1))
    return Passed(counted[0], last, len(counted))
