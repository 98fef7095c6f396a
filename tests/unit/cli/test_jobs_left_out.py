"""What a job writes is neither synced nor verified, and no crossing names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.shelf import Shelf

ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER, changed_at TEXT)"
ODD = "[odd]*"
JOB = f"""
from dbsync.etl import Job
job = Job(extract="SELECT id, total FROM orders", into="{ODD}", key="id")
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path)
    for side in ("blue", "green"):
        with made.application(side) as connection:
            connection.execute(ORDERS)
            for name in (ODD, "odd"):
                connection.execute(f'CREATE TABLE "{name}" (id INTEGER PRIMARY KEY, total INTEGER)')
    (tmp_path / "migrations" / "versions" / "0001_adopted.py").write_text(
        'revision, down_revision = "0001", None\ndef upgrade(): ...\ndef downgrade(): ...\n'
    )
    made.dbsync("init --active blue")
    for side in ("blue", "green"):
        made.dbsync(f"migrate --target {side} --stamp 0001")
    return made


def test_a_table_that_a_job_writes_is_left_alone_on_both_sides(shelf: Shelf) -> None:
    # It was synced before there was a job: what was recorded of it then does no harm.
    with shelf.application("blue") as connection:
        connection.execute(f'INSERT INTO "{ODD}" VALUES (9, 9)')
    shelf.dbsync("sync --once")
    assert shelf.rows("green", f'SELECT * FROM "{ODD}"') == [(9, 9)]
    (shelf.folder / "etl" / "jobs").mkdir()
    shelf.write("etl/jobs", {"odd.py": JOB})
    with shelf.application("blue") as connection:
        connection.execute("INSERT INTO orders VALUES (1, 10, '')")
        connection.execute("INSERT INTO odd VALUES (5, 5)")
        connection.execute(f'UPDATE "{ODD}" SET total = 8')
    for _ in range(2):
        shelf.dbsync("sync --once")
        done = shelf.dbsync("etl run odd")
        assert (done["status"], done["written"]) == ("done", 1)
        answer = shelf.dbsync("verify")
        assert sorted(table["name"] for table in answer["tables"]) == ["odd", "orders"]
        shelf.dbsync("init")
    assert shelf.rows("green", f'SELECT * FROM "{ODD}"') == [(1, 10), (9, 9)]
    assert shelf.rows("blue", f'SELECT * FROM "{ODD}"') == [(9, 8)]
    assert shelf.rows("green", "SELECT * FROM odd") == [(5, 5)]
    assert shelf.dbsync("status")["excluded"] == [ODD]
    # The application may write there on either side: no guard stands before it.
    with shelf.application("green") as connection:
        connection.execute(f'DELETE FROM "{ODD}"')
    shelf.dbsync("verify")
    shelf.dbsync("cutover")
    shelf.dbsync("etl run odd")
    assert shelf.rows("blue", f'SELECT * FROM "{ODD}"') == [(1, 10), (9, 8)]


def test_a_crossing_that_names_the_table_of_a_job_is_refused(shelf: Shelf) -> None:
    (shelf.folder / "etl" / "jobs").mkdir()
    shelf.write("etl/jobs", {"odd.py": JOB})
    crossing = "from dbsync.etl import Crossing, table\nforward = Crossing(table({!r}, loses={{'a': 'b'}}))\n"
    shelf.write("etl", {"0001_adopted.py": crossing.format(ODD)})
    error = shelf.error("sync --once", 2)
    assert error["code"] == "broken-job"
    assert "odd" in error["message"]


def test_a_broken_job_is_a_config_error_that_names_its_file(shelf: Shelf) -> None:
    (shelf.folder / "etl" / "jobs").mkdir()
    shelf.write("etl/jobs", {"odd.py": JOB.replace('key="id"', "key=[]")})
    for line in ("sync --once", "verify", "etl list", "etl run odd"):
        error = shelf.error(line, 2)
        assert (error["code"], "odd.py" in error["message"]) == ("broken-job", True)
