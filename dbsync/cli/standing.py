"""What `status` tells: both guards, revisions, lag, evidence, route and follower, as far as they can be read."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dbsync.cli.etl_standing import Scheduled, scheduled
from dbsync.cli.wiring import Context
from dbsync.cutover.state import Ownership
from dbsync.errors import Blocker, DbsyncError, Interrupted
from dbsync.model import Lag
from dbsync.sync.lag import measure

HEARTBEAT_SECONDS = 10.0
"""A follower whose last heartbeat is older than this is not running."""

AGAINST_RECEIPT = frozenset({"not-verified", "guard-changed", "idle-written", "table-stale"})


@dataclass
class Standing:
    """Where everything stands. What could not be read is None, `unknown`, or listed as unreachable."""

    active: str | None = None
    idle: str | None = None
    phase: str = "following"
    epoch: int = 0
    revisions: dict[str, str | None] = field(default_factory=dict)
    lag: Lag | None = None
    receipt: dict[str, Any] | None = None
    route: str | None = None
    follower: str = "unknown"
    scheduler: str = "unknown"
    schedule: Scheduled = field(default_factory=Scheduled)
    blockers: list[Blocker] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    excluded: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    next: str | None = None
    arrived: bool = False
    """Whether the idle side is the one that was left: a handover from here would go back."""

    @property
    def ready(self) -> bool:
        """Whether a cutover would be let through now."""
        return not self.blockers

    def data(self) -> dict[str, Any]:
        """The object that scripts read."""
        lag = None if self.lag is None else {"changes": self.lag.changes, "seconds": self.lag.seconds}
        found: dict[str, Any] = {
            "active": self.active,
            "idle": self.idle,
            "phase": self.phase,
            "epoch": self.epoch,
            "revisions": self.revisions,
            "lag": lag,
            "receipt": self.receipt,
            "route": self.route,
            "follower": self.follower,
            "scheduler": self.scheduler,
            "schedule": self.schedule.jobs,
            "ready": self.ready,
            "blockers": [{"code": b.code, "found": b.found, "remedy": b.remedy} for b in self.blockers],
            "excluded": list(self.excluded),
        }
        if self.unreachable:
            found["unreachable"] = self.unreachable
        return found


def look(context: Context) -> Standing:
    """Where everything stands now.

    Raises Unavailable when neither side answers, Refused (`not-initialised`), OwnershipAmbiguous, ConfigError.
    """
    seen, roles = context.read_roles()
    found = Standing(roles.active, roles.idle, roles.phase, roles.epoch, unreachable=list(seen.unreachable))
    for name, exc in seen.unreachable.items():
        found.blockers.append(Blocker("unreachable", f"{name} does not answer: {exc.message}", exc.remedy))
    reachable = [name for name in context.names if name not in seen.unreachable]
    found.revisions = {name: _revision(context, name) if name in reachable else None for name in context.names}
    found.excluded = tuple(sorted({t for name in reachable for t in context.database(name).excluded()}))
    _follow(context, roles, reachable, found)
    _schedule(context, roles, reachable, found)
    routed = _route(context, roles, found)
    if not seen.unreachable:
        found.blockers += judge(context, roles)
        if found.receipt is not None:
            found.receipt["valid"] = proves(found.blockers)
    said = {one.code for one in found.blockers} | {one.found for one in found.blockers}
    found.blockers += [one for one in routed if one.code not in said and one.found not in said]
    found.next = _next(found)
    return found


def _revision(context: Context, name: str) -> str | None:
    with context.database(name).view() as view:
        return view.revision()


def _follow(context: Context, roles: Ownership, reachable: list[str], found: Standing) -> None:
    """Fill in lag, follower and receipt: they are written in the idle side, and measured at the active one."""
    idle = roles.idle or roles.new
    if idle not in reachable:
        return
    with context.database(idle).view() as view:
        checkpoint = view.checkpoint()
        beat = view.load("heartbeat", "follower")
        receipt = view.load("receipt", "last")
    now = context.clock.now()
    found.follower = follower_of(beat, now)
    if receipt is not None:
        found.receipt = receipt_of(receipt, now)
        found.arrived = bool(receipt.get("derived")) or goes_back(receipt)
    active = roles.active
    if active in reachable and active is not None:
        with context.database(active).view() as view:
            found.lag = measure(view, checkpoint)


def _schedule(context: Context, roles: Ownership, reachable: list[str], found: Standing) -> None:
    """Fill in what is scheduled; the scheduler's heartbeat lies in the idle side."""
    idle, now = roles.idle or roles.new, context.clock.now()
    found.schedule = scheduled(context, reachable, idle, now)
    if found.schedule.warning:
        found.warnings.append(found.schedule.warning)
    if found.schedule.late:
        found.warnings.append("schedule-late")
    if idle in reachable:
        found.scheduler = follower_of(found.schedule.beat, now)


def follower_of(beat: dict[str, Any] | None, now: datetime) -> str:
    """What a heartbeat says of the follower, or the scheduler: `running` or `stopped`."""
    at = moment((beat or {}).get("at"))
    if beat is None or at is None:
        return "stopped"
    fresh = (now - at).total_seconds() <= HEARTBEAT_SECONDS
    return "running" if fresh and not _died_here(beat) else "stopped"


def _died_here(beat: dict[str, Any]) -> bool:
    """Whether the follower ran on this host and its process is gone: known at once, without waiting for its age."""
    pid = beat.get("pid")
    if beat.get("host") != platform.node() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def receipt_of(document: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The receipt as `status` tells it; `valid` is for `judge` to say."""
    taken = moment(document.get("taken_at"))
    return {
        "id": document.get("id"),
        "taken_at": document.get("taken_at"),
        "age_seconds": max(0.0, (now - taken).total_seconds()) if taken is not None else 0.0,
        "valid": False,
        "position": document.get("position"),
        "tables": document.get("tables", []),
    }


def goes_back(receipt: dict[str, Any]) -> bool:
    """Whether a receipt speaks of a handover to the older shape."""
    revisions = receipt.get("revisions") or {}
    return len(set(revisions.values())) > 1 and receipt.get("idle") == receipt.get("older")


def moment(text: object) -> datetime | None:
    """An ISO text as a moment (UTC where it names no zone), None when it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _route(context: Context, roles: Ownership, found: Standing) -> list[Blocker]:
    """Fill in the route; gives what it says against a cutover, in case nothing else says it."""
    try:
        router = context.router
        if router is None:
            found.warnings.append("no-router")
            return []
        environments = {one.environment for one in router.routes()}
    except DbsyncError as exc:
        return [Blocker(exc.code, exc.message, exc.remedy)]
    found.route = environments.pop() if len(environments) == 1 else "other"
    if roles.active is None or found.route == roles.active:
        return []
    said = f"requests go to {found.route or 'an unknown service'}, and {roles.active} is active"
    return [Blocker("route-disagrees", said, "dbsync doctor")]


def judge(context: Context, roles: Ownership) -> list[Blocker]:
    """What stands in the way of a cutover: the cutover's own gates say it, on evidence that costs little."""
    from dbsync.cutover.gate import judge as verdict
    from dbsync.cutover.world import survey

    if roles.active is None or not roles.settled:
        return [Blocker("cutover-running", f"a handover to {roles.new} is under way", "dbsync cutover --resume")]
    world = context.world()
    try:
        return list(verdict(survey(world, roles, thorough=False).evidence, world.limits))
    except Interrupted:
        raise
    except DbsyncError as exc:
        return list(exc.blockers) or [Blocker(exc.code, exc.message, exc.remedy)]


def proves(blockers: list[Blocker]) -> bool:
    """Whether nothing among the blockers speaks against the receipt itself."""
    return not any(one.code in AGAINST_RECEIPT or one.code.startswith("receipt-") for one in blockers)


def _next(found: Standing) -> str | None:
    if found.unreachable:
        return "dbsync doctor"
    codes = [one.code for one in found.blockers]
    # Where the windows are applied by schedule nobody needs to start a follower.
    sync = "dbsync sync --once" if found.schedule.syncs else "dbsync sync"
    for code, command in (
        ("cutover-running", "dbsync cutover --resume"),
        ("lag-unknown", sync),
        ("lag-too-high", sync),
        ("table-stale", sync),
        ("schema-missing", "dbsync migrate --target idle"),
    ):
        if code in codes:
            return command
    if any(one.remedy.startswith("dbsync init") for one in found.blockers):
        return "dbsync init"
    if any(code in AGAINST_RECEIPT or code.startswith("receipt-") for code in codes):
        return "dbsync verify"
    if codes:
        return "dbsync doctor"
    if not found.arrived:
        return "dbsync cutover"
    return None if found.follower == "running" or found.schedule.syncs else "dbsync sync"
