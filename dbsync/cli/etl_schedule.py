"""`dbsync etl schedule`: runs what is due, each job in a thread of its own, until stopped; or once, what is due now."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import click

from dbsync.cli.etl_jobs import schedules
from dbsync.cli.etl_turn import Turn, Turned, worst
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context
from dbsync.errors import DbsyncError, Interrupted
from dbsync.etl.runs import FAILED, INTERRUPTED, Run
from dbsync.etl.schedule import ON_TIME, SYNC, Schedule
from dbsync.model import quiet

log = logging.getLogger("dbsync.schedule")

BEAT_SECONDS = 3.0
LOOK_SECONDS = 30.0
"""A job is looked at this often even when nothing is due: another scheduler may have died, a clock been set back."""
HEAL_SECONDS = 5.0
KEPT = 100
"""How many runs a scheduler remembers for what it says at its end."""

OpenContext = Callable[[], contextlib.AbstractContextManager[Context]]


@verb("schedule", writes=True)
@click.option("--once", is_flag=True, help="Run what is due now, then end (for cron or a Kubernetes CronJob).")
def schedule(session: Session, once: bool) -> Outcome:
    """Run jobs and `sync` when they are due, until stopped. Several may run at once: each due time is run once.

    Example: dbsync etl schedule
    """
    context = session.context
    plans = schedules(context)
    context.read_roles()
    scheduler = Scheduler(context, plans, _opener(session), lambda: _heal(session, SYNC in plans))
    if not once:
        session.running = True
        if not plans:
            log.warning("nothing is scheduled: there is no [etl.schedule], and no job has a schedule")
        scheduler.until_stopped()
    else:
        scheduler.once()
        if session.stop():
            raise Interrupted
    return _outcome(scheduler, once)


@dataclass
class Scheduler:
    """The loop. Every turn gets a context of its own, so that a job under way shares nothing with another."""

    context: Context
    plans: dict[str, Schedule]
    open_context: OpenContext
    heal: Callable[[], object] = lambda: None
    launch: Callable[[Callable[[], None]], None] | None = None
    """How a turn is begun; None: in a thread of its own."""
    runs: collections.deque[Run] = field(default_factory=lambda: collections.deque(maxlen=KEPT))
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    turned: list[Turned] = field(default_factory=list)
    errors: list[DbsyncError] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def once(self) -> None:
        """One look at every job, side by side; raises the first error that prevented a look."""
        self.heal()
        for name in self.plans:
            self._begin(name, None)
        self._join()
        if self.errors:
            first = self.errors[0]
            first.changed = first.changed or bool(self.runs)
            raise first

    def until_stopped(self) -> None:
        """Look, run what is due, wait; until the process is told to stop. Then wait for what still runs."""
        clock = self.context.clock
        looks = dict.fromkeys(self.plans, clock.monotonic())
        beat = heal = clock.monotonic()
        try:
            while not self.context.stop():
                now = clock.monotonic()
                if now >= heal:
                    self.heal()
                    heal = clock.monotonic() + HEAL_SECONDS
                if now >= beat:
                    self._beat()
                    beat = now + BEAT_SECONDS
                for name in [one for one, due in looks.items() if now >= due]:
                    self._begin(name, ON_TIME)
                    looks[name] = now + self._until_next(name)
                clock.sleep(max(0.0, min([beat, heal, *looks.values()]) - clock.monotonic()))
        except Interrupted:
            log.debug("told to stop")
        finally:
            self._join()
            self._farewell()

    def _begin(self, name: str, on_time: timedelta | None) -> None:
        """Begin a turn in a thread of its own: a long job must not delay another one."""

        def work() -> None:
            self._turn(name, on_time)

        if self.launch is not None:
            self.launch(work)
            return
        # A second signal must end the process at once; what a job has not committed is rolled back.
        thread = threading.Thread(target=work, daemon=True)
        self.threads = [one for one in self.threads if one.is_alive()] + [thread]
        thread.start()

    def _until_next(self, name: str) -> float:
        """Seconds until a job is looked at again: at its next due time, or earlier."""
        now = self.context.clock.now()
        return min(LOOK_SECONDS, (self.plans[name].next(now) - now).total_seconds() + 0.001)

    def _turn(self, name: str, on_time: timedelta | None) -> None:
        try:
            with self.open_context() as context:
                turned = Turn(context, name, self.plans[name], on_time).run()
        except Interrupted:
            self.counts.update([INTERRUPTED])
            return
        except DbsyncError as exc:
            log.warning("%s was not looked at: %s", name, exc.message)
            self.errors = [*self.errors[-KEPT:], exc]
            return
        except Exception as exc:
            log.exception("%s: an error that was not expected", name)
            self.errors = [*self.errors[-KEPT:], _bug(name, exc)]
            return
        self.turned = [*self.turned[-KEPT:], turned]
        self.runs.extend(turned.runs)
        self.counts.update(run.status for run in turned.runs)
        self.counts.update([FAILED] if turned.error is not None else [])

    def _join(self) -> None:
        for thread in self.threads:
            thread.join()

    # --- heartbeat -------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Say in the idle database that a scheduler lives. A database that does not answer is no reason to stop."""
        with contextlib.suppress(DbsyncError):
            document = {
                "owner": self.context.owner,
                "host": platform.node(),
                "pid": os.getpid(),
                "at": self.context.clock.now().isoformat(),
                "jobs": sorted(self.plans),
            }
            idle = self.context.settled().idle
            self.context.database(str(idle)).save("heartbeat", "scheduler", document)

    def _farewell(self) -> None:
        """Leave no heartbeat of one's own behind."""
        with contextlib.suppress(DbsyncError):
            for database in self.context.databases.values():
                with database.view() as view:
                    beat = view.load("heartbeat", "scheduler")
                if beat is not None and beat.get("owner") == self.context.owner:
                    database.save("heartbeat", "scheduler", None)


def _bug(name: str, exc: Exception) -> DbsyncError:
    return DbsyncError(
        f"{name}: an error that was not expected: {type(exc).__name__}: {exc}",
        code="bug",
        remedy="Run it again with -v, and report what stderr says.",
        changed=True,
    )


def _opener(session: Session) -> OpenContext:
    shared = session.context

    @contextlib.contextmanager
    def opened() -> Iterator[Context]:
        context = Context(session.config, quiet, session.stop)
        context.clock = shared.clock  # one signal wakes every sleeper
        try:
            yield context
        finally:
            context.close()

    return opened


def _heal(session: Session, follows: bool) -> None:
    """What a follower does as well: see to a handover that was left behind."""
    if follows:
        from dbsync.cli.world import heal

        heal(session, thorough=False)


def _outcome(scheduler: Scheduler, once: bool) -> Outcome:
    runs = [run.as_document() for run in scheduler.runs]
    data = {"jobs": sorted(scheduler.plans), "runs": runs, "counts": dict(scheduler.counts)}

    def text(paper: Paper) -> None:
        if not scheduler.plans:
            paper.line("Nothing is scheduled: there is no [etl.schedule], and no job has a schedule.")
        elif not runs:
            paper.line("Nothing was due.")
        paper.table(
            ("job", "run", "status", "read", "written", "rejected", "why"),
            [(r["job"], r["run"], r["status"], r["read"], r["written"], r["rejected"], r["reason"]) for r in runs],
        )

    code = worst(scheduler.turned) if once else 0
    return Outcome(data, next="dbsync etl history" if runs else None, text=text, exit_code=code)
