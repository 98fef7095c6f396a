"""The side table of a SQLite file: values that its shape cannot hold, beside the rows that they belong to.

Nothing of it is captured, and no user's table is touched: a value comes to light only in a relation that says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dbsync.adapters.sqlite.catalog import has_table
from dbsync.adapters.sqlite.guard import immediate, read_guard
from dbsync.errors import Refused
from dbsync.model import GuardState, Kept, Key, Relation, Row, Value

TABLE = "dbsync_kept"


def with_kept(
    connection: sqlite3.Connection, relation: Relation, rows: list[Row], fill_keys: Callable[[Sequence[Key]], None]
) -> list[Row]:
    """The rows with what is kept for them. `fill_keys` fills the connection's key list."""
    for kept in relation.kept:
        if rows and kept.column in relation.columns and set(kept.key) <= set(relation.columns):
            rows = _with(connection, kept, relation.columns, rows, fill_keys)
    return rows


def kept(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """See ports.View."""
    if not has_table(connection, TABLE):
        return {}
    rows = connection.execute(f"SELECT tab, col, count(*) FROM {TABLE} GROUP BY tab, col")
    return {(table, column): count for table, column, count in rows}


def keep(
    connection: sqlite3.Connection,
    table: str,
    column: str,
    rows: Sequence[tuple[Key, Value, Value]],
    gone: Sequence[Key] = (),
) -> None:
    """See ports.Transaction."""
    with _told():
        if gone:
            match = " AND ".join(f"k{i} = ?" for i in range(1, len(gone[0]) + 1))
            sql = f"DELETE FROM {TABLE} WHERE tab = ? AND col = ? AND {match}"
            connection.executemany(sql, [(table, column, *key) for key in gone])
        if rows:
            places = ", ".join(f"k{i}" for i in range(1, len(rows[0][0]) + 1))
            marks = ", ".join("?" for _ in rows[0][0])
            sql = f"INSERT OR REPLACE INTO {TABLE} (tab, col, {places}, value, base) VALUES (?, ?, {marks}, ?, ?)"
            connection.executemany(sql, [(table, column, *key, value, base) for key, value, base in rows])


def forget(
    connection: sqlite3.Connection, path: Path, epoch: int, columns: Sequence[Kept], keys: Sequence[Key]
) -> None:
    """See ports.Database. Where nothing is kept the write lock of the live database is left alone."""
    _require_live(connection, path, epoch)
    there = [(each, keys_there) for each in columns if (keys_there := _kept_at(connection, each, keys))]
    if there:
        with immediate(connection, 5.0):
            _require_live(connection, path, epoch)
            for each, words in there:
                keep(connection, each.table, each.name, (), words)


def _require_live(connection: sqlite3.Connection, path: Path, epoch: int) -> None:
    guard = read_guard(connection, path)
    if guard is None or guard.epoch != epoch or guard.state not in (GuardState.OPEN, GuardState.FENCED):
        raise Refused(
            f"{guard.name if guard else path} is not live at epoch {epoch} any more",
            code="role-changed",
            remedy="dbsync status",
        )


def _kept_at(connection: sqlite3.Connection, kept: Kept, keys: Sequence[Key]) -> list[Key]:
    """Those of the keys at which something is kept, as they are kept."""
    under = (kept.table, kept.name)
    match = " AND ".join(f"k{i} = ?" for i in range(1, len(kept.key) + 1))
    sql = f"SELECT 1 FROM {TABLE} WHERE tab = ? AND col = ?"
    with _told():
        if connection.execute(f"{sql} LIMIT 1", under).fetchone() is None:
            return []
        words = dict.fromkeys(map(kept.word, keys))
        return [word for word in words if connection.execute(f"{sql} AND {match}", (*under, *word)).fetchone()]


def _with(
    connection: sqlite3.Connection,
    kept: Kept,
    columns: tuple[str, ...],
    rows: list[Row],
    fill_keys: Callable[[Sequence[Key]], None],
) -> list[Row]:
    under = (kept.table, kept.name)
    with _told():
        if not connection.execute(f"SELECT 1 FROM {TABLE} WHERE tab = ? AND col = ? LIMIT 1", under).fetchone():
            return rows
    at, places = columns.index(kept.column), [columns.index(name) for name in kept.key]
    keys = [kept.word(tuple(row[place] for place in places)) for row in rows]
    fill_keys(keys)
    found = {tuple(row[2:]): (row[0], row[1]) for row in connection.execute(lookup(len(places)), under)}
    made = []
    for key, row in zip(keys, rows, strict=True):
        value, base = found.get(key, (None, None))
        here = key in found and _same(base, row[at])
        made.append((*row[:at], value, *row[at + 1 :]) if here else row)
    return made


def lookup(width: int) -> str:
    """The query for what is kept at the keys of the connection's key list: value, base and the key."""
    names = ", ".join(f"w.k{i}" for i in range(1, width + 1))
    match = " AND ".join(f"w.k{i} = k.k{i}" for i in range(1, width + 1))
    return (
        f"SELECT w.value, w.base, {names} FROM temp.dbsync_keys AS k"
        f" CROSS JOIN {TABLE} AS w ON w.tab = ? AND w.col = ? AND {match}"
    )


def _same(base: Value, now: Value) -> bool:
    if isinstance(now, bool):
        now = int(now)  # as it is stored
    return type(base) is type(now) and bool(base == now)


@contextmanager
def _told() -> Iterator[None]:
    """Refused (`not-initialised`) in a file that was initialised before there was a side table."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        raise Refused(
            "the side table of kept values is not there yet",
            code="not-initialised",
            remedy="dbsync init",
            next_command="dbsync init",
        ) from error
