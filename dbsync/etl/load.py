"""Running a job: extract on one side, transform, load on the other in one transaction or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from dbsync.errors import ConfigError, DbsyncError, Interrupted, PositionLost, Refused, Unavailable
from dbsync.etl import runs
from dbsync.etl.batch import gathered, prepared
from dbsync.etl.bounds import EARLIEST, Bounds, Ended, Source, bounds, from_document
from dbsync.etl.job import Job, without_parameters
from dbsync.etl.runs import Run
from dbsync.etl.spool import Spool
from dbsync.model import Extracted, Guard, GuardState, Key, Position, Relation, Report, Role, Row, quiet
from dbsync.ports import Clock, Database, Transaction, View

WAITS = (1.0, 4.0)
"""Seconds before the second and the third attempt when a database did not answer."""

KEYS = 1_000
"""How many changed keys an extract is asked for at once."""

CHANGES = 20_000
"""How many recorded changes are looked through at once."""

STEP = 50
"""Rows that the source gives at once; they are gathered into batches of a bounded weight."""


def run_job(
    name: str,
    job: Job,
    databases: Mapping[str, Database],
    active: str,
    idle: str,
    epoch: int,
    clock: Clock,
    report: Report = quiet,
    stop: Callable[[], bool] = lambda: False,
    since: datetime | None = None,
    due: datetime | None = None,
) -> Run:
    """Run a job once. Gives a Run with status `done`, or `rejected` when some rows were set aside.

    Everything else is raised, after it was recorded on the target with status `failed` or `interrupted` (the bounds
    do not move and nothing is loaded): Refused (`job-running`, not recorded; `role-changed`; `transform-failed`),
    ConfigError (`broken-job`, `unknown-table`), Unavailable after three attempts, PositionLost (`through` only: remedy
    a full run, `since` at any value), Interrupted when `stop()` said so. `since` reads from that moment on
    (never later than where the last finished run ended); for a `through` job it means every key.
    `due` is the due time of the schedule for which it runs (None: by hand); it stands in every Run that is recorded.
    """
    sides = {"active": databases[active], "idle": databases[idle]}
    with _alone(sides[job.target], name):
        return _Running(name, job, sides, epoch, clock, report, stop, since, due).run()


def lock_name(name: str) -> str:
    """The application lock on the target that a run of this job holds."""
    return f"job-{name}"


def record_run(database: Database, run: Run) -> None:
    """Store a run on a database in a transaction of its own (for `skipped` and `missed` ones), and forget old ones."""
    run = replace(run, database=database.name)
    database.save("run", run.run, run.as_document())
    with database.view() as view:
        old, rejecting = _outlived(view, run.job)
    for kind, names in (("run", old), ("reject", rejecting)):
        for each in names:
            database.save(kind, each, None)


def read_runs(databases: Iterable[Database], job: str | None = None, limit: int | None = None) -> list[Run]:
    """The newest `limit` runs recorded on these databases, oldest first. Raises Unavailable."""
    found: list[Run] = []
    for database in databases:
        with database.view() as view:
            found += [runs.from_document(one) for one in view.load_all("run").values()]
    ordered = runs.in_order(run for run in found if job is None or run.job == job)
    return ordered if limit is None else ordered[max(0, len(ordered) - limit) :]


def read_rejects(databases: Iterable[Database], job: str, run: str | None = None) -> list[dict[str, Any]]:
    """The rows that a run set aside (default: the newest run that did): {"run", "row": {column: value}, "reason"}."""
    found: dict[str, list[dict[str, Any]]] = {}
    for database in databases:
        with database.view() as view:
            for name, one in view.load_all("reject").items():
                if one["job"] == job and run in (None, name):
                    found[name] = [{"run": name, **row} for row in one["rows"]]
    return found[max(found)] if found else []


def new_run_id(moment: datetime) -> str:
    """A name for a run, in the order of time."""
    return f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond:06}-{secrets.token_hex(3)}"


@contextmanager
def _alone(target: Database, name: str) -> Iterator[None]:
    """One run of a job at a time; the lock dies with the process."""
    locked = target.lock(lock_name(name), 0.0)
    try:
        locked.__enter__()
    except Refused as refused:
        raise Refused(
            f"the job {name} is running already",
            code="job-running",
            remedy="wait for it, then run the command again",
        ) from refused
    try:
        yield
    finally:
        locked.__exit__(None, None, None)


class _Running:
    """One run of one job, over all its attempts."""

    def __init__(
        self,
        name: str,
        job: Job,
        sides: Mapping[str, Database],
        epoch: int,
        clock: Clock,
        report: Report,
        stop: Callable[[], bool],
        since: datetime | None,
        due: datetime | None,
    ) -> None:
        self.name, self.job, self.epoch, self.clock = name, job, epoch, clock
        self.source, self.target = sides[job.source], sides[job.target]
        self.report, self.stop, self.asked = report, stop, since
        started = clock.now()
        self.told = Run(name, new_run_id(started), runs.DONE, started=started, database=self.target.name, due=due)

    def run(self) -> Run:
        """Try, and record what did not come to a good end."""
        try:
            return self._tried()
        except Interrupted:
            self._record(runs.INTERRUPTED, "stopped by a signal")
            raise
        except DbsyncError as error:
            self._record(runs.FAILED, f"{error.code}: {error.message}")
            raise
        except Exception as error:
            self._record(runs.FAILED, f"{type(error).__name__}: {error}")
            raise

    def _tried(self) -> Run:
        for attempt, wait in enumerate((*WAITS, None), 1):
            self.told = replace(self.told, attempts=attempt, read=0, written=0, rejected=0)
            try:
                return self._once()
            except Unavailable:
                if wait is None:
                    raise
                self.clock.sleep(wait)
        raise AssertionError

    def _once(self) -> Run:
        with self.target.view() as view:
            stored, before = view.load("job", self.name), view.load("run", self.told.run)
        if before is not None:
            # The answer to the last attempt's commit was lost, and it had landed.
            return runs.from_document(before)
        with Spool() as spool:
            with self.source.view() as view:
                plan, ended = self._planned(view, from_document(stored))
                self._extract(view, plan, spool)
            role = Role.ACTIVE if self.job.target == "active" else Role.IDLE
            with self.target.writing(role, self.epoch) as tx:
                if tx.load("job", self.name) != stored:
                    raise Refused(
                        f"another run of {self.name} has ended meanwhile",
                        code="job-running",
                        remedy="run the command again",
                    )
                self._load(tx, spool)
                self._note(tx, ended)
        return self.told

    def _record(self, status: str, reason: str) -> None:
        counts = {"written": 0, "rejected": 0}
        told = replace(self.told, status=status, reason=reason, ended=self.clock.now(), **counts)  # type: ignore[arg-type]
        # What went wrong counts, not that it could not be noted.
        with suppress(DbsyncError):
            record_run(self.target, told)

    def _breathe(self) -> None:
        if self.stop():
            raise Interrupted

    # --- the source ----------------------------------------------------------------------------

    def _planned(self, view: View, ended: Ended | None) -> tuple[Bounds, Ended]:
        """This run's bounds, and what to store of them."""
        guard = self._require_source(view.guard())
        now, checkpoint = view.now(), view.checkpoint() if self.job.source == "idle" else None
        reflects = checkpoint.at if checkpoint is not None else None
        oldest, captured = self._recorded(view, ended, guard, now)
        source = Source(guard.identity, guard.epoch, now, view.position(), oldest, captured, reflects)
        plan = bounds(self.job, ended, source, self.asked)
        shown = (plan.since if plan.since != EARLIEST else None, plan.until)
        since, until = shown if self.job.bounded else (None, None)
        self.told = replace(self.told, since=since, until=until, warnings=plan.warnings)
        return plan, Ended(guard.identity, guard.epoch, self.job.into, plan.until, source.position, self.told.run)

    def _require_source(self, guard: Guard | None) -> Guard:
        if guard is None:
            raise Refused("dbsync is not installed", code="not-initialised", remedy="dbsync init --active NAME")
        live = guard.state in (GuardState.OPEN, GuardState.FENCED)
        if guard.epoch != self.epoch or live != (self.job.source == "active"):
            raise Refused(
                f"{self.source.name} is no longer the {self.job.source} side (epoch {guard.epoch})",
                code="role-changed",
                remedy=f"dbsync etl run {self.name}",
            )
        return guard

    def _recorded(self, view: View, ended: Ended | None, guard: Guard, now: datetime) -> tuple[datetime | None, bool]:
        """The stamp of the oldest change recorded after the last finished run, and whether that speaks of all it reads.

        On an idle side it says nothing: what is applied there was stamped on the other one.
        """
        if ended is None or ended.source != guard.identity or self.job.source == "idle" or not self.job.bounded:
            return None, False
        try:
            lag = view.lag(ended.position)
        except PositionLost:
            return None, False
        return now - timedelta(seconds=lag.seconds) if lag.changes else None, self._captured()

    def _captured(self) -> bool:
        sql = without_parameters(self.job.sql(self.source.capabilities.dialect))
        try:
            read = {table.casefold() for table, _ in self.source.reads(sql)}
        except (ConfigError, NotImplementedError):
            return False
        return read <= {name.casefold() for name, table in self.source.catalog().tables.items() if table.key}

    def _extract(self, view: View, plan: Bounds, spool: Spool) -> None:
        for extracted in gathered(self._parts(view, plan)):
            self._breathe()
            self.told = replace(self.told, read=self.told.read + len(extracted.rows))
            for batch in prepared(self.job, extracted):
                try:
                    spool.put(batch)
                except Exception as error:
                    raise Refused(
                        f"transform gave a value that is no plain one: {error}",
                        code="transform-failed",
                        remedy="let it give texts, numbers, bytes, dates or None",
                    ) from error
            self.report(f"job {self.name}: read", self.told.read, None)

    def _parts(self, view: View, plan: Bounds) -> Iterator[Extracted]:
        sql = self.job.sql(self.source.capabilities.dialect)
        if self.job.through is None:
            yield from view.extract(sql, {"since": plan.floor, "until": plan.until}, STEP)
            return
        for keys in self._keys(view, plan.after):
            self._breathe()
            yield from view.extract(sql, {"keys": keys}, STEP)

    def _keys(self, view: View, after: Position | None) -> Iterator[Sequence[Key]]:
        """The keys to extract, in lists: those changed after a position, or all of them."""
        shape = self.source.catalog().table(str(self.job.through))
        if shape is None or not shape.key:
            raise ConfigError(
                f"there is no synced table {self.job.through} with a primary key on {self.source.name}",
                code="broken-job",
                remedy="let `through` name a table that is captured",
            )
        if after is not None:
            changed = self._changed(view, shape.name, after)
            if changed is not None:
                yield from (changed[at : at + KEYS] for at in range(0, len(changed), KEYS))
                return
        left, right = self.source.capabilities.quote
        named = ", ".join(f"{left}{one.replace(right, right * 2)}{right}" for one in shape.key)
        table = f"{left}{shape.name.replace(right, right * 2)}{right}"
        every = Relation(shape.name, shape.key, shape.key, f"SELECT {named} FROM {table}")
        last: Row | None = None
        while some := view.by_range(every, last, None, KEYS):
            yield some
            last = some[-1]

    def _changed(self, view: View, table: str, after: Position) -> list[Key] | None:
        """The keys of a table that changed after a position, None when any may have."""
        found: dict[Key, None] = {}
        while True:
            try:
                changes = view.changes(after, CHANGES)
            except PositionLost as lost:
                raise PositionLost(
                    f"the job {self.name} cannot tell what changed since its last run: {lost.message}",
                    code=lost.code,
                    remedy=f"read every key: dbsync etl run {self.name} --since 0001-01-01",
                ) from lost
            for touched in changes.tables:
                if touched.table.casefold() == table.casefold():
                    if touched.whole:
                        return None
                    found.update(dict.fromkeys(touched.keys))
            if not changes.count:
                return list(found)
            after = changes.end

    # --- the target ----------------------------------------------------------------------------

    def _load(self, tx: Transaction, spool: Spool) -> None:
        """Everything that was read, in the transaction."""
        job, kept = self.job, list[dict[str, Any]]()
        # Also with nothing to load: the table and its key must be what the job says.
        tx.load_rows(job.into, job.columns, (), job.columns, job.mode)
        if job.mode == "replace":
            tx.clear(job.into)
        written = rejected = 0
        for batch in spool:
            self._breathe()
            aside = list(batch.rejected)
            if batch.rows:
                loaded = tx.load_rows(job.into, batch.columns, batch.rows, job.columns, job.mode)
                written += loaded.written
                aside += [(batch.columns, one.row, one.reason) for one in loaded.rejected]
            rejected += len(aside)
            for columns, row, reason in aside[: max(0, runs.KEPT_REJECTS - len(kept))]:
                cells = {name: runs.shown(value) for name, value in zip(columns, row, strict=True)}
                kept.append({"row": cells, "reason": reason})
            self.told = replace(self.told, written=written, rejected=rejected)
            self.report(f"job {self.name}: loaded", written, self.told.read)
        if rejected:
            tx.save("reject", self.told.run, {"job": self.name, "total": rejected, "rows": kept})

    def _note(self, tx: Transaction, ended: Ended) -> None:
        """The run and its bounds, with the rows that they speak of."""
        status = runs.REJECTED if self.told.rejected else runs.DONE
        self.told = replace(self.told, status=status, ended=self.clock.now())
        tx.save("job", self.name, ended.as_document() | {"through": self.job.through})
        tx.save("run", self.told.run, self.told.as_document())
        old, rejecting = _outlived(tx, self.name)
        for kind, names in (("run", old), ("reject", rejecting)):
            for each in names:
                tx.save(kind, each, None)


def _outlived(view: View, job: str) -> tuple[list[str], list[str]]:
    return runs.outlived((runs.from_document(one) for one in view.load_all("run").values()), job)
