"""Walk the road: for each step act, read back, note it. Both directions are this one walk."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dbsync.cutover.gate import judge
from dbsync.cutover.plan import Step, steps
from dbsync.cutover.predict import predict
from dbsync.cutover.resolve import finish, undo
from dbsync.cutover.state import Case, Ownership
from dbsync.cutover.world import COMPLETED, Survey, World, survey, told
from dbsync.errors import DbsyncError, Interrupted, Refused, Unavailable
from dbsync.etl.loss import Loss, added, refused, report, ways_out
from dbsync.etl.loss import told as losses_told
from dbsync.model import Fenced, Position, quiet
from dbsync.sync.run import Pump
from dbsync.verify.refresh import LOCK as RECEIPT_LOCK
from dbsync.verify.run import Recheck, recheck

log = logging.getLogger(__name__)

CONFIRM_SECONDS = 15.0
"""How long a replica may take to say that it follows: twice the proxy's default throttle, and then some."""
PASS_SECONDS = 1.0
"""How long everything passes the gate before the hold, so that what the router let in before has ended."""
QUIET_SECONDS = 0.15
"""Without a count at the proxy: how long no write may have committed before those in flight count as ended."""
COUNT_SECONDS = 1.0
"""How long a count at the proxy that does not close is believed."""
LOCK_PATIENCE = 2.0
"""Seconds to wait for somebody who looks whether a handover was left behind."""
RECEIPT_PATIENCE = 10.0
"""Seconds to wait for a follower that carries the receipt on just now; it takes about one."""
ROUNDS = 20
SMALL = 50
"""Keys; catching up ends when a round has no more than that."""


@dataclass
class Handed:
    """What a handover did. `pause_ms` is the longest that a write could wait; None where nothing was held."""

    from_: str
    to: str
    epoch: int
    plan: tuple[Step, ...] = ()
    pause_ms: float | None = None
    predicted_pause_ms: float | None = None
    held: dict[str, Any] = field(default_factory=lambda: {"requests": 0, "longest_ms": 0.0})
    steps: list[dict[str, Any]] = field(default_factory=list)
    route_confirmed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    losses: tuple[Loss, ...] = ()
    """What the newer side's rows hold and the older one cannot give back: now, or (dry run) what a way back costs."""
    loses: list[dict[str, str]] = field(default_factory=list)
    """What the way back is declared not to bring back: `table`, `column` and the `reason`."""
    rehearsed: bool = False
    dry_run: bool = False


def hand_over(world: World, verb: str, dry_run: bool = False, rehearse: bool = False) -> Handed:
    """Make the idle side live. `verb` is `cutover` or `rollback`: one road; a rollback needs a cutover to go back from.

    Raises Refused with every blocker (nothing was changed), Unavailable when it was begun and undone,
    or was past the cede and could not be confirmed (`changed`), Interrupted.
    """
    standing = _standing(world)
    if verb == "rollback":
        require_cutover(world)
    walk = _Walk(world, standing, verb)
    if dry_run:
        return walk.foresee()
    idle = world.databases[str(standing.idle)]
    # The first lock is held for a moment by whoever looks for a handover left behind; the second one keeps the
    # receipt where it is, and with it the changes that this handover compares.
    with idle.lock("cutover", LOCK_PATIENCE), idle.lock(RECEIPT_LOCK, RECEIPT_PATIENCE):
        if world.ownership() != standing:
            raise Refused(
                "another handover has ended meanwhile: the roles are not those that were asked about",
                code="cutover-running",
                remedy="dbsync status",
            )
        return walk.go(rehearse)


def _standing(world: World) -> Ownership:
    standing = world.ownership()
    if standing.case is Case.ALONE:
        gone = next(name for name in world.names if not _answers(world, name))
        raise Unavailable(f"{gone} does not answer", code="unreachable", remedy="dbsync doctor")
    if not standing.settled:
        raise Refused(
            f"a handover from {standing.old} to {standing.new} is under way ({standing.phase})",
            code="cutover-running",
            remedy="wait for it, or `dbsync cutover --resume` or `--abort`",
            next_command="dbsync cutover --resume",
        )
    return standing


def _answers(world: World, name: str) -> bool:
    try:
        return world.databases[name].guard() is not None
    except Unavailable:
        return False


def require_cutover(world: World) -> None:
    """Refused (`nothing-to-roll-back`) unless the last handover that came to its end was a cutover."""
    last = next((f for f in reversed(world.history()) if f.kind == COMPLETED), None)
    if last is None or last.data.get("verb") != "cutover":
        found = "there has been no cutover" if last is None else "the last handover was a rollback"
        raise Refused(
            f"there is nothing to go back from: {found}", code="nothing-to-roll-back", remedy="dbsync cutover"
        )


class _Walk:
    """One handover, from evidence to the other side following."""

    def __init__(self, world: World, standing: Ownership, verb: str) -> None:
        self.world, self.verb = world, verb
        self.old_name, self.new_name = str(standing.active), str(standing.idle)
        self.old, self.new = world.databases[self.old_name], world.databases[self.new_name]
        self.standing, self.epoch = standing, standing.epoch
        hold = world.limits.hold if world.router is not None else None
        self.result = Handed(self.old_name, self.new_name, standing.epoch, steps(self.old_name, self.new_name, hold))
        if world.router is None:
            self.result.warnings.append("no-router")
        self.since: tuple[Position, Position] | None = None
        self.prints: Mapping[str, str] = {}
        self.work = 0.0
        self.gate_in = False

    # --- before anything happens -------------------------------------------------------------------

    def foresee(self) -> Handed:
        """What would happen; nothing does."""
        seen = self._surveyed(thorough=True, counted=True)
        self._require(seen)
        self.result.dry_run = True
        self.result.losses = seen.losses
        self.result.loses = [
            {"table": name, "column": column, "reason": reason}
            for name, plan in seen.lens.reverse.tables.items()
            for column, reason in sorted(plan.loses.items())
        ]
        if seen.looked is not None and seen.looked.hot and seen.lens.older == self.new_name:
            # What is on its way has not been put into the older shape, so what that loses is not known.
            self.result.warnings.append("losses-not-all-counted")
        self.result.predicted_pause_ms = predict(self.world, self.old, self.new, self.work)
        self.result.steps = [{"name": step.name, "ms": None, "says": step.says} for step in self.result.plan]
        return self.result

    def _surveyed(self, thorough: bool, counted: bool = False) -> Survey:
        seen = survey(self.world, self.standing, thorough, counted=counted)
        self.work = seen.seconds
        return seen

    def _require(self, seen: Survey) -> None:
        blockers = judge(seen.evidence, self.world.limits)
        if not blockers:
            return
        many = "thing stands" if len(blockers) == 1 else "things stand"
        raise Refused(
            f"{self.verb} refused: {len(blockers)} {many} in the way",
            code=blockers[0].code,
            remedy=blockers[0].remedy,
            blockers=blockers,
        )

    # --- the walk --------------------------------------------------------------------------------

    def go(self, rehearse: bool) -> Handed:
        """Everything, or undone, or past the cede and told how to go on."""
        try:
            pump = self._begin()
        except Refused as refused:
            with contextlib.suppress(DbsyncError):
                self.world.journal(self.new_name, "refused", self.epoch, verb=self.verb, code=refused.code)
            raise
        try:
            self._step("custodian", self._start_custodian)
            self._step("gate", self._put_gate_in)
            self._catch_up(pump)
            self.result.predicted_pause_ms = predict(self.world, self.old, self.new, self.work)
            self._pause(pump, rehearse)
        except BaseException as error:
            self._undo(error)
            raise
        if rehearse:
            self._count_held()
            self._undo(None)
            self.result.rehearsed = True
            return self.result
        return self._finish()

    def _begin(self) -> Pump:
        """Evidence and gates; then the idle side caught up, and every dirty key compared."""
        seen = self._surveyed(thorough=False)
        self._require(seen)
        pump = Pump(self.old, self.new, seen.lens, self.epoch, self.world.clock, self.world.report)
        with self._timed("catch-up"):
            pump.drain(None, self.world.clock.monotonic() + max(60.0, self.world.limits.max_lag * 10))
            seen = self._surveyed(thorough=True)
            self._require(seen)
        if seen.looked is None:
            raise Refused("no receipt", code="not-verified", remedy="dbsync verify")
        self.result.losses = seen.evidence.losses
        self.since = seen.looked.active_position, seen.looked.idle_position
        self.prints = seen.evidence.fingerprints
        self.world.journal(
            self.new_name,
            "begun",
            self.epoch,
            verb=self.verb,
            old=self.old_name,
            new=self.new_name,
            receipt=(seen.evidence.receipt or {}).get("id"),
            losses=[loss.document() for loss in seen.evidence.losses if loss.rows],
        )
        return pump

    def _catch_up(self, pump: Pump) -> None:
        """Rounds of apply and compare, until one is as small as the last one inside the hold will be."""
        last = 1 << 60
        for _ in range(ROUNDS):
            began = self.world.clock.monotonic()
            pump.drain(None, began + 60.0)
            looked = self._compare(pump)
            self.work = self.world.clock.monotonic() - began
            if looked.keys <= SMALL or looked.keys * 2 > last:
                break
            last = looked.keys

    def _compare(self, pump: Pump, deadline: float | None = None) -> Recheck:
        assert self.since is not None
        looked = recheck(self.old, self.new, pump.lens, *self.since, deadline, self.world.clock)
        if looked.foreign:
            raise Refused(
                f"{self.new_name} was written behind dbsync's back", code="idle-written", remedy="dbsync verify"
            )
        if looked.whole:
            raise Refused(f"{', '.join(looked.whole)} changed as a whole", code="table-stale", remedy="dbsync sync")
        self._weigh(pump, looked)
        if looked.mismatches:
            found = "; ".join(told(m) for m in looked.mismatches[:5])
            raise Refused(f"keys differ: {found}", code="not-verified", remedy="dbsync verify --repair")
        self.since = looked.active_position, looked.idle_position
        return looked

    def _weigh(self, pump: Pump, looked: Recheck) -> None:
        """What the last keys lose, by the same policies. Refused (`loss`)."""
        if not looked.lossy or pump.lens.older != self.new_name:
            return
        late = report(pump.lens, looked.losses, {})
        lost = refused(late)
        if lost and not self.world.limits.accept_loss:
            raise Refused(
                f"rows were written meanwhile whose values {self.new_name} cannot hold: {losses_told(lost)}",
                code="loss",
                remedy=ways_out(lost),
            )
        self.result.losses = added(self.result.losses, late)

    def _start_custodian(self) -> None:
        gate = self.world.gate
        self.result.warnings += [] if gate is not None else ["no-custodian"]
        if gate is not None:
            self.address = gate.start(self.epoch, self.old_name, self.world.owner)

    def _put_gate_in(self) -> None:
        router, gate = self.world.router, self.world.gate
        if not self.world.gated or router is None or gate is None:
            return
        self.gate_in = True
        url, mark = self.address
        router.install_hold(self.epoch + 1, url, mark, self.old_name, CONFIRM_SECONDS)
        self.world.clock.sleep(PASS_SECONDS)

    # --- the pause -------------------------------------------------------------------------------

    def _pause(self, pump: Pump, rehearse: bool) -> None:
        """Hold to release."""
        clock, limits = self.world.clock, self.world.limits
        self._heed()
        began = clock.monotonic()
        deadline = began + limits.max_pause
        if self.gate_in and self.world.gate is not None:
            with self._timed("hold"):
                wait = self.world.gate.hold if limits.hold == "hold" else self.world.gate.reject
                wait(limits.max_pause)
            with self._timed("settle"):
                self._settle(deadline)
        elif self.world.gate is not None:
            self.world.gate.hold(limits.max_pause)
        if not self.gate_in:
            began = clock.monotonic()
        with self._timed("fence"):
            fenced = self.old.fence(self.epoch, self.world.owner, deadline - clock.monotonic(), self._left(deadline))
        with self._timed("drain"):
            with self.old.view() as view:
                final = view.position()
            pump.drain(final, deadline)
        with self._timed("recheck"):
            self._compare(pump, deadline)
            expected = self._unchanged()
        self._heed()
        if rehearse:
            self.result.pause_ms = _ms(clock.monotonic() - began)
            return
        self._commit(fenced, final, expected, deadline)
        with self._timed("release"):
            if self.world.gate is not None:
                # Where nothing is held too: from here on the custodian grants the time of a route, not of a pause.
                self.world.gate.decide(self.new_name)
        self.result.pause_ms = _ms(clock.monotonic() - began)

    def _unchanged(self) -> str:
        """The old side's fingerprint as the evidence has it: the cede compares it under its lock.

        A guard dropped and put back before the fence may have let something through that no capture saw.
        """
        if self.new.fingerprint() != self.prints[self.new_name]:
            raise Refused(
                f"the schema or a guard of {self.new_name} was changed", code="guard-changed", remedy="dbsync verify"
            )
        return self.prints[self.old_name]

    def _commit(self, fenced: Fenced, final: Position, expected: str, deadline: float) -> None:
        if self.world.clock.monotonic() >= deadline:
            raise Unavailable(
                "the pause was used up before the cede", code="drain-timeout", remedy=f"dbsync {self.verb}"
            )
        with self._timed("cede"):
            try:
                self.old.cede(fenced, final, expected, self.new_name)
            except Refused as lost:
                raise Unavailable(lost.message, code=lost.code, remedy=f"dbsync {self.verb}") from lost
        # A report may raise when the program was told to stop; from here a stop is heeded at the end.
        self.world.report = quiet
        with self._timed("open"):
            self.new.open(self.epoch + 1)
        self.result.epoch = self.epoch + 1

    def _left(self, deadline: float) -> float:
        return max(0.05, deadline - self.world.clock.monotonic() - 0.2)

    def _settle(self, deadline: float) -> None:
        """Wait until no request let in before the hold still writes: counted at the proxy, or told by quiet."""
        router, gate, clock = self.world.router, self.world.gate, self.world.clock
        if router is None or gate is None:
            return
        limit = min(deadline - 0.5, clock.monotonic() + self.world.limits.max_pause / 2)
        began = clock.monotonic()
        while clock.monotonic() < limit:
            passed, served = gate.passed_writes(), router.writes_served()
            if served is not None and passed > served and clock.monotonic() - began > COUNT_SECONDS:
                # A client that left between the gate and the application was let in and never served.
                passed = -1
            if passed < 0 or served is None:
                self.result.warnings.append("settled-by-quiet")
                self._wait_for_quiet(limit)
                return
            if served >= passed:
                break
            clock.sleep(0.003)
        self.old.settled(self._left(deadline))

    def _wait_for_quiet(self, limit: float) -> None:
        clock = self.world.clock
        last, since = None, clock.monotonic()
        while clock.monotonic() < limit:
            with self.old.view() as view:
                position = view.position()
            if position != last:
                last, since = position, clock.monotonic()
            if clock.monotonic() - since >= QUIET_SECONDS and self.old.settled(0.0):
                return
            clock.sleep(0.01)

    # --- afterwards ------------------------------------------------------------------------------

    def _finish(self) -> Handed:
        """Past the cede there is only forward; what fails now is told, and the custodian or --resume goes on."""
        world = self.world
        self._count_held()
        now = Ownership(Case.OPENED, self.new_name, self.old_name, self.epoch + 1, self.old_name, self.new_name)
        try:
            self.result.route_confirmed = finish(
                world,
                now,
                self._timed,
                verb=self.verb,
                pause_ms=self.result.pause_ms,
                predicted_ms=self.result.predicted_pause_ms,
                decided=True,
            )
        except DbsyncError as error:
            error.changed = True
            error.next_command = error.next_command or f"dbsync {self.verb} --resume"
            raise
        if world.gate is not None:
            world.gate.stop()
        if world.stop():
            raise Interrupted("stopped by a signal after the handover was complete", changed=True)
        return self.result

    def _count_held(self) -> None:
        if self.world.gate is not None and self.gate_in:
            requests, longest = self.world.gate.held()
            self.result.held = {"requests": requests, "longest_ms": round(longest, 3)}

    def _undo(self, error: BaseException | None) -> None:
        """Take everything back, unless the side has ceded: then go on as --resume would."""
        code = getattr(error, "code", type(error).__name__) if error is not None else "rehearsed"
        log.info("undoing the handover: %s", code)
        try:
            ceded = undo(self.world, self.old_name, self.new_name, self.epoch, self.verb, str(code))
        except DbsyncError as worse:
            log.warning("undoing it met: %s", worse.message)
            raise
        if ceded and isinstance(error, DbsyncError):
            error.changed = True
            error.next_command = f"dbsync {self.verb} --resume"

    # --- one step ----------------------------------------------------------------------------------

    def _heed(self) -> None:
        if self.world.stop():
            raise Interrupted("stopped by a signal; the handover was undone")

    def _step(self, name: str, act: Callable[[], None]) -> None:
        self._heed()
        with self._timed(name):
            act()

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = self.world.clock.monotonic()
        self.world.report(f"{self.verb}: {name}", 0, None)
        yield
        if any(step.name == name for step in self.result.plan):
            self.result.steps.append({"name": name, "ms": _ms(self.world.clock.monotonic() - began)})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
