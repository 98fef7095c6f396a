"""Views and writing transactions of the in-memory twin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from dbsync.adapters import memory_loading as loading
from dbsync.adapters.memory_rows import MemoryRows, Stored, completed, key_of
from dbsync.adapters.memory_state import State
from dbsync.errors import Refused
from dbsync.model import Changes, Checkpoint, Extracted, Guard, Key, Lag, Loaded, Position, Relation, Row, Table, Value
from dbsync.ports import Clock, Transaction, View


class MemoryView(MemoryRows, View):
    """One state, which nobody changes any more."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock
        self._began = clock.now()

    def _table(self, name: str) -> Table:
        return self._state.table(name)

    def _rows(self, name: str) -> Stored:
        return self._state.rows[name]

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See Rows."""
        return self._state.with_kept(relation, super().by_keys(relation, keys))

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See Rows."""
        return self._state.with_kept(relation, super().by_range(relation, after, upto, limit))

    def position(self) -> Position:
        """See View."""
        return self._state.position()

    def guard(self) -> Guard | None:
        """See View."""
        return self._state.guard_at(self._clock.monotonic())

    def revision(self) -> str | None:
        """See View."""
        return self._state.revision

    def checkpoint(self) -> Checkpoint | None:
        """See View."""
        return self._state.checkpoint

    def changes(self, since: Position, limit: int | None = None) -> Changes:
        """See View."""
        return self._state.changes(since, limit)

    def lag(self, since: Position) -> Lag:
        """See View."""
        return self._state.lag(since, self._clock.now())

    def kept(self) -> dict[tuple[str, str], int]:
        """See View."""
        return {under: len(rows) for under, rows in self._state.kept.items() if rows}

    def now(self) -> datetime:
        """See View."""
        return self._began

    def extract(self, sql: str, parameters: Mapping[str, Any], size: int) -> Iterator[Extracted]:
        """See View."""
        return loading.extract(self._state.tables, self._state.rows, sql, parameters, size)

    def load(self, kind: str, name: str) -> dict[str, Any] | None:
        """See View."""
        return _copied(self._state.documents.get((kind, name)))

    def load_all(self, kind: str) -> dict[str, dict[str, Any]]:
        """See View."""
        documents = self._state.documents
        return {name: json.loads(json.dumps(documents[kind, name])) for of, name in documents if of == kind}


def _copied(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    copied: dict[str, Any] | None = json.loads(json.dumps(document))
    return copied


def store(state: State, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
    """Put a document into a state that is being changed, or take it out."""
    copied = _copied(document)
    if copied is None:
        state.documents.pop((kind, name), None)
    else:
        state.documents[kind, name] = copied


class MemoryTransaction(MemoryView, Transaction):
    """A state that is being changed; the database exchanges its own for it at the commit."""

    def __init__(self, state: State, clock: Clock, own: bool = True) -> None:
        super().__init__(state, clock)
        self._own = own
        self._asleep: set[str] = set()
        self._written: dict[str, set[Key]] = {}

    def finish(self) -> None:
        """What must hold before the commit: a unique value has one holder. Raises Refused (`row-refused`).

        Not asked earlier: the row that lets go of a value may be deleted after the one that takes it is put.
        """
        for name, keys in self._written.items():
            if name in self._state.tables:
                _unique(self._state.tables[name], self._state.rows[name], keys)

    def _log(self, table: Table, key: Key) -> None:
        if table.name not in self._asleep:
            self._state.log(table.name, key, self._own, self._clock.now())

    def upsert(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], keep: frozenset[str] = frozenset()
    ) -> None:
        """See Transaction."""
        shape = self._table(table)
        data = dict(self._state.rows[shape.name])
        kept = {name.casefold() for name in keep}
        places = [place for place, name in enumerate(columns) if name.casefold() not in kept]
        some = [columns[place] for place in places]
        written: list[Key] = []
        for row in rows:
            made = completed(shape, columns, row, None)
            key = key_of(shape, made)
            before = data.get(key)
            if before is not None:
                made = completed(shape, some, tuple(row[place] for place in places), before)
            _not_null(shape, key, made)
            data[key] = made
            written.append(key)
        self._replace(shape, data)
        self._written.setdefault(shape.name, set()).update(written)
        for key in written:
            self._log(shape, key)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See Transaction."""
        shape = self._table(table)
        data = dict(self._state.rows[shape.name])
        logged: list[Key] = []
        for row in rows:
            made = completed(shape, columns, row, None)
            key = key_of(shape, made)
            _not_null(shape, key, made)
            for victim in _holders(shape, data, key, made):
                del data[victim]
                logged.append(victim)
            data[key] = made
            logged.append(key)
        self._replace(shape, data)
        for key in logged:
            self._log(shape, key)

    def delete(self, table: str, keys: Sequence[Key]) -> None:
        """See Transaction."""
        shape = self._table(table)
        data = self._state.writable(shape.name)
        for key in keys:
            if data.pop(tuple(key), None) is not None:
                self._log(shape, tuple(key))

    def load_rows(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], key: Sequence[str], mode: str
    ) -> Loaded:
        """See Transaction."""
        shape = self._table(table)
        data = dict(self._state.rows[shape.name])
        loaded, written = loading.load_rows(shape, data, columns, rows, key, mode)
        self._replace(shape, data)
        for one in written:
            self._log(shape, one)
        return loaded

    def clear(self, table: str) -> None:
        """See Transaction."""
        shape = self._table(table)
        self.delete(shape.name, list(self._state.rows[shape.name]))

    def set_checkpoint(self, source: str, position: Position, expected: Position | None) -> None:
        """See Transaction."""
        stands = self._state.checkpoint
        if (None if stands is None else stands.position) != expected:
            raise Refused(
                f"the checkpoint of {self._state.name} was moved by another",
                code="checkpoint-moved",
                remedy="read the next window from where it stands now",
            )
        self._state.checkpoint = Checkpoint(source, position, self._clock.now())

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """See Transaction."""
        store(self._state, kind, name, document)

    def keep(self, table: str, column: str, rows: Sequence[tuple[Key, Value, Value]], gone: Sequence[Key] = ()) -> None:
        """See Transaction."""
        self._state.keep((table, column), rows, gone)

    def quiet_capture(self, table: str) -> None:
        """See Transaction."""
        self._asleep.add(self._table(table).name)

    def carry_sequences(self, values: Mapping[str, int]) -> None:
        """See Transaction."""
        for name, value in values.items():
            self._state.sequences[name] = max(value, self._state.sequences.get(name, value))

    def _replace(self, shape: Table, data: Stored) -> None:
        self._state.rows[shape.name] = data
        self._state.private.add(shape.name)


class MemoryMigration:
    """What `migrating` gives in place of a connection: the shape of the twin, to be changed."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def put_table(self, table: Table) -> None:
        """Create a table, or give it this shape: rows keep the columns that both shapes have."""
        old = self._state.tables.get(table.name)
        rows = self._state.rows.get(table.name, {})
        self._state.tables[table.name] = table
        data: Stored = {}
        for row in rows.values():
            assert old is not None
            cells = {name: value for name, value in zip(old.stored, row, strict=True) if name in table.stored}
            made = completed(table, tuple(cells), tuple(cells.values()), None)
            data[key_of(table, made)] = made
        self._state.rows[table.name] = data
        self._state.log(table.name, None, True, self._clock.now())

    def drop_table(self, name: str) -> None:
        """Drop a table with its rows."""
        shape = self._state.table(name)
        del self._state.tables[shape.name], self._state.rows[shape.name]
        self._state.log(shape.name, None, True, self._clock.now())

    def stamp(self, revision: str | None) -> None:
        """Record the revision that the shape stands at now."""
        self._state.revision = revision


def _refuse(table: Table, key: Key, why: str) -> Refused:
    shown = ", ".join(repr(value) for value in key)
    return Refused(
        f"{table.name} does not take the row with the key ({shown}): {why}",
        code="row-refused",
        remedy="make the row fit, or relax the constraint, and run it again",
    )


def _not_null(table: Table, key: Key, row: Row) -> None:
    for name, value in zip(table.stored, row, strict=True):
        column = table.column(name)
        if value is None and column is not None and (column.key or not column.nullable):
            raise _refuse(table, key, f"{name} may not be NULL")


def _unique(table: Table, data: Stored, fresh: set[Key]) -> None:
    for columns in table.uniques:
        places = [table.stored.index(name) for name in columns]
        seen: dict[Row, Key] = {}
        for key, row in data.items():
            values = tuple(row[place] for place in places)
            if None in values:
                continue
            first = seen.setdefault(values, key)
            if first != key and (first in fresh or key in fresh):
                raise _refuse(table, key if key in fresh else first, f"{', '.join(columns)} must be unique")


def _holders(table: Table, data: Stored, key: Key, row: Row) -> list[Key]:
    found = [key] if key in data else []
    for columns in table.uniques:
        places = [table.stored.index(name) for name in columns]
        values = [row[place] for place in places]
        if None not in values:
            found += [k for k, r in data.items() if k not in found and [r[place] for place in places] == values]
    return found
