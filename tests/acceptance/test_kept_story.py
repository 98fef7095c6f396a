"""There and back and there, over the command line: what the older database cannot hold is not lost.

A time becomes finer and a title longer; later the newer side renames both while the older one is live.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.shelf import Shelf

OLD = """
CREATE TABLE track (id INTEGER PRIMARY KEY, ms INTEGER NOT NULL, title VARCHAR(10) NOT NULL
  CHECK (length(title) <= 10), price INTEGER NOT NULL);
INSERT INTO track VALUES (1, 1000, 'one', 5), (2, 2000, 'two', 5), (3, 3000, 'three', 5), (4, 4000, 'four', 5);
"""

FINER = {
    "0002_finer.py": """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute("CREATE TABLE track2 (id INTEGER PRIMARY KEY, seconds REAL NOT NULL, title TEXT NOT NULL,"
               " price INTEGER NOT NULL)")
    op.execute("INSERT INTO track2 SELECT id, ms / 1000.0, title, price FROM track")
    op.execute("DROP TABLE track")
    op.execute("ALTER TABLE track2 RENAME TO track")
def downgrade():
    raise NotImplementedError
"""
}
FINER_ROWS = {
    "0002_finer.py": """
from dbsync.etl import Crossing, table
forward = Crossing(table("track", key={"track": "id"}, losing={"seconds": "keep", "title": "keep"},
                         select="SELECT id, ms / 1000.0 AS seconds, title, price FROM track"))
reverse = Crossing(table("track", key={"track": "id"},
    select="SELECT id, CAST(round(seconds * 1000) AS INTEGER) AS ms, substr(title, 1, 10) AS title, price FROM track",
    loses={"ms": "parts of a millisecond", "title": "cut at ten characters"}))
"""
}
RENAMED = {
    "0003_renamed.py": """
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    op.execute("ALTER TABLE track RENAME TO song")
    op.execute("ALTER TABLE song RENAME COLUMN seconds TO duration")
def downgrade():
    raise NotImplementedError
"""
}
RENAMED_ROWS = {
    "0003_renamed.py": """
from dbsync.etl import Crossing, table
forward = Crossing(table("song", key={"track": "id"},
                         select="SELECT id, seconds AS duration, title, price FROM track"))
reverse = Crossing(table("track", key={"song": "id"},
                         select="SELECT id, duration AS seconds, title, price FROM song"))
"""
}
EDITS = """
UPDATE track SET seconds = 1.23456, title = 'a title of many words' WHERE id = 1;
UPDATE track SET seconds = 2.00049, title = 'another title' WHERE id = 2;
UPDATE track SET seconds = 3.14159 WHERE id = 3;
INSERT INTO track VALUES (5, 5.00001, 'made on the newer side', 5);
"""
BACK = """
UPDATE track SET price = 6;
UPDATE track SET ms = 2500 WHERE id = 2;
DELETE FROM track WHERE id = 3;
INSERT INTO track VALUES (3, 3142, 'three', 7);
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """blue of the old shape is live, green follows at 0002."""
    made = Shelf(tmp_path)
    with sqlite3.connect(tmp_path / "blue.db") as connection:
        connection.executescript(OLD)
    connection.close()
    made.dbsync("init --active blue")
    made.dbsync("migrate --target blue --stamp 0001")
    made.copy_schema("blue", "green")
    made.dbsync("migrate --target green --stamp 0001")
    made.write("migrations/versions", FINER)
    made.write("etl", FINER_ROWS)
    made.dbsync("migrate --target idle")
    checked(made)
    return made


def checked(shelf: Shelf) -> dict[str, Any]:
    """Follow to the end; a clean verify, to the last bit."""
    shelf.dbsync("sync --once")
    found = shelf.dbsync("verify")
    assert found["equal"]
    assert all(table["lossy"] == 0 and table["losses"] == {} for table in found["tables"])
    return found


def test_there_and_back_and_there_under_another_name_nothing_is_lost(shelf: Shelf) -> None:
    foreseen = shelf.dbsync("cutover --dry-run")
    told = [(loss["column"], loss["rows"], loss["policy"]) for loss in foreseen["losses"]]
    assert told == [("seconds", 0, "keep"), ("title", 0, "keep")]
    shelf.dbsync("cutover")
    with shelf.application("green") as connection:
        connection.executescript(EDITS)
    checked(shelf)
    assert shelf.rows("blue", "SELECT * FROM track ORDER BY id") == [
        (1, 1235, "a title of", 5),
        (2, 2000, "another ti", 5),
        (3, 3142, "three", 5),
        (4, 4000, "four", 5),
        (5, 5000, "made on th", 5),
    ]
    shelf.dbsync("rollback --dry-run")
    assert shelf.dbsync("rollback")["losses"] == []
    with shelf.application("blue") as connection:
        connection.executescript(BACK)
    checked(shelf)

    shelf.write("migrations/versions", RENAMED)
    shelf.write("etl", RENAMED_ROWS)
    shelf.dbsync("migrate --target idle")
    checked(shelf)
    refused = shelf.error("migrate --target active")
    assert refused["code"] == "kept-values"
    shelf.dbsync("cutover")
    assert shelf.rows("green", "SELECT * FROM song ORDER BY id") == [
        (1, 1.23456, "a title of many words", 6),
        (2, 2.5, "another title", 6),
        (3, 3.142, "three", 7),
        (4, 4.0, "four", 6),
        (5, 5.00001, "made on the newer side", 6),
    ]
    checked(shelf)
    policies = {
        c["revision"]: c["losing"] for c in shelf.dbsync("etl list")["crossings"] if c["direction"] == "forward"
    }
    assert policies == {"0002": {"track.seconds": "keep", "track.title": "keep"}, "0003": {}}
