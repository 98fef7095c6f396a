"""Composition of crossings along a revision path, run on real databases in memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbsync.errors import ConfigError, Refused
from dbsync.etl import Crossing, table
from dbsync.etl.run import check_cardinality
from dbsync.model import Direction
from tests.unit.etl.etl_world import Two, World, composed, plan_of, scans

CUSTOMER = """
CREATE TABLE Customer (CustomerId INTEGER PRIMARY KEY, FirstName TEXT NOT NULL, LastName TEXT NOT NULL, Email TEXT,
  Street TEXT, City TEXT);
INSERT INTO Customer VALUES (1, 'Mary Ann', 'Berg', 'm@x', 'A 1', 'Ulm'), (2, 'Jo', 'Ek', NULL, NULL, 'Bonn');
"""
SPLIT = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, full_name TEXT NOT NULL, Email TEXT);
CREATE TABLE customer_address (customer_id INTEGER PRIMARY KEY, Street TEXT, City TEXT);
"""
SPLIT_FORWARD = Crossing(
    table(
        "customer",
        key={"Customer": "CustomerId"},
        select="SELECT CustomerId AS id, FirstName || ' ' || LastName AS full_name, Email FROM Customer;  -- all",
    ),
    table(
        "customer_address",
        key={"Customer": {"customer_id": "CustomerId"}},
        select="SELECT c.CustomerId AS customer_id, c.Street, c.City FROM Customer c",
    ),
)
SPLIT_REVERSE = Crossing(
    table(
        "Customer",
        key={"customer": "id", "customer_address": "customer_id"},
        select="""SELECT c.id AS CustomerId, substr(full_name, 1, instr(full_name, ' ') - 1) AS FirstName,
                  substr(full_name, instr(full_name, ' ') + 1) AS LastName, c.Email, a.Street, a.City
                  FROM customer AS c LEFT JOIN customer_address a ON a.customer_id = c.id""",
        loses={"LastName": "split at the first blank"},
    ),
)


def test_a_table_without_a_crossing_crosses_by_the_columns_that_both_shapes_store() -> None:
    older = World(
        'CREATE TABLE Order_ (a INTEGER, b TEXT, gone TEXT, "Größe 1" INT, g INT AS (a + 1), PRIMARY KEY (b, a));'
        "INSERT INTO Order_ (a, b, gone, \"Größe 1\") VALUES (1, 'x', 'y', 7)"
    )
    newer = World(
        'CREATE TABLE order_ ("Größe 1" INT, a INTEGER, B TEXT, x TEXT, n INT NOT NULL DEFAULT 3, PRIMARY KEY (a, B))'
    )
    plan = composed(older, newer, [("r1", Two())]).tables["order_"]
    assert plan.by_name and plan.relation.columns == ("Größe 1", "a", "B") and plan.relation.key == ("a", "B")
    assert older.rows(plan.relation) == [(7, 1, "x")]
    assert composed(older, newer, [("r1", Two())]).targets(older, "ORDER_", [("x", 1), ("x", 1)]) == {
        "order_": [(1, "x")]
    }


def test_a_generated_source_column_may_give_a_stored_one_and_a_generated_target_is_left_out() -> None:
    older = World(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, g INT AS (a * 2)); INSERT INTO t (id, a) VALUES (1, 4)"
    )
    newer = World("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT AS (id), g INT)")
    plan = composed(older, newer, []).tables["t"]
    assert plan.relation.columns == ("id", "g") and older.rows(plan.relation) == [(1, 8)]


def test_a_split_gives_both_tables_and_maps_a_changed_key_to_both() -> None:
    older, newer = World(CUSTOMER), World(SPLIT)
    made = composed(older, newer, [("r1", Two(SPLIT_FORWARD))])
    assert older.rows(made.tables["customer"].relation) == [(1, "Mary Ann Berg", "m@x"), (2, "Jo Ek", None)]
    assert older.rows(made.tables["customer_address"].relation) == [(1, "A 1", "Ulm"), (2, None, "Bonn")]
    assert made.targets(older, "Customer", [(2,)]) == {"customer": [(2,)], "customer_address": [(2,)]}
    assert made.targets_of("customer") == ("customer", "customer_address")
    for plan in made.tables.values():
        check_cardinality(older, plan)


def test_a_merge_joins_what_was_split_and_both_sources_touch_it() -> None:
    older = World(CUSTOMER)
    newer = World(
        SPLIT + "INSERT INTO customer VALUES (1, 'A B', 'e'); INSERT INTO customer_address VALUES (1, 's', 'c')"
    )
    made = composed(older, newer, [("r1", Two(SPLIT_FORWARD, SPLIT_REVERSE))], Direction.REVERSE)
    plan = made.tables["Customer"]
    assert newer.rows(plan.relation) == [(1, "A", "B", "e", "s", "c")]
    assert made.targets(newer, "customer_address", [(5,)]) == {"Customer": [(5,)]}
    assert plan.loses == {"LastName": "split at the first blank"} and not plan.by_name


@pytest.mark.parametrize("direction", [Direction.FORWARD, Direction.REVERSE])
def test_a_key_restriction_reaches_the_index_of_a_single_crossing(direction: Direction) -> None:
    older, newer = World(CUSTOMER + "CREATE TABLE t (a INT, b INT, c, PRIMARY KEY (a, b))"), World(SPLIT)
    newer.db.execute("CREATE TABLE t (a INT, b INT, c, PRIMARY KEY (a, b))")
    made = composed(older, newer, [("r1", Two(SPLIT_FORWARD, SPLIT_REVERSE))], direction)
    source = older if direction is Direction.FORWARD else newer
    for plan in made.tables.values():
        assert scans(source, plan.relation) == [], plan_of(source, plan.relation)
        assert "SEARCH" in plan_of(source, plan.relation)
    assert "t" in made.tables


def test_a_target_named_like_its_source_but_for_case_is_no_circle_in_a_chain() -> None:
    older, newer = World(CUSTOMER), World("CREATE TABLE CUSTOMER (Id INTEGER PRIMARY KEY, Name TEXT)")
    second = Crossing(
        table(
            "CUSTOMER",
            key={"customer": "id"},
            select="SELECT customer.id AS Id, upper(full_name) AS Name FROM customer",
        )
    )
    middle = World(SPLIT).catalog()
    for shapes in ({}, {"r1": middle}):
        if shapes:
            second = Crossing(
                table(
                    "CUSTOMER",
                    key={"customer": "id"},
                    select='SELECT "customer".id AS Id, upper(full_name) AS Name FROM "customer"',
                )
            )
        made = composed(older, newer, [("r1", Two(SPLIT_FORWARD)), ("r2", Two(second))], shapes=shapes)
        relation = made.tables["CUSTOMER"].relation
        assert older.rows(relation) == [(1, "MARY ANN BERG"), (2, "JO EK")]
        assert scans(older, relation) == []
        assert relation.sql.count(" AS (") == 1, "only the table that is needed becomes a CTE"
        assert made.targets(older, "Customer", [(9,)]) == {"CUSTOMER": [(9,)]}


CHAIN = [
    (
        "r1",
        Two(
            Crossing(
                table(
                    "item",
                    key={"Item": ["b", "a"]},
                    select="SELECT b AS kb, a AS ka, price * 100 AS cents, label FROM Item",
                )
            )
        ),
    ),
    ("r2", Two()),
    (
        "r3",
        Two(
            Crossing(
                table(
                    "item",
                    key={"item": {"ka": "ka", "kb": "kb"}},
                    select="SELECT ka, kb, cents || '' AS cents, label || '/' || note AS label, note FROM item",
                )
            )
        ),
    ),
]
CHAIN_OLDER = "CREATE TABLE Item (a INT, b TEXT, price INT, label TEXT, PRIMARY KEY (a, b));"
CHAIN_NEWER = "CREATE TABLE item (ka INT, kb TEXT, cents TEXT, label TEXT, note TEXT, PRIMARY KEY (ka, kb));"
CHAIN_SHAPES = {
    "r1": World("CREATE TABLE item (kb TEXT, ka INT, cents TEXT, label TEXT, PRIMARY KEY (kb, ka))").catalog(),
    "r2": World(
        "CREATE TABLE item (kb TEXT, ka INT, cents TEXT, label TEXT, note TEXT DEFAULT 'n', PRIMARY KEY (kb, ka))"
    ).catalog(),
}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(
        st.tuples(st.integers(0, 5), st.text("abß", min_size=1, max_size=2)),
        st.tuples(st.none() | st.integers(-9, 9), st.none() | st.text(max_size=3)),
        max_size=8,
    ),
    cut=st.tuples(st.integers(0, 5), st.text("abß", max_size=2)),
)
def test_key_list_key_range_and_whole_table_give_the_same_rows_of_a_chain(
    rows: dict[tuple[int, str], tuple[int | None, str | None]], cut: tuple[int, str]
) -> None:
    older, newer = World(CHAIN_OLDER), World(CHAIN_NEWER)
    older.fill("Item", ("a", "b", "price", "label"), [(*key, *rest) for key, rest in rows.items()])
    plan = composed(older, newer, CHAIN, shapes=CHAIN_SHAPES).tables["item"]
    whole = older.rows(plan.relation)
    halves = older.by_range(plan.relation, None, cut) + older.by_range(plan.relation, cut, None)
    assert sorted(halves, key=repr) == whole
    assert sorted(older.by_keys(plan.relation, list(rows)), key=repr) == whole
    assert len(whole) == len(rows) == older.count(plan.relation)
    assert all(row[4] == "n" and (row[2] is None or isinstance(row[2], str)) for row in whole)
    made = composed(older, newer, CHAIN, shapes=CHAIN_SHAPES)
    assert made.targets(older, "Item", list(rows)) == ({"item": list(rows)} if rows else {})


def test_a_chain_seeks_and_matches_what_stored_tables_would_match() -> None:
    older = World("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5)")
    newer = World("CREATE TABLE t (id INTEGER PRIMARY KEY, hit TEXT)")
    middle = World("CREATE TABLE t (id INTEGER PRIMARY KEY, code VARCHAR(9) COLLATE NOCASE, at DATE)").catalog()
    first = Crossing(table("t", key={"t": "id"}, select="SELECT id, n + 0 AS code, '2020-01-02' || '' AS at FROM t"))
    second = Crossing(
        table("t", key={"t": "id"}, select="SELECT id, CASE WHEN code = '5' THEN at END AS hit FROM t WHERE code = '5'")
    )
    made = composed(older, newer, [("r1", Two(first)), ("r2", Two(second))], shapes={"r1": middle})
    relation = made.tables["t"].relation
    assert older.rows(relation) == [(1, "2020-01-02")], "a date stays a date, a number becomes the column's text"
    assert scans(older, relation) == []


def test_a_lookup_is_followed_through_a_key_query() -> None:
    older = World(
        "CREATE TABLE c (id INTEGER PRIMARY KEY, land TEXT); CREATE TABLE land (code TEXT PRIMARY KEY, name TEXT);"
        "INSERT INTO c VALUES (1, 'de'), (2, 'se'), (3, 'de'); INSERT INTO land VALUES ('de', 'D'), ('se', 'S')"
    )
    newer = World("CREATE TABLE c (id INTEGER PRIMARY KEY, land TEXT, land_name TEXT)")
    forward = Crossing(
        table(
            "c",
            key={"c": "id", "land": "SELECT id FROM c WHERE land IN (:keys)"},
            select="SELECT c.id, c.land, land.name AS land_name FROM c LEFT JOIN land ON land.code = c.land",
        )
    )
    made = composed(older, newer, [("r1", Two(forward))])
    assert made.targets(older, "land", [("de",)]) == {"c": [(1,), (3,)]}
    assert scans(older, made.tables["c"].relation) == []


def test_a_key_is_inferred_where_one_table_with_the_same_key_names_is_read() -> None:
    older, newer = (
        World("CREATE TABLE t (id INTEGER PRIMARY KEY, a)"),
        World("CREATE TABLE t (id INTEGER PRIMARY KEY, b)"),
    )
    made = composed(older, newer, [("r1", Two(Crossing(table("t", select="SELECT id, a AS b FROM t"))))])
    assert made.targets(older, "t", [(1,)]) == {"t": [(1,)]}


def test_the_hash_changes_with_the_query_the_losses_the_key_and_the_types_and_with_nothing_else() -> None:
    older, newer = World(CUSTOMER), World(SPLIT)

    def word(world: World, **changed: object) -> str:
        given = {
            "key": {"Customer": "CustomerId"},
            "select": "SELECT CustomerId AS id, LastName AS full_name, Email FROM Customer",
        }
        crossing = Crossing(table("customer", **{**given, **changed}))  # type: ignore[arg-type]
        return composed(older, world, [("r1", Two(crossing))]).hash

    same = word(newer)
    assert same == word(World(SPLIT))
    others = {
        word(newer, loses={"Email": "why"}),
        word(newer, select="SELECT CustomerId AS id, FirstName AS full_name, Email FROM Customer"),
        word(newer, row=lambda row: row),
        word(newer, row=lambda row: {**row}),
        word(newer, key={"Customer": "SELECT CustomerId FROM Customer WHERE CustomerId IN (:keys)"}),
        word(World(SPLIT.replace("full_name TEXT", "full_name VARCHAR(9)"))),
    }
    assert len(others) == 6 and same not in others


def test_a_column_that_nothing_fills_is_refused_unless_it_fills_itself() -> None:
    older = World("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    newer = World("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT NOT NULL)")
    with pytest.raises(Refused, match="nothing gives n") as caught:
        composed(older, newer, [("r1", Two())])
    assert caught.value.code == "missing-crossing" and caught.value.remedy
    noted = composed(older, newer, [("r1", Two())], lenient=True)
    assert not noted.tables and "n" in noted.impossible["t"]


def test_tables_without_a_primary_key_are_reported_and_new_tables_are_left_alone() -> None:
    older = World("CREATE TABLE loose (a); CREATE TABLE old (id INTEGER PRIMARY KEY)")
    newer = World("CREATE TABLE loose (a); CREATE TABLE fresh (id INTEGER PRIMARY KEY)")
    made = composed(older, newer, [("r1", Two())])
    assert made.keyless == ("loose",) and not made.tables


def test_a_revision_with_a_forward_crossing_only_is_reported_in_reverse() -> None:
    older, newer = World(CUSTOMER), World(SPLIT)
    back = composed(older, newer, [("r1", Two(SPLIT_FORWARD))], Direction.REVERSE, lenient=True)
    assert back.assumed == ("r1",) and "customer" not in back.tables and "Customer" in back.impossible


def test_an_inner_join_that_drops_rows_is_counted() -> None:
    older = World(
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, x);"
        "INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1, 'x')"
    )
    newer = World("CREATE TABLE a (id INTEGER PRIMARY KEY, x)")
    sql = "SELECT a.id, b.x FROM a JOIN b ON b.id = a.id"
    made = composed(older, newer, [("r1", Two(Crossing(table("a", key={"a": "id", "b": "id"}, select=sql))))])
    with pytest.raises(Refused, match="a has 2 rows, its crossing gives 1"):
        check_cardinality(older, made.tables["a"])
    few = table("a", key={"a": "id", "b": "id"}, select=sql, cardinality="1:0..1")
    check_cardinality(older, composed(older, newer, [("r1", Two(Crossing(few)))]).tables["a"])


def test_every_step_of_a_reverse_chain_gives_the_shape_before_its_revision() -> None:
    older = World("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    newer = World("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT); INSERT INTO t VALUES (1, 'x')")
    middle = World("CREATE TABLE t (id INTEGER PRIMARY KEY, b TEXT)").catalog()
    first = Two(reverse=Crossing(table("t", select="SELECT id, b || '1' AS a FROM t")))
    second = Two(reverse=Crossing(table("t", select="SELECT id, c || '2' AS b FROM t")))
    made = composed(older, newer, [("r1", first), ("r2", second)], Direction.REVERSE, {"r1": middle})
    assert newer.rows(made.tables["t"].relation) == [(1, "x21")]
    assert scans(newer, made.tables["t"].relation) == []


def test_a_table_dropped_and_made_anew_between_does_not_cross_by_its_old_name() -> None:
    older = World("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    made = composed(older, older, [("r1", Two()), ("r2", Two())], shapes={"r1": World("").catalog()})
    assert not made.tables


def test_an_unknown_shape_between_needs_a_key_that_says_its_columns() -> None:
    older, newer = World(CUSTOMER), World("CREATE TABLE c (id INTEGER PRIMARY KEY)")
    computed = Crossing(table("m", key={"Customer": "CustomerId"}, select="SELECT CustomerId + 0 AS i FROM Customer"))
    then = Crossing(table("c", key={"m": "i"}, select="SELECT i AS id FROM m"))
    with pytest.raises(ConfigError) as caught:
        composed(older, newer, [("r1", Two(computed)), ("r2", Two(then))])
    assert caught.value.code == "crossing-key"
