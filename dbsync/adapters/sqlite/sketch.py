"""Shapes without rows and without a file: where revisions run, and queries are compiled, on the desk alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa

from dbsync.adapters.sqlite import plans
from dbsync.adapters.sqlite.catalog import is_excluded, read_catalog, schema_statements, unsyncable_tables, user_tables
from dbsync.adapters.sqlite.migrating import engine, scratch_statements
from dbsync.model import Capabilities, Catalog, QueryPlan, Relation, Staged, Table


class SqliteSketch:
    """See ports.Sketch."""

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        self.capabilities = Capabilities(dialect="sqlite")
        self._exclude = tuple(exclude)
        self._seen: dict[str | None, tuple[Catalog, list[str]]] = {}
        self._left_out: set[str] = set()

    @property
    def excluded(self) -> frozenset[str]:
        """See ports.Sketch."""
        return frozenset(self._left_out)

    @contextmanager
    def shape_copy(self) -> Iterator[tuple[sa.Connection, Callable[[], Catalog]]]:
        """See ports.Sketch."""
        made = engine(lambda: sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        with made.connect() as connection, connection.begin():
            raw: Any = connection.connection.driver_connection
            yield connection, lambda: self._read(raw)
        made.dispose()

    def _read(self, raw: sqlite3.Connection) -> Catalog:
        catalog = read_catalog(raw, self._exclude)
        self._seen[catalog.revision] = catalog, schema_statements(raw)
        out = [name for name in user_tables(raw) if is_excluded(name, self._exclude)]
        self._left_out.update(name.casefold() for name in (*out, *unsyncable_tables(raw)))
        return catalog

    def reads(self, shape: Catalog, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
        """See ports.Sketch."""
        with closing(self._built(shape)) as connection:
            return plans.reads(connection, sql, staged)

    def plan(self, shape: Catalog, relation: Relation) -> QueryPlan:
        """See ports.Sketch."""
        with closing(self._built(shape)) as connection:
            return self._known(shape, plans.plan(connection, relation, lambda: self._built(shape)))

    def asked(self, shape: Catalog, query: str, width: int) -> QueryPlan:
        """See ports.Sketch."""
        with closing(self._built(shape)) as connection:
            return self._known(shape, plans.asked(connection, query, width, lambda: self._built(shape)))

    def _known(self, shape: Catalog, found: QueryPlan) -> QueryPlan:
        """Of a shape that was only recorded the indexes are not known."""
        return QueryPlan(found.lines) if self._made_here(shape) is None else found

    def _made_here(self, shape: Catalog) -> list[str] | None:
        """The statements that make a shape, where it came about by revisions that ran here."""
        catalog, statements = self._seen.get(shape.revision, (None, []))
        return statements if catalog == shape else None

    def _built(self, shape: Catalog) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute(plans.key_table())
        known = self._made_here(shape)
        for statement in known if known is not None else _tables(shape.tables):
            connection.execute(statement)
        return connection


def _tables(tables: Mapping[str, Table]) -> Iterator[str]:
    for table in tables.values():
        columns = [(c.name, c.type, c.collation) for c in table.columns if not c.generated]
        yield table.ddl or scratch_statements(columns, table.name)
