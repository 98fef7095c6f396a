"""Rows of both sides at the same keys, read through the sockets; and which of their differences are real.

A difference at a key is real only if no source key that contributes to it changed between the idle side's
checkpoint and the view of the active side: anything else is merely on its way (a hot key).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from dbsync.errors import ConfigError, PositionLost, Refused
from dbsync.etl.around import over_and_back
from dbsync.etl.merge import alike, same
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
from dbsync.verify.values import projected


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

    @property
    def kept(self) -> frozenset[str]:
        """Columns whose values come back out of the older side's side table."""
        return frozenset(kept.column for kept in self.plan.relation.kept)

    def derived_rows(self, rows: list[Row]) -> list[Row]:
        """Rows of the forward relation with the compared columns only."""
        return projected(rows, self.compared)

    def unlike(self, difference: Difference) -> tuple[str, ...]:
        """The columns at which the two rows of a difference differ."""
        pairs = zip(self.stored.columns, difference.derived or (), difference.stored or (), strict=True)
        return tuple(name for name, derived, stored in pairs if not same(derived, stored))


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
        self._held = ExitStack()
        self._view: View | None = None
        self.subjects: dict[str, Subject] = {}
        for name, plan in lens.forward.tables.items():
            self.subjects[name] = self._subject(plan, lens.shapes[name])

    def _subject(self, plan: TablePlan, shape: Table) -> Subject:
        kept = self.lens.kept.get(plan.relation.table, frozenset())
        return self.subject(plan, shape, tuple(name for name in plan.relation.columns if name not in kept))

    def subject(self, plan: TablePlan, shape: Table, columns: tuple[str, ...]) -> Subject:
        """The subject that compares these columns of the plan's, those of the key among them."""
        some = columns != plan.relation.columns
        return Subject(
            plan=plan,
            table=shape,
            stored=batch.plain(shape, columns, self.newer.capabilities) if some else plan.stored,
            compared=tuple(plan.relation.columns.index(name) for name in columns) if some else None,
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

    def close(self) -> None:
        """Let go of a view that a comparison which was given up has left."""
        self._held.close()

    # --- ranges ------------------------------------------------------------------------------------

    def read_range(self, subject: Subject, after: Key | None, size: int) -> tuple[list[Row], list[Row], Key | None]:
        """About `size` rows of both sides (derived, stored), and the key up to which they go (None: the last ones)."""
        with self.newer.view() as view:
            stored = view.by_range(subject.stored, after, None, limit=size)
        upto = None if len(stored) < size else batch.keys_of(stored[-1:], subject.places)[0]
        most = 2 * size
        with self._reading(subject, after) as view:
            derived = view.by_range(subject.plan.relation, after, upto, limit=most)
        if len(derived) == most:  # the newer side lacks many rows: a shorter range, or memory would not do
            upto = batch.keys_of(derived[-1:], subject.plan.relation.places())[0]
            with self.newer.view() as view:
                stored = view.by_range(subject.stored, after, upto)
        if upto is None:
            self._held.close()
        return subject.derived_rows(derived), stored, upto

    @contextmanager
    def _reading(self, subject: Subject, after: Key | None) -> Iterator[View]:
        """A view of the older side: the same one for every range of a table where each costs as much as all of it."""
        if subject.plan.relation.ranged:
            with self.older.view() as view:
                yield view
            return
        if after is None or self._view is None:
            self._held.close()
            self._view = self._held.enter_context(self.older.view())
        yield self._view

    def suspects(self, subject: Subject, derived: list[Row], stored: list[Row]) -> list[Key]:
        """The keys at which two ranges differ, once the derived rows have the stored ones' column types."""
        found = self.different(subject, derived, stored)
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
                    found = self.different(subject, derived, stored)
                    if found:
                        self._look_ahead(here, there, checkpoint.position)
            judged.hot += [d.key for d in found if self.pending.holds(subject.name, d.folded)]
            real = [d for d in found if not self.pending.holds(subject.name, d.folded)]
            judged.real += self._classified(subject, real)
        return judged

    @staticmethod
    def _rows(view: Rows, subject: Subject, newer: bool, keys: Sequence[Key]) -> list[Row]:
        if newer:
            return view.by_keys(subject.stored, keys)
        return subject.derived_rows(view.by_keys(subject.plan.relation, keys))

    def different(self, subject: Subject, derived: list[Row], stored: list[Row]) -> list[Difference]:
        """Where rows of both sides differ, once the derived ones have the stored ones' column types."""
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

    def _look_ahead(self, here: View, there: View, since: Position) -> None:
        """Read what the active side (`here`) recorded after `since`, where the idle side (`there`) stands."""
        pending = self.pending
        if pending.since != since or pending.until is None:
            pending = self.pending = Pending(since, since)
        changes = here.changes(pending.until or since)
        for name, keys in self.touched(here, changes, self.newer_is_idle, there).items():
            pending.keys.setdefault(name, set()).update(map(self.subjects[name].folded, keys))
        pending.whole |= self.whole(changes, self.newer_is_idle)
        pending.until = changes.end

    def touched(self, view: View, changes: Changes, on_older: bool, other: View) -> dict[str, dict[Key, None]]:
        """The keys of the newer shape that changes on one side contribute to.

        `other` shows the other side. Where the older side changed, it tells what was there before.
        """
        before = self.lens.before(self.newer.name, other)
        keys: dict[str, dict[Key, None]] = {}
        for touched in changes.tables:
            if on_older and touched.keys:
                batch.merge(keys, self.lens.forward.targets(view, touched.table, touched.keys, before))
            elif not on_older and touched.table in self.subjects:
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
            Mismatch(subject.name, d.key, MismatchKind.LOSSY, subject.unlike(d))
            if d.folded in lossy
            else Mismatch(subject.name, d.key, kind_of(d, self.newer_is_idle))
            for d in found
        ]

    def _lossy(self, subject: Subject, found: Sequence[Difference]) -> frozenset[Key]:
        """The keys where forward(reverse(newer)) is what forward(older) is: a declared loss, nothing else.

        A column that is kept loses nothing: where it differs, something is wrong.
        """
        reverse = self.lens.reverse
        found = [d for d in found if not subject.kept.intersection(subject.unlike(d))]
        declared = any(reverse.tables[name].loses for name in reverse.targets_of(subject.name))
        if not found or not (declared or subject.plan.losing):
            return frozenset()
        shapes = self.older.catalog().tables
        keys = [d.key for d in found]
        with self.newer.view() as view:
            gone = over_and_back(view, self.newer.name, self.lens, shapes, self.older, subject.name, keys)
        again = subject.derived_rows(gone)
        gone_over = self._stored_form(subject, again) if again else {}
        derived = self._stored_form(subject, [d.derived for d in found if d.derived is not None])
        places = [place for place, name in enumerate(subject.stored.columns) if name not in subject.kept]
        return frozenset(
            key
            for key, (_, row) in gone_over.items()
            if key in derived and alike(*projected([row, derived[key][1]], places))
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
