"""How far the copy of one table has got: its document, its cursor, how large the next chunk may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from dbsync.model import Key, Row, Value

FIRST_ROWS = 64
MOST_ROWS = 20_000
CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Copy:
    """The copy of one table: the hash of the plan it was made with, and where it stands.

    `stale` says that it was complete once and has to be put again.
    """

    hash: str
    cursor: Key | None = None
    done: bool = False
    rows: int = 0
    stale: bool = False

    def document(self) -> dict[str, Any]:
        """As it is stored in the target."""
        return {
            "hash": self.hash,
            "cursor": None if self.cursor is None else encode_key(self.cursor),
            "done": self.done,
            "rows": self.rows,
            "stale": self.stale,
        }

    def advanced(self, cursor: Key | None, rows: int, done: bool) -> Copy:
        """The copy after one more chunk."""
        stale = self.stale and not done
        return replace(self, cursor=None if done else cursor, rows=self.rows + rows, done=done, stale=stale)


def read_copy(document: Mapping[str, Any] | None) -> Copy | None:
    """The copy that a stored document speaks of, or None."""
    if document is None:
        return None
    cursor = document.get("cursor")
    return Copy(
        hash=str(document.get("hash", "")),
        cursor=None if cursor is None else decode_key(cursor),
        done=bool(document.get("done")),
        rows=int(document.get("rows", 0)),
        stale=bool(document.get("stale", False)),
    )


def current(document: Mapping[str, Any] | None, plan_hash: str) -> bool:
    """Whether a table is complete and was copied with this plan."""
    copy = read_copy(document)
    return copy is not None and copy.done and copy.hash == plan_hash


def again(document: Mapping[str, Any] | None, plan_hash: str) -> Copy:
    """The copy to begin for a table that is to be put again from its first row."""
    copy = read_copy(document)
    return Copy(hash=plan_hash, stale=copy is not None and (copy.done or copy.stale))


def resumed(document: Mapping[str, Any] | None, plan_hash: str) -> Copy:
    """The copy to go on with: where a run that died left it, or the first row when its plan was another."""
    copy = read_copy(document)
    if copy is None or copy.done or copy.hash != plan_hash:
        return again(document, plan_hash)
    return copy


def next_rows(rows: Sequence[Row], asked: int) -> int:
    """How many rows the next chunk may have, judged by the width of this one's: wide rows make small chunks."""
    if not rows:
        return asked
    sample = rows[:: max(1, len(rows) // 32)]
    width = sum(_width(cell) for row in sample for cell in row) / len(sample)
    fits = int(CHUNK_BYTES / max(width, 1.0))
    return max(1, min(MOST_ROWS, fits, asked * 16))


def _width(cell: Value) -> int:
    return 16 + len(cell) if isinstance(cell, (str, bytes)) else 16


# --- keys as JSON --------------------------------------------------------------------------------


def encode_key(key: Key) -> list[Any]:
    """A key as plain JSON, exactly."""
    return [_encode(cell) for cell in key]


def decode_key(stored: Sequence[Any]) -> Key:
    """The key that `encode_key` stored. Raises ValueError for what it cannot have written."""
    return tuple(_decode(cell) for cell in stored)


def _encode(cell: Value) -> Any:
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return {"hex": bytes(cell).hex()}
    if isinstance(cell, float):
        # JSON has no infinities, and readers may turn 1.0 into 1.
        return {"float": cell.hex()}
    if isinstance(cell, Decimal):
        return {"decimal": str(cell)}
    if isinstance(cell, datetime):
        return {"datetime": cell.isoformat()}
    if isinstance(cell, date):
        return {"date": cell.isoformat()}
    if isinstance(cell, time):
        return {"time": cell.isoformat()}
    if cell is None or isinstance(cell, (bool, int, str)):
        return cell
    return {"text": str(cell)}


_DECODERS: dict[str, Any] = {
    "hex": bytes.fromhex,
    "float": float.fromhex,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "text": str,
}


def _decode(cell: Any) -> Value:
    if not isinstance(cell, dict):
        return cell
    ((kind, text),) = cell.items()
    if kind not in _DECODERS:
        raise ValueError(f"a stored key cannot be read: {kind!r}")
    return _DECODERS[kind](text)
