"""The put of a lens, for one row: three versions in, one out."""

from __future__ import annotations

from dbsync.model import Row, Value


def same(one: Value, other: Value) -> bool:
    """Whether two cells hold the same value of the same type (1 and 1.0 are different cells)."""
    return type(one) is type(other) and bool(one == other)


def alike(one: Row | None, other: Row | None) -> bool:
    """Whether two rows are the same, cell by cell."""
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and all(map(same, one, other))


def merge(ours: Row | None, base: Row | None, theirs: Row) -> Row:
    """Our row with every cell taken from theirs where theirs differs from `base`.

    `base` is what our row would become by going over and coming back: where it agrees with theirs
    nothing was changed over there, and our cell, which may hold more than can cross, stays.
    """
    if ours is None or base is None:
        return theirs
    return tuple(
        mine if same(crossed, other) else other for mine, crossed, other in zip(ours, base, theirs, strict=True)
    )
