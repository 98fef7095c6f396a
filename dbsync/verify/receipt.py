"""The receipt: the evidence of a clean verify, and everything that it is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbsync.model import Direction, Position, TableResult
from dbsync.verify.values import VERSION

KIND, NAME = "receipt", "last"
"""Under which it is stored in the idle database."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What both databases were when the verification began; it counts only while they still are that."""

    epoch: int
    active: str
    idle: str
    older: str
    newer: str
    revisions: Mapping[str, str | None]
    identities: Mapping[str, str]
    fingerprints: Mapping[str, str]
    excluded: tuple[str, ...]
    crossing: str
    position: Position
    """The checkpoint at the start: every later change of the active side is a dirty key."""
    idle_position: Position


def document(bound: Bound, tables: Sequence[TableResult], taken_at: datetime, derived: bool = False) -> dict[str, Any]:
    """The receipt as it is stored: plain JSON. `taken_at` is the end of the verification."""
    content: dict[str, Any] = {
        "taken_at": taken_at.isoformat(),
        "epoch": bound.epoch,
        "direction": str(Direction.FORWARD if bound.active == bound.older else Direction.REVERSE),
        "active": bound.active,
        "idle": bound.idle,
        "older": bound.older,
        "newer": bound.newer,
        "revisions": dict(bound.revisions),
        "crossing": bound.crossing,
        "position": bound.position,
        "idle_position": bound.idle_position,
        "identities": dict(bound.identities),
        "fingerprints": dict(bound.fingerprints),
        "tables": [
            {"name": t.name, "rows": t.rows, "digest": t.digest, "lossy": t.lossy, "losses": dict(t.losses)}
            for t in tables
        ],
        "excluded": list(bound.excluded),
        "canonical": VERSION,
        "derived": derived,
    }
    return _identified(content)


def carried(receipt: Mapping[str, Any], position: Position, idle_position: Position) -> dict[str, Any]:
    """The same receipt from later positions on: everything changed before them has been compared."""
    moved = {**receipt, "position": position, "idle_position": idle_position}
    return _identified({name: value for name, value in moved.items() if name != "id"})


def _identified(content: dict[str, Any]) -> dict[str, Any]:
    packed = json.dumps(content, sort_keys=True, default=str).encode()
    return {"id": hashlib.blake2b(packed, digest_size=8).hexdigest(), **content}


def changed(then: Bound, now: Bound) -> tuple[str, ...]:
    """Names of what is not as it was when the verification began (positions move all the time)."""
    looked_at = ("epoch", "active", "revisions", "identities", "fingerprints", "excluded", "crossing")
    return tuple(name for name in looked_at if getattr(then, name) != getattr(now, name))
