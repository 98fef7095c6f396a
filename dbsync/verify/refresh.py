"""The receipt that a handover leaves behind has no age, so that a rollback has its evidence; it is carried on instead.

From time to time the keys changed since are compared, and where all of them are equal it speaks from there on. The
changes before may then be forgotten, and a rollback has few keys left to compare. Acts through the sockets only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dbsync.errors import PositionLost, Refused
from dbsync.model import Position
from dbsync.sync.run import Pump
from dbsync.verify.receipt import KIND, NAME, carried
from dbsync.verify.run import Recheck, recheck

LOCK = "receipt"
"""Held while a receipt is carried on, and all through a handover: its keys are compared from where it began."""
CHANGES = 20_000
"""Recorded changes of each side that are looked at in one go."""
SECONDS = 1.0


def refresh(pump: Pump, seconds: float | None = SECONDS) -> bool:
    """Carry the receipt of a handover on to where the idle side stands; gives whether it moved.

    It stays where it is, for the gates to see, when any key differs or holds what the other shape cannot, when the idle
    side was written behind dbsync's back, when a table changed as a whole, when shape or crossing are not those that it
    is bound to, and while a handover goes on. `seconds` is about how long it may take (None: as long as it needs).
    """
    give_up = None if seconds is None else pump.clock.monotonic() + seconds
    try:
        with pump.target.lock(LOCK, 0.0):
            moved = False
            while _carry_on(pump):
                moved = True
                if give_up is not None and pump.clock.monotonic() > give_up:
                    break
                pump.pulse()
            return moved
    except PositionLost:
        return False  # the gates say so
    except Refused as refused:
        if refused.code != f"{LOCK}-running":
            raise
        return False


def _carry_on(pump: Pump) -> bool:
    """One part of the changes; whether the receipt moved."""
    with pump.target.view() as view:
        receipt = view.load(KIND, NAME)
    if receipt is None or not _speaks(pump, receipt):
        return False
    start = pump.checkpoint()
    with pump.source.view() as view:
        pump.admit(start, view)
    since = Position(str(receipt["position"])), Position(str(receipt["idle_position"]))
    looked = recheck(pump.source, pump.target, pump.lens, *since, limit=CHANGES)
    if looked.ends is None or looked.mismatches or looked.lossy or looked.foreign or looked.whole:
        return False
    # Keys that are on their way changed after the checkpoint, so they are among those that the receipt leaves open.
    reached = _not_beyond(pump, looked, start.position), looked.ends[1]
    if reached == since:
        return False
    with pump.writing() as tx:
        stands = tx.load(KIND, NAME)
        if stands is None or stands.get("id") != receipt.get("id"):
            return False  # voided or replaced meanwhile
        tx.save(KIND, NAME, carried(receipt, *reached))
    return True


def _speaks(pump: Pump, receipt: Mapping[str, Any]) -> bool:
    """Whether it is a handover's, of this epoch, and of both databases as they are."""
    if not receipt.get("derived") or receipt.get("epoch") != pump.epoch or receipt.get("crossing") != pump.lens.hash:
        return False
    now = {side.name: side.fingerprint() for side in (pump.source, pump.target)}
    return bool(receipt.get("fingerprints") == now)


def _not_beyond(pump: Pump, looked: Recheck, checkpoint: Position) -> Position:
    """How far the active side was read, but not beyond the checkpoint: the follower needs what comes after it."""
    end = looked.ends[0] if looked.ends is not None else checkpoint
    with pump.source.view() as view:
        return end if view.lag(end).changes >= view.lag(checkpoint).changes else checkpoint
