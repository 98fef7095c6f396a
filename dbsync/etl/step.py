"""One step of the revision path: a crossing's SELECT over the tables of the step before."""

from __future__ import annotations

from dataclasses import replace

from dbsync.etl.crossing import TableCrossing
from dbsync.etl.follow import Asked, Stages, followed, guess_key
from dbsync.etl.query import Query, Speech, Where, check_stable, parse, rename
from dbsync.etl.stage import Quote, Stage, settle
from dbsync.model import Column, Table


def selected(
    crossing: TableCrossing, before: Stages, shape: Table | None, last: bool, where: Where, number: int, speech: Speech
) -> Stage:
    """The target table that a crossing's SELECT gives. Raises ConfigError for everything that is wrong with it."""
    text = crossing.sql(speech.dialect)
    if text is None:
        raise where.error("broken-crossing", f"it has no SELECT for {speech.dialect}", "add one under dialects")
    if crossing.cardinality == "1:n":
        raise where.error("not-built", 'cardinality "1:n" is not built yet', "give the table a row for each source row")
    if crossing.row is not None and not last:
        raise where.error("not-built", "row= works at the last revision of a path only", "say it in SQL")
    query = parse(text, speech.parser, where)
    sources = _sources(query, before, where)
    check_stable(query, speech.parser, where, lambda name, column: _owns(before, name, column))
    _check_columns(query, sources, where)
    if crossing.row is None:
        # With row= the SELECT feeds a callable, and it is that which gives the target's columns.
        _check_outputs(query, before, shape, where)
    key = shape.key if shape is not None else guess_key(crossing, query, sources, where)
    stage = _stage(crossing, query, sources, number, speech.quote)
    if key:
        asked = Asked(query, sources, before, key, where, speech)
        rules, driver = followed(crossing, asked)
        stage = replace(stage, key=key, rules=rules)
        if driver is not None and crossing.cardinality == "1:1":
            stage = replace(stage, driver=driver.driver, driving=driver.driving)
    return stage if last or shape is None else settle(stage, shape, speech.quote, speech.stable)


def _stage(crossing: TableCrossing, query: Query, sources: Stages, number: int, quote: Quote) -> Stage:
    reads = {name: source.read(quote, f"s{number}") for name, source in sources.items()}
    loses: dict[str, str] = {}
    for source in sources.values():
        loses.update({name: why for name, why in source.loses.items() if name in source.columns})
    types: dict[str, Column] = {}
    for output in query.outputs:
        source_column = _type_of(output.column, query, sources)
        if source_column is not None:
            types[output.name.casefold()] = source_column
    return Stage(
        table=crossing.name,
        columns=tuple(output.name for output in query.outputs),
        key=(),
        origin=quote(crossing.name),
        rules={},
        body=rename(query, {name: reads[name][0] for name, source in sources.items() if source.derived}),
        ctes=tuple(dict(cte for _, ctes in reads.values() for cte in ctes).items()),
        types=types,
        loses={**loses, **crossing.loses},
        row=crossing.row,
        cardinality=crossing.cardinality,
        selects=1 + max(source.selects for source in sources.values()),
    )


def _sources(query: Query, before: Stages, where: Where) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    for read in query.reads:
        stage = before.get(read.name.casefold())
        if stage is None:
            names = ", ".join(sorted(each.table for each in before.values())) or "none"
            raise where.error(
                "broken-crossing",
                f"the SELECT reads {read.name}, which is not among the tables before this step ({names})",
                "correct the name; a table that is excluded, or that nothing fills, cannot be read",
            )
        found[read.name.casefold()] = stage
    if not found:
        raise where.error("broken-crossing", "the SELECT reads no table", "rows come out of the source's tables")
    return found


def _owns(before: Stages, name: str, column: str) -> bool:
    stage = before.get(name)
    return stage is not None and column.casefold() in {each.casefold() for each in stage.readable}


def _check_columns(query: Query, sources: Stages, where: Where) -> None:
    """A name in double quotes that is no column is taken for a string by some databases: it must be found here."""
    known = {column.casefold() for stage in sources.values() for column in stage.readable}
    known |= query.own_names
    for scope in query.scopes:
        aliases = {alias.casefold(): source for alias, source in scope.sources.items()}
        for column in scope.columns:
            read = query.table_of(aliases.get(column.table.casefold())) if column.table else None
            stage = sources[read] if read is not None else None
            readable = {each.casefold() for each in stage.readable} if stage is not None else known
            if column.name.casefold() not in readable and (stage is not None or not query.open):
                raise where.error(
                    "unknown-column",
                    f"the SELECT reads {column.sql()}, but {_has_no(stage)} such column",
                    "correct the column's name (text stands in single quotes)",
                )


def _has_no(stage: Stage | None) -> str:
    return f"{stage.table} has no" if stage is not None else "the tables that it reads have no"


def _check_outputs(query: Query, before: Stages, shape: Table | None, where: Where) -> None:
    if shape is None:
        return
    for output in query.outputs:
        column = shape.column(output.name)
        if column is None or column.generated:
            why = "is generated" if column is not None else "has no such column"
            raise where.error(
                "unknown-column", f"the SELECT gives {output.name}, but {shape.name} {why}", "take it out, or rename it"
            )
    given = {output.name.casefold() for output in query.outputs}
    same = before.get(shape.name.casefold())
    left = [name for name in (same.readable if same else ()) if name.casefold() not in given]
    omitted = [name for name in left if (column := shape.column(name)) is not None and not column.generated]
    if omitted:
        raise where.error(
            "crossing-omits-column",
            f"the SELECT leaves out {', '.join(omitted)}, which {shape.name} has before and after",
            "name every column that the target keeps",
        )


def _type_of(column: tuple[str, str] | None, query: Query, sources: Stages) -> Column | None:
    if column is None:
        return None
    qualifier, name = column
    table = query.alias_of(qualifier) if qualifier else None
    stages = [sources[table]] if table else [] if qualifier else list(sources.values())
    found = [stage.types.get(name.casefold()) for stage in stages if stage.has(name) is not None]
    return found[0] if len(found) == 1 else None
