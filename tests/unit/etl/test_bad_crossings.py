"""A corpus of crossings that must be refused, each with its code (protocol test 20)."""

from __future__ import annotations

from typing import Any

import pytest

from dbsync.errors import ConfigError
from dbsync.etl import Crossing, table
from dbsync.etl.compose import compose
from dbsync.etl.query import Where, parse, speech
from dbsync.model import Capabilities, Direction
from tests.unit.etl.etl_world import EMBEDDED, Two, World, composed

OLDER = """
CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT, boss INT, at TEXT);
CREATE TABLE o (id INTEGER PRIMARY KEY, cid INT, total REAL);
CREATE TABLE loose (id INTEGER, name TEXT);
CREATE TABLE pair (a INT, b INT, x TEXT, PRIMARY KEY (a, b));
"""
NEWER = """
CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT, extra TEXT, g TEXT AS (name));
CREATE TABLE o (id INTEGER PRIMARY KEY, cid INT, total REAL);
CREATE TABLE pair (a INT, b INT, x TEXT, PRIMARY KEY (a, b));
"""
ID = {"c": "id"}

UNSTABLE = [
    "datetime('now')",
    "strftime('%Y', 'now')",
    "date()",
    "strftime('%Y')",
    "CURRENT_TIMESTAMP",
    "random()",
    "hex(randomblob(4))",
    "GETDATE()",
    "NEWID()",
    "RAND()",
    "datetime(at, 'localtime')",
    "row_number() OVER (ORDER BY id)",
    "(SELECT group_concat(o.id) FROM o WHERE o.cid = c.id)",
    "(SELECT o.id FROM o WHERE o.cid = c.id ORDER BY o.id LIMIT 1)",
    "(SELECT max(o.id) FROM o)",
    "count(*)",
    "last_insert_rowid()",
]

BAD: list[tuple[str, str, dict[str, Any]]] = [
    ("broken-crossing", "not parse", {"select": "SELECT id, (name FROM c"}),
    ("broken-crossing", "not one SELECT", {"select": "DELETE FROM c"}),
    ("broken-crossing", "not one SELECT", {"select": "SELECT id, name FROM c; SELECT 1"}),
    ("broken-crossing", "not one SELECT", {"select": "SELECT id, name FROM c UNION ALL SELECT id, name FROM loose"}),
    ("broken-crossing", "says \\*", {"select": "SELECT * FROM c"}),
    ("broken-crossing", "no name", {"select": "SELECT id, name || 'x' FROM c"}),
    ("broken-crossing", "twice", {"select": "SELECT id, name, boss AS Name FROM c"}),
    ("broken-crossing", "parameter", {"select": "SELECT id, name FROM c WHERE id = ?"}),
    ("broken-crossing", "ordered", {"select": "SELECT id, name FROM c ORDER BY id"}),
    ("broken-crossing", "not among the tables", {"select": "SELECT id, name FROM nowhere"}),
    ("broken-crossing", "both a table and a name", {"select": "WITH C AS (SELECT id FROM c) SELECT id FROM C"}),
    ("broken-crossing", "no table", {"select": "SELECT 1 AS id, 'x' AS name"}),
    ("broken-crossing", "no SELECT for", {"dialects": {"other": "SELECT id, name FROM c"}}),
    ("unknown-column", "nmae", {"select": "SELECT id, nmae AS name FROM c"}),
    ("unknown-column", "no such column", {"select": 'SELECT id, "nmae" AS name FROM c'}),
    ("unknown-column", "c.nmae", {"select": "SELECT id, c.nmae AS name FROM c"}),
    ("unknown-column", "naem", {"select": 'SELECT id, "naem" AS "naem", name FROM c'}),
    ("unknown-column", "gives age", {"select": "SELECT id, name, 1 AS age FROM c"}),
    ("unknown-column", "is generated", {"select": "SELECT id, name, 'x' AS g FROM c"}),
    ("unknown-column", "rowid", {"select": "SELECT id, rowid AS name FROM c"}),
    ("crossing-omits-column", "leaves out name", {"select": "SELECT id, 'x' AS extra FROM c"}),
    ("crossing-key", "key is missing", {"key": None, "select": "SELECT c.id, c.name FROM c JOIN o ON o.id = c.id"}),
    ("crossing-key", "o, which does not stand", {"select": "SELECT c.id, c.name FROM c JOIN o ON o.id = c.id"}),
    ("crossing-key", "does not read", {"key": {"c": "id", "o": "id"}, "select": "SELECT id, name FROM c"}),
    ("crossing-key", "not in the primary key", {"key": {"c": "boss"}, "select": "SELECT id, name FROM c"}),
    ("crossing-key", "2 column", {"key": {"c": ["id", "id"]}, "select": "SELECT id, name FROM c"}),
    ("crossing-key", "gives \\(nr\\)", {"key": {"c": {"nr": "id"}}, "select": "SELECT id, name FROM c"}),
    ("crossing-key", "is computed", {"select": "SELECT id + 1000 AS id, name FROM c"}),
    ("crossing-key", "takes it from boss", {"select": "SELECT boss AS id, name FROM c"}),
    ("crossing-omits-column", "leaves out id", {"select": "SELECT name, boss AS extra FROM c"}),
    ("crossing-key", "no primary key", {"key": {"loose": "id"}, "select": "SELECT id, name FROM loose"}),
    (
        "crossing-key",
        "no join says",
        {"key": {"c": "id", "o": "id"}, "select": "SELECT c.id, c.name FROM c LEFT JOIN o ON o.cid = c.id"},
    ),
    ("crossing-key", "more than once", {"select": "SELECT c.id, b.name FROM c LEFT JOIN c b ON b.id = c.boss"}),
    (
        "crossing-key",
        "selects 2 column",
        {
            "key": {"c": "id", "pair": "SELECT a, b FROM pair WHERE (a, b) IN (:keys)"},
            "select": "SELECT c.id, c.name FROM c LEFT JOIN pair ON a = c.id",
        },
    ),
    (
        "crossing-key",
        "first columns",
        {
            "key": {"c": "SELECT id FROM c WHERE id IN (:keys)"},
            "select": "SELECT name FROM c",
            "cardinality": "1:n",
            "row": lambda row: row,
        },
    ),
    *[("crossing-not-deterministic", "the SELECT uses", {"select": f"SELECT id, name, {it} AS extra FROM c"})
      for it in UNSTABLE],
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "found", "given"),
    BAD,
    ids=lambda value: str(value.get("select", value))[:50] if isinstance(value, dict) else "",
)
def test_a_bad_crossing_is_refused_by_name(code: str, found: str, given: dict[str, Any]) -> None:
    crossing = Crossing(table("c", **{"key": ID, **given}))
    with pytest.raises(ConfigError, match=found) as caught:
        composed(World(OLDER), World(NEWER), [("r1", Two(crossing))])
    assert caught.value.code == code, caught.value
    assert "crossing r1 (etl/file.py), forward, table c" in caught.value.message and caught.value.remedy


GOOD = [
    "SELECT id, name, 'now' || '' AS extra FROM c".replace("'now'", "'then'"),
    "SELECT id, name, (SELECT count(*) FROM o WHERE cid = c.id) AS extra FROM c",
    "SELECT c.id, name, n AS extra FROM c LEFT JOIN (SELECT cid, count(*) AS n FROM o GROUP BY cid) s ON s.cid = c.id",
    "WITH s(k, n) AS (SELECT cid, count(*) FROM o GROUP BY cid) SELECT id, name, n AS extra FROM c LEFT JOIN s ON k=id",
    "SELECT id, name, max(name, 'x') AS extra FROM c",
    "SELECT id, name, strftime('%Y', at) AS extra FROM c",
    "SELECT c.id, c.name, j.value AS extra FROM c, json_each(c.at) j",
    'SELECT [id], `name`, "at" AS [extra] FROM main.c',
]


@pytest.mark.parametrize("select", GOOD)
def test_a_good_crossing_is_taken_and_runs(select: str) -> None:
    key = {"c": "id"} | ({"o": "SELECT cid FROM o WHERE id IN (:keys)"} if " o " in select else {})
    older = World(OLDER + "INSERT INTO c VALUES (1, 'n', NULL, '2020-01-01'); INSERT INTO o VALUES (1, 1, 2)")
    if "json" in select:
        older.db.execute("UPDATE c SET at = '[5]'")
    made = composed(older, World(NEWER), [("r1", Two(Crossing(table("c", key=key, select=select))))])
    assert older.rows(made.tables["c"].relation)[0][:2] == (1, "n")


def test_a_key_query_is_asked_of_what_an_earlier_crossing_gives() -> None:
    first = Crossing(table("c", key=ID, select="SELECT id, name || '!' AS name, boss, at FROM c"))
    key = {
        "o": "id",
        "c": "WITH mine AS (SELECT id FROM c WHERE id IN (:keys)) SELECT o.id FROM o JOIN mine ON o.cid = mine.id",
    }
    second = Crossing(table("o", key=key, select="SELECT o.id, o.cid, o.total FROM o LEFT JOIN c ON c.id = o.cid"))
    older = World(
        OLDER + "INSERT INTO c VALUES (1, 'n', NULL, ''); INSERT INTO o VALUES (4, 1, 2), (5, 1, 2), (6, 2, 2)"
    )
    made = composed(older, World(NEWER), [("r1", Two(first)), ("r2", Two(second))])
    assert made.targets(older, "c", [(1,)])["o"] == [(4,), (5,)]
    (question,) = made.tables["o"].sources["c"][0].questions
    assert "s2_c" in question.sql and not question.settled


def test_a_key_query_over_what_a_callable_gives_is_refused_with_the_ways_out() -> None:
    steps = [("r1", Two(Crossing(table("c", key=ID, select="SELECT id, name, boss, at FROM c", row=dict))))]
    key = {"o": "id", "c": "SELECT o.id FROM o WHERE o.cid IN (SELECT id FROM c WHERE id IN (:keys))"}
    second = Crossing(table("o", key=key, select="SELECT o.id, o.cid, o.total FROM o LEFT JOIN c ON c.id = o.cid"))
    with pytest.raises(ConfigError, match="cannot be asked of c: row=") as caught:
        composed(World(OLDER), World(NEWER), [*steps, ("r2", Two(second))], shapes={"r1": World(OLDER).catalog()})
    assert caught.value.code == "crossing-key" and "primary key" in str(caught.value.remedy)


def test_a_crossing_of_an_unknown_table_is_refused_and_of_an_excluded_one_passed_over() -> None:
    older, newer = World(OLDER), World(NEWER)
    steps = [("r1", Two(Crossing(table("nowhere", key=ID, select="SELECT id FROM c"))))]
    with pytest.raises(ConfigError) as caught:
        composed(older, newer, steps)
    assert caught.value.code == "unknown-table"
    left_out = frozenset({"nowhere"})
    made = compose(older.catalog(), newer.catalog(), steps, Direction.FORWARD, {}, EMBEDDED, left_out)
    assert set(made.tables) == {"c", "o", "pair"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: table(""),
        lambda: table("t", cardinality="n:m"),
        lambda: table("t", key={"t": "id"}),
        lambda: table("t", select="  "),
        lambda: table("t", select="SELECT 1", row="no"),  # type: ignore[arg-type]
        lambda: table("t", select="SELECT 1", key={"t": []}),
        lambda: table("t", select="SELECT 1", key={"t": 3}),  # type: ignore[dict-item]
        lambda: Crossing(table("t"), table("T")),
        lambda: Crossing("t"),  # type: ignore[arg-type]
    ],
)
def test_a_crossing_that_is_wrong_in_itself_cannot_be_made(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.code == "broken-crossing"


def test_names_in_brackets_are_read_as_the_other_dialect() -> None:
    bracketed = speech(Capabilities(dialect="another", quote=("[", "]")))
    where = Where("r1", "t", "forward")
    query = parse("SELECT c.[Id], ISNULL(c.[Na]]me], N'x') AS n FROM dbo.[Cus]]t] c", bracketed.parser, where)
    assert query.tables == ("cus]t",) and bracketed.quote("a]b") == "[a]]b]"
    assert [output.name for output in query.outputs] == ["Id", "n"]
