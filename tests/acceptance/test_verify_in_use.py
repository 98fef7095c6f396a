"""Verify where it is hard: both sides written at more than 500 rows a second, and one byte in a million rows."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.shelf import Shelf
from tests.conftest import Eventually

pytestmark = pytest.mark.slow

ROWS = 30_000
PACE = 1000.0
"""Rows a second that the writer aims at."""
LEAST = 500.0
"""Rows a second below which a verification does not count: then the machine is too busy to show anything."""
COUNTED = 3
ATTEMPTS = 9

READING = """
PRAGMA journal_mode = WAL;
CREATE TABLE reading (id INTEGER PRIMARY KEY, label TEXT NOT NULL, amount INTEGER NOT NULL);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO reading SELECT i, 'reading ' || i, i % 97 FROM n;
"""
REVISION = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.alter_column("reading", "label", new_column_name="title")
    op.execute("ALTER TABLE reading ADD COLUMN cents INTEGER NOT NULL DEFAULT 0")
    op.execute("UPDATE reading SET cents = amount * 100")
    op.execute("ALTER TABLE reading DROP COLUMN amount")
def downgrade():
    raise NotImplementedError
"""
CROSSING = """
from dbsync.etl import Crossing, table
forward = Crossing(table("reading", key={"reading": "id"},
    select="SELECT id, label AS title, amount * 100 AS cents FROM reading"))
reverse = Crossing(table("reading", key={"reading": "id"},
    select="SELECT id, title AS label, cents / 100 AS amount FROM reading"))
"""


def readings(folder: Path, rows: int) -> Shelf:
    """So many rows in blue, adopted; green follows and has been filled."""
    shelf = Shelf(folder)
    for name, many in (("blue", rows), ("green", 0)):
        with shelf.application(name) as connection:
            connection.executescript(READING.format(rows=many))
            connection.execute("DELETE FROM reading WHERE id > ?", (many,))
    shelf.dbsync("init --active blue")
    for name in ("blue", "green"):
        shelf.dbsync(f"migrate --target {name} --stamp 0001")
    return shelf


@contextmanager
def writer(shelf: Shelf) -> Iterator[Path]:
    """The application, a process of its own, on blue. Gives its ledger."""
    ledger = shelf.folder / "ledger"
    line = [sys.executable, str(Path(__file__).parent / "writer.py"), str(shelf.folder / "blue.db"), str(ledger)]
    process = subprocess.Popen([*line, str(PACE)], stdin=subprocess.PIPE)
    try:
        yield ledger
    finally:
        process.communicate(timeout=20)
    assert process.returncode == 0


def commits(ledger: Path) -> list[tuple[float, int]]:
    """When it committed, and what it had written by then."""
    text = ledger.read_text() if ledger.exists() else ""
    lines = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [(float(at), int(written)) for at, written in lines]


def rate(ledger: Path, began: float, ended: float) -> float:
    """Rows a second that were committed between two moments."""
    within = [written for at, written in commits(ledger) if began <= at <= ended]
    return (within[-1] - within[0]) / (ended - began) if within else 0.0


def unequal(found: dict[str, Any]) -> list[Any]:
    """The tables of a verification that are not wholly equal."""
    return [one for one in found["tables"] if one["missing"] or one["extra"] or one["different"] or one["lossy"]]


@pytest.mark.parametrize("crossed", [False, True], ids=["the same shape", "a crossing between"])
def test_nothing_is_called_different_while_500_rows_a_second_are_written(
    tmp_path: Path, eventually: Eventually, crossed: bool
) -> None:
    shelf = readings(tmp_path, ROWS)
    if crossed:
        shelf.write("migrations/versions", {"0002_cents.py": REVISION})
        shelf.write("etl", {"0002_cents.py": CROSSING})
        shelf.dbsync("migrate --target idle")
    shelf.dbsync("sync --once")
    rates: list[float] = []
    with shelf.follower(), writer(shelf) as ledger:
        eventually(lambda: shelf.dbsync("status")["follower"] == "running", 20)
        eventually(lambda: commits(ledger), 20)
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            found = shelf.dbsync("verify")
            rates.append(rate(ledger, began, time.monotonic()))
            assert found["equal"] and not unequal(found), found
            assert found["receipt"] is not None, found
            # New keys come at the end, ahead of the comparison; the dead ones lie behind it or before it.
            assert found["tables"][0]["rows"] > 0.9 * ROWS
            if sum(one >= LEAST for one in rates) == COUNTED:
                break
    assert sum(one >= LEAST for one in rates) == COUNTED, f"the writer reached only {rates} rows a second"
    # And it was worth looking at: what was written has arrived.
    shelf.dbsync("sync --once")
    names = ("title", "cents / 100") if crossed else ("label", "amount")
    there = shelf.rows("green", f"SELECT id, {', '.join(names)} FROM reading ORDER BY id")
    assert there == shelf.rows("blue", "SELECT id, label, amount FROM reading ORDER BY id")


def test_one_byte_in_a_million_rows_is_found_named_and_mended(tmp_path: Path) -> None:
    """About 15 s on a quiet machine: a copy of the million and two comparisons of it."""
    rows, key = 1_000_000, 765_432
    shelf = readings(tmp_path, rows)
    assert shelf.dbsync("sync --once")["snapshot"] == {"tables": 1, "rows": rows}
    with shelf.application("green") as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE dbsync_guard SET state = 'open'")
        connection.execute("UPDATE reading SET label = 'reading 76543Z' WHERE id = ?", (key,))
        connection.execute("UPDATE dbsync_guard SET state = 'closed'")
        connection.execute("COMMIT")
    found = shelf.dbsync("verify", 4)
    (table,) = found["tables"]
    assert (table["rows"], table["missing"], table["extra"], table["different"]) == (rows, 0, 0, 1)
    assert table["keys"] == [{"key": [key], "kind": "different"}]
    assert found["equal"] is False and found["receipt"] is None
    assert shelf.dbsync("verify --repair")["equal"] is True
    assert shelf.rows("green", f"SELECT label FROM reading WHERE id = {key}") == [(f"reading {key}",)]
