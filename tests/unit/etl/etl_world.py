"""Databases in memory, just enough of the sockets for the lens: rows, scratch, upsert and delete."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dbsync.errors import ConfigError, Refused
from dbsync.etl.compose import Composition, compose
from dbsync.etl.crossing import Crossing
from dbsync.model import Capabilities, Catalog, Column, Direction, Guard, GuardState, Key, Relation, Row, Table

EMBEDDED = Capabilities(dialect="sqlite")


class Two:
    """The crossings of one revision."""

    def __init__(self, forward: Crossing | None = None, reverse: Crossing | None = None) -> None:
        self.forward, self.reverse, self.path = forward, reverse, "etl/file.py"


class World:
    """One database: View, Transaction and what make_lens asks of a Database."""

    capabilities = EMBEDDED

    def __init__(self, script: str, name: str = "blue", revision: str | None = None) -> None:
        self.name, self.revision_now = name, revision
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(script)
        self.lived: frozenset[str] = frozenset()
        self.documents: dict[str, dict[str, Any]] = {}
        self.left_out: tuple[str, ...] = ()
        self.upserts: list[tuple[str, list[Row], frozenset[str]]] = []

    # shape
    def catalog(self) -> Catalog:
        names = [name for (name,) in self.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return Catalog({name: self._table(name) for name in names if name not in self.left_out}, self.revision_now)

    def _table(self, name: str) -> Table:
        columns = [
            Column(column, kind, not notnull, default, place, None, hidden in (2, 3))
            for _, column, kind, notnull, default, place, hidden in self.db.execute(
                "SELECT * FROM pragma_table_xinfo(?)", (name,)
            )
        ]
        return Table(name, tuple(columns))

    def excluded(self) -> tuple[str, ...]:
        return self.left_out

    def guard(self) -> Guard:
        return Guard(self.name, self.name, GuardState.OPEN, 1, lived=self.lived)

    def load_all(self, kind: str) -> dict[str, dict[str, Any]]:
        return self.documents if kind == "shape" else {}

    @contextmanager
    def view(self) -> Iterator[World]:
        yield self

    def reads(self, sql: str, staged: object = ()) -> frozenset[tuple[str, str]]:
        seen: set[tuple[str, str]] = set()

        def look(action: int, one: str | None, two: str | None, *_: Any) -> int:
            if action == sqlite3.SQLITE_READ and one and two:
                seen.add((one, two))
            return sqlite3.SQLITE_OK

        self.db.set_authorizer(look)
        try:
            self.db.execute(f"EXPLAIN {sql}").fetchall()
        except sqlite3.Error as error:
            raise ConfigError(str(error), code="broken-crossing") from error
        finally:
            self.db.set_authorizer(None)
        return frozenset(seen)

    @contextmanager
    def scratch(self, tables: Sequence[Table]) -> Iterator[World]:
        columns = {t.name: ", ".join(f'"{c.name}" {c.type}' for c in t.columns) for t in tables}
        yield World(";".join(f'CREATE TABLE "{name}" ({given})' for name, given in columns.items()))

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        names = ", ".join(f'"{name}"' for name in columns)
        self.db.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))})', rows)

    # rows
    def restricted(self, relation: Relation) -> str:
        terms = " AND ".join(f'q."{name}" = k.k{n}' for n, name in enumerate(relation.key, 1))
        names = ", ".join(f'q."{name}"' for name in relation.columns)
        return f"SELECT {names} FROM dbsync_keys k CROSS JOIN ({relation.sql}) q ON {terms}"

    def keyed(self, keys: Sequence[Key], width: int) -> None:
        self.db.execute("DROP TABLE IF EXISTS temp.dbsync_keys")
        self.db.execute(f"CREATE TEMP TABLE dbsync_keys ({', '.join(f'k{n}' for n in range(1, width + 1))})")
        self.db.executemany(f"INSERT INTO dbsync_keys VALUES ({', '.join('?' * width)})", keys)

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        self.keyed(keys, len(relation.key))
        return self.db.execute(self.restricted(relation)).fetchall()

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        names = ", ".join(f'"{name}"' for name in relation.key)
        marks = ", ".join("?" * len(relation.key))
        terms = [f"({names}) > ({marks})"] * (after is not None) + [f"({names}) <= ({marks})"] * (upto is not None)
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        sql = f"SELECT * FROM ({relation.sql}) q {where} ORDER BY {names} LIMIT {-1 if limit is None else limit}"
        return self.db.execute(sql, [*(after or ()), *(upto or ())]).fetchall()

    def count(self, relation: Relation) -> int:
        return int(self.db.execute(f"SELECT COUNT(*) FROM ({relation.sql})").fetchone()[0])

    def rows(self, relation: Relation) -> list[Row]:
        return sorted(self.db.execute(relation.sql).fetchall(), key=repr)

    def key_query(self, sql: str, keys: Sequence[Key]) -> list[Key]:
        self.keyed(keys, 1)
        return self.db.execute(sql.replace(":keys", "SELECT k1 FROM dbsync_keys")).fetchall()

    # writing
    def upsert(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], keep: frozenset[str] = frozenset()
    ) -> None:
        self.upserts.append((table, list(rows), keep))
        key = self.catalog().tables[table].key
        names = ", ".join(f'"{name}"' for name in columns)
        free = [name for name in columns if name not in key and name not in keep]
        sets = ", ".join(f'"{name}" = excluded."{name}"' for name in free)
        clash = f"DO UPDATE SET {sets}" if sets else "DO NOTHING"
        held = ", ".join(f'"{name}"' for name in key)
        self.db.executemany(
            f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(columns))}) ON CONFLICT ({held}) {clash}',
            rows,
        )

    insert = fill

    def delete(self, table: str, keys: Sequence[Key]) -> None:
        terms = " AND ".join(f'"{name}" = ?' for name in self.catalog().tables[table].key)
        self.db.executemany(f'DELETE FROM "{table}" WHERE {terms}', keys)


class Path:
    """A migrator of which only the chain matters."""

    def __init__(self, *revisions: str) -> None:
        self.revisions = revisions

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        low = -1 if older is None else self.revisions.index(older)
        high = -1 if newer is None else self.revisions.index(newer)
        if high < low:
            raise Refused(code="revisions-diverged")
        return self.revisions[low + 1 : high + 1]


def composed(
    older: World,
    newer: World,
    steps: Sequence[tuple[str, Two]],
    direction: Direction = Direction.FORWARD,
    shapes: Mapping[str, Catalog] | None = None,
    lenient: bool = False,
) -> Composition:
    """compose() between two worlds."""
    return compose(older.catalog(), newer.catalog(), steps, direction, shapes or {}, EMBEDDED, lenient=lenient)


def plan_of(world: World, relation: Relation) -> str:
    """SQLite's plan of the query restricted by a key list."""
    world.keyed([tuple(range(len(relation.key)))], len(relation.key))
    return "\n".join(row[3] for row in world.db.execute(f"EXPLAIN QUERY PLAN {world.restricted(relation)}"))


def scans(world: World, relation: Relation) -> list[str]:
    """The lines of that plan that read a whole table, other than the key list's own."""
    return [line for line in plan_of(world, relation).splitlines() if line.startswith("SCAN") and line != "SCAN k"]
