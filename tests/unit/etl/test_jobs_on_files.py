"""Jobs between two real files."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbsync.errors import ConfigError, Interrupted, PositionLost, Refused, Unavailable
from dbsync.etl import Job, runs
from dbsync.etl.load import read_rejects, read_runs
from tests.unit.etl.jobs_world import World, each, once, sums


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.dispose()


def test_a_run_loads_what_changed_since_the_last_one_and_says_so(world: World) -> None:
    for number in range(6):
        world.order(number, day="ab"[number % 2], total=number)
    first = world.run(sums(overlap=None))
    assert (first.status, first.read, first.written, first.rejected) == ("done", 2, 2, 0)
    assert (first.since, first.warnings) == (None, ("late-commits",))
    assert world.rows("totals") == [("a", 6), ("b", 9)]
    second = world.run(sums(overlap=None))
    assert (second.status, second.read, second.since) == ("done", 0, first.until)
    world.order(9, day="b", total=100)
    third = world.run(sums(overlap=None))
    assert world.rows("totals") == [("a", 6), ("b", 109)]
    assert read_runs(world.databases.values(), "other") == []
    assert read_runs(world.databases.values(), "job", 1) == [third]
    assert read_runs(world.databases.values()) == [first, second, third]


def test_what_a_job_writes_on_the_idle_side_is_no_change_of_the_applications(world: World) -> None:
    with world.databases["green"].view() as view:
        before = view.position()
    world.order(1)
    world.run(sums())
    with world.databases["green"].view() as view:
        assert view.changes(before).count == 0


def test_replace_leaves_nothing_of_before_and_upsert_does(world: World) -> None:
    world.order(1, day="a")
    world.order(2, day="b")
    world.run(sums(), "upsert")
    with world.application() as connection:
        connection.execute("DELETE FROM orders WHERE id = 1")
    world.run(sums(), "upsert")
    assert world.rows("totals") == [("a", 1), ("b", 1)]
    anew = sums(mode="replace", extract="SELECT day, SUM(total) AS total FROM orders GROUP BY day")
    assert world.run(anew, "replace").read == 1
    assert world.rows("totals") == [("b", 1)]
    world.run(sums(mode="replace"), "replace")
    assert world.run(sums(mode="replace"), "replace").read == 1


def test_a_job_may_read_and_write_the_same_side(world: World) -> None:
    world.order(1)
    world.run(sums(target="active"))
    assert (world.rows("totals", "blue"), world.rows("totals", "green")) == ([("monday", 1)], [])


# --- late commits, clocks, sources ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "overlap", "found"), [("loose", "5m", True), ("loose", None, False), ("orders", None, True)]
)
def test_a_late_commit_is_found_by_an_overlap_or_by_what_is_recorded(
    world: World, table: str, overlap: str | None, found: bool
) -> None:
    job = each(table, overlap=overlap)
    with world.application() as connection:
        values = (1, "monday", 1, world.stamp(ago=60))
        connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", values)
        # It was written a minute ago, and its transaction was open since.
        connection.execute("UPDATE dbsync_changes SET at = at - 60 WHERE tab > 0")
        run = world.run(job)
    assert run.read == 0
    assert run.warnings == (() if overlap else ("late-commits",))
    run = world.run(job)
    assert world.rows("copies") == ([(1, 1)] if found else [])
    assert ("reached-back" in run.warnings) == (table == "orders")


def test_a_stamp_in_whole_seconds_is_never_skipped(world: World) -> None:
    for number in range(8):
        table = ("orders", "loose")[number % 2]
        with world.application() as connection:
            connection.execute(f"INSERT INTO {table} VALUES (?, 'x', 1, datetime('now'))", (number,))
        world.run(each("orders"), "orders")
        world.run(each("loose"), "loose")
    assert [number for number, _ in world.rows("copies")] == list(range(8))


@pytest.mark.parametrize("table", ["orders", "loose"])
def test_a_clock_that_moves_back_and_forth_skips_and_doubles_nothing(world: World, table: str) -> None:
    chance = random.Random(4)
    source = world.databases["blue"]
    warned = set()
    for number in range(25):
        source.shift = timedelta(hours=chance.choice([0, 0, -2, 1, -1]))
        world.order(number, day=str(number % 3), total=number, table=table)
        warned |= set(world.run(each(table, overlap="5m")).warnings)
        if table == "orders":
            world.run(sums(), "sums")
    assert world.rows("copies") == [(number, number) for number in range(25)]
    assert "clock-went-back" in warned
    if table == "orders":
        assert world.rows("totals") == [(str(day), sum(range(day, 25, 3))) for day in range(3)]


def test_a_clock_that_went_back_and_has_passed_the_stored_end_again_skips_nothing(world: World) -> None:
    source = world.databases["blue"]
    source.shift = timedelta(hours=2)
    world.order(1)
    world.run(each())
    source.shift = timedelta()
    with world.application() as connection:
        connection.execute("INSERT INTO orders VALUES (2, 'x', 2, ?)", (world.stamp(),))
        # By the time of the next run two hours and a minute have gone by.
        connection.execute("UPDATE dbsync_changes SET at = at - 7260 WHERE seq = (SELECT max(seq) FROM dbsync_changes)")
    source.shift = timedelta(hours=2, minutes=1)
    assert "reached-back" in world.run(each()).warnings
    assert world.rows("copies") == [(1, 1), (2, 2)]


def test_another_source_is_read_from_the_beginning(world: World) -> None:
    world.order(1)
    world.run(each(), "clock")
    world.run(through(), "keys")
    world.databases["blue"].dispose()
    world.databases["blue"] = world.make("blue")
    world.order(2, ago=86_400)
    for name, job in (("clock", each()), ("keys", through())):
        run = world.run(job, name)
        assert "source-changed" in run.warnings
    assert world.rows("copies") == [(1, 1), (2, 1)]


def test_after_a_handover_there_and_back_the_other_clocks_rows_are_found(world: World) -> None:
    world.order(1)
    world.run(each())
    for _ in range(2):
        world.handover()
    world.order(2, ago=7200)
    run = world.run(each())
    assert "source-changed" in run.warnings
    assert world.rows("copies") == [(1, 1), (2, 1)]


def test_an_idle_source_is_read_only_up_to_where_it_follows(world: World) -> None:
    job = each("loose", source="idle", target="idle")
    with world.databases["blue"].view() as view:
        position = view.position()
    with world.databases["green"].writing(_idle(), 1) as transaction:
        transaction.set_checkpoint("blue", position, None)
    with world.databases["green"].view() as view:
        checkpoint = view.checkpoint()
    assert checkpoint is not None
    run = world.run(job)
    assert run.until is not None and checkpoint.at is not None
    assert run.until <= checkpoint.at


def _idle() -> Any:
    from dbsync.model import Role

    return Role.IDLE


# --- through the capture -------------------------------------------------------------------------


def through(**given: Any) -> Job:
    made = {"extract": "SELECT id, total FROM orders WHERE id IN (:keys)", "into": "copies", "key": "id"}
    return Job(**(made | {"through": "ORDERS"} | given))


def test_through_reads_the_keys_that_changed_whatever_the_clock(world: World) -> None:
    with world.application() as connection:
        rows = [(number, "x", number, "never") for number in range(2_500)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
    first = world.run(through())
    assert (first.read, first.warnings, first.since, first.until) == (2_500, (), None, None)
    world.databases["blue"].shift = timedelta(hours=-2)
    world.order(7, total=70)
    with world.application() as connection:
        connection.execute("DELETE FROM orders WHERE id = 8")
    assert world.run(through()).read == 1
    assert world.run(through()).read == 0
    assert world.rows("copies")[7:9] == [(7, 70), (8, 8)]


def test_a_history_that_was_pruned_is_lost_and_a_full_run_mends_it(world: World) -> None:
    world.order(1)
    world.run(through())
    for number in (2, 3):
        world.order(number)
    with world.databases["blue"].view() as view:
        here = view.position()
    world.databases["blue"].prune(here)
    with pytest.raises(PositionLost) as lost:
        world.run(through())
    assert lost.value.exit_code == 6
    assert "--since" in lost.value.remedy
    assert [run.status for run in read_runs(world.databases.values())] == ["done", "failed"]
    assert world.run(through(), since=datetime(1, 1, 1, tzinfo=UTC)).read == 3
    assert world.run(through()).read == 0


def test_through_names_a_table_that_is_captured(world: World) -> None:
    with pytest.raises(ConfigError) as refused:
        world.run(through(through="loose"))
    assert refused.value.code == "broken-job"


# --- all or nothing ------------------------------------------------------------------------------


def test_an_idle_target_that_becomes_active_in_the_middle_is_left_alone(world: World) -> None:
    world.order(1)
    world.run(each())
    before = world.documents("job", "green")
    world.order(2)
    with pytest.raises(Refused) as refused:
        world.run(each(transform=once(world.handover)))
    assert refused.value.code == "role-changed"
    assert world.rows("copies", "green") == [(1, 1)]
    assert world.documents("job", "green") == before
    assert [run.status for run in read_runs(world.databases.values())] == ["done", "failed"]
    # with the roles as they are now it goes to the other side, from the beginning
    assert world.run(each()).status == "done"
    assert world.rows("copies", "blue") == []


def test_a_source_that_is_no_longer_what_it_was_is_not_read(world: World) -> None:
    world.order(1)
    world.handover()
    with pytest.raises(Refused) as refused:
        from dbsync.etl.load import run_job

        run_job("job", each(), world.databases, "blue", "green", 1, world.clock)
    assert refused.value.code == "role-changed"


def test_a_second_run_of_the_same_job_is_refused_and_another_jobs_is_not(world: World) -> None:
    world.order(1)
    seen: list[str] = []

    def second() -> None:
        with pytest.raises(Refused) as refused:
            world.run(each())
        seen.append(refused.value.code)
        seen.append(world.run(sums(), "other").status)

    def in_a_thread() -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(20)

    world.run(each(transform=once(in_a_thread)))
    assert seen == ["job-running", "done"]
    assert sorted(run.job for run in read_runs(world.databases.values())) == ["job", "other"]


def test_a_stop_rolls_everything_back_and_is_recorded(world: World) -> None:
    with world.application() as connection:
        rows = [(number, "x", number, world.stamp(1)) for number in range(12_000)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
    for asked in (1, 3, 5):  # three batches are read, then loaded
        calls = iter(range(asked))
        with pytest.raises(Interrupted):
            world.run(each(), stop=lambda left=calls: next(left, None) is None)
        assert world.rows("copies") == []
        assert world.documents("job") == {}
    assert {run.status for run in read_runs(world.databases.values())} == {"interrupted"}
    assert world.run(each()).written == 12_000


def test_rejected_rows_are_kept_with_their_reasons_and_the_others_are_loaded(world: World) -> None:
    with world.application() as connection:
        rows = [(number, f"day {number}", 10**6 * (number % 2), world.stamp(1)) for number in range(6_000)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
    run = world.run(sums())
    assert (run.status, run.read, run.written, run.rejected) == ("rejected", 6_000, 3_000, 3_000)
    assert len(world.rows("totals")) == 3_000
    kept = read_rejects(world.databases.values(), "job")
    assert len(kept) == 1_000
    assert kept[0] == {
        "run": run.run,
        "row": {"day": "day 1", "total": 10**6},
        "reason": "CHECK constraint failed: total < 1000000",
    }
    assert read_rejects(world.databases.values(), "job", run.run) == kept
    assert read_rejects(world.databases.values(), "other") == []


def test_a_transform_that_raises_loads_nothing_and_says_why(world: World) -> None:
    world.order(1)

    def broken(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        raise ValueError(f"no {rows[0]['total']}")

    with pytest.raises(Refused, match="ValueError: no 1") as refused:
        world.run(each(transform=broken))
    assert refused.value.code == "transform-failed"
    for gave in ([1], {"a": 1}, 7, [{"id": lambda: 1}]):
        with pytest.raises(Refused):
            world.run(each(transform=lambda _rows, gave=gave: gave))
    failed = {(run.status, run.reason) for run in read_runs(world.databases.values())}
    assert ("failed", "transform-failed: transform raised ValueError: no 1") in failed
    assert {status for status, _ in failed} == {"failed"}
    assert (world.rows("copies"), world.documents("job")) == ([], {})
    world.run(each())
    assert world.rows("copies") == [(1, 1)]


def test_a_database_that_does_not_answer_is_asked_three_times(world: World) -> None:
    world.order(1)
    path = world.folder / "blue.db"
    world.databases["blue"].dispose()
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(Unavailable):
        world.run(each())
    (failed,) = read_runs([world.databases["green"]])
    assert (failed.status, failed.attempts, failed.seconds) == ("failed", 3, 5.0)

    waited = world.clock.sleep

    def mend(seconds: float) -> None:
        waited(seconds)
        away.rename(path)

    world.clock.sleep = mend  # type: ignore[method-assign]
    run = world.run(each())
    assert (run.status, run.attempts, run.written) == ("done", 2, 1)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"into": "nowhere"}, "unknown-table"),
        ({"key": "total"}, "broken-job"),
        ({"extract": "SELECT id, day FROM orders WHERE changed_at >= :since"}, "broken-job"),
        ({"extract": "DELETE FROM orders WHERE changed_at >= :since"}, "broken-job"),
        ({"extract": {"other": "SELECT :since"}}, "broken-job"),
        ({"extract": "SELECT total FROM orders WHERE changed_at >= :since"}, "broken-job"),
    ],
)
def test_what_only_the_databases_can_tell_is_refused_and_recorded(
    world: World, given: dict[str, Any], code: str
) -> None:
    world.order(1)
    with pytest.raises(ConfigError) as refused:
        world.run(each(**given))
    assert refused.value.code == code
    assert [run.status for run in read_runs(world.databases.values())] == ["failed"]
    assert len(world.rows("orders", "blue")) == 1


def test_old_runs_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KEPT_RUNS", 3)
    for _ in range(5):
        world.run(each())
    with pytest.raises(ConfigError):
        world.run(each(into="nowhere"))
    world.run(sums(), "other")
    kept = [run.status for run in read_runs(world.databases.values(), "job")]
    assert kept == ["done", "done", "failed"]


MEMORY = """
import sys
from pathlib import Path
from tests.unit.etl.jobs_world import World, each

world = World(Path(sys.argv[1]))
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
job = each(extract="SELECT id, total, note FROM wide WHERE changed_at >= :since", mode="upsert", into="far")
for name in ("blue", "green"):
    with world.application(name) as connection:
        connection.execute("CREATE TABLE wide (id INTEGER PRIMARY KEY, total, note, changed_at)")
        connection.execute("CREATE TABLE far (id INTEGER PRIMARY KEY, total, note)")
world.run(job, "warm")
with world.application() as connection:
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
                       " INSERT INTO wide SELECT i, i, printf('%0100d', i), ? FROM n", (world.stamp(),))
before = peak()
run = world.run(job)
print(run.written, peak() - before)
"""


@pytest.mark.slow
def test_three_hundred_thousand_rows_take_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    written, kib = map(int, done.stdout.split())
    assert written == 300_000
    assert kib < 48 * 1024  # all of them at once take more than 70 MiB
