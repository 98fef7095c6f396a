"""The way back where one row on one side is several on the other: merged by keys, cell by cell."""

from __future__ import annotations

from typing import Any

import pytest

from dbsync.etl import Crossing, table
from dbsync.etl.lens import Lens
from dbsync.etl.run import Applied, put
from dbsync.model import Key
from tests.unit.etl.etl_world import Two, World
from tests.unit.etl.test_lens import lens_of

MANY = """
CREATE TABLE item (order_id INT, nr INT, price INT, note TEXT, PRIMARY KEY (order_id, nr));
INSERT INTO item VALUES (1, 1, 10, 'Mixed Case'), (1, 2, 20, 'b'), (2, 1, 30, 'c');
"""
ONE = "CREATE TABLE orders (id INTEGER PRIMARY KEY, first TEXT, second TEXT, sum INT);"
GATHER = """SELECT i.order_id AS id, max(CASE i.nr WHEN 1 THEN upper(i.note) END) AS first,
            max(CASE i.nr WHEN 2 THEN upper(i.note) END) AS second, sum(i.price) AS sum
            FROM item i GROUP BY i.order_id"""
SPREAD = """SELECT o.id AS order_id, n.nr, CASE n.nr WHEN 1 THEN o.first ELSE o.second END AS note FROM orders o
            JOIN (SELECT 1 AS nr UNION ALL SELECT 2) AS n
            WHERE CASE n.nr WHEN 1 THEN o.first ELSE o.second END IS NOT NULL"""
GATHERED = table("orders", key={"item": {"id": "order_id"}}, select=GATHER, cardinality="1:0..1")
SPREADING = table("item", key={"orders": "id"}, select=SPREAD, cardinality="1:n", loses={"note": "upper case"})


@pytest.fixture(autouse=True)
def by_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a whole table was read")

    monkeypatch.setattr(World, "by_range", never)


def cross(source: World, target: World, lens: Lens, name: str, keys: list[Key]) -> dict[str, Applied]:
    way = lens.toward(target.name)
    tx: Any = target
    done = {}
    for table_, touched in way.targets(source, name, keys, lens.before(target.name, target)).items():
        rows = source.by_keys(way.tables[table_].relation, touched)
        done[table_] = put(tx, tx, lens, table_, touched, rows)
    return done


def test_several_rows_that_were_gathered_into_one_come_back_changed_only_where_it_was() -> None:
    blue, green = World(MANY, "blue", "r0"), World(ONE, "green", "r1")
    pairs = {"r1": Two(Crossing(GATHERED), Crossing(SPREADING))}
    cross(blue, green, lens_of(blue, green, pairs, "blue"), "item", [(1, 1), (1, 2), (2, 1)])
    assert green.db.execute("SELECT * FROM orders").fetchall() == [(1, "MIXED CASE", "B", 30), (2, "C", None, 30)]
    lens = lens_of(blue, green, pairs, "green")
    green.db.execute("UPDATE orders SET second = 'new' WHERE id = 1")
    assert cross(green, blue, lens, "orders", [(1,), (2,)]) == {"item": Applied(1, 0)}
    items = blue.db.execute("SELECT * FROM item ORDER BY 1, 2").fetchall()
    assert items == [(1, 1, 10, "Mixed Case"), (1, 2, 20, "new"), (2, 1, 30, "c")]
    green.db.execute("UPDATE orders SET second = NULL WHERE id = 1")
    assert cross(green, blue, lens, "orders", [(1,)]) == {"item": Applied(0, 1)}, "a child no longer made is deleted"
    green.db.execute("DELETE FROM orders WHERE id = 2")
    assert cross(green, blue, lens, "orders", [(2,)]) == {"item": Applied(0, 1)}
    assert blue.db.execute("SELECT order_id, nr FROM item").fetchall() == [(1, 1)]


def test_one_row_that_was_spread_over_several_comes_back_changed_only_where_they_were() -> None:
    blue = World(ONE + "INSERT INTO orders VALUES (1, 'Mixed', 'b', 7), (2, NULL, 'd', 8)", "blue", "r0")
    green = World(MANY.split("INSERT", maxsplit=1)[0], "green", "r1")
    spread = table(
        "item", key={"orders": "id"}, cardinality="1:n", select=SPREAD.replace("o.first ELSE", "lower(o.first) ELSE")
    )
    back = GATHER.replace("upper(i.note)", "i.note").replace(", sum(i.price) AS sum", "")
    gathered = table("orders", key={"item": "order_id"}, cardinality="1:0..1", select=back)
    pairs = {"r1": Two(Crossing(spread), Crossing(gathered))}
    cross(blue, green, lens_of(blue, green, pairs, "blue"), "orders", [(1,), (2,)])
    assert green.db.execute("SELECT order_id, nr, note FROM item ORDER BY 1, 2").fetchall() == [
        (1, 1, "mixed"),
        (1, 2, "b"),
        (2, 2, "d"),
    ]
    lens = lens_of(blue, green, pairs, "green")
    green.db.execute("UPDATE item SET note = 'B' WHERE nr = 2 AND order_id = 1")
    assert cross(green, blue, lens, "item", [(1, 1), (1, 2), (2, 2)]) == {"orders": Applied(1, 0)}
    assert blue.db.execute("SELECT * FROM orders").fetchall() == [(1, "Mixed", "B", 7), (2, None, "d", 8)]
    green.db.execute("DELETE FROM item WHERE order_id = 2")
    assert cross(green, blue, lens, "item", [(2, 2)]) == {"orders": Applied(0, 1)}
