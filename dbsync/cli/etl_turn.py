"""One turn of one job: take its due time under a lock on the target, run it, and record what became of it."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dbsync.cli.etl_jobs import run_due, target_of
from dbsync.cli.wiring import Context
from dbsync.errors import DbsyncError, Interrupted, Refused
from dbsync.etl.load import new_run_id, read_runs, record_run
from dbsync.etl.runs import INTERRUPTED, MISSED, REJECTED, SKIPPED, Run
from dbsync.etl.schedule import KIND, Decision, Schedule, Taken, decide, from_document, latest, told
from dbsync.ports import Database

log = logging.getLogger("dbsync.schedule")

LOCK, LOCK_SECONDS = "schedule", 10.0
"""Held on the target while a due time is taken; never while a job runs."""


@dataclass
class Turned:
    """What a turn did: the runs it recorded, and why a run failed, if one did."""

    runs: list[Run]
    error: DbsyncError | None = None


@dataclass
class Turn:
    """A look at one job's schedule. `on_time`: see etl.schedule.decide."""

    context: Context
    name: str
    schedule: Schedule
    on_time: timedelta | None

    def run(self) -> Turned:
        """Run what is due, if anything is. Raises what prevents a look: Unavailable, Refused, ConfigError, Interrupted.

        What becomes of the run itself is in what it gives; only Interrupted is raised all the same.
        """
        roles = self.context.settled()
        self.target = target_of(self.context, roles, self.name)
        done = Turned([])
        with contextlib.ExitStack() as held:
            with self.target.lock(LOCK, LOCK_SECONDS):
                busy = not _held(held, self.target, f"{LOCK}-{self.name}")
                decision = self._decide(busy)
                self._store(decision)
                done.runs += self._record(decision)
            if decision.start is not None and decision.taken is not None:
                self._go(decision.taken, decision.start, done)
        return done

    # --- taking ----------------------------------------------------------------------------------

    def _decide(self, busy: bool) -> Decision:
        databases = self.context.databases
        documents = {}
        for name, database in databases.items():
            with database.view() as view:
                documents[name] = from_document(view.load(KIND, self.name))
        here = documents.pop(self.target.name)
        taken = latest(here, documents.values())
        return decide(self.schedule, taken, busy, self.context.clock.now(), self.context.owner, self.on_time)

    def _store(self, decision: Decision) -> None:
        if decision.taken is None:
            return
        # What the other side knows counts as well, so a clock that was set back is told to both.
        sides = self.context.databases.values() if decision.warning else (self.target,)
        for database in sides:
            database.save(KIND, self.name, decision.taken.as_document())
        if decision.warning:
            log.warning("%s: the clock went back; due times are counted from now", self.name)

    def _record(self, decision: Decision) -> list[Run]:
        """Record the due times that get no run of their own."""
        runs = []
        if decision.died is not None:
            runs.append(self._note(INTERRUPTED, decision.died, "the process that ran it died"))
        if decision.skipped is not None:
            runs.append(self._note(SKIPPED, decision.skipped.last, f"the run before still went at {decision.skipped}"))
        if decision.missed is not None:
            made_up = f"; made up by the run for {told(decision.start)}" if decision.start else ""
            reason = f"nothing was running at {decision.missed}{made_up}"
            runs.append(self._note(MISSED, decision.missed.last, reason))
        for run in runs:
            log.info("%s: %s: %s", run.job, run.status, run.reason)
        return runs

    def _note(self, status: str, due: datetime, reason: str) -> Run:
        now = self.context.clock.now()
        run = Run(
            self.name,
            new_run_id(now),
            status,
            started=now,
            ended=now,
            attempts=0,
            reason=reason,
            database=self.target.name,
            due=due,
        )
        record_run(self.target, run)
        return run

    # --- running ---------------------------------------------------------------------------------

    def _go(self, taken: Taken, due: datetime, done: Turned) -> None:
        last = taken.last
        try:
            run = run_due(self.context, self.name, due)
            done.runs.append(run)
            last = run.as_document()
            log.info("%s: %s in %.1f s: %d read, %d written", self.name, run.status, run.seconds, run.read, run.written)
        except Interrupted:
            if taken.open is not None:
                self._end(replace(taken, open=replace(taken.open, told=True)))
            raise
        except DbsyncError as exc:
            if exc.code == "job-running":
                done.runs.append(self._note(SKIPPED, due, "a run by hand still went"))
            else:
                done.error, last = exc, self._newest()
                log.warning("%s: failed: %s", self.name, exc.message)
        self._end(replace(taken, open=None, last=last))

    def _newest(self) -> dict[str, Any] | None:
        runs = read_runs([self.target], self.name, 1)
        return runs[-1].as_document() if runs else None

    def _end(self, taken: Taken) -> None:
        """Store that the due time came to its end, unless a later one was dealt with meanwhile: then only that."""
        with self.target.lock(LOCK, LOCK_SECONDS):
            with self.target.view() as view:
                now = from_document(view.load(KIND, self.name)) or taken
            self.target.save(KIND, self.name, replace(taken, due=max(now.due, taken.due)).as_document())


def worst(turned: list[Turned]) -> int:
    """The exit code of some turns: that of the first failure, else 4 when rows were rejected, else 0."""
    for one in turned:
        if one.error is not None:
            return one.error.exit_code
    return 4 if any(run.status == REJECTED for one in turned for run in one.runs) else 0


def _held(held: contextlib.ExitStack, database: Database, name: str) -> bool:
    """Take a lock without waiting; False when another holds it."""
    try:
        held.enter_context(database.lock(name, 0.0))
    except Refused as refused:
        if not refused.code.endswith("-running"):
            raise
        return False
    return True
