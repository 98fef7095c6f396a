"""Keys and rows of a window: which keys are one key, which are gone, which rows need no write."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from dbsync.etl.keys import fold_text
from dbsync.model import Capabilities, Column, Key, Relation, Row, Table, Touched, Value

Fold = Callable[[Key], Key]
Keys = dict[str, dict[Key, None]]
"""Keys by table, each once, in the order in which they came."""

BATCH_KEYS = 5_000
"""How many keys one read by key list asks for: bounds memory where a lookup touches very many rows."""


def fold(table: Table | None, key: Sequence[str]) -> Fold:
    """A function under which two keys are equal exactly when the table's key columns take them for one.

    Without it 'abc' (deleted) and 'ABC' (inserted) of a case-insensitive key are a put and a delete of
    the same row, and the delete comes last.
    """
    columns = [table.column(name) if table is not None else None for name in key]
    steps = [_cell_fold(column) for column in columns]
    if all(step is None for step in steps):
        return tuple
    pairs = list(enumerate(steps))

    def folded(values: Key) -> Key:
        return tuple(values[at] if step is None else step(values[at]) for at, step in pairs)

    return folded


def _cell_fold(column: Column | None) -> Callable[[Value], Value] | None:
    if column is None:
        return None
    declared = column.type.upper()
    collation = (column.collation or "").casefold()
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return _text_fold(collation)
    if "BLOB" in declared or not declared:
        return None if not collation or collation == "binary" else _text_fold(collation)
    return _number


def _text_fold(collation: str) -> Callable[[Value], Value]:
    def text(value: Value) -> Value:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            value = str(value)
        return fold_text(value, collation) if isinstance(value, str) else value

    return text


def _number(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def keys_of(rows: Iterable[Row], places: Sequence[int]) -> list[Key]:
    """The keys of these rows."""
    if len(places) == 1:
        at = places[0]
        return [(row[at],) for row in rows]
    return [tuple(row[at] for at in places) for row in rows]


def absent(keys: Sequence[Key], present: Sequence[Key], folded: Fold) -> list[Key]:
    """Those of `keys` for which there is no row: they are to be deleted."""
    there = {folded(key) for key in present}
    return [key for key in keys if folded(key) not in there]


def exact(row: Row) -> bytes:
    """Bytes that are the same only for the same values of the same types: 1 is not 1.0."""
    try:
        return marshal.dumps(tuple(row), 2)
    except ValueError:
        return repr([(type(cell).__name__, cell) for cell in row]).encode("utf-8", "surrogatepass")


def reconcile(
    theirs: Sequence[Row],
    ours: Sequence[Row],
    places: Sequence[int],
    folded: Fold,
    left: frozenset[int] = frozenset(),
) -> tuple[list[Row], list[Key]]:
    """What makes `ours` into `theirs`: the rows to write, and the keys of ours that theirs does not have.

    The columns at the places `left` stay as ours has them, and need no write.
    """
    mine = {folded(key): row for key, row in zip(keys_of(ours, places), ours, strict=True)}
    write = []
    for key, row in zip(keys_of(theirs, places), theirs, strict=True):
        there = mine.pop(folded(key), None)
        if there is None or exact(_without(there, left)) != exact(_without(row, left)):
            write.append(row)
    return write, keys_of(list(mine.values()), places)


def _without(row: Row, places: frozenset[int]) -> Row:
    return tuple(value for at, value in enumerate(row) if at not in places) if places else row


def pieces(keys: Sequence[Key], size: int = BATCH_KEYS) -> Iterator[Sequence[Key]]:
    """The keys in parts of at most `size`."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def plain(table: Table, columns: Sequence[str], capabilities: Capabilities) -> Relation:
    """The rows of a table as they are stored, these columns only."""
    listed = ", ".join(quoted(name, capabilities) for name in columns)
    return Relation(
        table=table.name,
        columns=tuple(columns),
        key=table.key,
        sql=f"SELECT {listed} FROM {quoted(table.name, capabilities)}",
    )


def quoted(name: str, capabilities: Capabilities) -> str:
    """A name as it stands in SQL."""
    start, end = capabilities.quote
    return start + name.replace(end, end + end) + end


def whole_targets(tables: Sequence[Touched], readers: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    """The target tables that must be put again because a source table that they read changed in whole."""
    return tuple(sorted({target for touched in tables if touched.whole for target in readers(touched.table)}))


def merge(into: Keys, more: Mapping[str, Iterable[Key]]) -> None:
    """Add keys by table, each spelling once, in the order in which they came."""
    for table, keys in more.items():
        into.setdefault(table, {}).update(dict.fromkeys(keys))


def carried(values: Mapping[str, int], readers: Callable[[str], Sequence[str]]) -> dict[str, int]:
    """Identity counters of the source's tables as least values for the target tables that read them.

    Too high only leaves a gap; too low would hand out a key that is taken.
    """
    result: dict[str, int] = {}
    for source, value in values.items():
        for target in readers(source):
            result[target] = max(value, result.get(target, value))
    return dict(sorted(result.items()))
