"""row= in the middle of a path: its rows are put into a private table that the later steps read; on real files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.adapters.sqlite.catalog import read_catalog
from dbsync.adapters.sqlite.staging import PIECE
from dbsync.errors import ConfigError, Refused
from dbsync.etl import Crossing, table
from dbsync.etl.run import Lens, make_lens
from dbsync.migrate.shape import to_document
from dbsync.model import Catalog, Key, Relation, Role, Row
from tests.unit.etl.etl_world import Path as Chain
from tests.unit.etl.etl_world import Two, World, composed
from tests.unit.etl.test_lens_on_files import carried, read, side

Sides = dict[str, SqliteDatabase]

OLDER = (
    "CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, mail TEXT, score REAL);"
    "INSERT INTO person VALUES (1, 'ann BERG', 'a@x', 1.5), (2, 'jo ek', NULL, 2), (3, NULL, 'c@x', NULL),"
    " (7, 'eva lund', 'e@x', 3)"
)
MIDDLE = "CREATE TABLE person (id INTEGER PRIMARY KEY, name VARCHAR(40) COLLATE NOCASE, mail TEXT, score TEXT)"
NEWER = "CREATE TABLE person (id INTEGER PRIMARY KEY, label TEXT, mail TEXT, score TEXT, ann INT)"
TITLE = "SELECT id, name, mail, score FROM person"


def titled(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Nothing of a person without a name."""
    return None if row["name"] is None else {**row, "name": row["name"].title()}


FIRST = Crossing(table("person", key={"person": "id"}, select=TITLE, row=titled, cardinality="1:0..1"))
SECOND = Crossing(
    table(
        "person",
        key={"person": "id"},
        select="SELECT id, name || '!' AS label, mail, score, name = 'ANN berg' AS ann FROM person",
        cardinality="1:0..1",
    )
)
PAIRS = {"r1": Two(FIRST), "r2": Two(SECOND)}
ROWS = [
    (1, "Ann Berg!", "a@x", "1.5", 1),
    (2, "Jo Ek!", None, "2.0", 0),
    (7, "Eva Lund!", "e@x", "3.0", 0),
]


def shape(script: str) -> Catalog:
    """The catalog of a script, collations included."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        return read_catalog(connection)


def opened(folder: Path, older: str = OLDER, newer: str = NEWER, middle: str | None = MIDDLE) -> Sides:
    sides = {
        "blue": side(folder / "b.db", "blue", older, "r0", "blue"),
        "green": side(folder / "g.db", "green", newer, "r2", "blue"),
    }
    if middle is not None:
        sides["blue"].save("shape", "r1", to_document(shape(middle)))
    return sides


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[Sides] = []

    def build(**given: Any) -> Sides:
        made.append(opened(tmp_path, **given))
        return made[-1]

    yield build
    for sides in made:
        for database in sides.values():
            database.dispose()


def lens_of(sides: Sides, pairs: Any = PAIRS) -> Lens:
    both: Any = sides
    migrator: Any = Chain("r0", "r1", "r2")
    return make_lens(both, "blue", migrator, pairs)


def every_way(database: SqliteDatabase, relation: Relation, keys: list[Key]) -> list[Row]:
    """The rows of the whole table, after seeing that key list, key ranges of any size and the count agree."""
    with database.view() as view:
        whole = view.by_range(relation, None, None)
        assert view.count(relation) == len(whole)
        assert sorted(view.by_keys(relation, keys)) == sorted(whole)
    for size in (1, 2, 1000):
        found: list[Row] = []
        after = None
        while True:
            with database.view() as view:
                part = view.by_range(relation, after, None, limit=size)
            found += part
            if len(part) < size:
                break
            after = tuple(part[-1][place] for place in relation.places())
        assert found == whole, size
    return whole


def test_rows_of_a_callable_in_the_middle_go_on_through_the_next_step_as_a_stored_table_would_hold_them(
    make: Any,
) -> None:
    sides = make()
    relation = lens_of(sides).forward.tables["person"].relation
    (staged,) = relation.staged
    assert staged.places == (0,) and staged.leads and relation.ranged
    assert every_way(sides["blue"], relation, [(n,) for n in range(9)]) == ROWS
    with sides["blue"].view() as view:
        assert view.by_keys(relation, [(2,), (3,)]) == [ROWS[1]]
        assert view.by_range(relation, (1,), (2,)) == [ROWS[1]]


def test_by_key_only_the_rows_at_those_keys_go_through_the_callable(make: Any) -> None:
    seen: list[int] = []

    def watched(row: Mapping[str, Any]) -> dict[str, Any] | None:
        seen.append(row["id"])
        return titled(row)

    first = Crossing(table("person", key={"person": "id"}, select=TITLE, row=watched, cardinality="1:0..1"))
    sides = make()
    relation = lens_of(sides, {"r1": Two(first), "r2": Two(SECOND)}).forward.tables["person"].relation
    with sides["blue"].view() as view:
        view.by_keys(relation, [(2,), (7,)])
        assert sorted(seen) == [2, 7]
        seen.clear()
        view.by_range(relation, (1,), (6,))
        assert seen == [2, 3]


def test_nothing_of_a_private_table_is_left_after_a_view_or_a_transaction(make: Any) -> None:
    sides = make()
    relation = lens_of(sides).forward.tables["person"].relation
    with sides["blue"].view() as view:
        assert view.count(relation) == 3
    with sides["blue"].writing(Role.ACTIVE, 1) as tx:
        tx.upsert("person", ["id", "name"], [(9, "late COMER")])
        assert [row[1] for row in tx.by_keys(relation, [(9,)])] == ["Late Comer!"]
        assert tx.count(relation) == 4
        tx.delete("person", [(9,)])
        assert tx.count(relation) == 3, "in a transaction what was filled before is not taken again"
    with sides["blue"].view() as view:
        names = view._connection.execute("SELECT name FROM sqlite_temp_master WHERE name LIKE 'dbsync_s%'").fetchall()
    assert names == []


def test_a_range_whose_first_thousands_of_staged_rows_are_all_dropped_goes_on_until_it_has_rows(make: Any) -> None:
    sides = make(older=OLDER.split(";", maxsplit=1)[0])
    total = 2 * PIECE + 10
    with sides["blue"].writing(Role.ACTIVE, 1) as tx:
        tx.insert("person", ["id", "name"], [(n, f"n{n}") for n in range(1, total + 1)])
    second = Crossing(
        table(
            "person",
            key={"person": "id"},
            select=f"SELECT id, name AS label, mail, score, 1 AS ann FROM person WHERE id > {total - 5}",
            cardinality="1:0..1",
        )
    )
    relation = lens_of(sides, {"r1": Two(FIRST), "r2": Two(second)}).forward.tables["person"].relation
    with sides["blue"].view() as view:
        assert [row[0] for row in view.by_range(relation, None, None, limit=3)] == [total - 4, total - 3, total - 2]
        assert len(view.by_range(relation, (total - 2,), None, limit=3)) == 2


def test_where_ranges_do_not_lead_back_the_rows_are_made_once_for_a_view(make: Any) -> None:
    """The key of the newer table begins with another column than that of the table in the middle."""
    seen: list[int] = []

    def watched(row: Mapping[str, Any]) -> dict[str, Any] | None:
        seen.append(row["id"])
        return titled(row)

    older = OLDER.replace("id INTEGER PRIMARY KEY", "id INT").replace(
        "score REAL", "score REAL, PRIMARY KEY (id, mail)"
    )
    older = older.replace("'jo ek', NULL", "'jo ek', 'j@x'")
    middle = "CREATE TABLE person (id INT, name TEXT, mail TEXT, score REAL, PRIMARY KEY (id, mail))"
    newer = "CREATE TABLE person (mail TEXT, id INT, label TEXT, PRIMARY KEY (mail, id))"
    first = Crossing(table("person", key={"person": ["id", "mail"]}, select=TITLE, row=watched, cardinality="1:0..1"))
    sides = make(older=older, newer=newer, middle=middle)
    turned = Crossing(
        table(
            "person",
            key={"person": ["mail", "id"]},
            select="SELECT mail, id, name AS label FROM person",
            cardinality="1:0..1",
        )
    )
    relation = lens_of(sides, {"r1": Two(first), "r2": Two(turned)}).forward.tables["person"].relation
    assert relation.staged[0].places == (1, 0) and not relation.staged[0].leads and not relation.ranged
    whole = every_way(sides["blue"], relation, [("a@x", 1), ("j@x", 2), ("c@x", 3), ("e@x", 7)])
    assert [row[:2] for row in whole] == [("a@x", 1), ("e@x", 7), ("j@x", 2)]
    seen.clear()
    with sides["blue"].view() as view:
        one = view.by_range(relation, None, None, limit=1)
        rest = view.by_range(relation, ("a@x", 1), None, limit=5)
        assert one + rest == whole and len(seen) == 4
        assert view.by_keys(relation, [("j@x", 2)]) == whole[2:] and len(seen) == 4


def test_a_sum_over_what_a_generator_makes_is_asked_by_the_known_part_of_the_key(make: Any) -> None:
    seen: list[int] = []

    def lines(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        seen.append(row["order_id"])
        for number, cents in enumerate(row["cents"].split(","), 1):
            yield {"order_id": row["order_id"], "line": number, "cents": int(cents)}

    older = (
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, cents TEXT);"
        "INSERT INTO orders VALUES (1, '5,6'), (2, '7'), (4, '1,2,3')"
    )
    middle = (
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, cents TEXT);"
        "CREATE TABLE line (order_id INT, line INT, cents INT, PRIMARY KEY (order_id, line))"
    )
    newer = (
        "CREATE TABLE total (order_id INTEGER PRIMARY KEY, cents INT);"
        "CREATE TABLE line (order_id INT, line INT, cents INT, doubled INT, PRIMARY KEY (order_id, line))"
    )
    first = Crossing(
        table(
            "line", key={"orders": {"order_id": "id"}}, select="SELECT id AS order_id, cents FROM orders", row=lines,
            cardinality="1:n",
        )
    )  # fmt: skip
    second = Crossing(
        table(
            "total",
            key={"line": "order_id"},
            select="SELECT order_id, SUM(cents) AS cents FROM line GROUP BY order_id",
            cardinality="1:0..1",
        ),
        table(
            "line",
            select="SELECT order_id, line, cents, cents * 2 AS doubled FROM line",
            key={"line": ["order_id", "line"]},
        ),
    )
    sides = make(older=older, newer=newer, middle=middle)
    lens = lens_of(sides, {"r1": Two(first), "r2": Two(second)})
    total, line = lens.forward.tables["total"].relation, lens.forward.tables["line"].relation
    assert every_way(sides["blue"], total, [(1,), (2,), (3,), (4,)]) == [(1, 11), (2, 7), (4, 6)]
    keys = [(order, number) for order in range(5) for number in range(5)]
    assert len(every_way(sides["blue"], line, keys)) == 6
    seen.clear()
    with sides["blue"].view() as view:
        assert view.by_keys(total, [(4,)]) == [(4, 6)] and seen == [4]
        assert lens.forward.targets(view, "orders", [(4,)]) == {"total": [(4,)], "line": [(4, 1), (4, 2), (4, 3)]}


def test_a_staged_table_may_read_a_staged_table(make: Any) -> None:
    def starred(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "name": f"*{row['name']}"}

    second = Crossing(
        table("person", key={"person": "id"}, select=TITLE, row=starred, cardinality="1:0..1"),
    )
    sides = make()
    for name in ("r1", "r2"):
        sides["blue"].save("shape", name, to_document(shape(MIDDLE)))
    both: Any = sides
    chain: Any = Chain("r0", "r1", "r2", "r3")
    with closing(sqlite3.connect(sides["green"].path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'r3'")
    pairs = {"r1": Two(FIRST), "r2": Two(second), "r3": Two(SECOND)}
    relation = make_lens(both, "blue", chain, pairs).forward.tables["person"].relation
    assert relation.staged[0].relation.staged[0].relation.staged == ()
    rows = every_way(sides["blue"], relation, [(n,) for n in range(9)])
    assert [row[1] for row in rows] == ["*Ann Berg!", "*Jo Ek!", "*Eva Lund!"]


def test_a_callable_at_the_last_step_reads_what_one_in_the_middle_made(make: Any) -> None:
    def labelled(row: Mapping[str, Any]) -> dict[str, Any]:
        return {**row, "label": row["name"], "ann": None}

    last = Crossing(table("person", key={"person": "id"}, select=TITLE, row=labelled, cardinality="1:0..1"))
    sides = make()
    relation = lens_of(sides, {"r1": Two(FIRST), "r2": Two(last)}).forward.tables["person"].relation
    assert not relation.ranged
    assert [row[1] for row in every_way(sides["blue"], relation, [(1,), (2,), (3,), (7,)])] == [
        "Ann Berg",
        "Jo Ek",
        "Eva Lund",
    ]


def test_scratch_reads_staged_rows_too(make: Any) -> None:
    sides = make()
    relation = lens_of(sides).forward.tables["person"].relation
    with sides["blue"].scratch([World(OLDER).catalog().tables["person"]]) as scratch:
        scratch.fill("person", ("id", "name"), [(5, "zoe")])
        assert [row[:2] for row in scratch.by_keys(relation, [(5,)])] == [(5, "Zoe!")]
        scratch.fill("person", ("id", "name"), [(6, "yan")])
        assert [row[0] for row in scratch.by_range(relation, None, None)] == [5, 6]


def test_the_plan_and_what_is_read_name_the_tables_behind_the_private_one(make: Any) -> None:
    sides = make()
    relation = lens_of(sides).forward.tables["person"].relation
    assert {table for table, _ in sides["blue"].reads(relation.sql, relation.staged)} == {"person"}
    found = sides["blue"].plan(relation)
    assert found.scans == () and any("rows at these keys" in line for line in found.lines)


def test_two_rows_at_one_key_in_the_middle_are_refused(make: Any) -> None:
    def twice(row: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{**row, "name": "a"}, {**row, "name": "b"}]

    sides = make()
    first = Crossing(table("person", key={"person": "id"}, select=TITLE, row=twice))
    relation = lens_of(sides, {"r1": Two(first), "r2": Two(SECOND)}).forward.tables["person"].relation
    with sides["blue"].view() as view, pytest.raises(Refused, match="more than one row at one key") as caught:
        view.by_keys(relation, [(1,)])
    assert caught.value.code == "crossing-cardinality"


def test_without_the_recorded_shape_it_is_refused_with_the_remedy(make: Any) -> None:
    sides = make(middle=None)
    with pytest.raises(ConfigError, match="not recorded") as caught:
        lens_of(sides)
    assert caught.value.code == "shape-unknown" and "dbsync migrate" in (caught.value.remedy or "")


def test_a_key_whose_type_changes_is_not_followed_back_and_all_rows_are_made(make: Any) -> None:
    middle = MIDDLE.replace("id INTEGER", "id TEXT")
    newer = NEWER.replace("id INTEGER", "id TEXT")
    sides = make(middle=middle, newer=newer)
    relation = lens_of(sides).forward.tables["person"].relation
    assert relation.staged[0].places is None
    assert [row[0] for row in every_way(sides["blue"], relation, [("1",), ("2",), ("7",)])] == ["1", "2", "7"]


def test_the_hash_knows_the_callable_in_the_middle() -> None:
    shapes = {"r1": World(MIDDLE).catalog()}
    other = Crossing(table("person", key={"person": "id"}, select=TITLE, row=lambda row: row, cardinality="1:0..1"))
    made = [
        composed(World(OLDER), World(NEWER), [("r1", Two(first)), ("r2", Two(SECOND))], shapes=shapes)
        for first in (FIRST, FIRST, other)
    ]
    assert made[0].hash == made[1].hash != made[2].hash


def test_rows_cross_and_are_equal_after_a_change(make: Any) -> None:
    sides = make()
    carried(sides, lens_of(sides), "blue")
    assert read(sides["green"], "SELECT * FROM person ORDER BY id") == ROWS
