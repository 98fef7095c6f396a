"""The face of the in-memory twin that an application writes through: refused unless the guard accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from dbsync.adapters.memory_rows import key_of
from dbsync.adapters.memory_state import State
from dbsync.adapters.memory_transaction import MemoryTransaction
from dbsync.errors import Refused
from dbsync.model import Key, Value
from dbsync.ports import Clock


class ApplicationTransaction:
    """One open transaction of the application's."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._rows = MemoryTransaction(state, clock, own=False)

    def execute_put(self, table: str, row: Mapping[str, Value]) -> None:
        """Insert a row, or update the named columns of the one that has its key. Raises Refused (`not-active`)."""
        self._allowed(table)
        self._rows.upsert(table, tuple(row), [tuple(row.values())])
        self._rows.finish()

    def delete(self, table: str, key: Key) -> None:
        """Delete by key. Raises Refused (`not-active`)."""
        self._allowed(table)
        self._rows.delete(table, [key])

    def rekey(self, table: str, key: Key, new: Key) -> None:
        """Give a row another key; both keys count as changed. Raises Refused (`not-active`)."""
        self._allowed(table)
        shape = self._state.table(table)
        row = dict(zip(shape.stored, self._state.rows[shape.name][key], strict=True))
        assert key_of(shape, tuple(row.values())) == key
        self._rows.delete(table, [key])
        row.update(zip(shape.key, new, strict=True))
        self._rows.upsert(table, tuple(row), [tuple(row.values())])

    def _allowed(self, table: str) -> None:
        shape = self._state.table(table)
        guard = self._state.guard_at(self._clock.monotonic())
        if guard is not None and not guard.accepts and shape.name not in self._state.excluded:
            raise Refused(
                f"dbsync: {guard.name} is not the active database, nothing was written",
                code="not-active",
                remedy="send writes to the active database",
            )


class Application:
    """Writes as an application's: one statement a transaction, or several in `transaction()`."""

    def __init__(self, exclusive: Callable[[], AbstractContextManager[State]], clock: Clock) -> None:
        self._exclusive = exclusive
        self._clock = clock

    @contextmanager
    def transaction(self) -> Iterator[ApplicationTransaction]:
        """A transaction that keeps every other writer out until its end; an exception rolls it back."""
        with self._exclusive() as state:
            yield ApplicationTransaction(state, self._clock)

    def execute_put(self, table: str, row: Mapping[str, Value]) -> None:
        """See ApplicationTransaction."""
        with self.transaction() as transaction:
            transaction.execute_put(table, row)

    def delete(self, table: str, key: Key) -> None:
        """See ApplicationTransaction."""
        with self.transaction() as transaction:
            transaction.delete(table, key)

    def rekey(self, table: str, key: Key, new: Key) -> None:
        """See ApplicationTransaction."""
        with self.transaction() as transaction:
            transaction.rekey(table, key, new)
