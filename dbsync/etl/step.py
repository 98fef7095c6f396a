"""One step of the revision path: a crossing's SELECT over the tables of the step before."""

from __future__ import annotations

from dataclasses import replace

from dbsync.etl.crossing import TableCrossing
from dbsync.etl.follow import Asked, Stages, followed, guess_key
from dbsync.etl.losing import passed_on
from dbsync.etl.lost import loses_through, lost_through
from dbsync.etl.once import declared_once, once_through
from dbsync.etl.query import Query, Speech, Where, parse, rename
from dbsync.etl.stable import Known, check_stable
from dbsync.etl.stage import Quote, Stage, settle
from dbsync.etl.staged import staged
from dbsync.model import Column, Table

ROW = "row= gives its rows"


def selected(
    crossing: TableCrossing, before: Stages, shape: Table | None, last: bool, where: Where, number: int, speech: Speech
) -> Stage:
    """The target table that a crossing's SELECT gives. Raises ConfigError for everything that is wrong with it."""
    text = crossing.sql(speech.dialect)
    if text is None:
        raise where.error("broken-crossing", f"it has no SELECT for {speech.dialect}", "add one under dialects")
    query = parse(text, speech.parser, where)
    sources = _sources(query, before, where)
    known = Known(lambda name, column: _owns(before, name, column), lambda name, column: _type(sources, name, column))
    if not speech.past:  # it was looked at when the chain itself was made
        check_stable(query, speech.parser, where, known, frozenset(name.casefold() for name in crossing.once))
    _check_columns(query, sources, where)
    if crossing.row is None:
        # With row= the SELECT feeds a callable, and it is that which gives the target's columns.
        _check_outputs(query, before, shape, where)
    key = shape.key if shape is not None else guess_key(crossing, query, sources, where)
    stage = _stage(crossing, query, sources, f"{speech.mark}{number}", speech.quote)
    if key:
        stage = _keyed(stage, crossing, Asked(query, sources, before, key, where, speech, crossing.cardinality, number))
    once = _once(crossing, query, sources, shape, key, where)
    stage = replace(stage, losing=passed_on(query, sources, where, key), once=once)
    if crossing.row is not None and not last:
        return _staged(stage, shape, where, f"{speech.mark}{number}", speech)
    return stage if last or shape is None else settle(stage, shape, speech.quote, speech.stable)


def _staged(stage: Stage, shape: Table | None, where: Where, mark: str, speech: Speech) -> Stage:
    if shape is None:
        raise where.error(
            "shape-unknown",
            "row= stands in the middle of the path, and the shape of this revision is not recorded,"
            " so that the types of the columns that it makes are not known",
            "run the revision through `dbsync migrate`, which records its shape; or say it in SQL",
        )
    if not shape.key:
        raise where.error("crossing-key", f"{shape.name} has no primary key", "give it one, or say it in SQL")
    return staged(stage, shape, mark, speech)


def _once(
    crossing: TableCrossing, query: Query, sources: Stages, shape: Table | None, key: tuple[str, ...], where: Where
) -> frozenset[str]:
    # With row= it is the callable that gives the columns of the shape.
    gives = shape.stored if crossing.row is not None and shape is not None else [each.name for each in query.outputs]
    declared_once(crossing, {name.casefold(): None for name in gives}, key, where)
    return once_through(query, sources, crossing, where)


def _keyed(stage: Stage, crossing: TableCrossing, asked: Asked) -> Stage:
    """The stage with its key, and how changes are followed to it. Raises ConfigError `crossing-key`."""
    found = followed(crossing, asked)
    stage = replace(stage, key=asked.key, rules=found.rules)
    if crossing.row is not None:
        width = len(asked.key)
        given = [stage.has(name) is not None for name in asked.key]
        lead = min(width if found.lead is None else found.lead, given.index(False) if False in given else width)
        stage = replace(stage, lead=None if lead == width else lead)
        if lead == 0:
            raise asked.where.error(
                "crossing-key",
                f"with row= the source's key must give the first columns of the target's, ({', '.join(asked.key)})",
                "order the key of the target so, or say it in SQL",
            )
    if found.driver is not None:
        exact = crossing.cardinality == "1:1" and found.driver.exact
        stage = replace(stage, driver=found.driver.driver, driving=found.driver.driving, exact=exact)
    return stage


def _stage(crossing: TableCrossing, query: Query, sources: Stages, suffix: str, quote: Quote) -> Stage:
    reads = {name: source.read(quote, suffix) for name, source in sources.items()}
    mute, lost = lost_through(query, sources)
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
        loses={**loses_through(query, sources), **crossing.loses},
        row=crossing.row,
        staged=tuple(dict.fromkeys(each for source in sources.values() for each in source.staged)),
        cardinality=crossing.cardinality,
        selects=1 + max(source.selects for source in sources.values()),
        mute=mute or (ROW if crossing.row is not None else ""),
        lost=lost,
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


def _type(sources: Stages, name: str, column: str) -> str:
    stage = sources.get(name)
    found = stage.types.get(column.casefold()) if stage is not None else None
    return "" if found is None else found.type


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
                where.refuse(
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
            where.refuse(
                "unknown-column", f"the SELECT gives {output.name}, but {shape.name} {why}", "take it out, or rename it"
            )
    given = {output.name.casefold() for output in query.outputs}
    same = before.get(shape.name.casefold())
    left = [name for name in (same.readable if same else ()) if name.casefold() not in given]
    omitted = [name for name in left if (column := shape.column(name)) is not None and not column.generated]
    if omitted:
        where.refuse(
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
