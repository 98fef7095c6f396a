"""Schedulers as real processes: two at once, stopped and killed in the middle of a job, and run once from cron."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.jobs_house import House, house

pytestmark = pytest.mark.kill
SYNC = '[etl.schedule]\nsync = "0 * * * *"\n'
Eventually = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> House:
    return house(tmp_path, SYNC)


def test_of_two_schedulers_at_once_each_due_time_is_run_by_one(home: House) -> None:
    expected = {"mon": 30, "tue": 5}
    for turn in range(2):
        home.order(100 + turn, "wed", 7)
        expected["wed"] = 7 * (turn + 1)
        due = home.long_ago("sync")
        home.long_ago("totals")
        before = {job: len(home.runs(job)) for job in ("sync", "totals")}
        both = [home.start("etl schedule --once") for _ in range(2)]
        said = [home.ended(one) for one in both]
        assert [one.code for one in said] == [0, 0], said
        for job, had in before.items():
            new = home.runs(job)[had:]
            assert [run["due"] for run in new if run["status"] == "done"] == [due.isoformat(timespec="microseconds")]
            assert {run["status"] for run in new} <= {"done", "missed"}
            # What one of them says it did, the other one does not.
            names = [run["run"] for one in said for run in one.data["runs"] if run["job"] == job]
            assert sorted(names) == sorted(run["run"] for run in new)
        assert home.totals() == expected
        assert home.ask("green", "SELECT * FROM orders ORDER BY id") == home.ask(
            "blue", "SELECT * FROM orders ORDER BY id"
        )


def scheduler_in_the_middle_of_a_job(home: House, eventually: Eventually) -> subprocess.Popen[str]:
    """A scheduler whose job waits at a closed door."""
    (home.folder / "door").touch()
    home.long_ago("totals")
    process = home.start("etl schedule")
    try:
        eventually(lambda: (home.folder / "reached").exists() or process.poll() is not None, 30)
        eventually(lambda: home.good("status")["scheduler"] == "running", 10)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def test_a_scheduler_that_is_stopped_in_the_middle_of_a_job_rolls_it_back_and_exits_0(
    home: House, eventually: Eventually
) -> None:
    process = scheduler_in_the_middle_of_a_job(home, eventually)
    process.send_signal(signal.SIGTERM)
    (home.folder / "door").unlink()
    answer = home.ended(process)
    assert (answer.code, answer.data["counts"].get("interrupted")) == (0, 1)
    assert home.totals() == {}
    assert [run["status"] for run in home.runs("totals")][-1] == "interrupted"
    assert home.good("status")["scheduler"] == "stopped"
    # The next one takes up what was left.
    assert home.good("etl schedule --once")["counts"]["done"] == 1
    assert home.totals() == {"mon": 30, "tue": 5}


def test_what_a_killed_scheduler_was_running_is_begun_again_by_the_next_one(
    home: House, eventually: Eventually
) -> None:
    process = scheduler_in_the_middle_of_a_job(home, eventually)
    process.kill()
    process.communicate()
    (home.folder / "door").unlink()
    assert home.totals() == {}
    assert home.good("status")["scheduler"] == "stopped"
    home.good("etl schedule --once")
    told = [(run["status"], run["due"]) for run in home.runs("totals") if run["status"] != "missed"]
    assert [status for status, _ in told] == ["interrupted", "done"]
    assert len({due for _, due in told}) == 1
    assert home.totals() == {"mon": 30, "tue": 5}


def test_once_from_cron_ends_with_4_when_rows_were_set_aside_and_with_5_when_a_database_is_gone(home: House) -> None:
    home.order(50, "fri", -5)
    home.long_ago("totals")
    answer = home.ended(home.start("etl schedule --once"))
    assert (answer.code, answer.data["counts"].get("rejected")) == (4, 1)
    (home.folder / "green.db").rename(home.folder / "away.db")
    assert home.ended(home.start("etl schedule --once")).code == 5
