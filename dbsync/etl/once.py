"""Columns that are set once, when their row is created: declared by a crossing, and carried along the path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlglot import exp

from dbsync.etl.crossing import TableCrossing
from dbsync.etl.query import Query, Where
from dbsync.etl.stage import Stage
from dbsync.model import Direction


def declared_once(crossing: TableCrossing, given: Mapping[str, object], key: tuple[str, ...], where: Where) -> None:
    """Raises ConfigError (`crossing-once`) unless each `once` names a column that the crossing gives, outside the key.

    `given` are the columns that it gives, by folded name.
    """
    if crossing.once and where.direction != Direction.FORWARD:
        raise where.error(
            "crossing-once",
            "once= stands in a reverse crossing",
            "take it out: only columns of the newer shape can be set once",
        )
    for name in crossing.once:
        if name.casefold() not in given:
            raise where.error("crossing-once", f"once= names {name}, which the crossing does not give", "correct it")
        if name.casefold() in {each.casefold() for each in key}:
            raise where.error(
                "crossing-once",
                f"once= names {name}, a column of the key: a row whose key is another one each time is another row",
                "give the key out of the source's key",
            )


def once_through(query: Query, sources: Mapping[str, Stage], crossing: TableCrossing, where: Where) -> frozenset[str]:
    """The columns that are set once after this step: those passed on as they are, and its own (folded names).

    Raises ConfigError (`crossing-once`) where it computes with one: that would be another value at every reading.
    """
    passed = {id(output.node): output.name for output in query.outputs if output.node is not None}
    found = {name.casefold() for name in crossing.once}
    for column, stage in _mentions(query, sources):
        name = passed.get(id(column))
        if name is None or crossing.row is not None:
            raise where.error(
                "crossing-once",
                f"the SELECT computes with {column.sql()}, but {stage.table}.{column.name} is set once at an earlier"
                " revision: out of another database it comes out otherwise at every reading",
                "pass the column on as it is, or set it once at the last revision that has to do with it",
            )
        found.add(name.casefold())
    return frozenset(found)


def _mentions(query: Query, sources: Mapping[str, Stage]) -> Iterator[tuple[exp.Column, Stage]]:
    for scope in query.scopes if any(stage.once for stage in sources.values()) else ():
        aliases = {alias.casefold(): source for alias, source in scope.sources.items()}
        for column in scope.columns:
            source = aliases.get(column.table.casefold()) if column.table else None
            if column.table and not isinstance(source, exp.Table):
                continue  # a part of the SELECT's own, which is looked at where it reads the table
            named = [source.name.casefold()] if isinstance(source, exp.Table) else list(sources)
            for name in named:
                if name in sources and column.name.casefold() in sources[name].once:
                    yield column, sources[name]
