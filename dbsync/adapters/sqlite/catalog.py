"""The shape of a SQLite file, read from its pragmas."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dbsync.adapters.sqlite.connection import quoted
from dbsync.model import Catalog, Column, ForeignKey, Table

ALEMBIC = "alembic_version"


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index other than the primary key: its columns with their collations, or an expression's text."""

    columns: tuple[tuple[str, str], ...]
    expression: bool
    partial: bool = False


def read_catalog(connection: sqlite3.Connection, exclude: Sequence[str] = ()) -> Catalog:
    """User tables by name, without dbsync's own, Alembic's, virtual and excluded ones."""
    tables = {}
    for name in user_tables(connection):
        if not is_excluded(name, exclude):
            tables[name] = read_table(connection, name)
    return Catalog(tables, read_revision(connection))


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a table is left out by one of the configured patterns (case-insensitive globs)."""
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)


def user_tables(connection: sqlite3.Connection) -> list[str]:
    """Ordinary tables of the user's, by name."""
    rows = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'").fetchall()
    return sorted(name for (name,) in rows if _is_users(name))


def unsyncable_tables(connection: sqlite3.Connection) -> list[str]:
    """Virtual tables and the shadow tables behind them."""
    rows = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('virtual', 'shadow')"
    ).fetchall()
    return sorted(name for (name,) in rows if _is_users(name))


def _is_users(name: str) -> bool:
    return not name.startswith(("sqlite_", "dbsync_")) and name != ALEMBIC


def read_table(connection: sqlite3.Connection, name: str) -> Table:
    """One table's columns, key, unique columns and foreign keys."""
    ddl = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
    collations = _collations(name, ddl[0] if ddl else "") | _key_collations(connection, name)
    columns = tuple(
        Column(
            name=column,
            type=declared or "",
            nullable=not notnull,
            default=default,
            key=place,
            collation=collations.get(column),
            generated=hidden in (2, 3),
        )
        for _, column, declared, notnull, default, place, hidden in connection.execute(
            "SELECT * FROM pragma_table_xinfo(?)", (name,)
        )
        if hidden != 1
    )
    uniques = tuple(
        tuple(column for column, _ in index.columns)
        for index in unique_indexes(connection, name)
        if not index.expression
    )
    return Table(name, columns, uniques, _foreign_keys(connection, name), ddl[0] if ddl else "")


def unique_indexes(connection: sqlite3.Connection, table: str) -> list[UniqueIndex]:
    """Unique indexes of a table other than its primary key (partial ones too: taken as if they were whole)."""
    found = []
    for _, index, unique, origin, partial in connection.execute("SELECT * FROM pragma_index_list(?)", (table,)):
        if not unique or origin == "pk":
            continue
        parts = connection.execute(
            "SELECT cid, name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno", (index,)
        ).fetchall()
        found.append(
            UniqueIndex(
                tuple((name, collation) for cid, name, collation in parts if cid >= 0),
                any(cid < 0 for cid, _, _ in parts),
                bool(partial),
            )
        )
    return found


def _collations(table: str, ddl: str) -> dict[str, str]:
    """Of every column: SQLite tells those of an index only, so an empty copy of the table gets one."""
    if "COLLATE" not in ddl.upper():
        return {}
    with closing(sqlite3.connect(":memory:")) as copy:
        try:
            copy.execute(ddl)
            names = [name for (name,) in copy.execute("SELECT name FROM pragma_table_info(?)", (table,))]
            listed = ", ".join(quoted(name) for name in names)
            copy.execute(f"CREATE INDEX dbsync_collations ON {quoted(table)} ({listed})")
        except sqlite3.Error:
            return {}  # a collation, or a function, that only the application knows
        rows = copy.execute("SELECT name, coll FROM pragma_index_xinfo('dbsync_collations') WHERE key = 1")
        return {name: collation for name, collation in rows if name and collation != "BINARY"}


def _key_collations(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    for _, index, _, origin, _ in connection.execute("SELECT * FROM pragma_index_list(?)", (table,)):
        if origin == "pk":
            rows = connection.execute("SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1", (index,))
            return {name: collation for name, collation in rows if name and collation != "BINARY"}
    return {}


def _foreign_keys(connection: sqlite3.Connection, table: str) -> tuple[ForeignKey, ...]:
    groups: dict[int, list[tuple[str, str | None, str]]] = {}
    for number, _, referred, column, to, *_ in connection.execute(
        "SELECT * FROM pragma_foreign_key_list(?) ORDER BY id, seq", (table,)
    ):
        groups.setdefault(number, []).append((column, to, referred))
    return tuple(
        ForeignKey(tuple(c for c, _, _ in parts), parts[0][2], tuple(to or "" for _, to, _ in parts))
        for parts in groups.values()
    )


def read_revision(connection: sqlite3.Connection) -> str | None:
    """The Alembic revision, or None."""
    if not has_table(connection, ALEMBIC):
        return None
    row = connection.execute(f"SELECT version_num FROM {ALEMBIC}").fetchone()
    return row[0] if row else None


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a table of that exact name is there."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
    return found is not None


def is_autoincrement(table: Table) -> bool:
    """Whether SQLite remembers the highest identity value that this table ever gave."""
    return re.search(r"\bAUTOINCREMENT\b", table.ddl, re.IGNORECASE) is not None


def schema_statements(connection: sqlite3.Connection) -> list[str]:
    """The statements that make the user's schema again, tables first, triggers last."""
    order = {"table": 0, "index": 1, "view": 2, "trigger": 3}
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    shadows = set(unsyncable_tables(connection))
    kept = [
        (order[kind], sql)
        for kind, name, table, sql in rows
        if not name.startswith(("sqlite_", "dbsync_")) and not table.startswith("dbsync_") and table not in shadows
    ]
    return [sql for _, sql in sorted(kept, key=lambda item: item[0])]
