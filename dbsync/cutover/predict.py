"""How long writes will wait, from what its parts take just now."""

from __future__ import annotations

from statistics import median

from dbsync.cutover.world import COMPLETED, World
from dbsync.ports import Database

COMMITS_OLD = 2
"""Durable transactions on the old side inside the pause: fence and cede."""
COMMITS_NEW = 2
"""Durable transactions on the new side inside the pause: a window and the opening."""
GATE_SECONDS = 0.03
"""Seconds for the orders to the gate and for reading the proxy's counters."""
REST_SECONDS = 0.006
"""Seconds for what is read again under the locks."""


def predict(world: World, old: Database, new: Database, work: float) -> float:
    """Milliseconds. `work` is the time in seconds that the last round of apply and compare took.

    Earlier handovers on record correct the estimate by the median of what they took against it.
    """
    overhead = REST_SECONDS + (GATE_SECONDS if world.gated else 0.0)
    raw = overhead + COMMITS_OLD * _commit(old) + COMMITS_NEW * _commit(new) + work
    return round(raw * 1000 * _correction(world), 3)


def _commit(database: Database) -> float:
    return median(database.round_trip() for _ in range(5))


def _correction(world: World) -> float:
    ratios = []
    for fact in world.history():
        took, said = fact.data.get("pause_ms"), fact.data.get("predicted_ms")
        if fact.kind == COMPLETED and took and said:
            ratios.append((float(took) / float(said)) * float(fact.data.get("correction") or 1.0))
    return min(5.0, max(0.2, median(ratios[-5:]))) if ratios else 1.0
