"""Databases as they are found: odd names, odd keys, odd types, over the whole road, and what is refused by name.

Both sides are compared in plain Python, with the storage class of every cell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.shelf import Shelf

SCHEMA = """
CREATE TABLE "Bestell Positionen" ("Bestell Nr" INTEGER, "Pos""ition" INTEGER, "größe" TEXT, "it's" REAL, "select" TEXT,
  "a]b" TEXT, PRIMARY KEY ("Bestell Nr", "Pos""ition"));
CREATE TABLE "tab""le" ("k'ey" TEXT PRIMARY KEY NOT NULL, "värde €" BLOB);
CREATE TABLE blobs (k BLOB PRIMARY KEY NOT NULL, v BLOB);
CREATE TABLE hen (id INTEGER PRIMARY KEY, egg INTEGER NOT NULL REFERENCES egg (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE egg (id INTEGER PRIMARY KEY, hen INTEGER NOT NULL REFERENCES hen (id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE tree (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES tree (id) ON DELETE CASCADE);
CREATE TABLE bare (a TEXT, b INTEGER, c, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);
CREATE TABLE nocase (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v TEXT);
CREATE TABLE padded (k TEXT COLLATE RTRIM PRIMARY KEY NOT NULL, v TEXT);
CREATE TABLE typeless (id INTEGER PRIMARY KEY, v, w);
CREATE TABLE typeless_key (k PRIMARY KEY NOT NULL, v);
CREATE TABLE dates (id INTEGER PRIMARY KEY, d DATE, t TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE gen (id INTEGER PRIMARY KEY, a INTEGER, s INTEGER AS (a * 2) STORED, v TEXT AS (a || 'x') VIRTUAL);
CREATE VIEW seen AS SELECT id, a FROM gen;
CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
CREATE TRIGGER gen_logs AFTER INSERT ON gen BEGIN INSERT INTO log (what) VALUES ('gen ' || new.id); END;
CREATE TRIGGER seen_takes INSTEAD OF INSERT ON seen BEGIN INSERT INTO gen (id, a) VALUES (new.id, new.a); END;
CREATE TABLE slots (id INTEGER PRIMARY KEY, pos INTEGER NOT NULL UNIQUE, active INTEGER, name TEXT);
CREATE UNIQUE INDEX one_active ON slots (active) WHERE active = 1;
CREATE UNIQUE INDEX low_name ON slots (lower(name));
CREATE TABLE empty (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE one (id INTEGER PRIMARY KEY);
CREATE TABLE one_text (k TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID;
CREATE TABLE huge (id INTEGER PRIMARY KEY, t TEXT);
CREATE TABLE nums (id INTEGER PRIMARY KEY, r REAL, n NUMERIC, i INTEGER, x);
CREATE TABLE hard (id INTEGER PRIMARY KEY, r REAL, b BLOB, a ANY) STRICT;
CREATE TABLE backwards (a INTEGER, b TEXT, PRIMARY KEY (b DESC, a));
CREATE TABLE real_key (k REAL PRIMARY KEY NOT NULL, v TEXT);
CREATE TABLE eager (id INTEGER PRIMARY KEY, k TEXT UNIQUE ON CONFLICT REPLACE, v TEXT);
CREATE VIRTUAL TABLE doc USING fts5(title, body);
CREATE TABLE "no key" (a TEXT);
"""
INF = float("inf")

ROWS: dict[str, Sequence[tuple[Any, ...]]] = {
    '"Bestell Positionen"': [
        (i, j, f"ü{i}\x00{j}", i / 3, "s", "b]") for i in range(20) for j in range(3)
    ],
    '"tab""le"': [("o'x", b"\x00\xff"), ('"q"', None), ("", b""), ("a\x00b", b"1"), ("a\x00c", b"2"), ("a", b"3")],
    "blobs": [(b"", b""), (b"\x00", b"\x00" * 9), (b"\x00\x00", None), (bytes(range(256)), bytes(range(256)))],
    "hen": [(i, i) for i in range(1, 6)],
    "egg": [(i, i % 5 + 1) for i in range(1, 6)],
    "tree": [(i, i // 2 or None) for i in range(1, 32)],
    "bare": [("a", i, v) for i, v in enumerate([None, 1, 1.5, "x", b"y"])],
    "auto (v)": [(str(i),) for i in range(10)],
    "nocase": [("Anna", "1"), ("BOB", "2"), ("ÄRGER", "3"), ("ärger", "4"), ("ß", "5"), ("ss", "6"), ("K", "7")],
    "padded": [("a", "1"), ("b  ", "2")],
    "typeless (v, w)": [
        (1, "1"), ("1", 1), (1.0, 1), (b"1", None), ("1.0", 1e300), (INF, -INF), (-0.0, 0.0), (2**63 - 1, -(2**63)),
        (2**53 + 1, 2.0**53),
    ],
    "typeless_key": [(1, "int"), ("1", "text"), (b"1", "blob"), (1.5, "real"), ("x", 1)],
    "dates (d, t)": [("2024-02-29", "2024-02-29 12:00:00.123456"), ("kein Datum", None), (2460000, 1.5)],
    "gen (id, a)": [(i, i) for i in range(5)],
    "slots": [(1, 1, 1, "Eins"), (2, 2, 0, "Zwei"), (3, 3, 0, "Drei"), (4, 4, None, "Vier")],
    "one": [(-5,), (0,), (2**62,)],
    "one_text": [("a",), ("ß",)],
    "huge": [(1, "ä" * 500_000), (2, "")],
    "nums (r, n, i, x)": [
        (INF, -INF, 2**60 + 1, float("nan")), (-0.0, -0.0, -0.0, -0.0), (1e-320, "0010", "12abc", 1e308),
        (0.1 + 0.2, "1e3", 3.0, "ÿ"), (2**53 + 1, 2**63 - 1, -(2**63), 5e-324),
    ],
    "hard": [(1, 1, b"\x00", 7), (2, -0.0, None, "7")],
    "backwards": [(1, "x"), (2, "x"), (1, "y")],
    "real_key": [(0.1, "a"), (-0.0, "z"), (1e300, "b"), (INF, "i"), (0.1 + 0.2, "c"), (0.3, "d"), (3, "e")],
    "eager": [(1, "a", "1"), (2, "b", "2")],
    "doc": [("t", "hello")],
    '"no key"': [("x",)],
}  # fmt: skip


def churn(connection: sqlite3.Connection, n: int) -> None:
    """What an application does: keys move, unique values change hands, rows cascade, types change."""
    for sql, values in (
        ("""UPDATE "Bestell Positionen" SET "größe" = ?, "a]b" = NULL, "it's" = -0.0
             WHERE "Bestell Nr" = 1""", (f"n{n}",)),
        ('UPDATE "Bestell Positionen" SET "Bestell Nr" = "Bestell Nr" + 100 WHERE "Bestell Nr" % 100 = 2', ()),
        ('DELETE FROM "Bestell Positionen" WHERE "Bestell Nr" = ?', (3 + n,)),
        ("""UPDATE "tab""le" SET "k'ey" = "k'ey" || 'd' WHERE "k'ey" LIKE 'a_b%'""", ()),
        ("UPDATE blobs SET v = ? WHERE k = x'00'", (bytes([n]) * 3,)),
        ("INSERT INTO blobs VALUES (?, NULL)", (b"\x00" * (3 + n),)),
        ("BEGIN", ()),
        ("INSERT INTO hen VALUES (?, ?)", (100 + n, 100 + n)),
        ("INSERT INTO egg VALUES (?, ?)", (100 + n, 100 + n)),
        ("COMMIT", ()),
        ("DELETE FROM tree WHERE id = ?", (8 + n,)),
        ("UPDATE tree SET parent = ? WHERE id = 4", (None if n % 2 else 1,)),
        ("UPDATE bare SET c = ? WHERE b = 0", ([1, "1", 1.0, b"1"][n % 4],)),
        ("INSERT INTO auto (v) VALUES ('kept'), ('gone')", ()),
        ("DELETE FROM auto WHERE v = 'gone'", ()),
        ("UPDATE nocase SET k = ? WHERE k = 'anna'", (["ANNA", "anna", "aNNa"][n % 3],)),
        ("UPDATE nocase SET v = v || 'x'", ()),
        ("DELETE FROM nocase WHERE k IN ('ÄRGER', 'ß')", ()),
        *((("INSERT INTO nocase VALUES ('ÄRGER', 'again'), ('ß', 'again')", ()),) if n % 2 else ()),
        ("UPDATE padded SET k = k || ' ' WHERE v = '1'", ()),
        ("UPDATE typeless SET v = ?, w = ? WHERE id = 1", ([1, "1", 1.0, b"1"][n % 4], [1.0, 1, "1", b"1"][n % 4])),
        ("UPDATE typeless_key SET k = k + 1 WHERE typeof(k) = 'real'", ()),
        ("UPDATE typeless_key SET v = v || 'x' WHERE k = '1'", ()),
        ("INSERT INTO dates (d) VALUES (?)", (n,)),
        ("INSERT INTO gen (id, a) VALUES (?, ?)", (100 + n, n)),
        ("INSERT INTO seen VALUES (?, ?)", (200 + n, n)),
        ("UPDATE gen SET a = a + 1 WHERE id = 1", ()),
        ("UPDATE slots SET pos = -1 WHERE pos = 1", ()),
        ("UPDATE slots SET pos = 1 WHERE pos = 2", ()),
        ("UPDATE slots SET pos = 2 WHERE pos = -1", ()),
        ("UPDATE slots SET active = 0 WHERE active = 1", ()),
        ("UPDATE slots SET active = 1 WHERE id = ?", (n % 2 + 1,)),
        ("UPDATE slots SET name = 'tmp' WHERE id = 1", ()),
        ("UPDATE slots SET name = CASE WHEN name = 'EINS' THEN 'zwei' ELSE 'EINS' END WHERE id = 2", ()),
        ("""UPDATE slots SET name = (SELECT CASE name WHEN 'EINS' THEN 'zwei' ELSE 'EINS' END FROM slots WHERE id = 2)
             WHERE id = 1""", ()),
        ("INSERT OR REPLACE INTO slots VALUES (50, 3, NULL, ?)", (f"n{n}",)),
        ("INSERT INTO one VALUES (?)", (1000 + n,)),
        ("INSERT INTO one_text VALUES (?)", (f"Ω{n}",)),
        ("UPDATE huge SET t = t || 'x' WHERE id = 1", ()),
        ("UPDATE nums SET r = -r, x = ?", (INF if n % 2 else float("nan"),)),
        ("INSERT INTO nums (i) VALUES (?)", (2**53 + n,)),
        ("UPDATE hard SET a = ? WHERE id = 1", ([1, "1", 1.0, b"1"][n % 4],)),
        ("UPDATE backwards SET a = a + 10 WHERE b = 'x'", ()),
        ("UPDATE real_key SET k = k + 1 WHERE v = 'c'", ()),
        ("INSERT INTO eager VALUES (?, 'a', 'new')", (10 + n,)),
        ("INSERT OR REPLACE INTO eager VALUES (2, 'a', 'newer')", ()),
        ("""INSERT INTO "no key" VALUES ('y')""", ()),
    ):  # fmt: skip
        connection.execute(sql, values)


def content(shelf: Shelf, side: str) -> dict[str, list[str]]:
    """Every cell of every table that crosses, with its storage class."""
    found = {}
    skipped = ("dbsync_", "sqlite_", "doc", "no key", "alembic_version")
    for (table,) in shelf.rows(side, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        if not table.startswith(skipped):
            named = '"' + table.replace('"', '""') + '"'
            columns = [
                '"' + row[1].replace('"', '""') + '"' for row in shelf.rows(side, f"PRAGMA table_xinfo({named})")
            ]
            cells = ", ".join(f"typeof({column}), {column}" for column in columns)
            found[table] = sorted(map(repr, shelf.rows(side, f"SELECT {cells} FROM {named}")))
    return found


def triggers(shelf: Shelf, side: str) -> set[str]:
    """The user's own triggers that are awake."""
    asked = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name NOT LIKE 'dbsync%'"
    return {name for (name,) in shelf.rows(side, asked)}


def made(shelf: Shelf, schema: str, rows: dict[str, Sequence[tuple[Any, ...]]]) -> None:
    """Both sides of that shape, blue with the rows, adopted."""
    for side in ("blue", "green"):
        connection = sqlite3.connect(shelf.folder / f"{side}.db")
        connection.executescript(f"BEGIN; {schema} COMMIT;")
        for table, values in rows.items() if side == "blue" else ():
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
        connection.commit()
        connection.close()
    shelf.dbsync("init --active blue")
    for side in ("blue", "green"):
        shelf.dbsync(f"migrate --target {side} --stamp 0001")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_whatever_a_database_holds_goes_over_and_comes_back_cell_by_cell(shelf: Shelf) -> None:
    shelf.configure("no *")
    made(shelf, SCHEMA, ROWS)
    shelf.dbsync("doctor")
    assert {"doc", "no key"} <= set(shelf.dbsync("status")["excluded"])
    shelf.dbsync("sync --once")
    assert content(shelf, "green") == content(shelf, "blue")
    assert shelf.dbsync("verify")["equal"]
    assert "gen_logs" not in triggers(shelf, "green")
    active, idle = "blue", "green"
    for n, verb in enumerate(("cutover", "rollback", "cutover"), 1):
        with shelf.application(active) as connection:
            churn(connection, n)
        shelf.dbsync("sync --once")
        assert content(shelf, idle) == content(shelf, active)
        with shelf.application(active) as connection:
            connection.execute("UPDATE slots SET active = NULL")
        shelf.dbsync(verb)
        active, idle = idle, active
        assert content(shelf, idle) == content(shelf, active)
        assert (triggers(shelf, active), triggers(shelf, idle)) == ({"gen_logs", "seen_takes"}, {"seen_takes"})
        assert shelf.dbsync("verify")["equal"]
    assert shelf.rows("green", """SELECT count(*) FROM "no key" """) == [(1,)]


def test_an_autoincrement_goes_on_where_the_other_side_stopped(shelf: Shelf) -> None:
    made(shelf, "CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);", {"auto (v)": [("x",)] * 10})
    with shelf.application("blue") as connection:
        connection.execute("DELETE FROM auto WHERE id > 5")
    shelf.dbsync("sync --once")
    shelf.dbsync("verify")
    shelf.dbsync("cutover")
    with shelf.application("green") as connection:
        assert connection.execute("INSERT INTO auto (v) VALUES ('new')").lastrowid == 11


def test_a_table_without_a_primary_key_stands_in_the_way_until_it_is_excluded(shelf: Shelf) -> None:
    made(
        shelf, "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE loose (a TEXT);", {"t": [(1,)], "loose": [("x",)]}
    )
    shelf.dbsync("sync --once")
    assert "no-primary-key" in {check["code"] for check in shelf.dbsync("doctor", 3)["checks"]}
    verified = shelf.dbsync("verify")
    assert verified["receipt"] is None
    assert (verified["warnings"], verified["next"]) == (["no-primary-key"], "dbsync doctor")
    assert "no-primary-key" in {one["code"] for one in shelf.error("cutover")["blockers"]}
    shelf.configure("loose")
    shelf.dbsync("init")
    assert shelf.dbsync("verify")["receipt"]["valid"]
    shelf.dbsync("cutover")


def test_a_null_in_a_primary_key_is_refused_and_follows_once_it_has_a_value(shelf: Shelf) -> None:
    made(shelf, "CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT);", {"t": [(None, "a"), (None, "b"), ("c", "c")]})
    assert shelf.error("sync --once")["code"] == "null-key"
    assert "null-key" in {check["code"] for check in shelf.dbsync("doctor", 3)["checks"]}
    with shelf.application("blue") as connection:
        connection.execute("UPDATE t SET k = v")
    shelf.dbsync("sync --once")
    assert shelf.dbsync("verify")["equal"]
    with shelf.application("blue") as connection:
        connection.execute("INSERT INTO t VALUES (NULL, 'late')")
    shelf.dbsync("sync --once")
    assert shelf.error("verify")["code"] == "null-key"
    assert "null-key" in {one["code"] for one in shelf.error("cutover")["blockers"]}
    with shelf.application("blue") as connection:
        connection.execute("UPDATE t SET k = 'late' WHERE k IS NULL")
    shelf.dbsync("sync --once")
    shelf.dbsync("verify")
    shelf.dbsync("cutover")
    assert shelf.rows("green", "SELECT k FROM t ORDER BY k") == [("a",), ("b",), ("c",), ("late",)]


def test_a_text_that_is_no_text_is_named(shelf: Shelf) -> None:
    made(shelf, "CREATE TABLE t (id INTEGER PRIMARY KEY, odd TEXT);", {"t": [(1, "ok")]})
    with shelf.application("blue") as connection:
        connection.execute("INSERT INTO t VALUES (2, CAST(x'61ff62' AS TEXT))")
    refusal = shelf.error("sync --once")
    assert refusal["code"] == "invalid-text"
    assert "odd" in refusal["message"]
    with shelf.application("blue") as connection:
        connection.execute("UPDATE t SET odd = CAST(odd AS BLOB) WHERE id = 2")
    shelf.dbsync("sync --once")
    assert shelf.rows("green", "SELECT odd FROM t WHERE id = 2") == [(b"a\xffb",)]


@pytest.mark.parametrize(
    "schema",
    [
        'CREATE TABLE "Ä" (id INTEGER PRIMARY KEY); CREATE TABLE "ä" (id INTEGER PRIMARY KEY);',
        'CREATE TABLE t (id INTEGER PRIMARY KEY, "Ö" TEXT, "ö" TEXT);',
    ],
)
def test_two_names_that_differ_only_in_case_are_refused_instead_of_mixed_up(shelf: Shelf, schema: str) -> None:
    made(shelf, schema, {})
    assert shelf.error("sync --once")["code"] == "ambiguous-name"
    assert "ambiguous-name" in {check["code"] for check in shelf.dbsync("doctor", 3)["checks"]}


def test_texts_of_another_encoding_are_the_same_texts(shelf: Shelf) -> None:
    with sqlite3.connect(shelf.folder / "blue.db") as connection:
        connection.execute("PRAGMA encoding = 'UTF-16'")
    connection.close()
    made(shelf, "CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v TEXT);", {"t": [("größe", "\u212a"), ("€", "𝄞")]})
    shelf.dbsync("sync --once")
    assert shelf.dbsync("verify")["equal"]
    assert content(shelf, "green") == content(shelf, "blue")


def test_a_hundred_tables_that_refer_in_circles_go_over(shelf: Shelf) -> None:
    count = 100
    schema = "".join(
        f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, r INTEGER REFERENCES t{(n * 7 + 3) % count} (id));"
        for n in range(count)
    )
    made(shelf, schema, {f"t{n}": [(1, 1), (2, None)] for n in range(count)})
    assert shelf.dbsync("sync --once")["snapshot"] == {"tables": count, "rows": 2 * count}
    assert shelf.dbsync("verify")["equal"]
    with shelf.application("blue") as connection:
        connection.execute("INSERT INTO t5 VALUES (3, 2)")
    shelf.dbsync("cutover")
    assert shelf.rows("green", "SELECT * FROM t5 WHERE id = 3") == [(3, 2)]


ODD = """
CREATE TABLE "Läger" (k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, "Ort" TEXT UNIQUE, loud TEXT AS (k || '!') STORED);
CREATE TABLE "Bestell Positionen" ("Bestell Nr" INTEGER, "Pos""ition" INTEGER, "größe" TEXT, "it's" REAL,
  lager TEXT COLLATE NOCASE REFERENCES "Läger" (k), PRIMARY KEY ("Bestell Nr", "Pos""ition")) WITHOUT ROWID;
CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, boss INTEGER REFERENCES people (id), misc);
CREATE TRIGGER renamed AFTER UPDATE OF name ON people BEGIN SELECT 1; END;
"""
ODD_REVISION = r"""
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0002", "0001"
def upgrade():
    op.execute('ALTER TABLE "Bestell Positionen" RENAME COLUMN "größe" TO "Größe in ""cm"')
    op.execute('ALTER TABLE "Bestell Positionen" RENAME TO "order\'s lines"')
    op.execute('ALTER TABLE "order\'s lines" ADD COLUMN "Ort" TEXT')
    op.execute('CREATE TABLE extra (id INTEGER PRIMARY KEY REFERENCES people (id), misc)')
    with op.batch_alter_table("people") as batch:
        batch.drop_column("misc")
        batch.add_column(sa.Column("note", sa.Text))
def downgrade():
    raise NotImplementedError
"""
ODD_CROSSING = r'''
from dbsync.etl import Crossing, table
forward = Crossing(
    table(
        "order's lines",
        key={
            "Bestell Positionen": ["Bestell Nr", 'Pos"ition'],
            "Läger": 'SELECT "Bestell Nr", "Pos""ition" FROM "Bestell Positionen" WHERE lager IN (:keys)',
        },
        select="""SELECT b."Bestell Nr", b."Pos""ition", b."größe" AS "Größe in ""cm", b."it's", b.lager, l."Ort"
                  FROM "Bestell Positionen" AS b LEFT JOIN "Läger" AS l ON l.k = b.lager""",
    ),
    table("people", key={"people": "id"}, select="SELECT id, name, boss FROM people"),
    table("extra", key={"people": "id"}, select="SELECT id, misc FROM people WHERE misc IS NOT NULL",
          cardinality="1:0..1"),
)
reverse = Crossing(
    table(
        "Bestell Positionen",
        key={"order's lines": ["Bestell Nr", 'Pos"ition']},
        select="""SELECT "Bestell Nr", "Pos""ition", "Größe in ""cm" AS "größe", "it's", lager FROM "order's lines" """,
    ),
    table("people", key={"people": "id", "extra": "id"}, select="""
        SELECT p.id, p.name, p.boss, e.misc FROM people AS p LEFT JOIN extra AS e ON e.id = p.id"""),
)
'''
LINES = """SELECT "Bestell Nr", "Pos""ition", {} , "it's", lager FROM {} ORDER BY 1, 2"""


def lines(shelf: Shelf) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The order lines as both sides hold them, without what only one shape has."""
    return (
        shelf.rows("blue", LINES.format('"größe"', '"Bestell Positionen"')),
        shelf.rows("green", LINES.format('"Größe in ""cm"', '"order\'s lines"')),
    )


def test_odd_names_cross_through_a_renaming_a_lookup_and_a_split(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: dict[str, Sequence[tuple[Any, ...]]] = {
        '"Läger"': [("Nord", "Kiel"), ("süd", "Ülm"), ("OST", None)],
        '"Bestell Positionen"': [
            (i, j, f"g{i}", i / 7, ["nord", "süd", "ost", None][j]) for i in range(5) for j in range(4)
        ],
        "people (name, boss, misc)": [(f"N{i}", i or None, [1, "1", 1.0, None][i % 4]) for i in range(10)],
    }
    made(shelf, ODD, rows)
    shelf.write("migrations/versions", {"0002_odd.py": ODD_REVISION})
    shelf.write("etl", {"0002_odd.py": ODD_CROSSING})
    shelf.dbsync("migrate --target idle")
    told = capsys.readouterr().err
    assert "trigger renamed" in told  # batch mode builds people anew
    assert "people is no longer AUTOINCREMENT" in told
    shelf.dbsync("sync --once")
    with shelf.application("blue") as connection:
        connection.execute("""UPDATE "Läger" SET "Ort" = 'Linz' WHERE k = 'ost'""")
        connection.execute('UPDATE "Bestell Positionen" SET "Pos""ition" = 9 WHERE "Pos""ition" = 1')
        connection.execute("UPDATE people SET misc = '1' WHERE id = 1")
        connection.execute("DELETE FROM people WHERE id = 10")
    shelf.dbsync("sync --once")
    assert shelf.dbsync("verify")["equal"]
    blue, green = lines(shelf)
    assert blue == green
    asked = """SELECT DISTINCT "Ort" FROM "order's lines" WHERE lager = ?"""
    assert shelf.rows("green", asked.replace("?", "'OST'")) == [("Linz",)]
    kept = shelf.rows("blue", "SELECT id, typeof(misc), misc FROM people WHERE misc IS NOT NULL")
    assert kept == shelf.rows("green", "SELECT id, typeof(misc), misc FROM extra")
    shelf.dbsync("cutover")
    with shelf.application("green") as connection:
        connection.execute("""UPDATE "order's lines" SET "Größe in ""cm" = 'neu' WHERE "Bestell Nr" = 2""")
        connection.execute("""DELETE FROM "order's lines" WHERE "Bestell Nr" = 3""")
        connection.execute("INSERT INTO people (id, name, boss, note) VALUES (50, 'New', 1, 'only here')")
        connection.execute("DELETE FROM extra WHERE id = 5")
    shelf.dbsync("sync --once")
    blue, green = lines(shelf)
    assert blue == green
    assert shelf.rows("blue", "SELECT id, name, boss, misc FROM people WHERE id IN (5, 50)") == [
        (5, "N4", 4, None),
        (50, "New", 1, None),
    ]
    shelf.dbsync("rollback")
    assert shelf.dbsync("verify")["equal"]
    assert shelf.rows("green", "SELECT note FROM people WHERE id = 50") == [("only here",)]
