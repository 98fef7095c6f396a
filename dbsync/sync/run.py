"""The follower: keeps a pump going, turns round with the roles, says that it lives, forgets what nobody needs."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from dbsync.errors import (
    DbsyncError,
    Interrupted,
    OwnershipAmbiguous,
    PositionLost,
    Refused,
    Unavailable,
)
from dbsync.model import Position, Report, quiet
from dbsync.ports import Clock, Database
from dbsync.sync.pump import Pump, Synced

__all__ = ["Pump", "Synced", "follow", "prune"]

log = logging.getLogger("dbsync.sync")

BEAT_SECONDS = 1.0
RENEW_SECONDS = 30.0
"""How often the pair is opened anew (an edited crossing shows then) and the logs are pruned."""
MOST_BACKOFF_SECONDS = 5.0
AMBIGUOUS_SECONDS = 30.0
"""Both guards are read one after the other: during a handover they may seem to contradict each other for a moment."""
RECEIPT_KEPT = timedelta(hours=24)
VERIFY_KEPT = timedelta(hours=6)
JOB_KEPT = timedelta(hours=24)
THROUGH_KEPT = timedelta(days=7)
"""How long what a job has not yet seen is kept for it: without it one has to read more, the other everything."""

RENEWED_BY = frozenset({"role-changed", "revision-changed", "checkpoint-moved", "epoch-changed"})
"""Refusals after which the pair is simply opened anew."""


def follow(
    open_pair: Callable[[], Pump | None],
    clock: Clock,
    interval: float,
    stop: Callable[[], bool],
    beat: Callable[[Synced], None] | None = None,
    report: Report = quiet,
    tidy: Callable[[Pump], object] | None = None,
) -> Synced:
    """Follow until `stop` says so (or the clock's sleep is interrupted); gives what was done in all.

    `open_pair` gives a pump for the roles as they are, or None while no side is the idle one. `interval` is
    the wait in seconds between windows when there was nothing to apply. `beat` is called with the totals
    at most once a second, `tidy` (default: `prune`) with a pump about twice a minute. Raises PositionLost,
    ConfigError, and every Refused that a new pump would not mend.
    """
    return _Follower(open_pair, clock, interval, stop, beat, report, tidy or prune).run()


class _Follower:
    def __init__(
        self,
        open_pair: Callable[[], Pump | None],
        clock: Clock,
        interval: float,
        stop: Callable[[], bool],
        beat: Callable[[Synced], None] | None,
        report: Report,
        tidy: Callable[[Pump], object],
    ) -> None:
        self.open_pair, self.clock, self.interval, self.stop = open_pair, clock, interval, stop
        self.beat, self.report, self.tidy = beat, report, tidy
        self.total = Synced()
        self.pump: Pump | None = None
        self.follows: tuple[str, str] | None = None
        self.last_beat = float("-inf")
        self.ambiguous_since: float | None = None
        self.backoff = interval

    def run(self) -> Synced:
        try:
            while not self.stop():
                self._turn()
        except Interrupted:
            log.debug("told to stop")
        finally:
            self._farewell()
        return self.total

    def _turn(self) -> None:
        """One pair, from its opening until it has to be opened anew."""
        try:
            self.pump = self.open_pair()
            self.ambiguous_since = None
            if self.pump is not None:
                self._announce(self.pump)
                self._pump(self.pump)
                return
        except Refused as refused:
            if refused.code not in RENEWED_BY:
                raise
            log.info("%s; looking again", refused.message)
        except OwnershipAmbiguous:
            self.ambiguous_since = self.ambiguous_since or self.clock.monotonic()
            if self.clock.monotonic() - self.ambiguous_since > AMBIGUOUS_SECONDS:
                raise
        except Unavailable as gone:
            log.warning("%s; trying again", gone.message)
            self.clock.sleep(self.backoff)
            self.backoff = min(max(self.backoff, 0.05) * 2, MOST_BACKOFF_SECONDS)
            return
        self.clock.sleep(self.interval)

    def _announce(self, pump: Pump) -> None:
        now = (pump.source.name, pump.target.name)
        if self.follows is not None and self.follows != now:
            log.warning("turned round: %s follows %s now", now[1], now[0])
            self.report(f"turned round: {now[1]} follows {now[0]} now", 0, None)
        self.follows = now

    def _pump(self, pump: Pump) -> None:
        pump.pulse = self._pulse
        renew = self.clock.monotonic() + RENEW_SECONDS
        while not self.stop():
            if pump.suspect:
                self.total.copied(pump.ensure_snapshot())
            applied = pump.step()
            if applied is not None:
                self.total.add(applied)
                self.report("sync", self.total.upserted + self.total.deleted, None)
            self.backoff = self.interval
            self._pulse()
            if self.clock.monotonic() >= renew:
                self.tidy(pump)
                return
            if applied is None:
                self.clock.sleep(self.interval)

    def _pulse(self) -> None:
        """Say at most once a second that the follower lives; ends a long copy when it was told to stop."""
        if self.stop():
            raise Interrupted
        if self.pump is None or self.clock.monotonic() - self.last_beat < BEAT_SECONDS:
            return
        self.last_beat = self.clock.monotonic()
        with self.pump.target.view() as view:
            checkpoint = view.checkpoint()
        self.total.position = checkpoint.position if checkpoint is not None else None
        # A writer that holds the idle database for a while is no reason to stop: the next beat comes in a second.
        with contextlib.suppress(Unavailable):
            self.pump.target.save("heartbeat", "follower", self._document())
        if self.beat is not None:
            self.beat(self.total)

    def _document(self) -> dict[str, object]:
        follows = self.follows or ("", "")
        return {
            "owner": f"{platform.node()}:{os.getpid()}",
            "host": platform.node(),
            "pid": os.getpid(),
            "at": self.clock.now().isoformat(),
            "source": follows[0],
            "position": self.total.position,
            "windows": self.total.windows,
        }

    def _farewell(self) -> None:
        """Leave no heartbeat behind, and say where it all stands, if the databases still answer."""
        if self.pump is None:
            return
        with contextlib.suppress(DbsyncError):
            self.pump.target.save("heartbeat", "follower", None)
            with self.pump.target.view() as view:
                checkpoint = view.checkpoint()
            self.total.position = checkpoint.position if checkpoint is not None else None
            self.total.lag = self.pump.lag()


def prune(pump: Pump) -> int:
    """Forget recorded changes that neither the checkpoint nor a receipt nor a running verify needs. Gives how many."""
    with pump.target.view() as view:
        checkpoint, here = view.checkpoint(), view.position()
        receipt, running = view.load("receipt", "last"), view.load("verify", "running")
    now, jobs = pump.clock.now(), _jobs_ends(pump)
    if checkpoint is None or (running is not None and now - _at(running.get("at")) < VERIFY_KEPT):
        return 0
    below, own = checkpoint.position, here
    if receipt is not None and receipt.get("epoch") == pump.epoch and _kept(receipt, now):
        below, own = Position(str(receipt["position"])), Position(str(receipt["idle_position"]))
    pump.note_shape()
    forgotten = 0
    for side, position in ((pump.source, below), (pump.target, own)):
        # Pruned further than that already.
        with contextlib.suppress(PositionLost):
            forgotten += side.prune(_earliest(side, position, jobs, now))
    return forgotten


def _jobs_ends(pump: Pump) -> list[Mapping[str, Any]]:
    """Where the jobs' last finished runs ended; each is stored on the side that the job writes."""
    found: list[Mapping[str, Any]] = []
    for side in (pump.source, pump.target):
        with side.view() as view:
            found += view.load_all("job").values()
    return found


def _earliest(side: Database, position: Position, jobs: Sequence[Mapping[str, Any]], now: datetime) -> Position:
    """A position, or that of a job's last run on this side where that lies further back (a job asks what changed
    since); one that has not run for long holds nothing up."""
    with side.view() as view:
        guard = view.guard()
        most = view.lag(position).changes
        for job in jobs:
            kept = THROUGH_KEPT if job.get("through") else JOB_KEPT
            if guard is None or job.get("source") != guard.identity or now - _at(job.get("until")) > kept:
                continue
            with contextlib.suppress(PositionLost):
                behind = view.lag(Position(str(job["position"]))).changes
                if behind > most:
                    most, position = behind, Position(str(job["position"]))
    return position


def _kept(receipt: Mapping[str, Any], now: datetime) -> bool:
    return bool(receipt.get("derived")) or now - _at(receipt.get("taken_at")) < RECEIPT_KEPT


def _at(text: object) -> datetime:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError(f"a stored time without its zone: {text}")
    return moment
