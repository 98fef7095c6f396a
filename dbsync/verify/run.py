"""Verify whole tables and write the receipt; recheck the keys that changed since."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbsync.errors import Refused, Unavailable
from dbsync.etl.run import Lens, check_cardinality
from dbsync.model import (
    Changes,
    GuardState,
    Key,
    Mismatch,
    MismatchKind,
    Position,
    Report,
    TableResult,
)
from dbsync.ports import Clock, Database, View
from dbsync.sync import batch, snapshot
from dbsync.sync.copying import rewritten
from dbsync.sync.keeping import unswept
from dbsync.sync.run import Pump
from dbsync.verify.compare import Comparer, Judged, Subject, belongs, following
from dbsync.verify.diff import Tally, losses
from dbsync.verify.receipt import KIND, NAME, Bound, changed, document
from dbsync.verify.values import body, canonical

__all__ = ["Recheck", "VerifyReport", "recheck", "verify"]

HOT_ROUNDS = 12
HOT_WAIT_SECONDS = 0.05
IDLE_ROUNDS = 3
"""Rounds without a move of the checkpoint after which nobody is taken to be applying."""
COUNT_TRIES = 3
NEXT = "dbsync verify"


@dataclass
class VerifyReport:
    """What a verification found. `receipt` is None when it gives none; then `notes` say why."""

    equal: bool
    tables: tuple[TableResult, ...]
    receipt: dict[str, Any] | None = None
    repaired: tuple[Mismatch, ...] = ()
    hot: int = 0
    """Keys that were on their way to the end: the recheck before a cutover looks at them."""
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    next_command: str | None = None


@dataclass
class Recheck:
    """What comparing the keys changed since a receipt gave.

    `whole` names tables of which any row may have changed: they were not compared. `foreign` counts changes
    on the idle side that dbsync did not make. `ends`: how far the changes of the active and of the idle side were read.
    """

    mismatches: tuple[Mismatch, ...]
    lossy: int
    keys: int
    foreign: int
    active_position: Position
    idle_position: Position
    hot: int = 0
    whole: tuple[str, ...] = ()
    losses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By table and column, in how many of the lossy rows it differs."""
    ends: tuple[Position, Position] | None = None


def verify(
    active: Database,
    idle: Database,
    lens: Lens,
    epoch: int,
    clock: Clock,
    report: Report,
    tables: Sequence[str] | None = None,
    repair: bool = False,
    pump: Pump | None = None,
) -> VerifyReport:
    """Compare newer with forward(older), both in use. A complete and clean run stores a receipt in the idle database.

    `repair` puts real mismatches right through the ordinary apply path; such a run, and one of some `tables`
    only, gives no receipt. Raises Refused (`no-snapshot`, `null-key`, `role-changed`), ConfigError
    (`unknown-table`), PositionLost.
    """
    run = _Verification(active, idle, lens, epoch, clock, report)
    if repair:
        run.mender = pump or Pump(active, idle, lens, epoch, clock, report)
    return run.run(tables)


class _Verification:
    def __init__(self, active: Database, idle: Database, lens: Lens, epoch: int, clock: Clock, report: Report) -> None:
        self.active, self.idle, self.lens, self.epoch = active, idle, lens, epoch
        self.clock, self.report = clock, report
        self.comparer = Comparer(active, idle, lens)
        self.mender: Pump | None = None
        self.repaired: list[Mismatch] = []
        self.beyond: dict[str, None] = {}
        """Tables with rows that differ still after they were crossed again."""
        self.tallies: dict[str, Tally] = {}
        self.hot: dict[str, list[Key]] = {}
        self.expected: Mapping[str, dict[str, Any]] = {}

    def run(self, tables: Sequence[str] | None) -> VerifyReport:
        """Every subject, then the hot keys, then the counts, then the verdict."""
        subjects = self.comparer.chosen(tables)
        stale = self._stale()
        with self._announced(), _collector_at_rest(), contextlib.closing(self.comparer):
            began = self._bound()
            for subject in subjects:
                self._table(subject)
            self._cool()
            for subject in subjects:
                self._count(subject)
            ended = self._bound()
            return self._verdict(subjects, stale, began, ended, partial=tables is not None)

    # --- before and after --------------------------------------------------------------------------

    def _stale(self) -> tuple[str, ...]:
        """Tables that have to be put again. Refused `no-snapshot` when the copy was never finished."""
        with self.idle.view() as view:
            following(view.checkpoint(), self.idle)
            documents = view.load_all("copy")
            again = rewritten(view, self.lens.toward(self.idle.name).tables)
            again += () if self.comparer.newer_is_idle else unswept(view, self.lens)
        composition = self.lens.toward(self.idle.name)
        copies = {name: snapshot.read_copy(documents.get(name)) for name in composition.tables}
        if documents and any(copy is None or not (copy.done or copy.stale) for copy in copies.values()):
            raise Refused(f"the copy to {self.idle.name} is not complete", code="no-snapshot", remedy="dbsync sync")
        return tuple(
            name
            for name, copy in copies.items()
            if copy is not None and (name in again or not (copy.done and copy.hash == composition.tables[name].hash))
        )

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """While this is stored nobody prunes changes that the receipt will need."""
        mark = {"at": self.clock.now().isoformat(), "pid": os.getpid()}
        self.idle.save("verify", "running", mark)
        try:
            yield
        finally:
            self.idle.save("verify", "running", None)

    def _bound(self) -> Bound:
        fingerprints = {side.name: side.fingerprint() for side in (self.active, self.idle)}
        with self.idle.view() as view:
            checkpoint = following(view.checkpoint(), self.idle)
            mine, idle_revision, idle_position = view.guard(), view.revision(), view.position()
            self.expected = view.load_all("copy") if self.comparer.newer_is_idle else {}
        with self.active.view() as view:
            belongs(checkpoint, view, self.active)
            theirs, active_revision = view.guard(), view.revision()
        if mine is None or theirs is None or not mine.epoch == theirs.epoch == self.epoch:
            raise _role_changed(self.epoch)
        if mine.state is not GuardState.CLOSED or theirs.state not in (GuardState.OPEN, GuardState.FENCED):
            raise _role_changed(self.epoch)
        return Bound(
            epoch=self.epoch,
            active=self.active.name,
            idle=self.idle.name,
            older=self.lens.older,
            newer=self.lens.newer,
            revisions={self.active.name: active_revision, self.idle.name: idle_revision},
            identities={self.active.name: theirs.identity, self.idle.name: mine.identity},
            fingerprints=fingerprints,
            excluded=tuple(sorted({*self.active.excluded(), *self.idle.excluded()})),
            crossing=self.lens.hash,
            position=checkpoint.position,
            idle_position=idle_position,
        )

    # --- tables ------------------------------------------------------------------------------------

    def _table(self, subject: Subject) -> None:
        tally = self.tallies[subject.name] = Tally(subject.name)
        digest = hashlib.sha256()
        total = self.expected.get(subject.name, {}).get("rows")
        after: Key | None = None
        size = snapshot.FIRST_ROWS
        while True:
            derived, stored, upto = self.comparer.read_range(subject, after, size)
            mine = canonical(stored)
            digest.update(body(mine))
            if mine != canonical(derived):
                self._suspect(subject, derived, stored)
            tally.rows += len(stored)
            self.report(f"verify {subject.name}", tally.rows, total)
            size = snapshot.next_rows(stored, size)
            if upto is None:
                break
            after = upto
        tally.digest = digest.hexdigest()

    def _suspect(self, subject: Subject, derived: list[Any], stored: list[Any]) -> None:
        suspects = self.comparer.suspects(subject, derived, stored)
        if suspects:
            self._settle(subject, self.comparer.judge(subject, suspects))

    def _settle(self, subject: Subject, judged: Judged) -> None:
        if judged.hot:
            self.hot.setdefault(subject.name, []).extend(judged.hot)
        real = judged.real
        wrong = [mismatch for mismatch in real if mismatch.kind is not MismatchKind.LOSSY]
        if wrong and self.mender is not None:
            again = self._mend(self.mender, subject, [mismatch.key for mismatch in wrong])
            left = {mismatch.key for mismatch in again.real}
            self.repaired += [mismatch for mismatch in wrong if mismatch.key not in left]
            self.hot.setdefault(subject.name, []).extend(again.hot)
            if any(mismatch.kind is not MismatchKind.LOSSY for mismatch in again.real):
                self.beyond[subject.name] = None
            real = [mismatch for mismatch in real if mismatch.kind is MismatchKind.LOSSY] + again.real
        self.tallies[subject.name].add(real)

    def _mend(self, mender: Pump, subject: Subject, keys: list[Key]) -> Judged:
        """Cross these keys again, and look again."""
        if self.comparer.newer_is_idle:
            mender.cross_again({subject.name: keys})
        else:
            with self.idle.view() as there, self.active.view() as view:
                back = self.lens.reverse.targets(view, subject.name, keys, self.lens.before(self.idle.name, there))
            mender.cross_again(back)
        return self.comparer.judge(subject, keys)

    def _cool(self) -> None:
        """Look at the hot keys again until they are at rest, or nobody seems to be applying what is on its way."""
        unmoved, last = 0, None
        for _ in range(HOT_ROUNDS):
            hot, self.hot = self.hot, {}
            if not hot:
                return
            for name, keys in hot.items():
                subject = self.comparer.subjects[name]
                self._settle(subject, self.comparer.judge(subject, keys))
            since = self.comparer.pending.since
            unmoved, last = (unmoved + 1 if since == last else 0), since
            if not any(self.hot.values()) or unmoved >= IDLE_ROUNDS:
                return
            self.clock.sleep(HOT_WAIT_SECONDS)

    def _count(self, subject: Subject) -> None:
        """Count both sides independently of key ranges: rows that no range reaches were not compared."""
        with self.comparer.older.view() as view:
            check_cardinality(view, subject.plan)
        if self._counts_agree(subject):
            return
        self._table(subject)  # written behind dbsync's back since it was compared?
        if not self._counts_agree(subject):
            raise Refused(
                f"{subject.name} has not as many rows on both sides, and no key range reaches the difference"
                " (a key that is NULL or not unique)",
                code="null-key",
                remedy=f"give every row of {subject.name} a key of its own, or exclude the table",
            )

    def _counts_agree(self, subject: Subject) -> bool:
        """Whether both sides have as many rows; also when that cannot be known because they are being written."""
        stored, derived = subject.stored, subject.plan.relation
        ours, theirs = (stored, derived) if self.comparer.newer_is_idle else (derived, stored)
        if self.tallies[subject.name].counts:
            return True
        for _ in range(COUNT_TRIES):
            with self.idle.view() as view:
                since = following(view.checkpoint(), self.idle).position
                mine = view.count(ours)
            with self.active.view() as view:
                if not view.changes(since, 1).count:
                    return mine == view.count(theirs)
        return True

    # --- the verdict -------------------------------------------------------------------------------

    @property
    def _onward(self) -> str:
        """What a receipt opens the way to: nobody who has arrived at the newer shape is sent back."""
        return "dbsync status" if self.lens.path and not self.comparer.newer_is_idle else "dbsync cutover"

    def _verdict(
        self, subjects: Sequence[Subject], stale: tuple[str, ...], began: Bound, ended: Bound, partial: bool
    ) -> VerifyReport:
        results = tuple(self.tallies[subject.name].result() for subject in subjects)
        equal = all(result.equal for result in results)
        notes = [f"changed-meanwhile: {name}" for name in changed(began, ended)]
        notes += ["partial"] if partial else []
        notes += ["repairing"] if self.mender is not None else []
        notes += [f"table-stale: {name}" for name in stale]
        for side in (self.active, self.idle):
            notes += [f"{check.code}: {side.name}" for check in side.examine() if check.code == "guard-changed"]
        keyless = self.lens.toward(self.idle.name).keyless
        notes += [f"no-primary-key: {name}" for name in keyless]
        notes += [f"beyond-repair: {name}" for name in self.beyond]
        receipt = None
        if equal and not notes:
            receipt = document(began, results, self.clock.now())
            self.idle.save(KIND, NAME, receipt)
        elif not equal or self.repaired:
            # What an earlier receipt says is not so: it must not open a gate.
            self.idle.save(KIND, NAME, None)
        return VerifyReport(
            equal=equal,
            tables=results,
            receipt=receipt,
            repaired=tuple(self.repaired),
            hot=sum(map(len, self.hot.values())),
            stale=stale,
            notes=tuple(notes),
            next_command=_next(equal, self._onward if receipt else "", notes, self.mender),
        )


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Rows make no cycles: the garbage collector would only walk over millions of them, in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _next(equal: bool, onward: str, notes: Sequence[str], mender: Pump | None) -> str:
    if onward:
        return onward
    # Verifying again would give no receipt either before these are mended.
    remedies = {"table-stale": "dbsync sync", "guard-changed": "dbsync init", "no-primary-key": "dbsync doctor"}
    codes = {note.partition(":")[0] for note in notes}
    for code, command in remedies.items():
        if code in codes and (equal or code == "table-stale"):
            return command
    return "dbsync verify" if equal or mender is not None else "dbsync verify --repair"


# --- recheck -------------------------------------------------------------------------------------


def recheck(
    active: Database,
    idle: Database,
    lens: Lens,
    since_active: Position,
    since_idle: Position,
    deadline: float | None = None,
    clock: Clock | None = None,
    limit: int | None = None,
) -> Recheck:
    """Compare every key that either side recorded a change of since these positions (a receipt's).

    `deadline` is in seconds of `clock`'s monotonic time; past it Unavailable `drain-timeout` is raised. `limit` is
    the most recorded changes that are looked at on each side.
    Raises PositionLost when a history no longer reaches back.
    """
    comparer = Comparer(active, idle, lens)
    keys: dict[str, dict[Key, None]] = {}
    with idle.view() as there, active.view() as here:
        idle_position, mine = there.position(), there.changes(since_idle, limit)
        active_position, theirs = here.position(), here.changes(since_active, limit)
        whole = _gather(comparer, (there, here), mine, not comparer.newer_is_idle, keys)
        whole |= _gather(comparer, (here, there), theirs, comparer.newer_is_idle, keys)
    found, hot = [], 0
    for name, touched in keys.items():
        for part in batch.pieces(list(touched)):
            if deadline is not None and clock is not None and clock.monotonic() > deadline:
                raise Unavailable("comparing the keys that changed took too long", code="drain-timeout", remedy=NEXT)
            judged = comparer.judge(comparer.subjects[name], part)
            found += judged.real
            hot += len(judged.hot)
    wrong = tuple(mismatch for mismatch in found if mismatch.kind is not MismatchKind.LOSSY)
    return Recheck(
        mismatches=wrong,
        lossy=len(found) - len(wrong),
        keys=sum(map(len, keys.values())),
        foreign=mine.foreign,
        active_position=active_position,
        idle_position=idle_position,
        hot=hot,
        whole=tuple(sorted(whole)),
        losses=losses(found),
        ends=(theirs.end, mine.end),
    )


def _gather(
    comparer: Comparer, views: tuple[View, View], changes: Changes, on_older: bool, keys: dict[str, dict[Key, None]]
) -> set[str]:
    batch.merge(keys, comparer.touched(views[0], changes, on_older, views[1]))
    return comparer.whole(changes, on_older)


def _role_changed(epoch: int) -> Refused:
    return Refused(f"the roles are not those of epoch {epoch} any more", code="role-changed", remedy="dbsync status")
