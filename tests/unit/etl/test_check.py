"""`etl check`: what it finds without a database, all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbsync.etl.fits import family, lost, misfit
from tests.unit.etl.project import Project

BASE = """
CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size TEXT, at TEXT, note VARCHAR(80), extra TEXT);
CREATE TABLE o (id INTEGER PRIMARY KEY, cid INTEGER, total REAL);
CREATE INDEX o_cid ON o (cid)
"""
CHANGE = """
DROP TABLE c;
CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size INTEGER, at TEXT NOT NULL,
    note VARCHAR(40), title TEXT)
"""
KEY = 'key={"c": "id"}'
FINE = "SELECT id, name, CAST(size AS INTEGER) AS size, COALESCE(at, '') AS at, substr(note, 1, 40) AS note FROM c"
BACK = "SELECT id, name, CAST(size AS TEXT) AS size, at, note FROM c"
REVERSE = f'reverse = Crossing(table("c", {KEY}, select="{BACK}", loses={{"size": "text", "note": "cut"}}))'


def forward(select: str, more: str = KEY) -> str:
    return f'forward = Crossing(table("c", {more}, select="""{select}"""))\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, {"0001": BASE, "0002": CHANGE})


def test_a_good_crossing_has_no_findings_though_there_is_no_database_at_all(project: Project) -> None:
    project.crossing("0002_good.py", forward(FINE) + REVERSE)
    answer = project("etl", "check")
    assert answer == {"checked": ["0001", "0002"], "findings": [], "next": "dbsync migrate --target idle"}
    assert not list(project.folder.glob("*.db"))


def test_everything_that_is_wrong_is_found_at_once_with_the_line_and_a_remedy(project: Project) -> None:
    bad = "SELECT id, nmae AS name, size, at, note, wrong.x AS title, random() AS spare, datetime('now') AS w FROM c"
    project.crossing("0002_bad.py", forward(bad))
    found = project("etl", "check", code=4)["findings"]
    said = {one["rule"]: one["message"] for one in found}
    assert "nmae" in " ".join(one["message"] for one in found)
    assert sum(one["rule"] == "unknown-column" for one in found) == 4  # nmae, wrong.x, spare, w
    assert sum(one["rule"] == "crossing-not-deterministic" for one in found) == 2
    assert "no reverse" in said["missing-reverse"]
    assert all(one["remedy"] and one["revision"] == "0002" for one in found)
    assert {one["line"] for one in found if one["rule"] == "unknown-column"} == {2}


CASES: list[tuple[str, str, tuple[str, str]]] = [
    (
        "text into INTEGER without a CAST",
        forward(FINE.replace("CAST(size AS INTEGER) AS size", "size")),
        ("up", "crossing-type"),
    ),
    ("an expression of another type", forward(FINE.replace("COALESCE(at, '')", "7")), ("up", "crossing-type")),
    ("a column left out", forward(FINE.replace("name, ", "")), ("up", "crossing-omits-column")),
    ("a table that the target has not", 'forward = Crossing(table("x", loses={"a": "b"}))\n', ("up", "unknown-table")),
    ("a key that is not there", forward(FINE, "key={'c': 'nr'}"), ("up", "crossing-key")),
    (
        "a read table without a key",
        forward(FINE + " LEFT JOIN o ON o.id = c.id".replace("o.id", "o.id")),
        ("up", "crossing-key"),
    ),
    ("a function that the database has not", forward(FINE.replace("substr(", "nosuch(")), ("up", "broken-crossing")),
    ("a file that does not load", "forward = nothing\n", ("up", "broken-crossing")),
    ("what is still to do", forward(FINE.replace("name,", "name, /* TODO: x */")), ("up", "crossing-todo")),
]


@pytest.mark.parametrize(("text", "rule"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_errors_end_with_exit_4(project: Project, text: str, rule: tuple[str, str]) -> None:
    project.crossing("0002_bad.py", text + (REVERSE if "Crossing(" in text else ""))
    assert ("0002", *rule) in project.rules(code=4)
    assert ("0002", *rule) in project.rules("0002", code=4)
    assert project.rules("0001", code=0) == set()


WARNED: list[tuple[str, str, str, tuple[str, str]]] = [
    ("NULL into NOT NULL", forward(FINE.replace("COALESCE(at, '')", "at")), REVERSE, ("up", "crossing-null")),
    (
        "text that is cut",
        forward(FINE.replace("substr(note, 1, 40)", "note")),
        REVERSE.replace('"note": "cut"', ""),
        ("up", "crossing-narrows"),
    ),
]


@pytest.mark.parametrize(("text", "back", "rule"), [case[1:] for case in WARNED], ids=["null", "narrow"])
def test_warnings_do_not_change_the_exit_code(project: Project, text: str, back: str, rule: tuple[str, str]) -> None:
    project.crossing("0002_doubtful.py", text + back)
    assert project.rules(code=0) == {("0002", *rule)}


def test_a_narrower_column_on_the_way_back_is_declared_by_losing_or_loses(tmp_path: Path) -> None:
    wider = "DROP TABLE c; CREATE TABLE c (id INTEGER PRIMARY KEY, v VARCHAR(80), n BIGINT)"
    base = "CREATE TABLE c (id INTEGER PRIMARY KEY, v VARCHAR(40), n SMALLINT)"
    project = Project(tmp_path, {"0001": base, "0002": wider})
    assert project.rules(code=0) == {("0002", "down", "undeclared-loss")}
    assert len(project("etl", "check")["findings"]) == 2
    project.crossing(
        "0002_x.py", 'forward = Crossing(table("c", losing={"v": "keep", "n": "accept"}))\nreverse = Crossing()\n'
    )
    assert project.rules(code=0) == set()


def test_a_column_that_must_have_a_value_and_gets_none_is_found_in_both_directions(tmp_path: Path) -> None:
    base = "CREATE TABLE c (id INTEGER PRIMARY KEY, old TEXT NOT NULL, x TEXT)"
    change = "DROP TABLE c; CREATE TABLE c (id INTEGER PRIMARY KEY, new TEXT NOT NULL, x TEXT)"
    project = Project(tmp_path, {"0001": base, "0002": change})
    text = 'table("c", key={"c": "id"}, select="SELECT id, x FROM c")'
    project.crossing("0002_x.py", f"forward = Crossing({text})\nreverse = Crossing({text})\n")
    assert project.rules(code=4) == {("0002", "up", "missing-crossing"), ("0002", "down", "missing-reverse")}


def test_a_file_that_belongs_to_no_revision_is_told(project: Project) -> None:
    project.crossing("0002_good.py", forward(FINE) + REVERSE)
    project.crossing("0009_lost.py", forward(FINE))
    assert project.rules(code=0) == {("", "up", "crossing-unused")}


def test_a_revision_that_does_not_run_alone_is_judged_by_what_the_databases_know(tmp_path: Path) -> None:
    """The first revision stands for tables that were there before it."""
    rename = "ALTER TABLE c RENAME COLUMN name TO title"
    project = Project(tmp_path, {"0001": "pass", "0002": rename})
    assert project.rules(code=0) == {("0002", "up", "not-rehearsed")}
    assert project("etl", "new", "0002", code=3)["error"]["code"] == "shape-unknown"
    project.sql("blue", "CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO c VALUES (1, 'a')")
    project("init", "--active", "blue")
    project("migrate", "--target", "active", "--stamp", "0001")
    assert ("0002", "up", "missing-crossing") in project.rules(code=4)
    project("etl", "new", "0002")
    assert project.rules(code=0) == set()


def test_what_is_wrong_only_when_revisions_are_composed_is_found(tmp_path: Path) -> None:
    """0002 gives t a key by a Python function's rows; 0003 alone would be right."""
    base = "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, x TEXT)"
    project = Project(
        tmp_path,
        {
            "0001": base,
            "0002": "CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER); DROP TABLE b",
            "0003": "CREATE TABLE u (k TEXT PRIMARY KEY, n INTEGER); DROP TABLE t",
        },
    )
    reverse = 'reverse = Crossing(table("{0}", loses={{"*": "gone"}}))\n'
    project.crossing("0002_t.py", "forward = Crossing()\n" + reverse.format("b"))
    project.crossing(
        "0003_u.py",
        'forward = Crossing(table("u", key={"t": "k"}, select="SELECT k, n FROM t"))\n' + reverse.format("t"),
    )
    assert project.rules("0003", code=0) == set()
    assert ("0003", "up", "broken-crossing") in project.rules(code=4)


def test_families_of_types_and_what_does_not_fit() -> None:
    assert [family(each) for each in ("NVARCHAR(9)", "BIGINT", "DOUBLE PRECISION", "DECIMAL(9, 2)", "DATE", "")] == [
        "text",
        "integer",
        "real",
        "decimal",
        "other",
        "",
    ]
    assert misfit("TEXT", "INTEGER")
    assert misfit("INTEGER", "REAL")
    assert not misfit("DATE", "TEXT")
    assert not misfit("INT", "DECIMAL(9, 2)")
    assert lost("VARCHAR(80)", "VARCHAR(40)") == "text of more than 40 characters"
    assert lost("TEXT", "VARCHAR(40)")
    assert not lost("VARCHAR(40)", "TEXT")
    assert lost("BIGINT", "INTEGER")
    assert not lost("SMALLINT", "INTEGER")
    assert lost("DECIMAL(9, 2)", "DECIMAL(9, 1)")
    assert not lost("DECIMAL(9, 2)", "DECIMAL(10, 2)")
