"""Snapshot, windows and drain between two in-memory databases."""

from __future__ import annotations

import pytest

from dbsync.errors import ConfigError, PositionLost, Refused, Unavailable
from dbsync.model import Column, Role, Table
from dbsync.sync import snapshot
from tests.unit.sync.pair import Pair


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_snapshot_copies_every_table_and_a_second_one_nothing(pair: Pair) -> None:
    pair.customers(100)
    pair.put("order line", order="a", place=1, price=1.5)
    pump = pair.pump()
    assert pump.ensure_snapshot() == {"tables": 2, "rows": 101}
    assert pair.same()
    assert pump.ensure_snapshot() is None
    assert pump.step() is None
    assert pump.lag() is not None and pump.lag().changes == 0  # type: ignore[union-attr]


def test_windows_carry_inserts_updates_deletes_and_changed_keys(pair: Pair) -> None:
    pair.customers(5)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.put("Customer", id=1, name="other")
    pair.active.application.delete("Customer", (2,))
    pair.active.application.rekey("Customer", (3,), (33,))
    pair.customers(1, start=6)
    done = pump.drain()
    assert pair.same()
    assert (done.upserted, done.deleted) == (3, 2)
    assert done.lag is not None and done.lag.changes == 0


def test_a_unique_value_moves_to_a_new_row_when_its_old_one_is_deleted_in_the_same_window(pair: Pair) -> None:
    pair.customers(2)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.active.application.delete("Customer", (1,))
    pair.put("Customer", id=9, name="x", email="1@example.org")
    pump.drain()
    assert pair.same()


def test_a_window_that_was_cut_between_two_owners_of_a_unique_value_is_read_whole(pair: Pair) -> None:
    pair.customers(2)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.put("Customer", id=1, email="free")
    pair.put("Customer", id=9, name="x", email="1@example.org")
    pair.put("Customer", id=1, email="2@")
    assert pump.step(limit=1) is not None
    pump.drain()
    assert pair.same()


def test_an_applier_that_was_overtaken_starts_from_the_new_checkpoint(pair: Pair) -> None:
    pair.customers(3)
    slow, fast = pair.pump(), pair.pump()
    slow.ensure_snapshot()
    pair.customers(3, start=10)
    real = slow.checkpoint
    overtaken = []

    def checkpoint():  # type: ignore[no-untyped-def]
        found = real()
        if not overtaken:
            overtaken.append(fast.drain())
        return found

    slow.checkpoint = checkpoint  # type: ignore[method-assign]
    pair.put("Customer", id=1, name="last")
    assert slow.step() is None
    assert pair.same()


def test_a_copy_that_is_stopped_goes_on_behind_its_cursor(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", 10)
    monkeypatch.setattr(snapshot, "FIRST_ROWS", 10)
    pair.customers(95)
    pump = pair.pump()
    beats = []

    def pulse() -> None:
        beats.append(1)
        if len(beats) == 4:
            raise KeyboardInterrupt

    pump.pulse = pulse
    with pytest.raises(KeyboardInterrupt):
        pump.ensure_snapshot()
    assert pump.stale() == ("Customer", "order line")
    copied = len(pair.rows(pair.green))
    assert 0 < copied < 95
    pair.put("Customer", id=1, name="changed while nobody copied")
    pair.active.application.delete("Customer", (95,))
    again = pair.pump()
    assert again.ensure_snapshot() == {"tables": 2, "rows": 94 - copied}
    again.drain()
    assert pair.same()


def test_a_copy_into_a_database_with_rows_removes_what_is_too_much_and_mends_the_rest(pair: Pair) -> None:
    with pair.tampered() as tx:
        tx.upsert(
            "Customer", ("id", "name", "email"), [(-5, "x", "a"), (2, "wrong", "b"), (3, "c", "c"), (99, "x", "d")]
        )
    pair.customers(4)
    pump = pair.pump()
    pump.ensure_snapshot()
    assert pair.same()


def test_many_extra_rows_in_a_range_are_removed_in_parts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", 7)
    with pair.tampered() as tx:
        tx.upsert("order line", ("order", "place", "price"), [("b", n, 1.0) for n in range(100)])
    pair.put("order line", order="a", place=1, price=2.0)
    pair.put("order line", order="z", place=1, price=2.0)
    pair.pump().ensure_snapshot()
    assert pair.same()


def test_rows_written_while_a_table_is_copied_are_not_overwritten_by_older_ones(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", 5)
    monkeypatch.setattr(snapshot, "FIRST_ROWS", 5)
    pair.customers(50)
    pump, other = pair.pump(), pair.pump()
    count = 0

    def pulse() -> None:
        nonlocal count
        count += 1
        pair.put("Customer", id=count * 3, name=f"v{count}")
        other.step()

    pump.pulse = pulse
    pump.ensure_snapshot()
    pump.pulse = lambda: None
    pump.drain()
    assert pair.same()


def test_a_table_that_changed_in_whole_is_put_again(pair: Pair) -> None:
    pair.customers(20)
    pump = pair.pump()
    pump.ensure_snapshot()
    with pair.blue.migrating(Role.ACTIVE, 1) as migration:
        migration._state.log("Customer", None, True, pair.clock.now())
        migration._state.rows["Customer"] = {(7,): (7, "only", "one")}
    assert pump.step() is not None
    assert pump.suspect
    assert pump.stale() == ("Customer",)
    done = pump.drain()
    assert done.snapshot == {"tables": 1, "rows": 1}
    assert pair.same()


def test_a_sleeper_that_wakes_after_a_handover_writes_nothing(pair: Pair) -> None:
    pair.customers(3)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.put("Customer", id=1, name="late")
    pump.drain()
    pair.hand_over()
    with pytest.raises(Refused) as refused:
        pump.step()
    assert refused.value.code == "role-changed"
    with pytest.raises(Refused) as refused, pump.writing():
        pass
    assert refused.value.code == "role-changed"


def test_after_a_handover_the_old_side_follows_without_a_new_copy(pair: Pair) -> None:
    pair.customers(3)
    pair.pump().ensure_snapshot()
    pair.pump().drain()
    pair.hand_over()
    pair.put("Customer", id=2, name="written on green")
    pump = pair.pump()
    assert pump.source.name == "green"
    done = pump.drain()
    assert done.snapshot is None and done.windows == 1
    assert pair.same()


def test_a_restored_source_is_a_lost_position_and_a_forced_snapshot_mends_it(pair: Pair) -> None:
    pair.customers(3)
    backup = pair.blue.backup()
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.customers(3, start=50)
    pump.drain()
    pair.blue.restore(backup)
    pair.customers(4, start=70)
    with pytest.raises(PositionLost) as lost:
        pump.step()
    assert lost.value.code == "source-restored"
    assert pump.lag() is None
    pump.ensure_snapshot(force=True)
    assert pair.same()


def test_the_same_tables_can_be_chosen_in_any_case_and_others_are_an_error(pair: Pair) -> None:
    pair.customers(3)
    pump = pair.pump()
    assert pump.ensure_snapshot(["CUSTOMER"]) == {"tables": 1, "rows": 3}
    assert pump.stale() == ("order line",)
    with pytest.raises(ConfigError) as unknown:
        pump.ensure_snapshot(["nope"])
    assert unknown.value.code == "unknown-table"


def test_draining_to_a_position_ends_there_and_an_unreachable_one_ends_with_the_deadline(pair: Pair) -> None:
    pair.customers(3)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.customers(3, start=9)
    with pair.blue.view() as view:
        final = view.position()
    done = pump.drain(final, deadline=pair.clock.monotonic() + 5)
    assert done.position == final
    with pytest.raises(Unavailable) as late:
        pump.drain(type(final)("999.nowhere"), deadline=pair.clock.monotonic() + 1)
    assert late.value.code == "drain-timeout"


def test_a_key_column_that_holds_null_is_refused() -> None:
    loose = Table("t", (Column("k", "TEXT", key=1), Column("v", "TEXT")))
    pair = Pair((loose,))
    with pair.blue.exclusive() as state:
        state.rows["t"] = {(None,): (None, "x"), ("a",): ("a", "y")}
    with pytest.raises(Refused) as refused:
        pair.pump().ensure_snapshot()
    assert refused.value.code == "null-key"
    assert pair.pump().stale() == ("t",)


def test_identity_counters_travel_with_the_windows(pair: Pair) -> None:
    pair.customers(1)
    pump = pair.pump()
    with pair.blue.exclusive() as state:
        state.documents["sequences", "live"] = {"Customer": 41}
    pump.ensure_snapshot()
    with pair.green.view() as view:
        assert view.load("sequences", "source") == {"Customer": 41}


def test_a_copy_voids_a_receipt(pair: Pair) -> None:
    pair.customers(1)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.green.save("receipt", "last", {"id": "x"})
    pump.ensure_snapshot(["Customer"], force=True)
    with pair.green.view() as view:
        assert view.load("receipt", "last") is None


def test_a_table_whose_rows_a_revision_of_the_idle_side_changed_is_put_again(pair: Pair) -> None:
    pair.customers(20)
    pump = pair.pump()
    pump.ensure_snapshot()
    with pair.green.migrating(Role.IDLE, 1) as migration:
        migration._state.log("Customer", None, True, pair.clock.now())
        migration._state.rows["Customer"] = {(7,): (7, "made by", "the revision")}
        migration.stamp("r2")
    with pair.blue.migrating(Role.ACTIVE, 1) as migration:
        migration.stamp("r2")
    with pytest.raises(Refused) as refused:
        pump.step()
    assert refused.value.code == "revision-changed"
    pump = pair.pump()
    assert pump.stale() == ("Customer",)
    pump.note_shape()
    assert pump.ensure_snapshot() == {"tables": 1, "rows": 20}
    assert pump.stale() == ()
    assert pair.same()
