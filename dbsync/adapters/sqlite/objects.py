"""dbsync's own objects in a SQLite file: tables, guard triggers, capture triggers.

The guard refuses with RAISE(ROLLBACK): RAISE(ABORT) would leave the application's transaction open,
with the write lock that the cede needs. The exemption of dbsync's own transactions is a flag in the guard
row, set and cleared inside them: a function known only to dbsync's connection would break every
application insert.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

from dbsync.adapters.sqlite.catalog import read_catalog
from dbsync.adapters.sqlite.connection import KEY_PLACES, literal, quoted
from dbsync.adapters.sqlite.uniques import unique_conditions
from dbsync.model import Table

NOW = "((julianday('now') - 2440587.5) * 86400.0)"
"""Seconds since 1970 by the database's clock; constant within a statement."""

KEYS = ", ".join(f"k{i}" for i in range(1, KEY_PLACES + 1))
KEPT = ", ".join(f"k{i} NOT NULL DEFAULT ''" for i in range(1, KEY_PLACES + 1))

TABLES = {
    "dbsync_guard": """CREATE TABLE dbsync_guard (
        id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, identity TEXT NOT NULL, inode TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'closed', 'fenced', 'ceded')),
        epoch INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, live TEXT NOT NULL, owner TEXT,
        fence_until REAL, opened_at TEXT, lived TEXT NOT NULL DEFAULT '[]', exempt INTEGER NOT NULL DEFAULT 0)""",
    "dbsync_changes": f"""CREATE TABLE dbsync_changes (
        seq INTEGER PRIMARY KEY, tab INTEGER NOT NULL, mine INTEGER NOT NULL, nonce INTEGER NOT NULL,
        at REAL NOT NULL, whole INTEGER NOT NULL DEFAULT 0, born INTEGER NOT NULL DEFAULT 0, {KEYS})""",
    "dbsync_tables": """CREATE TABLE dbsync_tables (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, arity INTEGER NOT NULL)""",
    "dbsync_documents": """CREATE TABLE dbsync_documents (
        kind TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID""",
    "dbsync_checkpoint": """CREATE TABLE dbsync_checkpoint (
        id INTEGER PRIMARY KEY CHECK (id = 1), source TEXT NOT NULL, position TEXT NOT NULL, at REAL NOT NULL)""",
    "dbsync_journal": """CREATE TABLE dbsync_journal (
        id INTEGER PRIMARY KEY, at TEXT NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
        kind TEXT NOT NULL, data TEXT NOT NULL)""",
    "dbsync_kept": f"""CREATE TABLE dbsync_kept (
        tab TEXT NOT NULL, col TEXT NOT NULL, {KEPT}, value, base,
        PRIMARY KEY (tab, col, {KEYS})) WITHOUT ROWID""",
    "dbsync_parked": "CREATE TABLE dbsync_parked (name TEXT PRIMARY KEY, tab TEXT NOT NULL, sql TEXT NOT NULL)",
}


def create_tables(connection: sqlite3.Connection) -> list[str]:
    """Create what is missing of dbsync's tables. Gives their names."""
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    created = [name for name in TABLES if name not in present]
    for name in created:
        connection.execute(TABLES[name])
    return created


def place_triggers(
    connection: sqlite3.Connection, name: str, exclude: Sequence[str], only: str | None = None
) -> list[str]:
    """Create the guard and capture triggers that are missing or not as they should be. Gives their names."""
    present = dict(
        connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'dbsync\\_%' ESCAPE '\\'"
        ).fetchall()
    )
    placed = []
    wanted = wanted_triggers(connection, name, exclude, only)
    for trigger, sql in wanted.items():
        if present.get(trigger) == sql:
            continue
        if trigger in present:
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(sql)
        placed.append(trigger)
    if only is None:
        for trigger in present.keys() - wanted.keys():
            connection.execute(f"DROP TRIGGER {trigger}")
    return placed


def wanted_triggers(
    connection: sqlite3.Connection, name: str, exclude: Sequence[str], only: str | None = None, reading: bool = False
) -> dict[str, str]:
    """Every trigger that should be there, by name.

    Tables get their number here when they have none; `reading` writes nothing, and such a table's is 0.
    """
    wanted: dict[str, str] = {}
    for table in read_catalog(connection, exclude).tables.values():
        if only is not None and table.name != only:
            continue
        number = _known(connection, table) or 0 if reading else _number(connection, table)
        wanted |= _guard_triggers(number, table, name)
        if table.key:
            wanted |= _capture_triggers(number, table)
            wanted |= _victim_triggers(number, table, connection)
    return wanted


def drop_triggers(connection: sqlite3.Connection, table: str | None = None) -> None:
    """Drop dbsync's triggers, of one table or of all."""
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'dbsync\\_%' ESCAPE '\\'"
        " AND (?1 IS NULL OR tbl_name = ?1)",
        (table,),
    ).fetchall()
    for (trigger,) in rows:
        connection.execute(f"DROP TRIGGER {trigger}")


def _known(connection: sqlite3.Connection, table: Table) -> int | None:
    row = connection.execute("SELECT id FROM dbsync_tables WHERE name = ?", (table.name,)).fetchone()
    return int(row[0]) if row else None


def _number(connection: sqlite3.Connection, table: Table) -> int:
    row = connection.execute("SELECT id, arity FROM dbsync_tables WHERE name = ?", (table.name,)).fetchone()
    if row is None:
        cursor = connection.execute(
            "INSERT INTO dbsync_tables (name, arity) VALUES (?, ?)", (table.name, len(table.key))
        )
        return int(cursor.lastrowid or 0)
    if row[1] != len(table.key):
        connection.execute("UPDATE dbsync_tables SET arity = ? WHERE id = ?", (len(table.key), row[0]))
    return int(row[0])


def _guard_triggers(number: int, table: Table, name: str) -> dict[str, str]:
    message = literal(
        f'dbsync: this database is not the active one ("{name}" is closed, or a handover is under way);'
        " nothing was written"
    )
    triggers = {}
    for letter, event in (("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE")):
        trigger = f"dbsync_guard_{number}_{letter}"
        triggers[trigger] = (
            f"CREATE TRIGGER {trigger} BEFORE {event} ON {quoted(table.name)}"
            " WHEN (SELECT exempt = 0 AND (state IN ('closed', 'ceded')"
            f" OR (state = 'fenced' AND fence_until > {NOW})) FROM dbsync_guard WHERE id = 1)"
            f" BEGIN SELECT RAISE(ROLLBACK, {message}); END"
        )
    return triggers


def _log(number: int, table: Table, image: str, condition: str = "", born: str = "0") -> str:
    places = ", ".join(f"k{i}" for i in range(1, len(table.key) + 1))
    values = ", ".join(f"{image}.{quoted(column)}" for column in table.key)
    return (
        f"INSERT INTO dbsync_changes (tab, mine, nonce, at, born, {places})"
        f" SELECT {number}, g.exempt, random(), {NOW}, {born}, {values} FROM dbsync_guard AS g{condition};"
    )


def _capture_triggers(number: int, table: Table) -> dict[str, str]:
    moved = " OR ".join(f"OLD.{quoted(c)} IS NOT NEW.{quoted(c)}" for c in table.key)
    bodies = {
        "i": ("INSERT", _log(number, table, "NEW", born="1")),
        "u": (
            "UPDATE",
            _log(number, table, "OLD", f" WHERE {moved}") + " " + _log(number, table, "NEW", born=f"({moved})"),
        ),
        "d": ("DELETE", _log(number, table, "OLD")),
    }
    return {
        f"dbsync_capture_{number}_{letter}": (
            f"CREATE TRIGGER dbsync_capture_{number}_{letter} AFTER {event} ON {quoted(table.name)} BEGIN {body} END"
        )
        for letter, (event, body) in bodies.items()
    }


def _victim_triggers(number: int, table: Table, connection: sqlite3.Connection) -> dict[str, str]:
    """OR REPLACE removes the row that holds a unique value without firing its DELETE trigger: log the victims.

    A superset is harmless: a key that did not change is only read again.
    """
    conditions = unique_conditions(connection, table, "v", "NEW") + _rowid_condition(connection, table)
    if not conditions:
        return {}
    places = ", ".join(f"k{i}" for i in range(1, len(table.key) + 1))
    values = ", ".join(f"v.{quoted(c)}" for c in table.key)
    changed = " OR ".join(f"v.{quoted(c)} IS NOT OLD.{quoted(c)}" for c in table.key)
    triggers = {}
    for letter, event, other in (("i", "INSERT", ""), ("u", "UPDATE", f" AND ({changed})")):
        trigger = f"dbsync_victims_{number}_{letter}"
        triggers[trigger] = (
            f"CREATE TRIGGER {trigger} BEFORE {event} ON {quoted(table.name)} BEGIN"
            f" INSERT INTO dbsync_changes (tab, mine, nonce, at, {places})"
            f" SELECT {number}, g.exempt, random(), {NOW}, {values} FROM {quoted(table.name)} AS v, dbsync_guard AS g"
            f" WHERE ({' OR '.join(f'({c})' for c in conditions)}){other}; END"
        )
    return triggers


def _rowid_condition(connection: sqlite3.Connection, table: Table) -> list[str]:
    """A row that is given another one's rowid replaces it, where the key is not the rowid itself."""
    hidden = connection.execute(
        "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (table.name,)
    ).fetchone()
    integer = [c for c in table.columns if c.key and c.type.upper() == "INTEGER"]
    if (hidden and hidden[0]) or (len(table.key) == 1 and integer):
        return []
    taken = {c.name.casefold() for c in table.columns}
    name = next((n for n in ("rowid", "_rowid_", "oid") if n not in taken), None)
    return [f"v.{name} = NEW.{name}"] if name else []


# --- the user's own triggers: there is no DISABLE TRIGGER, so they are parked on the closed side --------


def park_triggers(connection: sqlite3.Connection, exclude: Sequence[str]) -> None:
    """Take the user's triggers off synced tables and keep their SQL."""
    tables = set(read_catalog(connection, exclude).tables)
    rows = connection.execute(
        "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger'"
        " AND name NOT LIKE 'dbsync\\_%' ESCAPE '\\'"
    ).fetchall()
    for name, table, sql in rows:
        if table in tables:
            connection.execute(
                "INSERT OR REPLACE INTO dbsync_parked (name, tab, sql) VALUES (?, ?, ?)", (name, table, sql)
            )
            connection.execute(f"DROP TRIGGER {quoted(name)}")


def wake_triggers(connection: sqlite3.Connection) -> None:
    """Put the user's triggers back, word for word."""
    for name, sql in connection.execute("SELECT name, sql FROM dbsync_parked ORDER BY rowid").fetchall():
        present = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = ?", (name,)
        ).fetchone()
        if not present:
            connection.execute(sql)
    connection.execute("DELETE FROM dbsync_parked")


def fingerprint(connection: sqlite3.Connection) -> str:
    """schema_version counts every change of the schema, so an object dropped and put back shows; the hash names it."""
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    digest = hashlib.sha256()
    for row in connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name"):
        digest.update(repr(row).encode())
    return f"{version}.{digest.hexdigest()[:24]}"
