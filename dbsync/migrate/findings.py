"""What stands against a revision, as far as the shapes before and after it can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dbsync.model import Catalog, Severity, Table

MISSING_CROSSING = "missing-crossing"
UNFINISHED = "crossing-todo"
NOT_REHEARSED = "not-rehearsed"
KEPT_VALUES = "kept-values"


@dataclass(frozen=True, slots=True)
class Finding:
    """One judgement on a revision. `direction` is up or down; `line` stands in the revision's file, None: unknown."""

    revision: str
    direction: str
    rule: str
    severity: Severity
    line: int | None
    message: str
    remedy: str

    def document(self) -> dict[str, Any]:
        """It as plain JSON."""
        return {
            "revision": self.revision,
            "direction": self.direction,
            "rule": self.rule,
            "severity": str(self.severity),
            "line": self.line,
            "message": self.message,
            "remedy": self.remedy,
        }


def missing_crossings(before: Catalog, after: Catalog, revision: str, pair: Any) -> tuple[Finding, ...]:
    """Where rows lose their way between the two shapes and the revision's crossings (None: none) say nothing of it.

    A table or column that goes (a rename is one that goes and one that comes), and a column that comes into a table
    that was there and cannot be filled by itself.
    """
    named = named_tables(pair)
    lost = [(table, found) for table, found in _losses(before, after) if table.casefold() not in named]
    return tuple(
        Finding(
            revision,
            "up",
            MISSING_CROSSING,
            Severity.ERROR,
            None,
            f"revision {revision} {found}",
            _remedy(revision, table, pair),
        )
        for table, found in lost
    )


def unfinished(revision: str, pair: Any) -> tuple[Finding, ...]:
    """What a person has still to decide in the revision's crossings (None: none)."""
    tables = [each for name in ("forward", "reverse") for each in getattr(getattr(pair, name, None), "tables", ())]
    return tuple(
        Finding(
            revision,
            "up",
            UNFINISHED,
            Severity.ERROR,
            None,
            f"the crossing of revision {revision}, table {each.name}, still says: {todo}",
            "decide it, and take the TODO out",
        )
        for each in tables
        for todo in getattr(each, "todos", ())
    )


def not_rehearsed(revision: str, cause: str) -> Finding:
    """A warning: from this revision on nothing was checked, for it does not run on an empty copy."""
    return Finding(
        revision,
        "up",
        NOT_REHEARSED,
        Severity.WARNING,
        None,
        f"from revision {revision} on, crossings were not checked; on a copy without rows: {cause}",
        "see that every table or column which goes or is renamed has its crossing",
    )


def named_tables(pair: Any) -> frozenset[str]:
    """Tables (casefolded) that a revision's crossings speak of: as a target, or as a source in `key`."""
    names: set[str] = set()
    for crossing in (getattr(pair, "forward", None), getattr(pair, "reverse", None)):
        for table in getattr(crossing, "tables", ()):
            key: Mapping[str, Any] = table.key or {}
            names.update(name.casefold() for name in (table.name, *key))
    return frozenset(names)


def kept_under(table: str, revision: str) -> str:
    """The name under which values of a newer table are kept: another revision's are others, whatever it is called."""
    return f"{table}@{revision}"


def kept_names(pair: Any, revision: str) -> frozenset[tuple[str, str]]:
    """The names (casefolded) under which a revision's forward crossing keeps values beside the older rows."""
    return frozenset(
        (kept_under(table.name, revision).casefold(), column.casefold())
        for table in getattr(getattr(pair, "forward", None), "tables", ())
        for column, policy in getattr(table, "losing", {}).items()
        if policy == "keep"
    )


def _losses(before: Catalog, after: Catalog) -> Iterator[tuple[str, str]]:
    for name, old in before.tables.items():
        new = after.table(name)
        if new is None:
            yield name, f"drops or renames the table {name}, and no crossing says what becomes of its rows"
            continue
        gone = _absent(old, new)
        if gone:
            yield name, f"drops or renames {_columns(name, gone)}, and no crossing says what becomes of the values"
        unfilled = [column for column in _absent(new, old) if not _fills_itself(new, column)]
        if unfilled:
            yield name, f"adds {_columns(name, unfilled)} NOT NULL without a default, and no crossing fills it"


def _absent(here: Table, there: Table) -> list[str]:
    return [column.name for column in here.columns if not column.generated and there.column(column.name) is None]


def _fills_itself(table: Table, name: str) -> bool:
    column = table.column(name)
    return column is None or column.fills_itself


def _columns(table: str, names: list[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def _remedy(revision: str, table: str, pair: Any) -> str:
    path = getattr(pair, "path", None)
    if path is not None:
        return f"name {table} in a crossing of {getattr(path, 'name', path)}"
    slug = re.sub(r"[^a-z0-9]+", "_", table.casefold()).strip("_") or "rows"
    return f"write etl/{revision}_{slug}.py with a forward and a reverse crossing that name {table}"
