"""The follower: turns round with the roles, lives through what passes, says that it lives, prunes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from dbsync.errors import OwnershipAmbiguous, PositionLost, Unavailable
from dbsync.sync.run import Pump, Synced, follow, prune
from tests.unit.sync.pair import Pair


def _script(*steps: Callable[[], object]) -> Callable[[], bool]:
    """A `stop` that runs one step each time it is asked, and says yes after the last one."""
    waiting = list(steps)

    def stop() -> bool:
        if not waiting:
            return True
        waiting.pop(0)()
        return False

    return stop


def _nothing() -> None:
    return None


def test_it_takes_the_snapshot_follows_and_leaves_no_heartbeat_behind() -> None:
    pair = Pair()
    pair.customers(3)
    seen = []

    def look() -> None:
        with pair.green.view() as view:
            seen.append(view.load("heartbeat", "follower"))

    stop = _script(*[_nothing] * 20, lambda: pair.customers(1, start=9), *[_nothing] * 20, look)
    done = follow(pair.pump, pair.clock, 0.2, stop)
    assert pair.same()
    assert done.snapshot == {"tables": 2, "rows": 3}
    assert done.windows == 1
    assert done.lag is not None and done.lag.changes == 0
    assert seen[0] is not None and seen[0]["position"]
    with pair.green.view() as view:
        assert view.load("heartbeat", "follower") is None


def test_it_turns_round_when_the_roles_do_and_says_so() -> None:
    pair = Pair()
    pair.customers(3)
    said: list[str] = []
    stop = _script(
        *[_nothing] * 20,
        pair.hand_over,
        lambda: pair.put("Customer", id=2, name="on green"),
        *[_nothing] * 20,
    )
    follow(pair.pump, pair.clock, 0.2, stop, report=lambda what, done, total: said.append(what))
    assert pair.same()
    assert "turned round: blue follows green now" in said


def test_it_waits_while_no_side_is_idle_and_while_a_database_does_not_answer() -> None:
    pair = Pair()
    pair.customers(2)
    answers: list[object] = [None, Unavailable("gone"), Unavailable("gone"), OwnershipAmbiguous(), None]

    def open_pair() -> Pump | None:
        answer = answers.pop(0) if answers else pair.pump()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    began = pair.clock.monotonic()
    follow(open_pair, pair.clock, 0.2, _script(*[_nothing] * 30))
    assert pair.same()
    assert pair.clock.monotonic() - began > 0.6


def test_a_lasting_ambiguity_and_a_lost_position_are_passed_on() -> None:
    pair = Pair()

    def torn() -> Pump:
        raise OwnershipAmbiguous

    with pytest.raises(OwnershipAmbiguous):
        follow(torn, pair.clock, 1.0, lambda: False)
    pair.customers(2)
    backup = pair.blue.backup()
    pair.pump().ensure_snapshot()
    pair.customers(2, start=7)
    pair.pump().drain()
    pair.blue.restore(backup)
    pair.customers(2, start=17)
    with pytest.raises(PositionLost):
        follow(pair.pump, pair.clock, 1.0, _script(*[_nothing] * 50))


def test_an_interrupted_wait_ends_it_gracefully() -> None:
    pair = Pair()
    pair.customers(2)
    beats: list[Synced] = []

    def beat(so_far: Synced) -> None:
        beats.append(so_far)
        if len(beats) == 3:
            pair.clock.interrupt()

    done = follow(pair.pump, pair.clock, 0.5, lambda: False, beat=beat)
    assert done.position is not None
    assert pair.same()


def _recorded(pair: Pair) -> int:
    return len(pair.blue._state.history.entries)


def test_pruning_keeps_what_the_checkpoint_a_receipt_or_a_running_verify_needs() -> None:
    pair = Pair()
    pair.customers(5)
    pump = pair.pump()
    pump.ensure_snapshot()
    pair.put("Customer", id=1, name="applied")
    pump.drain()
    with pair.green.view() as view:
        checkpoint, here = view.checkpoint(), view.position()
    assert checkpoint is not None
    pair.put("Customer", id=2, name="applied after the receipt")
    pump.drain()
    pair.put("Customer", id=3, name="waits")
    now = pair.clock.now()
    receipt = {
        "epoch": 1, "taken_at": now.isoformat(), "derived": False,
        "position": checkpoint.position, "idle_position": here,
    }  # fmt: skip
    pair.green.save("receipt", "last", receipt)
    pair.green.save("verify", "running", {"at": now.isoformat()})
    assert prune(pump) == 0
    pair.green.save("verify", "running", {"at": (now - timedelta(hours=7)).isoformat()})
    assert prune(pump) > 0
    assert _recorded(pair) == 2
    pair.green.save("receipt", "last", None)
    prune(pump)
    assert _recorded(pair) == 1
    pair.green.save("receipt", "last", receipt)
    assert prune(pump) == 0
    pump.drain()
    assert pair.same()


def test_pruning_keeps_for_a_while_what_a_job_has_not_seen_yet() -> None:
    pair = Pair()
    pair.customers(5)
    pump = pair.pump()
    pump.ensure_snapshot()
    with pair.blue.view() as view:
        guard, here = view.guard(), view.position()
    assert guard is not None
    pair.put("Customer", id=1, name="not seen by the job")
    pump.drain()
    pair.put("Customer", id=2, name="neither")
    pump.drain()
    now = pair.clock.now()
    ended = {"source": guard.identity, "position": here, "through": "Customer"}
    for side, until, left in (
        (pair.green, now - timedelta(days=6), 2),
        (pair.green, now - timedelta(days=8), 0),
    ):
        if left == 0:
            side.save("job", "other", {**ended, "source": "another", "until": now.isoformat()})
        side.save("job", "job", {**ended, "until": until.isoformat()})
        prune(pump)
        assert _recorded(pair) == left
