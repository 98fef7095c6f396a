"""Lookup tables both ways on real files: rows that share a parent, leave it, exchange it, or differ only in case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbsync.etl import Crossing, table
from tests.unit.sync.files import Files

OLD = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
CREATE TABLE kind (id INTEGER PRIMARY KEY, label TEXT);
CREATE TABLE song (id INTEGER PRIMARY KEY, title TEXT NOT NULL, country TEXT, kind_id INTEGER NOT NULL, ms INTEGER);
INSERT INTO kind VALUES (1, 'wax'), (2, NULL), (3, ''), (9, 'nobody has it');
INSERT INTO song VALUES (1, 'a', 'Chile', 1, 1000), (2, 'b', 'chile', 1, 2000), (3, 'c', NULL, 2, 3000),
  (4, 'd', '', 3, 4000);
"""
NEW = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE country (name TEXT PRIMARY KEY NOT NULL, region TEXT NOT NULL DEFAULT 'unknown');
CREATE TABLE track (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, country TEXT, kind_id INTEGER NOT NULL,
  kind TEXT, seconds REAL);
"""
FORWARD = Crossing(
    table(
        "country",
        key={"song": "SELECT country FROM song WHERE id IN (:keys)"},
        cardinality="1:0..1",
        select="SELECT DISTINCT country AS name FROM song WHERE country IS NOT NULL",
    ),
    table(
        "track",
        key={"song": "id", "kind": "SELECT id FROM song WHERE kind_id IN (:keys)"},
        losing={"seconds": "keep"},
        select="SELECT s.id, s.title, s.country, s.kind_id, k.label AS kind, s.ms / 1000.0 AS seconds"
        " FROM song AS s LEFT JOIN kind AS k ON k.id = s.kind_id",
    ),
)
REVERSE = Crossing(
    table(
        "song",
        key={"track": "id"},
        select="SELECT id, title, country, kind_id, CAST(ROUND(seconds * 1000, 0) AS INTEGER) AS ms FROM track",
        loses={"ms": "parts of a millisecond"},
    ),
    table(
        "kind",
        key={"track": "SELECT kind_id FROM track WHERE id IN (:keys)"},
        cardinality="1:0..1",
        select="SELECT DISTINCT kind_id AS id, kind AS label FROM track",
    ),
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path, (OLD, NEW))
    made.crossed.forward, made.crossed.reverse = FORWARD, REVERSE
    made.pump().drain()
    yield made
    made.dispose()


def change(files: Files, *statements: str) -> None:
    """One transaction of the application's, and the window that brings it over."""
    with files.application(files.active.name) as connection:
        connection.executescript(f"BEGIN; {'; '.join(statements)}; COMMIT")
    files.pump().drain()
    assert files.verify().equal


def names(files: Files) -> list[Any]:
    return sorted(name for (name,) in files.rows("green", "SELECT name FROM country"))


def test_a_lookup_by_text_holds_each_spelling_once_and_no_null(files: Files) -> None:
    assert names(files) == ["", "Chile", "chile"]


def test_two_rows_exchange_their_lookup_in_one_transaction(files: Files) -> None:
    change(files, "UPDATE song SET country = CASE country WHEN 'Chile' THEN 'chile' ELSE 'Chile' END WHERE id < 3")
    assert names(files) == ["", "Chile", "chile"]


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE song SET country = 'CHILE' WHERE id = 1", ["", "CHILE", "chile"]),
        ("UPDATE song SET country = NULL WHERE country = ''", ["Chile", "chile"]),
        ("DELETE FROM song WHERE id = 2", ["", "Chile"]),
        ("UPDATE song SET id = 77 WHERE id = 2", ["", "Chile", "chile"]),
        ("UPDATE song SET country = 'x' WHERE id = 3; UPDATE song SET country = NULL WHERE id = 3", None),
    ],
)
def test_a_lookup_row_goes_with_the_last_row_that_has_it(files: Files, statement: str, left: list[str] | None) -> None:
    change(files, statement)
    assert names(files) == (left or ["", "Chile", "chile"])


def test_what_only_the_lookup_table_has_stays_while_somebody_uses_the_row(files: Files) -> None:
    files.hand_over()
    change(files, "UPDATE country SET region = 'south' WHERE name IN ('Chile', 'chile')")
    files.hand_over()
    change(files, "UPDATE song SET country = 'Chile' WHERE id = 2", "UPDATE song SET country = 'chile' WHERE id = 3")
    change(files, "UPDATE song SET country = NULL WHERE country = 'Chile'")
    change(files, "UPDATE song SET country = 'Chile' WHERE id = 1")
    assert files.rows("green", "SELECT region FROM country WHERE name = 'chile'") == [("south",)]
    assert files.rows("green", "SELECT region FROM country WHERE name = 'Chile'") == [("unknown",)]


def test_a_text_that_was_a_lookup_goes_back_into_the_table_it_came_from(files: Files) -> None:
    files.hand_over()
    change(
        files,
        "UPDATE track SET kind_id = 2, kind = NULL WHERE kind_id = 1",  # nobody has 1 any more
        "UPDATE track SET kind = 'Wachs, 1½' WHERE kind_id = 3",
        "INSERT INTO track VALUES (5, 'e', NULL, 4, 'O''Br', 0.5)",
    )
    assert files.rows("blue", "SELECT id, label FROM kind ORDER BY id") == [
        (2, None),
        (3, "Wachs, 1½"),
        (4, "O'Br"),
        (9, "nobody has it"),
    ]


def test_two_parents_of_one_table_exchange_their_children_on_the_newer_side(files: Files) -> None:
    files.hand_over()
    change(
        files,
        "UPDATE track SET kind_id = -1 WHERE kind_id = 1",
        "UPDATE track SET kind_id = 1, kind = '' WHERE kind_id = 3",
        "UPDATE track SET kind_id = 3, kind = 'wax' WHERE kind_id = -1",
    )
    found = files.rows("blue", "SELECT s.id, k.id, k.label FROM song s JOIN kind k ON k.id = s.kind_id ORDER BY s.id")
    assert found == [(1, 3, "wax"), (2, 3, "wax"), (3, 2, None), (4, 1, "")]


def test_a_key_exchange_moves_unique_values_lookups_and_what_is_kept_with_the_rows(files: Files) -> None:
    files.hand_over()
    change(files, "UPDATE track SET seconds = id + 0.00025 WHERE id < 3")
    change(
        files,
        "UPDATE track SET id = -1 WHERE id = 1",
        "UPDATE track SET id = 1 WHERE id = 2",
        "UPDATE track SET id = 2 WHERE id = -1",
    )
    files.hand_over()
    change(files, "UPDATE song SET title = 'x' WHERE id = 3")
    assert files.rows("green", "SELECT id, title, seconds FROM track WHERE id < 3 ORDER BY id") == [
        (1, "b", 2.00025),
        (2, "a", 1.00025),
    ]
    change(
        files,
        "UPDATE song SET id = -1 WHERE id = 1",
        "UPDATE song SET id = 1 WHERE id = 2",
        "UPDATE song SET id = 2 WHERE id = -1",
    )
    assert files.rows("green", "SELECT id, title, seconds FROM track WHERE id < 3 ORDER BY id") == [
        (1, "a", 1.0),
        (2, "b", 2.0),
    ]


def test_a_row_that_comes_again_looking_the_same_has_nothing_of_what_was_kept(files: Files) -> None:
    files.hand_over()
    change(files, "UPDATE track SET seconds = 1.00025 WHERE id = 1", "UPDATE track SET seconds = 2.00025 WHERE id = 2")
    files.hand_over()
    again = "INSERT INTO song VALUES (1, 'a', 'Chile', 1, 1000)"
    change(files, "DELETE FROM song WHERE id = 1", again, "UPDATE song SET ms = 5 WHERE id = 2")
    change(files, "UPDATE song SET ms = 2000 WHERE id = 2")
    assert files.rows("green", "SELECT id, seconds FROM track WHERE id < 3 ORDER BY id") == [(1, 1.0), (2, 2.00025)]
