"""`dbsync etl`: what happens to the rows between the revisions, and the jobs."""

from __future__ import annotations

from typing import Any

import click

from dbsync.cli.etl_check import check
from dbsync.cli.etl_explain import explain
from dbsync.cli.etl_history import history
from dbsync.cli.etl_jobs import schedules
from dbsync.cli.etl_new import new
from dbsync.cli.etl_run import run
from dbsync.cli.etl_schedule import schedule
from dbsync.cli.options import VerbGroup
from dbsync.cli.render import Outcome, Paper, told
from dbsync.cli.session import Session, verb


@click.group("etl", cls=VerbGroup)
def etl() -> None:
    """Crossings and jobs: list them, run a job, run what is due, tell what became of it."""


@verb("list")
def list_crossings(session: Session) -> Outcome:
    """List jobs with their schedules, and crossings with what each reverse one cannot bring back.

    Example: dbsync etl list
    """
    jobs = _jobs(session)
    pairs = session.context.pairs
    order = {revision: place for place, revision in enumerate(session.context.migrator.chain())}
    crossings: list[dict[str, Any]] = []
    for revision in sorted(pairs, key=lambda one: order.get(one, len(order))):
        for direction in ("forward", "reverse"):
            crossing = getattr(pairs[revision], direction)
            if crossing is not None:
                crossings.append(_described(revision, direction, crossing))

    def text(paper: Paper) -> None:
        if not jobs:
            paper.line("There are no jobs, and nothing is scheduled.")
        paper.table(
            ("job", "schedule", "next run (UTC)", "into", "mode"),
            [(j["name"], told(j["schedule"]), _when(j["next_run"]), told(j["into"]), told(j["mode"])) for j in jobs],
        )
        if not crossings:
            paper.line("There are no crossings: every table crosses by column name.")
        paper.table(
            ("revision", "direction", "tables", "loses", "policy"),
            [
                (c["revision"], c["direction"], told(c["tables"]), told(c["loses"]), told(c["losing"]))
                for c in crossings
            ],
        )

    return Outcome({"jobs": jobs, "crossings": crossings}, text=text)


def _jobs(session: Session) -> list[dict[str, Any]]:
    """The jobs, and `sync` where it is scheduled."""
    context = session.context
    now, plans = context.clock.now(), schedules(context)
    found = []
    for name in sorted({*context.jobs, *plans}):
        job, plan = context.jobs.get(name), plans.get(name)
        found.append(
            {
                "name": name,
                "schedule": None if plan is None else plan.expression,
                "next_run": None if plan is None else plan.next(now).isoformat(),
                "into": None if job is None else job.into,
                "mode": None if job is None else job.mode,
            }
        )
    return found


def _when(text: str | None) -> str:
    return "–" if text is None else text[:16].replace("T", " ")


def _described(revision: str, direction: str, crossing: Any) -> dict[str, Any]:
    loses = {f"{one.name}.{column}": why for one in crossing.tables for column, why in one.loses.items()}
    return {
        "revision": revision,
        "direction": direction,
        "tables": [one.name for one in crossing.tables],
        "loses": loses,
        "losing": {f"{one.name}.{column}": policy for one in crossing.tables for column, policy in one.losing.items()},
    }


etl.add_command(list_crossings)
etl.add_command(run)
etl.add_command(schedule)
etl.add_command(history)
etl.add_command(new)
etl.add_command(check)
etl.add_command(explain)
