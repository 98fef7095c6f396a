"""The lens between two databases: make_lens and put, on databases in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dbsync.errors import ConfigError, Refused
from dbsync.etl import Crossing, table
from dbsync.etl.run import Applied, Lens, make_lens, put
from dbsync.migrate.shape import to_document
from dbsync.model import Key
from tests.unit.etl.etl_world import Path, Two, World
from tests.unit.etl.test_compose import CUSTOMER, SPLIT, SPLIT_FORWARD, SPLIT_REVERSE

BOTH = {"r1": Two(SPLIT_FORWARD, SPLIT_REVERSE)}


def lens_of(older: World, newer: World, pairs: dict[str, Two], active: str, *path: str) -> Lens:
    both: Any = {older.name: older, newer.name: newer}
    migrator: Any = Path("r0", *(path or ("r1",)))
    return make_lens(both, active, migrator, pairs)


def cross(source: World, target: World, lens: Lens, source_table: str, keys: Sequence[Key]) -> dict[str, Applied]:
    composition = lens.toward(target.name)
    done = {}
    for name, touched in composition.targets(source, source_table, keys).items():
        rows = source.by_keys(composition.tables[name].relation, touched)
        done[name] = put(target, target, lens, name, touched, rows)  # type: ignore[arg-type]
    return done


def two(older: str = CUSTOMER, newer: str = SPLIT) -> tuple[World, World]:
    return World(older, "blue", "r0"), World(newer, "green", "r1")


def customers(world: World, columns: str = "*") -> list[tuple[object, ...]]:
    return world.db.execute(f"SELECT {columns} FROM customer ORDER BY 1").fetchall()


def test_mary_ann_survives_the_way_over_a_change_of_her_mail_and_the_way_back() -> None:
    """protocol.md test 11, without the traffic."""
    blue, green = two()
    cross(blue, green, lens_of(blue, green, BOTH, "blue"), "Customer", [(1,), (2,)])
    assert customers(green) == [(1, "Mary Ann Berg", "m@x"), (2, "Jo Ek", None)]
    back = lens_of(blue, green, BOTH, "green")
    assert back.older == "blue" and back.toward("blue") is back.reverse
    blue.upserts.clear()
    assert cross(green, blue, back, "customer", [(1,), (2,)])["Customer"] == Applied(0, 0)
    assert not blue.upserts, "nothing was changed over there, so nothing is written here"
    green.db.execute("UPDATE customer SET Email = 'new@x' WHERE id = 1")
    assert cross(green, blue, back, "customer", [(1,)])["Customer"] == Applied(1, 0)
    assert customers(blue)[0] == (1, "Mary Ann", "Berg", "new@x", "A 1", "Ulm")
    green.db.execute("UPDATE customer_address SET City = 'Köln' WHERE customer_id = 1")
    cross(green, blue, back, "customer_address", [(1,)])
    assert customers(blue)[0] == (1, "Mary Ann", "Berg", "new@x", "A 1", "Köln")
    green.db.execute("UPDATE customer SET full_name = 'Eva Maria Lund' WHERE id = 1")
    cross(green, blue, back, "customer", [(1,)])
    assert customers(blue)[0][1:3] == ("Eva", "Maria Lund"), (
        "what was changed over there is taken, with its declared loss"
    )


def test_rows_made_and_deleted_over_there_are_made_and_deleted_here() -> None:
    blue, green = two()
    lens = lens_of(blue, green, BOTH, "green")
    green.db.executescript(
        "INSERT INTO customer VALUES (7, 'A B', 'e'); INSERT INTO customer_address VALUES (7, 's', 'c')"
    )
    assert cross(green, blue, lens, "customer", [(7,), (1,)])["Customer"] == Applied(1, 1)
    assert customers(blue, "CustomerId, FirstName, City") == [(2, "Jo", "Bonn"), (7, "A", "c")]


LOSSY_FORWARD = Crossing(
    table("t", key={"t": "id"}, select="SELECT id, ms / 1000 AS s, upper(a) AS a, 'new' AS nick FROM t")
)
LOSSY_REVERSE = Crossing(
    table("t", key={"t": "id"}, select="SELECT id, s * 1000 AS ms, a FROM t", loses={"ms": "below a second"})
)
LOSSY = {"r1": Two(LOSSY_FORWARD, LOSSY_REVERSE)}
OLD_T = "CREATE TABLE t (id INTEGER PRIMARY KEY, ms INT, a TEXT); INSERT INTO t VALUES (1, 1234, 'Å')"
NEW_T = "CREATE TABLE t (id INTEGER PRIMARY KEY, s INT, a TEXT, nick TEXT, note TEXT DEFAULT 'n')"


def test_newer_only_columns_are_filled_once_and_then_kept_when_the_newer_side_has_lived() -> None:
    blue, green = two(OLD_T, NEW_T)
    fresh = lens_of(blue, green, LOSSY, "blue")
    assert fresh.kept == {}
    cross(blue, green, fresh, "t", [(1,)])
    green.db.execute("UPDATE t SET nick = 'mine', note = 'my note'")
    green.lived = frozenset({"r1"})
    lived = lens_of(blue, green, LOSSY, "blue")
    assert lived.kept == {"t": frozenset({"nick"})} and lived.hash == fresh.hash
    blue.db.execute("UPDATE t SET ms = 9999")
    cross(blue, green, lived, "t", [(1,)])
    assert green.db.execute("SELECT * FROM t").fetchall() == [(1, 9, "Å", "mine", "my note")]
    green.lived = frozenset({"elsewhere"})
    assert lens_of(blue, green, LOSSY, "blue").kept == {}


def test_a_lossy_value_stays_until_it_is_changed_over_there() -> None:
    blue, green = two(OLD_T, NEW_T)
    cross(blue, green, lens_of(blue, green, LOSSY, "blue"), "t", [(1,)])
    lens = lens_of(blue, green, LOSSY, "green")
    green.db.execute("UPDATE t SET a = 'B'")
    cross(green, blue, lens, "t", [(1,)])
    assert blue.db.execute("SELECT * FROM t").fetchall() == [(1, 1234, "B")]
    green.db.execute("UPDATE t SET s = 5")
    cross(green, blue, lens, "t", [(1,)])
    assert blue.db.execute("SELECT * FROM t").fetchall() == [(1, 5000, "B")]


def test_a_by_name_reverse_of_a_computed_forward_leaves_unchanged_cells_alone() -> None:
    blue, green = two(OLD_T, OLD_T.split(";", maxsplit=1)[0])
    forward = Crossing(table("t", key={"t": "id"}, select="SELECT id, ms, a || '' AS a FROM t WHERE 1"))
    lowered = Crossing(table("t", key={"t": "id"}, select="SELECT id, ms, a || '!' AS a FROM t"))
    assert forward != lowered
    pairs = {"r1": Two(lowered, None)}
    cross(blue, green, lens_of(blue, green, pairs, "blue"), "t", [(1,)])
    green.db.execute("UPDATE t SET ms = 5")
    lens = lens_of(blue, green, pairs, "green")
    assert lens.reverse.assumed == ("r1",) and lens.merges("t")
    cross(green, blue, lens, "t", [(1,)])
    assert blue.db.execute("SELECT * FROM t").fetchall() == [(1, 5, "Å")]


def test_a_lookup_in_reverse_is_served_by_the_whole_lookup_table() -> None:
    older = (
        "CREATE TABLE c (id INTEGER PRIMARY KEY, land TEXT, x TEXT); INSERT INTO c VALUES (1, 'D', 'a'), (2, 'S', 'b')"
    )
    newer = (
        "CREATE TABLE c (id INTEGER PRIMARY KEY, code TEXT, x TEXT); CREATE TABLE land (code TEXT PRIMARY KEY, name)"
    )
    older += "; CREATE TABLE land (code TEXT PRIMARY KEY, name TEXT); INSERT INTO land VALUES ('d', 'D'), ('s', 'S')"
    forward = Crossing(table("c", key={"c": "id"}, select="SELECT id, lower(land) AS code, x FROM c"))
    reverse = Crossing(
        table(
            "c",
            key={"c": "id", "land": "SELECT id FROM c WHERE code IN (:keys)"},
            select="SELECT c.id, land.name AS land, c.x FROM c LEFT JOIN land ON land.code = c.code",
        )
    )
    pairs = {"r1": Two(forward, reverse)}
    blue, green = two(older, newer)
    lens = lens_of(blue, green, pairs, "blue")
    for name in ("c", "land"):
        cross(blue, green, lens, name, [(1,), (2,)] if name == "c" else [("d",), ("s",)])
    lens = lens_of(blue, green, pairs, "green")
    green.db.execute("UPDATE c SET x = 'changed' WHERE id = 1")
    assert cross(green, blue, lens, "c", [(1,), (2,)])["c"] == Applied(1, 0)
    green.db.execute("UPDATE land SET name = 'Sverige' WHERE code = 's'")
    cross(green, blue, lens, "land", [("s",)])
    assert blue.db.execute("SELECT * FROM c").fetchall() == [(1, "D", "changed"), (2, "Sverige", "b")]


def test_a_chain_uses_the_shapes_that_either_database_has_recorded() -> None:
    blue = World("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x')", "blue", "r0")
    green = World("CREATE TABLE t (id INTEGER PRIMARY KEY, c TEXT)", "green", "r2")
    middle = World("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT DEFAULT 'dflt')", "m", "r1").catalog()
    pairs = {"r2": Two(Crossing(table("t", key={"t": "id"}, select="SELECT id, a || b AS c FROM t")))}
    with pytest.raises(ConfigError, match="reads b") as caught:
        lens_of(blue, green, pairs, "blue", "r1", "r2")
    assert caught.value.code == "unknown-column"
    green.documents["r1"] = to_document(middle)
    lens = lens_of(blue, green, pairs, "blue", "r1", "r2")
    assert lens.path == ("r1", "r2") and blue.rows(lens.forward.tables["t"].relation) == [(1, "xdflt")]


def test_at_one_revision_both_ways_are_by_name_and_the_hash_does_not_know_who_is_active() -> None:
    blue, green = World(CUSTOMER, "blue", "r0"), World(CUSTOMER, "green", "r0")
    here, there = lens_of(blue, green, BOTH, "blue"), lens_of(blue, green, BOTH, "green")
    assert (here.older, there.older, here.path) == ("blue", "green", ())
    assert here.hash == there.hash and here.forward.tables["Customer"].by_name
    green.db.execute("DELETE FROM Customer WHERE CustomerId = 1")
    assert cross(blue, green, here, "Customer", [(1,)])["Customer"] == Applied(1, 0)
    assert cross(blue, green, here, "Customer", [(99,)])["Customer"] == Applied(0, 1)


def test_the_hash_of_a_crossing_lens_is_the_same_whoever_is_active() -> None:
    blue, green = two()
    assert lens_of(blue, green, BOTH, "blue").hash == lens_of(blue, green, BOTH, "green").hash


def test_revisions_of_which_neither_leads_to_the_other_are_refused() -> None:
    class Fork:
        def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
            raise Refused("fork", code="revisions-diverged")

    blue, green = two()
    with pytest.raises(Refused) as caught:
        make_lens({"blue": blue, "green": green}, "blue", Fork(), {})  # type: ignore[arg-type, dict-item]
    assert caught.value.code == "revisions-diverged"


def test_an_empty_side_gives_a_lens_through_which_nothing_crosses() -> None:
    blue, green = World(CUSTOMER, "blue", "r1"), World("", "green", None)
    lens = lens_of(blue, green, BOTH, "blue")
    assert lens.older == "green" and not lens.forward.tables and not lens.reverse.tables


def test_a_direction_in_which_rows_cannot_be_made_is_refused_when_it_is_needed() -> None:
    blue, green = two()
    lens = lens_of(blue, green, {"r1": Two(SPLIT_FORWARD)}, "blue")
    assert lens.toward("green").tables and "Customer" in lens.reverse.impossible
    with pytest.raises(Refused) as caught:
        lens.toward("blue")
    assert caught.value.code == "missing-crossing"


def test_a_table_that_is_excluded_on_either_side_does_not_cross_and_cannot_be_read() -> None:
    blue, green = two(CUSTOMER + "CREATE TABLE other (id INTEGER PRIMARY KEY)")
    blue.left_out = ("Customer",)
    with pytest.raises(ConfigError, match="not among the tables"):
        lens_of(blue, green, {"r1": Two(Crossing(SPLIT_FORWARD.tables[1]))}, "blue")
    blue.left_out, green.left_out = (), ("customer_address",)
    assert set(lens_of(blue, green, {"r1": Two(SPLIT_FORWARD)}, "blue").forward.tables) == {"customer"}


def test_two_rows_at_one_key_are_refused_with_table_and_key() -> None:
    blue, green = two()
    lens = lens_of(blue, green, BOTH, "blue")
    with pytest.raises(Refused, match=r"table customer.*\(1,\)") as caught:
        put(green, green, lens, "customer", [(1,)], [(1, "a", None), (1, "b", None)])  # type: ignore[arg-type]
    assert caught.value.code == "crossing-cardinality" and not green.upserts


def test_fresh_rows_are_inserted() -> None:
    blue, green = two()
    lens = lens_of(blue, green, BOTH, "blue")
    assert put(green, green, lens, "customer", [(1,)], [(1, "a", None)], fresh=True) == Applied(1, 0)  # type: ignore[arg-type]
    assert customers(green) == [(1, "a", None)] and not green.upserts
