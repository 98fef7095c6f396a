"""Crossings composed along a revision path: one query, and its key rules, for each table of the target."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from dbsync.errors import ConfigError, Refused
from dbsync.etl.before import Before, touched_keys
from dbsync.etl.crossing import Pair, TableCrossing
from dbsync.etl.follow import Stages
from dbsync.etl.keys import KeyRule, fold_text
from dbsync.etl.losing import declared, folding, kept, moved_on, policies
from dbsync.etl.query import Speech, Where, speech
from dbsync.etl.stage import Rules, Stage, by_name, stored
from dbsync.etl.staged import code_words, collating, followed_rules, placed, words
from dbsync.etl.step import selected
from dbsync.model import Capabilities, Catalog, Direction, Key, Relation, Table
from dbsync.ports import Rows

PAST = "was"
"""What the names of the queries of a chain begin with that goes on from another one's end."""


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
    bearer: str = ""
    """The source table whose new rows make new rows here (empty: none does alone)."""
    cardinality: str = "1:1"
    collations: tuple[str, ...] = ()
    """For each key column the collation that says which keys are one key; empty where equal bytes do."""
    losing: Mapping[str, str] = field(default_factory=dict)
    """By column of a newer table the policy for values that the older shape cannot hold, where one is declared."""

    @property
    def bare(self) -> Relation:
        """The rows without what is kept for them: what the other database's own tables give."""
        return replace(self.relation, kept=()) if self.relation.kept else self.relation

    once: frozenset[str] = frozenset()
    """Columns that are set when a row is created, and neither overwritten nor compared afterwards."""

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
    stages: Mapping[str, Stage] = field(default_factory=dict, repr=False, compare=False)
    """Every table at the last step, by folded name, for a chain that goes on from there."""
    assumed: tuple[str, ...] = ()
    """Revisions that have a crossing the other way only: by column name this way, which nobody has declared."""

    def targets(
        self, view: Rows, source_table: str, keys: Sequence[Key], before: Before | None = None
    ) -> dict[str, list[Key]]:
        """The target keys that changed keys of a source table touch, by target table, each key once.

        `view` shows the source after the change, `before` what the target still reflects of it (Lens.before): a row
        that has moved from one parent to another touches both. Without `before` only the keys as they are now are
        given, which is right only where one state is asked about.
        """
        found: dict[str, list[Key]] = {}
        for table, plan in self.tables.items():
            rules = _rules_for(plan.sources, source_table)
            past = _rules_for(before.rules.get(table, {}), source_table) if before is not None else ()
            touched = touched_keys(plan.relation, plan.stored, rules, past, view, keys, before)
            if touched:
                found[table] = touched
        return found

    def born(self, view: Rows, source_table: str, keys: Sequence[Key]) -> dict[str, list[Key]]:
        """The target keys at which a row is new because the row that drives it is, by target table.

        With "1:n" these are all the rows that a new driving row gives. A row that is merely joined in makes no
        target row: what stands there goes on living.
        """
        found: dict[str, list[Key]] = {}
        for table, plan in self.tables.items():
            if plan.bearer.casefold() == source_table.casefold():
                rules = [rule for rule in _rules_for(plan.sources, source_table) if not rule.questions]
                found[table] = touched_keys(plan.relation, plan.stored, rules, (), view, keys, None)
        return found

    def targets_of(self, source_table: str) -> tuple[str, ...]:
        """The target tables that read a source table."""
        return tuple(table for table, plan in self.tables.items() if _rules_for(plan.sources, source_table))


def compose(
    older: Catalog,
    newer: Catalog,
    steps: Sequence[tuple[str, Pair]],
    direction: Direction,
    shapes: Mapping[str, Catalog],
    capabilities: Capabilities,
    excluded: frozenset[str] = frozenset(),
    lenient: bool = False,
    noted: list[tuple[Where, ConfigError]] | None = None,
    base: Stages | None = None,
    past: bool = False,
) -> Composition:
    """The composition from `older` to `newer` (or back) through the steps, given in path order.

    `shapes` holds what is known of the revisions between; `excluded` folded names of tables that do not
    cross. Raises ConfigError for a crossing that is wrong, Refused (`missing-crossing`) for a target
    table that cannot be filled; `lenient` notes the latter in `impossible` instead, and `noted` takes every
    ConfigError that has to do with one table instead of raising the first one. `base` stands in for the tables
    that the path begins with; `past` says that it is the end of another chain, which tells an earlier state.
    """
    forward = direction is Direction.FORWARD
    start, end = (older, newer) if forward else (newer, older)
    said = speech(capabilities)
    if base is None:
        base = {name.casefold(): stored(table, said.quote) for name, table in start.tables.items()}
    if past:
        said = replace(said, mark=PAST, past=True)
    stages: Stages = {name: stage for name, stage in base.items() if name not in excluded}
    ordered = list(steps) if forward else list(reversed(steps))
    after = [revision for revision, _ in ordered][0 if forward else 1 :]
    for number, (revision, pair) in enumerate(ordered, 1):
        last = number == len(ordered)
        shape = end if last else shapes.get(after[number - 1])
        stages = _advance(stages, pair, (revision, number), shape, direction, last, said, excluded, noted)
    if not ordered:
        stages = {name: _named(stage, end, True, said) for name, stage in stages.items()}
    made = _plans(stages, end, excluded, said, lenient)
    names = [
        revision for revision, pair in steps if _given(pair, direction) is None and _given(pair, _turned(direction))
    ]
    digest = _digest(sorted((name, plan.hash) for name, plan in made.plans.items()))
    return Composition(direction, made.plans, digest, tuple(made.keyless), made.impossible, stages, tuple(names))


def _advance(
    before: Stages,
    pair: Pair,
    place: tuple[str, int],
    shape: Catalog | None,
    direction: Direction,
    last: bool,
    said: Speech,
    excluded: frozenset[str],
    noted: list[tuple[Where, ConfigError]] | None = None,
) -> Stages:
    crossing = _given(pair, direction)
    tables: Iterable[TableCrossing] = crossing.tables if crossing is not None else ()
    mine = {each.name.casefold(): each for each in tables if each.name.casefold() not in excluded}
    stages: dict[str, Stage] = {}
    for name, stage in before.items():
        if (name not in mine or mine[name].by_name) and (shape is None or shape.table(name) is not None):
            stages[name] = _named(stage, shape, last, said, mine.get(name))
    for name, each in mine.items():
        where = Where(place[0], each.name, str(direction), str(pair.path), noted)
        try:
            made = _given_rows(each, before, shape, last, where, place[1], said) or stages.get(name)
            losing = declared(made.losing if made is not None else {}, each, shape, where)
        except ConfigError as error:
            if noted is None:
                raise
            noted.append((where, error))
        else:
            if made is not None:
                stages[name] = replace(made, losing=losing)
    return stages


def _given_rows(
    each: TableCrossing, before: Stages, shape: Catalog | None, last: bool, where: Where, number: int, said: Speech
) -> Stage | None:
    """What a crossing says of one table; None where it has no SELECT. Raises ConfigError."""
    for todo in each.todos:
        where.refuse("crossing-todo", f"it still says: {todo}", "decide it, and take the TODO out")
    table = shape.table(each.name) if shape is not None else None
    if shape is not None and table is None:
        raise where.error("unknown-table", "the target has no such table", "correct the name of the table")
    if not each.by_name:
        return selected(each, before, table, last, where, number, said)
    if each.name.casefold() not in before and not each.loses:
        raise where.error("broken-crossing", "it has no SELECT, and no table of that name", "give it a select")
    return None


def _named(
    stage: Stage, shape: Catalog | None, last: bool, said: Speech, crossing: TableCrossing | None = None
) -> Stage:
    table = shape.table(stage.table) if shape is not None else None
    loses = crossing.loses if crossing is not None else {}
    moved = by_name(stage, table, last, said.quote, said.stable, loses)
    return replace(moved, losing=moved_on(stage, moved))


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
    keyed = [table.column(column) for column in table.key]
    folds = tuple(collating(column.collation) if column is not None else "" for column in keyed)
    relation = Relation(
        name, columns, table.key, stage.select(said.quote, wanted), stage.row, stage.lead, folds if stage.row else ()
    )
    relation = replace(relation, kept=kept(stage.losing, table, columns, stage.once, folding(folds)))
    held = Relation(name, columns, table.key, _plain(name, columns, said))
    relation = replace(relation, staged=placed(stage, table.key))
    loses, rules = dict(stage.loses), followed_rules(stage)
    once = frozenset(column for column in columns if column.casefold() in stage.once)
    return TablePlan(
        relation=relation,
        by_name=stage.selects == 0,
        sources=dict(rules),
        loses=loses,
        hash=_plan_hash(relation, rules, loses, table, once),
        stored=held,
        driver=_driver(stage, said),
        bearer=stage.driver or "",
        cardinality=stage.cardinality,
        collations=folds,
        losing=policies(stage.losing, table),
        once=once,
    )


def _as_spelt(table: Table, name: str) -> str:
    column = table.column(name)
    return name if column is None else column.name


def _driver(stage: Stage, said: Speech) -> Relation | None:
    if stage.driver is None or not stage.exact:
        return None
    return Relation(stage.driver, stage.driving, stage.driving, _plain(stage.driver, stage.driving, said))


def _plain(table: str, columns: Iterable[str], said: Speech) -> str:
    gives = ", ".join(f"q.{said.quote(column)} AS {said.quote(column)}" for column in columns)
    return f"SELECT {gives} FROM {said.quote(table)} AS q"


def _plan_hash(
    relation: Relation,
    rules: Mapping[str, tuple[KeyRule, ...]],
    loses: Mapping[str, str],
    table: Table,
    once: frozenset[str],
) -> str:
    types = [(column.name, column.type) for column in table.columns if column.name in relation.columns]
    keys = [(name, [rule.words() for rule in each]) for name, each in sorted(rules.items())]
    row = code_words(relation.row)
    beside = [(each.column, each.table, each.name) for each in relation.kept]
    return _digest(
        [relation.table, relation.columns, relation.key, relation.sql, keys, sorted(loses.items()), row, types, beside]
        + [words(replace(each.relation, key=each.key)) for each in relation.staged]
        + [sorted(once)]
    )


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=list).encode()).hexdigest()


def _given(pair: Pair, direction: Direction) -> Any:
    return pair.forward if direction is Direction.FORWARD else pair.reverse


def _turned(direction: Direction) -> Direction:
    return Direction.REVERSE if direction is Direction.FORWARD else Direction.FORWARD


def _rules_for(sources: Rules, source: str) -> tuple[KeyRule, ...]:
    found = sources.get(source)
    if found is not None:
        return found
    folded = source.casefold()
    return next((rules for name, rules in sources.items() if name.casefold() == folded), ())
