"""A catalog as a stored document, and back: the shapes of revisions that no database stands at any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dbsync.model import Catalog, Column, ForeignKey, Table


def to_document(catalog: Catalog) -> dict[str, Any]:
    """The catalog as plain JSON: {"revision", "tables": {name: {...}}}."""
    return {
        "revision": catalog.revision,
        "tables": {
            name: {
                "columns": [asdict(column) for column in table.columns],
                "uniques": [list(columns) for columns in table.uniques],
                "foreign_keys": [
                    {"columns": list(key.columns), "table": key.table, "referred": list(key.referred)}
                    for key in table.foreign_keys
                ],
                "ddl": table.ddl,
            }
            for name, table in catalog.tables.items()
        },
    }


def from_document(document: Mapping[str, Any]) -> Catalog:
    """The catalog that `to_document` was given. Raises KeyError or TypeError for anything else."""
    tables = {name: _table(name, stored) for name, stored in document["tables"].items()}
    return Catalog(tables, document.get("revision"))


def _table(name: str, stored: Mapping[str, Any]) -> Table:
    return Table(
        name=name,
        columns=tuple(Column(**column) for column in stored["columns"]),
        uniques=tuple(tuple(columns) for columns in stored.get("uniques", ())),
        foreign_keys=tuple(
            ForeignKey(tuple(key["columns"]), key["table"], tuple(key["referred"]))
            for key in stored.get("foreign_keys", ())
        ),
        ddl=stored.get("ddl", ""),
    )
