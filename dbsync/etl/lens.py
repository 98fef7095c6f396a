"""Both ways between two databases as they stand: what is read, what is put, what is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from dbsync.errors import Refused
from dbsync.etl.compose import Composition
from dbsync.model import Table


@dataclass(frozen=True, slots=True)
class Lens:
    """Both ways between the two databases as they stand now."""

    older: str
    """The environment at the older revision (at one revision: the active one)."""
    newer: str
    path: tuple[str, ...]
    """The revisions between the two."""
    forward: Composition
    """Rows of the newer side out of the older one."""
    reverse: Composition
    """Rows of the older side out of the newer one."""
    kept: Mapping[str, frozenset[str]]
    """Columns that only the newer shape has, by its table: filled when a row is created, then never overwritten
    and not compared. Empty until the newer side has been live at a revision of `path`."""
    hash: str
    shapes: Mapping[str, Table] = field(default_factory=dict)
    """The newer side's tables."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """What an environment has no place for though the other one holds rows of it, by environment."""

    def toward(self, idle: str) -> Composition:
        """The direction that ends at an environment.

        Refused: `schema-missing` when it has no place for rows, `missing-crossing` when rows of it cannot be made.
        """
        if idle in self.absent:
            raise Refused(
                f"{idle} has no {self.absent[idle]}: what stands there would be left behind",
                code="schema-missing",
                remedy=f"`dbsync migrate --target {idle}`; where no revision creates it, copy the schema into {idle}",
                next_command="dbsync migrate --target idle",
            )
        composition = self.forward if idle == self.newer else self.reverse
        for table, reason in composition.impossible.items():
            raise Refused(
                f"table {table} of {idle} cannot be filled: {reason}",
                code="missing-crossing",
                remedy="write the crossing of that direction, or make the column nullable or give it a default",
            )
        return composition

    def merges(self, table: str) -> bool:
        """Whether rows of the older side's `table` hold more than crosses, so that a put must merge."""
        plan = self.reverse.tables[table]
        touched = (self.forward.tables[name] for name in self.forward.targets_of(table))
        return not plan.by_name or any(not other.by_name for other in touched)


def lens_hash(path: tuple[str, ...], forward: Composition, reverse: Composition) -> str:
    """One word for the path and both directions; at one revision the same whichever side is active."""
    both = (forward.hash, reverse.hash) if path else tuple(sorted((forward.hash, reverse.hash)))
    return sha256("\n".join((*path, "", *both)).encode()).hexdigest()


def newer_only(
    forward: Composition, reverse: Composition, reads: Mapping[str, frozenset[tuple[str, str]]]
) -> dict[str, frozenset[str]]:
    """The columns that forward fills and nothing brings back, by newer table.

    `reads` holds, by older table, the (table, column) pairs that its reverse relation reads. Where a
    crossing has no reverse nothing is brought back at all, and then nothing is kept either: the older
    side is the only source of those rows.
    """
    if forward.assumed or reverse.assumed:
        return {}
    brought = {(table.casefold(), column.casefold()) for pairs in reads.values() for table, column in pairs}
    found: dict[str, frozenset[str]] = {}
    for name, plan in forward.tables.items():
        if plan.by_name:
            continue
        rest = [column for column in plan.relation.columns if column not in plan.relation.key]
        kept = frozenset(column for column in rest if (name.casefold(), column.casefold()) not in brought)
        if kept:
            found[name] = kept
    return found
