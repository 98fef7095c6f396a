"""When a job is due: cron expressions in a time zone, as crontab(5) reads them. Values only; `after` is given.

The library finds the wall times that an expression names. What a change of the clocks does to them is said here, by
the rule of Debian's cron, because the library's own handling leaves out runs where clocks change by half an hour:

* minute or hour begin with `*`: the job runs by real time. An hour that happens twice has its runs twice, one that does
  not happen has none.
* otherwise the job has fixed times: one that does not happen (02:30 on the night of spring) runs once, at the change;
  one that happens twice runs once, the first time.
"""

from __future__ import annotations

import difflib
import functools
import heapq
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from dbsync.errors import ConfigError

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = 5
CHANGE = timedelta(hours=3)
"""No zone moves its clocks back by more than this."""
MINUTE = timedelta(minutes=1)
LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=366))
AHEAD, MOST_AHEAD = timedelta(days=8), 700
"""How far, and how many runs, the longest wait between two runs is looked for."""


def check_zone(name: str, where: str) -> None:
    """Raises ConfigError (`bad-timezone`), naming the place, when there is no such zone."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):
        close = difflib.get_close_matches(name, sorted(available_timezones()), 1, 0.6)
        raise ConfigError(
            f"{where} is {name!r}, which is not a time zone.",
            code="bad-timezone",
            remedy=f"Did you mean {close[0]!r}?" if close else 'Give a name such as "UTC" or "Europe/Berlin".',
        ) from None


def check(expression: str, where: str) -> None:
    """Raises ConfigError (`bad-schedule`), naming the place, when it is no cron expression or never comes true."""
    try:
        found = next(_walls(expression, datetime(2024, 1, 1, tzinfo=UTC)), None)
    except (CronSimError, AssertionError, TypeError, ValueError) as exc:
        raise _bad(expression, where, f"is not a cron expression ({str(exc).lower() or 'not understood'})") from None
    if found is None:
        raise _bad(expression, where, "names a day that never comes")


def _bad(expression: str, where: str, what: str) -> ConfigError:
    return ConfigError(
        f"{where} is {expression!r}, which {what}.",
        code="bad-schedule",
        remedy='Write minute, hour, day of the month, month and day of the week, for example "*/15 * * * *".',
    )


def runs_after(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Every moment (in UTC, strictly increasing) at which the expression is due, later than `after`."""
    place = _zone(zone)
    fixed = not any(field.startswith("*") for field in _fields(expression)[:2])
    wall = after.astimezone(place).replace(tzinfo=None, microsecond=0)
    # A wall time that has passed once may come again when the clocks go back.
    turns = _offset(after - CHANGE, place) != _offset(after + CHANGE, place)
    last, waiting = after, list[datetime]()
    for named in _walls(expression, wall - CHANGE if turns else wall):
        moments = _moments(named, place, fixed)
        for moment in moments:
            heapq.heappush(waiting, moment)
        while moments and waiting and waiting[0] <= moments[0]:
            found = heapq.heappop(waiting)
            if found > last:
                yield found
                last = found
    yield from sorted(one for one in set(waiting) if one > last)


def next_run(expression: str, zone: str, after: datetime) -> datetime:
    """The first moment (in UTC) later than `after` at which the expression is due. It has been through `check`."""
    return next(runs_after(expression, zone, after))


def runs_between(expression: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """The moments (in UTC) at which the expression is due, with `after` < moment <= `until`."""
    return takewhile(lambda moment: moment <= until, runs_after(expression, zone, after))


def last_run(expression: str, zone: str, after: datetime, until: datetime) -> datetime | None:
    """The last of `runs_between`, found from its end; None when there is none."""
    for span in LOOK_BACK:
        begin = max(after, until - span)
        found = deque(runs_between(expression, zone, begin, until), maxlen=1)
        if found or begin == after:
            return found[0] if found else None
    found = deque(runs_between(expression, zone, after, until), maxlen=1)
    return found[0] if found else None


def longest_wait(expression: str, zone: str, after: datetime) -> float:
    """The longest time in seconds between two runs in the days to come; between the next two where those are rarer."""
    runs = list(islice(runs_between(expression, zone, after, after + AHEAD), MOST_AHEAD))
    runs = runs if len(runs) > 1 else list(islice(runs_after(expression, zone, after), 2))
    return max(((late - early).total_seconds() for early, late in pairwise(runs)), default=0.0)


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _fields(expression: str) -> list[str]:
    return NAMED.get(expression.strip().casefold(), expression).split()


def _walls(expression: str, wall: datetime) -> Iterator[datetime]:
    """The wall times later than `wall` that the expression names."""
    fields = _fields(expression)
    if len(fields) != FIELDS:
        raise ValueError(f"{len(fields)} fields instead of {FIELDS}")
    return iter(CronSim(" ".join(fields), wall))


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _moments(wall: datetime, zone: ZoneInfo, fixed: bool) -> list[datetime]:
    """When a clock on the wall shows this: once, twice, or never (then, for a fixed time, at the change)."""
    while True:
        first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first.astimezone(zone).replace(tzinfo=None) == wall:
            return [first] if fixed or first == second else [first, second]
        if not fixed:
            return []
        wall += MINUTE
