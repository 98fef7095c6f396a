"""Jobs as their authors write them: what is refused without a database, and how files are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.job_files import load_jobs
from dbsync.errors import ConfigError
from dbsync.etl import Crossing, Job, table
from dbsync.etl.batch import WEIGHT, gathered, prepared
from dbsync.etl.job import parameters, refuse_crossed, refuse_shared, without_parameters
from dbsync.etl.runs import Run, outlived, shown
from dbsync.model import Extracted

BOUNDED = "SELECT day, total FROM orders WHERE at >= :since AND at < :until"
GOOD: dict[str, Any] = {"extract": BOUNDED, "into": "totals", "key": ["day"]}


def test_a_job_knows_its_parts() -> None:
    job = Job(**GOOD, overlap="5m", schedule="*/15 * * * *")
    assert (job.columns, job.late.total_seconds(), job.bounded) == (("day",), 300, True)
    assert (job.source, job.target, job.mode) == ("active", "idle", "upsert")
    assert (
        Job(extract={"one": "SELECT 1 AS a", "two": "SELECT 2 AS a"}, into="t", key="a").sql("two") == "SELECT 2 AS a"
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"mode": "merge"}, "mode"),
        ({"source": "blue"}, "source"),
        ({"target": "passive"}, "target"),
        ({"into": " "}, "into"),
        ({"key": []}, "key"),
        ({"key": ["day", "DAY"]}, "twice"),
        ({"key": 3}, "key"),
        ({"extract": ""}, "extract"),
        ({"extract": {}}, "extract"),
        ({"extract": {"one": 1}}, "extract"),
        ({"extract": "SELECT * FROM t", "mode": "append"}, ":since"),
        ({"extract": "SELECT * FROM t WHERE a > :sinse"}, ":sinse"),
        ({"extract": "SELECT * FROM t WHERE a IN (:keys)"}, "through"),
        ({"through": "orders"}, ":keys"),
        ({"extract": "SELECT * FROM t WHERE a IN (:keys) AND b > :since", "through": "t"}, "time bound"),
        ({"through": ""}, "through"),
        ({"overlap": "5 minutes"}, "overlap"),
        ({"overlap": 300}, "overlap"),
        ({"transform": "upper"}, "transform"),
        ({"schedule": "every day"}, "schedule"),
        ({"schedule": 15}, "schedule"),
    ],
)
def test_what_cannot_work_is_refused_by_name(given: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found) as refused:
        Job(**(GOOD | given))
    assert refused.value.code == "broken-job"
    assert refused.value.remedy


def test_everything_may_be_read_each_time_when_keys_tell_rows_apart() -> None:
    for mode in ("upsert", "replace"):
        assert not Job(**GOOD | {"extract": "SELECT day, total FROM orders", "mode": mode}).bounded


def test_a_job_without_sql_for_a_dialect_says_which_it_has() -> None:
    with pytest.raises(ConfigError, match="only for one"):
        Job(**GOOD | {"extract": {"one": BOUNDED}}).sql("two")


def test_parameters_in_texts_names_and_comments_are_none() -> None:
    sql = "SELECT ':a', \":b\", [:c], `:d`, x::int, 12:30 -- :e\n/* :f */ FROM t WHERE a >= :since AND b IN (:keys)"
    assert parameters(sql) == {"since", "keys"}
    assert without_parameters("SELECT ':since' -- :since\n, :since") == "SELECT ':since' -- :since\n, NULL"


def test_two_jobs_share_a_table_only_when_neither_replaces_it() -> None:
    add, anew = Job(**GOOD), Job(**GOOD | {"mode": "replace", "into": "TOTALS"})
    refuse_shared({"a": add, "b": add})
    with pytest.raises(ConfigError) as refused:
        refuse_shared({"a": add, "b": anew})
    assert refused.value.code == "broken-job"


def test_a_crossing_does_not_name_what_a_job_writes() -> None:
    class Pair:
        forward = Crossing(table("Totals", key={"orders": "id"}, select="SELECT id FROM orders"))
        reverse = None
        path = Path("0002_x.py")

    refuse_crossed({"other": Job(**GOOD | {"into": "elsewhere"})}, {"0002": Pair()})
    with pytest.raises(ConfigError, match="0002") as refused:
        refuse_crossed({"daily": Job(**GOOD)}, {"0002": Pair()})
    assert refused.value.code == "broken-job"


# --- files -------------------------------------------------------------------------------------

FILE = "from dbsync.etl import Job\njob = Job(extract='SELECT 1 AS a', into='t', key='a')\n"


def test_files_are_read_by_name_in_order(tmp_path: Path) -> None:
    assert load_jobs(tmp_path / "nowhere") == {}
    for name in ("b", "a-1", "_shared"):
        (tmp_path / f"{name}.py").write_text(FILE)
    (tmp_path / "notes.txt").write_text("no job")
    jobs = load_jobs(tmp_path)
    assert list(jobs) == ["a-1", "b"]
    assert jobs["b"] == Job(extract="SELECT 1 AS a", into="t", key="a")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a", "job = ", "line 1"),
        ("a", "x = 1\nx / 0\n", "line 2"),
        ("a", "x = 1\n", "no `job`"),
        ("a", "job = 7\n", "int"),
        ("a", "from dbsync.etl import Job\njob = Job(extract='', into='t', key='a')\n", "extract"),
        ("a", "raise SystemExit(3)\n", "SystemExit"),
        ("sync", FILE, "built-in"),
        ("a b", FILE, "name"),
    ],
)
def test_a_broken_file_is_named_with_the_cause(tmp_path: Path, name: str, text: str, found: str) -> None:
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=found) as refused:
        load_jobs(tmp_path)
    assert refused.value.code == "broken-job"
    assert f"{name}.py" in refused.value.message
    with pytest.raises(ConfigError, match="not a folder"):
        load_jobs(tmp_path / f"{name}.py")


# --- batches -----------------------------------------------------------------------------------


def test_small_parts_become_batches_of_bounded_rows_and_weight() -> None:
    narrow = (Extracted(("a",), [(n,)] * 50) for n in range(250))
    assert [len(batch.rows) for batch in gathered(narrow)] == [5_000, 5_000, 2_500]
    wide = (Extracted(("a",), [(b"x" * (WEIGHT // 16),)] * 10) for _ in range(6))
    assert [len(batch.rows) for batch in gathered(wide)] == [20, 20, 20]
    assert list(gathered([Extracted(("a",), [])])) == []


def test_a_transform_may_drop_add_and_rename() -> None:
    def double(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"day": row["d"], "n": part} for row in rows if row["d"] != "x" for part in (1, 2)]

    job = Job(**GOOD | {"transform": double})
    (batch,) = prepared(job, Extracted(("d",), [("a",), ("x",)]))
    assert (batch.columns, batch.rows) == (("day", "n"), [("a", 1), ("a", 2)])


def test_rows_without_a_key_are_set_aside() -> None:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"n": 1}, {"day": None, "n": 2}, {"DAY": "a", "n": 3}]

    batches = list(prepared(Job(**GOOD | {"transform": change}), Extracted(("d",), [("a",)])))
    assert [batch.rows for batch in batches] == [[], [], [("a", 3)]]
    reasons = [reason for batch in batches for _, _, reason in batch.rejected]
    assert reasons == ["it has no key column day", "its key column day is NULL"]


def test_any_cell_of_a_rejected_row_is_shown_as_json() -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    cells = [None, 7, 1.5, "é", b"\x01\xff", moment, float("nan"), "\ud800", "x" * 600, {1}]
    plain = [shown(cell) for cell in cells]
    assert plain[:7] == [None, 7, 1.5, "é", "01ff", "2024-02-29T12:00:00+00:00", "nan"]
    assert plain[7:] == ["\\ud800", "x" * 500 + "…", "{1}"]
    assert json.loads(json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()) == plain


def test_of_old_runs_only_the_newest_are_kept() -> None:
    runs = [Run("a", f"{n:04}", "rejected", rejected=1) for n in range(1_010)] + [Run("b", "0000", "done")]
    old, rejecting = outlived(runs, "a")
    assert old == [f"{n:04}" for n in range(10)]
    assert rejecting == [f"{n:04}" for n in range(960)]
