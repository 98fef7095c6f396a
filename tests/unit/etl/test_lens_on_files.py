"""make_lens and put through the real adapter, on files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.errors import Refused
from dbsync.etl import Crossing, table
from dbsync.etl.run import Applied, Lens, make_lens, put
from dbsync.model import Role
from tests.unit.etl.etl_world import Path as Chain
from tests.unit.etl.etl_world import Two
from tests.unit.etl.test_compose import CUSTOMER, SPLIT, SPLIT_FORWARD, SPLIT_REVERSE

Sides = dict[str, SqliteDatabase]
PAIR: Any = {"r1": Two(SPLIT_FORWARD, SPLIT_REVERSE)}


def side(path: Path, name: str, script: str, revision: str, live: str) -> SqliteDatabase:
    connection = sqlite3.connect(path)
    stamp = f"CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('{revision}');"
    connection.executescript(stamp + script)
    connection.close()
    database = SqliteDatabase(name, f"sqlite:///{path}")
    database.install(live)
    return database


def opened(folder: Path, live: str, older: str = CUSTOMER, newer: str = SPLIT) -> Sides:
    return {
        "blue": side(folder / f"blue-{live}.db", "blue", older, "r0", live),
        "green": side(folder / f"green-{live}.db", "green", newer, "r1", live),
    }


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    found = opened(tmp_path, "blue")
    yield found
    for database in found.values():
        database.dispose()


def lens_of(sides: Sides, active: str, pairs: Any = PAIR) -> Lens:
    both: Any = sides
    migrator: Any = Chain("r0", "r1")
    return make_lens(both, active, migrator, pairs)


def carried(sides: Sides, lens: Lens, active: str) -> dict[str, Applied]:
    """Every table put whole, as a snapshot puts it."""
    idle = next(name for name in sides if name != active)
    done = {}
    target: Any = sides[idle]
    with sides[active].view() as view, target.writing(Role.IDLE, 1) as tx:
        for name, plan in lens.toward(idle).tables.items():
            rows = view.by_range(plan.relation, None, None)
            keys = [tuple(row[place] for place in plan.relation.places()) for row in rows]
            assert sorted(view.by_keys(plan.relation, keys)) == sorted(rows)
            done[name] = put(tx, target, lens, name, keys, rows)
    return done


def read(database: SqliteDatabase, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database.path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_rows_cross_over_into_a_split_shape(sides: Sides) -> None:
    done = carried(sides, lens_of(sides, "blue"), "blue")
    assert done == {"customer": Applied(2, 0), "customer_address": Applied(2, 0)}
    assert read(sides["green"], "SELECT * FROM customer") == [(1, "Mary Ann Berg", "m@x"), (2, "Jo Ek", None)]


def test_mary_ann_comes_back_as_she_was_and_only_her_mail_has_changed(tmp_path: Path) -> None:
    newer = SPLIT + (
        "INSERT INTO customer VALUES (1, 'Mary Ann Berg', 'new@x'), (2, 'Jo Ek', NULL);"
        "INSERT INTO customer_address VALUES (1, 'A 1', 'Ulm'), (2, NULL, 'Bonn')"
    )
    sides = opened(tmp_path, "green", newer=newer)
    try:
        lens = lens_of(sides, "green")
        assert lens.older == "blue" and carried(sides, lens, "green") == {"Customer": Applied(1, 0)}
        assert read(sides["blue"], "SELECT * FROM Customer WHERE CustomerId = 1") == [
            (1, "Mary Ann", "Berg", "new@x", "A 1", "Ulm")
        ]
        assert carried(sides, lens, "green") == {"Customer": Applied(0, 0)}
    finally:
        for database in sides.values():
            database.dispose()


def test_a_callable_makes_the_targets_columns_out_of_the_selected_ones(sides: Sides) -> None:
    def joined(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "full_name": f"{row['first']} {row['last']}".title(), "Email": None}

    select = "SELECT CustomerId AS id, FirstName AS first, LastName AS last FROM Customer"
    forward = Crossing(table("customer", key={"Customer": "CustomerId"}, select=select, row=joined))
    lens = lens_of(sides, "blue", {"r1": Two(forward)})
    assert carried(sides, lens, "blue") == {"customer": Applied(2, 0)}
    assert read(sides["green"], "SELECT * FROM customer ORDER BY id")[0] == (1, "Mary Ann Berg", None)
    twice = Crossing(
        table(
            "customer",
            key={"Customer": "CustomerId"},
            select=select,
            row=lambda row: [joined(row), {**joined(row), "full_name": "x"}],
        )
    )
    with pytest.raises(Refused) as caught:
        carried(sides, lens_of(sides, "blue", {"r1": Two(twice)}), "blue")
    assert caught.value.code == "crossing-cardinality"
