"""Who is live, read off the two guard rows and nothing else (docs/protocol.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dbsync.errors import OwnershipAmbiguous
from dbsync.model import Guard, GuardState


class Case(StrEnum):
    """Where a pair of guard rows stands on the road. Any pair that has no case is ambiguous."""

    FOLLOWING = "following"
    """One side is open, the other closed."""
    FENCED = "fenced"
    """The open side lets no write in for a while; it opens again by itself."""
    CEDED = "ceded"
    """The old side gave up for good; the new one has not been opened yet."""
    OPENED = "opened"
    """The new side is open; the old one has not been closed yet."""
    SHUT = "shut"
    """Both are closed at one epoch: the epoch names the side to open."""
    ALONE = "alone"
    """One side cannot be seen; the other one tells what it can."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who is live. `old` and `new` are the sides of the handover under way, or active and idle."""

    case: Case
    active: str | None
    idle: str | None
    epoch: int
    old: str
    new: str

    @property
    def phase(self) -> str:
        """The word that people and scripts read."""
        return {Case.FENCED: "fenced", Case.CEDED: "ceded", Case.OPENED: "ceded"}.get(self.case, "following")

    @property
    def settled(self) -> bool:
        """Whether nothing is under way: one open, the other closed and following."""
        return self.case is Case.FOLLOWING


def ownership(first: Guard | None, second: Guard | None, names: tuple[str, str] | None = None) -> Ownership:
    """Who is live, given both guard rows (None for a side that cannot be seen; then `names` names the sides).

    The old active database's row alone decides. Raises OwnershipAmbiguous for any pair that the
    protocol does not list, two open sides among them.
    """
    if first is None or second is None:
        return _alone(first or second, names)
    for old, new in ((first, second), (second, first)):
        found = _case(old, new)
        if found is not None:
            return found
    raise OwnershipAmbiguous(
        f"the guard rows do not say who is live: {_told(first)}; {_told(second)}",
        remedy="compare both databases by hand, then close one of them; dbsync will not choose",
    )


def _case(old: Guard, new: Guard) -> Ownership | None:
    same = old.epoch == new.epoch
    closed = new.state is GuardState.CLOSED
    if old.accepts and closed and same:
        return Ownership(Case.FOLLOWING, old.name, new.name, old.epoch, old.name, new.name)
    if old.state is GuardState.FENCED and not old.accepts and closed and same:
        return Ownership(Case.FENCED, old.name, new.name, old.epoch, old.name, new.name)
    if old.state is GuardState.CEDED and closed and old.epoch == new.epoch + 1:
        return Ownership(Case.CEDED, None, None, old.epoch, old.name, new.name)
    if old.state is GuardState.CEDED and new.state is GuardState.OPEN and same:
        return Ownership(Case.OPENED, new.name, old.name, new.epoch, old.name, new.name)
    if old.state is GuardState.CLOSED and closed and same and old.live == new.live:
        new_side = old.live
        other = new.name if new_side == old.name else old.name
        return Ownership(Case.SHUT, None, None, old.epoch, other, new_side)
    return None


def _alone(seen: Guard | None, names: tuple[str, str] | None) -> Ownership:
    if seen is None or names is None:
        raise OwnershipAmbiguous(
            "neither guard row can be read", remedy="make the databases reachable, then `dbsync status`"
        )
    other = names[1] if seen.name == names[0] else names[0]
    if seen.state is GuardState.CLOSED:
        return Ownership(Case.ALONE, other, seen.name, seen.epoch, other, seen.name)
    if seen.state is GuardState.CEDED:
        return Ownership(Case.ALONE, None, None, seen.epoch, seen.name, other)
    return Ownership(Case.ALONE, seen.name, other, seen.epoch, seen.name, other)


def _told(guard: Guard) -> str:
    return f"{guard.name} is {guard.state.value} at epoch {guard.epoch}"
