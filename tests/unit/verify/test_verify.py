"""Verify, receipt and recheck between two in-memory databases."""

from __future__ import annotations

from typing import Any

import pytest

from dbsync.errors import ConfigError, Refused, Unavailable
from dbsync.model import MismatchKind, Role, quiet
from dbsync.sync import snapshot
from dbsync.verify.run import VerifyReport, recheck, verify
from tests.unit.sync.pair import Pair


@pytest.fixture
def pair() -> Pair:
    made = Pair()
    made.customers(50)
    made.put("order line", order="a", place=1, price=1.0)
    made.pump().ensure_snapshot()
    return made


def _verify(pair: Pair, **options: Any) -> VerifyReport:
    return verify(pair.active, pair.idle, pair.lens(), pair.epoch, pair.clock, quiet, **options)


def _stored_receipt(pair: Pair) -> dict[str, Any] | None:
    with pair.idle.view() as view:
        return view.load("receipt", "last")


def test_equal_databases_give_a_receipt_that_is_stored_and_bound_to_both(pair: Pair) -> None:
    found = _verify(pair)
    assert found.equal and found.receipt is not None and found.next_command == "dbsync cutover"
    assert _stored_receipt(pair) == found.receipt
    receipt = found.receipt
    with pair.idle.view() as view:
        checkpoint = view.checkpoint()
    assert checkpoint is not None and receipt["position"] == checkpoint.position
    assert {t["name"]: t["rows"] for t in receipt["tables"]} == {"Customer": 50, "order line": 1}
    assert receipt["crossing"] == pair.lens().hash
    assert receipt["fingerprints"] == {"blue": pair.blue.fingerprint(), "green": pair.green.fingerprint()}
    assert not receipt["derived"]


def test_the_digest_does_not_depend_on_the_chunks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    once = _verify(pair).tables
    monkeypatch.setattr(snapshot, "MOST_ROWS", 7)
    monkeypatch.setattr(snapshot, "FIRST_ROWS", 3)
    assert _verify(pair).tables == once


@pytest.mark.parametrize("chunk", [3, 64])
def test_missing_extra_and_different_rows_are_named_and_void_the_receipt(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", chunk)
    monkeypatch.setattr(snapshot, "FIRST_ROWS", chunk)
    assert _verify(pair).receipt is not None
    with pair.tampered() as tx:
        tx.delete("Customer", [(3,), (50,)])
        tx.upsert("Customer", ("id", "email"), [(7, "7@example.orG")])
        tx.upsert("Customer", ("id", "name"), [(-1, "x"), (99, "y")])
        tx.upsert("order line", ("order", "place", "price"), [("z", n, 0.5) for n in range(40)])
    found = _verify(pair)
    customer, line = found.tables
    assert (customer.missing, customer.extra, customer.different) == (2, 2, 1)
    assert {(m.key, m.kind) for m in customer.keys} == {
        ((3,), MismatchKind.MISSING),
        ((50,), MismatchKind.MISSING),
        ((7,), MismatchKind.DIFFERENT),
        ((-1,), MismatchKind.EXTRA),
        ((99,), MismatchKind.EXTRA),
    }
    assert (line.extra, len(line.keys)) == (40, 20)
    assert not found.equal and found.receipt is None and _stored_receipt(pair) is None
    assert found.next_command == "dbsync verify --repair"


def test_a_newer_side_that_lacks_very_many_rows_is_read_in_parts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", 4)
    monkeypatch.setattr(snapshot, "FIRST_ROWS", 4)
    with pair.tampered() as tx:
        tx.delete("Customer", [(n,) for n in range(2, 50)])
    assert _verify(pair).tables[0].missing == 48


def test_changes_on_their_way_are_hot_and_not_different(pair: Pair) -> None:
    pair.put("Customer", id=5, name="waits")
    pair.active.application.delete("Customer", (6,))
    pair.customers(1, start=70)
    found = _verify(pair)
    assert found.equal and found.receipt is not None
    assert found.hot == 3
    checked = recheck(pair.active, pair.idle, pair.lens(), found.receipt["position"], found.receipt["idle_position"])
    assert (checked.mismatches, checked.keys, checked.hot) == ((), 3, 3)
    pair.pump().drain()
    checked = recheck(pair.active, pair.idle, pair.lens(), found.receipt["position"], found.receipt["idle_position"])
    assert (checked.mismatches, checked.keys, checked.hot, checked.foreign) == ((), 3, 0, 0)


def test_a_hot_key_is_looked_at_again_once_it_was_applied(pair: Pair) -> None:
    pair.put("Customer", id=5, name="waits")
    pump = pair.pump()
    real = pair.clock.sleep

    def sleep(seconds: float) -> None:
        real(seconds)
        pump.drain()

    pair.clock.sleep = sleep  # type: ignore[method-assign]
    found = _verify(pair)
    assert found.equal and found.hot == 0


def test_a_real_difference_beside_a_hot_key_is_still_found(pair: Pair) -> None:
    with pair.tampered() as tx:
        tx.upsert("Customer", ("id", "name"), [(5, "wrong"), (6, "wrong too")])
    pair.put("Customer", id=5, name="waits")
    found = _verify(pair)
    assert [m.key for m in found.tables[0].keys] == [(6,)]


def test_a_repair_mends_real_differences_and_gives_no_receipt(pair: Pair) -> None:
    with pair.tampered() as tx:
        tx.delete("Customer", [(3,)])
        tx.upsert("Customer", ("id", "name"), [(7, "wrong"), (99, "extra")])
    found = _verify(pair, repair=True)
    assert found.equal and found.receipt is None and found.next_command == "dbsync verify"
    assert {m.key for m in found.repaired} == {(3,), (7,), (99,)}
    assert pair.same()
    assert _verify(pair).receipt is not None


def test_some_tables_only_give_no_receipt_and_unknown_ones_are_an_error(pair: Pair) -> None:
    found = _verify(pair, tables=["customer"])
    assert found.equal and found.receipt is None and [t.name for t in found.tables] == ["Customer"]
    with pytest.raises(ConfigError) as unknown:
        _verify(pair, tables=["nope"])
    assert unknown.value.code == "unknown-table"


def test_without_a_complete_copy_it_is_refused() -> None:
    pair = Pair()
    pair.customers(3)
    with pytest.raises(Refused) as refused:
        _verify(pair)
    assert (refused.value.code, refused.value.remedy) == ("no-snapshot", "dbsync sync")
    pair.pump().ensure_snapshot(["Customer"])
    with pytest.raises(Refused) as refused:
        _verify(pair)
    assert refused.value.code == "no-snapshot"


def test_a_stale_table_is_compared_but_gives_no_receipt(pair: Pair) -> None:
    with pair.blue.migrating(Role.ACTIVE, 1) as migration:
        migration._state.log("Customer", None, True, pair.clock.now())
    pump = pair.pump()
    pump.step()
    found = _verify(pair)
    assert found.equal and found.receipt is None and found.stale == ("Customer",)
    assert found.next_command == "dbsync sync"
    pump.ensure_snapshot()
    assert _verify(pair).receipt is not None


def test_it_works_the_same_way_round_after_a_handover(pair: Pair) -> None:
    pair.pump().drain()
    pair.hand_over()
    pair.pump().drain()
    assert _verify(pair).receipt is not None
    with pair.tampered() as tx:
        tx.delete("Customer", [(3,)])
    found = _verify(pair)
    assert found.tables[0].missing == 1
    assert _verify(pair, repair=True).equal
    assert pair.same()


def test_a_row_changed_behind_its_back_after_the_receipt_is_foreign_and_found_by_the_recheck(pair: Pair) -> None:
    receipt = _verify(pair).receipt
    assert receipt is not None
    with pair.tampered() as tx:
        tx.upsert("Customer", ("id", "name"), [(7, "wrong")])
    pair.put("Customer", id=8, name="ordinary")
    pair.pump().drain()
    checked = recheck(pair.active, pair.idle, pair.lens(), receipt["position"], receipt["idle_position"])
    assert [m.key for m in checked.mismatches] == [(7,)]
    assert (checked.foreign, checked.keys) == (1, 2)


def test_a_table_changed_in_whole_after_the_receipt_is_named_by_the_recheck(pair: Pair) -> None:
    receipt = _verify(pair).receipt
    assert receipt is not None
    with pair.green.migrating(Role.IDLE, 1) as migration:
        migration._state.log("Customer", None, True, pair.clock.now())
    checked = recheck(pair.active, pair.idle, pair.lens(), receipt["position"], receipt["idle_position"])
    assert checked.whole == ("Customer",)


def test_a_recheck_past_its_deadline_is_a_drain_timeout(pair: Pair) -> None:
    receipt = _verify(pair).receipt
    assert receipt is not None
    pair.put("Customer", id=8, name="ordinary")
    with pytest.raises(Unavailable) as late:
        recheck(
            pair.active, pair.idle, pair.lens(), receipt["position"], receipt["idle_position"],
            deadline=pair.clock.monotonic() - 1, clock=pair.clock,
        )  # fmt: skip
    assert late.value.code == "drain-timeout"


def test_a_shape_that_changed_meanwhile_gives_no_receipt(pair: Pair) -> None:
    def report(what: str, done: int, total: int | None) -> None:
        if what == "verify Customer":
            pair.green.disturb()

    found = verify(pair.active, pair.idle, pair.lens(), pair.epoch, pair.clock, report)
    assert found.equal and found.receipt is None
    assert found.notes == ("changed-meanwhile: fingerprints",)


def test_after_a_handover_it_is_refused_at_the_old_epoch(pair: Pair) -> None:
    lens = pair.lens()
    pair.hand_over()
    with pytest.raises(Refused) as refused:
        verify(pair.idle, pair.active, lens, 1, pair.clock, quiet)
    assert refused.value.code in ("role-changed", "no-snapshot")
