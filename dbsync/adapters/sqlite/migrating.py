"""A SQLite file under a migration: one transaction, guards out of the way, capture right again at its end."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from dbsync.adapters.sqlite.catalog import read_catalog, read_revision, schema_statements
from dbsync.adapters.sqlite.connection import connect, quoted
from dbsync.adapters.sqlite.guard import read_guard
from dbsync.adapters.sqlite.objects import NOW, drop_triggers, park_triggers, place_triggers, wake_triggers
from dbsync.errors import Refused
from dbsync.model import Catalog, GuardState, Role

log = logging.getLogger("dbsync.migrate")


def engine(make: Callable[[], sqlite3.Connection]) -> sa.Engine:
    """An engine whose transactions are real: pysqlite would commit before each DDL statement."""
    made = sa.create_engine("sqlite://", creator=make, poolclass=NullPool)

    @sa.event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


@contextmanager
def migrating(path: Path, name: str, exclude: tuple[str, ...], role: Role, epoch: int) -> Iterator[sa.Connection]:
    """See ports.Database.migrating."""
    made = engine(lambda: connect(path, name))
    try:
        with made.connect() as connection, connection.begin():
            raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
            require_role(raw, path, name, role, epoch)
            before = read_catalog(raw, exclude)
            raw.execute("UPDATE dbsync_guard SET exempt = 1")
            wake_triggers(raw)
            drop_triggers(raw)
            written: set[str] = set()
            gone: dict[str, str] = {}
            raw.set_authorizer(_watch(written, gone))
            try:
                yield connection
            finally:
                raw.set_authorizer(None)
            _settle(raw, name, exclude, role, before, written)
            _tell_lost_triggers(raw, name, gone)
    finally:
        made.dispose()


def _watch(written: set[str], gone: dict[str, str]) -> Callable[..., int]:
    """Note every table that a statement writes rows of, and every trigger that went because its table did."""
    codes = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
    dropped: set[str] = set()

    def authorize(code: int, first: str | None, second: str | None, *_: Any) -> int:
        if code in codes and first:
            written.add(first)
        elif code == sqlite3.SQLITE_DROP_TABLE and first:
            dropped.add(first)
        elif code == sqlite3.SQLITE_DROP_TRIGGER and first and second in dropped:
            gone[first] = str(second)
        elif code == sqlite3.SQLITE_CREATE_TRIGGER and second:
            dropped.discard(second)  # dropped by name from here on
        return sqlite3.SQLITE_OK

    return authorize


def _tell_lost_triggers(raw: sqlite3.Connection, name: str, gone: dict[str, str]) -> None:
    """Building a table anew (batch mode does) takes its triggers with it; whether they still fit, its author knows."""
    here = "SELECT 1 FROM sqlite_master WHERE name = ? UNION SELECT 1 FROM dbsync_parked WHERE name = ?"
    for trigger, table in sorted(gone.items()):
        rebuilt = raw.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
        if rebuilt and raw.execute(here, (trigger, trigger)).fetchone() is None:
            log.warning(
                "%s: trigger %s went when table %s was built anew; create it again in the revision",
                name,
                trigger,
                table,
            )


def _counts(ddl: str) -> bool:
    return "AUTOINCREMENT" in ddl.upper()


def _settle(
    raw: sqlite3.Connection, name: str, exclude: tuple[str, ...], role: Role, before: Catalog, written: set[str]
) -> None:
    after = read_catalog(raw, exclude)
    for table in before.tables.keys() & after.tables.keys():
        if _counts(before.tables[table].ddl) and not _counts(after.tables[table].ddl):
            log.warning(
                '%s: %s is no longer AUTOINCREMENT (batch mode: table_kwargs={"sqlite_autoincrement": True})',
                name,
                table,
            )
    changed = {t for t in after.tables if before.tables.get(t) != after.tables[t] or t in written}
    changed |= before.tables.keys() - after.tables.keys()
    guard = raw.execute("SELECT state, lived FROM dbsync_guard").fetchone()
    if guard[0] in (GuardState.CLOSED, GuardState.CEDED):
        park_triggers(raw, exclude)
    place_triggers(raw, name, exclude)
    for table in sorted(changed):
        row = raw.execute("SELECT id FROM dbsync_tables WHERE name = ?", (table,)).fetchone()
        if row:
            raw.execute(
                f"INSERT INTO dbsync_changes (tab, mine, nonce, at, whole) VALUES (?, 1, abs(random() / 2), {NOW}, 1)",
                row,
            )
        if role is Role.IDLE:
            raw.execute("DELETE FROM dbsync_documents WHERE kind = 'copy' AND name = ?", (table,))
    lived = set(json.loads(guard[1]))
    if before.revision != after.revision:
        # On the idle side a revision that is arrived at starts anew; the active side lives at it from now on.
        lived = lived | {after.revision} if role is Role.ACTIVE else lived - {after.revision}
    raw.execute("UPDATE dbsync_guard SET exempt = 0, lived = ?", (json.dumps(sorted(r for r in lived if r)),))


def require_role(raw: sqlite3.Connection, path: Path, name: str, role: Role, epoch: int) -> None:
    """Refused (`role-changed`) unless the guard, read under the write lock, has this role at this epoch."""
    guard = read_guard(raw, path)
    if guard is None:
        raise Refused(f"{name} is not initialised", code="not-initialised", remedy="dbsync init --active NAME")
    fits = guard.accepts if role is Role.ACTIVE else guard.state is GuardState.CLOSED
    if not fits or guard.epoch != epoch:
        raise Refused(
            f"{name} is {guard.state.value} at epoch {guard.epoch}: no longer {role.value} at epoch {epoch}",
            code="role-changed",
            remedy="dbsync status",
        )


@contextmanager
def shape_copy(
    path: Path, name: str, exclude: tuple[str, ...]
) -> Iterator[tuple[sa.Connection, Callable[[], Catalog]]]:
    """The same schema without rows, private and in memory: (connection in a transaction, how to read its catalog)."""
    source = connect(path, name)
    try:
        statements = schema_statements(source)
        revision = read_revision(source)
    finally:
        source.close()
    made = engine(lambda: sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    with made.connect() as connection, connection.begin():
        raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        for statement in statements:
            raw.execute(statement)
        if revision is not None:
            raw.execute("DELETE FROM alembic_version")
            raw.execute("INSERT INTO alembic_version (version_num) VALUES (?)", (revision,))
        yield connection, lambda: read_catalog(raw, exclude)
    made.dispose()


def scratch_statements(columns: list[tuple[str, str, str | None]], table: str) -> str:
    """A table with these columns' names, types and collations, and no constraint."""
    parts = [
        f"{quoted(name)} {declared}" + (f" COLLATE {quoted(collation)}" if collation else "")
        for name, declared, collation in columns
    ]
    return f"CREATE TABLE {quoted(table)} ({', '.join(parts)})"
