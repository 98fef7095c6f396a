"""Stopped, and nobody continues it; killed at moments drawn by chance (protocol.md section 8, test 5)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.rig import world
from tests.acceptance.test_killed import STOPPED_AFTER, STOPPED_BEFORE, Pair, Point, mixed, seeded

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A world without one."""
    with world(tmp_path_factory.mktemp("stopped")) as made:
        yield Pair(made)


@pytest.mark.parametrize("point", mixed(STOPPED_BEFORE, STOPPED_AFTER), ids=str)
def test_a_coordinator_stopped_here_is_ended_by_its_custodian(stopped: Pair, point: Point) -> None:
    """5. SIGSTOP, and nobody ever continues it."""
    stopped.strike(point, signal.SIGSTOP)


@pytest.mark.parametrize("point", seeded(3, 8, 0.15), ids=str)
def test_a_coordinator_killed_at_a_seeded_moment_leaves_one_writer(stopped: Pair, point: Point) -> None:
    """5. Inside the steps, wherever it happens to be."""
    stopped.strike(point, signal.SIGKILL)


def test_no_two_sides_ever_took_writes_while_coordinators_were_stopped(stopped: Pair) -> None:
    """The ledger of a client that writes straight to both databases all the time."""
    stopped.world.check_never_two()
    assert min(stopped.directions.values()) >= stopped.count // 4, stopped.directions
