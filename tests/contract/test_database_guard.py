"""The Database socket: who is live. Every state of the guard, every way from one to the next, every refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from dbsync.errors import Refused, Unavailable
from dbsync.model import Checkpoint, Fenced, Guard, GuardState, Position, Role
from tests.contract.rig import Rig, Side, guard_of

Eventually = Callable[..., None]
LONG = 30.0


def position(side: Side) -> Position:
    with side.db.view() as view:
        return view.position()


def fence(side: Side, epoch: int = 1, seconds: float = LONG, owner: str = "me") -> Fenced:
    return side.db.fence(epoch, owner, seconds, 1.0)


def cede(side: Side, fenced: Fenced, **instead: Any) -> Guard:
    asked = {"final": position(side), "fingerprint": side.db.fingerprint(), "to": "green"} | instead
    return side.db.cede(fenced, **asked)


def handed_over(rig: Rig) -> Rig:
    """Blue has ceded, green is open at epoch 2."""
    cede(rig.blue, fence(rig.blue))
    rig.green.db.open(2)
    return rig


def checkpoint(rig: Rig) -> Checkpoint:
    opened_at = guard_of(rig.green).opened_at
    assert opened_at is not None
    return Checkpoint(guard_of(rig.green).identity, opened_at)


# --- what the application sees -----------------------------------------------------------------------


def test_the_open_side_takes_writes_and_the_closed_one_refuses_them(rig: Rig) -> None:
    assert rig.blue.refuses("country", {"code": "SI"}) is None
    told = rig.green.refuses("country", {"code": "SI"})
    assert told is not None and told.startswith("dbsync:") and "not the active" in told
    assert rig.rows(rig.green, "country") == []


@pytest.mark.parametrize("name", ["customer", "line", "file", "Straße der Größe", "tag", "ticket", "hen"])
def test_no_table_of_the_closed_side_takes_insert_update_or_delete(rig: Rig, name: str) -> None:
    samples: dict[str, Any] = {"name": "x", "hash": b"x", "word": "w", "lang": "l"}
    shape = rig.shapes[name]
    row = tuple(samples.get(column, 1) if shape.column(column).key or column == "name" else None  # type: ignore[union-attr]
                for column in shape.stored)  # fmt: skip
    cells = dict(zip(shape.stored, row, strict=True))
    if name == "customer":
        cells["vip"] = 0
    rig.fill(rig.green, name, [tuple(cells.values())])
    before = rig.rows(rig.green, name)
    key = tuple(cells[column] for column in shape.key)
    assert str(rig.green.refuses(name, cells)).startswith("dbsync:")
    with pytest.raises(Exception, match="^dbsync:"):
        rig.green.delete(name, key)
    with pytest.raises(Exception, match="^dbsync:"):
        rig.green.rekey(name, key, key)
    assert rig.rows(rig.green, name) == before


def test_a_refused_write_records_no_change(rig: Rig) -> None:
    before = position(rig.green)
    rig.green.refuses("country", {"code": "SI"})
    assert position(rig.green) == before


def test_a_refused_write_takes_its_whole_transaction_and_the_write_lock_with_it(rig: Rig) -> None:
    with pytest.raises(Exception, match="^dbsync:"), rig.green.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
    assert rig.green.db.settled(0.0)
    rig.fill(rig.green, "country", [("AT", None)])


# --- the fence ---------------------------------------------------------------------------------------


def test_a_fence_refuses_writes_and_says_how_long_it_holds(rig: Rig) -> None:
    fenced = fence(rig.blue)
    guard = guard_of(rig.blue)
    assert (fenced.epoch, fenced.owner) == (1, "me")
    assert (guard.state, guard.epoch, guard.owner, guard.attempt) == (GuardState.FENCED, 1, "me", fenced.attempt)
    assert guard.fence_left is not None and 0 < guard.fence_left <= LONG
    assert not guard.accepts
    assert str(rig.blue.refuses("country", {"code": "SI"})).startswith("dbsync:")


def test_a_fence_ends_by_itself(rig: Rig, eventually: Eventually) -> None:
    fence(rig.blue, seconds=0.3)
    assert rig.blue.refuses("country", {"code": "SI"}) is not None
    rig.pass_time(0.3)
    eventually(lambda: rig.blue.refuses("country", {"code": "SI"}) is None, 3.0)
    guard = guard_of(rig.blue)
    assert guard.accepts
    assert guard.fence_left is None or guard.fence_left <= 0


def test_a_fence_at_the_wrong_epoch_is_refused(rig: Rig) -> None:
    for epoch in (0, 2):
        with pytest.raises(Refused) as refused:
            fence(rig.blue, epoch=epoch)
        assert refused.value.code == "fence-lost"
    assert guard_of(rig.blue).state is GuardState.OPEN


def test_a_closed_side_cannot_be_fenced(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        fence(rig.green)
    assert refused.value.code == "fence-lost"


def test_two_fences_do_not_hold_at_once(rig: Rig) -> None:
    first = fence(rig.blue)
    with pytest.raises(Refused) as refused:
        fence(rig.blue, owner="another")
    assert refused.value.code == "fence-lost"
    assert guard_of(rig.blue).owner == first.owner


def test_after_a_fence_has_ended_the_next_one_may_be_raised_and_the_first_cannot_cede(
    rig: Rig, eventually: Eventually
) -> None:
    first = fence(rig.blue, seconds=0.05)
    rig.pass_time(0.1)
    eventually(lambda: guard_of(rig.blue).accepts)
    second = fence(rig.blue, owner="another")
    with pytest.raises(Refused):
        cede(rig.blue, first)
    assert cede(rig.blue, second).state is GuardState.CEDED


def test_a_fence_waits_for_a_writer_in_flight(rig: Rig, eventually: Eventually) -> None:
    raised: list[Fenced] = []
    with rig.blue.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
        fencing = threading.Thread(target=lambda: raised.append(rig.blue.db.fence(1, "me", LONG, 5.0)))
        fencing.start()
        assert raised == []
    fencing.join()
    assert raised
    assert rig.rows(rig.blue, "country") == [("SI", None)]


def test_a_fence_gives_up_when_that_writer_does_not_end(rig: Rig) -> None:
    with rig.blue.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
        with pytest.raises(Unavailable) as unavailable:
            rig.blue.db.fence(1, "me", LONG, 0.05)
    assert unavailable.value.code == "drain-timeout"
    assert guard_of(rig.blue).state is GuardState.OPEN
    assert rig.rows(rig.blue, "country") == [("SI", None)]


def test_dbsyncs_guard_operations_record_no_change(rig: Rig) -> None:
    before = position(rig.blue)
    fence(rig.blue)
    rig.blue.db.lift(1)
    assert position(rig.blue) == before


# --- lift --------------------------------------------------------------------------------------------


def test_lift_opens_again_at_the_same_epoch_with_the_attempt_raised(rig: Rig) -> None:
    fenced = fence(rig.blue)
    guard = rig.blue.db.lift(1)
    assert (guard.state, guard.epoch) == (GuardState.OPEN, 1)
    assert guard.attempt > fenced.attempt
    assert rig.blue.refuses("country", {"code": "SI"}) is None


def test_lift_without_a_fence_is_harmless_and_defeats_a_cede_on_its_way(rig: Rig) -> None:
    before = guard_of(rig.blue).attempt
    assert rig.blue.db.lift(1).attempt > before
    assert guard_of(rig.blue).state is GuardState.OPEN


def test_lift_defeats_a_cede_that_was_already_prepared(rig: Rig) -> None:
    fenced, final, shape = fence(rig.blue), position(rig.blue), rig.blue.db.fingerprint()
    rig.blue.db.lift(1)
    with pytest.raises(Refused) as refused:
        rig.blue.db.cede(fenced, final, shape, "green")
    assert refused.value.code == "fence-lost"
    again = fence(rig.blue)
    assert again != fenced
    with pytest.raises(Refused):
        rig.blue.db.cede(fenced, final, shape, "green")
    assert guard_of(rig.blue).state is GuardState.FENCED


def test_lift_after_the_cede_is_past_the_point_of_no_return(rig: Rig) -> None:
    cede(rig.blue, fence(rig.blue))
    with pytest.raises(Refused) as refused:
        rig.blue.db.lift(1)
    assert refused.value.code == "past-no-return"
    assert guard_of(rig.blue).state is GuardState.CEDED


def test_lift_never_opens_a_closed_side(rig: Rig) -> None:
    with suppress(Refused):
        rig.green.db.lift(1)
    assert guard_of(rig.green).state is GuardState.CLOSED
    assert rig.green.refuses("country", {"code": "SI"}) is not None


# --- cede --------------------------------------------------------------------------------------------


def test_cede_gives_up_being_live_for_good_and_names_the_next(rig: Rig) -> None:
    guard = cede(rig.blue, fence(rig.blue))
    assert (guard.state, guard.epoch, guard.live) == (GuardState.CEDED, 2, "green")
    assert guard_of(rig.blue) == guard
    assert not guard.accepts
    assert str(rig.blue.refuses("country", {"code": "SI"})).startswith("dbsync:")


def test_cede_after_the_fence_ended_is_refused(rig: Rig, eventually: Eventually) -> None:
    fenced = fence(rig.blue, seconds=0.05)
    rig.pass_time(0.1)
    eventually(lambda: guard_of(rig.blue).accepts)
    with pytest.raises(Refused) as refused:
        cede(rig.blue, fenced)
    assert refused.value.code == "fence-lost"
    assert rig.blue.refuses("country", {"code": "SI"}) is None


@pytest.mark.parametrize("change", [{"epoch": 2}, {"attempt": 99}, {"owner": "another"}])
def test_cede_with_another_epoch_attempt_or_owner_is_refused(rig: Rig, change: dict[str, Any]) -> None:
    fenced = fence(rig.blue)
    with pytest.raises(Refused) as refused:
        cede(rig.blue, replace(fenced, **change))
    assert refused.value.code == "fence-lost"
    assert guard_of(rig.blue).state is GuardState.FENCED


def test_cede_is_refused_when_the_position_has_moved(rig: Rig) -> None:
    final = position(rig.blue)
    rig.blue.put("country", {"code": "SI"})
    with pytest.raises(Refused) as refused:
        cede(rig.blue, fence(rig.blue), final=final)
    assert refused.value.code == "fence-lost"


def test_cede_is_refused_when_the_fingerprint_has_changed(rig: Rig) -> None:
    before = rig.blue.db.fingerprint()
    rig.blue.disturb_guard()
    with pytest.raises(Refused):
        cede(rig.blue, fence(rig.blue), fingerprint=before)
    assert guard_of(rig.blue).state is GuardState.FENCED


def test_cede_without_a_fence_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused) as refused:
        cede(rig.blue, Fenced(1, guard_of(rig.blue).attempt, "me"))
    assert refused.value.code == "fence-lost"
    assert guard_of(rig.blue).state is GuardState.OPEN


def test_what_was_committed_before_the_fence_is_in_the_final_position(rig: Rig) -> None:
    start = position(rig.blue)
    rig.blue.put("country", {"code": "SI"})
    cede(rig.blue, fence(rig.blue))
    with rig.blue.db.view() as view:
        assert [table.keys for table in view.changes(start).tables] == [(("SI",),)]


def test_every_write_that_was_acknowledged_stands_before_the_final_position(rig: Rig, eventually: Eventually) -> None:
    start, refused = position(rig.blue), threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        number = 0
        while not refused.is_set():
            if rig.blue.refuses("ticket", {"id": number, "subject": "x"}) is None:
                acknowledged.append(number)
            else:
                refused.set()
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        eventually(lambda: len(acknowledged) > 5)
        fenced = fence(rig.blue)
        final = position(rig.blue)
        rig.blue.db.cede(fenced, final, rig.blue.db.fingerprint(), "green")
    finally:
        writer.join(10.0)
        refused.set()
    with rig.blue.db.view() as view:
        found = view.changes(start)
    assert found.end == final
    assert {key for table in found.tables for key in table.keys} == {(number,) for number in acknowledged}


# --- open --------------------------------------------------------------------------------------------


def test_open_begins_to_be_live_and_notes_the_position_before_any_traffic(rig: Rig) -> None:
    rig.fill(rig.green, "country", [("SI", None)])
    before = position(rig.green)
    cede(rig.blue, fence(rig.blue))
    guard = rig.green.db.open(2, rig.green.db.fingerprint())
    assert (guard.state, guard.epoch, guard.live) == (GuardState.OPEN, 2, "green")
    assert guard.opened_at == before
    assert rig.green.refuses("country", {"code": "AT"}) is None


def test_open_is_harmless_when_already_open_at_that_epoch(rig: Rig) -> None:
    handed_over(rig)
    first = guard_of(rig.green)
    rig.green.put("country", {"code": "AT"})
    assert rig.green.db.open(2).opened_at == first.opened_at
    assert guard_of(rig.green) == first


def test_open_at_an_epoch_that_does_not_follow_is_refused(rig: Rig) -> None:
    for epoch in (0, 1):
        with pytest.raises(Refused):
            rig.green.db.open(epoch)
    with pytest.raises(Refused):
        rig.blue.db.open(5)
    assert guard_of(rig.green).state is GuardState.CLOSED
    assert guard_of(rig.blue).epoch == 1


def test_open_is_refused_when_the_guards_were_changed(rig: Rig) -> None:
    before = rig.green.db.fingerprint()
    rig.green.disturb_guard()
    with pytest.raises(Refused):
        rig.green.db.open(2, before)
    assert guard_of(rig.green).state is GuardState.CLOSED


def test_a_side_that_has_ceded_is_not_opened_by_open(rig: Rig) -> None:
    cede(rig.blue, fence(rig.blue))
    with pytest.raises(Refused):
        rig.blue.db.open(2)
    assert guard_of(rig.blue).state is GuardState.CEDED


# --- close and reopen --------------------------------------------------------------------------------


def test_close_completes_the_handover_and_sets_the_checkpoint(rig: Rig) -> None:
    handed_over(rig)
    where = checkpoint(rig)
    guard = rig.blue.db.close(2, where)
    assert (guard.state, guard.epoch, guard.live) == (GuardState.CLOSED, 2, "green")
    with rig.blue.db.view() as view:
        found = view.checkpoint()
    assert found is not None and (found.source, found.position) == (where.source, where.position)
    assert str(rig.blue.refuses("country", {"code": "SI"})).startswith("dbsync:")
    rig.fill(rig.blue, "country", [("AT", None)], epoch=2)


def test_close_again_is_harmless_and_does_not_move_the_checkpoint_back(rig: Rig) -> None:
    handed_over(rig)
    where = checkpoint(rig)
    rig.blue.db.close(2, where)
    rig.green.put("country", {"code": "AT"})
    later = position(rig.green)
    with rig.blue.db.writing(Role.IDLE, 2) as transaction:
        transaction.set_checkpoint(where.source, later, where.position)
    assert rig.blue.db.close(2, where).state is GuardState.CLOSED
    with rig.blue.db.view() as view:
        found = view.checkpoint()
    assert found is not None and found.position == later


def test_an_open_side_is_never_closed(rig: Rig) -> None:
    handed_over(rig)
    for side, epoch in ((rig.green, 2), (rig.blue, 1)):
        before = guard_of(side)
        with pytest.raises(Refused):
            side.db.close(epoch, checkpoint(rig))
        assert guard_of(side) == before


def test_reopen_makes_a_side_that_ceded_live_again_at_a_later_epoch(rig: Rig) -> None:
    cede(rig.blue, fence(rig.blue))
    guard = rig.blue.db.reopen(3)
    assert (guard.state, guard.epoch, guard.live) == (GuardState.OPEN, 3, "blue")
    assert rig.blue.refuses("country", {"code": "SI"}) is None


def test_reopen_at_an_epoch_that_is_not_later_or_on_a_closed_side_is_refused(rig: Rig) -> None:
    cede(rig.blue, fence(rig.blue))
    for epoch in (1, 2):
        with pytest.raises(Refused):
            rig.blue.db.reopen(epoch)
    with pytest.raises(Refused):
        rig.green.db.reopen(2)
    assert guard_of(rig.blue).state is GuardState.CEDED
    assert guard_of(rig.green).state is GuardState.CLOSED


def test_a_whole_handover_and_the_way_back_never_open_both(rig: Rig) -> None:
    handed_over(rig)
    rig.blue.db.close(2, checkpoint(rig))
    assert rig.blue.refuses("country", {"code": "SI"}) is not None
    assert rig.green.refuses("country", {"code": "SI"}) is None
    cede(rig.green, fence(rig.green, epoch=2), to="blue")
    rig.blue.db.open(3)
    rig.green.db.close(3, Checkpoint(guard_of(rig.blue).identity, position(rig.blue)))
    assert rig.blue.refuses("country", {"code": "SI"}) is None
    assert rig.green.refuses("country", {"code": "SI"}) is not None
    assert (guard_of(rig.blue).epoch, guard_of(rig.green).epoch) == (3, 3)
