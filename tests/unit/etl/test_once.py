"""once=: a column that is set when its row is created, and neither overwritten nor compared afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from dbsync.errors import ConfigError
from dbsync.etl import Crossing, table
from dbsync.etl.run import put
from tests.unit.etl.etl_world import Two, World, composed
from tests.unit.etl.test_lens import cross, lens_of, two

OLDER = "CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO c VALUES (1, 'a'), (2, 'b')"
NEWER = "CREATE TABLE c (id INTEGER PRIMARY KEY, name TEXT, token TEXT)"
TOKEN = "SELECT id, name, lower(hex(randomblob(8))) AS token FROM c"


def given(select: str = TOKEN, **more: Any) -> Crossing:
    return Crossing(table("c", select=select, **{"key": {"c": "id"}, "once": ("token",), **more}))


def tokens(world: World) -> dict[int, str]:
    return dict(world.db.execute("SELECT id, token FROM c"))


def test_it_is_set_when_the_row_is_created_and_then_left_alone_until_the_row_is_born_again() -> None:
    blue, green = two(OLDER, NEWER)
    pairs = {"r1": Two(given())}
    lens = lens_of(blue, green, pairs, "blue")
    assert lens.kept == {"c": frozenset({"token"})} and not green.lived, "whether or not the newer side has lived"
    cross(blue, green, lens, "c", [(1,), (2,)])
    before = tokens(green)
    assert len(set(before.values())) == 2 and None not in before.values()
    blue.db.execute("UPDATE c SET name = 'changed' WHERE id = 1")
    cross(blue, green, lens_of(blue, green, pairs, "blue"), "c", [(1,), (2,)])
    assert tokens(green) == before
    assert green.db.execute("SELECT name FROM c WHERE id = 1").fetchone() == ("changed",)
    rows = blue.by_keys(lens.forward.tables["c"].relation, [(1,), (2,)])
    put(green, green, lens, "c", [(1,), (2,)], rows, born=[(1,)])  # type: ignore[arg-type]
    assert tokens(green)[1] != before[1] and tokens(green)[2] == before[2]


def test_it_passes_through_later_steps_under_another_name_and_by_name() -> None:
    newer = World("CREATE TABLE c (id INTEGER PRIMARY KEY, ticket TEXT)")
    shapes = {name: World(NEWER).catalog() for name in ("r1", "r2")}
    renamed = Crossing(table("c", key={"c": "id"}, select="SELECT k.id, k.token AS ticket FROM c AS k"))
    steps = [("r1", Two(given())), ("r2", Two()), ("r3", Two(renamed))]
    made = composed(World(OLDER), newer, steps, shapes=shapes)
    assert made.tables["c"].once == {"ticket"}
    dropped = Crossing(table("c", key={"c": "id"}, select="SELECT c.id, c.name AS ticket FROM c"))
    made = composed(World(OLDER), newer, [*steps[:2], ("r3", Two(dropped))], shapes=shapes)
    assert made.tables["c"].once == frozenset()
    other = composed(World(OLDER), World(NEWER), [("r1", Two(given("SELECT id, name, 'x' AS token FROM c")))])
    plain = composed(World(OLDER), World(NEWER), [("r1", Two(given("SELECT id, name, 'x' AS token FROM c", once=())))])
    assert other.hash != plain.hash


@pytest.mark.parametrize(
    "select",
    [
        "SELECT id, upper(token) AS ticket FROM c",
        "SELECT id, name AS ticket FROM c WHERE token > 'a'",
        "SELECT c.id, s.t AS ticket FROM c LEFT JOIN (SELECT id, token AS t FROM c) s ON s.id = c.id",
    ],
)
def test_a_later_step_that_computes_with_it_is_refused_with_the_reason(select: str) -> None:
    newer = World("CREATE TABLE c (id INTEGER PRIMARY KEY, ticket TEXT)")
    key = {"c": "id" if "JOIN" not in select else "SELECT id FROM c WHERE id IN (:keys)"}
    second = Crossing(table("c", key=key, select=select))
    with pytest.raises(ConfigError, match="set once at an earlier revision") as caught:
        composed(
            World(OLDER), newer, [("r1", Two(given())), ("r2", Two(second))], shapes={"r1": World(NEWER).catalog()}
        )
    assert caught.value.code == "crossing-once" and caught.value.remedy


@pytest.mark.parametrize(
    ("crossing", "found"),
    [
        (given(once=("token", "tokn")), "does not give"),
        (given(once=("token", "ID")), "column of the key"),
        (given("SELECT id, name || random() AS name, 'x' AS token FROM c"), "random"),
    ],
)
def test_what_once_may_not_name_is_refused(crossing: Crossing, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        composed(World(OLDER), World(NEWER), [("r1", Two(crossing))])


def test_once_stands_in_forward_crossings_with_a_select_only() -> None:
    blue, green = two(NEWER, OLDER)
    with pytest.raises(ConfigError, match="reverse crossing"):
        lens_of(
            blue,
            green,
            {"r1": Two(Crossing(table("c", key={"c": "id"}, select="SELECT id, name FROM c")), given())},
            "blue",
        )
    for wrong in ({"once": "token"}, {"once": ("",)}, {"once": ("token",), "select": None, "key": None}):
        with pytest.raises(ConfigError) as caught:
            given(**wrong)
        assert caught.value.code == "broken-crossing"


def test_a_callable_may_make_what_is_set_once() -> None:
    def named(row: Any) -> dict[str, Any]:
        return {**row, "token": object.__hash__(row)}

    crossing = given("SELECT id, name FROM c", row=named)
    assert composed(World(OLDER), World(NEWER), [("r1", Two(crossing))]).tables["c"].once == {"token"}
