"""Rows of both sides at the same keys, read through the sockets; and which of their differences are real.

A difference at a key is real only if no source key that contributes to it changed between the idle side's
checkpoint and the view of the active side: anything else is merely on its way (a hot key).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dbsync.errors import ConfigError, PositionLost, Refused
from dbsync.etl.run import Lens, TablePlan
from dbsync.model import (
    Changes,
    Checkpoint,
    Key,
    Mismatch,
    MismatchKind,
    Position,
    Relation,
    Row,
    Table,
)
from dbsync.ports import Database, Rows, View
from dbsync.sync import batch
from dbsync.verify.diff import ByKey, Difference, by_key, differences, kind_of
from dbsync.verify.values import canonical, projected


@dataclass(frozen=True, slots=True)
class Subject:
    """One table of the newer shape: how its rows are derived from the older side, and how they are stored."""

    plan: TablePlan
    table: Table
    stored: Relation
    compared: tuple[int, ...] | None
    """Places of the compared columns among the derived ones (None: all of them)."""
    places: tuple[int, ...]
    folded: batch.Fold

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    def derived_rows(self, rows: list[Row]) -> list[Row]:
        """Rows of the forward relation with the compared columns only."""
        return projected(rows, self.compared)


@dataclass
class Judged:
    """What looking at some keys gave: real mismatches, and keys that are on their way."""

    real: list[Mismatch] = field(default_factory=list)
    hot: list[Key] = field(default_factory=list)


@dataclass
class Pending:
    """Keys of the newer shape touched by what the active side recorded after the idle side's checkpoint."""

    since: Position | None = None
    until: Position | None = None
    keys: dict[str, set[Key]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def holds(self, table: str, folded: Key) -> bool:
        """Whether a change that contributes to this key is on its way."""
        return table in self.whole or folded in self.keys.get(table, ())


class Comparer:
    """Compares newer with forward(older) at chosen keys, whichever of the two is the active side."""

    def __init__(self, active: Database, idle: Database, lens: Lens) -> None:
        self.active, self.idle, self.lens = active, idle, lens
        self.newer_is_idle = idle.name == lens.newer
        self.newer, self.older = (idle, active) if self.newer_is_idle else (active, idle)
        self.pending = Pending()
        self.subjects: dict[str, Subject] = {}
        for name, plan in lens.forward.tables.items():
            self.subjects[name] = self._subject(plan, lens.shapes[name])

    def _subject(self, plan: TablePlan, shape: Table) -> Subject:
        kept = self.lens.kept.get(plan.relation.table, frozenset())
        columns = tuple(name for name in plan.relation.columns if name not in kept)
        compared = None if not kept else tuple(plan.relation.columns.index(name) for name in columns)
        return Subject(
            plan=plan,
            table=shape,
            stored=batch.plain(shape, columns, self.newer.capabilities) if kept else plan.stored,
            compared=compared if columns != plan.relation.columns else None,
            places=tuple(columns.index(name) for name in plan.relation.key),
            folded=batch.fold(shape, plan.relation.key),
        )

    def chosen(self, tables: Sequence[str] | None) -> list[Subject]:
        """The subjects of these tables (None: all). Raises ConfigError `unknown-table`."""
        known = {name.casefold(): subject for name, subject in self.subjects.items()}
        for name in tables or ():
            if name.casefold() not in known:
                raise ConfigError(
                    f"no table {name!r} of {self.newer.name} is verified",
                    code="unknown-table",
                    remedy="See `dbsync verify` for the tables that are.",
                )
        return list(known.values()) if tables is None else [known[name.casefold()] for name in dict.fromkeys(tables)]

    # --- ranges ------------------------------------------------------------------------------------

    def read_range(self, subject: Subject, after: Key | None, size: int) -> tuple[list[Row], list[Row], Key | None]:
        """About `size` rows of both sides (derived, stored), and the key up to which they go (None: the last ones)."""
        with self.newer.view() as view:
            stored = view.by_range(subject.stored, after, None, limit=size)
        upto = None if len(stored) < size else batch.keys_of(stored[-1:], subject.places)[0]
        most = 2 * size
        with self.older.view() as view:
            derived = view.by_range(subject.plan.relation, after, upto, limit=most)
        if len(derived) == most:  # the newer side lacks many rows: a shorter range, or memory would not do
            upto = batch.keys_of(derived[-1:], subject.plan.relation.places())[0]
            with self.newer.view() as view:
                stored = view.by_range(subject.stored, after, upto)
        return subject.derived_rows(derived), stored, upto

    def suspects(self, subject: Subject, derived: list[Row], stored: list[Row]) -> list[Key]:
        """The keys at which two ranges differ, once the derived rows have the stored ones' column types."""
        found = self._different(subject, derived, stored)
        return [difference.key for difference in found]

    # --- keys --------------------------------------------------------------------------------------

    def judge(self, subject: Subject, keys: Sequence[Key]) -> Judged:
        """Look at these keys of the newer shape again, in one view of each side."""
        judged = Judged()
        for part in batch.pieces(keys):
            with self.idle.view() as there:
                checkpoint = following(there.checkpoint(), self.idle)
                idle_rows = self._rows(there, subject, self.newer_is_idle, part)
            with self.active.view() as here:
                belongs(checkpoint, here, self.active)
                active_rows = self._rows(here, subject, not self.newer_is_idle, part)
                derived, stored = (active_rows, idle_rows) if self.newer_is_idle else (idle_rows, active_rows)
                found = self._different(subject, derived, stored)
                if found:
                    self._look_ahead(here, checkpoint.position)
            judged.hot += [d.key for d in found if self.pending.holds(subject.name, d.folded)]
            real = [d for d in found if not self.pending.holds(subject.name, d.folded)]
            judged.real += self._classified(subject, real)
        return judged

    @staticmethod
    def _rows(view: Rows, subject: Subject, newer: bool, keys: Sequence[Key]) -> list[Row]:
        if newer:
            return view.by_keys(subject.stored, keys)
        return subject.derived_rows(view.by_keys(subject.plan.relation, keys))

    def _different(self, subject: Subject, derived: list[Row], stored: list[Row]) -> list[Difference]:
        there = by_key(stored, subject.places, subject.folded)
        found = differences(by_key(derived, subject.places, subject.folded), there)
        odd = [d.derived for d in found if d.derived is not None]
        if not odd:
            return found
        # Storing the derived rows gives them the types that the newer table's columns would.
        settled = self._stored_form(subject, odd)
        mine = {d.folded: there[d.folded] for d in found if d.folded in there}
        return differences(settled, mine)

    def _stored_form(self, subject: Subject, rows: list[Row]) -> ByKey:
        with self.newer.scratch([subject.table]) as scratch:
            scratch.fill(subject.name, subject.stored.columns, rows)
            back = scratch.by_range(subject.stored, None, None)
        return by_key(back, subject.places, subject.folded)

    # --- what is on its way ------------------------------------------------------------------------

    def _look_ahead(self, here: View, since: Position) -> None:
        pending = self.pending
        if pending.since != since or pending.until is None:
            pending = self.pending = Pending(since, since)
        changes = here.changes(pending.until or since)
        for name, keys in self.touched(here, changes, self.newer_is_idle).items():
            pending.keys.setdefault(name, set()).update(map(self.subjects[name].folded, keys))
        pending.whole |= self.whole(changes, self.newer_is_idle)
        pending.until = changes.end

    def touched(self, view: View, changes: Changes, on_older: bool) -> dict[str, dict[Key, None]]:
        """The keys of the newer shape that changes on one side contribute to."""
        keys: dict[str, dict[Key, None]] = {}
        for touched in changes.tables:
            if on_older:
                batch.merge(keys, self.lens.forward.targets(view, touched.table, touched.keys) if touched.keys else {})
            elif touched.table in self.subjects:
                batch.merge(keys, {touched.table: touched.keys})
        return {name: found for name, found in keys.items() if name in self.subjects}

    def whole(self, changes: Changes, on_older: bool) -> set[str]:
        """The tables of the newer shape of which any row may have changed."""
        if on_older:
            return set(batch.whole_targets(changes.tables, self.lens.forward.targets_of))
        return {touched.table for touched in changes.tables if touched.whole and touched.table in self.subjects}

    # --- declared losses ---------------------------------------------------------------------------

    def _classified(self, subject: Subject, found: Sequence[Difference]) -> list[Mismatch]:
        both = [d for d in found if d.derived is not None and d.stored is not None]
        lossy = self._lossy(subject, both) if both else frozenset()
        return [
            Mismatch(subject.name, d.key, MismatchKind.LOSSY if d.folded in lossy else kind_of(d, self.newer_is_idle))
            for d in found
        ]

    def _lossy(self, subject: Subject, found: Sequence[Difference]) -> frozenset[Key]:
        """The keys where forward(reverse(newer)) is what forward(older) is: a declared loss, nothing else."""
        reverse, sources = self.lens.reverse, subject.plan.sources
        if not any(reverse.tables[name].loses for name in reverse.targets_of(subject.name)):
            return frozenset()
        shapes = self.older.catalog()
        tables = [shape for name in sources if (shape := shapes.table(name)) is not None and name in reverse.tables]
        keys = [d.key for d in found]
        with self.newer.view() as view, self.older.scratch(tables) as scratch:
            back = reverse.targets(view, subject.name, keys)
            for shape in tables:
                relation = reverse.tables[shape.name].relation
                scratch.fill(shape.name, relation.columns, view.by_keys(relation, list(back.get(shape.name, ()))))
            again = subject.derived_rows(scratch.by_keys(subject.plan.relation, keys))
        gone_over = self._stored_form(subject, again) if again else {}
        derived = self._stored_form(subject, [d.derived for d in found if d.derived is not None])
        return frozenset(
            key
            for key, (_, row) in gone_over.items()
            if key in derived and canonical([row]) == canonical([derived[key][1]])
        )


def following(checkpoint: Checkpoint | None, idle: Database) -> Checkpoint:
    """The checkpoint. Refused (`no-snapshot`) when there is none."""
    if checkpoint is None:
        raise Refused(f"{idle.name} has never followed", code="no-snapshot", remedy="dbsync sync")
    return checkpoint


def belongs(checkpoint: Checkpoint, here: View, active: Database) -> None:
    """Raises PositionLost (`source-restored`) when the checkpoint is of another database."""
    guard = here.guard()
    if guard is None or guard.identity != checkpoint.source:
        raise PositionLost(
            f"the checkpoint is of another database than {active.name} as it is now",
            code="source-restored",
            remedy="dbsync sync --snapshot",
        )
