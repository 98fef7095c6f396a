"""One SQLite file as a database of dbsync's."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from dbsync.adapters.sqlite import guard as guards
from dbsync.adapters.sqlite import keeping, plans
from dbsync.adapters.sqlite import migrating as migrations
from dbsync.adapters.sqlite.catalog import is_excluded, read_catalog, unsyncable_tables, user_tables
from dbsync.adapters.sqlite.connection import connect, translated
from dbsync.adapters.sqlite.examine import examine
from dbsync.adapters.sqlite.loading import clock
from dbsync.adapters.sqlite.objects import (
    TABLES,
    create_tables,
    drop_triggers,
    fingerprint,
    park_triggers,
    place_triggers,
    wake_triggers,
)
from dbsync.adapters.sqlite.rows import SqliteScratch, SqliteView
from dbsync.adapters.sqlite.writing import SqliteTransaction, save_document
from dbsync.errors import ConfigError, Refused
from dbsync.model import (
    Capabilities,
    Catalog,
    Check,
    Checkpoint,
    Fact,
    Fenced,
    Guard,
    Kept,
    Key,
    Position,
    QueryPlan,
    Relation,
    Role,
    Staged,
    Table,
)


class SqliteDatabase:
    """See ports.Database."""

    def __init__(self, name: str, url: str, exclude: Sequence[str] = (), address: str | None = None) -> None:
        self.name = name
        self.capabilities = Capabilities(dialect="sqlite")
        database = make_url(url).database
        if not database or database == ":memory:":
            raise ConfigError(f"{name}: the URL names no file", code="config", remedy="sqlite:///path/to/file.db")
        self.path = Path(database)
        self._exclude = tuple(exclude)
        self._address = address or str(self.path)
        self._idle: list[sqlite3.Connection] = []
        self._mutex = threading.Lock()

    @property
    def address(self) -> str:
        """See ports.Database."""
        return self._address

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = connect(self.path, self.name)
        try:
            with translated(self.name):
                yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            with self._mutex:
                self._idle.append(connection)

    def dispose(self) -> None:
        """See ports.Database."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- shape ---------------------------------------------------------------------------------

    def catalog(self) -> Catalog:
        """See ports.Database."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            return read_catalog(connection, self._exclude)

    def excluded(self) -> tuple[str, ...]:
        """See ports.Database."""
        with self._connection() as connection:
            named = [t for t in user_tables(connection) if is_excluded(t, self._exclude)]
            return tuple(sorted([*named, *unsyncable_tables(connection)]))

    def fingerprint(self) -> str:
        """See ports.Database."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            return fingerprint(connection)

    def reads(self, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
        """See ports.Database."""
        with self._connection() as connection:
            return plans.reads(connection, sql, staged)

    def plan(self, relation: Relation) -> QueryPlan:
        """See ports.Database."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            return plans.plan(connection, relation, lambda: plans.shell(connection))

    def asked(self, query: str, width: int) -> QueryPlan:
        """See ports.Database."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            return plans.asked(connection, query, width, lambda: plans.shell(connection))

    def examine(self) -> tuple[Check, ...]:
        """See ports.Database."""
        with self._connection() as connection:
            return examine(connection, self.name, self._exclude)

    @contextmanager
    def scratch(self, tables: Sequence[Table]) -> Iterator[SqliteScratch]:
        """See ports.Database."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            places = ", ".join(f"k{i}" for i in range(1, 17))
            connection.execute(f"CREATE TEMP TABLE dbsync_keys ({places})")
            for table in tables:
                columns = [(c.name, c.type, c.collation) for c in table.columns if not c.generated]
                connection.execute(migrations.scratch_statements(columns, table.name))
            yield SqliteScratch(connection)
        finally:
            connection.close()

    @contextmanager
    def shape_copy(self) -> Iterator[tuple[Any, Callable[[], Catalog]]]:
        """The same schema without rows, in memory: (SQLAlchemy connection, how to read its catalog)."""
        with migrations.shape_copy(self.path, self.name, self._exclude) as copy:
            yield copy

    # --- guard ---------------------------------------------------------------------------------

    def guard(self) -> Guard | None:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.read_guard(connection, self.path)

    def install(self, live: str, epoch: int = 1) -> tuple[str, ...]:
        """See ports.Database. Puts the file into WAL mode, in which readers and the writer do not block each other."""
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            with guards.immediate(connection, 5.0):
                created = create_tables(connection)
                present = guards.read_guard(connection, self.path, checked=False)
                if present is not None and present.name != self.name:
                    raise ConfigError(
                        f"{self.name}: {self.path} holds the guard of {present.name}: it is a copy of that database",
                        code="same-identity",
                        remedy="seed the idle side from a copy taken before `dbsync init`",
                    )
                if present is None or guards.moved(connection, self.path):
                    guards.new_guard(connection, self.path, self.name, live, epoch)
                    created.append("guard row")
                connection.execute("UPDATE dbsync_guard SET exempt = 1")
                if live != self.name:
                    park_triggers(connection, self._exclude)
                created += place_triggers(connection, self.name, self._exclude)
                connection.execute("UPDATE dbsync_guard SET exempt = 0")
        return tuple(created)

    def remove(self) -> tuple[str, ...]:
        """See ports.Database."""
        gone = []
        with self._connection() as connection, guards.immediate(connection, 5.0):
            if "dbsync_parked" in _names(connection):
                wake_triggers(connection)
            drop_triggers(connection)
            for name in TABLES:
                if name in _names(connection):
                    connection.execute(f"DROP TABLE {name}")
                    gone.append(name)
        for lock in self.path.parent.glob(f"{self.path.name}-dbsync-*.lock"):
            lock.unlink(missing_ok=True)
        return tuple(gone)

    def fence(self, epoch: int, owner: str, seconds: float, wait: float) -> Fenced:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.fence(connection, self.path, epoch, owner, seconds, wait)

    def lift(self, epoch: int) -> Guard:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.lift(connection, self.path, epoch, 5.0)

    def cede(self, fenced: Fenced, final: Position, fingerprint: str, to: str) -> Guard:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.cede(connection, self.path, fenced, final, fingerprint, to)

    def open(self, epoch: int, fingerprint: str | None = None) -> Guard:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.open_(connection, self.path, epoch, fingerprint, self._exclude)

    def close(self, epoch: int, checkpoint: Checkpoint) -> Guard:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.close(connection, self.path, epoch, checkpoint, self._exclude)

    def reopen(self, epoch: int) -> Guard:
        """See ports.Database."""
        with self._connection() as connection:
            return guards.reopen(connection, self.path, epoch)

    @contextmanager
    def lock(self, name: str, wait: float) -> Iterator[None]:
        """See ports.Database. flock dies with the process, however it ends."""
        handle = os.open(f"{self.path}-dbsync-{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            give_up = time.monotonic() + wait
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= give_up:
                        raise Refused(
                            f"{self.name}: another process is running {name}",
                            code=f"{name}-running",
                            remedy="wait for it, then run the command again",
                        ) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(handle)

    def round_trip(self) -> float:
        """See ports.Database."""
        with self._connection() as connection:
            began = time.perf_counter()
            with guards.immediate(connection, 5.0):
                connection.execute("UPDATE dbsync_guard SET exempt = 0")
            return time.perf_counter() - began

    def settled(self, wait: float) -> bool:
        """See ports.Database."""
        with self._connection() as connection:
            try:
                with guards.immediate(connection, wait):
                    return True
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                return False

    # --- rows ----------------------------------------------------------------------------------

    @contextmanager
    def view(self) -> Iterator[SqliteView]:
        """See ports.Database."""
        with self._connection() as connection:
            began = clock(connection)
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot begins at the first read
            yield SqliteView(connection, self.path, began)

    @contextmanager
    def writing(self, role: Role, epoch: int, wait: float = 5.0) -> Iterator[SqliteTransaction]:
        """See ports.Database."""
        with self._connection() as connection, guards.immediate(connection, wait):
            migrations.require_role(connection, self.path, self.name, role, epoch)
            connection.execute("UPDATE dbsync_guard SET exempt = 1")
            transaction = SqliteTransaction(connection, self.path, self.name, self._exclude)
            yield transaction
            transaction.finish()
            transaction.release()
            connection.execute("UPDATE dbsync_guard SET exempt = 0")

    def forget(self, epoch: int, kept: Sequence[Kept], keys: Sequence[Key]) -> None:
        """See ports.Database."""
        with self._connection() as connection:
            keeping.forget(connection, self.path, epoch, kept, keys)

    @contextmanager
    def migrating(self, role: Role, epoch: int) -> Iterator[Any]:
        """See ports.Database."""
        made = migrations.migrating(self.path, self.name, self._exclude, role, epoch)
        with translated(self.name), made as connection:
            yield connection

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """See ports.Database."""
        with self._connection() as connection, guards.immediate(connection, 5.0):
            save_document(connection, kind, name, document)

    def record(self, fact: Fact) -> None:
        """See ports.Database."""
        with self._connection() as connection, guards.immediate(connection, 5.0):
            connection.execute(
                "INSERT INTO dbsync_journal (at, epoch, owner, kind, data) VALUES (?, ?, ?, ?, ?)",
                (fact.at.isoformat(), fact.epoch, fact.owner, fact.kind, json.dumps(dict(fact.data))),
            )

    def journal(self, limit: int | None = None) -> list[Fact]:
        """See ports.Database."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT at, epoch, owner, kind, data FROM dbsync_journal ORDER BY id DESC LIMIT ?",
                (-1 if limit is None else limit,),
            ).fetchall()
        return [
            Fact(kind, datetime.fromisoformat(at), epoch, owner, json.loads(data), self.name)
            for at, epoch, owner, kind, data in reversed(rows)
        ]

    def prune(self, below: Position) -> int:
        """See ports.Database. The change at `below` itself stays: it proves that the past is still the same."""
        gone = 0
        with self._connection() as connection:
            number = SqliteView(connection, self.path).number(below)
            while True:
                with guards.immediate(connection, 5.0):
                    step = connection.execute(
                        "DELETE FROM dbsync_changes WHERE seq IN"
                        " (SELECT seq FROM dbsync_changes WHERE seq < ? ORDER BY seq LIMIT 2000)",
                        (number,),
                    ).rowcount
                gone += step
                if step < 2000:
                    return gone


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
