"""Where the schedule stands, for `status` and `doctor`: next and last run of each job, and who runs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dbsync.cli.etl_jobs import schedules
from dbsync.cli.render import seconds
from dbsync.cli.wiring import Context
from dbsync.errors import DbsyncError
from dbsync.etl.schedule import KIND, ON_TIME, SYNC, Schedule, Taken, from_document
from dbsync.model import Check, Severity

LAST = ("run", "status", "due", "started", "ended", "seconds", "reason")
"""What `status` tells of a job's last scheduled run."""


@dataclass
class Scheduled:
    """The schedule as `status` tells it; `warning` is why it could not be read."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    beat: dict[str, Any] | None = None
    seen: bool = False
    """Whether a scheduler ever looked at any of them."""
    warning: str = ""

    @property
    def syncs(self) -> bool:
        """Whether the windows are applied by schedule."""
        return SYNC in self.jobs

    @property
    def late(self) -> list[str]:
        """Jobs of which a due time has passed and nobody has taken it."""
        return [name for name, one in self.jobs.items() if one["late"]]


def scheduled(context: Context, reachable: Iterable[str], idle: str, now: datetime) -> Scheduled:
    """What is scheduled and how it stands, read off the sides that answer. A broken job file is a warning here."""
    found = Scheduled()
    try:
        plans = schedules(context)
    except DbsyncError as exc:
        found.warning = exc.code
        return found
    taken: dict[str, Taken] = {}
    for side in reachable if plans else ():
        with context.database(side).view() as view:
            documents = view.load_all(KIND)
            if side == idle:
                found.beat = view.load("heartbeat", "scheduler")
        for name, document in documents.items():
            one = from_document(document)
            if one is not None and (name not in taken or taken[name].due < one.due):
                taken[name] = one
    found.seen = any(name in taken for name in plans)
    found.jobs = {name: _entry(name, plan, taken.get(name), now) for name, plan in plans.items()}
    return found


def _entry(name: str, plan: Schedule, taken: Taken | None, now: datetime) -> dict[str, Any]:
    last = None if taken is None or taken.last is None else {key: taken.last.get(key) for key in LAST}
    entry: dict[str, Any] = {
        "schedule": plan.expression,
        "next_run": plan.next(now).isoformat(),
        "last": last,
        "running": taken is not None and taken.open is not None,
        "late": taken is not None and taken.open is None and plan.next(taken.due) < now - ON_TIME,
    }
    if name == SYNC:
        entry["expected_lag"] = plan.wait(now) + (float(last["seconds"] or 0.0) if last is not None else 0.0)
    return entry


def told(entry: dict[str, Any]) -> str:
    """One job's entry in one line."""
    said = f"{entry['schedule']}, next {entry['next_run'][:16].replace('T', ' ')} UTC"
    last = entry["last"]
    if last is not None:
        said += f", last {last['status']} in {seconds(float(last['seconds'] or 0.0))}"
    if entry["running"]:
        said += ", running"
    if "expected_lag" in entry:
        said += f", lag to expect {seconds(entry['expected_lag'])}"
    return said + (", LATE: nobody runs it" if entry["late"] else "")


def checks(context: Context, idle: str) -> Iterable[Check]:
    """What `doctor` says of the schedule. Raises as `etl_jobs.schedules`."""
    plans = schedules(context)
    if not plans:
        return
    now, limit = context.clock.now(), context.config.cutover.max_lag
    yield Check("schedule", Severity.OK, f"scheduled in {context.config.etl.timezone}: {', '.join(plans)}")
    wait = plans[SYNC].wait(now) if SYNC in plans else 0.0
    if wait > limit:
        yield Check(
            "schedule-slow",
            Severity.WARNING,
            f"sync is scheduled with up to {seconds(wait)} between two runs, more than max_lag ({seconds(limit)}):"
            " a cutover applies the last window itself, but is refused (lag-too-high) when it begins with more lag",
            "Run dbsync sync --once right before dbsync cutover, or raise [cutover] max_lag above the interval.",
        )
    standing = scheduled(context, context.names, idle, now)
    if standing.beat is None and not standing.seen:
        yield Check(
            "schedule-unused",
            Severity.WARNING,
            "nothing has run the schedule yet",
            "dbsync etl schedule, or dbsync etl schedule --once from cron",
        )
    for name in standing.late:
        yield Check(
            "schedule-late",
            Severity.WARNING,
            f"{name} was due and has not been run",
            "dbsync etl schedule, or dbsync etl schedule --once from cron",
        )
