"""The in-memory twin of a database: the sockets of ports.py over dicts, for tests and for reading.

One lock lets one writing transaction in at a time; a view keeps the state that it began with. It has
no SQL: relations are by name (or carry `row`), and a migration changes `Table` values.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from dbsync.adapters.memory_application import Application
from dbsync.adapters.memory_rows import MemoryScratch, parsed
from dbsync.adapters.memory_state import State
from dbsync.adapters.memory_traffic import FakeClock, MemoryGate, MemoryRouter
from dbsync.adapters.memory_transaction import MemoryMigration, MemoryTransaction, MemoryView, store
from dbsync.errors import ConfigError, Refused, Unavailable
from dbsync.model import (
    Capabilities,
    Catalog,
    Check,
    Checkpoint,
    Fact,
    Fenced,
    Guard,
    GuardState,
    Kept,
    Key,
    Position,
    QueryPlan,
    Relation,
    Role,
    Severity,
    Staged,
    Table,
)
from dbsync.ports import Clock, Database, Scratch, Transaction, View

__all__ = ["FakeClock", "MemoryDatabase", "MemoryGate", "MemoryRouter"]

_OBJECTS = ("guard", "changes", "documents", "journal", "checkpoint")


class MemoryDatabase(Database):
    """A database in dicts. `application` is the face that an application would write through.

    Without a clock of its own it gets a FakeClock, as `clock`: then a fence ends when that is advanced.
    """

    def __init__(
        self, name: str, tables: Sequence[Table] = (), exclude: Sequence[str] = (), clock: Clock | None = None
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(dialect="memory")
        self.clock: Clock = clock or FakeClock()
        shapes = {table.name: table for table in tables}
        left_out = frozenset(name for name in shapes if any(fnmatchcase(name, pattern) for pattern in exclude))
        self._state = State(name, shapes, {table: {} for table in shapes}, left_out)
        self._writer = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self.application = Application(self.exclusive, self.clock)

    @property
    def address(self) -> str:
        """See Database."""
        return f"memory:{self.name}"

    @contextmanager
    def exclusive(self, wait: float = 5.0, code: str = "database-busy") -> Iterator[State]:
        """A state to change, with no other writer in; it becomes the database's own unless an exception leaves."""
        if not self._writer.acquire(timeout=max(wait, 0.0)):
            raise Unavailable(
                f"another transaction on {self.name} did not end within {wait:g} s",
                code=code,
                remedy="end it, then run the command again",
            )
        try:
            work = self._state.copy()
            yield work
            self._state = work
        finally:
            self._writer.release()

    # shape

    def catalog(self) -> Catalog:
        """See Database."""
        state = self._state
        return Catalog({n: t for n, t in state.tables.items() if n not in state.excluded}, state.revision)

    def excluded(self) -> tuple[str, ...]:
        """See Database."""
        return tuple(sorted(self._state.excluded))

    def fingerprint(self) -> str:
        """See Database."""
        return _fingerprint(self._state)

    def reads(self, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
        """See Database; by-name relations only."""
        name, pairs = parsed(sql)
        table = self._state.table(name)
        found = [table.column(column) for column, _ in pairs]
        if None in found:
            raise ConfigError(f"{table.name} lacks a column that is read", remedy="name columns that it has")
        return frozenset((table.name, column.name) for column in found if column is not None)

    def plan(self, relation: Relation) -> QueryPlan:
        """See Database: there is nothing to choose between."""
        return QueryPlan((f"{relation.table} by name, in memory",))

    def asked(self, query: str, width: int) -> QueryPlan:
        """See Database: the twin runs no key queries."""
        raise NotImplementedError("the in-memory twin does not run key queries")

    def examine(self) -> tuple[Check, ...]:
        """See Database."""
        synced = [t for t in self._state.tables.values() if t.name not in self._state.excluded]
        keyless = [table.name for table in synced if not table.key]
        checks = [
            Check("no-primary-key", Severity.BLOCKER, f"{name} has no primary key", "add one, or exclude the table")
            for name in keyless
        ]
        return tuple(checks) or (Check("primary-keys", Severity.OK, "every table has a primary key"),)

    @contextmanager
    def scratch(self, tables: Sequence[Table]) -> Iterator[Scratch]:
        """See Database."""
        yield MemoryScratch(tables)

    # guard

    def guard(self) -> Guard | None:
        """See Database."""
        return self._state.guard_at(self.clock.monotonic())

    def install(self, live: str, epoch: int = 1) -> tuple[str, ...]:
        """See Database."""
        with self.exclusive() as state:
            if state.guard is not None:
                return ()
            active = live == self.name
            guard = Guard(self.name, uuid.uuid4().hex, GuardState.CLOSED, epoch, live=live)
            state.guard = replace(guard, state=GuardState.OPEN, lived=_lived(state, guard)) if active else guard
            if active:
                state.guard = replace(state.guard, opened_at=state.position())
        return _OBJECTS

    def remove(self) -> tuple[str, ...]:
        """See Database."""
        with self.exclusive() as state:
            if state.guard is None:
                return ()
            bare = State(self.name, state.tables, state.rows, state.excluded, state.revision, state.shape + 1)
            state.__dict__.update(bare.__dict__)
        return _OBJECTS

    def fence(self, epoch: int, owner: str, seconds: float, wait: float) -> Fenced:
        """See Database."""
        with self.exclusive(wait, "drain-timeout") as state:
            guard = self._now(state)
            if not guard.accepts or guard.epoch != epoch:
                raise _lost(guard, f"is not open at epoch {epoch}")
            fenced = Fenced(epoch, guard.attempt + 1, owner)
            state.guard = replace(guard, state=GuardState.FENCED, attempt=fenced.attempt, owner=owner, fence_left=None)
            state.fence_until = self.clock.monotonic() + seconds
        return fenced

    def lift(self, epoch: int) -> Guard:
        """See Database."""
        with self.exclusive() as state:
            guard = self._now(state)
            if guard.state is GuardState.CEDED or guard.epoch > epoch:
                raise Refused(
                    f"{self.name} has given up being live",
                    code="past-no-return",
                    remedy="dbsync cutover --resume, then dbsync rollback",
                )
            if guard.state is GuardState.CLOSED or guard.epoch != epoch:
                raise _lost(guard, f"is not live at epoch {epoch}")
            return self._become(state, guard, state=GuardState.OPEN, attempt=guard.attempt + 1)

    def cede(self, fenced: Fenced, final: Position, fingerprint: str, to: str) -> Guard:
        """See Database."""
        with self.exclusive() as state:
            guard = self._now(state)
            holds = guard.state is GuardState.FENCED and not guard.accepts
            if not holds or Fenced(guard.epoch, guard.attempt, guard.owner or "") != fenced:
                raise _lost(guard, "is not fenced by this attempt any more")
            if state.position() != final:
                raise _lost(guard, "has moved past the final position")
            if _fingerprint(state) != fingerprint:
                raise _lost(guard, "has another shape or other guards than before")
            return self._become(state, guard, state=GuardState.CEDED, epoch=guard.epoch + 1, live=to)

    def open(self, epoch: int, fingerprint: str | None = None) -> Guard:
        """See Database. An epoch is burnt when this side has been closed at it, for another, or at a later one."""
        with self.exclusive() as state:
            guard = self._now(state)
            if guard.state is GuardState.OPEN and guard.epoch == epoch:
                return guard
            named = guard.epoch == epoch and guard.live == self.name
            if guard.state is not GuardState.CLOSED or not (named or guard.epoch < epoch):
                raise Refused(
                    _told(guard, f"cannot be opened at epoch {epoch}"), code="burnt-epoch", remedy="dbsync status"
                )
            if fingerprint is not None and fingerprint != _fingerprint(state):
                raise Refused(
                    f"the shape or the guards of {self.name} were changed", code="guard-changed", remedy="dbsync verify"
                )
            return self._become(
                state, guard, state=GuardState.OPEN, epoch=epoch, live=self.name,
                opened_at=state.position(), lived=_lived(state, guard),
            )  # fmt: skip

    def close(self, epoch: int, checkpoint: Checkpoint) -> Guard:
        """See Database."""
        with self.exclusive() as state:
            guard = self._now(state)
            if guard.state is GuardState.CLOSED and guard.epoch == epoch:
                return guard
            if guard.state is not GuardState.CEDED or guard.epoch != epoch:
                raise _role(guard, f"has not ceded at epoch {epoch}")
            state.checkpoint = checkpoint
            return self._become(state, guard, state=GuardState.CLOSED)

    def reopen(self, epoch: int) -> Guard:
        """See Database."""
        with self.exclusive() as state:
            guard = self._now(state)
            if guard.state is GuardState.OPEN and guard.epoch == epoch:
                return guard
            if guard.state is not GuardState.CEDED or epoch <= guard.epoch:
                raise _role(guard, f"cannot be live again at epoch {epoch}")
            return self._become(
                state, guard, state=GuardState.OPEN, epoch=epoch, live=self.name,
                attempt=guard.attempt + 1, opened_at=state.position(),
            )  # fmt: skip

    @contextmanager
    def lock(self, name: str, wait: float) -> Iterator[None]:
        """See Database."""
        lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=max(wait, 0.0)):
            raise Refused(
                f"{name} is running on {self.name} already", code=f"{name}-running", remedy="wait until it has ended"
            )
        try:
            yield
        finally:
            lock.release()

    def round_trip(self) -> float:
        """See Database; never zero, so that it can be divided by."""
        start = self.clock.monotonic()
        with self.exclusive():
            pass
        return max(self.clock.monotonic() - start, 1e-6)

    def settled(self, wait: float) -> bool:
        """See Database."""
        if not self._writer.acquire(timeout=max(wait, 0.0)):
            return False
        self._writer.release()
        return True

    # rows

    @contextmanager
    def view(self) -> Iterator[View]:
        """See Database."""
        yield MemoryView(self._state, self.clock)

    @contextmanager
    def writing(self, role: Role, epoch: int, wait: float = 5.0) -> Iterator[Transaction]:
        """See Database."""
        with self.exclusive(wait) as state:
            self._require(state, role, epoch)
            transaction = MemoryTransaction(state, self.clock)
            yield transaction
            transaction.finish()

    def forget(self, epoch: int, kept: Sequence[Kept], keys: Sequence[Key]) -> None:
        """See Database."""
        with self.exclusive() as state:
            guard = self._now(state)
            if guard.state not in (GuardState.OPEN, GuardState.FENCED) or guard.epoch != epoch:
                raise _role(guard, f"is not live at epoch {epoch}")
            for each in kept:
                state.keep((each.table, each.name), (), [each.word(key) for key in keys])

    @contextmanager
    def migrating(self, role: Role, epoch: int) -> Iterator[Any]:
        """See Database. Gives a MemoryMigration in place of a connection."""
        with self.exclusive() as state:
            self._require(state, role, epoch)
            yield MemoryMigration(state, self.clock)
            state.shape += 1
            guard = state.installed()
            if role is Role.ACTIVE:
                state.guard = replace(guard, lived=_lived(state, guard))

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """See Database."""
        with self.exclusive() as state:
            state.installed()
            store(state, kind, name, document)

    def record(self, fact: Fact) -> None:
        """See Database."""
        with self.exclusive() as state:
            state.installed()
            state.facts.append(replace(fact, database=self.name))

    def journal(self, limit: int | None = None) -> list[Fact]:
        """See Database."""
        facts = self._state.facts
        return list(facts if limit is None else facts[max(0, len(facts) - limit) :])

    def prune(self, below: Position) -> int:
        """See Database."""
        with self.exclusive() as state:
            state.installed()
            left = state.history.after(below)
            gone = len(state.history.entries) - len(left)
            seq, _, nonce = below.partition(".")
            state.history.floor = (int(seq), nonce)
            state.history.entries = left
            return gone

    def dispose(self) -> None:
        """See Database; there is nothing to let go of."""

    # for tests

    def disturb(self) -> None:
        """Do what dropping a guard and putting it back does: nothing but a new fingerprint."""
        with self.exclusive() as state:
            state.shape += 1

    def backup(self) -> State:
        """A backup, to be given to `restore`."""
        return self._state

    def restore(self, backup: State) -> None:
        """Put an older backup back, as restoring a file would."""
        with self.exclusive() as state:
            state.__dict__.update(backup.copy().__dict__)

    def _now(self, state: State) -> Guard:
        guard = state.guard_at(self.clock.monotonic())
        return guard or state.installed()

    def _become(self, moment: State, guard: Guard, **changes: Any) -> Guard:
        became = replace(guard, owner=None, fence_left=None, **changes)
        moment.guard, moment.fence_until = became, None
        return became

    def _require(self, state: State, role: Role, epoch: int) -> None:
        guard = self._now(state)
        has = guard.accepts if role is Role.ACTIVE else guard.state is GuardState.CLOSED
        if not has or guard.epoch != epoch:
            raise _role(guard, f"is not {role.value} at epoch {epoch}")


def _lived(state: State, guard: Guard) -> frozenset[str]:
    return guard.lived | ({state.revision} if state.revision else frozenset())


def _fingerprint(state: State) -> str:
    told = repr((state.shape, state.guard is not None, sorted(state.tables.items())))
    return hashlib.sha256(told.encode()).hexdigest()


def _told(guard: Guard, what: str) -> str:
    return f"{guard.name} {what} (it is {guard.state.value} at epoch {guard.epoch})"


def _lost(guard: Guard, what: str) -> Refused:
    return Refused(_told(guard, what), code="fence-lost", remedy="dbsync cutover --resume")


def _role(guard: Guard, what: str) -> Refused:
    return Refused(_told(guard, what), code="role-changed", remedy="dbsync status")
