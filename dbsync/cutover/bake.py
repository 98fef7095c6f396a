"""After a handover: follow back, watch, and go back by the same road when the probe fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dbsync.cutover.run import Handed, hand_over
from dbsync.cutover.world import World

log = logging.getLogger(__name__)

PROBE_SECONDS = 0.5
FAILURES = 3
"""Probes that fail one after the other before the bake counts as breached."""


def bake(world: World, done: Handed, seconds: float, again: Callable[[], World]) -> Handed | None:
    """Watch for that long, carrying changes back. Gives the rollback that a failing probe made, or None."""
    clock = world.clock
    end = clock.monotonic() + seconds
    pump = world.pump(done.to, done.from_, done.epoch)
    failed, probed = 0, float("-inf")
    while clock.monotonic() < end and not world.stop():
        if pump.step() is None:
            clock.sleep(0.05)
        if clock.monotonic() - probed < PROBE_SECONDS or world.router is None:
            continue
        probed = clock.monotonic()
        failed = 0 if world.router.healthy() else failed + 1
        if world.router.written() != done.to:
            log.warning("the router file no longer names %s: written again", done.to)
            world.router.switch(done.to, PROBE_SECONDS * 20)
        world.report("bake", int(seconds - (end - clock.monotonic())), int(seconds))
        if failed >= FAILURES:
            log.warning("the probe failed %d times: going back", failed)
            return hand_over(again(), "rollback")
    return None
