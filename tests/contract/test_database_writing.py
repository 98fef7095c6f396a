"""The Database socket: dbsync's own writing transactions."""

from __future__ import annotations

import pytest

from dbsync.errors import DbsyncError, Refused, Unavailable
from dbsync.model import Checkpoint, Position, Role, Row, Value
from dbsync.ports import Database
from tests.contract.rig import Rig, by_name, position


def stands_at(db: Database) -> Checkpoint | None:
    with db.view() as view:
        return view.checkpoint()


def stored(db: Database, kind: str, name: str) -> dict[str, Value] | None:
    with db.view() as view:
        return view.load(kind, name)


# --- role and epoch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "epoch"), [(Role.ACTIVE, 1), (Role.IDLE, 0), (Role.IDLE, 2)])
def test_writing_is_refused_at_another_role_or_epoch(rig: Rig, role: Role, epoch: int) -> None:
    with pytest.raises(Refused) as refused, rig.green.db.writing(role, epoch):
        pytest.fail("it was let in")
    assert refused.value.code == "role-changed"


def test_writing_on_the_active_side_wants_the_active_role(rig: Rig) -> None:
    rig.fill(rig.blue, "country", [("SI", None)], Role.ACTIVE)
    with pytest.raises(Refused), rig.blue.db.writing(Role.IDLE, 1):
        pytest.fail("it was let in")


def test_writing_waits_for_another_writer_only_so_long(rig: Rig) -> None:
    with rig.blue.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
        with pytest.raises(Unavailable), rig.blue.db.writing(Role.ACTIVE, 1, wait=0.05):
            pytest.fail("it was let in")


def test_the_role_is_held_until_the_commit(rig: Rig) -> None:
    with rig.blue.db.writing(Role.ACTIVE, 1) as transaction:
        transaction.upsert("country", ("code",), [("SI",)])
        with pytest.raises(Unavailable):
            rig.blue.db.fence(1, "me", 5.0, 0.05)


def test_an_exception_rolls_back_rows_checkpoint_documents_and_history(rig: Rig) -> None:
    before = position(rig.green.db)
    with pytest.raises(KeyError), rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("country", ("code", "name"), [("SI", "x")])
        transaction.set_checkpoint("source", Position("7.x"), None)
        transaction.save("copy", "country", {"done": True})
        raise KeyError
    assert rig.rows(rig.green, "country") == []
    assert stands_at(rig.green.db) is None
    assert stored(rig.green.db, "copy", "country") is None
    assert position(rig.green.db) == before
    assert str(rig.green.refuses("country", {"code": "SI"})).startswith("dbsync:")


def test_a_transaction_sees_its_own_writes_and_others_do_not(rig: Rig) -> None:
    relation = by_name(rig.shapes["country"])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("country", ("code", "name"), [("SI", "x")])
        transaction.save("copy", "country", {"n": 1})
        assert transaction.by_keys(relation, [("SI",)]) == [("SI", "x")]
        assert transaction.load("copy", "country") == {"n": 1}
        with rig.green.db.view() as view:
            assert view.count(relation) == 0
            assert view.load("copy", "country") is None


# --- checkpoint and documents ------------------------------------------------------------------------


def test_the_checkpoint_moves_only_from_where_it_is_expected(rig: Rig) -> None:
    first, second, third = Position("1.a"), Position("2.b"), Position("3.c")
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.set_checkpoint("src", first, None)
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.set_checkpoint("src", second, first)
    for expected in (None, first, third):
        with pytest.raises(Refused) as refused, rig.green.db.writing(Role.IDLE, 1) as transaction:
            transaction.set_checkpoint("src", third, expected)
        assert refused.value.code == "checkpoint-moved"
    found = stands_at(rig.green.db)
    assert found is not None and (found.source, found.position) == ("src", second)
    assert found.at is not None and found.at.tzinfo is not None


def test_documents_are_stored_replaced_listed_and_deleted(rig: Rig) -> None:
    document = {"text": "ž", "n": 1.5, "list": [1, None, {"x": True}]}
    rig.green.db.save("receipt", "last", document)
    rig.green.db.save("receipt", "other", {})
    rig.green.db.save("heartbeat", "last", {"n": 1})
    with rig.green.db.view() as view:
        assert view.load("receipt", "last") == document
        assert view.load_all("receipt") == {"last": document, "other": {}}
        assert view.load_all("nothing") == {}
        assert view.load("receipt", "none") is None
    rig.green.db.save("receipt", "last", {"n": 2})
    rig.green.db.save("receipt", "other", None)
    rig.green.db.save("receipt", "never was", None)
    with rig.green.db.view() as view:
        assert view.load_all("receipt") == {"last": {"n": 2}}


def test_saving_a_document_is_possible_on_either_side_and_records_no_change(rig: Rig) -> None:
    for side in (rig.blue, rig.green):
        before = position(side.db)
        side.db.save("shape", "abc", {"x": 1})
        assert position(side.db) == before
        assert stored(side.db, "shape", "abc") == {"x": 1}


# --- upsert ------------------------------------------------------------------------------------------


def test_upsert_inserts_and_updates_by_key(rig: Rig) -> None:
    rig.fill(rig.green, "line", [(1, 1, 1.0), (2, 1, 2.0)])
    rig.fill(rig.green, "line", [(2, 1, 9.0), (3, 1, 3.0)])
    assert rig.rows(rig.green, "line") == [(1, 1, 1.0), (2, 1, 9.0), (3, 1, 3.0)]


def test_upsert_of_key_columns_alone_keeps_the_row(rig: Rig) -> None:
    rig.fill(rig.green, "country", [("SI", "x")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("country", ("code",), [("SI",), ("AT",)])
    assert rig.rows(rig.green, "country") == [("AT", None), ("SI", "x")]


def test_upsert_keeps_kept_and_unnamed_columns_where_the_row_exists(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "Ana", "a@x", 1, "mine")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "name", "vip"), [(1, "Anna", 0), (2, "Bob", 5)], keep=frozenset({"vip"}))
    assert rig.rows(rig.green, "customer") == [(1, "Anna", "a@x", 1, "mine"), (2, "Bob", None, 5, "none")]


def test_unique_values_may_be_swapped_within_one_upsert(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 0, ""), (2, "B", "b@x", 0, ""), (3, "C", None, 0, "")])
    rig.fill(rig.green, "customer", [(1, "A", "b@x", 0, ""), (2, "B", "c@x", 0, ""), (3, "C", "a@x", 0, "")])
    assert [row[2] for row in rig.rows(rig.green, "customer")] == ["b@x", "c@x", "a@x"]


def test_composite_unique_values_may_be_swapped_where_no_column_is_nullable(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 1, 1), (2, 1, 2)])
    rig.fill(rig.green, "seat", [(1, 1, 2), (2, 1, 1)])
    assert rig.rows(rig.green, "seat") == [(1, 1, 2), (2, 1, 1)]


def test_a_swap_keeps_the_columns_that_were_not_named(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 1, "one"), (2, "B", "b@x", 1, "two")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "name", "email"), [(1, "A", "b@x"), (2, "B", "a@x")])
    assert rig.rows(rig.green, "customer") == [(1, "A", "b@x", 1, "one"), (2, "B", "a@x", 1, "two")]


def test_a_unique_value_may_come_from_a_row_that_goes_in_the_same_transaction(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 0, ""), (2, "B", "b@x", 0, "")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "name", "email"), [(3, "C", "a@x"), (2, "B", None)])
        transaction.delete("customer", [(1,)])
    assert [row[:3] for row in rig.rows(rig.green, "customer")] == [(2, "B", None), (3, "C", "a@x")]


def test_a_unique_value_of_a_row_that_stays_is_refused(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 0, "")])
    with pytest.raises(Refused) as refused, rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "name", "email"), [(2, "B", "a@x")])
    assert refused.value.code == "row-refused"
    assert [row[0] for row in rig.rows(rig.green, "customer")] == [1]


def test_values_may_be_swapped_where_a_part_of_the_unique_is_not_named(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 7, 1), (2, 7, 2), (3, 8, 1)])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("seat", ("id", "hall", "place"), [(1, 0, 2), (2, 0, 1)], keep=frozenset({"hall"}))
    assert rig.rows(rig.green, "seat") == [(1, 7, 2), (2, 7, 1), (3, 8, 1)]


def test_a_kept_unique_value_stands_in_nobodys_way(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 0, ""), (2, "B", "b@x", 0, "")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "name", "email"), [(1, "AA", "b@x")], keep=frozenset({"email"}))
    assert [row[:3] for row in rig.rows(rig.green, "customer")] == [(1, "AA", "a@x"), (2, "B", "b@x")]


def test_a_column_that_must_have_a_value_need_not_be_named_where_the_row_exists(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "A", "a@x", 0, "")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("customer", ("id", "email"), [(1, "new@x")])
    assert rig.rows(rig.green, "customer") == [(1, "A", "new@x", 0, "")]


@pytest.mark.parametrize("row", [(1, None, None, 0, ""), (1, "A", None, None, "")])
def test_a_row_that_a_constraint_refuses_is_named_and_changes_nothing(rig: Rig, row: Row) -> None:
    with pytest.raises(Refused) as refused, rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("country", ("code",), [("SI",)])
        transaction.upsert("customer", rig.shapes["customer"].stored, [(7, "fine", None, 0, ""), row])
    assert refused.value.code == "row-refused"
    assert "customer" in refused.value.message and "1" in refused.value.message
    assert rig.rows(rig.green, "customer") == []
    assert rig.rows(rig.green, "country") == []


def test_values_take_the_types_of_their_columns(rig: Rig) -> None:
    rig.fill(rig.green, "line", [(1, 1, 3)])
    (row,) = rig.rows(rig.green, "line")
    assert isinstance(row[2], float)
    big = 2**62 + 1
    rig.fill(rig.green, "ticket", [(big, "x" * 5000)])
    assert rig.rows(rig.green, "ticket") == [(big, "x" * 5000)]


def test_many_rows_at_once_are_all_there(rig: Rig) -> None:
    rows = [(number, f"s{number}") for number in range(2500)]
    rig.fill(rig.green, "ticket", rows)
    with rig.green.db.view() as view:
        assert view.count(by_name(rig.shapes["ticket"])) == 2500
        assert len(view.by_keys(by_name(rig.shapes["ticket"]), [row[:1] for row in rows])) == 2500


def test_a_self_reference_and_a_cycle_are_written_in_any_order(rig: Rig) -> None:
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("person", ("id", "boss"), [(2, 3), (3, 1), (1, None)])
        transaction.upsert("hen", ("id", "egg"), [(1, 5)])
        transaction.upsert("egg", ("id", "hen"), [(5, 1)])
    assert rig.rows(rig.green, "person") == [(1, None), (2, 3), (3, 1)]
    assert (rig.rows(rig.green, "hen"), rig.rows(rig.green, "egg")) == ([(1, 5)], [(5, 1)])


# --- insert, delete, quiet, sequences ----------------------------------------------------------------


def test_insert_adds_rows_and_replaces_the_holder_of_a_unique_value(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "old", "a@x", 0, "")])
    start = position(rig.green.db)
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.insert("customer", ("id", "name", "email"), [(2, "new", "a@x"), (3, "other", None)])
    assert [row[:3] for row in rig.rows(rig.green, "customer")] == [(2, "new", "a@x"), (3, "other", None)]
    with rig.green.db.view() as view:
        (table,) = view.changes(start).tables
    assert set(table.keys) == {(1,), (2,), (3,)}


def test_an_insert_that_a_constraint_refuses_is_an_error_of_dbsyncs(rig: Rig) -> None:
    rig.fill(rig.green, "customer", [(1, "old", "a@x", 0, "")])
    with pytest.raises(Refused) as refused, rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.insert("customer", ("id", "name", "email"), [(2, "new", "a@x"), (3, None, None)])
    assert refused.value.code == "row-refused"
    assert [row[0] for row in rig.rows(rig.green, "customer")] == [1]


def test_delete_takes_rows_by_key_and_absent_keys_are_no_error(rig: Rig) -> None:
    rig.fill(rig.green, "line", [(1, 1, None), (1, 2, None), (2, 1, None)])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.delete("line", [(1, 1), (2, 1), (9, 9)])
        transaction.delete("line", [])
    assert rig.rows(rig.green, "line") == [(2, 1, None)]


def test_delete_does_not_cascade(rig: Rig) -> None:
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("person", ("id", "boss"), [(1, None), (2, 1), (3, 2)])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.delete("person", [(1,)])
        assert [row[0] for row in transaction.by_range(by_name(rig.shapes["person"]), None, None)] == [2, 3]
        transaction.upsert("person", ("id", "boss"), [(1, None)])
    assert rig.rows(rig.green, "person") == [(1, None), (2, 1), (3, 2)]


def test_quiet_capture_sleeps_for_one_table_until_the_commit(rig: Rig) -> None:
    start, shape = position(rig.green.db), rig.green.db.fingerprint()
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.quiet_capture("country")
        transaction.insert("country", ("code", "name"), [("SI", "x"), ("AT", "y")])
        transaction.upsert("line", ("doc", "no"), [(1, 1)])
    with rig.green.db.view() as view:
        assert {table.table for table in view.changes(start).tables} == {"line"}
    assert str(rig.green.refuses("country", {"code": "DE"})).startswith("dbsync:")
    start = position(rig.green.db)
    rig.fill(rig.green, "country", [("DE", None)])
    with rig.green.db.view() as view:
        assert [table.keys for table in view.changes(start).tables] == [(("DE",),)]
    assert rig.kind != "memory" or rig.green.db.fingerprint() == shape


def test_quiet_capture_wakes_after_a_rollback_too(rig: Rig) -> None:
    before = rig.green.db.fingerprint()
    with pytest.raises(KeyError), rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.quiet_capture("country")
        transaction.insert("country", ("code",), [("SI",)])
        raise KeyError
    assert rig.green.db.fingerprint() == before
    assert str(rig.green.refuses("country", {"code": "DE"})).startswith("dbsync:")


def test_an_unknown_table_is_an_error_of_dbsyncs(rig: Rig) -> None:
    with pytest.raises(DbsyncError), rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.upsert("planet", ("id",), [(1,)])


def test_sequences_are_carried_upwards_only(rig: Rig) -> None:
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.carry_sequences({"ticket": 500})
        transaction.carry_sequences({"ticket": 40})
    if rig.kind == "memory":
        assert rig.green.db._state.sequences == {"ticket": 500}
        return
    with rig.green.connection() as connection:
        assert connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ticket'").fetchall() == [(500,)]
