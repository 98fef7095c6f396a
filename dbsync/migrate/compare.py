"""Two shapes of what should be one revision, and how they differ."""

from __future__ import annotations

from collections.abc import Iterator

from dbsync.model import Catalog, Column, Table


def differences(known: Catalog, found: Catalog) -> tuple[str, ...]:
    """How `found` differs from the shape that is known: tables, and name, type, nullability and key of columns.

    The order of columns, defaults and indexes do not count: rows cross by name.
    """
    return tuple(_tables(known, found))


def _tables(known: Catalog, found: Catalog) -> Iterator[str]:
    for name, table in sorted(known.tables.items()):
        present = found.table(name)
        if present is None:
            yield f"table {name} is missing"
        else:
            yield from _columns(table, present)
    for name in sorted(found.tables):
        if known.table(name) is None:
            yield f"table {name} is not known at that revision"


def _columns(known: Table, found: Table) -> Iterator[str]:
    for column in known.columns:
        present = found.column(column.name)
        if present is None:
            yield f"{known.name}.{column.name} is missing"
        elif _said(present) != _said(column):
            yield f"{known.name}.{column.name} is {_said(present)} instead of {_said(column)}"
    for column in found.columns:
        if known.column(column.name) is None:
            yield f"{known.name}.{column.name} is not known at that revision"


def _said(column: Column) -> str:
    parts = [" ".join(column.type.upper().split()) or "of no type"]
    # A key column of an integer key is nullable by its declaration only: the key says more.
    if column.key:
        parts.append(f"key {column.key}")
    elif not column.nullable:
        parts.append("NOT NULL")
    return " ".join(parts)
