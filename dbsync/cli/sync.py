"""`dbsync sync`: make the idle database follow the active one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from dbsync.cli.options import tables_option
from dbsync.cli.render import Outcome, Paper, seconds
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context
from dbsync.errors import Interrupted, Refused, Unavailable

if TYPE_CHECKING:
    from dbsync.sync.run import Pump, Synced

HEAL_SECONDS = 1.0


@verb("sync", writes=True)
@click.option("--once", is_flag=True, help="Until the lag is zero, then end.")
@click.option("--snapshot", is_flag=True, help="Copy every table again, even where a copy is there.")
@tables_option("Only these tables (with --once or --snapshot).")
def sync(session: Session, once: bool, snapshot: bool, tables: tuple[str, ...] | None) -> Outcome:
    """Make the idle database follow the active one, until stopped. Takes a snapshot when there is none.

    Example: dbsync sync --once
    """
    if tables is not None and not (once or snapshot):
        raise click.UsageError("--tables goes with --once or --snapshot.")
    from dbsync.cli.world import heal

    context = session.context
    heal(session, thorough=True)
    synced = _once(context, snapshot, tables) if once else _until_stopped(session, snapshot, tables)
    return _outcome(synced, once)


def _once(context: Context, snapshot: bool, tables: tuple[str, ...] | None) -> Synced:
    pump = context.pump()
    copied = pump.ensure_snapshot(tables, force=snapshot) if snapshot or tables else None
    synced = pump.drain()
    synced.copied(copied)
    # The work is done; what cannot be tidied now is tidied by the next one.
    with contextlib.suppress(Refused, Unavailable):
        tidy(pump, None)
    return synced


def tidy(pump: Pump, seconds: float | None = 1.0) -> None:
    """Forget the changes that nobody needs, and carry a handover's receipt on, so that more may be forgotten next time.

    In this order: whoever has just read the receipt still finds the changes since. Takes about so many seconds at most.
    """
    from dbsync.sync.run import prune
    from dbsync.verify.refresh import refresh

    prune(pump)
    refresh(pump, seconds)


def _until_stopped(session: Session, snapshot: bool, tables: tuple[str, ...] | None) -> Synced:
    """Follow. A stop on the way is success: what was copied so far is kept, and the copy goes on next time."""
    from dbsync.sync.run import follow

    session.running = True
    context = session.context
    copied = None
    if snapshot:
        pump = context.pump()
        pump.pulse = lambda: _interrupt(session)
        try:
            copied = pump.ensure_snapshot(tables, force=True)
        except Interrupted:
            return _stopped(pump)
    watch = _Watch(session)
    interval = context.config.sync.interval
    synced = follow(watch.open_pair, context.clock, interval, session.stop, watch.beat, session.report, tidy)
    synced.copied(copied)
    return synced


class _Watch:
    """Looks, about once a second, whether a handover was left behind with nobody to end it."""

    def __init__(self, session: Session) -> None:
        self.session, self.clock = session, session.context.clock
        self.due = self.clock.monotonic() + HEAL_SECONDS

    def open_pair(self) -> Pump | None:
        """See Context.open_pair."""
        self._look()
        return self.session.context.open_pair()

    def beat(self, _synced: Synced) -> None:
        """What the follower calls while it lives."""
        self._look()

    def _look(self) -> None:
        from dbsync.cli.world import heal

        if self.clock.monotonic() >= self.due:
            heal(self.session, thorough=False)
            self.due = self.clock.monotonic() + HEAL_SECONDS


def _interrupt(session: Session) -> None:
    if session.stop():
        raise Interrupted


def _stopped(pump: Pump) -> Synced:
    from dbsync.sync.run import Synced

    with pump.target.view() as view:
        checkpoint = view.checkpoint()
    return Synced(position=checkpoint.position if checkpoint is not None else None, lag=pump.lag())


def _outcome(synced: Synced, once: bool) -> Outcome:
    lag = None if synced.lag is None else {"changes": synced.lag.changes, "seconds": synced.lag.seconds}
    data = {
        "position": synced.position,
        "windows": synced.windows,
        "upserted": synced.upserted,
        "deleted": synced.deleted,
        "snapshot": synced.snapshot,
        "lag": lag,
    }

    def text(paper: Paper) -> None:
        if synced.snapshot:
            paper.line(f"Copied {synced.snapshot['rows']:,} rows of {synced.snapshot['tables']} tables.")
        paper.line(f"{synced.windows} windows: {synced.upserted:,} rows written, {synced.deleted:,} deleted.")
        if synced.lag is None:
            paper.line("The lag is not known.")
        else:
            paper.line(f"Behind: {synced.lag.changes} changes, {seconds(synced.lag.seconds)}.")

    return Outcome(data, next="dbsync verify" if once else "dbsync status", text=text)
