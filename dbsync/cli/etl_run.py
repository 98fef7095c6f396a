"""`dbsync etl run`: one job, now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from dbsync.cli.etl_jobs import known, run_named
from dbsync.cli.render import Outcome, Paper, seconds
from dbsync.cli.session import Session, verb
from dbsync.config import duration
from dbsync.errors import ConfigError
from dbsync.etl.runs import REJECTED, Run
from dbsync.etl.schedule import SYNC


@verb("run", writes=True)
@click.argument("job")
@click.option(
    "--since",
    metavar="WHEN",
    help="Read from this moment on (a date, a date and time, UTC without a zone; or 2h, 3d: so long ago).",
)
def run(session: Session, job: str, since: str | None) -> Outcome:
    """Run one job now, or `sync` (one drain of the windows). Exit 4 when rows were set aside.

    Example: dbsync etl run daily_totals --since 2026-01-01
    """
    context = session.context
    known(context, job)
    if job == SYNC:
        if since is not None:
            raise click.UsageError("--since goes with a job of this installation; sync knows its own position.")
        from dbsync.cli.world import heal

        heal(session, thorough=True)
    done = run_named(context, job, moment(since, context.clock.now()))
    rejected = done.status == REJECTED
    following = f"dbsync etl history {job} --rejected" if rejected else "dbsync verify" if job == SYNC else None
    data = done.as_document()
    data.pop("warnings")
    return Outcome(
        data,
        next=following,
        text=lambda paper: _write(paper, done),
        warnings=done.warnings,
        exit_code=4 if rejected else 0,
    )


def moment(text: str | None, now: datetime) -> datetime | None:
    """`--since` as a moment, None when it is not given. Raises ConfigError (`bad-moment`)."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - timedelta(seconds=duration(text))
        except (ConfigError, OverflowError):
            raise ConfigError(
                f"--since is {text!r}, which is neither a moment nor a duration.",
                code="bad-moment",
                remedy='Write it as "2026-01-31", "2026-01-31T08:00:00+01:00" or "3d".',
            ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _write(paper: Paper, done: Run) -> None:
    paper.line(f"{done.job}: {done.status} in {seconds(done.seconds)} (run {done.run}).")
    paper.line(f"{done.read:,} rows read, {done.written:,} written, {done.rejected:,} set aside.")
    if done.since is not None or done.until is not None:
        since = "the beginning" if done.since is None else f"{done.since:%Y-%m-%d %H:%M:%S}"
        until = "–" if done.until is None else f"{done.until:%Y-%m-%d %H:%M:%S} UTC"
        paper.line(f"From {since} to {until}.")
