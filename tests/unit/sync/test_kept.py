"""Values that the older shape cannot hold are kept beside its rows, and come back: there and back and there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbsync.etl import Crossing, table
from tests.unit.sync.files import Files
from tests.unit.sync.kept_files import OLD, REVERSE, losing, newer


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Four tracks; green is live, and holds what blue cannot."""
    made: Files = losing(tmp_path)
    for number in range(1, 5):
        made.write("INSERT INTO track VALUES (?, ?, ?, 1)", number, number * 1000, f"track {number}")
    made.pump().drain()
    assert made.verify().equal
    made.hand_over()
    made.write("UPDATE track SET seconds = 1.23456, title = 'a title of many words' WHERE id = 1")
    made.write("UPDATE track SET seconds = 2.00049 WHERE id = 2")
    made.write("UPDATE track SET title = 'another long title' WHERE id = 3")
    made.write("INSERT INTO track VALUES (5, 5.55555, 'born over there', 2)")
    made.pump().drain()
    assert made.verify().equal
    yield made
    made.dispose()


def clean(files: Files) -> None:
    """Nothing is on its way, and the two sides agree to the last bit."""
    files.pump().drain()
    found = files.verify()
    assert found.equal
    assert not any(each.lossy for each in found.tables)
    assert found.receipt is not None


def test_the_older_side_holds_what_it_can_and_the_rest_comes_back(files: Files) -> None:
    before = newer(files)
    assert files.rows("blue", "SELECT id, ms, title FROM track ORDER BY id") == [
        (1, 1235, "a title of"),
        (2, 2000, "track 2"),
        (3, 3000, "another lo"),
        (4, 4000, "track 4"),
        (5, 5556, "born over "),
    ]
    files.hand_over()
    clean(files)
    files.write("UPDATE track SET price = 9")
    clean(files)
    assert newer(files) == [(*row[:3], 9) for row in before]
    files.hand_over()
    clean(files)
    assert newer(files) == [(*row[:3], 9) for row in before]


def test_what_the_older_side_writes_wins_and_the_other_column_of_the_row_stays(files: Files) -> None:
    """Protocol, section 5: kept, a value comes back where its base is still what the older row gives."""
    files.hand_over()
    files.write("UPDATE track SET ms = 777 WHERE id = 1")
    files.write("UPDATE track SET title = 'short' WHERE id = 3")
    files.write("UPDATE track SET title = 'none', ms = NULL WHERE id = 5")
    clean(files)
    assert newer(files) == [
        (1, 0.777, "a title of many words", 1),
        (2, 2.00049, "track 2", 1),
        (3, 3.0, "short", 1),
        (4, 4.0, "track 4", 1),
        (5, None, "none", 2),
    ]
    files.hand_over()
    clean(files)


def test_a_row_deleted_and_made_anew_on_the_older_side_gets_nothing_of_the_dead_one(files: Files) -> None:
    """Protocol, section 5: what is kept for a dead row is not the new one's."""
    files.hand_over()
    files.write("DELETE FROM track WHERE id = 1")
    files.write("INSERT INTO track VALUES (1, 1235, 'a title of', 1)")
    clean(files)
    assert newer(files)[0] == (1, 1.235, "a title of", 1)


def test_a_birth_that_nobody_read_is_found_when_everything_is_copied_anew(files: Files) -> None:
    files.hand_over()
    files.write("DELETE FROM track WHERE id = 1")
    files.write("INSERT INTO track VALUES (1, 1235, 'a title of', 1)")
    files.pump().ensure_snapshot(force=True)
    clean(files)
    assert newer(files)[0] == (1, 1.235, "a title of", 1)
    assert newer(files)[1] == (2, 2.00049, "track 2", 1)


def test_a_newer_side_that_was_thrown_away_gets_it_all_back(files: Files) -> None:
    before = newer(files)
    files.hand_over()
    files.tamper("DELETE FROM track")
    files.pump().ensure_snapshot(force=True)
    clean(files)
    assert newer(files) == before


def test_what_is_kept_is_found_again_when_the_older_side_is_copied_anew(files: Files) -> None:
    """Also for rows that were written while nothing was kept: the copy goes over all of them."""
    files.tamper("DELETE FROM dbsync_kept")
    assert not files.verify().equal
    files.pump().ensure_snapshot(force=True)
    clean(files)
    before = newer(files)
    files.hand_over()
    clean(files)
    assert newer(files) == before


def test_a_repair_mends_what_is_kept(files: Files) -> None:
    files.tamper("DELETE FROM dbsync_kept WHERE k1 = 1")
    files.tamper("UPDATE dbsync_kept SET value = 'forged' WHERE k1 = 3")
    assert files.verify(repair=True).equal
    clean(files)


def test_a_value_that_fits_again_and_a_row_that_is_gone_leave_nothing_behind(files: Files) -> None:
    files.write("UPDATE track SET seconds = 2.0 WHERE id = 2")
    files.write("DELETE FROM track WHERE id = 3")
    clean(files)
    kept = files.rows("blue", "SELECT k1, col, value FROM dbsync_kept ORDER BY k1, col")
    assert kept == [
        (1, "seconds", 1.23456),
        (1, "title", "a title of many words"),
        (5, "seconds", 5.55555),
        (5, "title", "born over there"),
    ]


def test_what_is_kept_is_no_change_and_no_table_of_the_users(files: Files) -> None:
    assert "dbsync_kept" not in files.idle.catalog().tables
    files.hand_over()
    with files.active.view() as view:
        before = view.position()
    files.active.forget(files.epoch, files.lens().forward.tables["track"].relation.kept, [(1,)])
    with files.active.view() as view:
        assert view.position() == before
    assert files.rows("blue", "SELECT count(*) FROM dbsync_kept WHERE k1 = 1") == [(0,)]


STARRED = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE track (id INTEGER PRIMARY KEY, seconds REAL, title TEXT NOT NULL, price NUMERIC, stars INTEGER);
"""


def starred(**losing_: str) -> Crossing:
    select = "SELECT id, ms / 1000.0 AS seconds, title, price, 0 AS stars FROM track"
    return Crossing(table("track", key={"track": "id"}, select=select, losing=losing_))


def test_a_policy_that_comes_late_overwrites_nothing_and_holds_from_the_next_time_on(tmp_path: Path) -> None:
    """What only the newer shape has stays there while the older side is live, and is kept once it follows again."""
    files = Files(tmp_path, (OLD, STARRED))
    files.crossed.forward, files.crossed.reverse = starred(), REVERSE
    files.write("INSERT INTO track VALUES (1, 1000, 'one', 1), (2, 2000, 'two', 1)")
    files.pump().drain()
    files.hand_over()
    files.write("UPDATE track SET stars = 5 WHERE id = 1")
    files.pump().drain()
    files.hand_over()
    files.crossed.forward = starred(stars="keep")
    clean(files)
    assert files.rows("green", "SELECT stars FROM track ORDER BY id") == [(5,), (0,)]
    files.hand_over()
    assert files.pump().stale() == ("track",)
    clean(files)
    assert files.lens().kept == {}
    files.hand_over()
    files.tamper("DELETE FROM track")
    files.pump().ensure_snapshot(force=True)
    clean(files)
    assert files.rows("green", "SELECT stars FROM track ORDER BY id") == [(5,), (0,)]
    files.dispose()
