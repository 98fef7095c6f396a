"""Keep where rows are joined and split: two older tables give one newer row, and one older row gives two newer ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbsync.etl import Crossing, table
from tests.unit.sync.files import Files

OLD = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
CREATE TABLE a (id INTEGER PRIMARY KEY, x INTEGER);
CREATE TABLE b (id INTEGER PRIMARY KEY, y INTEGER, note TEXT);
CREATE TABLE land (code TEXT PRIMARY KEY, label TEXT);
CREATE TABLE who (id INTEGER PRIMARY KEY, first TEXT, city TEXT, land TEXT);
"""
NEW = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE ab (id INTEGER PRIMARY KEY, x REAL, y REAL, both REAL, note TEXT);
CREATE TABLE land (code TEXT PRIMARY KEY, label TEXT);
CREATE TABLE who (id INTEGER PRIMARY KEY, first TEXT);
CREATE TABLE place (id INTEGER PRIMARY KEY, city TEXT, land TEXT, words TEXT);
"""
KEEP = {"city": "keep", "words": "keep"}
FORWARD = Crossing(
    table(
        "ab",
        key={"a": "id", "b": "id"},
        select="SELECT a.id, a.x, b.y, a.x + b.y AS both, b.note FROM a JOIN b ON b.id = a.id",
        losing={"x": "keep", "y": "keep", "both": "keep"},
        cardinality="1:0..1",
    ),
    table("who", key={"who": "id"}, select="SELECT id, first FROM who", losing={"first": "keep"}),
    table(
        "place",
        key={"who": "id", "land": "SELECT id FROM who WHERE land IN (:keys)"},
        select="SELECT w.id, w.city, w.land, w.city || ' in ' || l.label AS words"
        " FROM who AS w LEFT JOIN land AS l ON l.code = w.land",
        losing=KEEP,
    ),
)
REVERSE = Crossing(
    table("a", key={"ab": "id"}, select="SELECT id, CAST(round(x) AS INTEGER) AS x FROM ab", loses={"x": "rounded"}),
    table(
        "b", key={"ab": "id"}, select="SELECT id, CAST(round(y) AS INTEGER) AS y, note FROM ab", loses={"y": "rounded"}
    ),
    table(
        "who",
        key={"who": "id", "place": "id"},
        select="SELECT w.id, substr(w.first, 1, 3) AS first, substr(p.city, 1, 3) AS city, p.land"
        " FROM who AS w LEFT JOIN place AS p ON p.id = w.id",
        loses={"first": "three letters", "city": "three letters"},
    ),
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Some rows; green is live."""
    made = Files(tmp_path, (OLD, NEW))
    made.crossed.forward, made.crossed.reverse = FORWARD, REVERSE
    with made.application("blue") as connection:
        for code in ("de", "fr"):
            connection.execute("INSERT INTO land VALUES (?, ?)", (code, code.upper()))
        for number in range(1, 7):
            connection.execute("INSERT INTO a VALUES (?, ?)", (number, number))
            connection.execute("INSERT INTO b VALUES (?, ?, 'n')", (number, number))
            connection.execute("INSERT INTO who VALUES (?, 'Ann', 'Ulm', 'de')", (number,))
    made.pump().drain()
    made.hand_over()
    yield made
    made.dispose()


NEWER = [
    "UPDATE ab SET x = {n}.{k}1 WHERE id = {i}",
    "UPDATE ab SET y = {n}.{k}2, note = '{n}' WHERE id = {i}",
    "UPDATE ab SET both = {n}.{k}3 WHERE id = {i}",
    "UPDATE who SET first = 'Anna{n}' WHERE id = {i}",
    "UPDATE place SET city = 'Ulm{n}' WHERE id = {i}",
    "UPDATE place SET words = 'words {n}' WHERE id = {i}",
    "UPDATE place SET land = 'fr' WHERE id = {i}",
    "UPDATE land SET label = 'L{n}' WHERE code = 'de'",
]
OLDER = [
    "UPDATE a SET x = {n} WHERE id = {i}",
    "UPDATE b SET note = 'o{n}' WHERE id = {i}",
    "UPDATE who SET land = 'de' WHERE id = {i}",
    "UPDATE who SET city = 'C{n}' WHERE id = {i}",
    "UPDATE land SET label = 'K{n}' WHERE code = 'fr'",
]
TABLES = ("ab", "who", "place", "land")


@pytest.mark.parametrize("seed", range(2))
def test_joined_and_split_rows_keep_what_nobody_overwrote_however_small_the_windows_are(
    files: Files, seed: int
) -> None:
    choose = random.Random(seed)
    for turn in range(4):
        newer_lives = files.active.name == "green"
        for _ in range(choose.randint(3, 12)):
            sql = choose.choice(NEWER if newer_lives else OLDER)
            files.write(sql.format(n=choose.randint(0, 9), k=choose.randint(1, 9), i=choose.randint(1, 6)))
            if choose.random() < 0.3:
                files.pump().step(choose.randint(1, 3))
        pump = files.pump()
        while pump.step(choose.randint(1, 3)) is not None:
            pass
        found = files.verify()
        assert found.equal, found.tables
        assert not any(each.lossy for each in found.tables)
        held = {name: files.rows("green", f"SELECT * FROM {name} ORDER BY 1") for name in TABLES}
        files.hand_over()
        if newer_lives:  # nobody writes on the older side: everything comes back, also into an empty newer one
            for name in TABLES if turn == 2 else ():
                files.tamper(f"DELETE FROM {name}")
            files.pump().ensure_snapshot(force=True)
            assert {name: files.rows("green", f"SELECT * FROM {name} ORDER BY 1") for name in TABLES} == held
