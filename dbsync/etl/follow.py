"""From `key` to rules: how changed keys of what a SELECT reads become keys of what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dbsync.errors import ConfigError
from dbsync.etl.crossing import KeySpec, TableCrossing, is_query
from dbsync.etl.equal import Equalities
from dbsync.etl.keys import KeyRule, Place, projected
from dbsync.etl.keys import asked as asks
from dbsync.etl.query import Query, Speech, Where
from dbsync.etl.question import WAYS as QUERY_WAYS
from dbsync.etl.question import KeyQuery, read_question, whole_keys
from dbsync.etl.stage import Rules, Stage

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
    cardinality: str = "1:1"
    number: int = 1

    @property
    def mark(self) -> str:
        """What the names of the queries of this step begin with."""
        return f"{self.speech.mark}{self.number}"

    def owns(self, table: str, column: str) -> bool:
        """Whether a table (folded) that it reads has that column."""
        stage = self.sources.get(table)
        return stage is not None and column.casefold() in {each.casefold() for each in stage.readable}


@dataclass(frozen=True, slots=True)
class Followed:
    """The rules by table of the database; the source that drives the SELECT row by row; the leading columns known."""

    rules: Rules
    driver: Stage | None
    lead: int | None
    """How many columns at the beginning of the target's key every source passes on (None: all)."""


def followed(crossing: TableCrossing, asked: Asked) -> Followed:
    """How changes of what a SELECT reads give keys of what it gives. Raises ConfigError `crossing-key`."""
    specs = _specs(crossing, asked)
    equalities = Equalities(asked.query, asked.owns)
    places = {name: _projection(spec, name, asked) for name, spec in specs.items()}
    rules: dict[str, tuple[KeyRule, ...]] = {}
    driver: Stage | None = None
    for name, source in asked.sources.items():
        projection = places[name]
        if projection is None:
            local = _query_rules(str(specs[name]), name, places, asked, equalities)
        else:
            local = _projected_rules(name, projection, asked, equalities)
            whole = sorted(place for place in projection if place is not None) == list(range(len(source.key)))
            driver = source if name == asked.query.driving and whole else driver
        for origin, found in local.items():
            rules[origin] = tuple(dict.fromkeys((*rules.get(origin, ()), *found)))
    return Followed(rules, driver, _lead(places.values()))


def _lead(projections: Iterable[tuple[Place, ...] | None]) -> int | None:
    given = [[place is not None for place in places] for places in projections if places is not None]
    if all(all(known) for known in given):
        return None
    return min((known.index(False) for known in given if not all(known)), default=0)


def guess_key(crossing: TableCrossing, query: Query, sources: Stages, where: Where) -> tuple[str, ...]:
    """The target's key where its shape is not recorded: the columns that the source's key is passed on under."""
    if crossing.cardinality == "1:n":
        raise where.error(
            "crossing-key",
            'the shape at this revision is not recorded, and with cardinality="1:n" the key of the target is not clear',
            "run the revision through `dbsync migrate`, which records its shape",
        )
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


def _projection(spec: KeySpec, name: str, asked: Asked) -> tuple[Place, ...] | None:
    """Where the target's key columns stand in a source's key (None for a query). Raises ConfigError."""
    source, where = asked.sources[name], asked.where
    if source.broken or not source.key:
        raise where.error(
            "crossing-key",
            f"changes of {source.table} cannot be followed: {source.broken or 'it has no primary key'}",
            "give the table a primary key, or a crossing at the step before",
        )
    if isinstance(spec, str) and is_query(spec):
        return None
    if sum(read.name.casefold() == name for read in asked.query.reads) > 1:
        raise where.error(
            "crossing-key",
            f"the SELECT reads {source.table} more than once, so that a changed row touches more than its own key",
            "give a query over :keys that finds every touched row",
        )
    return _places(spec, source, asked)


def _projected_rules(
    name: str, places: tuple[Place, ...], asked: Asked, equalities: Equalities
) -> dict[str, tuple[KeyRule, ...]]:
    source = asked.sources[name]
    for target, place in zip(asked.key, places, strict=True):
        if place is not None:
            _check_passed_on(target, name, source.key[place], asked, equalities)
    return _through(source, places, asked)


def _through(source: Stage, places: tuple[Place, ...], asked: Asked) -> dict[str, tuple[KeyRule, ...]]:
    """The rules of a source followed by a projection of its key."""
    more = projected(places)
    found: dict[str, tuple[KeyRule, ...]] = {}
    for base, rules in source.rules.items():
        each = [rule.then(more) for rule in rules]
        found[base] = tuple(
            one if one.known else _whole(rule, source, asked).then(more) for rule, one in zip(rules, each, strict=True)
        )
    return found


def _whole(rule: KeyRule, source: Stage, asked: Asked) -> KeyRule:
    """The rule with whole keys of its stage at the end."""
    if not rule.partial:
        return rule
    _refuse_mute(source, asked)
    return rule.then(whole_keys(source, rule.known, asked.speech, asked.mark, asked.where))


def _query_rules(
    text: str,
    name: str,
    projections: Mapping[str, tuple[Place, ...] | None],
    asked: Asked,
    equalities: Equalities,
) -> dict[str, tuple[KeyRule, ...]]:
    source, where = asked.sources[name], asked.where
    query = read_question(text, len(source.key), asked.speech, where)
    stages: dict[str, Stage] = {}
    for read in query.tables:
        stage = asked.before.get(read)
        if stage is None:
            raise where.error(
                "broken-crossing", f"the key query of {source.table} reads an unknown table", "correct it"
            )
        _refuse_mute(stage, asked)
        stages[read] = stage
    width = len(asked.key)
    if query.gives > width or (query.gives < width and asked.cardinality != "1:n"):
        raise where.error(
            "crossing-key",
            f"the key query of {source.table} selects {query.gives} column(s)",
            f"select the target's key, ({', '.join(asked.key)}), in that order",
        )
    copied = query.copied()
    if copied is not None:
        places = tuple(copied[place] if place < query.gives else None for place in range(width))
        return _through(source, places, asked)
    settled = _settled(query, name, projections, asked, equalities)
    question = query.question(stages, asked.speech, asked.mark, settled)
    gives = [place if place < query.gives else None for place in range(width)]
    last = asks(replace(question, where=f"{where}: the key query of {source.table}"), range(len(source.key)), gives)
    return {
        base: tuple(_whole(rule, source, asked).then(last) for rule in rules) for base, rules in source.rules.items()
    }


def _settled(
    query: KeyQuery,
    name: str,
    projections: Mapping[str, tuple[Place, ...] | None],
    asked: Asked,
    equalities: Equalities,
) -> bool:
    """Whether a row that used to belong to a changed key is touched anyway, by a change of its own.

    It is where the query finds rows of one table by the column that the SELECT joins on, and each of them is
    followed by its own key: a row that belongs there no more was changed itself.
    """
    if not query.tables:
        return True
    if len(query.tables) != 1 or query.tables[0] not in asked.sources:
        return False
    own = query.tables[0]
    places = projections.get(own)
    if places is None or own == name:
        return False
    columns = [asked.sources[own].key[place] for place in places[: query.gives] if place is not None]
    ties = [(name, column.casefold()) for column in asked.sources[name].key]
    return len(columns) == query.gives and query.looks_up(own, columns, ties, equalities)


def _refuse_mute(stage: Stage, asked: Asked) -> None:
    if stage.mute and not asked.speech.past:
        raise asked.where.error(
            "crossing-key", f"a key query cannot be asked of {stage.table}: {stage.mute}", QUERY_WAYS
        )


def _places(spec: KeySpec, source: Stage, asked: Asked) -> tuple[Place, ...]:
    """For each column of the target's key, where it stands in the source's key (None: it is one of several)."""
    many = asked.cardinality == "1:n"
    if isinstance(spec, Mapping):
        folded = {target.casefold(): column for target, column in spec.items()}
        keyed = {name.casefold() for name in asked.key}
        if not folded.keys() <= keyed or (len(folded) < len(keyed) and not many):
            raise _key_error(source, f"it gives ({', '.join(spec)})", asked)
        columns: list[str | None] = [folded.get(name.casefold()) for name in asked.key]
    else:
        given = (spec,) if isinstance(spec, str) else spec
        if len(given) > len(asked.key) or (len(given) < len(asked.key) and not many):
            raise _key_error(source, f"it gives {len(given)} column(s)", asked)
        columns = [*given, *[None] * (len(asked.key) - len(given))]
    own = [name.casefold() for name in source.key]
    for name in columns:
        if name is not None and name.casefold() not in own:
            raise _key_error(source, f"{name} is not in the primary key of {source.table}", asked)
    return tuple(None if name is None else own.index(name.casefold()) for name in columns)


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
