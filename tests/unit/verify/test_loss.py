"""What going back costs: counted by table and column, exactly, and refused only where the policy says so."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dbsync.cutover.run import hand_over
from dbsync.errors import Refused
from dbsync.etl import Crossing, table
from dbsync.etl.loss import Loss, literal
from dbsync.verify.loss import count_losses
from tests.acceptance.protocol_road import Road
from tests.unit.sync.kept_files import OLD, REVERSE, losing

Make = Callable[..., Road]
ROWS = 300


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Green is live with rows of which some hold what blue cannot, under the policies given."""
    made: list[Road] = []

    def build(**policies: str) -> Road:
        road: Road = losing(tmp_path, Road, **policies)
        made.append(road)
        road.synced().cut()
        choose = random.Random(7)
        with road.application("green") as connection:
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO track VALUES (?, ?, ?, 0)",
                [
                    (n, choose.choice((1.5, 1.00049, 2.123456, None)), "x" * choose.randint(1, 20))
                    for n in range(1, ROWS + 1)
                ],
            )
            connection.execute("COMMIT")
        road.pump().drain()
        return road

    yield build
    for road in made:
        road.dispose()


def by_hand(road: Road) -> dict[str, int]:
    """The same counts in plain Python."""
    rows = road.rows("green", "SELECT seconds, title FROM track")
    times = [float(str(seconds)) for seconds, _ in rows if seconds is not None]
    return {
        "seconds": sum(math.floor(seconds * 1000 + 0.5) / 1000.0 != seconds for seconds in times),
        "title": sum(len(str(title)) > 10 for _, title in rows),
    }


def counted(road: Road) -> tuple[Loss, ...]:
    return count_losses(road.active, road.idle, road.lens())


def test_the_counts_are_those_of_plain_python_whatever_the_policy(make: Make) -> None:
    road = make(seconds="accept", title="refuse")
    hand = by_hand(road)
    assert all(hand.values())
    found = counted(road)
    assert {loss.column: loss.rows for loss in found} == hand
    assert {loss.column: loss.policy for loss in found} == {"seconds": "accept", "title": "refuse"}
    assert {loss.why for loss in found if loss.column == "title"} == {"cut at ten characters"}
    verified = road.verify()
    assert verified.equal
    assert verified.receipt is not None
    assert verified.receipt["tables"][0]["losses"] == hand


def test_what_is_kept_never_differs_and_is_told_all_the_same(make: Make) -> None:
    road = make(seconds="keep", title="keep")
    assert [(loss.column, loss.rows, loss.policy) for loss in counted(road)] == [
        ("seconds", 0, "keep"),
        ("title", 0, "keep"),
    ]
    assert road.verify().tables[0].lossy == 0
    assert road.cut("rollback").losses == ()


def test_without_a_policy_it_is_refused_with_the_column_the_count_and_the_ways_out(make: Make) -> None:
    road = make(seconds="keep")
    with pytest.raises(Refused) as refused:
        road.cut("rollback")
    (blocker,) = refused.value.blockers
    assert blocker.code == "loss"
    assert f"track.title in {by_hand(road)['title']} rows" in blocker.found
    assert "seconds" not in blocker.found
    for way in ("--accept-loss", '"keep"', '"accept"'):
        assert way in blocker.remedy
    done = road.cut("rollback", accept_loss=True)
    assert [(loss.column, loss.rows) for loss in done.losses if loss.rows] == [("title", by_hand(road)["title"])]


def test_an_accepted_loss_is_let_through_and_told_in_the_result_and_in_the_journal(make: Make) -> None:
    road = make(seconds="accept", title="accept")
    hand = by_hand(road)
    done = road.cut("rollback")
    assert {loss.column: loss.rows for loss in done.losses} == hand
    (begun,) = [
        fact
        for fact in road.databases["blue"].journal()
        if fact.data.get("verb") == "rollback" and fact.kind == "begun"
    ]
    assert {loss["column"]: loss["rows"] for loss in begun.data["losses"]} == hand


@pytest.mark.parametrize("policy", ["refuse", "accept"])
def test_rows_written_on_the_way_are_judged_by_the_same_policy(make: Make, policy: str) -> None:
    road = make(seconds="keep", title=policy)
    road.write("UPDATE track SET title = 'short'")
    road.pump().drain()
    world = road.world()

    def meanwhile(what: str, *_: Any) -> None:
        if what == "rollback: fence":
            road.write("UPDATE track SET title = 'much too long for it', seconds = 0.00001 WHERE id = 1")

    world.report = meanwhile
    if policy == "accept":
        done = hand_over(world, "rollback")
        assert [(loss.column, loss.rows) for loss in done.losses if loss.rows] == [("title", 1)]
        return
    with pytest.raises(Refused) as refused:
        hand_over(world, "rollback")
    assert refused.value.code == "loss"
    assert "track.title in 1 row" in refused.value.message
    road.turned()
    assert road.active.name == "green"


def test_a_dry_run_of_the_way_there_says_what_the_way_back_would_cost(make: Make) -> None:
    road = make(seconds="keep", title="accept")
    road.cut("rollback")
    seen = hand_over(road.world(), "cutover", dry_run=True)
    assert [(loss.column, loss.policy) for loss in seen.losses] == [("seconds", "keep"), ("title", "accept")]
    assert seen.losses[0].rows == 0


# --- columns that only the newer shape has ---------------------------------------------------------

RICHER = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE track (id INTEGER PRIMARY KEY, seconds REAL, title TEXT NOT NULL, price NUMERIC, stars INTEGER,
  nick TEXT DEFAULT 'none', seen TEXT DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE genre (id INTEGER PRIMARY KEY, name TEXT, colour INTEGER NOT NULL DEFAULT (7));
"""
GENRE = "CREATE TABLE genre (id INTEGER PRIMARY KEY, name TEXT);"


@pytest.fixture
def richer(tmp_path: Path) -> Iterator[Road]:
    """The newer shape has columns of its own, filled by forward and by their defaults; green is live."""
    road = Road(tmp_path, (OLD + GENRE, RICHER))
    select = "SELECT id, ms / 1000.0 AS seconds, title, price, 3 AS stars FROM track"
    road.crossed.forward = Crossing(table("track", key={"track": "id"}, select=select, losing={"nick": "refuse"}))
    road.crossed.reverse = REVERSE
    road.write("INSERT INTO genre VALUES (1, 'rock'), (2, 'jazz')")
    road.write("INSERT INTO track VALUES (1, 1000, 'a', 1), (2, 2000, 'b', 1), (3, 3000, 'c', 1)")
    road.synced().cut()
    yield road
    road.dispose()


def test_what_a_way_back_leaves_behind_is_counted_without_being_declared(richer: Road) -> None:
    assert [loss for loss in counted(richer) if loss.rows] == []
    richer.write("UPDATE track SET stars = 5 WHERE id < 3")
    richer.write("UPDATE genre SET colour = 8 WHERE id = 1")
    richer.pump().drain()
    found = {(loss.table, loss.column): (loss.rows, loss.policy) for loss in counted(richer)}
    assert found == {
        ("track", "stars"): (2, "accept"),
        ("track", "nick"): (0, "refuse"),
        ("genre", "colour"): (1, "accept"),
    }
    assert richer.cut("rollback").to == "blue"
    assert {(loss.column, loss.rows) for loss in counted(richer)} == {("stars", 2), ("nick", 0), ("colour", 1)}


def test_what_is_left_behind_is_refused_where_that_was_declared(richer: Road) -> None:
    richer.write("UPDATE track SET nick = 'Nick' WHERE id = 3")
    richer.pump().drain()
    with pytest.raises(Refused) as refused:
        richer.cut("rollback")
    assert refused.value.code == "loss"
    assert "track.nick in 1 row" in refused.value.blockers[0].found


@pytest.mark.parametrize(
    ("default", "value"),
    [(None, (None,)), ("NULL", (None,)), ("'it''s'", ("it's",)), ("(7)", (7,)), ("-1.5", (-1.5,)), ("''", ("",)),
     ("CURRENT_TIMESTAMP", None), ("'a' || 'b'", None), ("abs(1)", None), ('"word"', None)],
)  # fmt: skip
def test_a_default_counts_as_known_only_when_it_is_a_plain_value(default: str | None, value: Any) -> None:
    assert literal(default) == value
