"""Crossings composed along a revision path: one query, and its key rules, for each table of the target."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from dbsync.errors import Refused
from dbsync.etl.crossing import Pair, RowMap, TableCrossing
from dbsync.etl.follow import Stages
from dbsync.etl.keys import KeyRule, fold_text
from dbsync.etl.query import Speech, Where, speech
from dbsync.etl.stage import Stage, by_name, stored
from dbsync.etl.step import selected
from dbsync.model import Capabilities, Catalog, Direction, Key, Relation, Table
from dbsync.ports import Rows


@dataclass(frozen=True, slots=True)
class TablePlan:
    """How the rows of one target table come about."""

    relation: Relation
    """The table's rows, out of the other database."""
    by_name: bool
    """Whether no crossing's SELECT takes part."""
    sources: Mapping[str, tuple[KeyRule, ...]]
    """For each table of the other database that it reads: how changed keys there give keys here."""
    loses: Mapping[str, str]
    """Columns that cannot bring back what they held, with the reason."""
    hash: str
    stored: Relation
    """The rows that the target's own table holds, with the same columns and key."""
    driver: Relation | None = None
    """The keys of the source table that gives exactly one row for each of its own, where one does."""
    cardinality: str = "1:1"
    collations: tuple[str, ...] = ()
    """For each key column the collation that says which keys are one key; empty where equal bytes do."""

    def same_key(self, key: Key) -> Key:
        """The key as a word that is equal for keys that the target's table takes for one."""
        if not any(self.collations):
            return key
        return tuple(
            fold_text(part, collation) if collation and isinstance(part, str) else part
            for part, collation in zip(key, self.collations, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Composition:
    """One direction between two databases: a plan for each table of the target that rows cross into."""

    direction: Direction
    tables: Mapping[str, TablePlan]
    hash: str
    keyless: tuple[str, ...] = ()
    """Tables that cannot cross because they have no primary key."""
    impossible: Mapping[str, str] = field(default_factory=dict)
    """Tables whose rows cannot be made, with the reason (only in the direction that is not required now)."""
    assumed: tuple[str, ...] = ()
    """Revisions that have a crossing the other way only: by column name this way, which nobody has declared."""

    def targets(self, view: Rows, source_table: str, keys: Sequence[Key]) -> dict[str, list[Key]]:
        """The target keys that changed keys of a source table touch, by target table, each key once."""
        found: dict[str, list[Key]] = {}
        for table, plan in self.tables.items():
            rules = _rules_for(plan, source_table)
            touched = dict.fromkeys(key for rule in rules for key in rule.keys(view, keys))
            if touched:
                found[table] = list(touched)
        return found

    def born(self, view: Rows, source_table: str, keys: Sequence[Key]) -> dict[str, list[Key]]:
        """The target keys at which a row is new because the row that drives it is, by target table.

        A row that is merely joined in makes no target row: what stands there goes on living.
        """
        found: dict[str, list[Key]] = {}
        for table, plan in self.tables.items():
            if plan.driver is not None and plan.driver.table.casefold() == source_table.casefold():
                rules = [rule for rule in _rules_for(plan, source_table) if rule.query is None]
                found[table] = [key for rule in rules for key in rule.keys(view, keys)]
        return found

    def targets_of(self, source_table: str) -> tuple[str, ...]:
        """The target tables that read a source table."""
        return tuple(table for table, plan in self.tables.items() if _rules_for(plan, source_table))


def compose(
    older: Catalog,
    newer: Catalog,
    steps: Sequence[tuple[str, Pair]],
    direction: Direction,
    shapes: Mapping[str, Catalog],
    capabilities: Capabilities,
    excluded: frozenset[str] = frozenset(),
    lenient: bool = False,
) -> Composition:
    """The composition from `older` to `newer` (or back) through the steps, given in path order.

    `shapes` holds what is known of the revisions between; `excluded` folded names of tables that do not
    cross. Raises ConfigError for a crossing that is wrong, Refused (`missing-crossing`) for a target
    table that cannot be filled; `lenient` notes the latter in `impossible` instead.
    """
    forward = direction is Direction.FORWARD
    start, end = (older, newer) if forward else (newer, older)
    said = speech(capabilities)
    base = {name.casefold(): stored(table, said.quote) for name, table in start.tables.items()}
    stages: Stages = {name: stage for name, stage in base.items() if name not in excluded}
    ordered = list(steps) if forward else list(reversed(steps))
    after = [revision for revision, _ in ordered][0 if forward else 1 :]
    for number, (revision, pair) in enumerate(ordered, 1):
        last = number == len(ordered)
        shape = end if last else shapes.get(after[number - 1])
        stages = _advance(stages, pair, (revision, number), shape, direction, last, said, excluded)
    if not ordered:
        stages = {name: _named(stage, end, True, said) for name, stage in stages.items()}
    made = _plans(stages, end, excluded, said, lenient)
    names = [
        revision for revision, pair in steps if _given(pair, direction) is None and _given(pair, _turned(direction))
    ]
    digest = _digest(sorted((name, plan.hash) for name, plan in made.plans.items()))
    return Composition(direction, made.plans, digest, tuple(made.keyless), made.impossible, tuple(names))


def _advance(
    before: Stages,
    pair: Pair,
    place: tuple[str, int],
    shape: Catalog | None,
    direction: Direction,
    last: bool,
    said: Speech,
    excluded: frozenset[str],
) -> Stages:
    crossing = _given(pair, direction)
    tables: Iterable[TableCrossing] = crossing.tables if crossing is not None else ()
    mine = {each.name.casefold(): each for each in tables if each.name.casefold() not in excluded}
    stages: dict[str, Stage] = {}
    for name, stage in before.items():
        if (name not in mine or mine[name].by_name) and (shape is None or shape.table(name) is not None):
            stages[name] = _named(stage, shape, last, said, mine.get(name))
    for name, each in mine.items():
        where = Where(place[0], each.name, str(direction), str(pair.path))
        table = shape.table(each.name) if shape is not None else None
        if shape is not None and table is None:
            raise where.error("unknown-table", "the target has no such table", "correct the name of the table")
        if not each.by_name:
            stages[name] = selected(each, before, table, last, where, place[1], said)
        elif name not in before:
            raise where.error("broken-crossing", "it has no SELECT, and no table of that name", "give it a select")
    return stages


def _named(
    stage: Stage, shape: Catalog | None, last: bool, said: Speech, crossing: TableCrossing | None = None
) -> Stage:
    table = shape.table(stage.table) if shape is not None else None
    loses = crossing.loses if crossing is not None else {}
    return by_name(stage, table, last, said.quote, said.stable, loses)


@dataclass(slots=True)
class _Made:
    plans: dict[str, TablePlan] = field(default_factory=dict)
    keyless: list[str] = field(default_factory=list)
    impossible: dict[str, str] = field(default_factory=dict)


def _plans(stages: Stages, end: Catalog, excluded: frozenset[str], said: Speech, lenient: bool) -> _Made:
    made = _Made()
    for name, table in end.tables.items():
        stage = stages.get(name.casefold())
        if stage is None or name.casefold() in excluded:
            continue
        if not table.key or not stage.key:
            made.keyless.append(name)
            continue
        reason = stage.broken or _lacking(stage, table)
        if reason and not lenient:
            raise Refused(
                f"table {name} cannot be filled: {reason}",
                code="missing-crossing",
                remedy="write a crossing for it, or make the column nullable or give it a default",
            )
        if reason:
            made.impossible[name] = reason
        else:
            made.plans[name] = _plan(name, stage, table, said)
    return made


def _lacking(stage: Stage, table: Table) -> str:
    if stage.row is not None:
        return ""
    lacks = [
        column.name
        for column in table.columns
        if not column.generated and stage.has(column.name) is None and (column.key or not column.fills_itself)
    ]
    return f"nothing gives {', '.join(lacks)}, which may not be empty and has no default" if lacks else ""


def _plan(name: str, stage: Stage, table: Table, said: Speech) -> TablePlan:
    if stage.row is not None:
        wanted, columns = [(own, _as_spelt(table, own)) for own in stage.columns], table.stored
    else:
        wanted = [(own, column) for column in table.stored if (own := stage.has(column)) is not None]
        columns = tuple(column for _, column in wanted)
    relation = Relation(name, columns, table.key, stage.select(said.quote, wanted), stage.row)
    held = Relation(name, columns, table.key, _plain(name, columns, said))
    keyed = [table.column(column) for column in table.key]
    loses = dict(stage.loses)
    return TablePlan(
        relation=relation,
        by_name=stage.selects == 0,
        sources=dict(stage.rules),
        loses=loses,
        hash=_plan_hash(relation, stage.rules, loses, table),
        stored=held,
        driver=_driver(stage, said),
        cardinality=stage.cardinality,
        collations=tuple(_folding(column.collation) if column is not None else "" for column in keyed),
    )


def _as_spelt(table: Table, name: str) -> str:
    column = table.column(name)
    return name if column is None else column.name


def _driver(stage: Stage, said: Speech) -> Relation | None:
    if stage.driver is None or stage.cardinality != "1:1":
        return None
    return Relation(stage.driver, stage.driving, stage.driving, _plain(stage.driver, stage.driving, said))


def _plain(table: str, columns: Iterable[str], said: Speech) -> str:
    gives = ", ".join(f"q.{said.quote(column)} AS {said.quote(column)}" for column in columns)
    return f"SELECT {gives} FROM {said.quote(table)} AS q"


def _folding(collation: str | None) -> str:
    upper = (collation or "BINARY").upper()
    return "" if "BIN" in upper or "_CS" in upper else upper


def _plan_hash(
    relation: Relation, rules: Mapping[str, tuple[KeyRule, ...]], loses: Mapping[str, str], table: Table
) -> str:
    types = [(column.name, column.type) for column in table.columns if column.name in relation.columns]
    keys = [(name, [(rule.places, rule.query) for rule in each]) for name, each in sorted(rules.items())]
    row = _code(relation.row)
    return _digest(
        [relation.table, relation.columns, relation.key, relation.sql, keys, sorted(loses.items()), row, types]
    )


def _code(row: RowMap | Any) -> Any:
    """What a callable does, without the addresses that the repr of nested code has."""
    code = getattr(row, "__code__", None) if row is not None else None
    if code is None and hasattr(row, "co_code"):
        code = row
    if code is None:
        return None if row is None else getattr(row, "__qualname__", type(row).__qualname__)
    consts = [_code(const) if hasattr(const, "co_code") else repr(const) for const in code.co_consts]
    return [code.co_code.hex(), consts, list(code.co_names)]


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()


def _given(pair: Pair, direction: Direction) -> Any:
    return pair.forward if direction is Direction.FORWARD else pair.reverse


def _turned(direction: Direction) -> Direction:
    return Direction.REVERSE if direction is Direction.FORWARD else Direction.FORWARD


def _rules_for(plan: TablePlan, source: str) -> tuple[KeyRule, ...]:
    found = plan.sources.get(source)
    if found is not None:
        return found
    folded = source.casefold()
    return next((rules for name, rules in plan.sources.items() if name.casefold() == folded), ())
