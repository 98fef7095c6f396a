"""Windows, crossings, captures and evidence on real files, one rule a test (protocol, section 8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from dbsync.adapters.sqlite import rows as sqlite_rows
from dbsync.errors import ConfigError, DbsyncError, Refused
from dbsync.etl import Crossing, table
from dbsync.model import Role
from tests.acceptance.protocol_road import ONE, Road, road
from tests.unit.sync.files import NEW, OLD, REVERSE, Crossed


@pytest.fixture
def crossed(tmp_path: Path) -> Iterator[Road]:
    """Through the crossing: Customer with two names, customer with one and address."""
    made = road(tmp_path, OLD, NEW)
    made.customers(3)
    made.synced()
    yield made
    made.dispose()


def same(made: Road, *tables: str) -> None:
    """Both sides hold the same rows, and a verify agrees."""
    for name in tables:
        assert made.rows("green", f"SELECT * FROM {name}") == made.rows("blue", f"SELECT * FROM {name}")
    assert made.verify().equal


# --- 11, 12 --------------------------------------------------------------------------------------


def test_a_first_name_of_two_words_survives_the_way_there_and_back(crossed: Road) -> None:
    """Protocol test 11: 'Mary Ann' over a cutover, a change of her e-mail on the newer side, and a rollback."""
    crossed.cut()
    crossed.write("UPDATE customer SET Email = 'new@x' WHERE CustomerId = 1")
    crossed.pump().drain()
    crossed.cut("rollback", accept_loss=True)
    assert crossed.active.name == "blue"
    found = crossed.rows("blue", "SELECT FirstName, LastName, Email FROM Customer WHERE CustomerId = 1")
    assert found == [("Mary Ann 1", "Berg", "new@x")]


RICHER = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE customer (CustomerId INTEGER PRIMARY KEY AUTOINCREMENT, FullName TEXT NOT NULL, Email TEXT UNIQUE,
  score INTEGER NOT NULL, nick TEXT);
CREATE TABLE address (CustomerId INTEGER PRIMARY KEY, Street TEXT);
CREATE TABLE "order line" ("Größe" TEXT COLLATE NOCASE, place INTEGER, price NUMERIC, picture BLOB, colour TEXT,
  PRIMARY KEY ("Größe", place)) WITHOUT ROWID;
"""


class Scored(Crossed):
    """The newer shape has a score, which only forward fills."""

    forward = Crossing(
        table(
            "customer",
            key={"Customer": "CustomerId"},
            select="SELECT CustomerId, FirstName || ' ' || LastName AS FullName, Email, 0 AS score FROM Customer",
        ),
        table("address", key={"Customer": "CustomerId"}, select="SELECT CustomerId, Street FROM Customer"),
    )
    reverse = REVERSE


@pytest.fixture
def richer(tmp_path: Path) -> Iterator[Road]:
    """The newer side has columns of its own, has been live, and they have been filled there."""
    made = road(tmp_path, OLD, RICHER)
    made.crossed = Scored()
    made.customers(2)
    made.write("INSERT INTO \"order line\" VALUES ('M', 1, 2, NULL)")
    made.synced().cut()
    made.write("UPDATE customer SET score = 7, nick = 'Mae' WHERE CustomerId = 1")
    made.write("UPDATE \"order line\" SET colour = 'red'")
    made.pump().drain()
    made.cut("rollback", accept_loss=True)
    yield made
    made.dispose()


def test_a_value_in_a_new_column_survives_a_rollback_and_another_cutover(richer: Road) -> None:
    """Protocol test 12: what only the newer shape has is never overwritten, whether forward fills it or not."""
    richer.write("UPDATE Customer SET Email = 'later@x' WHERE CustomerId = 1")
    richer.write('UPDATE "order line" SET price = 3')
    richer.pump().drain()
    richer.verify()
    richer.cut()
    assert richer.rows("green", "SELECT score, nick, Email FROM customer WHERE CustomerId = 1") == [
        (7, "Mae", "later@x")
    ]
    assert richer.rows("green", 'SELECT colour, price FROM "order line"') == [("red", 3)]


@pytest.mark.parametrize("verb", ["delete first", "replace"])
def test_a_row_deleted_and_made_anew_inherits_nothing_of_the_dead_one(richer: Road, verb: str) -> None:
    """Protocol, section 4: it arrives as one change of its key; kept columns of the dead row are reset."""
    with richer.application("blue") as connection:
        connection.execute("BEGIN")
        if verb == "delete first":
            connection.execute("DELETE FROM Customer WHERE CustomerId = 1")
            connection.execute('DELETE FROM "order line"')
        how = "INSERT" if verb == "delete first" else "INSERT OR REPLACE"
        connection.execute(f"{how} INTO Customer VALUES (1, 'Some', 'One Else', NULL, 'street')")
        connection.execute(f"{how} INTO \"order line\" VALUES ('M', 1, 9, NULL)")
        connection.execute("COMMIT")
    richer.pump().drain()
    assert richer.rows("green", "SELECT FullName, score, nick FROM customer WHERE CustomerId = 1") == [
        ("Some One Else", 0, None)
    ]
    assert richer.rows("green", 'SELECT colour, price FROM "order line"') == [(None, 9)]
    assert richer.rows("green", "SELECT score FROM customer WHERE CustomerId = 2") == [(0,)]


# --- 13 ------------------------------------------------------------------------------------------

FAMILY = (
    ONE
    + """
CREATE TABLE base (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES base ON DELETE CASCADE);
CREATE TABLE grandchild (id INTEGER PRIMARY KEY, child INTEGER NOT NULL REFERENCES child ON DELETE CASCADE);
CREATE TABLE seat (id INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE, row TEXT, UNIQUE (row, place));
INSERT INTO base VALUES (1, 'one'), (2, 'two');
INSERT INTO child VALUES (10, 1);
INSERT INTO grandchild VALUES (100, 10), (101, 10);
INSERT INTO seat VALUES (1, 11, 'a'), (2, 22, 'a'), (3, 33, 'b');
"""
)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Road]:
    made = road(tmp_path, FAMILY, FAMILY.split("INSERT INTO base")[0])
    made.synced()
    yield made
    made.dispose()


def test_a_child_given_to_another_parent_keeps_its_own_children(family: Road) -> None:
    """Protocol test 13: re-parent and delete in one window: nothing cascades on the other side."""
    with family.application("blue") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("UPDATE child SET parent = 2 WHERE id = 10")
        connection.execute("DELETE FROM base WHERE id = 1")
    family.pump().drain()
    assert family.rows("green", "SELECT id FROM grandchild") == [(100,), (101,)]
    same(family, "base", "child", "grandchild")


def test_what_a_cascade_of_the_applications_deletes_is_deleted_there_too(family: Road) -> None:
    """Protocol test 13: a parent with its grandchildren."""
    with family.application("blue") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM base WHERE id = 1")
    family.pump().drain()
    assert family.rows("green", "SELECT count(*) FROM grandchild") == [(0,)]
    same(family, "base", "child", "grandchild")


def test_unique_values_that_go_round_in_a_circle_arrive(family: Road) -> None:
    """Protocol test 13: three rows swap their unique values within one window."""
    with family.application("blue") as connection:
        connection.execute("BEGIN")
        for seat, place in ((1, -1), (2, 11), (3, 22), (1, 33)):
            connection.execute("UPDATE seat SET place = ? WHERE id = ?", (place, seat))
        connection.execute("COMMIT")
    family.pump().drain()
    assert family.rows("green", "SELECT id, place FROM seat ORDER BY id") == [(1, 33), (2, 11), (3, 22)]
    same(family, "seat")


# --- 14 ------------------------------------------------------------------------------------------


def test_an_untouched_row_changed_on_the_idle_side_is_seen_although_no_window_carries_it(crossed: Road) -> None:
    """Protocol test 14: after the receipt, behind dbsync's back; also when it was put back as it had been."""
    crossed.tamper("UPDATE customer SET Email = 'evil@x' WHERE CustomerId = 2")
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            crossed.cut()
        assert [blocker.code for blocker in refused.value.blockers] == ["idle-written"]
        crossed.tamper("UPDATE customer SET Email = '2@example.org' WHERE CustomerId = 2")
    assert crossed.verify().receipt is not None
    crossed.cut()


# --- 20 ------------------------------------------------------------------------------------------

CORPUS = {
    "the clock": ("crossing-not-deterministic", "datetime('now')"),
    "chance": ("crossing-not-deterministic", "random()"),
    "a window function": ("crossing-not-deterministic", "row_number() OVER (ORDER BY CustomerId)"),
    "an aggregate over all rows": ("crossing-not-deterministic", "(SELECT max(CustomerId) FROM Customer)"),
    "a column that is not there": ("unknown-column", "FirstNmae"),
    "what does not parse": ("broken-crossing", "(FirstName"),
}


@pytest.mark.parametrize("what", CORPUS)
def test_a_crossing_that_is_not_key_local_and_deterministic_is_refused(crossed: Road, what: str) -> None:
    """Protocol test 20: a corpus of bad crossings over the real files (the long one: tests/unit/etl)."""
    code, expression = CORPUS[what]
    select = f"SELECT CustomerId, FirstName || {expression} AS FullName, Email FROM Customer"
    bad = table("customer", key={"Customer": "CustomerId"}, select=select)
    crossed.crossed.forward = Crossing(bad, *crossed.crossed.forward.tables[1:])
    with pytest.raises(ConfigError) as caught:
        crossed.lens()
    assert caught.value.code == code


def test_every_read_by_key_seeks(crossed: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol test 20: no step of a plan scans a table of the user's."""
    seen: list[str] = []
    real = sqlite_rows.SqliteRows._run

    def explained(self: Any, sql: str, values: Any) -> Any:
        plan = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        seen.extend(step[3] for step in plan)
        return real(self, sql, values)

    lens = crossed.lens()
    monkeypatch.setattr(sqlite_rows.SqliteRows, "_run", explained)
    for source, composition in (("blue", lens.forward), ("green", lens.reverse)):
        with crossed.databases[source].view() as view:
            for plan in composition.tables.values():
                key = (1,) if len(plan.relation.key) == 1 else ("M", 1)
                view.by_keys(plan.relation, [key])
    assert any(step.startswith("SEARCH") for step in seen)
    assert [step for step in seen if step.startswith("SCAN") and step.split()[1] != "k"] == []


# --- 21 ------------------------------------------------------------------------------------------


class Joined(Crossed):
    """An INNER JOIN that gives no row to a customer without an order line."""

    forward = Crossing(
        table(
            "customer",
            key={"Customer": "CustomerId", "address": "CustomerId"},
            select="""SELECT c.CustomerId, c.FirstName || ' ' || c.LastName AS FullName, c.Email
                      FROM Customer AS c JOIN address AS a ON a.CustomerId = c.CustomerId""",
        ),
        table("address", key={"address": "CustomerId"}, select="SELECT CustomerId, Street FROM address"),
    )
    reverse = Crossing(
        table(
            "Customer",
            key={"customer": "CustomerId"},
            select="SELECT CustomerId, FullName AS FirstName, '' AS LastName, Email FROM customer",
            loses={"LastName": "one name"},
        )
    )


JOINED = (
    ONE
    + """
CREATE TABLE Customer (CustomerId INTEGER PRIMARY KEY AUTOINCREMENT, FirstName TEXT NOT NULL, LastName TEXT NOT NULL,
  Email TEXT UNIQUE);
CREATE TABLE address (CustomerId INTEGER PRIMARY KEY, Street TEXT);
"""
)


def test_an_inner_join_that_drops_rows_is_counted_by_verify(tmp_path: Path) -> None:
    """Protocol test 21: writer and judge are one query: only an independent count sees what it drops."""
    newer = NEW.split('CREATE TABLE "order line"')[0]
    made = road(tmp_path, JOINED, newer)
    made.crossed = Joined()
    made.write("INSERT INTO Customer VALUES (1, 'A', 'B', NULL), (2, 'C', 'D', NULL)")
    made.write("INSERT INTO address VALUES (1, 'street'), (2, 'street')")
    made.pump().drain()
    made.write("DELETE FROM address WHERE CustomerId = 2")
    made.pump().drain()
    assert made.rows("green", "SELECT CustomerId FROM customer") == [(1,)]
    with pytest.raises(Refused) as refused:
        made.verify()
    assert refused.value.code == "crossing-cardinality"
    made.dispose()


def test_a_row_whose_key_is_null_is_refused_by_name(tmp_path: Path) -> None:
    """Protocol test 21: SQLite allows NULL in a primary key, and no key range reaches such a row."""
    made = road(tmp_path, ONE + "CREATE TABLE loose (code TEXT PRIMARY KEY, n INTEGER);")
    made.write("INSERT INTO loose VALUES ('a', 1)")
    made.synced()
    made.write("INSERT INTO loose VALUES (NULL, 2)")
    with pytest.raises(DbsyncError) as refused:
        made.pump().drain()
        made.verify()
    assert refused.value.code == "null-key"
    with pytest.raises(DbsyncError) as refused:
        made.pump().ensure_snapshot(force=True)
    assert refused.value.code == "null-key"
    made.dispose()


# --- 22 ------------------------------------------------------------------------------------------


def test_a_refused_insert_whose_transaction_is_left_open_does_not_hold_up_the_cede(crossed: Road) -> None:
    """Protocol test 22: the guard rolls the application's transaction back, and the write lock goes with it."""
    old = crossed.active
    fenced = old.fence(1, "test", 10.0, 1.0)
    with crossed.application("blue") as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.IntegrityError, match=r"^dbsync:"):
            connection.execute("INSERT INTO Customer VALUES (9, 'x', 'y', NULL, NULL)")
        with old.view() as view:
            final = view.position()
        assert old.cede(fenced, final, old.fingerprint(), "green").live == "green"


def test_a_row_that_or_replace_removes_is_removed_there_too(crossed: Road) -> None:
    """Protocol test 22: OR REPLACE takes the holder of a unique value away without firing its DELETE trigger."""
    crossed.write("INSERT OR REPLACE INTO Customer VALUES (7, 'New', 'Holder', '2@example.org', NULL)")
    crossed.pump().drain()
    every = "SELECT CustomerId FROM customer ORDER BY 1"
    assert crossed.rows("green", every) == crossed.rows("blue", every) == [(1,), (3,), (7,)]
    assert crossed.verify().equal


@pytest.mark.parametrize("side", ["blue", "green"])
def test_batch_alter_table_leaves_guard_and_capture_in_place(crossed: Road, side: str) -> None:
    """Protocol test 22: it makes the table anew, and every trigger of the old one goes."""
    role = Role.ACTIVE if side == "blue" else Role.IDLE
    with crossed.databases[side].migrating(role, 1) as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("order line", recreate="always"):
            pass
    insert = "INSERT INTO \"order line\" VALUES ('L', 1, 2, NULL)"
    if side == "green":
        with pytest.raises(sqlite3.IntegrityError, match=r"^dbsync:"):
            crossed.write(insert, side="green")
        return
    crossed.write(insert)
    crossed.pump().drain()
    assert crossed.rows("green", 'SELECT count(*) FROM "order line"') == [(1,)]
    crossed.active.fence(1, "test", 5.0, 1.0)
    with pytest.raises(sqlite3.IntegrityError, match=r"^dbsync:"):
        crossed.write('DELETE FROM "order line"')


# --- 24 ------------------------------------------------------------------------------------------

TEN = [f"t{n}" for n in range(10)]


@pytest.fixture
def ten(tmp_path: Path) -> Iterator[Road]:
    made = road(tmp_path, ONE + "".join(f"CREATE TABLE {t} (id INTEGER PRIMARY KEY, v TEXT);" for t in TEN))
    for name in TEN:
        made.write(f"INSERT INTO {name} VALUES (1, 'a'), (2, 'b')")
    made.synced()
    yield made
    made.dispose()


def test_one_table_that_changed_as_a_whole_costs_that_table_alone(ten: Road) -> None:
    """Protocol test 24: one of ten is emptied by a revision of the active side: nine are not copied again."""
    with ten.active.migrating(Role.ACTIVE, 1) as connection:
        connection.exec_driver_sql("DELETE FROM t3")
        connection.exec_driver_sql("INSERT INTO t3 VALUES (5, 'new')")
    pump = ten.pump()
    pump.step()
    assert pump.stale() == ("t3",)
    assert pump.ensure_snapshot() == {"tables": 1, "rows": 1}
    assert ten.rows("green", "SELECT * FROM t3") == [(5, "new")]
    same(ten, *TEN)


def test_an_emptied_table_is_emptied_there(ten: Road) -> None:
    """Protocol test 24: DELETE of every row, without a new copy of anything."""
    ten.write("DELETE FROM t4")
    done = ten.pump().drain()
    assert (done.snapshot, done.deleted) == (None, 2)
    same(ten, *TEN)


def test_a_window_too_large_is_applied_in_parts_and_one_that_dies_leaves_the_checkpoint_where_it_was(
    ten: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol test 24: died in the middle of a part, it is applied again from its beginning."""
    with ten.application("blue") as connection:
        connection.executemany("INSERT INTO t5 VALUES (?, 'x')", [(n,) for n in range(10, 60)])
    pump = ten.pump()
    pump.ensure_snapshot()
    pump.step(limit=20)
    assert ten.rows("green", "SELECT count(*) FROM t5") == [(22,)]
    before = pump.checkpoint()

    class Died(BaseException):
        """The process is gone."""

    def die(*_: Any) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(pump, "carry", die)
        with pytest.raises(Died):
            pump.step(limit=20)
    assert pump.checkpoint() == before
    assert ten.rows("green", "SELECT count(*) FROM t5") == [(22,)]
    ten.pump().drain()
    same(ten, *TEN)
