"""What becomes of a handover whose coordinator is gone: the table of docs/protocol.md, section 1, and nothing else.

Everything here may run twice, and at once with another one of its kind: each step is a compare and set
in a guard row, or makes true what is true already.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from dbsync.cutover.state import Case, Ownership
from dbsync.cutover.world import COMPLETED, World
from dbsync.errors import DbsyncError, OwnershipAmbiguous, Refused, Unavailable
from dbsync.model import Checkpoint, GuardState, Position, TableResult
from dbsync.ports import Router
from dbsync.sync.run import Pump
from dbsync.verify.receipt import KIND, NAME, Bound, document

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 15.0
POLL_SECONDS = 0.05
GRACE_SECONDS = 2.0

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass
class Resolved:
    """What was found, and what was done about it: `nothing`, `aborted` or `resumed`."""

    outcome: str
    active: str | None
    old: str
    new: str
    epoch: int
    route_confirmed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _untimed(_name: str) -> Iterator[None]:
    yield


def resolve(world: World, want: str, force: bool = False) -> Resolved:
    """Finish or undo what is under way. `want` is `resume`, `abort` or `either` (the custodian).

    `force`: the coordinator is known to be dead, so its fence need not be waited for.
    Raises Refused (`past-no-return`, `other-side-gone`), Unavailable, OwnershipAmbiguous.
    """
    found = world.ownership()
    if found.case is Case.FENCED:
        found = _await_fence(world, found, force)
    if unrecorded(world, found):
        old, new = str(found.idle), str(found.active)
        found = Ownership(Case.OPENED, new, old, found.epoch, old, new)
    if found.case in (Case.FOLLOWING, Case.FENCED):
        return _abort(world, found, want)
    if found.case is Case.ALONE:
        return _alone(world, found, want, force)
    if want == "abort":
        raise past_no_return(found)
    if found.case is Case.CEDED:
        world.databases[found.new].open(found.epoch)
        log.info("opened %s at epoch %d", found.new, found.epoch)
    elif found.case is Case.SHUT:
        world.databases[found.new].open(found.epoch)
        return Resolved("resumed", found.new, found.old, found.new, found.epoch)
    now = Ownership(Case.OPENED, found.new, found.old, found.epoch, found.old, found.new)
    confirmed = finish(world, now, _untimed, verb=_verb(world), resumed=True)
    return Resolved("resumed", found.new, found.old, found.new, found.epoch, confirmed)


def past_no_return(found: Ownership) -> Refused:
    """The refusal of an abort after the cede."""
    return Refused(
        f"{found.old} has given up being live (epoch {found.epoch}): there is only forward",
        code="past-no-return",
        remedy="dbsync cutover --resume, then dbsync rollback",
        next_command="dbsync cutover --resume",
    )


def _await_fence(world: World, found: Ownership, force: bool) -> Ownership:
    """Wait until the fence ends by itself, unless its owner is known to be dead."""
    began = world.clock.monotonic()
    while found.case is Case.FENCED:
        guard = world.databases[found.old].guard()
        if force or (guard is not None and guard.owner and world.owner_lives(guard.owner) is False):
            return found
        left = guard.fence_left if guard is not None and guard.fence_left is not None else 0.0
        world.report(f"waiting for the fence of {found.old} to end ({left:.0f}s)", 0, None)
        if world.clock.monotonic() - began > world.limits.max_pause + GRACE_SECONDS:
            return found
        world.clock.sleep(POLL_SECONDS)
        found = world.ownership()
    return found


def _abort(world: World, found: Ownership, want: str) -> Resolved:
    """The old side stays live. The attempt goes up first, so a cede still on its way fails; then the rest is tidied."""
    active, idle = found.old, found.new
    fenced = found.case is Case.FENCED
    unfinished = fenced or unsettled(world, found) or _held(world)
    if not unfinished and _routed(world, active):
        return Resolved("nothing", active, active, idle, found.epoch)
    ceded = undo(world, active, idle, found.epoch, _verb(world), "aborted")
    if ceded:
        return resolve(world, want)
    return Resolved("aborted", active, active, idle, found.epoch)


def undo(world: World, old: str, new: str, epoch: int, verb: str, why: str) -> bool:
    """Open the old side again, let everything at the gate go there, take the gate away.

    Gives whether it has ceded after all. Raises Unavailable (`hold-not-removed`) when the gate must stay.
    """
    try:
        world.databases[old].lift(epoch)
    except Refused as refused:
        if refused.code != "past-no-return":
            raise
        return True
    failed: DbsyncError | None = None
    if world.gated:
        _quietly(lambda: world.gate.decide(old) if world.gate is not None else None)
        _quietly(lambda: _assert_route(world, old))
        failed = _quietly(lambda: world.router.remove_hold(CONFIRM_SECONDS) if world.router is not None else None)
    if failed is not None:
        # A replica may still ask the gate: it must stay, and this must be done again.
        raise failed
    with contextlib.suppress(DbsyncError):
        world.journal(new, "undone", epoch, verb=verb, why=why)
    if world.gate is not None:
        world.gate.stop()
    return False


def _quietly(act: Callable[[], object]) -> DbsyncError | None:
    try:
        act()
    except DbsyncError as error:
        return error
    return None


def _assert_route(world: World, live: str) -> None:
    if world.router is not None and world.router.written() not in (live, None):
        world.router.switch(live, CONFIRM_SECONDS)


def _routed(world: World, active: str) -> bool:
    if world.router is None:
        return True
    try:
        return world.router.written() in (active, None)
    except DbsyncError:
        return True


def _held(world: World) -> bool:
    return world.router is not None and world.router.hold_present()


def unsettled(world: World, found: Ownership) -> bool:
    """Whether the journal tells of a handover that began at this epoch and neither ended nor was undone."""
    for fact in reversed(world.history()):
        if fact.kind in ("undone", COMPLETED, "refused"):
            return False
        if fact.kind == "begun":
            return fact.epoch == found.epoch
    return False


def unrecorded(world: World, found: Ownership) -> bool:
    """Whether the handover that made the active side live was left after the old side had been closed, unfinished.

    The guards are settled then, and nothing but the journal tells that route, gate or record are still to be seen to.
    """
    if found.case is not Case.FOLLOWING:
        return False
    for fact in reversed(world.history()):
        if fact.kind == COMPLETED and fact.epoch == found.epoch:
            return False
        if fact.kind == "begun":
            return fact.epoch == found.epoch - 1 and fact.data.get("new") == found.active
    return False


def _verb(world: World) -> str:
    begun = next((f for f in reversed(world.history()) if f.kind == "begun"), None)
    return str(begun.data.get("verb", "cutover")) if begun is not None else "cutover"


def _alone(world: World, found: Ownership, want: str, force: bool) -> Resolved:
    gone = next(name for name in world.names if _silent(world, name))
    seen = found.new if gone == found.old else found.old
    guard = world.databases[seen].guard()
    if guard is not None and guard.state is GuardState.CEDED:
        if want == "abort":
            raise past_no_return(found)
        raise Unavailable(
            f"{seen} has given up being live, and {gone} does not answer",
            code="other-side-gone",
            remedy=f"make {gone} reachable, then `dbsync cutover --resume`; if it never comes back: --abandon {gone}",
        )
    fenced = guard is not None and guard.state is GuardState.FENCED
    if guard is not None and (guard.accepts or (fenced and force)) and want != "resume":
        # The old side alone decides, and it has not ceded.
        case = Case.FENCED if fenced else Case.FOLLOWING
        return _abort(world, Ownership(case, seen, gone, guard.epoch, seen, gone), want)
    raise Unavailable(f"{gone} does not answer", code="unreachable", remedy=f"make {gone} reachable and run this again")


def _silent(world: World, name: str) -> bool:
    try:
        world.databases[name].guard()
    except Unavailable:
        return True
    return False


def abandon(world: World, name: str) -> Resolved:
    """The operator asserts that `name` will never come back: the other side, which ceded to it, is live again.

    Refused (`nothing-to-abandon`) unless the other side has ceded and `name` does not answer.
    """
    other = next(n for n in world.names if n != name)
    guard = world.databases[other].guard()
    if guard is None or guard.state is not GuardState.CEDED or not _silent(world, name):
        raise Refused(
            f"{other} has not ceded to a database that is gone", code="nothing-to-abandon", remedy="dbsync status"
        )
    opened = world.databases[other].reopen(guard.epoch + 1)
    if world.gate is not None:
        _quietly(lambda: world.gate.decide(other) if world.gate is not None else None)
    if world.router is not None:
        _quietly(lambda: _assert_route(world, other))
        _quietly(lambda: world.router.remove_hold(CONFIRM_SECONDS) if world.router is not None else None)
    world.journal(other, "abandoned", opened.epoch, abandoned=name)
    return Resolved("aborted", other, other, name, opened.epoch)


# --- past the cede: only forward -----------------------------------------------------------------


def finish(world: World, now: Ownership, timed: Timed, verb: str, decided: bool = False, **told: Any) -> list[str]:
    """The new side is open: everything goes there, the old side is closed and follows.

    Gives the replicas that confirmed.

    Raises Unavailable (`route-not-confirmed`, changed): then the gate stays, and goes on sending everything
    to the new side.
    """
    if world.gate is not None and world.gated and not decided:
        world.gate.decide(now.new)
    with timed("follow"):
        _turn_round(world, now)
    confirmed: list[str] = []
    if world.router is not None:
        if world.gate is None and world.gated and world.router.hold_present():
            _take_orphan_away(world.router, now.new)
        with timed("route"):
            routes = world.router.switch(now.new, CONFIRM_SECONDS)
            confirmed = sorted({route.replica for route in routes if route.environment == now.new})
        if world.gated:
            with timed("ungate"):
                world.router.remove_hold(CONFIRM_SECONDS)
    fact = {"verb": verb, "old": now.old, "new": now.new, **told}
    _complete(world, now, fact)
    return confirmed


def _take_orphan_away(router: Router, live: str) -> None:
    """Nobody answers at the gate any more: no probe would come through it, so the hold goes before the confirmation."""
    _quietly(lambda: router.switch(live, 0.0))
    router.remove_hold(CONFIRM_SECONDS)


def _complete(world: World, now: Ownership, fact: dict[str, Any]) -> None:
    """The journal of the side that is closed now tells that it is done (once)."""
    for entry in reversed(world.databases[now.old].journal()):
        if entry.kind == COMPLETED and entry.epoch == now.epoch:
            return
    world.journal(now.old, COMPLETED, now.epoch, **fact)


def _turn_round(world: World, now: Ownership) -> None:
    """Close the old side, let it follow from before the new one's first write, and carry the evidence over."""
    old, new = world.databases[now.old], world.databases[now.new]
    opened = new.guard()
    if opened is None or opened.opened_at is None or opened.state is not GuardState.OPEN:
        raise OwnershipAmbiguous(f"{now.new} is not open at epoch {now.epoch}", remedy="dbsync status")
    with new.view() as view:
        receipt, final = view.load(KIND, NAME), view.checkpoint()
    before = old.guard()
    old.close(now.epoch, Checkpoint(opened.identity, opened.opened_at))
    with old.view() as view:
        moved = final is None or view.position() != final.position
    if moved and (before is None or before.state is GuardState.CLOSED):
        # Closed by another process, and written since: whether all of it was dbsync's is for a verify to say.
        return
    lens = world.lens(now.new)
    pump = Pump(new, old, lens, now.epoch, world.clock, world.report)
    if pump.stale():
        pump.adopt()
    with old.view() as view:
        stored = view.load(KIND, NAME)
        guard, idle_position, idle_revision = view.guard(), view.position(), view.revision()
    if stored is not None and stored.get("epoch") == now.epoch:
        return
    with new.view() as view:
        revision = view.revision()
    bound = Bound(
        epoch=now.epoch,
        active=now.new,
        idle=now.old,
        older=lens.older,
        newer=lens.newer,
        revisions={now.new: revision, now.old: idle_revision},
        identities={now.new: opened.identity, now.old: guard.identity if guard is not None else ""},
        fingerprints={now.new: new.fingerprint(), now.old: old.fingerprint()},
        excluded=tuple(sorted({*old.excluded(), *new.excluded()})),
        crossing=lens.hash,
        position=Position(opened.opened_at),
        idle_position=idle_position,
    )
    tables = [TableResult(t["name"], t["rows"], digest=t["digest"]) for t in (receipt or {}).get("tables", [])]
    old.save(KIND, NAME, document(bound, tables, world.clock.now(), derived=True))
