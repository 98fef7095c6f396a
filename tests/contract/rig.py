"""Two databases of one kind, and the application that writes to them past dbsync."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dbsync.adapters.memory import FakeClock, MemoryDatabase
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.errors import Refused
from dbsync.model import Changes, Column, ForeignKey, Guard, Key, Position, Relation, Role, Row, Table, Value
from dbsync.ports import Database

SHAPES = {
    "customer": "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE,"
    " vip INTEGER NOT NULL DEFAULT 0, note TEXT DEFAULT 'none')",
    "line": "CREATE TABLE line (doc INTEGER NOT NULL, no INTEGER NOT NULL, price REAL, PRIMARY KEY (no, doc))",
    "country": "CREATE TABLE country (code TEXT NOT NULL PRIMARY KEY, name TEXT)",
    "file": "CREATE TABLE file (hash BLOB NOT NULL PRIMARY KEY, body BLOB)",
    "Straße der Größe": 'CREATE TABLE "Straße der Größe" ("die Nr." INTEGER PRIMARY KEY, "Größe in m" REAL,'
    ' "a""b" TEXT)',
    "person": "CREATE TABLE person (id INTEGER PRIMARY KEY, boss INTEGER REFERENCES person (id) ON DELETE CASCADE)",
    "hen": "CREATE TABLE hen (id INTEGER PRIMARY KEY, egg INTEGER REFERENCES egg (id) ON DELETE CASCADE)",
    "egg": "CREATE TABLE egg (id INTEGER PRIMARY KEY, hen INTEGER REFERENCES hen (id) ON DELETE CASCADE)",
    "tag": "CREATE TABLE tag (word TEXT NOT NULL, lang TEXT NOT NULL, uses INTEGER, PRIMARY KEY (word, lang))"
    " WITHOUT ROWID",
    "ticket": "CREATE TABLE ticket (id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT)",
    "seat": "CREATE TABLE seat (id INTEGER PRIMARY KEY, hall INTEGER NOT NULL, place INTEGER NOT NULL,"
    " UNIQUE (hall, place))",
}
"""The tables of the suite: integer, composite (in another order than the columns), text and blob keys, blanks and
letters beyond ASCII in names, a self reference, a cycle, unique columns, WITHOUT ROWID, AUTOINCREMENT."""


SAMPLES: dict[str, list[Row]] = {
    "customer": [(1, "Ana", "a@x", 0, "none"), (2, "Bob", None, 1, None), (-5, "Cy", None, 0, "x")],
    "line": [(1, 10, 2.5), (2, 3, None), (3, 3, 0.0)],
    "country": [("SI", "Slovenija"), ("", "nowhere"), ("Ž", None), ("a", "lower"), ("B", "upper")],
    "file": [(b"\x00\xff", b""), (b"", b"\x00"), (b"\x01", None)],
    "Straße der Größe": [(1, 1.5, 'say "x"'), (2, None, "日本")],
    "person": [(1, None), (2, 1)],
    "hen": [(1, None)],
    "egg": [(1, None)],
    "tag": [("sun", "en", 3), ("sol", "es", None), ("sun", "de", 1)],
    "ticket": [(1, "first"), (100, None)],
    "seat": [(1, 1, 1), (2, 1, 2)],
}
"""Rows for each of them."""


class Writer(Protocol):
    """What the application does, alone or inside its transaction."""

    def put(self, table: str, row: Mapping[str, Value]) -> None: ...
    def delete(self, table: str, key: Key) -> None: ...
    def rekey(self, table: str, key: Key, new: Key) -> None: ...


class Side(Writer, Protocol):
    """One database and its application."""

    db: Database
    shapes: Mapping[str, Table]

    def transaction(self) -> Any: ...
    def refuses(self, table: str, row: Mapping[str, Value]) -> str | None: ...
    def disturb_guard(self) -> None: ...


def table_of(ddl: str) -> Table:
    """The Table that a CREATE TABLE makes, read without the adapter under test."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(ddl)
        (name,) = connection.execute("SELECT name FROM sqlite_master WHERE sql = ?", (ddl,)).fetchone()
        columns = tuple(
            Column(column, declared, not notnull and not key, default, key)
            for _, column, declared, notnull, default, key, _ in connection.execute(
                "SELECT * FROM pragma_table_xinfo(?)", (name,)
            )
        )
        uniques = tuple(
            tuple(row[0] for row in connection.execute("SELECT name FROM pragma_index_info(?)", (index,)))
            for _, index, unique, origin, _ in connection.execute("SELECT * FROM pragma_index_list(?)", (name,))
            if unique and origin != "pk"
        )
        foreign = tuple(
            ForeignKey((row[3],), row[2], (row[4],))
            for row in connection.execute("SELECT * FROM pragma_foreign_key_list(?)", (name,))
        )
        return Table(name, columns, uniques, foreign, ddl)
    finally:
        connection.close()


def quoted(name: str) -> str:
    """A name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def by_name(table: Table, columns: Sequence[str] = ()) -> Relation:
    """The table as it is, or some of its columns, key columns first named by the key's order."""
    names = tuple(columns) or table.stored
    sql = f"SELECT {', '.join(quoted(name) for name in names)} FROM {quoted(table.name)}"
    return Relation(table.name, names, table.key, sql)


class MemorySide:
    """The twin."""

    def __init__(self, name: str, shapes: Mapping[str, Table], clock: FakeClock) -> None:
        self.shapes = shapes
        self.db = MemoryDatabase(name, tuple(shapes.values()), clock=clock)

    def put(self, table: str, row: Mapping[str, Value]) -> None:
        self.db.application.execute_put(table, row)

    def delete(self, table: str, key: Key) -> None:
        self.db.application.delete(table, key)

    def rekey(self, table: str, key: Key, new: Key) -> None:
        self.db.application.rekey(table, key, new)

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        with self.db.application.transaction() as inner:
            inner.put = inner.execute_put  # type: ignore[attr-defined]
            yield inner  # type: ignore[misc]

    def refuses(self, table: str, row: Mapping[str, Value]) -> str | None:
        try:
            self.put(table, row)
        except Refused as refused:
            return refused.message if refused.code == "not-active" else f"{refused.code}: {refused.message}"
        return None

    def disturb_guard(self) -> None:
        self.db.disturb()


class SqliteWriter:
    """Plain sqlite3, as an application has it."""

    def __init__(self, connection: sqlite3.Connection, shapes: Mapping[str, Table]) -> None:
        self.connection = connection
        self.shapes = shapes

    def put(self, table: str, row: Mapping[str, Value]) -> None:
        key = self.shapes[table].key
        names = ", ".join(quoted(name) for name in row)
        places = ", ".join("?" for _ in row)
        rest = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in row if name not in key)
        action = f"DO UPDATE SET {rest}" if rest else "DO NOTHING"
        self.connection.execute(
            f"INSERT INTO {quoted(table)} ({names}) VALUES ({places})"
            f" ON CONFLICT ({', '.join(quoted(name) for name in key)}) {action}",
            tuple(row.values()),
        )

    def delete(self, table: str, key: Key) -> None:
        self.connection.execute(f"DELETE FROM {quoted(table)} WHERE {self._at(table)}", key)

    def rekey(self, table: str, key: Key, new: Key) -> None:
        names = ", ".join(f"{quoted(name)} = ?" for name in self.shapes[table].key)
        self.connection.execute(f"UPDATE {quoted(table)} SET {names} WHERE {self._at(table)}", (*new, *key))

    def _at(self, table: str) -> str:
        return " AND ".join(f"{quoted(name)} = ?" for name in self.shapes[table].key)


class SqliteSide:
    """A file, and an application that knows nothing of dbsync."""

    def __init__(self, name: str, shapes: Mapping[str, Table], folder: Path) -> None:
        self.shapes = shapes
        self.path = folder / f"{name}.db"
        with self.connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for shape in shapes.values():
                connection.execute(shape.ddl)
        self.db: Database = SqliteDatabase(name, f"sqlite:///{self.path}")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=2.0)
        try:
            yield connection
        finally:
            connection.close()

    def put(self, table: str, row: Mapping[str, Value]) -> None:
        with self.connection() as connection:
            SqliteWriter(connection, self.shapes).put(table, row)

    def delete(self, table: str, key: Key) -> None:
        with self.connection() as connection:
            SqliteWriter(connection, self.shapes).delete(table, key)

    def rekey(self, table: str, key: Key, new: Key) -> None:
        with self.connection() as connection:
            SqliteWriter(connection, self.shapes).rekey(table, key, new)

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield SqliteWriter(connection, self.shapes)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def refuses(self, table: str, row: Mapping[str, Value]) -> str | None:
        try:
            self.put(table, row)
        except sqlite3.IntegrityError as refused:
            return str(refused)
        return None

    def disturb_guard(self) -> None:
        with self.connection() as connection:
            name, sql = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'dbsync%' LIMIT 1"
            ).fetchone()
            connection.execute(f"DROP TRIGGER {quoted(name)}")
            connection.execute(sql)


class Rig:
    """Blue and green of one kind. `pair` installs dbsync in both, blue live, and puts some rows into blue."""

    def __init__(self, kind: str, folder: Path, names: Sequence[str] = tuple(SHAPES)) -> None:
        self.kind = kind
        shapes = {name: table_of(SHAPES[name]) for name in names}
        self.shapes = shapes
        self.clock = FakeClock()
        self.blue, self.green = (self._side(name, folder) for name in ("blue", "green"))

    def _side(self, name: str, folder: Path) -> Any:
        if self.kind == "memory":
            return MemorySide(name, self.shapes, self.clock)
        return SqliteSide(name, self.shapes, folder)

    def install(self) -> Rig:
        """Put dbsync into both, blue live, at epoch 1."""
        for side in (self.blue, self.green):
            side.db.install("blue")
        return self

    def dispose(self) -> None:
        """Let go of both."""
        self.blue.db.dispose()
        self.green.db.dispose()

    def pass_time(self, seconds: float) -> None:
        """Let time pass where it can be told to; a real database's clock goes on by itself."""
        self.clock.advance(seconds)

    def rows(self, side: Side, table: str) -> list[Row]:
        """The rows of a table, by key."""
        with side.db.view() as view:
            return view.by_range(by_name(self.shapes[table]), None, None)

    def fill(self, side: Side, table: str, rows: Sequence[Row], role: Role = Role.IDLE, epoch: int = 1) -> None:
        """Write rows as dbsync's own."""
        with side.db.writing(role, epoch) as transaction:
            transaction.upsert(table, self.shapes[table].stored, rows)


def guard_of(side: Side) -> Guard:
    """The guard row, which must be there."""
    guard = side.db.guard()
    assert guard is not None
    return guard


def position(db: Database) -> Position:
    """How far a history goes."""
    with db.view() as view:
        return view.position()


def changes(db: Database, since: Position, limit: int | None = None) -> Changes:
    """What changed after a position."""
    with db.view() as view:
        return view.changes(since, limit)


def touched(found: Changes) -> dict[str, set[Key]]:
    """The changed keys by table."""
    return {table.table: set(table.keys) for table in found.tables}
