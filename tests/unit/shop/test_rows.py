"""The shop's migration and its crossings agree, and the ledger's check sees what is missing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.crossings import load_crossings
from dbsync.model import Direction
from tests.unit.etl.etl_world import World, composed, scans
from tests.unit.shop.conftest import ROOT

TABLES = ("customer", "product", "orders", "order_line")


@pytest.fixture
def worlds(databases: dict[int, Path]) -> dict[int, World]:
    """Both databases in memory."""
    found = {}
    for release, path in databases.items():
        found[release] = World("", revision=f"000{release}")
        found[release].left_out = ("alembic_version", "sqlite_sequence")
        with closing(sqlite3.connect(path)) as db:
            db.backup(found[release].db)
    return found


@pytest.mark.parametrize("direction", list(Direction))
def test_the_crossings_read_every_table_and_seek_by_key(worlds: dict[int, World], direction: Direction) -> None:
    steps = [("0002", load_crossings(ROOT / "etl", ("0001", "0002"))["0002"])]
    made = composed(worlds[1], worlds[2], steps, direction)
    source = worlds[1] if direction is Direction.FORWARD else worlds[2]
    assert not made.impossible
    assert all(scans(source, plan.relation) == [] for plan in made.tables.values())


def test_the_crossing_gives_the_rows_that_the_migration_makes(worlds: dict[int, World]) -> None:
    steps = [("0002", load_crossings(ROOT / "etl", ("0001", "0002"))["0002"])]
    made = composed(worlds[1], worlds[2], steps)
    assert set(made.tables) == {*TABLES, "customer_address"}
    for plan in made.tables.values():
        assert worlds[1].rows(plan.relation) == worlds[2].rows(plan.stored)


def test_going_over_and_back_keeps_every_value_of_the_newer_shape(worlds: dict[int, World]) -> None:
    # The demo's rollback must lose nothing: forward(reverse(newer)) = newer.
    steps = [("0002", load_crossings(ROOT / "etl", ("0001", "0002"))["0002"])]
    over = composed(worlds[1], worlds[2], steps)
    back = composed(worlds[1], worlds[2], steps, Direction.REVERSE)
    rows = {name: worlds[2].rows(plan.relation) for name, plan in back.tables.items()}
    for name in reversed(TABLES):
        worlds[1].db.execute(f"DELETE FROM {name}")
    for name in TABLES:
        worlds[1].fill(name, back.tables[name].relation.columns, rows[name])
    for plan in over.tables.values():
        assert worlds[1].rows(plan.relation) == worlds[2].rows(plan.stored)


def test_the_downgrade_keeps_every_row(databases: dict[int, Path], scripts: tuple[str, str, str]) -> None:
    import shapes

    found: list[Any] = []
    with closing(sqlite3.connect(databases[2])) as db:
        for script in ("", scripts[2]):
            db.executescript(script)
            release = shapes.shape_of(db)
            found.append([release.read_customer(db, number) for number in range(1, 41)])
            found.append([release.read_order(db, number) for number in range(1, 31)])
        assert release.number == 1
    assert found[:2] == found[2:]


@pytest.mark.parametrize("release", [1, 2])
def test_the_check_counts_what_the_database_does_not_hold(
    databases: dict[int, Path], tmp_path: Path, release: int
) -> None:
    import ledger
    import shapes

    path = tmp_path / "ledger.jsonl"
    person = {"first_name": "Jean Luc", "last_name": "Picard", "street": "S", "city": "C", "postcode": "1"}
    with closing(sqlite3.connect(databases[release])) as db, db:
        made = shapes.RELEASES[release]
        lines = [{"product_id": 1, "qty": 2}]
        number, _ = made.create_order(db, "a", 1, [(1, 2)])
        customer = made.create_customer(db, {**person, "email": "p@x"})
        made.set_email(db, 2, "customer2.7@x")
    whole = {**person, "kind": "customer", "id": customer, "release": release, "name": "Jean Luc Picard"}
    order = {"kind": "order", "id": number, "token": "a", "customer_id": 1, "lines": lines}
    email = {"kind": "email", "id": 2, "email": "customer2.7@x"}
    there = [order, whole, email, {**email, "email": "customer2.6@x"}]
    lost = [
        {**order, "id": 999},
        {**order, "token": "b"},
        {**order, "lines": [*lines, *lines]},
        {**whole, "name": "Jean Picard"},
        {**whole, "street": "T"},
        {**email, "email": "customer2.8@x"},
    ]
    book = ledger.Ledger(path)
    for entry in there + lost:
        book.add(entry)
    book.close()
    with path.open("a") as file:
        file.write(json.dumps({**order, "id": 1000})[:9])
    found = ledger.check(path, databases[release])
    assert (found["acknowledged"], found["lost"]) == (10, 6)
    assert found["examples"] == lost


def test_a_customer_entered_with_two_names_must_keep_just_these(databases: dict[int, Path], tmp_path: Path) -> None:
    import ledger

    path = tmp_path / "ledger.jsonl"
    with closing(sqlite3.connect(databases[1])) as db, db:
        db.execute("UPDATE customer SET first_name = 'Mary', last_name = 'Ann Berg' WHERE id = 1")
        row = db.execute("SELECT street, city, postcode FROM customer WHERE id = 1").fetchone()
    place = dict(zip(("street", "city", "postcode"), row, strict=True))
    entry = {"kind": "customer", "id": 1, "release": 1, "name": "Mary Ann Berg", **place}
    book = ledger.Ledger(path)
    book.add({**entry, "first_name": "Mary", "last_name": "Ann Berg"})
    book.add({**entry, "first_name": "Mary Ann", "last_name": "Berg"})
    book.close()
    assert ledger.check(path, databases[1])["lost"] == 1
