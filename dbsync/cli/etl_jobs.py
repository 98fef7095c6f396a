"""Jobs as the command line knows them: by name, with their schedules, and how each is run (`sync` is one of them)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from dbsync.cli.wiring import Context
from dbsync.config import nearest
from dbsync.cutover.state import Ownership
from dbsync.errors import ConfigError, DbsyncError, Interrupted, Refused, Unavailable
from dbsync.etl.schedule import SYNC, Schedule
from dbsync.ports import Database

if TYPE_CHECKING:
    from dbsync.etl.runs import Run
    from dbsync.sync.run import Synced

TRIES, FIRST_WAIT = 4, 1.0
"""How often a run of `sync` looks for a database that does not answer, and the first wait in seconds."""

TURNED_SECONDS, TURNS = 0.5, 60
"""While a handover is under way a due run waits for it: how long between two looks, and how many."""

MOVED = frozenset({"role-changed", "epoch-changed", "cutover-running"})
"""Refusals that say: the sides are being exchanged."""


def known(context: Context, name: str) -> None:
    """Raises ConfigError (`unknown-job`) with the nearest name, unless it is `sync` or a job of this installation."""
    if name != SYNC and name not in context.jobs:
        raise _unknown(context, f"There is no job {name!r}", name)


def schedules(context: Context) -> dict[str, Schedule]:
    """What is scheduled, by job: the file's word goes before the job's own, an empty one switches it off.

    Raises ConfigError for a job file that is broken (`broken-job`) and for a name that is no job (`unknown-job`).
    """
    settings = context.config.etl
    found = {name: job.schedule for name, job in context.jobs.items() if job.schedule}
    for name, expression in settings.schedule.items():
        if name != SYNC and name not in context.jobs:
            raise _unknown(context, f"etl.schedule names {name!r}, which is no job", name)
        found[name] = expression
    return {name: Schedule(text, settings.timezone) for name, text in sorted(found.items()) if text}


def _unknown(context: Context, found: str, name: str) -> ConfigError:
    return ConfigError(f"{found}.", code="unknown-job", remedy=nearest(name, [SYNC, *context.jobs]))


def target_of(context: Context, roles: Ownership, name: str) -> Database:
    """The database that a job writes, with the roles as they are. Raises as `known`."""
    known(context, name)
    side = "idle" if name == SYNC else context.jobs[name].target
    return context.database(str(roles.active if side == "active" else roles.idle))


def run_named(
    context: Context,
    name: str,
    since: datetime | None = None,
    due: datetime | None = None,
) -> Run:
    """Run a job, or `sync`, once. Gives and raises as `etl.load.run_job`."""
    if name == SYNC:
        return _Sync(context, due).run()
    from dbsync.etl.load import run_job

    roles = context.settled()
    return run_job(
        name,
        context.jobs[name],
        context.databases,
        str(roles.active),
        str(roles.idle),
        roles.epoch,
        context.clock,
        context.report,
        context.stop,
        since=since,
        due=due,
    )


def run_due(context: Context, name: str, due: datetime) -> Run:
    """As `run_named`; when the sides are exchanged meanwhile, again with the sides as they are then."""
    for _ in range(TURNS):
        try:
            return run_named(context, name, due=due)
        except Refused as refused:
            if refused.code not in MOVED:
                raise
            context.clock.sleep(TURNED_SECONDS)
    return run_named(context, name, due=due)


@dataclass
class _Sync:
    """One scheduled run of the windows: `sync --once`, with its place in the history."""

    context: Context
    due: datetime | None
    attempts: int = 0

    def run(self) -> Run:
        """Drain once, and record it. Raises as `sync --once`, after having recorded that."""
        from dbsync.etl.load import lock_name, new_run_id, record_run
        from dbsync.etl.runs import DONE, FAILED, INTERRUPTED, Run

        context, clock = self.context, self.context.clock
        roles = context.settled()
        active, idle = context.database(str(roles.active)), context.database(str(roles.idle))
        with _alone(idle, lock_name(SYNC)):
            with active.view() as view, idle.view() as other:
                until, before = view.now(), other.checkpoint()
            started = clock.now()
            run = Run(SYNC, new_run_id(started), DONE, started=started, due=self.due, database=idle.name)
            try:
                done = self._drain()
            except DbsyncError as exc:
                status = INTERRUPTED if isinstance(exc, Interrupted) else FAILED
                failed = replace(run, status=status, ended=clock.now(), reason=exc.message, attempts=self.attempts)
                with contextlib.suppress(DbsyncError):
                    record_run(idle, failed)
                raise
            rows = done.upserted + done.deleted + (done.snapshot or {"rows": 0})["rows"]
            run = replace(run, ended=clock.now(), read=rows, written=rows, attempts=self.attempts)
            run = replace(run, since=before.at if before is not None else None, until=until)
            record_run(idle, run)
            return run

    def _drain(self) -> Synced:
        from dbsync.cli.sync import tidy
        from dbsync.sync.run import RENEWED_BY

        wait = FIRST_WAIT
        while True:
            self.attempts += 1
            try:
                pump = self.context.pump()
                pump.pulse = self._pulse
                done = pump.drain()
                tidy(pump)
                return done
            except Refused as refused:
                if refused.code not in RENEWED_BY or refused.code in MOVED or self.attempts >= TRIES:
                    raise
            except Unavailable:
                if self.attempts >= TRIES:
                    raise
            self.context.clock.sleep(wait)
            wait *= 2

    def _pulse(self) -> None:
        if self.context.stop():
            raise Interrupted


@contextlib.contextmanager
def _alone(database: Database, lock: str) -> Iterator[None]:
    """Hold the lock of a job. Raises Refused (`job-running`)."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(database.lock(lock, 0.0))
        except Refused as taken:
            if not taken.code.endswith("-running"):
                raise
            raise Refused(
                f"A run of {SYNC} goes on already.", code="job-running", remedy="Wait for it: dbsync etl history."
            ) from None
        yield
