"""Rows of the in-memory twin: by-name queries, the order of keys, and the types that columns give to values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dbsync.errors import ConfigError
from dbsync.model import Column, Key, Relation, Row, Table, Value
from dbsync.ports import Rows, Scratch

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d]\w*)'
_ITEM = rf"(?:{_NAME}\s*\.\s*)?({_NAME})(?:\s+AS\s+({_NAME}))?"
_SHAPE = re.compile(
    rf"\s*SELECT\s+(?P<items>{_ITEM}(?:\s*,\s*{_ITEM})*)\s+FROM\s+(?P<table>{_NAME})(?:\s+AS\s+{_NAME})?\s*;?\s*",
    re.IGNORECASE,
)
_EACH = re.compile(_ITEM, re.IGNORECASE)

Stored = dict[Key, Row]
"""The rows of one table by key; each row holds the values of `table.stored`, in that order."""


def unquoted(name: str) -> str:
    """A name as it is stored, whether it was written with quotes or without."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


@lru_cache(maxsize=512)
def parsed(sql: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The table of a by-name SELECT, and (column, name in the result) pairs. Raises NotImplementedError for more."""
    found = _SHAPE.fullmatch(sql)
    if found is None:
        raise NotImplementedError(f"the in-memory twin reads by-name relations only, not: {sql.strip()}")
    pairs = tuple(
        (unquoted(one.group(1)), unquoted(one.group(2) or one.group(1))) for one in _EACH.finditer(found["items"])
    )
    return unquoted(found["table"]), pairs


def affinity(declared: str) -> str:
    """What a declared type makes of values, as SQLite derives it from the type's name."""
    name = declared.upper()
    if "INT" in name:
        return "integer"
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if not name or "BLOB" in name:
        return "blob"
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "numeric"


def typed(value: Value, column: Column) -> Value:
    """The value as a column of this type stores it."""
    kind = affinity(column.type)
    if value is None or isinstance(value, bytes) or kind == "blob":
        return int(value) if isinstance(value, bool) else value
    if kind == "text":
        return value if isinstance(value, str) else str(value)
    if isinstance(value, str):
        value = _number(value)
    if isinstance(value, str):
        return value
    if kind == "real":
        return float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(text: str) -> Value:
    for reader in (int, float):
        try:
            return reader(text)
        except ValueError:
            continue
    return text


def ordered(key: Key) -> tuple[tuple[int, Any], ...]:
    """What keys are sorted by: nothing, numbers, text by its bytes, blobs."""
    return tuple(_rank(value) for value in key)


def _rank(value: Value) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, str):
        return (2, value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return (3, value)
    return (1, value)


def default_of(column: Column) -> Value:
    """The value that a column gives itself; only literals are understood, anything else is NULL."""
    text = (column.default or "").strip()
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return typed(text[1:-1].replace("''", "'"), column)
    number = _number(text) if text else None
    return None if isinstance(number, str) else typed(number, column)


class MemoryRows(Rows):
    """Rows over tables held in dicts."""

    def _table(self, name: str) -> Table:
        raise NotImplementedError

    def _rows(self, name: str) -> Stored:
        raise NotImplementedError

    def _selected(self, relation: Relation) -> Iterator[Row]:
        name, pairs = parsed(relation.sql)
        table = self._table(name)
        missing = [column for column, _ in pairs if table.column(column) is None]
        if missing:
            raise ConfigError(
                f"the table {table.name} has no column {missing[0]}",
                code="broken-crossing",
                remedy="name a column that the table has",
            )
        stored = table.stored
        for row in self._rows(table.name).values():
            cells = {name.casefold(): value for name, value in zip(stored, row, strict=True)}
            picked = {alias: cells.get(column.casefold()) for column, alias in pairs}
            yield from _mapped(relation, picked)

    def _sorted(self, relation: Relation) -> list[tuple[Key, Row]]:
        places = relation.places()
        rows = [(tuple(row[place] for place in places), row) for row in self._selected(relation)]
        return sorted(rows, key=lambda pair: ordered(pair[0]))

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See Rows."""
        wanted = {ordered(tuple(key)) for key in keys}
        return [row for key, row in self._sorted(relation) if ordered(key) in wanted]

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See Rows."""
        low = None if after is None else ordered(tuple(after))
        high = None if upto is None else ordered(tuple(upto))
        found = [
            row
            for key, row in self._sorted(relation)
            if (low is None or ordered(key) > low) and (high is None or ordered(key) <= high)
        ]
        return found if limit is None else found[:limit]

    def count(self, relation: Relation) -> int:
        """See Rows."""
        return sum(1 for _ in self._selected(relation))

    def key_query(self, sql: str, keys: Sequence[Key]) -> list[Key]:
        """Not in the twin: it does not run SQL."""
        raise NotImplementedError("the in-memory twin does not run key queries")


def _mapped(relation: Relation, picked: Mapping[str, Value]) -> Iterator[Row]:
    if relation.row is None:
        made: Iterable[Mapping[str, Value]] = (picked,)
    else:
        given = relation.row(picked)
        made = () if given is None else (given,) if isinstance(given, Mapping) else given
    for one in made:
        yield tuple(one[name] for name in relation.columns)


class MemoryScratch(MemoryRows, Scratch):
    """An empty private copy of some tables' shape."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._shapes = {table.name.casefold(): table for table in tables}
        self._data: dict[str, Stored] = {table.name: {} for table in tables}

    def _table(self, name: str) -> Table:
        found = self._shapes.get(name.casefold())
        if found is None:
            raise ConfigError(f"there is no table {name}", code="unknown-table", remedy="name one of the tables given")
        return found

    def _rows(self, name: str) -> Stored:
        return self._data[name]

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """See Scratch."""
        shape = self._table(table)
        data = self._data[shape.name]
        for row in rows:
            made = completed(shape, columns, row, None)
            data[key_of(shape, made)] = made


def completed(table: Table, columns: Sequence[str], row: Row, before: Row | None) -> Row:
    """A whole stored row: the named values, else those of the row before, else the columns' defaults."""
    given = {name.casefold(): value for name, value in zip(columns, row, strict=True)}
    unknown = [name for name in columns if table.column(name) is None]
    if unknown:
        raise ConfigError(f"the table {table.name} has no column {unknown[0]}", remedy="name a column that it has")
    made: list[Value] = []
    for place, name in enumerate(table.stored):
        column = table.column(name)
        assert column is not None
        if name.casefold() in given:
            made.append(typed(given[name.casefold()], column))
        else:
            made.append(default_of(column) if before is None else before[place])
    return tuple(made)


def key_of(table: Table, row: Row) -> Key:
    """The primary key of a stored row; the whole row where the table has none."""
    stored = table.stored
    return tuple(row[stored.index(name)] for name in table.key) or row
