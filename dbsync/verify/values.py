"""One canonical form of rows: bytes that are equal exactly when every value is, in value and in type."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Sequence

from dbsync.model import Row, Value

VERSION = 1
"""Of the canonical form: digests of different versions are never compared."""

# Version 2 knows neither references nor interned strings: those depend on how an object came about, not on its value.
_FORMAT = 2
_LIST_HEAD = 5


def canonical(rows: list[Row]) -> bytes:
    """The canonical bytes of a list of rows, in their order."""
    try:
        return marshal.dumps(rows, _FORMAT)
    except ValueError:
        return marshal.dumps([tuple(_plain(cell) for cell in row) for row in rows], _FORMAT)


def body(form: bytes) -> memoryview:
    """A canonical form without its length: those of two lists put together are that of both in one."""
    return memoryview(form)[_LIST_HEAD:]


def _plain(cell: Value) -> Value:
    if cell is None or isinstance(cell, (bool, int, float, str, bytes)):
        return cell
    if isinstance(cell, (bytearray, memoryview)):
        return bytes(cell)
    return (type(cell).__name__, str(cell))


def projected(rows: Iterable[Row], places: Sequence[int] | None) -> list[Row]:
    """The rows with only the cells at these places (None: as they are)."""
    if places is None:
        return rows if isinstance(rows, list) else list(rows)
    if len(places) == 1:
        at = places[0]
        return [(row[at],) for row in rows]
    return [tuple([row[at] for at in places]) for row in rows]
