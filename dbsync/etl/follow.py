"""From `key` to rules: how changed keys of what a SELECT reads become keys of what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dbsync.errors import ConfigError
from dbsync.etl.crossing import KeySpec, TableCrossing, is_query
from dbsync.etl.equal import Equalities
from dbsync.etl.keys import KeyRule
from dbsync.etl.query import Query, Speech, Where, tables_of
from dbsync.etl.stage import Rules, Stage, then

Stages = Mapping[str, Stage]
"""The tables of one step by folded name."""

WAYS = "give key={source table: column}, a list of columns, {target column: source column}, or a query over :keys"


@dataclass(frozen=True, slots=True)
class Asked:
    """A SELECT, what it reads, and the key of what it gives."""

    query: Query
    sources: Stages
    before: Stages
    key: tuple[str, ...]
    where: Where
    speech: Speech

    def owns(self, table: str, column: str) -> bool:
        """Whether a table (folded) that it reads has that column."""
        stage = self.sources.get(table)
        return stage is not None and column.casefold() in {each.casefold() for each in stage.readable}


def followed(crossing: TableCrossing, asked: Asked) -> tuple[Rules, Stage | None]:
    """The rules by table of the database, and the source that drives it row by row. ConfigError `crossing-key`."""
    specs = _specs(crossing, asked)
    equalities = Equalities(asked.query, asked.owns)
    rules: dict[str, tuple[KeyRule, ...]] = {}
    driver: Stage | None = None
    for name, source in asked.sources.items():
        local, places = _rules(specs[name], name, asked, equalities)
        for origin, found in local.items():
            rules[origin] = tuple(dict.fromkeys((*rules.get(origin, ()), *found)))
        if name == asked.query.driving and places is not None and sorted(places) == list(range(len(source.key))):
            driver = source
    return rules, driver


def guess_key(crossing: TableCrossing, query: Query, sources: Stages, where: Where) -> tuple[str, ...]:
    """The target's key where its shape is not recorded: the columns that the source's key is passed on under."""
    outputs = {output.column[1].casefold(): output.name for output in query.outputs if output.column is not None}
    for given, spec in (crossing.key or {}).items():
        if isinstance(spec, Mapping):
            return tuple(spec)
        wanted = (spec,) if isinstance(spec, str) else spec
        if not is_query(spec) and given.casefold() in sources and all(name.casefold() in outputs for name in wanted):
            return tuple(outputs[name.casefold()] for name in wanted)
    if crossing.key is None and len(sources) == 1:
        (source,) = sources.values()
        if source.key and all(name.casefold() in outputs for name in source.key):
            return tuple(outputs[name.casefold()] for name in source.key)
    raise where.error(
        "crossing-key",
        "the shape at this revision is not recorded, and the target's key does not follow from key",
        "give key as {source table: {target column: source column}}",
    )


def _specs(crossing: TableCrossing, asked: Asked) -> dict[str, KeySpec]:
    sources, key, where = asked.sources, asked.key, asked.where
    if crossing.key is None:
        names = [stage.key for stage in sources.values()]
        if len(names) == 1 and names[0] and {n.casefold() for n in names[0]} == {n.casefold() for n in key}:
            return {name: tuple(key) for name in sources}
        tables = ", ".join(stage.table for stage in sources.values())
        raise where.error("crossing-key", f"key is missing: how {tables} gives ({', '.join(key)}) is not clear", WAYS)
    specs: dict[str, KeySpec] = {}
    for given, spec in crossing.key.items():
        if given.casefold() not in sources:
            raise where.error("crossing-key", f"key names {given}, which the SELECT does not read", "take it out")
        specs[given.casefold()] = spec
    missing = [stage.table for name, stage in sources.items() if name not in specs]
    if missing:
        raise where.error("crossing-key", f"the SELECT reads {', '.join(missing)}, which does not stand in key", WAYS)
    return specs


def _rules(spec: KeySpec, name: str, asked: Asked, equalities: Equalities) -> tuple[Rules, tuple[int, ...] | None]:
    """How changed keys of one source come to be keys of the target, and its projection where it is one."""
    source, where = asked.sources[name], asked.where
    if source.broken or not source.key:
        raise where.error(
            "crossing-key",
            f"changes of {source.table} cannot be followed: {source.broken or 'it has no primary key'}",
            "give the table a primary key, or a crossing at the step before",
        )
    if isinstance(spec, str) and is_query(spec):
        return _query_rule(spec, source, asked), None
    if sum(read.name.casefold() == name for read in asked.query.reads) > 1:
        raise where.error(
            "crossing-key",
            f"the SELECT reads {source.table} more than once, so that a changed row touches more than its own key",
            "give a query over :keys that finds every touched row",
        )
    places = _projection(spec, source, asked)
    for target, place in zip(asked.key, places, strict=True):
        _check_passed_on(target, name, source.key[place], asked, equalities)
    return then(source.rules, places), places


def _query_rule(text: str, source: Stage, asked: Asked) -> Rules:
    where = asked.where
    if len(source.key) != 1:
        raise where.error("crossing-key", f"a key query needs one key column, {source.table} has more", "name columns")
    stages = [source, *(asked.before.get(name) for name in tables_of(text, asked.speech.parser, where))]
    for stage in stages:
        if stage is None:
            raise where.error(
                "broken-crossing", f"the key query of {source.table} reads an unknown table", "correct it"
            )
        if stage.derived:
            raise where.error(
                "crossing-key",
                f"the key query of {source.table} reads {stage.table}, which an earlier revision's crossing gives; "
                "a key query can only be asked of the database's own tables",
                "name columns of the source's key instead",
            )
    return {base: (KeyRule(tuple(range(len(asked.key))), text.strip()),) for base in source.rules}


def _projection(spec: KeySpec, source: Stage, asked: Asked) -> tuple[int, ...]:
    if isinstance(spec, Mapping):
        folded = {target.casefold(): column for target, column in spec.items()}
        if set(folded) != {name.casefold() for name in asked.key}:
            raise _key_error(source, f"it gives ({', '.join(spec)})", asked)
        columns: tuple[str, ...] = tuple(folded[name.casefold()] for name in asked.key)
    else:
        columns = (spec,) if isinstance(spec, str) else spec
    if len(columns) != len(asked.key):
        raise _key_error(source, f"it gives {len(columns)} column(s)", asked)
    own = [name.casefold() for name in source.key]
    for name in columns:
        if name.casefold() not in own:
            raise _key_error(source, f"{name} is not in the primary key of {source.table}", asked)
    return tuple(own.index(name.casefold()) for name in columns)


def _key_error(source: Stage, found: str, asked: Asked) -> ConfigError:
    return asked.where.error(
        "crossing-key",
        f"key of {source.table}: {found}; the target's key is ({', '.join(asked.key)}), "
        f"the primary key of {source.table} is ({', '.join(source.key)})",
        "name columns of the source's primary key, or give a query over :keys that selects the target's key",
    )


def _check_passed_on(target: str, name: str, column: str, asked: Asked, equalities: Equalities) -> None:
    """The SELECT must pass the key column on as it is, or the rule would read other rows than those that changed."""
    source, where = asked.sources[name], asked.where
    output = next((each for each in asked.query.outputs if each.name.casefold() == target.casefold()), None)
    if output is None:
        raise where.error("crossing-key", f"the SELECT does not give {target}, a column of the target's key", "add it")
    if output.node is None:
        raise where.error(
            "crossing-key",
            f"{target} is computed, so changes of {source.table} cannot be followed to it",
            f"pass {column} on as it is, or give a query over :keys",
        )
    root = asked.query.scopes[-1]
    if not any(equalities.tied(place, (name, column.casefold())) for place in equalities.places(output.node, root)):
        raise where.error(
            "crossing-key",
            f"key says that {target} is {source.table}.{column}, but the SELECT takes it from {output.node.sql()}, "
            "and no join says that the two are equal",
            "make the two agree, or give a query over :keys",
        )
