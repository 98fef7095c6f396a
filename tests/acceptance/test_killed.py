"""Killed at every step (protocol.md section 8, tests 5 and 8): never two writers, never none, nothing lost.

The coordinator is struck at named points and at seeded moments, by SIGKILL and by SIGSTOP that nobody ends, sent to its
process group, under load. Then somebody resumes, somebody aborts, or nobody comes back.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import pytest

from tests.acceptance.rig import BUSY, MAX_PAUSE, World, world
from tests.contract.traefik_rig import wait_for
from tests.standby import Process

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@dataclass(frozen=True)
class Point:
    """Where the blow falls; `then` is the side that the table in protocol.md, section 1, names (None: either)."""

    at: str
    when: str
    then: str | None
    nth: int = 1
    armed: str | None = None
    later: float | None = None

    def strike(self, number: signal.Signals) -> dict[str, Any]:
        """As the driver reads it."""
        return {
            "at": self.at,
            "when": self.when,
            "nth": self.nth,
            "armed": self.armed,
            "later": self.later,
            "signal": number.name,
        }

    def __str__(self) -> str:
        words = [self.when, self.at]
        words += [f"no. {self.nth}"] if self.nth > 1 else []
        words += [f"once {self.armed}"] if self.armed else []
        words += [f"{self.later * 1000:.0f} ms on"] if self.later is not None else []
        return " ".join(words)


BEFORE = [
    Point("journal", "after", "old"),
    Point("custodian", "before", "old"),
    Point("custodian", "after", "old"),
    Point("publish", "before", "old"),
    Point("publish", "after", "old"),
    Point("rename", "before", "old", nth=3),
    Point("publish", "after", "old", nth=2),
    Point("install", "after", "old"),
    Point("hold", "before", "old"),
    Point("hold-order", "before", "old"),
    Point("hold", "after", "old"),
    Point("settled", "after", "old", armed="hold"),
    Point("fence", "before", "old"),
    Point("in-fence-or-cede", "after", "old", armed="hold"),
    Point("fence", "after", "old"),
    Point("window", "after", "old", armed="fence"),
    Point("drain", "after", "old", armed="fence"),
    Point("recheck", "after", "old", armed="fence"),
    Point("fingerprint", "after", "old", armed="fence"),
    Point("in-cede", "after", "old"),
]
AFTER = [
    Point("cede", "after", "new"),
    Point("in-open", "after", "new"),
    Point("open", "after", "new"),
    Point("decide-order", "before", "new"),
    Point("decide-order", "after", "new"),
    Point("decide", "after", "new"),
    Point("in-close", "after", "new"),
    Point("close", "after", "new"),
    Point("save", "after", "new", armed="close"),
    Point("rename", "after", "new", armed="close"),
    Point("publish", "after", "new", armed="close"),
    Point("switch", "after", "new"),
    Point("unlink", "after", "new", armed="switch"),
    Point("ungate", "after", "new"),
    Point("journal", "after", "new", armed="ungate"),
    Point("stop", "before", "new", armed="ungate"),
]

STOPPED_BEFORE = [
    Point("custodian", "after", "old"),
    Point("install", "after", "old"),
    Point("hold", "after", "old"),
    Point("in-fence-or-cede", "after", "old", armed="hold"),
    Point("fence", "after", "old"),
    Point("window", "after", "old", armed="fence"),
    Point("in-cede", "after", "old"),
]
STOPPED_AFTER = [
    Point("cede", "after", "new"),
    Point("in-open", "after", "new"),
    Point("decide", "after", "new"),
    Point("in-close", "after", "new"),
    Point("switch", "after", "new"),
]


def mixed(*lists: list[Point]) -> list[Point]:
    """One of each in turn, so that both directions meet every kind."""
    return [one for one in chain.from_iterable(zip_longest(*lists)) if one is not None]


def seeded(seed: int, count: int, most: float) -> list[Point]:
    """Moments after the hold, drawn once."""
    draw = random.Random(seed)
    return [Point("hold", "after", None, later=round(draw.uniform(0.0, most), 4)) for _ in range(count)]


WAYS = ("nothing", "--resume", "--abort")
WINDOWS = 4
"""Handovers in which the coordinator may find nothing left to apply."""


def verb_from(live: str) -> str:
    """The way from the side that is live."""
    return "cutover" if live == "blue" else "rollback"


class Pair:
    """A world that lives for many blows, and what it has been through."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.count = 0
        self.failed = 0
        self.directions: dict[str, int] = {"cutover": 0, "rollback": 0}

    def begin(self, point: Point, number: signal.Signals) -> tuple[Process, float, str]:
        """A coordinator that was struck there, when, and the side that was live."""
        made = self.world
        for again in range(WINDOWS):
            old = made.live()
            assert old is not None, made.guards()
            made.good("sync", "--once")
            process = made.driven(point.strike(number), verb_from(old), "--yes")
            try:
                return process, made.struck(process), old
            except BaseException as error:
                error.add_note(f"{made.log('coordinator')}\n{self.custodian_log()}")
                # A follower that is faster leaves no window to be struck in: then the handover has come to its end.
                faster = point.at == "window" and process.poll() == 0 and again + 1 < WINDOWS
                made.end(process)
                if not faster:
                    raise
        raise AssertionError

    def strike(self, point: Point, number: signal.Signals) -> None:
        """One blow, what must be true at once, one of the ways out, what must be true in the end."""
        made = self.world
        process, moment, old = self.begin(point, number)
        new, verb = "green" if old == "blue" else "blue", verb_from(old)
        way = WAYS[self.count % 3]
        self.count += 1
        self.directions[verb] += 1
        try:
            first = made.let_in(moment, MAX_PAUSE + 2.0 + BUSY)
            assert first is not None, f"nobody may write {MAX_PAUSE + 2:g} s after the blow: {made.guards()}"
            expected = {"old": old, "new": new, None: first["side"]}[point.then]
            assert first["side"] == expected, (first, made.guards())
            self.come_back(way)
            self.see_through(expected)
        except (AssertionError, pytest.fail.Exception) as error:
            error.add_note(f"{verb} {way}\n{made.log('coordinator')}\n{self.custodian_log()}")
            raise
        finally:
            made.end(process)

    def come_back(self, way: str) -> None:
        """Resume, abort, or let the custodian (or the follower) be the only one who acts."""
        if way == "nothing":
            return
        done = self.world.dbsync("cutover", way)
        assert done.code == 0 or done.error == "past-no-return", done
        assert "error" in done.data or done.data["outcome"] in ("nothing", "aborted", "resumed")

    def see_through(self, expected: str) -> None:
        """In the end: one writer, no trace, the rows equal, nothing lost, no request failed."""
        made = self.world
        wait_for(
            lambda: made.custodian() is None and not made.holds() and made.live() == expected,
            30,
            f"it does not end: {made.guards()} {made.holds()} custodian {made.custodian()}",
        )
        wait_for(made.completed, 10, "the handover was never recorded as complete")
        made.check_whole()
        failed = made.lines("failed")
        assert failed[self.failed :] == []

    def custodian_log(self) -> str:
        """The end of what the custodians said."""
        place = self.world.folder / ".dbsync" / "custodian.log"
        return place.read_text()[-2500:] if place.exists() else ""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A world with a follower."""
    with world(tmp_path_factory.mktemp("killed")) as made:
        made.follower()
        yield Pair(made)


@pytest.mark.parametrize("point", mixed(BEFORE, AFTER), ids=str)
def test_a_coordinator_killed_here_leaves_one_writer_and_loses_nothing(killed: Pair, point: Point) -> None:
    """5. SIGKILL to the process group."""
    killed.strike(point, signal.SIGKILL)


def test_no_two_sides_ever_took_writes_while_coordinators_were_killed(killed: Pair) -> None:
    """The ledger of a client that writes straight to both databases all the time."""
    killed.world.check_never_two()
    assert min(killed.directions.values()) >= killed.count // 4, killed.directions
