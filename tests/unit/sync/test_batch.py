"""Which keys are one key, which are gone, which rows need no write."""

from __future__ import annotations

from dbsync.model import Capabilities, Column, Table, Touched
from dbsync.sync import batch


def _table(**columns: str | None) -> Table:
    made = tuple(
        Column(name, type_ or "", key=place, collation="NOCASE" if type_ == "TEXT-NOCASE" else None)
        for place, (name, type_) in enumerate(columns.items(), 1)
    )
    return Table("t", made)


def test_keys_that_differ_in_case_only_are_one_key_under_a_case_insensitive_collation() -> None:
    folded = batch.fold(_table(code="TEXT-NOCASE"), ("code",))
    assert batch.absent([("abc",), ("ABC",), ("x",)], [("ABC",)], folded) == [("x",)]
    binary = batch.fold(_table(code="TEXT"), ("code",))
    assert batch.absent([("abc",), ("ABC",)], [("ABC",)], binary) == [("abc",)]


def test_only_ascii_letters_fold_under_nocase() -> None:
    folded = batch.fold(_table(code="TEXT-NOCASE"), ("code",))
    assert folded(("Ä",)) != folded(("ä",))


def test_a_number_written_as_text_is_the_same_key_of_a_numeric_column() -> None:
    folded = batch.fold(_table(id="INTEGER", name="VARCHAR(9)"), ("id", "name"))
    assert folded(("7", 5)) == folded((7, "5"))
    assert folded(("x7", "5")) != folded((7, "5"))


def test_a_table_that_is_not_known_folds_nothing() -> None:
    assert batch.fold(None, ("id",))((1,)) == (1,)


def test_reconcile_writes_what_differs_even_in_type_only_and_names_what_is_too_much() -> None:
    ours = [(1, "a"), (2, 1), (3, "c"), (9, "z")]
    theirs = [(1, "a"), (2, 1.0), (4, "d")]
    write, extra = batch.reconcile(theirs, ours, (0,), tuple)
    assert write == [(2, 1.0), (4, "d")]
    assert extra == [(3,), (9,)]


def test_a_plain_relation_quotes_every_name() -> None:
    table = Table('or"der', (Column("id", "INTEGER", key=1), Column("größe m", "TEXT")))
    relation = batch.plain(table, ("id", "größe m"), Capabilities("any"))
    assert relation.sql == 'SELECT "id", "größe m" FROM "or""der"'
    assert relation.key == ("id",)


def test_identity_counters_go_to_every_target_that_reads_the_table_and_never_down() -> None:
    readers = {"Customer": ("customer", "address"), "Address": ("address",)}
    carried = batch.carried({"Customer": 7, "Address": 90}, lambda name: readers[name])
    assert carried == {"address": 90, "customer": 7}


def test_whole_changes_name_the_targets_that_read_them() -> None:
    touched = [Touched("a", ((1,),)), Touched("b", (), whole=True)]
    assert batch.whole_targets(touched, lambda name: (f"{name}1", f"{name}2")) == ("b1", "b2")
