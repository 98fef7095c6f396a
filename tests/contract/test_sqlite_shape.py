"""What becomes of guards, capture, the user's triggers and sequences when the shape or the role of a file changes."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations

from dbsync.adapters.sqlite.connection import connect
from dbsync.errors import ConfigError, Refused
from dbsync.model import Checkpoint, GuardState, Position, Role
from tests.contract.sqlite_file import REFUSED, Make

# --- opening -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_file_that_is_no_database_is_let_go_of_at_once(tmp_path: Path) -> None:
    letter = tmp_path / "blue.db"
    letter.write_text("this is a letter, not a database" * 100)
    with pytest.raises(ConfigError) as refused:
        connect(letter, "blue")
    assert refused.value.code == "not-a-database"
    # The error still holds the frame of `connect`: only an explicit close has let go of the file.
    assert letter.as_posix() not in {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()}


# --- guards, shape, triggers -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["guard", "capture"])
def test_dropping_a_trigger_and_putting_it_back_changes_the_fingerprint(make: Make, kind: str) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    before = file.db.fingerprint()
    name, sql = file.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE ?", f"dbsync_{kind}%"
    )[0]
    file.execute(f'DROP TRIGGER "{name}"')
    assert file.db.fingerprint() != before
    file.execute(sql)
    assert file.db.fingerprint() != before


def test_a_trigger_that_is_missing_is_found_by_examine_and_put_back_by_install(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    name = file.execute("SELECT name FROM sqlite_master WHERE name LIKE 'dbsync_guard%' AND type = 'trigger'")[0][0]
    file.execute(f'DROP TRIGGER "{name}"')
    assert [check for check in file.db.examine() if check.severity.value in ("blocker", "error", "warning")]
    assert name in file.db.install("blue")
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("INSERT INTO t VALUES (1)")


def operations(connection: Any) -> Operations:
    return Operations(MigrationContext.configure(connection))


@pytest.mark.parametrize("name", ["blue", "green"])
def test_batch_alter_table_keeps_guard_and_capture(make: Make, name: str) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE other (id INTEGER PRIMARY KEY)", name=name
    )
    role = Role.ACTIVE if name == "blue" else Role.IDLE
    with file.db.writing(role, 1) as transaction:
        transaction.upsert("t", ("id", "v"), [(1, "a")])
    start = file.position()
    with file.db.migrating(role, 1) as connection, operations(connection).batch_alter_table("t") as batch:
        batch.alter_column("v", new_column_name="w")
    found = {table.table: table for table in file.changes(start).tables}
    assert found["t"].whole
    assert "other" not in found
    assert file.changes(start).foreign == 0
    assert file.db.catalog().tables["t"].stored == ("id", "w")
    assert file.execute("SELECT * FROM t") == [(1, "a")]
    start = file.position()
    if name == "green":
        with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
            file.execute("INSERT INTO t VALUES (2, 'b')")
    else:
        file.execute("INSERT INTO t VALUES (2, 'b')")
        assert file.keys(start) == {(2,)}


def test_a_migration_that_makes_a_table_guards_it_and_one_that_drops_it_leaves_nothing(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with file.db.migrating(Role.IDLE, 1) as connection:
        connection.exec_driver_sql("CREATE TABLE fresh (id INTEGER PRIMARY KEY)")
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("INSERT INTO fresh VALUES (1)")
    with file.db.migrating(Role.IDLE, 1) as connection:
        connection.exec_driver_sql("DROP TABLE fresh")
    assert set(file.db.catalog().tables) == {"t"}


def test_a_migration_that_fails_half_way_leaves_everything_as_it_was(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", name="green")
    before, start = file.db.fingerprint().partition(".")[2], file.position()
    with pytest.raises(KeyError), file.db.migrating(Role.IDLE, 1) as connection:
        connection.exec_driver_sql("CREATE TABLE fresh (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("ALTER TABLE t ADD COLUMN w TEXT")
        raise KeyError
    assert file.db.fingerprint().partition(".")[2] == before
    assert file.position() == start
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("INSERT INTO t VALUES (1, 'a')")


def test_migrating_is_refused_at_another_role_or_epoch(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    for role, epoch in ((Role.ACTIVE, 1), (Role.IDLE, 2)):
        with pytest.raises(Refused) as refused, file.db.migrating(role, epoch):
            pytest.fail("it was let in")
        assert refused.value.code == "role-changed"


def test_rows_that_a_migration_changes_mark_their_table(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t VALUES (1, 'a')")
    start = file.position()
    with file.db.migrating(Role.ACTIVE, 1) as connection:
        connection.exec_driver_sql("UPDATE t SET v = 'b'")
    (table,) = file.changes(start).tables
    assert table.whole or set(table.keys) == {(1,)}


WITH_TRIGGER = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY)",
    "CREATE TABLE audit (id INTEGER PRIMARY KEY)",
    "CREATE TRIGGER mine AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (NEW.id); END",
)


def test_the_users_triggers_sleep_on_the_closed_side_and_wake_when_it_opens(make: Make) -> None:
    file = make(*WITH_TRIGGER, name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id",), [(1,)])
    assert file.execute("SELECT * FROM audit") == []
    file.db.open(2)
    file.execute("INSERT INTO t VALUES (2)")
    assert file.execute("SELECT * FROM audit") == [(2,)]
    assert file.execute("SELECT sql FROM sqlite_master WHERE name = 'mine'") == [(WITH_TRIGGER[2],)]
    file.cede("blue", epoch=2)
    file.db.close(3, Checkpoint("x", Position("1.x")))
    with file.db.writing(Role.IDLE, 3) as transaction:
        transaction.upsert("t", ("id",), [(3,)])
    assert file.execute("SELECT * FROM audit") == [(2,)]


def test_removing_dbsync_puts_the_users_triggers_back_and_leaves_nothing(make: Make) -> None:
    file = make(*WITH_TRIGGER, name="green")
    file.db.remove()
    assert file.execute("SELECT name FROM sqlite_master WHERE name LIKE '%dbsync%'") == []
    assert {name for (name,) in file.execute("SELECT name FROM sqlite_master")} >= {"t", "audit", "mine"}
    file.execute("INSERT INTO t VALUES (1)")
    assert file.execute("SELECT * FROM audit") == [(1,)]


def test_autoincrement_is_carried_over_when_a_side_opens(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT)", name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "v"), [(3, "x")])
        transaction.carry_sequences({"t": 41})
    file.db.open(2)
    assert file.execute("INSERT INTO t (v) VALUES ('y') RETURNING id") == [(42,)]


def test_vacuum_loses_no_history_and_no_guard(make: Make) -> None:
    file = make(
        "CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY)", "CREATE TABLE w (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID"
    )
    start = file.position()
    file.execute("INSERT INTO t VALUES ('a'), ('b')")
    file.execute("INSERT INTO w VALUES (1, 2)")
    file.db.prune(start)
    end = file.position()
    file.db.dispose()
    file.execute("VACUUM")
    assert file.position() == end
    assert file.keys(start) == {("a",), ("b",)}
    file.execute("INSERT INTO t VALUES ('c')")
    assert file.keys(end) == {("c",)}
    guard = file.db.guard()
    assert guard is not None and guard.state is GuardState.OPEN


def test_an_excluded_table_is_neither_guarded_nor_recorded(make: Make) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "CREATE TABLE audit_x (id INTEGER PRIMARY KEY)",
        name="green",
        exclude=("audit_*",),
    )
    start = file.position()
    file.execute("INSERT INTO audit_x VALUES (1)")
    assert file.changes(start).count == 0
    assert "audit_x" in file.db.excluded()
    assert "audit_x" not in file.db.catalog().tables


def test_a_generated_column_is_not_written(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER AS (a * 2) STORED)", name="green")
    shape = file.db.catalog().tables["t"]
    assert shape.stored == ("id", "a")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", shape.stored, [(1, 5)])
    assert file.execute("SELECT b FROM t") == [(10,)]


def test_keys_that_differ_only_by_case_are_one_key_where_the_key_ignores_case(make: Make) -> None:
    file = make("CREATE TABLE t (id TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, v TEXT)", name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "v"), [("a", "1")])
        transaction.upsert("t", ("id", "v"), [("A", "2")])
    assert [value for (value,) in file.execute("SELECT v FROM t")] == ["2"]


def test_reads_follows_joins_views_and_subqueries_to_the_tables(make: Make) -> None:
    file = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE TABLE s (id INTEGER PRIMARY KEY, w TEXT)",
        "CREATE VIEW seen AS SELECT id, w FROM s",
    )
    found = file.db.reads("SELECT t.v, (SELECT w FROM seen WHERE seen.id = t.id) FROM t")
    assert {("t", "v"), ("s", "w")} <= found
    assert {table for table, _ in found} == {"t", "s"}
