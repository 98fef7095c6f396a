"""A composition over the rows that the other direction gives: what the source was, told by the target.

The chain of one direction goes on where the chain of the other one ends. So a key query is asked of the state before a
change, and a row of the older shape is carried over and back, in one query over one database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbsync.errors import ConfigError
from dbsync.etl.compose import Composition, compose
from dbsync.etl.crossing import Pair
from dbsync.etl.follow import Stages
from dbsync.etl.keys import Question, identity
from dbsync.etl.query import Speech, speech
from dbsync.etl.question import WAYS
from dbsync.etl.stage import Stage, as_cast, stored
from dbsync.etl.step import ROW
from dbsync.model import Capabilities, Catalog, Direction, Relation, Table

Lost = Mapping[str, Mapping[str, str]]
"""By folded table, by folded column, why its value cannot be relied upon."""

_ABSENT = "which does not come back from the other database"
_COMPUTED = "which the database computes"


@dataclass(frozen=True, slots=True)
class Way:
    """What lies between two databases: their shapes, and the crossings in path order."""

    older: Catalog
    newer: Catalog
    steps: Sequence[tuple[str, Pair]]
    shapes: Mapping[str, Catalog]
    capabilities: Mapping[Direction, Capabilities]
    """Those of the database that a direction begins at."""
    excluded: frozenset[str] = field(default_factory=frozenset)

    def composed(
        self, direction: Direction, lenient: bool = False, base: Stages | None = None, past: bool = False
    ) -> Composition:
        """One direction. See `compose`."""
        speaks = self.capabilities[_turned(direction) if past else direction]
        return compose(
            self.older,
            self.newer,
            self.steps,
            direction,
            self.shapes,
            speaks,
            self.excluded,
            lenient=lenient,
            base=base,
            past=past,
        )

    def past(self, own: Composition, untold: Mapping[str, frozenset[str]]) -> Composition:
        """The same direction as `own`, over what its target tells of its source.

        `untold` are columns of the source that the target does not tell exactly, by table. Rules that cannot be asked
        there hold mute questions.
        """
        back = _turned(own.direction)
        said = speech(self.capabilities[back])
        declared = {
            name.casefold(): {c.casefold(): f"which loses what it held: {why}" for c, why in plan.loses.items()}
            for name, plan in own.tables.items()
        }
        start = self.newer if back is Direction.REVERSE else self.older
        told = self.composed(back, True, _spoiled(start, said, declared))
        lost = {name.casefold(): {c.casefold(): _ABSENT for c in columns} for name, columns in untold.items()}
        for name, stage in told.stages.items():
            own_loses = {c.casefold(): f"which loses what it held: {why}" for c, why in stage.loses.items()}
            lost[name] = {**lost.get(name, {}), **stage.lost, **own_loses}
        return self.composed(own.direction, True, self._base(told, back, said, lost), past=True)

    def over_and_back(self, there: Composition) -> dict[str, Relation]:
        """By table of the database that `there` begins at, the rows that come of its own by crossing over and back.

        Tables of which one query cannot say it are left out.
        """
        back = _turned(there.direction)
        said = speech(self.capabilities[there.direction])
        again = self.composed(back, True, self._base(there, there.direction, said, {}), past=True)
        found = {}
        for name, plan in again.tables.items():
            stage = again.stages[name.casefold()]
            if stage.mute in ("", ROW) and _COMPUTED not in stage.lost.values():
                found[name] = plan.relation
        return found

    def _base(self, told: Composition, direction: Direction, said: Speech, lost: Lost) -> Stages:
        """Every table of the shape in which `told`, going in that direction, ends: as it would be stored."""
        end = self.newer if direction is Direction.FORWARD else self.older
        return {
            folded: _as_stored(table, told.stages.get(folded), said, lost.get(folded, {}), told.direction)
            for name, table in end.tables.items()
            if (folded := name.casefold()) not in self.excluded
        }


def check_askable(own: Composition, past: Composition) -> list[Question]:
    """The questions that will be asked of an earlier state. ConfigError `crossing-key` for one that cannot be."""
    found: list[Question] = []
    for table, plan in own.tables.items():
        rules = past.tables[table].sources if table in past.tables else {}
        for source in plan.sources:
            for rule in rules.get(source, ()):
                if not rule.looks_back:
                    continue
                found += rule.questions
                for question in rule.questions:
                    if question.mute:
                        raise ConfigError(
                            f"{question.where} must also be asked of the rows as they were before a change, which the"
                            f" other database cannot tell: {question.mute}",
                            code="crossing-key",
                            remedy=WAYS,
                        )
    return found


def untold_of(forward: Composition, alone: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The columns of newer tables that the older side does not tell exactly: those left `alone`, and those that may
    hold what the older shape cannot."""
    found = {name: alone.get(name, frozenset()) | plan.losing.keys() for name, plan in forward.tables.items()}
    return {name: columns for name, columns in found.items() if columns}


def looks_back(composition: Composition) -> bool:
    """Whether a rule of it must be asked of the state before a change."""
    return any(
        rule.looks_back for plan in composition.tables.values() for rules in plan.sources.values() for rule in rules
    )


def asks(composition: Composition) -> list[Question]:
    """Every key query of a composition."""
    return [
        question
        for plan in composition.tables.values()
        for rules in plan.sources.values()
        for rule in rules
        for question in rule.questions
    ]


def _spoiled(start: Catalog, said: Speech, lost: Lost) -> Stages | None:
    if not any(lost.values()):
        return None
    return {
        name.casefold(): replace(stored(table, said.quote), lost=lost.get(name.casefold(), {}))
        for name, table in start.tables.items()
    }


def _as_stored(table: Table, told: Stage | None, said: Speech, lost: Mapping[str, str], direction: Direction) -> Stage:
    """A table's rows as another database tells them, with the types of its columns."""
    mute = f"the {direction} crossing gives no {table.name}"
    gives, absent = [], dict(lost)
    for column in table.columns:
        own = None if told is None or column.generated else told.has(column.name)
        value = "NULL"
        if told is not None and own is not None:
            value = as_cast(f"q.{said.quote(own)}", told, own, column)
        else:
            absent[column.name.casefold()] = _COMPUTED if column.generated else _ABSENT
        gives.append(f"{value} AS {said.quote(column.name)}")
    if told is not None:
        mute = told.mute
    readable = told is not None and not told.mute
    inner = "(SELECT 1 AS a) AS q WHERE 1 = 0" if told is None or not readable else f"{told.inner} AS q"
    columns = ", ".join(gives if readable else [f"NULL AS {said.quote(c.name)}" for c in table.columns])
    return Stage(
        table=table.name,
        columns=tuple(column.name for column in table.columns),
        key=table.key,
        origin=said.quote(table.name),
        rules={table.name: (identity(len(table.key)),)} if table.key else {},
        body=f"SELECT {columns} FROM {inner}",
        ctes=told.ctes if told is not None and readable else (),
        types={column.name.casefold(): column for column in table.columns},
        driver=table.name if table.key else None,
        driving=table.key,
        mute=mute,
        lost=absent,
    )


def _turned(direction: Direction) -> Direction:
    return Direction.REVERSE if direction is Direction.FORWARD else Direction.FORWARD
