"""`etl explain` and the lint of plans: on real files, as the database itself says it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dbsync.adapters.memory import MemoryDatabase
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl.layout import laid_out
from dbsync.model import Column, Relation, Table
from tests.unit.etl.project import Project

REVISIONS = {
    "0001": """
        CREATE TABLE customer (id INTEGER PRIMARY KEY, first TEXT NOT NULL, last TEXT NOT NULL, street TEXT);
        CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER, total INTEGER);
        CREATE INDEX by_customer ON purchase (customer_id)
    """,
    "0002": """
        DROP TABLE customer;
        CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, street TEXT)
    """,
    "0003": """
        CREATE TABLE address (customer_id INTEGER PRIMARY KEY, street TEXT);
        ALTER TABLE customer DROP COLUMN street
    """,
    "0004": "ALTER TABLE customer RENAME TO client; ALTER TABLE client ADD COLUMN spent INTEGER NOT NULL DEFAULT 0",
}
GOOD = {
    "0002_name.py": """
forward = Crossing(table("customer", key={"customer": "id"},
    select="SELECT id, first || ' ' || last AS name, street FROM customer"))
reverse = Crossing(table("customer", key={"customer": "id"},
    select="SELECT id, substr(name, 1, instr(name, ' ') - 1) AS first,"
           " substr(name, instr(name, ' ') + 1) AS last, street FROM customer",
    loses={"first": "split at the first blank", "last": "split at the first blank"}))
""",
    "0003_address.py": """
forward = Crossing(table("address", key={"customer": {"customer_id": "id"}},
    select="SELECT id AS customer_id, street FROM customer"))
reverse = Crossing(table("customer", key={"customer": "id", "address": "customer_id"},
    select="SELECT c.id, c.name, a.street FROM customer AS c LEFT JOIN address AS a ON a.customer_id = c.id"))
""",
    "0004_client.py": """
forward = Crossing(table("client",
    key={"customer": "id", "purchase": "SELECT customer_id FROM purchase WHERE id IN (:keys)"},
    select="SELECT c.id, c.name,"
           " COALESCE((SELECT SUM(p.total) FROM purchase AS p WHERE p.customer_id = c.id), 0) AS spent"
           " FROM customer AS c"))
reverse = Crossing(table("customer", key={"client": "id"}, select="SELECT id, name FROM client"))
""",
}
GROUPED = (
    GOOD["0004_client.py"]
    .replace(
        "COALESCE((SELECT SUM(p.total) FROM purchase AS p WHERE p.customer_id = c.id), 0) AS spent",
        "COALESCE(s.total, 0) AS spent",
    )
    .replace(
        '" FROM customer AS c"',
        '" FROM customer AS c LEFT JOIN (SELECT customer_id, SUM(total) AS total FROM purchase GROUP BY customer_id)"'
        '" AS s ON s.customer_id = c.id"',
    )
)
ROWS = """
INSERT INTO customer VALUES (1, 'Ann', 'Berg', 'A 1'), (2, 'Bo', 'Dahl', NULL);
INSERT INTO purchase VALUES (1, 1, 5), (2, 1, 6);
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("good"), REVISIONS, GOOD)
    project.begin(ROWS)
    return project


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("bad"), REVISIONS, GOOD | {"0004_client.py": GROUPED})
    project.begin(ROWS)
    return project


def codes(project: Project) -> list[str]:
    return [one["code"] for one in project("doctor")["checks"]]


def test_a_key_list_reaches_the_indexes_through_a_chain_of_three_revisions(good: Project) -> None:
    found = good("etl", "explain", "CLIENT")
    assert found["scans"] == []
    assert not [line for line in found["plan"] if line.strip().startswith("SCAN") and line.strip() != "SCAN k"]
    assert [line for line in found["plan"] if "INTEGER PRIMARY KEY" in line or "by_customer" in line]
    back = good("etl", "explain", "customer", "--reverse")
    assert back["scans"] == []
    assert "crossing-scans" not in codes(good)
    assert good("etl", "check")["findings"] == []


def test_explain_says_what_runs_where_the_keys_come_from_and_what_is_lost(good: Project) -> None:
    found = good("etl", "explain", "client")
    assert (found["from"], found["to"], found["direction"]) == ("blue", "green", "forward")
    assert found["revisions"] == ["0002", "0003", "0004"]
    assert not found["by_name"]
    assert found["cardinality"] == "1:1"
    assert {"source": "customer", "rule": "the row with id = id"} in found["keys"]
    asked = [one["rule"] for one in found["keys"] if one["source"] == "purchase"]
    assert "SELECT customer_id FROM purchase WHERE id IN (:keys)" in asked[0]
    assert good.rows("blue", found["sql"]) == [(1, "Ann Berg", 11), (2, "Bo Dahl", 0)]
    back = good("etl", "explain", "customer", "--reverse")
    assert back["loses"]["first"] == "split at the first blank"
    assert (back["from"], back["to"]) == ("green", "blue")
    text = good.text("etl", "explain", "client")
    assert "purchase touches" in text
    assert "\n  WITH " in text


def test_an_unknown_table_is_refused_with_the_nearest(good: Project) -> None:
    error = good("etl", "explain", "clinet", code=2)["error"]
    assert error["code"] == "unknown-table"
    assert "client" in error["remedy"]


def test_a_joined_aggregate_reads_the_whole_table_and_is_told_with_the_way_out(bad: Project) -> None:
    found = bad("etl", "explain", "client")
    assert found["scans"] == ["purchase"]
    assert found["warnings"] == ["crossing-scans"]
    assert codes(bad).count("crossing-scans") == 1
    warned = [one for one in bad("doctor")["checks"] if one["code"] == "crossing-scans"]
    assert warned[0]["severity"] == "warning"
    assert "correlated subquery" in warned[0]["remedy"]
    assert bad.rules(code=0) == {("0004", "up", "crossing-scans")}


def test_a_key_query_without_an_index_is_told_as_well(tmp_path: Path) -> None:
    lookup = {
        "0001": """
            CREATE TABLE person (id INTEGER PRIMARY KEY, land TEXT);
            CREATE TABLE land (code TEXT PRIMARY KEY, name TEXT)
        """,
        "0002": "ALTER TABLE person ADD COLUMN land_name TEXT NOT NULL DEFAULT ''",
    }
    text = """
forward = Crossing(table("person", key={"person": "id", "land": "SELECT id FROM person WHERE land IN (:keys)"},
    select="SELECT p.id, p.land, COALESCE(l.name, '') AS land_name FROM person AS p"
           " LEFT JOIN land AS l ON l.code = p.land"))
reverse = Crossing()
"""
    project = Project(tmp_path, lookup, {"0002_land.py": text})
    found = project("etl", "check")["findings"]
    assert [(one["rule"], "the key query of land" in one["message"]) for one in found] == [("crossing-scans", True)]
    project.revision("0001", None, lookup["0001"] + "; CREATE INDEX by_land ON person (land)")
    assert project("etl", "check")["findings"] == []


# --- the socket ------------------------------------------------------------------------------------

TWO = "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT); CREATE TABLE u (id INTEGER PRIMARY KEY, t INTEGER, x TEXT);"
SQL = {
    "SELECT q.id AS id FROM (SELECT id, x FROM t) AS q": (),
    "SELECT q.id AS id FROM (SELECT t.id, u.x FROM t JOIN u ON u.id = t.id) AS q": (),
    "SELECT q.id AS id FROM (SELECT t.id, u.x FROM t LEFT JOIN u ON u.t = t.id) AS q": ("u",),
    "SELECT q.id AS id FROM (SELECT DISTINCT x AS id FROM t) AS q": ("t",),
    "WITH c AS (SELECT t AS id, SUM(id) AS n FROM u GROUP BY t)"
    " SELECT a.id AS id FROM c AS a JOIN c AS b ON b.id = a.id": ("u",),
    "SELECT q.id + q.n AS id FROM (SELECT t.id, (SELECT COUNT(*) FROM u WHERE u.t = t.id) AS n FROM t) AS q": (
        "t",
        "u",
    ),
}


def database(folder: Path, script: str) -> SqliteDatabase:
    connection = sqlite3.connect(folder / "one.db")
    connection.executescript(script)
    connection.close()
    return SqliteDatabase("blue", f"sqlite:///{folder / 'one.db'}")


def test_scans_are_the_stored_tables_that_are_read_whole_under_whatever_alias(tmp_path: Path) -> None:
    one = database(tmp_path, TWO)
    for sql, scans in SQL.items():
        # An index that is built for the occasion is a scan, whatever the plan's lines call it.
        assert one.plan(Relation("t", ("id",), ("id",), sql)).scans == scans, sql
    one.dispose()


def test_a_small_table_that_statistics_make_the_planner_scan_is_no_finding_but_a_large_one_is(tmp_path: Path) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0})"
    script = f"{TWO} CREATE INDEX ut ON u (t); {many.format(3)} INSERT INTO u SELECT i, 1, 'x' FROM n; ANALYZE;"
    one = database(tmp_path, script)
    join = "SELECT q.id AS id FROM (SELECT t.id, u.x FROM t LEFT JOIN u ON +u.t = t.id) AS q"
    assert one.plan(Relation("t", ("id",), ("id",), join)).scans == ("u",)
    other = "SELECT q.id AS id FROM (SELECT t.id, u.x FROM t JOIN u ON u.t = t.id) AS q"
    assert one.plan(Relation("t", ("id",), ("id",), other)).scans == ()
    one.dispose()


def test_the_twin_reads_by_name() -> None:
    twin = MemoryDatabase("blue", [Table("t", (Column("id", "INTEGER", key=1),))])
    plan = twin.plan(Relation("t", ("id",), ("id",), 'SELECT q."id" AS "id" FROM "t" AS q'))
    assert plan.lines == ("t by name, in memory",)
    assert plan.scans == ()


def test_sql_is_set_out_in_lines_without_a_change_to_its_words() -> None:
    sql = """WITH "a" AS (SELECT x, LEFT(y, 2) AS y FROM t -- a comment
        WHERE z = 'FROM  here'
), "b" AS (SELECT 1 AS k FROM a) SELECT q.x FROM (SELECT x FROM "a" LEFT JOIN b ON b.k = a.x) AS q"""
    out = laid_out(sql, "sqlite")
    assert "".join(out.split()) == "".join(sql.split())
    assert "'FROM  here'" in out
    assert "\n    LEFT JOIN b" in out.replace("        LEFT", "    LEFT")
    assert "LEFT(y, 2)" in out
    assert laid_out("SELECT 'open", "sqlite") == "SELECT 'open"
