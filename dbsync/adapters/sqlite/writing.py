"""dbsync's own writing transaction on a SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dbsync.adapters.sqlite import keeping, loading
from dbsync.adapters.sqlite.catalog import read_table
from dbsync.adapters.sqlite.connection import quoted
from dbsync.adapters.sqlite.guard import carry, write_checkpoint
from dbsync.adapters.sqlite.objects import drop_triggers, place_triggers
from dbsync.adapters.sqlite.rows import SqliteView
from dbsync.adapters.sqlite.uniques import unique_conditions
from dbsync.errors import Refused
from dbsync.model import Key, Loaded, Position, Row, Table


class SqliteTransaction(SqliteView):
    """See ports.Transaction. foreign_keys is OFF and user triggers are parked, so nothing cascades.

    A row that stands in the way of another one's unique value is parked: taken out, and expected to be put
    or deleted before the commit.
    """

    steady = False

    def __init__(self, connection: sqlite3.Connection, path: Path, name: str, exclude: tuple[str, ...]) -> None:
        super().__init__(connection, path)
        self._name = name
        self._exclude = exclude
        self._tables: dict[str, Table] = {}
        self._parked: dict[tuple[str, Key], dict[str, Any]] = {}
        self._asleep: set[str] = set()

    def upsert(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], keep: frozenset[str] = frozenset()
    ) -> None:
        """See ports.Transaction."""
        if not rows:
            return
        sql = self._upsert_sql(table, columns, keep)
        if self._takes_at_once(table, columns):
            self._connection.execute("SAVEPOINT dbsync_put")
            try:
                self._connection.executemany(sql, rows)
            except sqlite3.IntegrityError:
                self._connection.execute("ROLLBACK TO dbsync_put")
            else:
                self._connection.execute("RELEASE dbsync_put")
                return
            self._connection.execute("RELEASE dbsync_put")
        for row in rows:
            self._put_one(table, dict(zip(columns, row, strict=True)), keep)

    def _takes_at_once(self, table: str, columns: Sequence[str]) -> bool:
        """Whether ON CONFLICT serves: SQLite checks NOT NULL first, also of columns that an update leaves alone."""
        if any(name == table for name, _ in self._parked):
            return False
        named = {name.casefold() for name in columns}
        return all(c.fills_itself or c.name.casefold() in named for c in self._shape(table).columns)

    def _upsert_sql(self, table: str, columns: Sequence[str], keep: frozenset[str]) -> str:
        shape = self._shape(table)
        names = ", ".join(quoted(c) for c in columns)
        marks = ", ".join("?" for _ in columns)
        # A key that differs only in case is the same key: its columns are set too.
        keyed = {c.name for c in shape.columns if c.key and not c.collation}
        moved = [c for c in columns if c not in keyed and c not in keep]
        action = "UPDATE SET " + ", ".join(f"{quoted(c)} = excluded.{quoted(c)}" for c in moved) if moved else "NOTHING"
        target = ", ".join(quoted(c) for c in shape.key)
        return f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks}) ON CONFLICT ({target}) DO {action}"

    def _put_one(self, table: str, given: dict[str, Any], keep: frozenset[str]) -> None:
        """Update or insert one row; rows that hold its unique values are parked first."""
        shape = self._shape(table)
        key = tuple(given[c] for c in shape.key)
        was = self._parked.pop((table, key), None)
        there = None if was is not None else self._stored(shape, key)
        before = was or there
        full = before | {c: v for c, v in given.items() if c not in keep} if before else given
        try:
            self._park_holders(shape, full, key)
            if there is not None:
                moved = [c for c in full if c not in shape.key or full[c] != there[c]]
                sets = ", ".join(f"{quoted(c)} = ?" for c in moved)
                match = " AND ".join(f"{quoted(c)} = ?" for c in shape.key)
                values = [full[c] for c in moved] + list(key)
                if moved:
                    self._connection.execute(f"UPDATE {quoted(table)} SET {sets} WHERE {match}", values)
                return
            names, marks = ", ".join(map(quoted, full)), ", ".join("?" for _ in full)
            self._connection.execute(f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})", tuple(full.values()))
        except sqlite3.IntegrityError as error:
            raise self._refused(table, key, str(error)) from error

    def _stored(self, shape: Table, key: Key) -> dict[str, Any] | None:
        names = ", ".join(quoted(c) for c in shape.stored)
        match = " AND ".join(f"{quoted(c)} = ?" for c in shape.key)
        row = self._connection.execute(f"SELECT {names} FROM {quoted(shape.name)} WHERE {match}", key).fetchone()
        return dict(zip(shape.stored, row, strict=True)) if row else None

    def _park_holders(self, shape: Table, full: Mapping[str, Any], key: Key) -> None:
        conditions = unique_conditions(self._connection, shape, "v", "g", exact=True)
        if not conditions:
            return
        place = f"temp.{quoted('dbsync_row_' + shape.name)}"
        self._connection.execute(
            f"CREATE TEMP TABLE IF NOT EXISTS {place[5:]} AS SELECT * FROM main.{quoted(shape.name)} WHERE 0"
        )
        self._connection.execute(f"DELETE FROM {place}")
        names, marks = ", ".join(map(quoted, full)), ", ".join("?" for _ in full)
        self._connection.execute(f"INSERT INTO {place} ({names}) VALUES ({marks})", tuple(full.values()))
        stored = ", ".join(f"v.{quoted(c)}" for c in shape.stored)
        other = " OR ".join(f"v.{quoted(c)} IS NOT ?" for c in shape.key)
        holders = self._connection.execute(
            f"SELECT {stored} FROM {quoted(shape.name)} AS v, {place} AS g"
            f" WHERE ({' OR '.join(f'({c})' for c in conditions)}) AND ({other})",
            key,
        ).fetchall()
        for holder in holders:
            parked = dict(zip(shape.stored, holder, strict=True))
            holder_key = tuple(parked[c] for c in shape.key)
            self._delete(shape.name, [holder_key])
            self._parked[(shape.name, holder_key)] = parked

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See ports.Transaction. A row that is replaced here is stale: the window that follows puts it again."""
        names = ", ".join(quoted(c) for c in columns)
        marks = ", ".join("?" for _ in columns)
        values = f"INTO {quoted(table)} ({names}) VALUES ({marks})"
        self._connection.execute("SAVEPOINT dbsync_insert")
        try:
            self._connection.executemany(f"INSERT {values}", rows)
        except sqlite3.IntegrityError as error:
            self._connection.execute("ROLLBACK TO dbsync_insert")
            if "UNIQUE" not in str(error):
                raise self._refused(table, (), str(error)) from error
            try:
                self._connection.executemany(f"INSERT OR REPLACE {values}", rows)
            except sqlite3.IntegrityError as worse:
                raise self._refused(table, (), str(worse)) from worse
        self._connection.execute("RELEASE dbsync_insert")

    def delete(self, table: str, keys: Sequence[Key]) -> None:
        """See ports.Transaction."""
        for key in keys:
            self._parked.pop((table, key), None)
        self._delete(table, keys)

    def _delete(self, table: str, keys: Sequence[Key]) -> None:
        match = " AND ".join(f"{quoted(c)} = ?" for c in self._shape(table).key)
        self._connection.executemany(f"DELETE FROM {quoted(table)} WHERE {match}", keys)

    def load_rows(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], key: Sequence[str], mode: str
    ) -> Loaded:
        """See ports.Transaction."""
        shape = loading.shape_of(self._connection, table)
        return loading.load_rows(self._connection, shape, columns, rows, key, mode)

    def clear(self, table: str) -> None:
        """See ports.Transaction."""
        loading.clear(self._connection, loading.shape_of(self._connection, table))

    def set_checkpoint(self, source: str, position: Position, expected: Position | None) -> None:
        """See ports.Transaction."""
        present = self.checkpoint()
        if (present.position if present else None) != expected:
            raise Refused(
                "another applier has moved the checkpoint", code="checkpoint-moved", remedy="run the command again"
            )
        write_checkpoint(self._connection, source, position)

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """See ports.Transaction."""
        save_document(self._connection, kind, name, document)

    def keep(self, table: str, column: str, rows: Sequence[tuple[Key, Any, Any]], gone: Sequence[Key] = ()) -> None:
        """See ports.Transaction."""
        keeping.keep(self._connection, table, column, rows, gone)

    def quiet_capture(self, table: str) -> None:
        """See ports.Transaction. Nobody else can write meanwhile: the triggers are dropped until the commit."""
        if table not in self._asleep:
            drop_triggers(self._connection, table)
            self._asleep.add(table)

    def carry_sequences(self, values: Mapping[str, int]) -> None:
        """See ports.Transaction."""
        carry(self._connection, dict(values), self._exclude)

    def finish(self) -> None:
        """What must hold before the commit: nothing left parked, capture awake. Raises Refused (`row-refused`)."""
        for table, key in self._parked:
            raise self._refused(table, key, "another row holds one of its unique values")
        for table in self._asleep:
            place_triggers(self._connection, self._name, self._exclude, table)

    def _shape(self, table: str) -> Table:
        if table not in self._tables:
            self._tables[table] = read_table(self._connection, table)
        return self._tables[table]

    def _refused(self, table: str, key: Key, cause: str) -> Refused:
        where = f" at key {key!r}" if key else ""
        return Refused(
            f"{self._name} does not take a row of {table}{where}: {cause}",
            code="row-refused",
            remedy="mend the row or the crossing, then `dbsync sync`",
        )


def save_document(connection: sqlite3.Connection, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
    """Store or delete one document of dbsync's own."""
    if document is None:
        connection.execute("DELETE FROM dbsync_documents WHERE kind = ? AND name = ?", (kind, name))
        return
    text = json.dumps(dict(document), ensure_ascii=False, sort_keys=True)
    connection.execute(
        "INSERT OR REPLACE INTO dbsync_documents (kind, name, document) VALUES (?, ?, ?)", (kind, name, text)
    )
