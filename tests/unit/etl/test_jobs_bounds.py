"""From where to where a run reads, as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dbsync.etl import Job
from dbsync.etl.bounds import EARLIEST, Ended, Source, bounds, from_document
from dbsync.model import Position

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
ENDED = Ended("blue-1", 3, "totals", NOON, Position("9.x"), "run")
NOW = Source("blue-1", 3, NOON + timedelta(hours=1), Position("12.y"), None, True)
MOMENTS = st.integers(0, 10**12).map(lambda part: NOON + timedelta(microseconds=part))


def job(**given: Any) -> Job:
    bounded = "SELECT day, total FROM orders WHERE at >= :since AND at < :until"
    return Job(**({"extract": bounded, "into": "totals", "key": "day"} | given))


def through(**given: Any) -> Job:
    return job(extract="SELECT day, total FROM orders WHERE id IN (:keys)", through="orders", **given)


def test_a_run_goes_on_where_the_last_one_ended() -> None:
    found = bounds(job(overlap="5m"), ENDED, NOW)
    assert (found.since, found.until, found.warnings) == (NOON - timedelta(minutes=5), NOW.clock, ())
    assert found.floor == found.since


def test_the_first_run_reads_from_the_beginning() -> None:
    found = bounds(job(overlap="5m"), None, NOW)
    assert (found.since, found.until, found.floor, found.warnings) == (EARLIEST, NOW.clock, EARLIEST, ())


def test_without_an_overlap_late_commits_are_warned_of() -> None:
    assert bounds(job(), ENDED, NOW).warnings == ("late-commits",)
    assert bounds(job(overlap="0s"), ENDED, NOW).warnings == ("late-commits",)
    assert bounds(job(mode="replace"), ENDED, NOW).warnings == ()
    assert bounds(through(), ENDED, NOW).warnings == ()


def test_a_clock_behind_the_stored_end_reads_from_the_beginning() -> None:
    back = replace(NOW, clock=NOON - timedelta(hours=2))
    found = bounds(job(overlap="5m"), ENDED, back)
    assert (found.since, found.until, found.warnings) == (EARLIEST, back.clock, ("clock-went-back",))


def test_changes_that_need_no_clock_do_not_mind_one_that_went_back() -> None:
    found = bounds(through(), ENDED, replace(NOW, clock=NOON - timedelta(hours=2)))
    assert (found.after, found.warnings) == (ENDED.position, ())


def test_another_source_or_a_handover_since_reads_from_the_beginning() -> None:
    for other in (replace(NOW, identity="blue-2"), replace(NOW, epoch=5)):
        found = bounds(job(overlap="5m"), ENDED, other)
        assert (found.since, found.warnings) == (EARLIEST, ("source-changed",))


def test_positions_of_another_source_are_not_compared_and_those_of_the_same_one_outlive_a_handover() -> None:
    other = bounds(through(), ENDED, replace(NOW, identity="blue-2"))
    assert (other.after, other.warnings) == (None, ("source-changed",))
    assert bounds(through(), ENDED, replace(NOW, epoch=5)).after == ENDED.position


def test_a_job_that_writes_another_table_than_before_reads_from_the_beginning() -> None:
    found = bounds(job(overlap="5m"), replace(ENDED, into="Sums"), NOW)
    assert (found.since, found.warnings) == (EARLIEST, ("into-changed",))
    assert bounds(job(overlap="5m"), replace(ENDED, into="TOTALS"), NOW).warnings == ()


def test_a_replacing_job_always_reads_everything() -> None:
    assert bounds(job(mode="replace"), ENDED, NOW).since == EARLIEST
    assert bounds(through(mode="replace"), ENDED, NOW).after is None


def test_since_reads_further_back_and_never_skips() -> None:
    early, late = NOON - timedelta(days=1), NOON + timedelta(minutes=1)
    assert bounds(job(overlap="5m"), ENDED, NOW, early).since == early
    found = bounds(job(overlap="5m"), ENDED, NOW, late)
    assert (found.since, found.warnings) == (NOON - timedelta(minutes=5), ("since-too-late",))
    assert bounds(job(overlap="5m"), None, NOW, late).since == late
    assert bounds(through(), ENDED, NOW, late).after is None


def test_a_change_recorded_since_but_stamped_before_the_bound_moves_the_bound_back() -> None:
    found = bounds(job(), ENDED, replace(NOW, oldest=NOON - timedelta(minutes=7)))
    assert found.since == NOON - timedelta(minutes=7, seconds=1)
    assert "reached-back" in found.warnings
    usual = bounds(job(overlap="1h"), ENDED, replace(NOW, oldest=NOON - timedelta(minutes=7)))
    assert (usual.since, usual.warnings) == (NOON - timedelta(hours=1), ())


def test_an_idle_source_is_read_up_to_where_it_follows() -> None:
    found = bounds(job(source="idle", overlap="5m"), ENDED, replace(NOW, reflects=NOON + timedelta(minutes=1)))
    assert found.until == NOON + timedelta(minutes=1)


def test_where_it_cannot_be_told_what_is_recorded_a_stamp_in_whole_seconds_is_read_again() -> None:
    ended = replace(ENDED, until=NOON + timedelta(seconds=5, microseconds=300_000))
    found = bounds(job(), ended, replace(NOW, captured=False))
    assert found.since == ended.until
    assert f"{found.floor:%Y-%m-%d %H:%M:%S.%f}" <= "2024-06-01 12:00:05"


@given(MOMENTS, MOMENTS, st.none() | MOMENTS, st.none() | MOMENTS, st.sampled_from([None, "1s", "3h"]))
def test_a_run_never_begins_after_the_last_one_ended_less_the_overlap(
    end: datetime, now: datetime, oldest: datetime | None, since: datetime | None, overlap: str | None
) -> None:
    one = job(overlap=overlap)
    found = bounds(one, replace(ENDED, until=end), replace(NOW, clock=now, oldest=oldest), since)
    assert found.floor <= found.since <= end - one.late
    assert oldest is None or now < end or found.since <= oldest


def test_where_a_run_ended_survives_being_stored() -> None:
    assert from_document(ENDED.as_document()) == ENDED
    assert from_document(None) is None
