"""What is printed: one JSON object for scripts, or text for people. Every text passes the mask of secrets."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dbsync.errors import DbsyncError

if TYPE_CHECKING:
    from dbsync.cli.options import Settings

_state: dict[str, Callable[[str], str]] = {}


def use_mask(mask: Callable[[str], str]) -> None:
    """From now on everything printed passes through `mask`. It is set as soon as a file was read."""
    _state["mask"] = mask


def masked(text: str) -> str:
    """The text as it may be printed."""
    mask = _state.get("mask")
    return mask(text) if mask is not None else text


def plain(value: Any) -> Any:
    """The value as JSON can say it, with secrets masked. Bytes become hex; what is not finite becomes null."""
    if isinstance(value, str):
        return masked(str(value))
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=str)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return masked(str(value))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return masked(str(value))


def write_object(data: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(plain(data), allow_nan=False) + "\n")
    sys.stdout.flush()


def log(text: str) -> None:
    """Print a line on stderr."""
    print(_printable(masked(text), sys.stderr), file=sys.stderr, flush=True)


def _printable(text: str, stream: Any) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


# --- text for people ---------------------------------------------------------------------------


class Paper:
    """Where a command writes what people read."""

    def line(self, text: str = "") -> None:
        """Write a line."""
        print(_printable(masked(text), sys.stdout), flush=True)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write names and values in two columns."""
        known = list(pairs)
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.line(f"{name:<{width}}  {value}".rstrip())

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a table; nothing when it has no rows."""
        body = [[masked(str(cell)) for cell in row] for row in rows]
        if not body:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE, pad_edge=False)
        for place, header in enumerate(headers):
            numeric = all(row[place].replace(",", "").replace(".", "").isdigit() for row in body)
            table.add_column(header, justify="right" if numeric else "left", overflow="fold")
        for row in body:
            table.add_row(*(Text(cell) for cell in row))
        wide = None if sys.stdout.isatty() else 160
        Console(file=sys.stdout, width=wide, highlight=False, markup=False).print(table)


@dataclass
class Outcome:
    """What a command has to say: its object, and how people read it."""

    data: dict[str, Any]
    next: str | None = None
    text: Callable[[Paper], None] | None = None
    warnings: Sequence[str] = ()
    exit_code: int = 0
    bare: str | None = None
    """When given, what stdout holds without `--json`, byte for byte (a script)."""
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences for people that explain the warnings."""


def write_outcome(outcome: Outcome, settings: Settings) -> None:
    """Print what a command has to say."""
    if settings.json:
        data = dict(outcome.data)
        data["next"] = outcome.next
        if outcome.warnings:
            data["warnings"] = list(outcome.warnings)
        write_object(data)
        return
    if outcome.bare is not None:
        sys.stdout.write(_printable(masked(outcome.bare), sys.stdout))
        sys.stdout.flush()
        return
    paper = Paper()
    if outcome.text is not None:
        outcome.text(paper)
    else:
        paper.pairs((name, told(value)) for name, value in outcome.data.items())
    for note in outcome.notes or outcome.warnings:
        paper.line(f"! {note}")
    if outcome.next:
        paper.line(f"next: {outcome.next}")


def told(value: Any) -> str:
    """A value in a few words."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {told(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(told(v) for v in value) or "–"
    return str(plain(value))


def seconds(value: float) -> str:
    """A length of time in a few letters."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 172800 else f"{value / 86400:.0f} days"


# --- failures ----------------------------------------------------------------------------------


def write_error(error: DbsyncError, settings: Settings) -> None:
    """Print a failure: the error object on stdout with `--json`, else sentences on stderr."""
    if settings.json:
        following = {"next": error.next_command} if error.next_command else {}
        write_object({"error": error_object(error), **following})
        return
    log(f"✗ {error.message}")
    for blocker in error.blockers:
        log(f"  • {blocker.code}: {blocker.found}")
        if blocker.remedy:
            log(f"    → {blocker.remedy}")
    if error.remedy:
        log(f"→ {error.remedy}")
    if error.next_command:
        log(f"next: {error.next_command}")
    if not error.changed and "nothing was changed" not in error.message.casefold():
        log("Nothing was changed.")


def error_object(error: DbsyncError) -> dict[str, Any]:
    """The failure as the contract's error object says it."""
    found: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
        "changed": error.changed,
        "blockers": [{"code": b.code, "found": b.found, "remedy": b.remedy} for b in error.blockers],
    }
    if error.next_command:
        found["next"] = error.next_command
    return found
