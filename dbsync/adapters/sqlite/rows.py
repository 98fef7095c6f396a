"""Rows of a SQLite file: consistent reads, key ranges and key lists, and dbsync's own writing transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbsync.adapters.sqlite.catalog import has_table, read_revision
from dbsync.adapters.sqlite.connection import quoted
from dbsync.adapters.sqlite.guard import live_sequences, position, read_guard
from dbsync.adapters.sqlite.objects import NOW
from dbsync.errors import ConfigError, PositionLost
from dbsync.model import Changes, Checkpoint, Guard, Key, Lag, Position, Relation, Row, Touched


class SqliteRows:
    """Relations over one connection, by key list and by key range."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See ports.Rows. The key list drives the join, so the query's own index is used for each key."""
        self._fill_keys(keys)
        match = " AND ".join(f"q.{quoted(name)} = k.k{i}" for i, name in enumerate(relation.key, 1))
        sql = f"SELECT {_selected(relation)} FROM temp.dbsync_keys AS k CROSS JOIN ({relation.sql}) AS q ON {match}"
        # Two listed keys may name one row (a case-insensitive key): the same row twice is one row.
        return list(dict.fromkeys(self._mapped(relation, self._run(sql, ()))))

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See ports.Rows."""
        terms: list[str] = []
        values: list[Any] = []
        names = ", ".join(f"q.{quoted(name)}" for name in relation.key)
        marks = ", ".join("?" for _ in relation.key)
        for bound, sign in ((after, ">"), (upto, "<=")):
            if bound is not None:
                terms.append(f"({names}) {sign} ({marks})")
                values.extend(bound)
        where = f" WHERE {' AND '.join(terms)}" if terms else ""
        cut = "" if limit is None else f" LIMIT {int(limit)}"
        sql = f"SELECT {_selected(relation)} FROM ({relation.sql}) AS q{where} ORDER BY {names}{cut}"
        return self._mapped(relation, self._run(sql, values))

    def count(self, relation: Relation) -> int:
        """See ports.Rows."""
        return int(self._run(f"SELECT count(*) FROM ({relation.sql})", ()).fetchone()[0])

    def key_query(self, sql: str, keys: Sequence[Key]) -> list[Key]:
        """See ports.Rows."""
        self._fill_keys(keys)
        return [tuple(row) for row in self._run(sql.replace(":keys", "SELECT k1 FROM temp.dbsync_keys"), ())]

    def _fill_keys(self, keys: Sequence[Key]) -> None:
        self._connection.execute("DELETE FROM temp.dbsync_keys")
        if keys:
            places = ", ".join(f"k{i}" for i in range(1, len(keys[0]) + 1))
            marks = ", ".join("?" for _ in keys[0])
            self._connection.executemany(f"INSERT INTO temp.dbsync_keys ({places}) VALUES ({marks})", set(keys))

    def _run(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.OperationalError as error:
            text = str(error)
            if text.startswith(("no such column", "no such table", "near ", "ambiguous column", "no such function")):
                raise ConfigError(
                    f"a crossing's query does not run: {text}", code="broken-crossing", remedy="correct its SELECT"
                ) from error
            raise

    def _mapped(self, relation: Relation, cursor: sqlite3.Cursor) -> list[Row]:
        if relation.row is None:
            return cursor.fetchall()
        names = [part[0] for part in cursor.description]
        rows: list[Row] = []
        for values in cursor:
            made = relation.row(dict(zip(names, values, strict=True)))
            for one in [made] if isinstance(made, Mapping) else made or []:
                rows.append(tuple(one.get(c) for c in relation.columns))  # noqa: PERF401
        return rows


def _selected(relation: Relation) -> str:
    if relation.row is not None:
        return "q.*"
    return ", ".join(f"q.{quoted(name)}" for name in relation.columns)


class SqliteView(SqliteRows):
    """A consistent read of one file; lives inside a transaction that somebody else began."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection)
        self._path = path

    def position(self) -> Position:
        """See ports.View."""
        return position(self._connection)

    def guard(self) -> Guard | None:
        """See ports.View."""
        return read_guard(self._connection, self._path)

    def revision(self) -> str | None:
        """See ports.View."""
        return read_revision(self._connection)

    def checkpoint(self) -> Checkpoint | None:
        """See ports.View."""
        row = self._connection.execute("SELECT source, position, at FROM dbsync_checkpoint").fetchone()
        return Checkpoint(row[0], Position(row[1]), datetime.fromtimestamp(row[2], UTC)) if row else None

    def changes(self, since: Position, limit: int | None = None) -> Changes:
        """See ports.View. One writer at a time: numbers are in the order of the commits."""
        first = self.number(since)
        last = int(str(self.position()).split(".")[0])
        if limit is not None:
            last = min(last, first + limit)
        span = (first, last)
        count, foreign = self._connection.execute(
            "SELECT count(*), coalesce(sum(mine = 0), 0) FROM dbsync_changes WHERE seq > ? AND seq <= ?", span
        ).fetchone()
        (nonce,) = self._connection.execute("SELECT nonce FROM dbsync_changes WHERE seq = ?", (last,)).fetchone()
        return Changes(since, Position(f"{last}.{nonce}"), self._touched(span) if count else (), count, foreign)

    def _touched(self, span: tuple[int, int]) -> tuple[Touched, ...]:
        names = {
            number: (name, arity)
            for number, name, arity in self._connection.execute("SELECT id, name, arity FROM dbsync_tables")
        }
        touched = []
        tables = self._connection.execute(
            "SELECT tab, max(whole) FROM dbsync_changes WHERE seq > ? AND seq <= ? AND tab > 0 GROUP BY tab", span
        ).fetchall()
        for number, whole in tables:
            name, arity = names[number]
            places = ", ".join(f"k{i}" for i in range(1, arity + 1)) or "NULL"
            rows = self._connection.execute(
                f"SELECT max(born), {places} FROM dbsync_changes WHERE seq > ? AND seq <= ? AND tab = ? AND whole = 0"
                f" GROUP BY {places}",
                (*span, number),
            ).fetchall()
            born = frozenset(row[1:] for row in rows if row[0])
            touched.append(Touched(name, tuple(row[1:] for row in rows), bool(whole), born))
        return tuple(touched)

    def lag(self, since: Position) -> Lag:
        """See ports.View."""
        first = self.number(since)
        count, age = self._connection.execute(
            f"SELECT count(*), {NOW} - min(at) FROM dbsync_changes WHERE seq > ?", (first,)
        ).fetchone()
        return Lag(count, max(0.0, age or 0.0))

    def number(self, since: Position) -> int:
        """The change at a position. Raises PositionLost as `changes` does."""
        number, _, nonce = str(since).partition(".")
        if not number.isdecimal():
            raise PositionLost(f"{since!r} is no position of this database", remedy="dbsync sync --snapshot")
        row = self._connection.execute("SELECT nonce FROM dbsync_changes WHERE seq = ?", (int(number),)).fetchone()
        if row is not None and str(row[0]) == nonce:
            return int(number)
        (lowest,) = self._connection.execute("SELECT min(seq) FROM dbsync_changes").fetchone()
        if row is None and lowest is not None and int(number) < lowest:
            raise PositionLost(
                "the recorded changes no longer reach back to the checkpoint",
                remedy="dbsync sync --snapshot",
            )
        raise PositionLost(
            f"{self._path} has another past than the one that was followed: it was restored or replaced",
            code="source-restored",
            remedy="dbsync sync --snapshot",
        )

    def load(self, kind: str, name: str) -> dict[str, Any] | None:
        """See ports.View. ("sequences", "live") answers with the identity counters as they stand."""
        if (kind, name) == ("sequences", "live"):
            return dict(live_sequences(self._connection))
        row = self._connection.execute(
            "SELECT document FROM dbsync_documents WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return dict(json.loads(row[0])) if row else None

    def load_all(self, kind: str) -> dict[str, dict[str, Any]]:
        """See ports.View."""
        if not has_table(self._connection, "dbsync_documents"):
            return {}
        rows = self._connection.execute("SELECT name, document FROM dbsync_documents WHERE kind = ?", (kind,))
        return {name: json.loads(document) for name, document in rows}


class SqliteScratch(SqliteRows):
    """A private database in memory with some tables' columns and types, and nothing else of theirs."""

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """See ports.Scratch."""
        names = ", ".join(quoted(c) for c in columns)
        marks = ", ".join("?" for _ in columns)
        self._connection.executemany(f"INSERT INTO {quoted(table)} ({names}) VALUES ({marks})", rows)


def batches(rows: Sequence[Row], size: int = 5_000) -> Iterator[Sequence[Row]]:
    """Slices of at most `size` rows."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
