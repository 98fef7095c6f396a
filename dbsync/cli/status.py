"""`dbsync status`: where everything stands."""

from __future__ import annotations

import click

from dbsync.cli.etl_standing import told as told_schedule
from dbsync.cli.render import Outcome, Paper, seconds, told
from dbsync.cli.session import Session, verb
from dbsync.cli.standing import Standing, look
from dbsync.errors import Interrupted

WATCH_SECONDS = 2.0


@verb("status", runs=True)
@click.option("--watch", is_flag=True, help="Again every two seconds until stopped (--json: one object a line).")
def status(session: Session, watch: bool) -> Outcome | None:
    """Show where everything stands; works with one side unreachable, and says so.

    Example: dbsync status --watch
    """
    if not watch:
        return _outcome(look(session.context))
    while not session.stop():
        session.emit(_outcome(look(session.context)))
        try:
            session.context.clock.sleep(WATCH_SECONDS)
        except Interrupted:
            break
    return None


def _outcome(found: Standing) -> Outcome:
    return Outcome(found.data(), next=found.next, text=lambda paper: _write(paper, found), warnings=found.warnings)


def _write(paper: Paper, found: Standing) -> None:
    lag = "unknown" if found.lag is None else f"{found.lag.changes} changes, {seconds(found.lag.seconds)}"
    receipt = found.receipt
    evidence = "none"
    if receipt is not None:
        evidence = f"{receipt['id']}, {seconds(receipt['age_seconds'])} old"
        evidence += "" if receipt["valid"] else ", no longer valid"
    pairs = [
        ("active", found.active or "–"),
        ("idle", found.idle or "–"),
        ("phase", f"{found.phase} (epoch {found.epoch})"),
        *((f"revision of {name}", revision or "none") for name, revision in found.revisions.items()),
        ("lag", lag),
        ("follower", "by schedule" if found.schedule.syncs and found.follower != "running" else found.follower),
        *((f"schedule of {name}", told_schedule(one)) for name, one in found.schedule.jobs.items()),
        *((("scheduler", found.scheduler),) if found.schedule.jobs else ()),
        ("receipt", evidence),
        ("route", found.route or "–"),
        ("ready", "yes" if found.ready else "no"),
    ]
    pairs += [("unreachable", name) for name in found.unreachable]
    pairs += [("excluded", told(list(found.excluded)))] if found.excluded else []
    paper.pairs(pairs)
    for blocker in found.blockers:
        paper.line(f"  ✗ {blocker.code}: {blocker.found}")
        if blocker.remedy:
            paper.line(f"    → {blocker.remedy}")
