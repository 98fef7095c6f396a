"""The scheduler's loop over two files, with a clock that is told the time; and what status and doctor say of it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dbsync.adapters.memory import FakeClock
from dbsync.cli.etl_jobs import schedules
from dbsync.cli.etl_schedule import Scheduler
from dbsync.cli.etl_turn import Turn, Turned
from dbsync.cli.wiring import Context
from dbsync.config import parse
from dbsync.errors import Interrupted
from tests.acceptance.jobs_house import CONFIG, House, house

SYNC = '[etl.schedule]\nsync = "*/5 * * * *"\n'
START = datetime(2026, 11, 24, 12, 2, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    # Each beat is a durable write, and each look opens both databases anew.
    monkeypatch.setattr("dbsync.cli.etl_schedule.BEAT_SECONDS", 600.0)
    monkeypatch.setattr("dbsync.cli.etl_schedule.HEAL_SECONDS", 600.0)
    monkeypatch.setattr("dbsync.cli.etl_schedule.LOOK_SECONDS", 150.0)
    return house(tmp_path, SYNC)


class Hours:
    """A scheduler over an installation, at hours of its own."""

    def __init__(self, home: House, start: datetime = START, schedule: str = SYNC) -> None:
        self.home, self.clock, self.schedule = home, FakeClock(start), schedule
        self.end = start
        self.stopped = False

    @contextlib.contextmanager
    def opened(self) -> Iterator[Context]:
        context = Context(parse(CONFIG + self.schedule, self.home.folder / "dbsync.toml", {}), stop=self.stop)
        context.clock = self.clock  # type: ignore[assignment]
        try:
            yield context
        finally:
            context.close()

    def stop(self) -> bool:
        return self.stopped or self.clock.now() >= self.end

    def go_to(self, minutes: float) -> None:
        """Let nothing run until so many minutes after the start."""
        self.clock.advance((START + timedelta(minutes=minutes) - self.clock.now()).total_seconds())

    def pass_by(self, minutes: float, launch: Callable[[Callable[[], None]], None] = lambda work: work()) -> Scheduler:
        """Let the scheduler run for some minutes."""
        self.end = self.clock.now() + timedelta(minutes=minutes)
        with self.opened() as context:
            scheduler = Scheduler(context, schedules(context), self.opened, launch=launch)
            scheduler.until_stopped()
        assert scheduler.errors == []
        return scheduler

    def turn(self, job: str) -> list[str]:
        """One look at a job; gives the statuses of what it recorded."""
        self.end = self.clock.now() + timedelta(days=1)
        with self.opened() as context:
            return [run.status for run in Turn(context, job, schedules(context)[job], timedelta(minutes=2)).run().runs]


def dues(home: House, job: str) -> Counter[str]:
    return Counter(run["due"][11:16] for run in home.runs(job) if run["status"] == "done")


def test_each_job_runs_once_at_each_of_its_due_times(home: House) -> None:
    hours = Hours(home, START + timedelta(minutes=50))
    hours.pass_by(14)
    assert dues(home, "totals") == {"13:00": 1}
    assert dues(home, "sync") == {"12:55": 1, "13:00": 1, "13:05": 1}
    assert home.totals() == {"mon": 30, "tue": 5}
    assert home.good("status")["scheduler"] == "stopped"


@pytest.mark.parametrize(
    ("start", "totals", "sync"),
    [
        ("2026-03-29T00:20", ["01:00"], ["00:30", "00:45", "01:00", "01:15", "01:30", "01:45"]),
        ("2026-10-25T00:20", ["00:30"], ["00:30", "00:45", "01:00", "01:15", "01:30", "01:45"]),
    ],
)
def test_on_the_nights_on_which_the_clocks_change_each_runs_as_often_as_it_should(
    home: House, start: str, totals: list[str], sync: list[str]
) -> None:
    berlin = '[etl]\ntimezone = "Europe/Berlin"\n[etl.schedule]\ntotals = "30 2 * * *"\nsync = "*/15 * * * *"\n'
    Hours(home, datetime.fromisoformat(start).replace(tzinfo=UTC), berlin).pass_by(90)
    assert dues(home, "totals") == Counter(totals)
    assert dues(home, "sync") == Counter(sync)


def test_what_comes_in_between_two_due_times_is_applied_at_the_next_one(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(2)
    home.order(9, "wed", 1)
    assert home.ask("green", "SELECT count(*) FROM orders") == [(3,)]
    hours.pass_by(2)
    assert home.ask("green", "SELECT count(*) FROM orders") == [(4,)]


def test_two_hours_without_a_scheduler_are_recorded_and_made_up_once(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(4)
    hours.clock.advance(7200)
    hours.pass_by(1)
    assert dues(home, "totals") == {"14:00": 1}
    missed = [run for run in home.runs("sync") if run["status"] == "missed"]
    assert len(missed) == 1
    assert "23 due times" in missed[0]["reason"]
    assert dues(home, "sync") == {"12:05": 1, "14:05": 1}


def test_a_clock_moved_back_by_two_hours_stops_nothing(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(4)
    hours.clock = FakeClock(START - timedelta(hours=2))
    hours.pass_by(9)
    assert dues(home, "sync") == {"12:05": 1, "10:05": 1, "10:10": 1}


def test_what_is_due_while_the_run_before_still_goes_is_skipped_and_recorded(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(1)
    green = home.database("green")
    with green.lock("schedule-sync", 0.0):
        hours.pass_by(3)
        assert [run["status"] for run in home.runs("sync")] == ["skipped"]
        hours.clock.advance(60)
        assert hours.turn("sync") == []
    green.dispose()
    hours.pass_by(5)
    assert dues(home, "sync") == {"12:10": 1}


def test_a_run_by_hand_that_still_goes_skips_the_one_that_is_due(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(1)
    green = home.database("green")
    with green.lock("job-sync", 0.0):
        hours.pass_by(3)
    green.dispose()
    assert [(run["status"], run["due"][11:16]) for run in home.runs("sync")] == [("skipped", "12:05")]


def test_a_job_that_is_long_does_not_delay_sync(home: House, eventually: Callable[..., None]) -> None:
    hours = Hours(home)
    hours.pass_by(1)
    hours.go_to(59)
    (home.folder / "door").touch()
    told: list[str] = []
    long = threading.Thread(target=lambda: told.extend(hours.turn("totals")))
    long.start()
    eventually((home.folder / "reached").exists)
    home.order(9, "wed", 1)
    assert "done" in hours.turn("sync")
    assert home.ask("green", "SELECT count(*) FROM orders") == [(4,)]
    assert told == []
    (home.folder / "door").unlink()
    long.join(10)
    assert told == ["done"]


def test_a_run_in_the_middle_of_which_the_sides_are_exchanged_is_done_again_on_the_new_idle_side(
    home: House, eventually: Callable[..., None]
) -> None:
    home.good("verify")
    hours = Hours(home)
    hours.pass_by(1)
    hours.go_to(59)
    (home.folder / "door").touch()
    told: list[str] = []
    run = threading.Thread(target=lambda: told.extend(hours.turn("totals")))
    run.start()
    eventually((home.folder / "reached").exists)
    home.good("cutover")
    (home.folder / "door").unlink()
    run.join(20)
    assert told == ["done"]
    assert (home.totals("green"), home.totals("blue")) == ({}, {"mon": 30, "tue": 5})
    assert [(one["status"], one["database"]) for one in home.runs("totals")] == [("failed", "green"), ("done", "blue")]
    assert hours.turn("totals") == []


def test_every_look_is_a_thread_of_its_own(home: House) -> None:
    hours, seen = Hours(home), set[int]()

    class Noting(Turn):
        def run(self) -> Turned:
            seen.add(threading.get_ident())
            return super().run()

    with pytest.MonkeyPatch.context() as patch, hours.opened() as context:
        patch.setattr("dbsync.cli.etl_schedule.Turn", Noting)
        hours.end = START + timedelta(days=1)
        Scheduler(context, schedules(context), hours.opened).once()
    assert seen
    assert threading.get_ident() not in seen


def test_a_run_that_is_stopped_is_recorded_and_begun_again(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(1)
    hours.go_to(59)
    (home.folder / "door").touch()

    def reached() -> bool:
        found = (home.folder / "reached").exists()
        (home.folder / "door").unlink(missing_ok=True)
        return found

    hours.stop = reached  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        hours.turn("totals")
    assert home.totals() == {}
    assert [run["status"] for run in home.runs("totals")] == ["interrupted"]
    hours.stop = lambda: False  # type: ignore[method-assign]
    assert hours.turn("totals") == ["done"]
    assert home.totals() == {"mon": 30, "tue": 5}
    assert dues(home, "totals") == {"13:00": 1}


def test_a_process_that_died_in_a_run_is_told_of_and_its_due_time_is_begun_again(home: House) -> None:
    hours = Hours(home)
    hours.pass_by(1)
    hours.go_to(59)

    def dies(context: Context, name: str, due: datetime) -> None:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbsync.cli.etl_turn.run_due", dies)
        with pytest.raises(SystemExit):
            hours.turn("totals")
    assert hours.turn("totals") == ["interrupted", "done"]
    assert dues(home, "totals") == {"13:00": 1}


def test_status_shows_the_next_run_the_last_one_and_the_lag_to_expect(home: House) -> None:
    home.long_ago("sync")
    home.good("etl schedule --once")
    found = home.good("status")
    sync = found["schedule"]["sync"]
    assert (sync["schedule"], sync["last"]["status"], sync["late"]) == ("*/5 * * * *", "done", False)
    assert datetime.fromisoformat(sync["next_run"]) > datetime.now(UTC)
    assert sync["expected_lag"] == 300 + sync["last"]["seconds"]
    assert found["schedule"]["totals"]["last"] is None
    assert not {"follower", "sync"} & {word for one in found["blockers"] for word in one["found"].split()}


def test_a_due_time_that_nobody_runs_is_told(home: House) -> None:
    home.long_ago("sync")
    found = home.good("status")
    assert found["schedule"]["sync"]["late"] is True
    assert "schedule-late" in found["warnings"]
    codes = {one["code"]: one for one in home.good("doctor")["checks"]}
    assert codes["schedule-late"]["severity"] == "warning"


def test_doctor_warns_when_the_interval_is_longer_than_the_lag_that_a_cutover_accepts(home: House) -> None:
    def severity() -> str | None:
        found = {one["code"]: one["severity"] for one in home.good("doctor")["checks"]}
        return found.get("schedule-slow")

    assert severity() is None
    home.configure('[etl.schedule]\nsync = "*/30 * * * *"\n')
    assert severity() == "warning"


def test_a_schedule_for_what_is_no_job_is_a_warning_of_status(home: House) -> None:
    home.configure('[etl.schedule]\nnightly = "0 3 * * *"\n')
    found = home.good("status")
    assert (found["schedule"], "unknown-job" in found["warnings"]) == ({}, True)
    answer = home.here("doctor")
    assert answer.code == 3
    assert "unknown-job" in {one["code"] for one in answer.data["checks"]}


def test_a_job_whose_schedule_cron_does_not_understand_is_broken(home: House) -> None:
    place = home.folder / "etl" / "jobs" / "totals.py"
    place.write_text(place.read_text().replace("0 * * * *", "0 * * *"))
    answer = home.here("etl list")
    assert (answer.code, answer.error) == (2, "broken-job")
    assert "0 * * *" in answer.data["error"]["message"]


def test_where_sync_is_only_scheduled_a_cutover_applies_the_last_window_itself(home: House) -> None:
    home.good("verify")
    home.order(77, "thu", 9)
    assert home.ask("green", "SELECT count(*) FROM orders WHERE id = 77") == [(0,)]
    done = home.good("cutover")
    assert (done["from"], done["to"]) == ("blue", "green")
    assert home.ask("green", "SELECT cents FROM orders WHERE id = 77") == [(9,)]
    # The schedule goes on the other way round, and nothing that was taken before is made up.
    home.order(78, "thu", 1, side="green")
    hours = Hours(home)
    home.taken("sync", START, "green")
    assert hours.turn("sync") == []
    hours.clock.advance(200)
    assert hours.turn("sync") == ["done"]
    assert home.ask("blue", "SELECT cents FROM orders WHERE id = 78") == [(1,)]
