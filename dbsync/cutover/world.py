"""What a handover works with, and the evidence gathered from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dbsync.cutover.gate import Evidence, Limits
from dbsync.cutover.state import Ownership, ownership
from dbsync.errors import DbsyncError, PositionLost, Refused, Unavailable
from dbsync.etl.loss import Loss, watches
from dbsync.etl.run import Lens
from dbsync.model import Check, Fact, Guard, Mismatch, Position, Report, quiet
from dbsync.ports import Clock, Database, Gate, Router
from dbsync.sync.lag import measure
from dbsync.sync.run import Pump
from dbsync.verify.loss import count_losses
from dbsync.verify.run import Recheck, recheck

COMPLETED = "completed"
"""The journal's word for a handover that came to its end."""


@dataclass
class World:
    """Everything outside that a handover touches."""

    databases: Mapping[str, Database]
    lens: Callable[[str], Lens]
    """The lens as things stand, given who is active."""
    router: Router | None
    gate: Gate | None
    """Starts the custodian, and with it the gate where there is a router. None: this process is the custodian."""
    clock: Clock
    limits: Limits
    owner: str
    report: Report = quiet
    stop: Callable[[], bool] = lambda: False
    owner_lives: Callable[[str], bool | None] = lambda _owner: None
    """Whether a coordinator still runs: None when that cannot be known from here."""
    names: tuple[str, str] = field(default=("", ""))

    @property
    def gated(self) -> bool:
        """Whether requests pass a gate during the handover."""
        return self.router is not None and self.limits.hold != "off"

    def ownership(self) -> Ownership:
        """Who is live now. Raises Refused (`not-initialised`), OwnershipAmbiguous; tolerates one side unreachable."""
        guards: list[Guard | None] = []
        unreachable: list[Unavailable] = []
        for name in self.names:
            try:
                guard = self.databases[name].guard()
            except Unavailable as gone:
                unreachable.append(gone)
                guards.append(None)
                continue
            if guard is None:
                raise Refused(f"{name} is not initialised", code="not-initialised", remedy="dbsync init --active NAME")
            guards.append(guard)
        if len(unreachable) == len(guards):
            raise unreachable[0]
        return ownership(guards[0], guards[1], self.names)

    def pump(self, active: str, idle: str, epoch: int) -> Pump:
        """What carries rows from the active to the idle side."""
        lens = self.lens(active)
        return Pump(self.databases[active], self.databases[idle], lens, epoch, self.clock, self.report)

    def journal(self, database: str, kind: str, epoch: int, **data: Any) -> None:
        """Append to the journal of one side."""
        self.databases[database].record(Fact(kind, self.clock.now(), epoch, self.owner, data))

    def history(self) -> list[Fact]:
        """Both sides' journals, oldest first; a side that does not answer is left out."""
        facts: list[Fact] = []
        for database in self.databases.values():
            try:
                facts += database.journal()
            except DbsyncError:
                continue
        return sorted(facts, key=lambda fact: fact.at)


@dataclass
class Survey:
    """Evidence, and what was needed to gather it."""

    evidence: Evidence
    lens: Lens
    looked: Recheck | None
    seconds: float = 0.0
    """What comparing the changed keys took."""
    losses: tuple[Loss, ...] = ()
    """What going back costs now, or would cost later when this handover goes to the newer side."""


def survey(
    world: World, standing: Ownership, thorough: bool, router_checks: bool = True, counted: bool = False
) -> Survey:
    """What is known of the handover from the active to the idle side.

    `thorough` compares every key changed since the receipt, waits for a writer and counts losses. `counted` counts
    them also where nothing points to any, and where the handover goes to the newer side, which loses nothing.
    Raises what the lens and the databases raise.
    """
    active, idle = str(standing.active), str(standing.idle)
    old, new = world.databases[active], world.databases[idle]
    lens = world.lens(active)
    pump = Pump(old, new, lens, standing.epoch, world.clock, world.report)
    with new.view() as view:
        receipt, checkpoint, guard = view.load("receipt", "last"), view.checkpoint(), view.guard()
        revisions = {idle: view.revision()}
    with old.view() as view:
        lag = measure(view, checkpoint)
        other, revisions[active] = view.guard(), view.revision()
    identities = {g.name: g.identity for g in (guard, other) if g is not None}
    began = world.clock.monotonic()
    looked, foreign = _looked(world, old, new, lens, receipt, thorough)
    took = world.clock.monotonic() - began
    back = lens.older == idle
    losses = _losses(world, (old, new), lens, receipt, looked, counted)
    evidence = Evidence(
        active=active,
        idle=idle,
        epoch=standing.epoch,
        revisions=revisions,
        identities=identities,
        fingerprints={active: old.fingerprint(), idle: new.fingerprint()},
        crossing=lens.hash,
        receipt=receipt,
        receipt_age=_age(world, receipt),
        lag=lag,
        stale=pump.stale(),
        foreign=foreign,
        mismatches=tuple(told(m) for m in looked.mismatches) if looked else (),
        losses=losses if back else (),
        writer_waiting=thorough and not old.settled(1.0),
        irreversible=tuple(sorted(lens.reverse.assumed)) if back and lens.path else (),
        checks=_checks(world, active, router_checks),
    )
    return Survey(evidence, lens, looked, took, losses)


def told(mismatch: Mismatch) -> str:
    """One mismatch in a few words."""
    key = mismatch.key[0] if len(mismatch.key) == 1 else mismatch.key
    return f"{mismatch.table} {key!r} {mismatch.kind.value}"


def _looked(
    world: World, old: Database, new: Database, lens: Lens, receipt: Mapping[str, Any] | None, thorough: bool
) -> tuple[Recheck | None, int | None]:
    if receipt is None:
        return None, 0
    try:
        if thorough:
            since = Position(str(receipt["position"])), Position(str(receipt["idle_position"]))
            looked = recheck(old, new, lens, *since, clock=world.clock)
            return looked, looked.foreign
        with new.view() as view:
            return None, view.changes(Position(str(receipt["idle_position"]))).foreign
    except PositionLost:
        return None, None


def _losses(
    world: World,
    sides: tuple[Database, Database],
    lens: Lens,
    receipt: Mapping[str, Any] | None,
    looked: Recheck | None,
    counted: bool,
) -> tuple[Loss, ...]:
    """The losses as they are now. All rows are counted only where the verify or a change since then has seen any."""
    seen = any(table.get("lossy") for table in (receipt or {}).get("tables", [])) or bool(looked and looked.lossy)
    back = lens.older == sides[1].name
    if counted or (back and (seen or watches(lens))):
        return count_losses(*sides, lens, world.report)
    return ()


def _age(world: World, receipt: Mapping[str, Any] | None) -> float | None:
    if receipt is None:
        return None
    taken = datetime.fromisoformat(str(receipt["taken_at"]))
    return max(0.0, (world.clock.now() - taken.astimezone(UTC)).total_seconds())


def _checks(world: World, active: str, router_checks: bool) -> tuple[Check, ...]:
    checks: list[Check] = []
    for database in world.databases.values():
        checks += database.examine()
    if world.router is not None and router_checks:
        checks += world.router.examine(active)
    return tuple(checks)
