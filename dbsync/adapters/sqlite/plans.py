"""What SQLite says of a query before it runs it: the columns that it reads, and its plan by a list of keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dbsync.adapters.sqlite.connection import KEY_PLACES, backticked, quoted
from dbsync.adapters.sqlite.rows import SqliteRows, keyed, listed
from dbsync.adapters.sqlite.staging import Staging
from dbsync.errors import ConfigError
from dbsync.model import QueryPlan, Relation, Staged

SMALL = 1_000
"""A table of fewer rows may be read whole, where the planner knows its size and prefers that."""

_WHOLE = frozenset({"Rewind", "Last", "Count"})
"""Where a loop over everything that a cursor stands for begins."""


def key_table() -> str:
    """The statement that makes the private table which a key list is put into."""
    return f"CREATE TEMP TABLE dbsync_keys ({', '.join(f'k{i}' for i in range(1, KEY_PLACES + 1))})"


def reads(connection: sqlite3.Connection, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
    """See ports.Database. SQLite's own authorizer names every column that the statement reads."""
    with shells(connection, staged):
        found = _compiled(connection, sql)
    private = {each.name for each in staged}
    own = frozenset((table, column) for table, column in found if table not in private)
    return own.union(*(reads(connection, each.relation.sql, each.relation.staged) for each in staged))


@contextmanager
def shells(connection: sqlite3.Connection, staged: Sequence[Staged]) -> Iterator[None]:
    """Inside it a query that reads these private tables compiles."""
    staging = Staging(connection, SqliteRows(connection), steady=False)
    try:
        staging.shells(staged)
        yield
    finally:
        staging.release()


def _compiled(connection: sqlite3.Connection, sql: str) -> frozenset[tuple[str, str]]:
    found: set[tuple[str, str]] = set()

    def authorize(code: int, first: str | None, second: str | None, *_: Any) -> int:
        if code == sqlite3.SQLITE_READ and first and not first.startswith("sqlite_"):
            found.add((first, second or ""))
        return sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
    try:
        connection.execute(f"EXPLAIN {backticked(sql)}").fetchall()
    except sqlite3.OperationalError as error:
        raise _does_not_run(error) from error
    finally:
        connection.set_authorizer(None)
    views = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
    return frozenset((table, column) for table, column in found if table not in views)


def plan(connection: sqlite3.Connection, relation: Relation, unknown: Callable[[], sqlite3.Connection]) -> QueryPlan:
    """See ports.Database. `unknown` gives the same shape with nothing known of how many rows its tables have."""
    with shells(connection, relation.staged):
        found = _plan(connection, relation, unknown)
    lines, scans = list(found.lines), dict.fromkeys(found.scans)
    for each in relation.staged:
        inner = plan(connection, each.relation, unknown)
        all_rows = each.places is None
        lines.append(f"{each.name}: {'all rows' if all_rows else 'the rows at these keys'} of {each.relation.table}")
        lines += [f"  {line}" for line in inner.lines]
        read = {table for table, _ in reads(connection, each.relation.sql, each.relation.staged)} if all_rows else ()
        scans.update(dict.fromkeys((*inner.scans, *sorted(read))))
    return QueryPlan(tuple(lines), tuple(scans))


def asked(
    connection: sqlite3.Connection, query: str, width: int, unknown: Callable[[], sqlite3.Connection]
) -> QueryPlan:
    """See ports.Database."""
    return _judged(connection, query.replace(":keys", listed(width)), (), unknown)


def _plan(connection: sqlite3.Connection, relation: Relation, unknown: Callable[[], sqlite3.Connection]) -> QueryPlan:
    return _judged(connection, keyed(relation), relation.staged, unknown)


def _judged(
    connection: sqlite3.Connection, sql: str, staged: Sequence[Staged], unknown: Callable[[], sqlite3.Connection]
) -> QueryPlan:
    """Where statistics let the planner read a small table whole, that is no scan unless it would be one without."""
    lines, scanned = _explained(connection, sql)
    if scanned and _has(connection, "sqlite_stat1"):
        large = {table for table in scanned if _rows(connection, table) >= SMALL}
        bare = unknown()
        Staging(bare, SqliteRows(bare), steady=False).shells(staged)
        try:
            scanned = [table for table in scanned if table in large or table in _explained(bare, sql)[1]]
        finally:
            bare.close()
    return QueryPlan(lines, tuple(scanned))


def _explained(connection: sqlite3.Connection, sql: str) -> tuple[tuple[str, ...], list[str]]:
    """The plan as a tree of lines, and the stored tables that it reads whole."""
    try:
        tree = connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        program = connection.execute(f"EXPLAIN {sql}").fetchall()
    except sqlite3.OperationalError as error:
        raise _does_not_run(error) from error
    roots = dict(connection.execute("SELECT rootpage, tbl_name FROM sqlite_master WHERE rootpage > 0"))
    return tuple(_tree(tree)), list(dict.fromkeys(_whole(program, roots)))


def _tree(rows: Iterable[tuple[int, int, int, str]]) -> Iterable[str]:
    depths = {0: -1}
    for number, parent, _, text in rows:
        depths[number] = depths.get(parent, -1) + 1
        yield "  " * depths[number] + text


def _whole(program: Iterable[tuple[Any, ...]], roots: dict[int, str]) -> Iterable[str]:
    """The tables whose cursors a loop goes through from end to end.

    Read off the program and not off the plan's lines, which name aliases, and say SEARCH where an index is built
    for the occasion out of the whole table.
    """
    cursors: dict[int, str] = {}
    loops: list[int] = []
    for _, opcode, p1, p2, p3, *_ in program:
        if opcode == "OpenRead" and p3 == 0 and p2 in roots:
            cursors[p1] = roots[p2]
        elif opcode in _WHOLE:
            loops.append(p1)
    for cursor in loops:
        if cursor in cursors and not cursors[cursor].startswith("dbsync_"):
            yield cursors[cursor]


def shell(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The tables, indexes and views of a file in memory, without their rows and without statistics."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute(key_table())
    order = "CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 ELSE 2 END"
    shadows = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('virtual', 'shadow')"
    statements = connection.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'trigger' AND name NOT LIKE 'sqlite^_%'"
        f" ESCAPE '^' AND tbl_name NOT IN ({shadows}) ORDER BY {order}"
    ).fetchall()
    for (statement,) in statements:
        made.execute(statement)
    return made


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


def _rows(connection: sqlite3.Connection, table: str) -> int:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {quoted(table)} LIMIT {SMALL})"
    return int(connection.execute(sql).fetchone()[0])


def _does_not_run(error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"a crossing's query does not run: {error}", code="broken-crossing", remedy="correct its SELECT")
