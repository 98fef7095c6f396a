"""Due times: strictly increasing, as a minute-by-minute reading of the wall clock says, right when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbsync.errors import ConfigError
from dbsync.etl.cron import check, check_zone, last_run, longest_wait, next_run, runs_after, runs_between

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo")
BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"
MINUTE = timedelta(minutes=1)

# The hours around every change of the clocks in 2026 of the zones above, and quiet ones between.
CHANGES = [
    datetime(2026, 3, 8, 6, tzinfo=UTC),
    datetime(2026, 3, 29, 0, tzinfo=UTC),
    datetime(2026, 4, 4, 14, tzinfo=UTC),
    datetime(2026, 4, 23, 21, tzinfo=UTC),
    datetime(2026, 7, 1, tzinfo=UTC),
    datetime(2026, 10, 3, 15, tzinfo=UTC),
    datetime(2026, 10, 25, 0, tzinfo=UTC),
    datetime(2026, 10, 29, 20, tzinfo=UTC),
    datetime(2026, 11, 1, 5, tzinfo=UTC),
]


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    change = draw(st.sampled_from(CHANGES))
    return change + timedelta(minutes=draw(st.integers(-300, 300)), microseconds=draw(st.integers(0, 59_999_999)))


def lists(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.lists(st.integers(low, high), min_size=1, max_size=3).map(lambda found: ",".join(map(str, found)))
    return st.one_of(
        st.just("*"), st.sampled_from(["*/2", "*/7", "*/20"]).filter(lambda s: int(s[2:]) <= high), numbers
    )


def hits(field: str, value: int) -> bool:
    if field.startswith("*"):
        return value % int(field[2:] or 1) == 0
    return str(value) in field.split(",")


def wall(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone))


def minutes(after: datetime, until: datetime) -> list[datetime]:
    first = after.replace(second=0, microsecond=0) + MINUTE
    return [first + MINUTE * n for n in range(int((until - first) / MINUTE) + 1)]


@settings(deadline=None, max_examples=30)
@given(lists(0, 59), lists(0, 23), st.sampled_from(ZONES), moments())
def test_runs_strictly_increase_and_each_is_the_next_one_of_the_one_before(
    minute: str, hour: str, zone: str, after: datetime
) -> None:
    expression = f"{minute} {hour} * * *"
    found = list(islice(runs_after(expression, zone, after), 12))
    assert all(early < late for early, late in pairwise([after, *found]))
    assert [next_run(expression, zone, one) for one in [after, *found[:-1]]] == found


@settings(deadline=None, max_examples=30)
@given(lists(0, 59), lists(0, 23), st.sampled_from(ZONES), moments())
def test_a_job_with_a_star_runs_in_exactly_the_real_minutes_at_which_the_wall_clock_shows_it(
    minute: str, hour: str, zone: str, after: datetime
) -> None:
    if not (minute.startswith("*") or hour.startswith("*")):
        minute = "*/20"
    until = after + timedelta(hours=7)
    shown = [
        one
        for one in minutes(after, until)
        if hits(minute, wall(one, zone).minute) and hits(hour, wall(one, zone).hour)
    ]
    assert list(runs_between(f"{minute} {hour} * * *", zone, after, until)) == shown


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(ZONES), moments())
def test_a_job_at_a_fixed_time_runs_once_every_day_whatever_the_clocks_do(
    minute: int, hour: int, zone: str, after: datetime
) -> None:
    begin = after - timedelta(days=2)
    found = list(runs_between(f"{minute} {hour} * * *", zone, begin, after + timedelta(days=2)))
    days = [wall(one, zone).date() for one in found]
    assert len(set(days)) == len(days)
    assert all(late - early == timedelta(days=1) for early, late in pairwise(days))
    for one in found:
        there = wall(one, zone)
        moved = (there.hour, there.minute) != (hour, minute)
        # It runs at another time only where that time was left out: at the first minute after the change.
        assert not moved or there.utcoffset() != wall(one - MINUTE, zone).utcoffset()


@pytest.mark.parametrize(
    ("zone", "expression", "after", "runs"),
    [
        (BERLIN, "30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        (BERLIN, "30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        (BERLIN, "30 2 * * *", "2026-10-25T00:30", ["2026-10-26T01:30"]),
        (BERLIN, "0,15,30,45 2 * * *", "2026-03-29T00:50", ["2026-03-29T01:00", "2026-03-30T00:00"]),
        (BERLIN, "0 * * * *", "2026-03-29T00:00", ["2026-03-29T01:00", "2026-03-29T02:00"]),
        (BERLIN, "0 * * * *", "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]),
        (BERLIN, "*/30 2 * * *", "2026-10-24T23:50", [f"2026-10-25T0{n}" for n in ("0:00", "0:30", "1:00", "1:30")]),
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00", ["2026-03-08T07:00", "2026-03-09T06:30"]),
        ("America/New_York", "30 1 * * *", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        # Half an hour: 02:00 becomes 02:30 in October, and 01:30 to 02:00 happens twice in April.
        (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04T12:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
        (LORD_HOWE, "*/15 * * * *", "2026-04-04T14:40", [f"2026-04-04T{n}" for n in ("14:45", "15:00", "15:15")]),
        (LORD_HOWE, "*/20 3 * * *", "2026-04-04T14:00", [f"2026-04-04T{n}" for n in ("16:30", "16:50", "17:10")]),
        ("UTC", "0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00"]),
        ("UTC", "0 6 1 * 1", "2026-11-28T00:00", ["2026-11-30T06:00", "2026-12-01T06:00", "2026-12-07T06:00"]),
        ("UTC", "@daily", "2026-11-28T00:00", ["2026-11-29T00:00"]),
    ],
)
def test_what_happens_when_the_clocks_change(zone: str, expression: str, after: str, runs: list[str]) -> None:
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = [f"{one:%Y-%m-%dT%H:%M}" for one in islice(runs_after(expression, zone, begin), len(runs))]
    assert found == runs


@pytest.mark.parametrize(
    "expression",
    ["", "x", "* * * *", "* * * * * *", "60 * * * *", "*/0 * * * *", "0 0 31 2 *", "5-1 * * * *", "@reboot"],
)
def test_what_is_no_schedule_is_refused_with_its_place(expression: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(expression, "etl.schedule.nightly")
    assert caught.value.code == "bad-schedule"
    assert "etl.schedule.nightly" in caught.value.message
    assert repr(expression) in caught.value.message


@pytest.mark.parametrize("zone", ["", "Europe/Berln", "/etc/localtime", "../UTC", "Europe"])
def test_what_is_no_zone_is_refused_with_its_place(zone: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_zone(zone, "etl.timezone")
    assert (caught.value.code, "etl.timezone" in caught.value.message) == ("bad-timezone", True)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["*/15 * * * *", "0 3 * * *", "30 2 * * 0", "0 0 1 * *"]), moments(), st.integers(0, 90_000))
def test_the_last_run_is_the_last_of_all_runs(expression: str, after: datetime, length: int) -> None:
    until = after + timedelta(minutes=length)
    every = list(runs_between(expression, BERLIN, after, until))
    assert last_run(expression, BERLIN, after, until) == (every[-1] if every else None)


def test_the_longest_wait_is_over_a_weekend_and_a_leap_year() -> None:
    friday = datetime(2026, 11, 27, tzinfo=UTC)
    assert longest_wait("*/5 * * * *", "UTC", friday) == 300
    assert longest_wait("0 8,20 * * 1-5", "UTC", friday) == 60 * 3600
    assert longest_wait("0 0 1 1 *", "UTC", friday) == 365 * 86400
