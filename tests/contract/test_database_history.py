"""The Database socket: history. What changed since when, and what is not this database's past."""

from __future__ import annotations

from contextlib import suppress

import pytest

from dbsync.errors import PositionLost
from dbsync.model import Key, Position, Role
from tests.contract.rig import SAMPLES, Rig, changes, position, touched


def test_changes_are_net_keys_by_table(rig: Rig) -> None:
    start = position(rig.blue.db)
    rig.blue.put("country", {"code": "SI", "name": "1"})
    rig.blue.put("country", {"code": "SI", "name": "2"})
    rig.blue.put("line", {"doc": 1, "no": 9})
    found = changes(rig.blue.db, start)
    assert {table.table: sorted(table.keys) for table in found.tables} == {"country": [("SI",)], "line": [(9, 1)]}
    assert not any(table.whole for table in found.tables)
    assert (found.start, found.end) == (start, position(rig.blue.db))
    assert found.count == found.foreign == 3


@pytest.mark.parametrize("name", SAMPLES)
def test_every_shape_of_key_is_recorded_for_insert_and_delete(rig: Rig, name: str) -> None:
    shape, row = rig.shapes[name], SAMPLES[name][0]
    cells = dict(zip(shape.stored, row, strict=True))
    key = tuple(cells[column] for column in shape.key)
    start = position(rig.blue.db)
    rig.blue.put(name, cells)
    middle = position(rig.blue.db)
    assert touched(changes(rig.blue.db, start)) == {name: {key}}
    rig.blue.delete(name, key)
    assert touched(changes(rig.blue.db, middle)) == {name: {key}}


def test_a_key_deleted_and_inserted_again_is_one_key(rig: Rig) -> None:
    rig.blue.put("country", {"code": "SI", "name": "1"})
    start = position(rig.blue.db)
    rig.blue.delete("country", ("SI",))
    rig.blue.put("country", {"code": "SI", "name": "2"})
    (table,) = changes(rig.blue.db, start).tables
    assert table.keys == (("SI",),)


def test_a_changed_key_gives_the_old_and_the_new_one(rig: Rig) -> None:
    rig.blue.put("line", {"doc": 1, "no": 2})
    start = position(rig.blue.db)
    rig.blue.rekey("line", (2, 1), (5, 1))
    assert touched(changes(rig.blue.db, start)) == {"line": {(2, 1), (5, 1)}}


def test_a_rolled_back_transaction_leaves_nothing_in_the_history(rig: Rig) -> None:
    start = position(rig.blue.db)
    with pytest.raises(KeyError), rig.blue.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
        raise KeyError
    assert position(rig.blue.db) == start
    found = changes(rig.blue.db, start)
    assert (found.tables, found.count, found.end) == ((), 0, start)


def test_a_limit_cuts_and_the_end_is_where_to_go_on(rig: Rig) -> None:
    start = position(rig.blue.db)
    for number in range(5):
        rig.blue.put("ticket", {"id": number, "subject": "s"})
    seen: set[Key] = set()
    place, windows = start, 0
    while (found := changes(rig.blue.db, place, 2)).count:
        assert found.count <= 2
        seen |= touched(found)["ticket"]
        place, windows = found.end, windows + 1
    assert seen == {(number,) for number in range(5)}
    assert windows == 3
    assert place == position(rig.blue.db)


def test_lag_counts_what_is_recorded_and_its_age(rig: Rig) -> None:
    start = position(rig.blue.db)
    with rig.blue.db.view() as view:
        assert (view.lag(start).changes, view.lag(start).seconds) == (0, 0.0)
    rig.blue.put("country", {"code": "SI"})
    rig.blue.put("country", {"code": "AT"})
    rig.pass_time(2.0)
    with rig.blue.db.view() as view:
        lag = view.lag(start)
    assert lag.changes == 2
    assert 0.0 <= lag.seconds < 60.0
    if rig.kind == "memory":
        assert lag.seconds == 2.0


@pytest.mark.parametrize("unknown", ["", "nonsense", "5", "999999.1", "-1.0", "1.2.3"])
def test_a_position_of_no_history_is_lost(rig: Rig, unknown: str) -> None:
    rig.blue.put("country", {"code": "SI"})
    with pytest.raises(PositionLost):
        changes(rig.blue.db, Position(unknown))
    with pytest.raises(PositionLost), rig.blue.db.view() as view:
        view.lag(Position(unknown))


def test_a_position_of_another_database_is_lost(rig: Rig) -> None:
    for side in (rig.blue, rig.green):
        rig.pass_time(0.0)
        if side is rig.blue:
            side.put("country", {"code": "SI"})
        else:
            rig.fill(side, "country", [("SI", None)])
    with pytest.raises(PositionLost) as lost:
        changes(rig.green.db, position(rig.blue.db))
    assert lost.value.code == "source-restored"


def test_foreign_counts_only_what_dbsync_did_not_do_itself(rig: Rig) -> None:
    start = position(rig.green.db)
    rig.fill(rig.green, "country", [("SI", "1"), ("AT", "2")])
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.delete("country", [("AT",)])
    mine = changes(rig.green.db, start)
    assert touched(mine) == {"country": {("SI",), ("AT",)}}
    assert mine.foreign == 0
    start = position(rig.blue.db)
    rig.blue.put("country", {"code": "SI"})
    rig.fill(rig.blue, "country", [("AT", "x")], Role.ACTIVE)
    assert changes(rig.blue.db, start).foreign == 1


def test_prune_forgets_what_is_at_or_below_and_keeps_what_is_after(rig: Rig) -> None:
    start = position(rig.blue.db)
    rig.blue.put("country", {"code": "SI"})
    middle = position(rig.blue.db)
    rig.blue.put("country", {"code": "AT"})
    assert rig.blue.db.prune(middle) >= 1
    assert touched(changes(rig.blue.db, middle)) == {"country": {("AT",)}}
    with pytest.raises(PositionLost):
        changes(rig.blue.db, start)
    assert rig.blue.db.prune(middle) == 0


def test_pruning_at_a_position_of_another_past_forgets_nothing(rig: Rig) -> None:
    start = position(rig.blue.db)
    rig.blue.put("country", {"code": "SI"})
    number, dot, _ = position(rig.blue.db).partition(".")
    for unknown in ("nonsense", f"{number}{dot}0", f"{int(number) + 1000}{dot}1"):
        with suppress(PositionLost):
            rig.blue.db.prune(Position(unknown))
        assert touched(changes(rig.blue.db, start)) == {"country": {("SI",)}}


def test_everything_may_be_pruned_and_the_position_still_holds(rig: Rig) -> None:
    rig.blue.put("country", {"code": "SI"})
    here = position(rig.blue.db)
    rig.blue.db.prune(here)
    assert position(rig.blue.db) == here
    assert changes(rig.blue.db, here).count == 0
    rig.blue.put("country", {"code": "AT"})
    assert touched(changes(rig.blue.db, here)) == {"country": {("AT",)}}
