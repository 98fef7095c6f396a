"""What SQLite does that would lose a change, let a second writer in, or break the application. On real files."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.errors import DbsyncError, PositionLost
from dbsync.model import Role
from tests.contract.sqlite_file import REFUSED, File, Make

# --- OR REPLACE removes rows without firing their DELETE trigger -----------------------------------

VICTIMS = {
    "unique column": ("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v TEXT)", "a", "a"),
    "unique column without case": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE, v)",
        "a",
        "A",
    ),
    "unique index over two columns": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t (u, v)",
        "a",
        "a",
    ),
    "partial unique index": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t (u) WHERE v = 'v'",
        "a",
        "a",
    ),
    "expression index": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t (lower(u))",
        "aB",
        "Ab",
    ),
    "expression and column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t (v, substr(u, 1, 5))",
        "abcdeX",
        "abcdeY",
    ),
    "index with a collation of its own": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT); CREATE UNIQUE INDEX i ON t (u COLLATE NOCASE)",
        "a",
        "A",
    ),
    "WITHOUT ROWID": ("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v TEXT) WITHOUT ROWID", "a", "a"),
    "names to quote": (
        'CREATE TABLE t (id INTEGER PRIMARY KEY, u, v, "a """ DEFAULT 1); CREATE UNIQUE INDEX "x ""i" ON t (u, "a """)',
        "a",
        "a",
    ),
    "generated column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u, v, g AS (lower(u))); CREATE UNIQUE INDEX i ON t (g)",
        "aB",
        "Ab",
    ),
    "type of the column": ("CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v)", 5, "5"),
}


@pytest.mark.parametrize("shape", VICTIMS)
@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE", "UPDATE OR REPLACE"])
def test_a_row_that_or_replace_removes_is_recorded(make: Make, shape: str, verb: str) -> None:
    statements, first, second = VICTIMS[shape]
    file = make(*statements.split(";"))
    file.execute("INSERT INTO t (id, u, v) VALUES (1, ?, 'v')", first)
    file.execute("INSERT INTO t (id, u, v) VALUES (9, 'quite other', 'v')")
    start = file.position()
    if verb.startswith("UPDATE"):
        file.execute("UPDATE OR REPLACE t SET u = ? WHERE id = 9", second)
        assert file.execute("SELECT id FROM t") == [(9,)]
    else:
        file.execute(f"{verb} INTO t (id, u, v) VALUES (2, ?, 'v')", second)
        assert file.execute("SELECT id FROM t ORDER BY id") == [(2,), (9,)]
    assert (1,) in file.keys(start)


def test_a_row_that_update_or_replace_of_the_key_removes_is_recorded(make: Make) -> None:
    file = make("CREATE TABLE t (a INTEGER, b INTEGER, v TEXT, PRIMARY KEY (a, b))")
    file.execute("INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y')")
    start = file.position()
    file.execute("UPDATE OR REPLACE t SET a = 1, b = 1 WHERE a = 2")
    assert file.keys(start) == {(1, 1), (2, 2)}


def test_a_row_that_or_replace_by_rowid_removes_is_recorded(make: Make) -> None:
    file = make("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t (rowid, id, v) VALUES (1, 'a', 'x')")
    start = file.position()
    file.execute("INSERT OR REPLACE INTO t (rowid, id, v) VALUES (1, 'b', 'y')")
    assert file.execute("SELECT id FROM t") == [("b",)]
    assert ("a",) in file.keys(start)


def test_a_row_that_update_or_replace_of_the_rowid_removes_is_recorded(make: Make) -> None:
    file = make("CREATE TABLE t (id TEXT NOT NULL PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t (rowid, id, v) VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    start = file.position()
    file.execute("UPDATE OR REPLACE t SET rowid = 1 WHERE id = 'b'")
    assert file.execute("SELECT id FROM t") == [("b",)]
    assert ("a",) in file.keys(start)


@pytest.mark.parametrize("shape", [shape for shape in VICTIMS if shape != "type of the column"])
def test_the_search_for_victims_does_not_scan_the_table(make: Make, shape: str) -> None:
    rows = 5_000
    fill = (
        f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        " INSERT INTO t (id, u, v) SELECT i, printf('%05d', i), 'v' FROM n"
    )
    file = make(*VICTIMS[shape][0].split(";"), fill)
    steps = [0]
    with file.application() as connection:
        connection.execute("INSERT INTO t (id, u, v) VALUES (?, 'first', 'v')", (rows + 1,))
        connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 10)
        connection.execute("INSERT INTO t (id, u, v) VALUES (?, 'second', 'v')", (rows + 2,))
        connection.execute("UPDATE t SET u = 'third' WHERE id = 17")
    assert steps[0] * 10 < rows


def test_a_default_that_or_replace_puts_in_for_null_records_its_victims(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u INTEGER NOT NULL DEFAULT 5 UNIQUE)")
    file.execute("INSERT INTO t VALUES (1, 5)")
    start = file.position()
    file.execute("INSERT OR REPLACE INTO t VALUES (2, NULL)")
    assert file.execute("SELECT id FROM t") == [(2,)]
    assert (1,) in file.keys(start)


def test_a_column_declared_to_replace_records_its_victims(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE ON CONFLICT REPLACE)")
    file.execute("INSERT INTO t VALUES (1, 'a')")
    start = file.position()
    file.execute("INSERT INTO t VALUES (2, 'a')")
    assert file.keys(start) >= {(1,), (2,)}


def test_a_replace_that_counts_the_key_itself_records_its_victims(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE)")
    file.execute("INSERT INTO t VALUES (-1, 'minus'), (5, 'five')")
    start = file.position()
    file.execute("INSERT OR REPLACE INTO t (u) VALUES ('five')")
    file.execute("INSERT OR REPLACE INTO t (u) VALUES ('minus')")
    assert file.keys(start) >= {(5,), (-1,)}


def test_a_unique_index_made_after_init_is_seen_or_changes_the_fingerprint(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT)")
    before = file.db.fingerprint()
    file.execute("CREATE UNIQUE INDEX later ON t (u)")
    assert file.db.fingerprint() != before


UNIQUE_INDEXES = {
    "column": "CREATE UNIQUE INDEX i ON t (u)",
    "expression": "CREATE UNIQUE INDEX i ON t (lower(u))",
    "partial": "CREATE UNIQUE INDEX i ON t (u) WHERE v = 'v'",
}


@pytest.mark.parametrize("index", UNIQUE_INDEXES)
def test_dbsync_itself_moves_unique_values_under_every_kind_of_index(make: Make, index: str) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT)", UNIQUE_INDEXES[index], name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "u", "v"), [(1, "a", "v"), (2, "b", "v")])
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "u", "v"), [(1, "b", "v"), (2, "a", "v")])
    assert file.execute("SELECT id, u FROM t ORDER BY id") == [(1, "b"), (2, "a")]
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "u", "v"), [(3, "b", "v")])
        transaction.delete("t", [(1,)])
    assert file.execute("SELECT id, u FROM t ORDER BY id") == [(2, "a"), (3, "b")]


def test_rows_outside_a_partial_index_stand_in_nobodys_way(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT, v TEXT)", UNIQUE_INDEXES["partial"], name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "u", "v"), [(1, "a", "v"), (2, "b", "v"), (9, "a", "gone")])
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id", "u", "v"), [(1, "b", "v"), (2, "a", "v")])
    assert file.execute("SELECT id, u FROM t ORDER BY id") == [(1, "b"), (2, "a"), (9, "a")]


# --- statements that do not look like row changes ----------------------------------------------------


def test_a_delete_without_where_is_recorded(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    file.execute("INSERT INTO t VALUES (1), (2), (3)")
    start = file.position()
    file.execute("DELETE FROM t")
    (table,) = file.changes(start).tables
    assert table.whole or set(table.keys) == {(1,), (2,), (3,)}


def test_a_cascade_of_the_applications_is_recorded(make: Make) -> None:
    file = make(
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p REFERENCES p (id) ON DELETE CASCADE)",
    )
    file.execute("INSERT INTO p VALUES (1)")
    file.execute("INSERT INTO t VALUES (7, 1)")
    start = file.position()
    with file.application() as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM p")
    assert file.keys(start) == {(7,)}


def test_what_a_trigger_of_the_users_changes_is_recorded(make: Make) -> None:
    file = make(
        "CREATE TABLE a (id INTEGER PRIMARY KEY)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "CREATE TRIGGER mine AFTER INSERT ON a BEGIN INSERT INTO t VALUES (NEW.id * 10); END",
    )
    start = file.position()
    file.execute("INSERT INTO a VALUES (4)")
    assert file.keys(start) == {(40,)}


def test_an_update_from_and_an_upsert_are_recorded(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE s (id INTEGER PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    file.execute("INSERT INTO s VALUES (2, 'c')")
    start = file.position()
    file.execute("UPDATE t SET v = s.v FROM s WHERE s.id = t.id")
    assert file.keys(start) == {(2,)}
    start = file.position()
    file.execute("INSERT INTO t VALUES (1, 'z'), (3, 'y') ON CONFLICT (id) DO UPDATE SET v = excluded.v")
    assert file.keys(start) == {(1,), (3,)}


def test_a_savepoint_that_was_rolled_back_leaves_no_change(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    start = file.position()
    with file.application() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("SAVEPOINT s")
        connection.execute("INSERT INTO t VALUES (2)")
        connection.execute("ROLLBACK TO s")
        connection.execute("COMMIT")
    assert file.keys(start) == {(1,)}


# --- the application on either side ------------------------------------------------------------------


def test_a_refused_insert_leaves_no_transaction_open(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with file.application() as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
            connection.execute("INSERT INTO t VALUES (1)")
        assert not connection.in_transaction
        assert file.db.settled(0.0)
        with file.db.writing(Role.IDLE, 1) as transaction:
            transaction.upsert("t", ("id",), [(2,)])


def test_a_refused_insert_in_the_drivers_own_transactions_frees_the_lock(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with file.application("DEFERRED") as connection:
        with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
            connection.execute("INSERT INTO t VALUES (1)")
        assert file.db.settled(0.0)


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "INSERT OR FAIL"])
def test_no_conflict_clause_slips_past_the_guard(make: Make, verb: str) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute(f"{verb} INTO t VALUES (1)")
    assert file.execute("SELECT count(*) FROM t") == [(0,)]


def test_a_cascade_or_a_delete_without_where_does_not_slip_past_the_guard(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id",), [(1,), (2,)])
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("DELETE FROM t")
    assert file.execute("SELECT count(*) FROM t") == [(2,)]


def test_a_snapshot_taken_before_the_fence_cannot_be_upgraded_to_write_after_it(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    with file.application() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM t").fetchall()
        fenced = file.db.fence(1, "me", 30.0, 1.0)
        with pytest.raises(sqlite3.Error):
            connection.execute("INSERT INTO t VALUES (1)")
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        file.db.cede(fenced, file.position(), file.db.fingerprint(), "green")
    assert file.execute("SELECT count(*) FROM t") == [(0,)]


def test_returning_upsert_changes_and_last_insert_rowid_work_on_the_open_side(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v INTEGER DEFAULT 0)")
    for number in range(40):  # so that the change log's own rowid is far from the table's
        file.execute("UPDATE t SET v = ?", number)
        file.execute("INSERT OR REPLACE INTO t (id, u) VALUES (1, 'x')")
    with file.application() as connection:
        cursor = connection.execute("INSERT INTO t (u) VALUES ('y')")
        assert cursor.lastrowid == 2
        assert connection.execute("SELECT last_insert_rowid(), changes()").fetchone() == (2, 1)
        assert connection.execute("INSERT INTO t (u) VALUES ('z') RETURNING id, u").fetchall() == [(3, "z")]
        upsert = "INSERT INTO t (u) VALUES ('y') ON CONFLICT (u) DO UPDATE SET v = v + 1 RETURNING id, v"
        assert connection.execute(upsert).fetchall() == [(2, 1)]
        assert connection.execute("UPDATE t SET v = 5 WHERE id IN (2, 3)").rowcount == 2
        assert connection.execute("DELETE FROM t WHERE id = 3 RETURNING u").fetchall() == [("z",)]


def test_dbsyncs_objects_call_no_function_that_only_its_own_connections_know(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
    file.execute("INSERT INTO t VALUES (1, 'a')")
    file.execute("UPDATE t SET id = 2")
    file.execute("DELETE FROM t")
    file.cede()
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("INSERT INTO t VALUES (1, 'a')")


def test_the_exemption_of_dbsyncs_own_transaction_is_never_seen_by_another(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)", name="green")
    with file.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("t", ("id",), [(1,)])
        with pytest.raises(sqlite3.Error):
            file.execute("INSERT INTO t VALUES (9)")
    with pytest.raises(sqlite3.IntegrityError, match=REFUSED):
        file.execute("INSERT INTO t VALUES (9)")
    assert file.execute("SELECT id FROM t") == [(1,)]


# --- another file under the same name ---------------------------------------------------------------


def test_a_copied_file_is_detected(make: Make, tmp_path: Path) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    file.execute("INSERT INTO t VALUES (1)")
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = tmp_path / "copy.db"
    shutil.copyfile(file.path, copy)
    copied = SqliteDatabase("blue", f"sqlite:///{copy}")
    try:
        with pytest.raises(PositionLost) as lost:
            copied.guard()
        assert lost.value.code == "source-restored"
        with pytest.raises(DbsyncError), copied.writing(Role.ACTIVE, 1):
            pytest.fail("it was let in")
    finally:
        copied.dispose()


def backed_up(file: File, to: Path) -> None:
    with file.application() as connection, closing(sqlite3.connect(to)) as target:
        connection.backup(target)


@pytest.mark.parametrize("more_after", [0, 5])
def test_a_restored_older_backup_is_detected(make: Make, tmp_path: Path, more_after: int) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    file.execute("INSERT INTO t VALUES (1)")
    backed_up(file, tmp_path / "backup.db")
    file.execute("INSERT INTO t VALUES (2)")
    followed = file.position()
    # Restored into the same inode, as `.restore` does: only the history can tell.
    with closing(sqlite3.connect(tmp_path / "backup.db")) as source, file.application() as connection:
        source.backup(connection)
    for number in range(more_after):
        file.execute("INSERT INTO t VALUES (?)", 100 + number)
    with pytest.raises(PositionLost) as lost:
        file.changes(followed)
    assert lost.value.code == "source-restored"


def test_a_file_moved_onto_the_old_one_is_detected(make: Make, tmp_path: Path) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    backed_up(file, tmp_path / "backup.db")
    file.db.dispose()
    for ending in ("-wal", "-shm"):
        file.path.with_name(file.path.name + ending).unlink(missing_ok=True)
    (tmp_path / "backup.db").replace(file.path)
    again = SqliteDatabase("blue", f"sqlite:///{file.path}")
    try:
        with pytest.raises(PositionLost) as lost:
            again.guard()
        assert lost.value.code == "source-restored"
    finally:
        again.dispose()
