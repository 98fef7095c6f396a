"""What becomes of a handover whose coordinator is gone: the table of the protocol, section 1, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbsync.cutover.resolve import Resolved, abandon, resolve
from dbsync.cutover.state import Case, ownership
from dbsync.errors import OwnershipAmbiguous, Refused, Unavailable
from dbsync.model import Fenced, Guard, GuardState
from tests.acceptance.protocol_road import ONE, Road, road


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Road]:
    made = road(tmp_path, ONE + "CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT);")
    made.write("INSERT INTO word VALUES (1, 'a')")
    made.synced()
    yield made
    made.dispose()


def fence(pair: Road, seconds: float = 30.0) -> Fenced:
    return pair.active.fence(1, "host:1:1:other", seconds, 1.0)


def cede(pair: Road) -> None:
    fenced = fence(pair)
    with pair.active.view() as view:
        final = view.position()
    pair.pump().drain(final)
    pair.active.cede(fenced, final, pair.active.fingerprint(), "green")


def opened(pair: Road) -> None:
    cede(pair)
    pair.idle.open(2)


def begun(pair: Road) -> None:
    pair.world().journal("green", "begun", 1, verb="cutover")


def states(pair: Road) -> dict[str, tuple[str, int]]:
    guards = {name: database.guard() for name, database in pair.databases.items()}
    return {name: (guard.state.value, guard.epoch) for name, guard in guards.items() if guard is not None}


def gone(pair: Road, name: str) -> None:
    """From now on that database does not answer."""
    pair.databases[name].dispose()
    (pair.folder / f"{name}.db").rename(pair.folder / f"{name}.away")


def back(pair: Road, name: str) -> None:
    (pair.folder / f"{name}.away").rename(pair.folder / f"{name}.db")


def code(pair: Road, want: str, force: bool = False) -> str:
    with pytest.raises((Refused, Unavailable, OwnershipAmbiguous)) as refused:
        resolve(pair.world(), want, force)
    return refused.value.code


FOLLOWING = {"blue": ("open", 1), "green": ("closed", 1)}
DONE = {"blue": ("closed", 2), "green": ("open", 2)}


@pytest.mark.parametrize("want", ["resume", "abort", "either"])
def test_nothing_under_way_is_left_as_it_is(pair: Road, want: str) -> None:
    assert resolve(pair.world(), want) == Resolved("nothing", "blue", "blue", "green", 1)
    assert states(pair) == FOLLOWING


@pytest.mark.parametrize("want", ["resume", "abort", "either"])
def test_open_and_closed_is_aborted_and_the_attempt_goes_up(pair: Road, want: str) -> None:
    """Resume never goes on in the middle of a plan: the next command is a new cutover."""
    begun(pair)
    before = pair.active.guard().attempt
    assert resolve(pair.world(), want).outcome == "aborted"
    assert states(pair) == FOLLOWING and pair.active.guard().attempt > before


@pytest.mark.parametrize("want", ["resume", "abort"])
def test_a_fence_of_a_live_owner_is_waited_for(pair: Road, want: str) -> None:
    begun(pair)
    fence(pair, 0.3)
    world = pair.world()
    world.owner_lives = lambda _owner: True
    seen: list[str] = []
    world.report = lambda what, _done, _total: seen.append(what)
    assert resolve(world, want).outcome == "aborted"
    assert any("waiting for the fence of blue" in what for what in seen)
    assert states(pair) == FOLLOWING


def test_a_fence_whose_owner_is_dead_is_not_waited_for(pair: Road) -> None:
    fence(pair)
    world = pair.world()
    world.owner_lives = lambda _owner: False
    assert resolve(world, "abort").outcome == "aborted"
    assert states(pair) == FOLLOWING and pair.active.guard().accepts


def test_the_custodian_does_not_wait_for_the_fence_of_the_coordinator_that_it_ended(pair: Road) -> None:
    fence(pair)
    assert resolve(pair.world(), "either", force=True).outcome == "aborted"
    assert states(pair) == FOLLOWING


def test_ceded_and_closed_goes_forward_only(pair: Road) -> None:
    cede(pair)
    assert code(pair, "abort") == "past-no-return"
    assert states(pair) == {"blue": ("ceded", 2), "green": ("closed", 1)}
    assert resolve(pair.world(), "resume").active == "green"
    assert states(pair) == DONE


def test_ceded_and_open_is_finished(pair: Road) -> None:
    opened(pair)
    assert code(pair, "abort") == "past-no-return"
    done = resolve(pair.world(), "either")
    assert (done.outcome, done.active, done.epoch) == ("resumed", "green", 2)
    assert states(pair) == DONE
    with pair.databases["blue"].view() as view:
        checkpoint, receipt = view.checkpoint(), view.load("receipt", "last")
    guard = pair.databases["green"].guard()
    assert checkpoint.position == guard.opened_at and receipt["derived"]


def test_the_old_side_unreachable_and_the_new_one_open_waits_for_it_and_the_new_one_stays_live(pair: Road) -> None:
    """Open implies ceded: nothing is aborted; what is left is to close the old side when it is back."""
    opened(pair)
    gone(pair, "blue")
    assert code(pair, "resume") == "unreachable"
    assert pair.databases["green"].guard().state is GuardState.OPEN
    back(pair, "blue")
    assert resolve(pair.world(), "resume").active == "green"
    assert states(pair) == DONE


@pytest.mark.parametrize("want", ["resume", "abort", "either"])
def test_the_old_side_unreachable_and_the_new_one_closed_waits(pair: Road, want: str) -> None:
    cede(pair)
    gone(pair, "blue")
    assert code(pair, want) == "unreachable"
    assert pair.databases["green"].guard().state is GuardState.CLOSED


def test_not_ceded_and_the_new_side_unreachable_is_decided_by_the_old_one_alone(pair: Road) -> None:
    fence(pair)
    gone(pair, "green")
    assert code(pair, "resume", force=True) == "unreachable"
    assert resolve(pair.world(), "abort", force=True).active == "blue"
    guard = pair.databases["blue"].guard()
    assert guard.accepts and guard.state is GuardState.OPEN


def test_ceded_and_the_new_side_unreachable_waits_until_it_is_given_up_by_name(pair: Road) -> None:
    cede(pair)
    gone(pair, "green")
    assert code(pair, "resume") == "other-side-gone"
    assert code(pair, "abort") == "past-no-return"
    assert abandon(pair.world(), "green").active == "blue"
    guard = pair.databases["blue"].guard()
    assert (guard.state, guard.epoch) == (GuardState.OPEN, 3)
    back(pair, "green")
    assert code(pair, "resume") == "ownership-ambiguous", "a side that was given up is not taken back by itself"


def test_a_side_that_answers_is_not_given_up(pair: Road) -> None:
    cede(pair)
    with pytest.raises(Refused) as refused:
        abandon(pair.world(), "green")
    assert refused.value.code == "nothing-to-abandon"


def test_closed_and_closed_opens_the_side_that_the_epoch_names(pair: Road) -> None:
    opened(pair)
    resolve(pair.world(), "resume")
    with pair.application("green") as connection:
        connection.execute("UPDATE dbsync_guard SET state = 'closed'")
    assert code(pair, "abort") == "past-no-return"
    assert resolve(pair.world(), "resume").active == "green"
    assert states(pair) == DONE


@pytest.mark.parametrize("want", ["resume", "abort", "either"])
def test_two_open_sides_are_never_resolved(pair: Road, want: str) -> None:
    with pair.application("green") as connection:
        connection.execute("UPDATE dbsync_guard SET state = 'open'")
    assert code(pair, want) == "ownership-ambiguous"
    assert states(pair) == {"blue": ("open", 1), "green": ("open", 1)}


def guard(name: str, state: str, epoch: int, live: str = "blue", left: float | None = None) -> Guard:
    return Guard(name, name, GuardState(state), epoch, live=live, fence_left=left)


@pytest.mark.parametrize(
    ("blue", "green", "case"),
    [
        (("open", 1), ("closed", 1), Case.FOLLOWING),
        (("fenced", 1, "blue", 5.0), ("closed", 1), Case.FENCED),
        (("fenced", 1, "blue", -0.1), ("closed", 1), Case.FOLLOWING),
        (("ceded", 2, "green"), ("closed", 1), Case.CEDED),
        (("ceded", 2, "green"), ("open", 2, "green"), Case.OPENED),
        (("closed", 2, "green"), ("closed", 2, "green"), Case.SHUT),
        (("closed", 2, "green"), ("open", 2, "green"), Case.FOLLOWING),
        (("open", 1), ("open", 1), None),
        (("open", 2), ("closed", 1), None),
        (("ceded", 3, "green"), ("closed", 1), None),
        (("ceded", 2, "green"), ("ceded", 2), None),
        (("fenced", 1, "blue", 5.0), ("open", 1), None),
        (("closed", 2, "green"), ("closed", 2, "blue"), None),
    ],
)
def test_a_pair_that_the_table_does_not_list_is_ambiguous(
    blue: tuple[str, int], green: tuple[str, int], case: Case | None
) -> None:
    for first, second in (("blue", "green"), ("green", "blue")):
        both = {"blue": guard("blue", *blue), "green": guard("green", *green)}
        if case is None:
            with pytest.raises(OwnershipAmbiguous):
                ownership(both[first], both[second], ("blue", "green"))
        else:
            assert ownership(both[first], both[second], ("blue", "green")).case is case
