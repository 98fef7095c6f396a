"""A job's extract and load on a SQLite file."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dbsync.adapters.sqlite.catalog import read_table, unique_indexes, user_tables
from dbsync.adapters.sqlite.connection import quoted
from dbsync.errors import ConfigError, Refused
from dbsync.model import Extracted, ForeignKey, Loaded, Rejected, Row, Table

CLOCK = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')"

_SELECTS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, getattr(sqlite3, "SQLITE_RECURSIVE", 33)}
)
_NOT_NAMES = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)
_UNFIT = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)
"""What one row that the file does not take, or that cannot be bound, raises."""


def clock(connection: sqlite3.Connection) -> datetime:
    """The database's clock, in UTC. SQLite's goes by milliseconds."""
    (text,) = connection.execute(CLOCK).fetchone()
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moment(value: datetime) -> str:
    """A moment as jobs bind it."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")


# --- extract -----------------------------------------------------------------------------------


def extract(connection: sqlite3.Connection, sql: str, parameters: Mapping[str, Any], size: int) -> Iterator[Extracted]:
    """See ports.View; the keys stand in temp.dbsync_keys already."""
    text = _named(sql)
    keys = parameters.get("keys")
    if keys is not None:
        places = ", ".join(f"k{place}" for place in range(1, len(keys[0]) + 1)) if keys else "k1"
        text = re.sub(r":keys\b", f"SELECT {places} FROM temp.dbsync_keys", text)
    bound = {name: moment(value) for name, value in parameters.items() if name != "keys"}
    cursor = _begun(connection, text, bound)
    try:
        columns = _columns(cursor)
        rows = cursor.fetchmany(size)
        yield Extracted(columns, rows)
        while len(rows) == size:
            rows = cursor.fetchmany(size)
            if rows:
                yield Extracted(columns, rows)
    finally:
        cursor.close()


def _begun(connection: sqlite3.Connection, text: str, bound: Mapping[str, str]) -> sqlite3.Cursor:
    """The statement after its first step, in which everything that it could write would have been written.

    The authorizer is asked while it is prepared: nothing but reading gets through, not even a PRAGMA. What a table
    function declares of itself looks there like a new table: that one would really write is seen by query_only.
    """
    connection.execute("PRAGMA query_only = ON")
    connection.set_authorizer(_only_reads)
    try:
        return connection.execute(text, bound)
    except sqlite3.DatabaseError as error:
        cause = str(error)
        if any(word in cause for word in ("not authorized", "prohibited", "readonly")):
            raise _broken("its extract does more than read", "let it be a SELECT") from error
        if "locked" in cause or "decode" in cause:
            raise
        raise _broken(f"its extract does not run: {cause}", "correct its SELECT") from error
    except sqlite3.Warning as error:
        raise _broken(f"its extract does not run: {error}", "let it be one SELECT") from error
    finally:
        connection.set_authorizer(None)
        connection.execute("PRAGMA query_only = OFF")


def _only_reads(code: int, first: str | None, *_: Any) -> int:
    own = (
        (code == sqlite3.SQLITE_PRAGMA and first == "data_version")
        or (code in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE) and first == "sqlite_master")
        or code == sqlite3.SQLITE_CREATE_TABLE
    )
    return sqlite3.SQLITE_OK if own or code in _SELECTS else sqlite3.SQLITE_DENY


def _named(sql: str) -> str:
    """The statement without comments, with "name" as `name`: an unknown name in double quotes would be a text."""

    def plain(found: re.Match[str]) -> str:
        text = found[0]
        if text[0] == "'":
            return text
        return "`" + text[1:-1].replace('""', '"').replace("`", "``") + "`" if text[0] == '"' else " "

    return _NOT_NAMES.sub(plain, sql).strip().rstrip(";")


def _columns(cursor: sqlite3.Cursor) -> tuple[str, ...]:
    columns = tuple(part[0] for part in cursor.description or ())
    if not columns:
        raise _broken("its extract gives no rows", "let it be a SELECT")
    folded = [name.casefold() for name in columns]
    twice = next((name for name in columns if folded.count(name.casefold()) > 1), None)
    if twice is not None:
        raise _broken(f"its extract gives two columns named {twice}", "name them apart with AS")
    return columns


# --- load --------------------------------------------------------------------------------------


def shape_of(connection: sqlite3.Connection, name: str) -> Table:
    """The shape of a job's table. Raises ConfigError (`unknown-table`)."""
    found = next((table for table in user_tables(connection) if table.casefold() == name.casefold()), None)
    if found is None:
        raise ConfigError(
            f"there is no table {name} to load into", code="unknown-table", remedy="create it in a revision"
        )
    return read_table(connection, found)


def clear(connection: sqlite3.Connection, shape: Table) -> None:
    """See ports.Transaction."""
    connection.execute(f"DELETE FROM {quoted(shape.name)}")


def load_rows(
    connection: sqlite3.Connection,
    shape: Table,
    columns: Sequence[str],
    rows: Sequence[Row],
    key: Sequence[str],
    mode: str,
) -> Loaded:
    """See ports.Transaction. A batch goes in at once; where that fails, row by row."""
    sql = _statement(connection, shape, columns, key, mode)
    orphans = _orphans(connection, shape, columns, rows)
    rejected = [Rejected(rows[place], reason) for place, reason in orphans.items()]
    fit = [row for place, row in enumerate(rows) if place not in orphans]
    connection.execute("SAVEPOINT dbsync_load")
    try:
        written = max(0, connection.executemany(sql, fit).rowcount)
    except _UNFIT:
        if not connection.in_transaction:
            raise _undone(shape) from None
        connection.execute("ROLLBACK TO dbsync_load")
        update = None if mode == "append" else _update(shape, columns, key)
        written = _row_by_row(connection, shape, sql, update, fit, rejected)
    connection.execute("RELEASE dbsync_load")
    return Loaded(written, tuple(rejected))


def _row_by_row(
    connection: sqlite3.Connection,
    shape: Table,
    sql: str,
    update: tuple[str, list[int]] | None,
    rows: Sequence[Row],
    rejected: list[Rejected],
) -> int:
    """A statement that fails leaves nothing behind, so each needs no savepoint of its own."""
    written = 0
    for row in rows:
        try:
            changed = connection.execute(update[0], [row[place] for place in update[1]]).rowcount if update else 0
            written += changed or max(0, connection.execute(sql, row).rowcount)
        except _UNFIT as error:
            if not connection.in_transaction:
                raise _undone(shape) from error
            rejected.append(Rejected(row, str(error)))
    return written


def _update(shape: Table, columns: Sequence[str], key: Sequence[str]) -> tuple[str, list[int]] | None:
    """A statement that sets the columns where the key is there, and the places of its values; None where the upsert
    does so itself: it checks NOT NULL first, also of columns that it leaves alone."""
    folded = [name.casefold() for name in columns]
    if all(c.fills_itself or c.name.casefold() in folded for c in shape.columns):
        return None
    keyed = [folded.index(name.casefold()) for name in key]
    moved = [place for place in range(len(columns)) if place not in keyed]
    if not moved:
        return None
    sets = ", ".join(f"{quoted(columns[place])} = ?" for place in moved)
    match = " AND ".join(f"{quoted(columns[place])} = ?" for place in keyed)
    return f"UPDATE {quoted(shape.name)} SET {sets} WHERE {match}", moved + keyed


def _statement(
    connection: sqlite3.Connection, shape: Table, columns: Sequence[str], key: Sequence[str], mode: str
) -> str:
    for name in (*columns, *key):
        column = shape.column(name)
        if column is None:
            raise _broken(f"the table {shape.name} has no column {name}", "name its columns in the extract")
        if column.generated:
            raise _broken(f"column {name} of {shape.name} is computed", "leave it out of the extract")
    absent = [name for name in key if name.casefold() not in {c.casefold() for c in columns}]
    if absent:
        raise _broken(f"the rows have no key column {absent[0]}", "let the extract, or transform, give it")
    conflict = _conflict(connection, shape, key)
    keyed = {name.casefold() for name in key}
    moved = [name for name in columns if name.casefold() not in keyed] if mode != "append" else []
    # A key that differs only in case is the same key: its columns are set too.
    moved += [name for name in columns if name.casefold() in keyed and "COLLATE" in conflict] if moved else []
    sets = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in moved)
    names, marks = ", ".join(map(quoted, columns)), ", ".join("?" for _ in columns)
    action = f"UPDATE SET {sets}" if moved else "NOTHING"
    return f"INSERT INTO {quoted(shape.name)} ({names}) VALUES ({marks}) ON CONFLICT ({conflict}) DO {action}"


def _conflict(connection: sqlite3.Connection, shape: Table, key: Sequence[str]) -> str:
    """The key as a conflict target; only what keeps one row a key can tell rows apart."""
    wanted = {name.casefold() for name in key}
    if {name.casefold() for name in shape.key} == wanted:
        collations = {c.name: c.collation or "BINARY" for c in shape.columns if c.key}
    else:
        whole = (
            dict(index.columns)
            for index in unique_indexes(connection, shape.name)
            if not index.expression and not index.partial
        )
        found = next((index for index in whole if {name.casefold() for name in index} == wanted), None)
        if found is None:
            raise _broken(
                f"{', '.join(key)} is neither the primary key of {shape.name} nor unique there",
                "name the primary key, or give these columns a unique index",
            )
        collations = found
    return ", ".join(
        quoted(name) if collation == "BINARY" else f"{quoted(name)} COLLATE {collation}"
        for name, collation in collations.items()
    )


def _orphans(
    connection: sqlite3.Connection, shape: Table, columns: Sequence[str], rows: Sequence[Row]
) -> dict[int, str]:
    """Rows that refer to a row which is not there, by place: dbsync's connection does not enforce foreign keys."""
    places = {name.casefold(): place for place, name in enumerate(columns)}
    found: dict[int, str] = {}
    for reference in shape.foreign_keys:
        names = [name.casefold() for name in reference.columns]
        if reference.table.casefold() == shape.name.casefold() or not all(name in places for name in names):
            continue
        asked: dict[Row, bool] = {}
        for place, row in enumerate(rows):
            values = tuple(row[places[name]] for name in names)
            if None in values:
                continue
            if values not in asked:
                asked[values] = _refers(connection, reference, values)
            if not asked[values]:
                found.setdefault(place, f"FOREIGN KEY constraint failed: no such row in {reference.table}")
    return found


def _refers(connection: sqlite3.Connection, reference: ForeignKey, values: Row) -> bool:
    referred = [name for name in reference.referred if name]
    if len(referred) < len(values):
        referred = list(read_table(connection, reference.table).key)
    match = " AND ".join(f"{quoted(name)} = ?" for name in referred)
    try:
        sql = f"SELECT 1 FROM {quoted(reference.table)} WHERE {match}"
        return connection.execute(sql, values).fetchone() is not None
    except _UNFIT:
        return True  # it cannot be bound: loading it gives the reason


def _undone(shape: Table) -> Refused:
    return Refused(
        f"a constraint or trigger of {shape.name} ended the whole transaction at a row",
        code="row-refused",
        remedy="let it say ABORT, not ROLLBACK",
    )


def _broken(found: str, remedy: str) -> ConfigError:
    return ConfigError(found, code="broken-job", remedy=remedy)
