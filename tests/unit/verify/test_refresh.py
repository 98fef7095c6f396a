"""A handover's receipt is carried on while everything changed since is equal, and stays where it is when not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbsync.model import MismatchKind, Position
from dbsync.sync.run import prune
from dbsync.verify import refresh as refreshing
from dbsync.verify.receipt import KIND, NAME, carried
from dbsync.verify.refresh import LOCK, refresh
from dbsync.verify.run import recheck
from tests.unit.sync.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Green (the newer shape) has become live, blue follows; the receipt is the handover's."""
    made = Files(tmp_path)
    handed_over(made)
    yield made
    made.dispose()


def handed_over(files: Files) -> None:
    files.customers(30)
    files.pump().ensure_snapshot()
    first = files.verify().receipt
    assert first is not None
    files.hand_over()
    with files.idle.view() as idle, files.active.view() as active:
        moved = carried(first, active.position(), idle.position())
    fingerprints = {side.name: side.fingerprint() for side in (files.active, files.idle)}
    files.idle.save(KIND, NAME, {**moved, "derived": True, "epoch": files.epoch, "fingerprints": fingerprints})


def stored(files: Files) -> dict[str, Any]:
    with files.idle.view() as view:
        found = view.load(KIND, NAME)
    assert found is not None
    return found


def recorded(files: Files) -> int:
    return sum(int(str(files.rows(name, "SELECT count(*) FROM dbsync_changes")[0][0])) for name in ("blue", "green"))


def looked(files: Files) -> Any:
    """What a cutover would compare now."""
    since = stored(files)
    return recheck(
        files.active, files.idle, files.lens(), Position(since["position"]), Position(since["idle_position"])
    )


def work(files: Files, rounds: int = 5) -> None:
    for number in range(rounds):
        files.write("UPDATE address SET Street = ? WHERE CustomerId = ?", f"moved {number}", number + 1)
    files.pump().drain()


def test_it_moves_to_the_checkpoint_and_the_changes_before_it_are_forgotten(files: Files) -> None:
    before, many = stored(files), recorded(files)
    work(files, 20)
    assert recorded(files) > many
    pump = files.pump()
    assert refresh(pump) is True
    after = stored(files)
    assert after["position"] == pump.checkpoint().position != before["position"]
    assert after["id"] != before["id"]
    assert {k: v for k, v in after.items() if "position" not in k and k != "id"} == {
        k: v for k, v in before.items() if "position" not in k and k != "id"
    }
    assert looked(files).keys == 0
    prune(pump)
    assert recorded(files) <= 2  # the newest of each side
    assert refresh(pump) is False  # nothing has changed since


def test_keys_on_their_way_stay_open_and_the_follower_keeps_what_it_needs(files: Files) -> None:
    work(files)
    files.write("UPDATE address SET Street = 'on its way' WHERE CustomerId = 9")
    pump = files.pump()
    stands = pump.checkpoint().position
    assert refresh(pump) is True
    assert stored(files)["position"] == stands
    prune(pump)
    assert pump.drain().upserted == 1
    found = looked(files)
    # One customer of blue is a customer and an address of green.
    assert (found.keys, found.mismatches, found.hot) == (2, (), 0)


def test_many_changes_are_compared_in_parts_and_never_beyond_the_checkpoint(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "CHANGES", 3)
    work(files, 10)
    for number in range(10):
        files.write("UPDATE address SET Street = 'waits' WHERE CustomerId = ?", number + 10)
    pump = files.pump()
    before = stored(files)["position"]
    assert refresh(pump, 0.0) is True  # one part
    assert stored(files)["position"] not in (before, pump.checkpoint().position)
    assert refresh(pump, None) is True
    assert stored(files)["position"] == pump.checkpoint().position
    prune(pump)
    pump.drain()
    assert looked(files).keys == 20
    assert files.verify().equal


def lossy(files: Files) -> None:
    files.write("UPDATE customer SET FullName = 'Mono' WHERE CustomerId = 2")
    files.pump().drain()


def touched_up(files: Files) -> None:
    files.tamper("UPDATE Customer SET Street = 'wrong' WHERE CustomerId = 4")


def behind_a_dropped_trigger(files: Files) -> None:
    with files.application("blue") as db:
        names = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'Customer'"
        kept = db.execute(names).fetchall()
        for name, _ in kept:
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE Customer SET Street = 'wrong' WHERE CustomerId = 4")
        for _, sql in kept:
            db.execute(sql)


def of_another_epoch(files: Files) -> None:
    files.idle.save(KIND, NAME, {**stored(files), "epoch": 1})


def of_another_crossing(files: Files) -> None:
    files.idle.save(KIND, NAME, {**stored(files), "crossing": "other"})


def an_operators(files: Files) -> None:
    files.idle.save(KIND, NAME, {**stored(files), "derived": False})


@pytest.mark.parametrize(
    "spoil", [lossy, touched_up, behind_a_dropped_trigger, of_another_epoch, of_another_crossing, an_operators]
)
def test_it_stays_where_it_is(files: Files, spoil: Callable[[Files], None]) -> None:
    work(files)
    spoil(files)
    before = stored(files)
    assert refresh(files.pump()) is False
    assert stored(files) == before
    work(files)
    assert refresh(files.pump()) is False
    assert stored(files) == before


def test_it_stays_where_it_is_while_a_handover_goes_on(files: Files) -> None:
    work(files)
    with files.idle.lock(LOCK, 0.0):
        assert refresh(files.pump()) is False
    assert refresh(files.pump()) is True


def test_a_receipt_that_was_voided_meanwhile_does_not_come_back(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    work(files)

    def voided(*args: Any, **named: Any) -> Any:
        found = recheck(*args, **named)
        files.idle.save(KIND, NAME, None)
        return found

    monkeypatch.setattr(refreshing, "recheck", voided)
    assert refresh(files.pump()) is False
    with files.idle.view() as view:
        assert view.load(KIND, NAME) is None


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from("wWstrp"), min_size=4, max_size=14), part=st.integers(1, 5))
def test_whatever_happens_a_difference_is_never_left_out(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, acts: list[str], part: int
) -> None:
    """Writes, deletes, windows, tampering, refreshes and pruning in any order: every key that differs is open."""
    monkeypatch.setattr(refreshing, "CHANGES", part)
    files = Files(tmp_path_factory.mktemp("acts"))
    handed_over(files)
    for number, act in enumerate(acts):
        if act == "w":
            files.write("UPDATE address SET Street = ? WHERE CustomerId = ?", f"n{number}", number % 7 + 1)
        elif act == "W":
            files.write("DELETE FROM address WHERE CustomerId = ?", number % 7 + 1)
        elif act == "s":
            files.pump().step(2)
        elif act == "t":
            files.tamper("UPDATE Customer SET Street = ? WHERE CustomerId = ?", f"bad {number}", number % 7 + 10)
        elif act == "r":
            refresh(files.pump())
        else:
            prune(files.pump())
    files.pump().drain()
    open_keys = {(m.table, m.key) for m in looked(files).mismatches}
    differ = {(m.table, m.key) for one in files.verify().tables for m in one.keys if m.kind is not MismatchKind.LOSSY}
    assert differ <= open_keys
    files.dispose()
