"""What is due, skipped, missed, or begun again: values only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbsync.etl.schedule import (
    CLOCK_WENT_BACK,
    MOST_COUNTED,
    TRIES,
    Decision,
    Open,
    Schedule,
    Taken,
    decide,
    from_document,
    latest,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
QUARTERLY = Schedule("*/15 * * * *", "UTC")


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_a_schedule_that_is_seen_for_the_first_time_begins_with_the_present_minute() -> None:
    assert decide(QUARTERLY, None, False, at(14)) == Decision(Taken(at(13)))
    found = decide(QUARTERLY, None, False, at(15.9), "me")
    assert found == Decision(Taken(at(15), Open(at(15), 1, "me")), start=at(15))


def test_nothing_is_due_before_its_time() -> None:
    assert decide(QUARTERLY, Taken(at(1)), False, at(14.99)) == Decision()


def test_what_is_due_is_taken_and_started() -> None:
    found = decide(QUARTERLY, Taken(NOON), False, at(15.01), "me")
    assert found == Decision(Taken(at(15), Open(at(15), 1, "me")), start=at(15))


def test_a_due_time_is_taken_once() -> None:
    found = decide(QUARTERLY, Taken(NOON), False, at(15))
    assert found.taken is not None
    assert decide(QUARTERLY, found.taken, True, at(15)) == Decision()
    assert decide(QUARTERLY, replace(found.taken, open=None), False, at(16)) == Decision()


def test_what_is_due_while_the_run_before_still_goes_is_skipped() -> None:
    going = Taken(at(15), Open(at(15)))
    found = decide(QUARTERLY, going, True, at(30.5))
    assert found.taken == Taken(at(30), Open(at(15)))
    assert found.skipped is not None
    assert (found.skipped.last, found.skipped.count, found.start, found.missed) == (at(30), 1, None, None)


def test_runs_missed_while_nothing_was_running_are_made_up_once() -> None:
    found = decide(QUARTERLY, Taken(NOON), False, at(100))
    assert found.start == at(90)
    assert found.missed is not None
    assert (found.missed.first, found.missed.last, found.missed.count) == (at(15), at(90), 6)


def test_one_on_time_is_not_called_missed() -> None:
    found = decide(QUARTERLY, Taken(NOON), False, at(46))
    assert found.missed is not None
    assert (found.start, found.missed.last, found.missed.count) == (at(45), at(30), 2)
    assert decide(QUARTERLY, Taken(at(30)), False, at(46)).missed is None


def test_a_scheduler_that_is_itself_run_from_time_to_time_calls_the_last_one_on_time() -> None:
    assert decide(QUARTERLY, Taken(NOON), False, at(29), on_time=None).missed is None
    assert decide(QUARTERLY, Taken(NOON), False, at(29)).missed is not None


def test_what_died_is_begun_again_a_few_times() -> None:
    taken: Taken | None = Taken(at(15), Open(at(15)))
    for tries in range(2, TRIES + 1):
        found = decide(QUARTERLY, taken, False, at(16))
        assert (found.start, found.died) == (at(15), at(15))
        assert found.taken is not None
        assert found.taken.open is not None
        assert found.taken.open.tries == tries
        taken = found.taken
    found = decide(QUARTERLY, taken, False, at(16))
    assert (found.start, found.died) == (None, at(15))
    assert found.taken == Taken(at(15))


def test_what_was_stopped_is_begun_again_without_a_word() -> None:
    found = decide(QUARTERLY, Taken(at(15), Open(at(15), told=True)), False, at(16))
    assert (found.start, found.died) == (at(15), None)


def test_what_died_gives_way_to_what_is_due() -> None:
    found = decide(QUARTERLY, Taken(at(15), Open(at(15))), False, at(30))
    assert (found.start, found.died, found.missed) == (at(30), at(15), None)


def test_a_clock_that_went_back_two_hours_does_not_stop_the_schedule() -> None:
    found = decide(QUARTERLY, Taken(at(120)), False, at(1))
    assert (found.taken, found.warning) == (Taken(at(1)), CLOCK_WENT_BACK)
    assert decide(QUARTERLY, found.taken, False, at(15)).start == at(15)


def test_a_clock_a_little_behind_another_ones_takes_nothing_twice() -> None:
    assert decide(QUARTERLY, Taken(at(15)), False, at(14)) == Decision()


def test_a_long_time_is_not_counted_to_its_end() -> None:
    found = decide(Schedule("* * * * *", "UTC"), Taken(NOON - timedelta(days=30)), False, at(0.1))
    assert found.missed is not None
    assert found.missed.count == MOST_COUNTED + 1
    assert str(found.missed).startswith(f"more than {MOST_COUNTED} due times")
    assert found.start == NOON


def test_after_the_sides_were_exchanged_the_newest_word_counts_and_only_the_targets_own_run_is_open() -> None:
    here, there = Taken(at(-3000), Open(at(-3000))), Taken(at(15), Open(at(15)), {"run": "x"})
    assert latest(here, [there]) == Taken(at(15), here.open, {"run": "x"})
    assert latest(None, [there]) == Taken(at(15), None, {"run": "x"})
    assert latest(None, [None]) is None


def test_a_document_says_what_was_stored() -> None:
    for taken in (Taken(NOON), Taken(at(15), Open(at(15), 2, "h:1", True), {"status": "done"})):
        assert from_document(taken.as_document()) == taken
    assert from_document(None) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=30).map(sorted), st.data())
def test_however_it_is_looked_at_every_due_time_is_run_skipped_or_missed_exactly_once(
    looks: list[int], data: st.DataObject
) -> None:
    taken: Taken | None = Taken(NOON)
    accounted: list[datetime] = []
    for seconds in looks:
        now = NOON + timedelta(seconds=seconds)
        busy = data.draw(st.booleans())
        found = decide(QUARTERLY, taken, busy, now)
        for passed in (found.missed, found.skipped):
            if passed is not None:
                accounted += [passed.first + timedelta(minutes=15) * n for n in range(passed.count)]
        if found.start is not None and found.start not in accounted:
            accounted.append(found.start)
        taken = replace(found.taken, open=None) if found.taken is not None else taken
    end = NOON + timedelta(seconds=looks[-1])
    due = [at(15 * n) for n in range(1, 300) if at(15 * n) <= end]
    assert accounted == due


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_night_on_which_clocks_go_back_runs_a_nightly_job_once(zone: str) -> None:
    nightly = Schedule("30 2 * * *", zone)
    taken: Taken | None = Taken(datetime(2026, 10, 24, 12, tzinfo=UTC))
    started = []
    for minute in range(0, 24 * 60, 7):
        found = decide(nightly, taken, False, datetime(2026, 10, 24, 12, tzinfo=UTC) + timedelta(minutes=minute))
        taken = replace(found.taken, open=None) if found.taken is not None else taken
        started += [found.start] if found.start is not None else []
    assert len(started) == 1
