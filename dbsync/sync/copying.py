"""The snapshot: every table in key ranges, one transaction a range, going on where a run that died stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from dbsync.errors import ConfigError, PositionLost, Refused
from dbsync.etl.run import Applied, TablePlan, check_cardinality, put
from dbsync.model import Key, Position, Relation, Row
from dbsync.ports import Database, Transaction, View
from dbsync.sync import batch, snapshot
from dbsync.sync.keeping import Keeper
from dbsync.sync.link import Link, drain_timeout

QUIET_ROWS = 1_000
"""A chunk below this many rows is copied with capture awake: putting it to sleep costs more."""


@dataclass
class _Chunk:
    """The copying of one table: its plan, the source's position at the first row (None: resumed), rows a chunk."""

    plan: TablePlan
    began: Position | None
    size: int
    held: ExitStack = field(default_factory=ExitStack)
    view: View | None = None
    at: Position | None = None
    """The checkpoint that the target had when `view` was begun."""

    @contextmanager
    def reading(self, source: Database, at: Position) -> Iterator[View]:
        """A view of the source that was begun when the target stood at `at` or later.

        Where a range costs as much as the whole table, it is the same one as long as the target stands there.
        """
        if self.plan.relation.ranged:
            with source.view() as view:
                yield view
            return
        if self.view is None or self.at != at:
            self.held.close()
            self.view, self.at = self.held.enter_context(source.view()), at
        yield self.view


class Copier:
    """Copies whole tables over a link. `catch_up` applies the windows that wait."""

    def __init__(self, link: Link, keeper: Keeper, catch_up: Callable[[], None]) -> None:
        self.link, self.keeper = link, keeper
        self.catch_up = catch_up
        self.plans = link.composition.tables

    # --- what there is to copy ---------------------------------------------------------------------

    def stale(self) -> tuple[str, ...]:
        """Target tables that were never copied to the end, or not with the crossing as it is now."""
        with self.link.target.view() as view:
            checkpoint, documents = view.checkpoint(), view.load_all("copy")
            again = rewritten(view, self.plans)
        if checkpoint is not None and not documents:
            return ()
        old = {*again, *self._stale(documents)}
        return tuple(name for name in self.plans if name in old)

    def _stale(self, documents: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
        return tuple(name for name, plan in self.plans.items() if not snapshot.current(documents.get(name), plan.hash))

    def adopt(self) -> None:
        """Record that every table of the target reflects the source as it is: true at the end of a handover."""
        with self.link.writing() as tx:
            for name, plan in self.plans.items():
                tx.save("copy", name, snapshot.Copy(plan.hash, done=True).document())
            self.keeper.adopt(tx)
            note_shape(tx, tx.position())

    def chosen(self, tables: Sequence[str] | None) -> tuple[str, ...]:
        """The names as the plan spells them (None: all). Raises ConfigError (`unknown-table`)."""
        known = {name.casefold(): name for name in self.plans}
        for name in tables or ():
            if name.casefold() not in known:
                raise ConfigError(
                    f"no table {name!r} is synced into {self.link.target.name}",
                    code="unknown-table",
                    remedy=f"one of: {', '.join(known.values())}",
                )
        return tuple(known.values()) if tables is None else tuple(known[name.casefold()] for name in tables)

    def begin(self, chosen: Sequence[str], force: bool, everything: bool) -> tuple[str, ...]:
        """The tables to copy. The position is recorded before the first row is read: windows from there converge."""
        link = self.link
        with link.source.view() as view:
            identity, position = link.identity(view), view.position()
        with link.target.view() as view:
            checkpoint, documents = view.checkpoint(), view.load_all("copy")
            again, here, noted = rewritten(view, self.plans), view.position(), view.load(*SHAPE)
        anew = checkpoint is None or (force and everything)
        if anew:
            with link.source.view() as view:
                self.keeper.void_since_opened(view)
        if checkpoint is not None and not anew:
            link.belongs(checkpoint, identity)
            if not documents:
                # A checkpoint that no copy set is that of a completed handover.
                self.adopt()
                documents = {name: snapshot.Copy(plan.hash, done=True).document() for name, plan in self.plans.items()}
        restart = tuple(self.plans) if anew else (*again, *(chosen if force else ()))
        if restart or noted is None or noted["revision"] != link.shape.revision:
            with link.writing() as tx:
                note_shape(tx, here)
                if anew:
                    tx.set_checkpoint(identity, position, expected=checkpoint.position if checkpoint else None)
                for name in restart:
                    link.restart(tx, name)
                if restart:
                    self.keeper.restart(tx)
        return tuple(dict.fromkeys((*restart, *self._stale(documents))))

    # --- copying -----------------------------------------------------------------------------------

    def copy(self, name: str, deadline: float | None) -> int:
        """Copy one table to its end. Gives the number of rows copied by this run."""
        link, plan = self.link, self.plans[name]
        with link.writing() as tx:
            copy = snapshot.resumed(tx.load("copy", name), plan.hash)
            tx.save("copy", name, copy.document())
            link.void_receipt(tx)
        with link.source.view() as view:
            total = view.count(plan.relation) if plan.by_name else None
            chunk = _Chunk(plan, view.position() if copy.cursor is None else None, snapshot.FIRST_ROWS)
        had = copy.rows
        with chunk.held:
            while not copy.done:
                if deadline is not None and link.clock.monotonic() > deadline:
                    raise drain_timeout(f"{name} was still being copied to {link.target.name}")
                copy = self._next(chunk, copy)
                link.report(f"copy {name}", copy.rows, total)
                link.pulse()
        return copy.rows - had

    def _next(self, chunk: _Chunk, copy: snapshot.Copy) -> snapshot.Copy:
        try:
            return self.link.unraced(lambda: self._chunk(chunk, copy))
        except Refused as refused:
            if refused.code != "row-refused":
                raise
        # A unique value that has moved since its old holder was copied: the window lets go of it.
        self.catch_up()
        return self.link.unraced(lambda: self._chunk(chunk, copy))

    def _chunk(self, chunk: _Chunk, copy: snapshot.Copy) -> snapshot.Copy:
        """Copy one key range in one transaction, which also says how far the copy has got."""
        relation, link = chunk.plan.relation, self.link
        start = link.checkpoint()
        with chunk.reading(link.source, start.position) as view:
            link.admit(start, view)
            rows = view.by_range(relation, copy.cursor, None, limit=chunk.size)
            done = len(rows) < chunk.size
            with link.writing() as tx:
                # A window applied since `start` may hold newer rows than this view: overwriting them loses writes.
                tx.set_checkpoint(start.source, start.position, expected=start.position)
                stored = snapshot.read_copy(tx.load("copy", relation.table))
                if stored is not None and stored != copy:
                    return stored  # another process copies the same table
                self._refuse_null(relation, rows)
                rows, done, last = self._store(view, tx, chunk.plan, copy.cursor, rows, done)
                after = copy.advanced(None if done else last, len(rows), done)
                if done and chunk.began == view.position() and view.count(relation) != after.rows:
                    raise _null_key(relation)
                if done:
                    check_cardinality(view, chunk.plan)
                tx.save("copy", relation.table, after.document())
        chunk.size = snapshot.next_rows(rows, chunk.size)
        return after

    def _store(
        self, view: View, tx: Transaction, plan: TablePlan, after: Key | None, rows: list[Row], done: bool
    ) -> tuple[list[Row], bool, Key | None]:
        """Make the target's key range hold exactly these rows. A range with very many rows of its own is cut.

        Gives the rows, whether they are the last ones, and the key up to which the range went.
        """
        relation, own = plan.relation, plan.stored
        places = relation.places()
        upto = None if done or not rows else batch.keys_of(rows[-1:], places)[0]
        if not tx.by_range(own, after, upto, limit=1):
            self._fill(tx, plan, rows)
            return rows, done, upto
        most = len(rows) + snapshot.MOST_ROWS
        ours = tx.by_range(own, after, upto, limit=most)
        if len(ours) == most:
            upto, done = batch.keys_of(ours[-1:], places)[0], False
            rows = view.by_range(relation, after, upto)
        self._exchange(view, tx, relation, ours, rows)
        return rows, done, upto

    def _fill(self, tx: Transaction, plan: TablePlan, rows: Sequence[Row]) -> None:
        """Put rows into a key range that is empty."""
        relation, link = plan.relation, self.link
        if len(rows) >= QUIET_ROWS:
            tx.quiet_capture(relation.table)
        if plan.by_name and rows:
            # By name there is nothing for a lens to do, and a million rows are not looked at one by one.
            tx.insert(relation.table, relation.columns, rows)
        elif rows:
            put(tx, link.target, link.lens, relation.table, (), rows, fresh=True)

    def _exchange(
        self, view: View, tx: Transaction, relation: Relation, ours: Sequence[Row], rows: Sequence[Row]
    ) -> None:
        link, name, places = self.link, relation.table, relation.places()
        write, extra = batch.reconcile(rows, ours, places, link.folds[name], link.left_alone(name))
        # Where the two sides order keys differently, another range of the source may hold an extra one.
        there = batch.keys_of(view.by_keys(relation, extra), places) if extra else []
        extra = batch.absent(extra, there, link.folds[name])
        first, last = (extra, []) if link.table(name).uniques else ([], extra)
        total = Applied(0, 0)
        link.put(tx, total, name, first, [])
        link.put(tx, total, name, batch.keys_of(write, places), write)
        link.put(tx, total, name, last, [])

    def _refuse_null(self, relation: Relation, rows: Sequence[Row]) -> None:
        table = self.link.table(relation.table)
        for name, at in zip(relation.key, relation.places(), strict=True):
            column = table.column(name)
            if (column is None or column.nullable) and any(row[at] is None for row in rows):
                raise _null_key(relation)


SHAPE = ("copied", "shape")
"""The document that says at which revision and position of the target its copies were last known to be good."""


def note_shape(tx: Transaction, position: Position) -> None:
    """Note that the target's copies hold for the revision at which it stands, as of this position of its own."""
    tx.save(*SHAPE, {"revision": tx.revision(), "position": position})


def rewritten(view: View, tables: Iterable[str]) -> tuple[str, ...]:
    """The target's tables that a revision has rewritten since they were copied (all of them when that cannot be known).

    A revision that changes rows and not the shape leaves the plan of a table as it was.
    """
    noted = view.load(*SHAPE)
    if noted is None or noted["revision"] == view.revision():
        return ()
    try:
        changes = view.changes(Position(noted["position"]))
    except PositionLost:
        return tuple(tables)
    whole = {touched.table for touched in changes.tables if touched.whole}
    return tuple(name for name in tables if name in whole)


def _null_key(relation: Relation) -> Refused:
    return Refused(
        f"{relation.table} has rows whose key is NULL or not unique: key ranges do not reach them",
        code="null-key",
        remedy=f"give every row of {relation.table} a key of its own, or exclude the table",
    )
