"""`dbsync etl history`: the runs of jobs, as both databases have recorded them."""

from __future__ import annotations

from typing import Any

import click

from dbsync.cli.etl_jobs import known
from dbsync.cli.render import Outcome, Paper, seconds, told
from dbsync.cli.session import Session, verb
from dbsync.errors import ConfigError
from dbsync.etl.runs import Run
from dbsync.ports import Database

DEFAULT = 20


@verb("history")
@click.argument("job", required=False)
@click.option("--rejected", is_flag=True, help="The rows of JOB that were set aside, each with the reason.")
@click.option("-n", "count", metavar="N", type=click.IntRange(min=1), default=DEFAULT, help="How many runs (20).")
@click.option("--run", "named", metavar="RUN", help="With --rejected: of this run (default: the newest that has some).")
def history(session: Session, job: str | None, rejected: bool, count: int, named: str | None) -> Outcome:
    """Tell what became of the runs of all jobs, or of one: the newest N, oldest first.

    Example: dbsync etl history daily_totals --rejected
    """
    if rejected and job is None:
        raise click.UsageError("--rejected goes with the name of a job.")
    if named is not None and not rejected:
        raise click.UsageError("--run goes with --rejected.")
    from dbsync.etl.load import read_rejects, read_runs

    context = session.context
    seen = context.look()
    databases = [context.database(name) for name, guard in seen.guards.items() if guard is not None]
    if not databases:
        raise context.not_initialised(list(seen.guards))
    runs = read_runs(databases, job, count)
    if job is not None and not runs:
        known(context, job)  # a job that is gone keeps its history
    data: dict[str, Any] = {"runs": [run.as_document() for run in runs]}
    if seen.unreachable:
        data["unreachable"] = list(seen.unreachable)
    rejects: list[dict[str, Any]] = []
    if rejected and job is not None:
        if named is not None:
            _known_run(databases, job, named)
        rejects = read_rejects(databases, job, named)
        data["rejects"] = rejects

    def text(paper: Paper) -> None:
        _write(paper, runs, rejects if rejected else None)
        for name, exc in seen.unreachable.items():
            paper.line(f"! {name} does not answer: {exc.message}")

    return Outcome(data, next=_next(runs, rejected), text=text)


def _known_run(databases: list[Database], job: str, run: str) -> None:
    from dbsync.etl.load import read_runs

    if not any(one.run == run for one in read_runs(databases, job)):
        raise ConfigError(
            f"{job} has no run {run!r}.", code="unknown-run", remedy=f"dbsync etl history {job} shows them."
        )


def _next(runs: list[Run], rejected: bool) -> str | None:
    """The newest run says it: rows to look at, or a run to do again."""
    if not runs or rejected:
        return None
    newest = runs[-1]
    if newest.rejected:
        return f"dbsync etl history {newest.job} --rejected"
    return f"dbsync etl run {newest.job}" if newest.status in ("failed", "interrupted") else None


def _write(paper: Paper, runs: list[Run], rejects: list[dict[str, Any]] | None) -> None:
    if rejects is not None:
        if not rejects:
            paper.line("No rows were set aside.")
        paper.table(("run", "row", "reason"), [(one["run"], told(one["row"]), one["reason"]) for one in rejects])
        return
    if not runs:
        paper.line("No job has run yet.")
    paper.table(
        ("started (UTC)", "job", "on", "status", "took", "read", "written", "rejected", "why"),
        [
            (
                f"{run.started:%Y-%m-%d %H:%M:%S}" if run.started is not None else "–",
                run.job,
                run.database,
                run.status,
                seconds(run.seconds),
                run.read,
                run.written,
                run.rejected,
                run.reason or told(list(run.warnings)),
            )
            for run in runs
        ],
    )
