"""Everything that one in-memory database holds at one moment: what a view keeps and a commit exchanges."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from dbsync.adapters.memory_rows import Stored
from dbsync.errors import ConfigError, PositionLost, Refused
from dbsync.model import (
    Catalog,
    Changes,
    Checkpoint,
    Fact,
    Guard,
    GuardState,
    Kept,
    Key,
    Lag,
    Position,
    Relation,
    Row,
    Table,
    Touched,
    Value,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded change. Without a key the whole table may have changed."""

    seq: int
    nonce: str
    table: str
    key: Key | None
    own: bool
    at: datetime


@dataclass
class History:
    """The change log, and the last position that was forgotten (or the beginning)."""

    floor: tuple[int, str]
    entries: list[Entry] = field(default_factory=list)

    def last(self) -> tuple[int, str]:
        """Number and nonce of the newest change."""
        return (self.entries[-1].seq, self.entries[-1].nonce) if self.entries else self.floor

    def append(self, table: str, key: Key | None, own: bool, at: datetime) -> None:
        """Record one change."""
        self.entries.append(Entry(self.last()[0] + 1, secrets.token_hex(4), table, key, own, at))

    def after(self, since: Position) -> list[Entry]:
        """The changes after a position. Raises PositionLost when it is not one of this history's."""
        seq, nonce = self._place(since)
        if seq < self.floor[0]:
            raise PositionLost("the changes after that position were pruned", remedy="dbsync sync --snapshot")
        known = self.floor if seq == self.floor[0] else None
        if known is None and seq <= self.last()[0]:
            entry = self.entries[seq - self.floor[0] - 1]
            known = (entry.seq, entry.nonce)
        if known != (seq, nonce):
            raise PositionLost(
                "the database shows another past than the one that was followed",
                code="source-restored",
                remedy="dbsync sync --snapshot",
            )
        return self.entries[seq - self.floor[0] :]

    @staticmethod
    def _place(since: Position) -> tuple[int, str]:
        seq, dot, nonce = since.partition(".")
        if not (dot and seq.isascii() and seq.isdigit()):
            raise PositionLost(f"{since!r} is no position of this database", remedy="dbsync sync --snapshot")
        return int(seq), nonce


@dataclass
class State:
    """One moment of one database."""

    name: str
    tables: dict[str, Table]
    rows: dict[str, Stored]
    excluded: frozenset[str] = frozenset()
    revision: str | None = None
    shape: int = 0
    guard: Guard | None = None
    fence_until: float | None = None
    history: History = field(default_factory=lambda: History((0, secrets.token_hex(4))))
    checkpoint: Checkpoint | None = None
    documents: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)
    kept: dict[tuple[str, str], dict[Key, tuple[Value, Value]]] = field(default_factory=dict)
    """By table and column, for each key, the value that is kept there and its base."""
    private: set[str] = field(default_factory=set)
    """Tables whose rows this state no longer shares with the one that it was copied from."""

    def copy(self) -> State:
        """A state of its own to change; rows are copied at the first write to their table."""
        return replace(
            self,
            tables=dict(self.tables),
            rows=dict(self.rows),
            history=History(self.history.floor, list(self.history.entries)),
            documents=dict(self.documents),
            facts=list(self.facts),
            sequences=dict(self.sequences),
            kept={name: dict(rows) for name, rows in self.kept.items()},
            private=set(),
        )

    def table(self, name: str) -> Table:
        """The table of that name. Raises ConfigError."""
        found = Catalog(self.tables).table(name)
        if found is None:
            raise ConfigError(f"{self.name} has no table {name}", code="unknown-table", remedy="name one of its tables")
        return found

    def writable(self, name: str) -> Stored:
        """The rows of a table, to be changed."""
        if name not in self.private:
            self.rows[name] = dict(self.rows[name])
            self.private.add(name)
        return self.rows[name]

    def with_kept(self, relation: Relation, rows: list[Row]) -> list[Row]:
        """The rows with what is kept for them."""
        for kept in relation.kept:
            if kept.column in relation.columns and set(kept.key) <= set(relation.columns):
                rows = [self._with(kept, relation.columns, row) for row in rows]
        return rows

    def _with(self, kept: Kept, columns: tuple[str, ...], row: Row) -> Row:
        at = columns.index(kept.column)
        key = kept.word(tuple(row[columns.index(name)] for name in kept.key))
        found = self.kept.get((kept.table, kept.name), {}).get(key)
        if found is None or (type(found[1]), found[1]) != (type(row[at]), row[at]):
            return row
        return (*row[:at], found[0], *row[at + 1 :])

    def keep(self, under: tuple[str, str], rows: Sequence[tuple[Key, Value, Value]], gone: Sequence[Key]) -> None:
        """Keep values with their bases, and forget what is kept at the keys that are gone."""
        there = self.kept.setdefault(under, {})
        for key in gone:
            there.pop(key, None)
        there.update({key: (value, base) for key, value, base in rows})

    def installed(self) -> Guard:
        """The guard row. Raises Refused before `install`."""
        if self.guard is None:
            raise Refused(
                f"dbsync is not installed in {self.name}", code="not-initialised", remedy="dbsync init --active NAME"
            )
        return self.guard

    def guard_at(self, monotonic: float) -> Guard | None:
        """The guard row, with the time that a fence has left."""
        if self.guard is None or self.guard.state is not GuardState.FENCED or self.fence_until is None:
            return self.guard
        return replace(self.guard, fence_left=self.fence_until - monotonic)

    def position(self) -> Position:
        """How far this history goes."""
        self.installed()
        seq, nonce = self.history.last()
        return Position(f"{seq}.{nonce}")

    def log(self, table: str, key: Key | None, own: bool, at: datetime) -> None:
        """Record a change, once dbsync is installed and unless the table is excluded."""
        if self.guard is not None and table not in self.excluded:
            self.history.append(table, key, own, at)

    def changes(self, since: Position, limit: int | None) -> Changes:
        """See View."""
        self.installed()
        found = self.history.after(since)
        taken = found if limit is None else found[:limit]
        end = Position(f"{taken[-1].seq}.{taken[-1].nonce}") if taken else since
        keys: dict[str, dict[Key, None]] = {}
        whole: set[str] = set()
        for entry in taken:
            seen = keys.setdefault(entry.table, {})
            if entry.key is None:
                whole.add(entry.table)
            else:
                seen[entry.key] = None
        touched = tuple(Touched(name, tuple(some), name in whole) for name, some in keys.items())
        return Changes(since, end, touched, len(taken), sum(not entry.own for entry in taken))

    def lag(self, since: Position, now: datetime) -> Lag:
        """See View."""
        self.installed()
        found = self.history.after(since)
        return Lag(len(found), max(0.0, (now - found[0].at).total_seconds()) if found else 0.0)
