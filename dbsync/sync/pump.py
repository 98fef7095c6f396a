"""The pump: snapshot, windows and drain over one link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dbsync.errors import Refused, Unavailable
from dbsync.etl.run import Applied, Lens
from dbsync.model import Changes, Key, Lag, Position, Report
from dbsync.ports import Clock, Database, Transaction, View
from dbsync.sync import batch
from dbsync.sync.copying import Copier, note_shape
from dbsync.sync.keeping import Keeper
from dbsync.sync.lag import measure
from dbsync.sync.link import PATIENCE, Link, drain_timeout

WINDOW = 10_000
POLL_SECONDS = 0.02
MOST_TRAILING = 20
"""Windows that `drain` reads on after it has reached its goal, hoping for a lag of zero under load."""


@dataclass
class Synced:
    """What was done: where the checkpoint stands now, windows, rows written and deleted, what was copied, the lag."""

    position: Position | None = None
    windows: int = 0
    upserted: int = 0
    deleted: int = 0
    snapshot: dict[str, int] | None = None
    lag: Lag | None = None

    def add(self, applied: Applied) -> None:
        """Count one more window."""
        self.windows += 1
        self.upserted += applied.upserted
        self.deleted += applied.deleted

    def copied(self, more: dict[str, int] | None) -> None:
        """Count what a snapshot copied."""
        if more is not None:
            had = self.snapshot or {"tables": 0, "rows": 0}
            self.snapshot = {name: had[name] + more[name] for name in had}


class Pump(Link):
    """One direction between two databases, at one epoch and one pair of revisions.

    Every method raises Refused (`role-changed`, `revision-changed`) when these no longer hold: make a new one.
    """

    def __init__(
        self, source: Database, target: Database, lens: Lens, epoch: int, clock: Clock, report: Report
    ) -> None:
        super().__init__(source, target, lens, epoch, clock, report)
        self.suspect = True
        """Whether a table may have to be put again: `ensure_snapshot` finds out."""
        self._cut = False
        self.keeper = Keeper(self)
        self._copier = Copier(self, self.keeper, self._catch_up)

    # --- windows -----------------------------------------------------------------------------------

    def step(self, limit: int = WINDOW) -> Applied | None:
        """Apply one window of at most `limit` recorded changes; None when there is nothing to apply."""
        try:
            return self.unraced(lambda: self._window(limit))
        except Refused as refused:
            # A window that was cut may hold the row that took a unique value and not the one that let go of it.
            if refused.code != "row-refused" or not self._cut:
                raise
        return self.unraced(lambda: self._window(None))

    def _window(self, limit: int | None) -> Applied | None:
        start = self.checkpoint()
        with self.source.view() as view:
            self.admit(start, view)
            changes = view.changes(start.position, limit)
            self._cut = limit is not None and changes.count >= limit
            if not changes.count and changes.end == start.position:
                return None
            whole = batch.whole_targets(changes.tables, self.composition.targets_of)
            with self.writing() as tx:
                tx.set_checkpoint(start.source, changes.end, expected=start.position)
                keys, born = self._touched(view, tx, changes)
                own, since = self.keeper.changed(changes), changes.end if self._cut else None
                applied = self._put(view, tx, keys, born, own, since)
                for name in whole:
                    self.restart(tx, name)
                if whole:
                    self.keeper.restart(tx)
                self.carry(view, tx)
        self.suspect = self.suspect or bool(whole)
        return applied

    def _put(
        self, view: View, tx: Transaction, keys: batch.Keys, born: batch.Keys, own: batch.Keys, since: Position | None
    ) -> Applied:
        """Apply keys, and keep what the older side cannot hold: of `own`, newer keys whose rows these keys give in
        full, and of every other one that they contribute to unless it changed after `since` as well."""
        others = self.keeper.touched(tx, keys)
        applied = self.apply(view, tx, keys, born)
        batch.merge(others, self.keeper.touched(tx, keys))
        for name, there in own.items():
            others[name] = {key: None for key in others.get(name, {}) if key not in there}
        self.keeper.keep(view, tx, own, None)
        self.keeper.keep_or_forget(view, tx, others, since)
        return applied

    def _touched(self, view: View, tx: Transaction, changes: Changes) -> tuple[batch.Keys, batch.Keys]:
        """The target's keys that changed, and those of them at which a row was created.

        Nothing is written yet: the target still shows what the source was at the checkpoint.
        """
        before = self.lens.before(self.target.name, tx)
        keys: batch.Keys = {}
        born: batch.Keys = {}
        for touched in changes.tables:
            if touched.keys:
                batch.merge(keys, self.composition.targets(view, touched.table, touched.keys, before))
            if touched.born and self.lens.path:
                batch.merge(born, self.composition.born(view, touched.table, tuple(touched.born)))
        self.keeper.void(born)
        return keys, born

    def _catch_up(self) -> None:
        while self.step() is not None and self._cut:
            self.pulse()

    def cross_again(self, keys: Mapping[str, Sequence[Key]]) -> Applied:
        """Make these keys of the target's tables what the source says now, checkpoint unmoved (a repair)."""
        return self.unraced(lambda: self._cross_again(keys))

    def _cross_again(self, keys: Mapping[str, Sequence[Key]]) -> Applied:
        start = self.checkpoint()
        with self.source.view() as view:
            self.admit(start, view)
            with self.writing() as tx:
                tx.set_checkpoint(start.source, start.position, expected=start.position)
                found = {name: dict.fromkeys(touched) for name, touched in keys.items()}
                return self._put(view, tx, found, {}, {}, start.position)

    # --- snapshot ----------------------------------------------------------------------------------

    def stale(self) -> tuple[str, ...]:
        """Target tables that were never copied to the end, or not with the crossing as it is now."""
        return self._copier.stale() or self.keeper.unswept()

    def adopt(self) -> None:
        """Record that every table of the target reflects the source as it is: true at the end of a handover."""
        self._copier.adopt()

    def note_shape(self) -> None:
        """Move the note of where the target's copies were last known to be good, so that its history may be pruned."""
        if not self.stale():
            with self.writing() as tx:
                note_shape(tx, tx.position())

    def ensure_snapshot(
        self, tables: Sequence[str] | None = None, force: bool = False, deadline: float | None = None
    ) -> dict[str, int] | None:
        """Copy what is missing or stale (all of `tables` with `force`), going on where a run that died stopped.

        Gives {"tables": int, "rows": int}, or None when there was nothing to copy. Raises ConfigError
        (`unknown-table`), Refused (`null-key`), PositionLost; Unavailable (`drain-timeout`) past `deadline`,
        in seconds of the monotonic clock.
        """
        chosen = self._copier.chosen(tables)
        begun = self.unraced(lambda: self._copier.begin(chosen, force, tables is None))
        todo = [name for name in begun if name in chosen]
        rows = sum(self._copier.copy(name, deadline) for name in todo)
        self.suspect = tables is not None
        if tables is None:
            self.keeper.sweep(deadline)
        if not todo:
            return None
        with self.source.view() as view, self.writing() as tx:
            self.carry(view, tx)
        return {"tables": len(todo), "rows": rows}

    # --- drain -------------------------------------------------------------------------------------

    def drain(self, until: Position | None = None, deadline: float | None = None) -> Synced:
        """Apply windows until the checkpoint stands at `until`; None: at least at the source's present position.

        `deadline` is in seconds of the monotonic clock; past it Unavailable (`drain-timeout`) is raised.
        """
        done = Synced()
        trailing = 0
        while True:
            self._hasten(deadline)
            if self.suspect:
                done.copied(self.ensure_snapshot(deadline=deadline))
            if until is not None and self.checkpoint().position == until:
                break
            if deadline is not None and self.clock.monotonic() > deadline:
                raise drain_timeout(f"{self.target.name} has not caught up with {self.source.name}")
            applied = self._hurried_step(deadline)
            if applied is not None:
                done.add(applied)
                self.report("sync", done.upserted + done.deleted, None)
            trailing += not self._cut
            if until is None and not self.suspect and (applied is None or trailing > MOST_TRAILING):
                break
            if until is not None and applied is None:
                self._await(until, deadline)
            self.pulse()
        done.position = self.checkpoint().position
        done.lag = self.lag()
        return done

    def _hasten(self, deadline: float | None) -> None:
        """Wait no longer for the target's write lock than the deadline allows."""
        left = PATIENCE if deadline is None else deadline - self.clock.monotonic()
        self.patience = min(PATIENCE, max(left, POLL_SECONDS))

    def _hurried_step(self, deadline: float | None) -> Applied | None:
        try:
            return self.step()
        except Unavailable as held:
            if deadline is None or held.code != "database-locked":
                raise
            raise drain_timeout(f"another process holds the write lock of {self.target.name}") from held

    def _await(self, until: Position, deadline: float | None) -> None:
        """Nothing is left to apply, and the goal is not reached: another applier may be about to commit it."""
        if self.checkpoint().position == until:
            return
        if deadline is None:
            raise drain_timeout(f"{self.source.name} does not reach the position that was asked for")
        self.clock.sleep(POLL_SECONDS)

    def lag(self) -> Lag | None:
        """How far the target is behind now; None when that cannot be known."""
        with self.target.view() as view:
            checkpoint = view.checkpoint()
        with self.source.view() as view:
            return measure(view, checkpoint)
