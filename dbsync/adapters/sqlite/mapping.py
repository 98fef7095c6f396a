"""Rows that a crossing's callable makes out of selected ones: none, one or several of each, in the order of the key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from dbsync.errors import ConfigError
from dbsync.model import Key, Relation, Row, Value

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def lead(relation: Relation) -> int:
    """How many columns at the beginning of the key the query itself gives."""
    return len(relation.key) if relation.lead is None else relation.lead


def mapped(relation: Relation, cursor: sqlite3.Cursor) -> Iterator[Row]:
    """The rows that the callable makes. ConfigError `crossing-key` where it changes what the query gives of the key."""
    assert relation.row is not None
    names = [part[0] for part in cursor.description]
    fixed = [name for name in relation.key[: lead(relation)] if name in names] if relation.lead is not None else []
    for values in cursor:
        given = dict(zip(names, values, strict=True))
        was = [given[name] for name in fixed]
        made = relation.row(given)
        for one in [made] if isinstance(made, Mapping) else made or []:
            if [one.get(name) for name in fixed] != was:
                raise ConfigError(
                    f"row= of table {relation.table} changes {', '.join(fixed)}, by which its rows are found",
                    code="crossing-key",
                    remedy="let it give the source's key on as it is",
                )
            yield tuple(one.get(column) for column in relation.columns)


def at_keys(relation: Relation, rows: Iterable[Row], keys: Sequence[Key]) -> Iterator[Row]:
    """Those of the rows that have one of these keys; the query knew only their first columns."""
    word = _word(relation)
    wanted = {word(key) for key in keys}
    places = relation.places()
    return (row for row in rows if word(tuple(row[place] for place in places)) in wanted)


def between(
    relation: Relation, rows: Iterable[Row], after: Key | None, upto: Key | None, limit: int | None
) -> list[Row]:
    """The rows with `after` < key <= `upto`, in the order of the key, at most `limit`: a source row may be cut through.

    `rows` come in the order of the key columns that the query knows; those with the same ones are sorted here.
    """
    word, places, known = _word(relation), relation.places(), lead(relation)
    low = None if after is None else ordered(word(after))
    high = None if upto is None else ordered(word(upto))
    found: list[Row] = []
    keyed = ((ordered(word(tuple(row[place] for place in places))), row) for row in rows)
    for _, group in groupby(keyed, key=lambda pair: pair[0][:known]):
        for key, row in sorted(group, key=lambda pair: pair[0]):
            if (low is None or key > low) and (high is None or key <= high):
                if limit is not None and len(found) >= limit:
                    return found
                found.append(row)
        if limit is not None and len(found) >= limit:
            return found
    return found


def ordered(key: Key) -> tuple[tuple[int, Any], ...]:
    """What keys are sorted by: nothing, numbers, text by its bytes, blobs."""
    return tuple(_rank(value) for value in key)


def _rank(value: Value) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, str):
        return 2, value.encode("utf-8", "surrogatepass")
    return (3, value) if isinstance(value, bytes) else (1, value)


def _word(relation: Relation) -> Callable[[Key], Key]:
    if not any(relation.collations):
        return tuple
    folds = relation.collations

    def word(key: Key) -> Key:
        return tuple(
            _fold(value, name) if isinstance(value, str) else value for value, name in zip(key, folds, strict=True)
        )

    return word


def _fold(text: str, collation: str) -> str:
    name = collation.casefold()
    if name == "nocase":
        return text.translate(_LOWER)
    return text.rstrip(" ") if name == "rtrim" else text
