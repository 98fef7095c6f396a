"""What key queries need of the state before a change: asked of the other database, or refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from dbsync.errors import ConfigError
from dbsync.etl import Crossing, table
from dbsync.etl.lens import Lens
from dbsync.migrate.shape import to_document
from dbsync.model import Key
from tests.unit.etl.etl_world import Two, World
from tests.unit.etl.test_lens import lens_of

OLDER = """
CREATE TABLE a (id INTEGER PRIMARY KEY, title TEXT);
CREATE TABLE t (id INTEGER PRIMARY KEY, a_id INT, name TEXT, fax TEXT);
INSERT INTO a VALUES (1, 'one'), (2, 'two');
INSERT INTO t VALUES (1, 1, 'x', 'f'), (2, 1, 'y', 'g');
"""
NEWER = """
CREATE TABLE a (id INTEGER PRIMARY KEY, title TEXT, n INT);
CREATE TABLE t (id INTEGER PRIMARY KEY, parent INT, name TEXT);
"""
COUNT = "SELECT a.id, a.title, (SELECT count(*) FROM t WHERE t.a_id = a.id) AS n FROM a"
MOVED = "SELECT a_id FROM t WHERE id IN (:keys)"
A = table("a", key={"a": "id", "t": MOVED}, select=COUNT)
T = table("t", select="SELECT id, a_id AS parent, name FROM t")
BACK_T = table("t", select="SELECT id, parent AS a_id, name FROM t")


def lens(forward: Crossing, reverse: Crossing | None = None, older: str = OLDER, newer: str = NEWER) -> Lens:
    pairs = {"r1": Two(forward, reverse)}
    return lens_of(World(older, "blue", "r0"), World(newer, "green", "r1"), pairs, "blue")


def refused(forward: Crossing, reverse: Crossing | None = None, newer: str = NEWER) -> str:
    with pytest.raises(ConfigError) as caught:
        lens(forward, reverse, newer=newer)
    assert caught.value.code == "crossing-key" and "key of one table" in str(caught.value.remedy)
    return caught.value.message


def both(lens: Lens, blue: World, green: World, source: str, keys: list[Key]) -> dict[str, list[Key]]:
    return lens.forward.targets(blue, source, keys, lens.before("green", green))


def test_the_state_before_a_change_is_asked_of_the_other_database_with_its_own_names() -> None:
    made = lens(Crossing(A, T), Crossing(BACK_T))
    blue, green = World(OLDER), World(NEWER)
    green.db.executescript("INSERT INTO t VALUES (1, 1, 'x'), (2, 1, 'y')")
    blue.db.executescript("UPDATE t SET a_id = 2 WHERE id = 1; DELETE FROM t WHERE id = 2")
    assert both(made, blue, green, "t", [(1,)]) == {"a": [(2,), (1,)], "t": [(1,)]}
    assert both(made, blue, green, "t", [(2,)])["a"] == [(1,)]
    assert "a" not in made.forward.targets(blue, "t", [(2,)]), "the new state alone does not know it"


def test_a_query_that_needs_the_past_is_refused_where_the_other_direction_does_not_give_the_column() -> None:
    found = refused(Crossing(A, T), Crossing(table("t", select="SELECT id, name FROM t")))
    assert "crossing r1 (etl/file.py), forward, table a: the key query of t" in found
    assert "it reads t.a_id, which does not come back from the other database" in found
    lost = Crossing(table("t", select="SELECT id, parent AS a_id, name FROM t", loses={"a_id": "why"}))
    assert "it reads t.a_id, which loses what it held: why" in refused(Crossing(A, T), lost)


def test_a_query_that_needs_the_past_is_refused_where_no_query_can_give_the_table() -> None:
    gone = "CREATE TABLE a (id INTEGER PRIMARY KEY, title TEXT, n INT);"
    assert "the reverse crossing gives no t" in refused(Crossing(A), newer=gone)
    mapped = Crossing(table("t", select="SELECT id, parent AS a_id, name FROM t", row=dict))
    assert "row= gives its rows" in refused(Crossing(A, T), mapped)


def test_a_lost_column_spoils_what_is_computed_from_it_on_the_way() -> None:
    spoiled = Crossing(table("t", select="SELECT id, parent + length(name) AS a_id, name FROM t"))
    forward = Crossing(A, table("t", select="SELECT id, a_id AS parent, name FROM t", loses={"name": "folded"}))
    assert "it reads t.a_id, which loses what it held: folded" in refused(forward, spoiled)


def test_a_lookup_of_the_key_that_the_select_joins_on_needs_no_past() -> None:
    titles = table(
        "t",
        key={"t": "id", "a": "SELECT id FROM t WHERE a_id IN (:keys)"},
        select="SELECT t.id, t.a_id AS parent, a.title AS name FROM t LEFT JOIN a ON a.id = t.a_id",
    )
    made = lens(Crossing(titles), Crossing(table("t", select="SELECT id, name FROM t")))
    (rule,) = made.forward.tables["t"].sources["a"]
    assert not rule.looks_back and not made.past


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM t WHERE a_id + 0 IN (:keys)",
        "SELECT id FROM t WHERE a_id IN (:keys) OR name = 'x'",
        "SELECT id FROM t WHERE a_id IN (:keys) GROUP BY id",
        "SELECT id + 1 FROM t WHERE a_id IN (:keys)",
        "SELECT t.id FROM t JOIN a ON a.id = t.a_id WHERE a.id IN (:keys)",
    ],
)
def test_every_other_query_needs_it(query: str) -> None:
    titles = table(
        "t",
        key={"t": "id", "a": query},
        select="SELECT t.id, t.a_id AS parent, a.title AS name FROM t LEFT JOIN a ON a.id = t.a_id",
    )
    refused(Crossing(titles), Crossing(table("t", select="SELECT id, name FROM t")))


def test_a_lookup_keyed_by_text_is_followed_through_three_revisions() -> None:
    older = "CREATE TABLE C (Id INTEGER PRIMARY KEY, Country TEXT); INSERT INTO C VALUES (1, 'D'), (2, 'S'), (3, 'S');"
    newer = (
        "CREATE TABLE land (name TEXT PRIMARY KEY, heads INT, shout TEXT);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, land_name TEXT)"
    )
    first = World("CREATE TABLE c (id INTEGER PRIMARY KEY, country TEXT)").catalog()
    second = World(
        "CREATE TABLE c (id INTEGER PRIMARY KEY, country TEXT); CREATE TABLE land (name TEXT PRIMARY KEY, heads INT)"
    ).catalog()
    pairs = {
        "r1": Two(
            Crossing(table("c", key={"C": "Id"}, select="SELECT Id AS id, Country AS country FROM C")),
            Crossing(table("C", key={"c": "id"}, select="SELECT id AS Id, country AS Country FROM c")),
        ),
        "r2": Two(
            Crossing(
                table(
                    "land",
                    key={"c": "SELECT country FROM c WHERE id IN (:keys)"},
                    select="SELECT country AS name, count(*) AS heads FROM c GROUP BY country",
                )
            )
        ),
        "r3": Two(
            Crossing(
                table("c", select="SELECT id, country AS land_name FROM c"),
                table("land", select="SELECT name, heads, upper(name) AS shout FROM land"),
            ),
            Crossing(table("c", select="SELECT id, land_name AS country FROM c")),
        ),
    }
    blue, green = World(older, "blue", "r0"), World(newer, "green", "r3")
    green.documents.update({"r1": to_document(first), "r2": to_document(second)})
    made = lens_of(blue, green, pairs, "blue", "r1", "r2", "r3")
    green.db.executescript(
        "INSERT INTO c VALUES (1, 'D'), (2, 'S'), (3, 'S'); INSERT INTO land VALUES ('D', 1, 'D'), ('S', 2, 'S')"
    )
    blue.db.executescript("UPDATE C SET Country = 'S' WHERE Id = 1; DELETE FROM C WHERE Id = 2")
    found = both(made, blue, green, "C", [(1,), (2,)])
    assert sorted(found["land"]) == [("D",), ("S",)], "the last one of D has left"
    assert blue.by_keys(made.forward.tables["land"].relation, found["land"]) == [("S", 2, "S")]


def test_going_over_and_back_through_a_lookup_is_one_query_by_key() -> None:
    newer = (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a_id INT, name TEXT, fax TEXT, extra TEXT);"
        "CREATE TABLE a (id INTEGER PRIMARY KEY, caption TEXT)"
    )
    forward = Crossing(table("a", select="SELECT id, title || '!' AS caption FROM a"))
    reverse = Crossing(
        table("a", select="SELECT id, caption AS title FROM a"),
        table(
            "t",
            key={"t": "id", "a": "SELECT id FROM t WHERE a_id IN (:keys)"},
            select="SELECT t.id, t.a_id, a.caption AS name, t.fax FROM t LEFT JOIN a ON a.id = t.a_id",
        ),
    )
    made = lens(forward, reverse, newer=newer)
    blue: Any = World(OLDER)
    assert blue.by_keys(made.over_and_back["blue"]["t"], [(2,)]) == [(2, 1, "one!", "g")]
    plan = "\n".join(
        row[3] for row in blue.db.execute(f"EXPLAIN QUERY PLAN {blue.restricted(made.over_and_back['blue']['t'])}")
    )
    assert "SCAN t" not in plan and "SCAN a" not in plan, plan


def test_a_step_that_keeps_only_what_is_not_known_of_a_key_reads_the_rows_between_in_both_states() -> None:
    older = (
        "CREATE TABLE C (Id INTEGER PRIMARY KEY, Home TEXT, Work TEXT);"
        "INSERT INTO C VALUES (1, 'a', 'b'), (2, 'c', NULL)"
    )
    phone = "CREATE TABLE phone (c_id INT, kind TEXT, number TEXT, PRIMARY KEY (c_id, kind));"
    newer, middle = phone + "CREATE TABLE kinds (kind TEXT PRIMARY KEY, n INT)", World(phone).catalog()
    number = "CASE k.kind WHEN 'home' THEN c.Home ELSE c.Work END"
    phones = f"""SELECT c.Id AS c_id, k.kind, {number} AS number FROM C c
                 JOIN (SELECT 'home' AS kind UNION ALL SELECT 'work') AS k WHERE {number} IS NOT NULL"""
    back = """SELECT p.c_id AS Id, max(CASE p.kind WHEN 'home' THEN p.number END) AS Home,
              max(CASE p.kind WHEN 'work' THEN p.number END) AS Work FROM phone p GROUP BY p.c_id"""
    counted = "SELECT kind, count(*) AS n FROM phone GROUP BY kind"
    pairs = {
        "r1": Two(
            Crossing(table("phone", key={"C": {"c_id": "Id"}}, select=phones, cardinality="1:n")),
            Crossing(table("C", key={"phone": "c_id"}, select=back, cardinality="1:0..1")),
        ),
        "r2": Two(Crossing(table("kinds", key={"phone": "kind"}, select=counted, cardinality="1:0..1"))),
    }
    blue, green = World(older, "blue", "r0"), World(newer, "green", "r2")
    green.documents["r1"] = to_document(middle)
    made = lens_of(blue, green, pairs, "blue", "r1", "r2")
    green.db.executescript(
        "INSERT INTO phone VALUES (1, 'home', 'a'), (1, 'work', 'b'), (2, 'home', 'c');"
        "INSERT INTO kinds VALUES ('home', 2), ('work', 1)"
    )
    blue.db.execute("UPDATE C SET Work = NULL WHERE Id = 1")
    found = both(made, blue, green, "C", [(1,)])
    assert sorted(found["kinds"]) == [("home",), ("work",)] and sorted(found["phone"]) == [(1, "home"), (1, "work")]
    assert blue.by_keys(made.forward.tables["kinds"].relation, found["kinds"]) == [("home", 2)]
