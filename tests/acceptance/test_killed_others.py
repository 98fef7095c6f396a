"""Nobody is left, or another process dies: follower, migrator, and a coordinator that is told to stop."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.rig import World, world
from tests.contract.traefik_rig import wait_for

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.xdist_group("killed-others")]

THIRD = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "0003", "0002"
def upgrade():
    op.add_column("item", sa.Column("colour", sa.Text, nullable=True))
    op.execute("UPDATE item SET colour = 'red'")
    op.create_index("note_item", "note", ["item_id"])
def downgrade():
    op.drop_index("note_item")
    op.drop_column("item", "colour")
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("others")) as made:
        yield made
        made.check_never_two()


def verb(made: World) -> str:
    """The way from the side that is live."""
    return "cutover" if made.live() == "blue" else "rollback"


def acknowledged_after(made: World, moment: float) -> bool:
    """Whether a write that a customer began after a moment was acknowledged."""
    last = [int(one["token"].rpartition("-")[2]) for one in made.lines("acknowledged")[-20:]]
    return any(began > moment * 1e9 for began in last)


def in_step(made: World) -> None:
    made.good("sync", "--once")
    assert made.good("verify")["equal"] is True


@pytest.mark.parametrize(
    ("at", "armed", "moves"),
    [
        ("install", None, False),
        ("fence", None, False),
        ("open", None, True),
        ("close", None, True),
        ("switch", None, True),
    ],
)
def test_a_follower_takes_away_the_hold_that_nobody_is_left_to_end(
    there: World, at: str, armed: str | None, moves: bool
) -> None:
    """8. The coordinator and the custodian's group are killed; then a follower is started: POST works again."""
    in_step(there)
    old = there.live()
    strike = {"at": at, "when": "after", "armed": armed, "signal": "SIGKILL", "orphan": str(there.record)}
    process = there.driven(strike, verb(there), "--yes")
    there.struck(process)
    there.end(process)
    # On a busy machine a process that has been killed takes its time to die.
    wait_for(lambda: there.custodian() is None, 10, "the custodian lives")
    assert there.holds() != []
    follower = there.follower()
    try:
        wait_for(lambda: there.holds() == [], 20, f"the hold stays: {there.log('follower')}")
        healed = time.monotonic()
        wait_for(lambda: acknowledged_after(there, healed), 15, "POST does not work")
        wait_for(there.completed, 10, "the handover was never recorded as complete")
        assert (there.live() != old) is moves
        there.check_whole()
    finally:
        there.end(follower)


@pytest.mark.parametrize("nth", [1, 4])
def test_a_follower_killed_inside_a_window_goes_on_where_it_was(there: World, nth: int) -> None:
    """SIGKILL in the middle of the transaction that applies a window."""
    in_step(there)
    process = there.driven({"at": "window", "when": "after", "nth": nth, "signal": "SIGKILL"}, "sync")
    there.struck(process)
    there.end(process)
    there.check_whole()


def test_followers_killed_all_through_a_handover_and_back_do_no_harm(there: World) -> None:
    """SIGKILL at seeded moments, and another follower at once, from before the hold until the other side follows."""
    draw = random.Random(7)
    for _ in range(2):
        in_step(there)
        old = there.live()
        process = there.start([*there.program(), *there.words(verb(there), "--yes")], "coordinator")
        follower = there.follower()
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0.3, 1.2))
            there.end(follower)
            follower = there.follower()
        out, _ = process.communicate()
        assert process.returncode == 0, out
        assert there.live() != old
        there.end(process)
        wait_for(lambda: there.good("status")["follower"] == "running", 20, "no follower runs")
        there.check_whole()
        there.end(follower)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("at", "armed", "moves"), [("custodian", None, False), ("fence", None, False), ("cede", None, True)]
)
def test_a_coordinator_told_to_stop_undoes_it_or_finishes_it(
    there: World, at: str, armed: str | None, moves: bool, number: str
) -> None:
    """Exit 130, one JSON object, and never half-way: undone before the cede, finished after it."""
    in_step(there)
    old, failed = there.live(), len(there.lines("failed"))
    process = there.driven({"at": at, "when": "after", "armed": armed, "signal": number}, verb(there), "--yes")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, (out, there.log("coordinator"))
    error = json.loads(out)["error"]
    assert error["code"] == "interrupted"
    assert error["changed"] is True
    there.end(process)
    assert (there.live() != old) is moves
    wait_for(lambda: there.custodian() is None, 10)
    wait_for(there.completed, 10, "the handover was never recorded as complete")
    there.check_whole()
    assert there.lines("failed")[failed:] == []


@pytest.mark.parametrize(("at", "when"), [("migrating", "before"), ("migrating", "after")])
def test_a_migrator_killed_inside_a_revision_leaves_the_database_at_the_one_before(
    there: World, at: str, when: str
) -> None:
    """SIGKILL inside the revision's transaction: shape, revision, guard and capture are what they were."""
    in_step(there)
    idle = "green" if there.live() == "blue" else "blue"
    place = there.folder / "migrations" / "versions" / "0003_colour.py"
    if idle == "blue":
        there.good(verb(there), "--yes")
        idle = "green"
        in_step(there)
    place.write_text(THIRD)
    try:
        shape = there.ask(idle, "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
        process = there.driven({"at": at, "when": when, "signal": "SIGKILL"}, "migrate", "--target", "idle")
        there.struck(process)
        there.end(process)
        assert there.ask(idle, "SELECT version_num FROM alembic_version") == [("0002",)]
        assert there.ask(idle, "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2") == shape
        there.check_whole()
        assert there.good("migrate", "--target", "idle")["to"] == "0003"
        there.check_whole()
        assert there.good("migrate", "--target", "idle", "--down", "--to", "0002")["to"] == "0002"
        there.check_whole()
    finally:
        place.unlink()


def test_the_intruder_was_refused_by_one_side_at_every_instant(there: World) -> None:
    """Two writers: its ledger proves it, and both sides refused it while the other one was live."""
    there.check_never_two()
    assert {one["side"] for one in there.lines("direct")} == {"blue", "green"}
