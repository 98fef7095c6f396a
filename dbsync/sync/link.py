"""One direction between two databases, and what must still be true of both whenever it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

from dbsync.errors import PositionLost, Refused, Unavailable
from dbsync.etl.run import Applied, Lens, put
from dbsync.model import Checkpoint, Direction, GuardState, Key, Report, Role, Row, Table
from dbsync.ports import Clock, Database, Transaction, View
from dbsync.sync import batch, snapshot

Result = TypeVar("Result")

ATTEMPTS = 20
PATIENCE = 5.0
"""How long in seconds a transaction waits for the target's write lock."""
NEXT = "dbsync sync"
NEW_SNAPSHOT = "dbsync sync --snapshot"


class Link:
    """From `source` to `target`, planned for one epoch and one pair of revisions.

    Everything here raises Refused (`role-changed`, `revision-changed`) once these no longer hold: make a new one.
    """

    def __init__(
        self, source: Database, target: Database, lens: Lens, epoch: int, clock: Clock, report: Report
    ) -> None:
        self.source, self.target = source, target
        self.lens, self.epoch = lens, epoch
        self.clock, self.report = clock, report
        self.pulse: Callable[[], None] = lambda: None
        """Called between the parts of a long run; may raise to stop it (it goes on from there next time)."""
        self.patience = PATIENCE
        self.composition = lens.toward(target.name)
        self.shape = target.catalog()
        self._revisions = (source.catalog().revision, self.shape.revision)
        self._sequences: dict[str, int] | None = None
        self.folds = {
            name: batch.fold(self.shape.table(name), plan.relation.key)
            for name, plan in self.composition.tables.items()
        }
        newer_stands = self._revisions[0] if source.name == lens.newer else self._revisions[1]
        if lens.path and newer_stands != lens.path[-1]:
            raise _revision_changed(lens.newer, newer_stands)

    def table(self, name: str) -> Table:
        """The target's table of that name. Raises Refused (`revision-changed`) when it is gone."""
        found = self.shape.table(name)
        if found is None:
            raise _revision_changed(self.target.name, self.shape.revision)
        return found

    def left_alone(self, name: str) -> frozenset[int]:
        """The places among a table's columns that are not overwritten where its row exists."""
        composition = self.composition
        kept = self.lens.kept.get(name, frozenset()) if composition.direction is Direction.FORWARD else frozenset()
        columns = composition.tables[name].relation.columns
        return frozenset(place for place, column in enumerate(columns) if column in kept)

    def checkpoint(self) -> Checkpoint:
        """Where the target stands. Refused (`no-snapshot`) when it has never followed."""
        with self.target.view() as view:
            checkpoint = view.checkpoint()
        if checkpoint is None:
            raise Refused(f"{self.target.name} has never followed", code="no-snapshot", remedy=NEXT)
        return checkpoint

    def identity(self, view: View) -> str:
        """The source's identity. Raises unless it is the active database still, as it was planned for."""
        guard = view.guard()
        if guard is None or guard.epoch != self.epoch or guard.state not in (GuardState.OPEN, GuardState.FENCED):
            raise Refused(
                f"{self.source.name} is not the active database at epoch {self.epoch} any more",
                code="role-changed",
                remedy="dbsync status",
            )
        if view.revision() != self._revisions[0]:
            raise _revision_changed(self.source.name, view.revision())
        return guard.identity

    def admit(self, checkpoint: Checkpoint, view: View) -> None:
        """Raises unless this view is of the database that the checkpoint speaks of, still active as planned."""
        self.belongs(checkpoint, self.identity(view))

    def belongs(self, checkpoint: Checkpoint, identity: str) -> None:
        """Raises PositionLost (`source-restored`) when the checkpoint is of another database."""
        if checkpoint.source != identity:
            raise PositionLost(
                f"{self.target.name} followed another database than {self.source.name} as it is now",
                code="source-restored",
                remedy=NEW_SNAPSHOT,
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A transaction on the target, which must be idle at this epoch and still have the planned revision."""
        with self.target.writing(Role.IDLE, self.epoch, self.patience) as tx:
            if tx.revision() != self._revisions[1]:
                raise _revision_changed(self.target.name, tx.revision())
            yield tx

    def unraced(self, work: Callable[[], Result]) -> Result:
        """Do it again while another applier is faster: that one did what this one was about to do."""
        for _ in range(ATTEMPTS):
            try:
                return work()
            except Refused as refused:
                if refused.code != "checkpoint-moved":
                    raise
        raise Unavailable(f"another process keeps applying to {self.target.name}", code="checkpoint-moved", remedy=NEXT)

    # --- writing -----------------------------------------------------------------------------------

    def apply(self, view: View, tx: Transaction, keys: batch.Keys, born: batch.Keys | None = None) -> Applied:
        """Make these keys what the view says: upserts of every table first, deletes last.

        Where a table has unique values beside its key, a row that is gone lets go of them first: nothing
        cascades in dbsync's own transactions, so there the order between a parent and its child is free.
        """
        total = Applied(0, 0)
        gone: dict[str, list[Key]] = {}
        for name, touched in keys.items():
            relation = self.composition.tables[name].relation
            fresh = (born or {}).get(name, {})
            rows = [row for part in batch.pieces(list(touched)) for row in self.read(view, name, part, fresh)]
            present = batch.keys_of(rows, relation.places())
            missing = batch.absent(list(touched), present, self.folds[name])
            if self.table(name).uniques:
                self.put(tx, total, name, missing, [])
            else:
                gone[name] = missing
            self.put(tx, total, name, present, rows, fresh)
        for name, missing in gone.items():
            self.put(tx, total, name, missing, [])
        return total

    def read(self, view: View, name: str, keys: Sequence[Key], born: Collection[Key]) -> list[Row]:
        """The rows of one target table at these keys. At `born` nothing that was kept for an older row is theirs."""
        plan = self.composition.tables[name]
        if not plan.relation.kept or not born:
            return view.by_keys(plan.relation, keys)
        lived = [key for key in keys if key not in born]
        return view.by_keys(plan.relation, lived) + view.by_keys(plan.bare, [key for key in keys if key in born])

    def put(
        self,
        tx: Transaction,
        total: Applied,
        name: str,
        keys: Sequence[Key],
        rows: Sequence[Row],
        born: Collection[Key] = (),
    ) -> None:
        """Put rows at keys through the lens, and count them. At `born` nothing of an older row is kept."""
        if keys:
            applied = put(tx, self.target, self.lens, name, keys, rows, born=born)
            total.upserted += applied.upserted
            total.deleted += applied.deleted

    def carry(self, view: View, tx: Transaction) -> None:
        """Keep the source's identity counters in the target, where its opening finds them."""
        live = view.load("sequences", "live")
        if live and live != self._sequences:
            tx.save("sequences", "source", batch.carried(live, self.composition.targets_of))
            self._sequences = dict(live)

    def restart(self, tx: Transaction, name: str) -> None:
        """Note that a table has to be put again from its first row."""
        plan = self.composition.tables[name]
        tx.save("copy", name, snapshot.again(tx.load("copy", name), plan.hash).document())
        self.void_receipt(tx)

    def void_receipt(self, tx: Transaction) -> None:
        """A table is copied: rows copied with capture asleep are not among the keys that a recheck would look at.

        A receipt of another revision or crossing is left for the gate, which says why it no longer counts.
        """
        receipt = tx.load("receipt", "last") or {}
        stands = receipt.get("revisions", {}).get(self.target.name), receipt.get("crossing")
        if "crossing" not in receipt or stands == (tx.revision(), self.lens.hash):
            tx.save("receipt", "last", None)


def drain_timeout(found: str) -> Unavailable:
    """The error of a drain that does not end in time."""
    return Unavailable(f"the drain did not end in time: {found}", code="drain-timeout", remedy=NEXT)


def _revision_changed(name: str, stands: str | None) -> Refused:
    return Refused(
        f"{name} stands at revision {stands} now, which is not what was planned for",
        code="revision-changed",
        remedy="run the command again",
    )
