"""How far the idle database is behind. Unknown is a value (None), never zero."""

from __future__ import annotations

from dbsync.errors import PositionLost
from dbsync.model import Checkpoint, Lag
from dbsync.ports import View


def measure(source: View, checkpoint: Checkpoint | None) -> Lag | None:
    """The lag of a checkpoint behind this view of its source.

    None when it cannot be known: nothing was ever copied, the checkpoint is of another database, or the
    source's history no longer reaches back to it.
    """
    guard = source.guard()
    if checkpoint is None or guard is None or guard.identity != checkpoint.source:
        return None
    try:
        return source.lag(checkpoint.position)
    except PositionLost:
        return None
