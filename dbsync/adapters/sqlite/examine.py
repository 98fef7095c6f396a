"""What `doctor` looks at in a SQLite file. Reads only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from dbsync.adapters.sqlite.catalog import has_table, is_excluded, read_catalog, unsyncable_tables, user_tables
from dbsync.adapters.sqlite.connection import KEY_PLACES, quoted
from dbsync.adapters.sqlite.objects import TABLES, wanted_triggers
from dbsync.model import Check, Severity, Table


def examine(connection: sqlite3.Connection, name: str, exclude: Sequence[str]) -> tuple[Check, ...]:
    """Every precondition of this file's own, each with its remedy."""
    checks: list[Check] = []
    connection.execute("BEGIN")
    catalog = read_catalog(connection, exclude)
    if not catalog.tables:
        checks.append(Check("no-tables", Severity.OK, f"{name} has no tables yet"))
    for table in catalog.tables.values():
        checks += _keys(connection, name, table)
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        checks.append(Check("wal", Severity.WARNING, f"{name} is in {mode} mode", "dbsync init puts it into WAL"))
    left_out = [t for t in user_tables(connection) if is_excluded(t, exclude)] + unsyncable_tables(connection)
    if left_out:
        found = f"{name}: neither synced nor verified: {', '.join(sorted(left_out))}"
        checks.append(Check("excluded", Severity.OK, found))
    if has_table(connection, "dbsync_guard"):
        checks.append(_objects(connection, name, exclude))
        if missing := [table for table in TABLES if not has_table(connection, table)]:
            found = f"{name} was initialised by an earlier version: {', '.join(missing)} is not there yet"
            checks.append(Check("objects-missing", Severity.WARNING, found, "dbsync init"))
    return tuple(checks)


def _keys(connection: sqlite3.Connection, name: str, table: Table) -> list[Check]:
    if not table.key:
        return [
            Check(
                "no-primary-key",
                Severity.BLOCKER,
                f"{name}: table {table.name} has no primary key, so its rows cannot be told apart",
                "give it a primary key in a revision, or name it in [databases.options] exclude",
            )
        ]
    if len(table.key) > KEY_PLACES:
        return [
            Check(
                "key-too-wide",
                Severity.BLOCKER,
                f"{name}: the key of {table.name} has more than {KEY_PLACES} columns",
                "exclude the table",
            )
        ]
    nulls = " OR ".join(f"{quoted(c)} IS NULL" for c in table.key)
    if connection.execute(f"SELECT 1 FROM {quoted(table.name)} WHERE {nulls} LIMIT 1").fetchone():
        return [
            Check(
                "null-key",
                Severity.BLOCKER,
                f"{name}: {table.name} has a row whose primary key holds NULL: no key range finds it",
                "give the row a key, or declare the key columns NOT NULL",
            )
        ]
    return []


def _objects(connection: sqlite3.Connection, name: str, exclude: Sequence[str]) -> Check:
    """Whether every guard and capture trigger is there, word for word."""
    wanted = wanted_triggers(connection, name, exclude, reading=True)
    present = dict(
        connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'dbsync\\_%' ESCAPE '\\'"
        ).fetchall()
    )
    wrong = sorted(trigger for trigger, sql in wanted.items() if present.get(trigger) != sql)
    if wrong:
        found = f"{name}: {len(wrong)} of dbsync's triggers are missing or altered, {wrong[0]} among them"
        return Check("guard-changed", Severity.BLOCKER, found, "dbsync init, then dbsync verify")
    return Check("guards", Severity.OK, f"{name}: guard and capture of {len(wanted)} triggers are in place")
