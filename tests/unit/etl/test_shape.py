"""Shapes as stored documents."""

from __future__ import annotations

import json

from dbsync.migrate.shape import from_document, to_document
from dbsync.model import Catalog, Column, ForeignKey, Table


def test_a_catalog_comes_back_from_its_document_through_json() -> None:
    columns = (Column("Id", "INTEGER", False, None, 1), Column("größe", "TEXT", True, "'x'", 0, "NOCASE", True))
    table = Table("T t", columns, (("größe",),), (ForeignKey(("Id",), "U", ("a",)),), "CREATE …")
    catalog = Catalog({"T t": table, "U": Table("U", ())}, "r1")
    assert from_document(json.loads(json.dumps(to_document(catalog)))) == catalog
