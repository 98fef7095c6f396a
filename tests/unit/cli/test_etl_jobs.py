"""`dbsync etl list | run | history` over two files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dbsync.cli.etl_run import moment
from dbsync.errors import ConfigError
from tests.acceptance.jobs_house import House, house

SYNC = '[etl.schedule]\nsync = "*/5 * * * *"\n'
RUN = {"job", "run", "status", "read", "written", "rejected", "since", "until"}


@pytest.fixture
def home(tmp_path: Path) -> House:
    return house(tmp_path, SYNC)


def test_list_tells_of_each_job_its_schedule_the_next_run_and_where_it_goes(home: House) -> None:
    found = {job.pop("name"): job for job in home.good("etl list")["jobs"]}
    next_run = datetime.fromisoformat(found["totals"].pop("next_run"))
    assert found["totals"] == {"schedule": "0 * * * *", "into": "totals", "mode": "upsert"}
    assert (next_run.minute, next_run.tzinfo) == (0, UTC)
    assert timedelta(0) < next_run - datetime.now(UTC) <= timedelta(hours=1)
    assert (found["sync"]["schedule"], found["sync"]["into"], found["sync"]["mode"]) == ("*/5 * * * *", None, None)


def test_the_file_overrides_a_jobs_schedule_and_an_empty_one_switches_it_off(home: House) -> None:
    home.configure('[etl]\ntimezone = "Asia/Kolkata"\n[etl.schedule]\ntotals = "0 7 * * *"\n')
    (job,) = home.good("etl list")["jobs"]
    assert (job["schedule"], job["next_run"][11:]) == ("0 7 * * *", "01:30:00+00:00")
    home.configure('[etl.schedule]\ntotals = ""\n')
    (job,) = home.good("etl list")["jobs"]
    assert (job["name"], job["schedule"], job["next_run"]) == ("totals", None, None)
    assert home.good("etl schedule --once")["jobs"] == []


def test_a_schedule_for_what_is_no_job_is_a_config_error_with_the_nearest(home: House) -> None:
    home.configure('[etl.schedule]\ntotal = "0 7 * * *"\n')
    for line in ("etl list", "etl schedule --once"):
        answer = home.here(line)
        assert (answer.code, answer.error) == (2, "unknown-job")
        assert "'totals'" in answer.data["error"]["remedy"]
    answer = home.here("etl run total")
    assert (answer.code, answer.error) == (2, "unknown-job")


def test_run_gives_the_fields_of_the_contract_and_history_the_same(home: House) -> None:
    done = home.good("etl run totals")
    assert set(done) >= {*RUN, "next"}
    assert (done["job"], done["status"], done["read"], done["written"], done["rejected"]) == ("totals", "done", 2, 2, 0)
    assert (done["since"], done["due"], done["next"]) == (None, None, None)
    assert home.totals() == {"mon": 30, "tue": 5}
    (told,) = home.good("etl history")["runs"]
    assert {name: told[name] for name in RUN} == {name: done[name] for name in RUN}


def test_run_sync_is_sync_once_with_a_place_in_the_history(home: House) -> None:
    home.order(10, "wed", 7)
    done = home.good("etl run sync")
    assert (done["job"], done["status"], done["written"], done["next"]) == ("sync", "done", 1, "dbsync verify")
    assert home.ask("green", "SELECT cents FROM orders WHERE id = 10") == [(7,)]
    assert home.good("etl history sync")["runs"][-1]["run"] == done["run"]
    assert home.here("etl run sync --since 1h").error == "usage"


def test_rows_that_a_job_cannot_load_end_it_with_4_and_are_told_with_the_reason(home: House) -> None:
    home.order(11, "thu", -1)
    answer = home.here("etl run totals")
    assert (answer.code, answer.data["status"], answer.data["rejected"], answer.data["written"]) == (
        4,
        "rejected",
        1,
        2,
    )
    assert answer.data["next"] == "dbsync etl history totals --rejected"
    (reject,) = home.good("etl history totals --rejected")["rejects"]
    assert (reject["run"], reject["row"]["day"]) == (answer.data["run"], "thu")
    assert reject["reason"]
    assert home.here("etl history totals --rejected --run nonesuch").error == "unknown-run"
    assert home.here("etl history --rejected").error == "usage"


@pytest.mark.parametrize("job", ["totals", "sync"])
def test_a_second_run_of_a_job_that_is_running_is_refused(home: House, job: str) -> None:
    green = home.database("green")
    with green.lock(f"job-{job}", 0.0):
        answer = home.here(f"etl run {job}")
    green.dispose()
    assert (answer.code, answer.error, answer.data["error"]["changed"]) == (3, "job-running", False)
    assert home.good(f"etl history {job}")["runs"] == []


def test_once_runs_what_is_due_this_minute_also_the_first_time(home: House) -> None:
    home.configure('[etl.schedule]\nsync = "* * * * *"\n')
    home.order(12, "fri", 3)
    found = home.good("etl schedule --once")
    assert [(run["job"], run["status"]) for run in found["runs"] if run["job"] == "sync"] == [("sync", "done")]
    assert home.ask("green", "SELECT cents FROM orders WHERE id = 12") == [(3,)]


def test_history_gives_the_newest_n_oldest_first(home: House) -> None:
    names = [home.good("etl run totals")["run"] for _ in range(3)]
    assert [run["run"] for run in home.good("etl history totals -n 2")["runs"]] == names[1:]
    assert home.here("etl history nonesuch").error == "unknown-job"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T08:00:00+01:00", "2026-01-31T07:00:00+00:00"),
        ("2h", "2026-01-31T10:00:00+00:00"),
    ],
)
def test_since_is_a_moment_or_a_time_ago(text: str, found: str) -> None:
    at = moment(text, datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert at is not None
    assert at.isoformat() == found


@pytest.mark.parametrize("text", ["yesterday", "99999999999d", ""])
def test_what_is_no_moment_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        moment(text, datetime(2026, 1, 31, tzinfo=UTC))
    assert caught.value.code == "bad-moment"
