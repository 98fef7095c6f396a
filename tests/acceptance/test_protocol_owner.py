"""Who is live: stalls and kills at the fence and the cede, on real files and real processes (protocol, section 8)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.protocol_rig import BUSY, CEDE, CLOSE, FENCE, OPEN, Installation, installation, until

IN_TIME = 3.0 + BUSY
"""max_pause + 2 s, and what a machine that runs other tests beside may take."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def test_a_write_after_the_fence_has_ended_survives_a_coordinator_that_wakes_late(site: Installation) -> None:
    """Protocol test 1: the coordinator and its custodian stall before the cede; W is written; both wake."""
    stalled = site.stopped("cutover", at=CEDE)
    custodian = site.custodian()
    os.kill(custodian, signal.SIGSTOP)
    assert site.live() == []
    until(lambda: site.word("blue", "W"), IN_TIME, "the fence did not end by itself")
    os.kill(stalled.pid, signal.SIGCONT)
    until(lambda: site.tells("undone") or site.tells("completed"), told="it neither went on nor back")
    os.kill(custodian, signal.SIGCONT)
    done = site.ended(stalled)
    assert (done.code, done.refusal) == (5, "fence-lost"), done
    assert site.live() == ["blue"]
    assert site.words("blue")[-1] == "W"
    site.ok("cutover", "--resume")
    assert site.live() == ["blue"], "--resume never begins a new cutover, and never believes the journal"
    site.ok("cutover")
    assert site.live() == ["green"] and site.words("green")[-1] == "W"


def test_a_write_survives_when_the_custodian_has_ended_the_stalled_coordinator(site: Installation) -> None:
    """Protocol test 1: the same, the custodian awake."""
    site.stopped("cutover", at=CEDE)
    until(lambda: site.word("blue", "W"), IN_TIME)
    site.ok("cutover", "--resume")
    assert site.live() == ["blue"] and site.words("blue")[-1] == "W"


def test_a_follower_frozen_before_its_begin_writes_nothing_after_a_whole_cutover(site: Installation) -> None:
    """Protocol test 2: it holds an old window; the roles have changed when it wakes."""
    assert site.write("blue", "UPDATE word SET text = 'old image' WHERE id = 1")
    follower = site.stopped("sync", at="dbsync.sync.link:Link.writing")
    site.ok("cutover")
    assert site.write("green", "UPDATE word SET text = 'new' WHERE id = 1")
    os.kill(follower.pid, signal.SIGCONT)
    until(lambda: site.words("blue")[0] == "new", 15, "the follower did not turn round")
    assert site.words("green")[0] == "new"
    follower.send_signal(signal.SIGTERM)
    assert site.ended(follower).code == 0


def test_a_follower_frozen_inside_its_transaction_costs_the_cutover_and_nothing_else(site: Installation) -> None:
    """Protocol test 2: frozen with the write lock of the idle side: `drain-timeout`, nothing changed."""
    assert site.word("blue", "W")
    follower = site.stopped("sync", at="dbsync.adapters.sqlite.writing:SqliteTransaction.set_checkpoint")
    done = site.run("cutover")
    assert (done.code, done.refusal) == (5, "drain-timeout"), done
    assert not done.data["error"]["changed"]
    assert site.live() == ["blue"] and site.guard("blue") == ("open", 1)
    os.kill(follower.pid, signal.SIGCONT)
    until(lambda: site.words("green")[-1] == "W")
    follower.send_signal(signal.SIGTERM)
    assert site.ended(follower).code == 0


POINTS = {
    "stopped before the fence": (FENCE, "before", "stop", "blue"),
    "stopped behind the fence": (FENCE, "after", "stop", "blue"),
    "stopped before the cede": (CEDE, "before", "stop", "blue"),
    "stopped behind the cede": (CEDE, "after", "stop", "green"),
    "killed behind the fence": (FENCE, "after", "kill", "blue"),
    "killed behind the cede": (CEDE, "after", "kill", "green"),
    "killed behind the opening": (OPEN, "after", "kill", "green"),
    "killed before the closing": (CLOSE, "before", "kill", "green"),
}


@pytest.mark.kill
@pytest.mark.parametrize("point", POINTS)
def test_wherever_the_coordinator_is_lost_one_side_takes_writes_in_time(site: Installation, point: str) -> None:
    """Protocol test 5: within max_pause + 2 s a write succeeds on the side that the table names."""
    at, when, way, side = POINTS[point]
    lose = site.lost if way == "stop" else site.killed
    lose("cutover", at=at, when=when)
    lost = time.monotonic()
    other = {"blue": "green", "green": "blue"}[side]

    def taken() -> bool:
        assert not site.word(other, "never"), f"{other} took a write"
        return site.word(side, "W")

    until(taken, IN_TIME, f"{side} takes no write")
    assert time.monotonic() - lost < IN_TIME + 1.0
    record = site.folder / ".dbsync" / "handover.json"
    until(lambda: not record.exists(), 20, "the custodian did not end")
    assert site.live() == [side]
    site.ok("sync", "--once")
    assert site.words(other)[-1] == "W"


@pytest.mark.kill
@pytest.mark.parametrize("nth", [1, 2])
def test_a_follower_killed_in_the_middle_of_a_part_goes_on_from_its_beginning(site: Installation, nth: int) -> None:
    """Protocol test 24: killed with rows written and nothing committed, in a window and in a copy."""
    words = ("sync", "--once") if nth == 1 else ("sync", "--once", "--snapshot")
    assert site.write("blue", "DELETE FROM word") and site.word("blue", "new")
    before = site.rows("green", "SELECT position FROM dbsync_checkpoint")
    site.killed(*words, at="dbsync.sync.link:Link.carry" if nth == 1 else "dbsync.sync.copying:Copier._store", nth=nth)
    if nth == 1:
        assert site.rows("green", "SELECT position FROM dbsync_checkpoint") == before
        assert site.words("green") == ["first", "second"]
    site.ok("sync", "--once")
    assert site.words("green") == ["new"]
    assert site.ok("verify")["equal"]
