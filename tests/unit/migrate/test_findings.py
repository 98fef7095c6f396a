"""What shapes before and after a revision say against it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbsync.etl import Crossing, table
from dbsync.migrate.compare import differences
from dbsync.migrate.findings import missing_crossings, named_tables
from dbsync.model import Catalog, Column, Severity, Table

ID = Column("id", "INTEGER", key=1)


def catalog(**tables: list[Column]) -> Catalog:
    """A catalog of tables with an id and these columns."""
    return Catalog({name: Table(name, (ID, *columns)) for name, columns in tables.items()})


def pair(forward: Crossing | None = None, reverse: Crossing | None = None) -> Any:
    """A revision's crossings, as they are loaded."""
    return SimpleNamespace(forward=forward, reverse=reverse, path=Path("etl/0002_split.py"))


def rules(before: Catalog, after: Catalog, crossings: Any = None) -> list[str]:
    """The messages of what is found."""
    return [finding.message for finding in missing_crossings(before, after, "0002", crossings)]


FULL = catalog(customer=[Column("first"), Column("last")], note=[Column("body")])


def test_a_dropped_column_without_a_crossing_is_an_error_that_says_which_file_to_write() -> None:
    (finding,) = missing_crossings(FULL, catalog(customer=[Column("first")], note=[Column("body")]), "0002", None)
    assert (finding.rule, finding.severity, finding.direction) == ("missing-crossing", Severity.ERROR, "up")
    assert "customer.last" in finding.message
    assert "etl/0002_customer.py" in finding.remedy
    assert finding.document()["severity"] == "error"


def test_a_renamed_column_is_one_that_goes() -> None:
    after = catalog(customer=[Column("given"), Column("last")], note=[Column("body")])
    assert len(rules(FULL, after)) == 1


def test_a_dropped_or_renamed_table_without_a_crossing_is_an_error() -> None:
    assert len(rules(FULL, catalog(customer=[Column("first"), Column("last")]))) == 1


def test_an_added_column_that_fills_itself_needs_no_crossing() -> None:
    extra = [Column("a"), Column("b", nullable=False, default="0"), Column("c", nullable=False, generated=True)]
    assert rules(FULL, catalog(customer=[Column("first"), Column("last"), *extra], note=[Column("body")])) == []


def test_an_added_not_null_column_without_a_default_needs_one_where_the_table_was_there() -> None:
    must = Column("must", nullable=False)
    after = catalog(customer=[Column("first"), Column("last"), must], note=[Column("body")], fresh=[must])
    assert rules(FULL, after) == [
        "revision 0002 adds customer.must NOT NULL without a default, and no crossing fills it"
    ]


def test_a_change_of_case_only_is_no_drop() -> None:
    assert rules(FULL, catalog(Customer=[Column("FIRST"), Column("Last")], NOTE=[Column("body")])) == []


def test_a_crossing_covers_the_tables_that_it_writes_or_reads() -> None:
    after = catalog(person=[Column("name")], note=[Column("body")])
    forward = Crossing(table("person", key={"Customer": "id"}, select="SELECT id, first AS name FROM customer"))
    assert named_tables(pair(forward)) == {"person", "customer"}
    assert rules(FULL, after, pair(forward)) == []
    assert rules(FULL, after, pair(None, Crossing(table("customer", loses={"last": "gone"})))) == []


def test_a_crossing_of_another_table_covers_nothing_and_the_remedy_names_its_file() -> None:
    other = pair(Crossing(table("note", key={"note": "id"}, select="SELECT id, body FROM note")))
    (finding,) = missing_crossings(FULL, catalog(customer=[Column("first")], note=[Column("body")]), "0002", other)
    assert "0002_split.py" in finding.remedy


def test_shapes_are_compared_by_tables_and_by_name_type_nullability_and_key_of_columns() -> None:
    found = catalog(Customer=[Column("FIRST", default="'x'"), Column("last", "TEXT", False)], other=[])
    assert differences(FULL, FULL) == ()
    assert differences(FULL, found) == (
        "customer.last is TEXT NOT NULL instead of of no type",
        "table note is missing",
        "table other is not known at that revision",
    )
