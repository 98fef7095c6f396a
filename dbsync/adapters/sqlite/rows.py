"""Rows of a SQLite file: consistent reads, key ranges and key lists, and dbsync's own writing transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbsync.adapters.sqlite import keeping, loading, mapping
from dbsync.adapters.sqlite.catalog import has_table, read_revision
from dbsync.adapters.sqlite.connection import quoted
from dbsync.adapters.sqlite.guard import live_sequences, position, read_guard
from dbsync.adapters.sqlite.objects import NOW
from dbsync.adapters.sqlite.staging import Staging
from dbsync.errors import ConfigError, PositionLost
from dbsync.model import Changes, Checkpoint, Extracted, Guard, Key, Lag, Position, Relation, Row, Touched


class SqliteRows:
    """Relations over one connection, by key list and by key range."""

    steady = False
    """Whether nothing that is read changes as long as this lives."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._staging = Staging(connection, self, self.steady)

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See ports.Rows. The key list drives the join, so the query's own index is used for each key."""
        if relation.staged:
            return self._staging.by_keys(relation, keys)
        known = mapping.lead(relation)
        self._fill_keys(keys if known == len(relation.key) else [key[:known] for key in keys])
        cursor = self._run(keyed(relation), ())
        if known < len(relation.key):
            return list(dict.fromkeys(mapping.at_keys(relation, mapping.mapped(relation, cursor), keys)))
        # Two listed keys may name one row (a case-insensitive key): the same row twice is one row.
        return list(dict.fromkeys(self._mapped(relation, cursor)))

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See ports.Rows. A bound may be the beginning of a key, too: then it stands for every key that begins so."""
        if relation.staged:
            return self._staging.by_range(relation, after, upto, limit)
        terms: list[str] = []
        values: list[Any] = []
        known = mapping.lead(relation)
        names = ", ".join(f"q.{quoted(name)}" for name in relation.key[:known])
        # A bound may lie between the rows that a callable makes of one: that one is read, and they are cut after.
        low = ">" if known == len(relation.key) else ">="
        for bound, sign in ((after, low), (upto, "<=")):
            if bound is not None:
                bounded = [f"q.{quoted(name)}" for name in relation.key[: min(known, len(bound))]]
                terms.append(f"({', '.join(bounded)}) {sign} ({', '.join('?' for _ in bounded)})")
                values.extend(bound[: len(bounded)])
        where = f" WHERE {' AND '.join(terms)}" if terms else ""
        cut = "" if limit is None or relation.row is not None else f" LIMIT {int(limit)}"
        sql = f"SELECT {_selected(relation)} FROM ({relation.sql}) AS q{where} ORDER BY {names}{cut}"
        cursor = self._run(sql, values)
        if relation.row is None:
            return cursor.fetchall()
        try:  # a callable may make no row of one, so the query cannot know where `limit` rows end
            return mapping.between(relation, mapping.mapped(relation, cursor), after, upto, limit)
        finally:
            cursor.close()

    def count(self, relation: Relation) -> int:
        """See ports.Rows."""
        relation = self._staging.fill_all(relation)
        if relation.row is not None:
            cursor = self._run(f"SELECT q.* FROM ({relation.sql}) AS q", ())
            return sum(1 for _ in mapping.mapped(relation, cursor))
        return int(self._run(f"SELECT count(*) FROM ({relation.sql})", ()).fetchone()[0])

    def release(self) -> None:
        """Drop the private tables that relations had it fill."""
        self._staging.release()

    def key_query(self, sql: str, keys: Sequence[Key]) -> list[Key]:
        """See ports.Rows."""
        if not keys:
            return []
        self._fill_keys(keys)
        return [tuple(row) for row in self._run(sql.replace(":keys", listed(len(keys[0]))), ())]

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
        return cursor.fetchall() if relation.row is None else list(mapping.mapped(relation, cursor))


def listed(width: int) -> str:
    """What `:keys` stands for in a key query: the key list of this connection."""
    return f"SELECT {', '.join(f'k{i}' for i in range(1, width + 1))} FROM temp.dbsync_keys"


def keyed(relation: Relation) -> str:
    """The relation restricted by the key list of this connection."""
    known = relation.key[: mapping.lead(relation)]
    match = " AND ".join(f"q.{quoted(name)} = k.k{i}" for i, name in enumerate(known, 1))
    return f"SELECT {_selected(relation)} FROM temp.dbsync_keys AS k CROSS JOIN ({relation.sql}) AS q ON {match}"


def _selected(relation: Relation) -> str:
    if relation.row is not None:
        return "q.*"
    return ", ".join(f"q.{quoted(name)}" for name in relation.columns)


class SqliteView(SqliteRows):
    """A consistent read of one file; lives inside a transaction that somebody else began, not before `began`."""

    steady = True

    def __init__(self, connection: sqlite3.Connection, path: Path, began: datetime | None = None) -> None:
        super().__init__(connection)
        self._path = path
        self._began = began

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See ports.Rows."""
        return keeping.with_kept(self._connection, relation, super().by_keys(relation, keys), self._fill_keys)

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See ports.Rows."""
        rows = super().by_range(relation, after, upto, limit)
        return keeping.with_kept(self._connection, relation, rows, self._fill_keys)

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

    def kept(self) -> dict[tuple[str, str], int]:
        """See ports.View."""
        return keeping.kept(self._connection)

    def now(self) -> datetime:
        """See ports.View. With a clock read after the snapshot, a row committed in between would never be extracted."""
        return self._began or loading.clock(self._connection)

    def extract(self, sql: str, parameters: Mapping[str, Any], size: int) -> Iterator[Extracted]:
        """See ports.View."""
        self._fill_keys(parameters.get("keys") or ())
        return loading.extract(self._connection, sql, parameters, size)

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
