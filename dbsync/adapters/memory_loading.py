"""A job's extract and load on the in-memory twin: by-name SELECTs, bounded by one column's stamps or by a key list."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dbsync.adapters.memory_rows import Stored, completed, key_of, ordered, parsed, unquoted
from dbsync.errors import ConfigError, Refused
from dbsync.model import Extracted, Key, Loaded, Rejected, Row, Table

_NAME = r'"(?:[^"]|"")+"|[^\W\d]\w*'
_SINCE = re.compile(rf"\s+WHERE\s+({_NAME})\s*>=\s*:since(?:\s+AND\s+\1\s*<\s*:until)?\s*$", re.IGNORECASE)
_KEYS = re.compile(rf"\s+WHERE\s+({_NAME})\s+IN\s*\(\s*:keys\s*\)\s*$", re.IGNORECASE)


def stamp(value: datetime) -> str:
    """A moment as it is compared with what the rows hold."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")


def extract(
    tables: Mapping[str, Table], rows: Mapping[str, Stored], sql: str, parameters: Mapping[str, Any], size: int
) -> Iterator[Extracted]:
    """See View."""
    bounded, listed = _SINCE.search(sql), _KEYS.search(sql)
    found = bounded or listed
    try:
        name, pairs = parsed(sql[: found.start()] if found else sql)
        table = tables[name]
    except (NotImplementedError, KeyError) as error:
        raise _broken(f"its extract does not run: {error}") from error
    columns = tuple(alias for _, alias in pairs)
    if len({one.casefold() for one in columns}) < len(columns):
        raise _broken("its extract gives two columns of one name")
    places = [_place(table, column) for column, _ in pairs]
    of = _place(table, unquoted(found[1])) if found else 0
    low, high = (stamp(parameters[each]) if each in parameters else "~" for each in ("since", "until"))
    keys = {ordered(tuple(key)) for key in parameters.get("keys") or ()}

    def wanted(row: Row) -> bool:
        if bounded:
            return row[of] is not None and low <= row[of] and (":until" not in sql or row[of] < high)
        return not listed or ordered((row[of],)) in keys

    taken = [tuple(row[place] for place in places) for row in rows[table.name].values() if wanted(row)]
    for at in range(0, max(1, len(taken)), size):
        yield Extracted(columns, taken[at : at + size])


def _place(table: Table, name: str) -> int:
    folded = [one.casefold() for one in table.stored]
    if name.casefold() not in folded:
        raise _broken(f"its extract does not run: no such column: {name}")
    return folded.index(name.casefold())


def load_rows(
    shape: Table, data: Stored, columns: Sequence[str], rows: Sequence[Row], key: Sequence[str], mode: str
) -> tuple[Loaded, list[Key]]:
    """See Transaction: changes `data`. Gives the primary keys of what was written as well."""
    _check(shape, columns, key)
    places = [list(columns).index(name) for name in key] if rows else []
    stored = [_place(shape, name) for name in key]
    rejected: list[Rejected] = []
    written: list[Key] = []
    for row in rows:
        wanted = tuple(row[place] for place in places)
        there = next((k for k, old in data.items() if tuple(old[place] for place in stored) == wanted), None)
        if there is not None and mode == "append":
            continue
        made = completed(shape, columns, row, None if there is None else data[there])
        try:
            _admit(shape, data, made, there)
        except Refused as refused:
            rejected.append(Rejected(row, refused.message))
            continue
        if there is not None:
            del data[there]
        data[key_of(shape, made)] = made
        written.append(key_of(shape, made))
    return Loaded(len(written), tuple(rejected)), written


def _check(shape: Table, columns: Sequence[str], key: Sequence[str]) -> None:
    for name in (*columns, *key):
        column = shape.column(name)
        if column is None:
            raise _broken(f"the table {shape.name} has no column {name}")
        if column.generated:
            raise _broken(f"column {name} of {shape.name} is computed")
    absent = [name for name in key if name not in columns]
    if absent:
        raise _broken(f"the rows have no key column {absent[0]}")
    if not any(set(key) == set(unique) for unique in (shape.key, *shape.uniques)):
        raise _broken(f"{', '.join(key)} is neither the primary key of {shape.name} nor unique there")


def _admit(shape: Table, data: Stored, made: Row, there: Key | None) -> None:
    for name, value in zip(shape.stored, made, strict=True):
        column = shape.column(name)
        if value is None and column is not None and (column.key or not column.nullable):
            raise Refused(f"{name} may not be NULL")
    for columns in (shape.key, *shape.uniques):
        places = [shape.stored.index(name) for name in columns]
        values = [made[place] for place in places]
        if None not in values and any(
            k != there and [old[place] for place in places] == values for k, old in data.items()
        ):
            raise Refused(f"{', '.join(columns)} must be unique")


def _broken(found: str) -> ConfigError:
    return ConfigError(found, code="broken-job", remedy="correct the job's file")
