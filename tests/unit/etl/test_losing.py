"""Policies for what the older shape cannot hold: declared in forward, carried along the path, kept under one name."""

from __future__ import annotations

import pytest

from dbsync.errors import ConfigError
from dbsync.etl.compose import Composition, compose
from dbsync.etl.crossing import Crossing, table
from dbsync.model import Catalog, Direction
from tests.unit.etl.etl_world import EMBEDDED, Two, World

OLD = "CREATE TABLE track (id INTEGER PRIMARY KEY, ms INTEGER, name TEXT)"
MIDDLE = "CREATE TABLE track (id INTEGER PRIMARY KEY, seconds REAL, name TEXT)"
NEW = "CREATE TABLE song (song_id INTEGER PRIMARY KEY, length REAL, minutes REAL, name TEXT COLLATE NOCASE)"

FIRST = table(
    "track",
    key={"track": "id"},
    select="SELECT id, ms / 1000.0 AS seconds, name FROM track",
    losing={"Seconds": "keep", "name": "accept"},
)


def shape(script: str) -> Catalog:
    return World(script).catalog()


def over(second: Crossing | None, newer: str = NEW, first: Crossing | None = None) -> Composition:
    """From OLD over MIDDLE to NEW."""
    steps = [("r1", Two(first or Crossing(FIRST))), ("r2", Two(second))]
    return compose(shape(OLD), shape(newer), steps, Direction.FORWARD, {"r1": shape(MIDDLE)}, EMBEDDED)


SECOND = "SELECT id AS song_id, seconds AS length, seconds / 60.0 AS minutes, name FROM track"


def test_a_policy_goes_with_the_column_that_is_passed_on_and_keeps_the_name_of_its_declaration() -> None:
    plan = over(Crossing(table("song", key={"track": "id"}, select=SECOND))).tables["song"]
    assert plan.losing == {"length": "keep", "name": "accept"}
    (kept,) = plan.relation.kept
    assert (kept.column, kept.key, kept.table, kept.name) == ("length", ("song_id",), "track@r1", "seconds")
    assert plan.bare.kept == ()
    assert plan.bare.sql == plan.relation.sql


def test_a_later_revision_may_say_otherwise_and_finds_what_was_kept_before() -> None:
    said = {"name": "keep", "length": "keep", "minutes": "refuse"}
    plan = over(Crossing(table("song", key={"track": "id"}, select=SECOND, losing=said))).tables["song"]
    assert plan.losing == said
    assert [(each.column, each.table, each.name) for each in plan.relation.kept] == [
        ("length", "track@r1", "seconds"),
        ("name", "track@r1", "name"),
    ]


def test_by_name_it_goes_on_and_with_another_key_it_is_kept_under_a_name_of_its_own() -> None:
    plan = over(None, MIDDLE).tables["track"]
    assert [(each.column, each.table, each.name) for each in plan.relation.kept] == [("seconds", "track@r1", "seconds")]
    newer = "CREATE TABLE song (song_id INTEGER, part INTEGER, length REAL, PRIMARY KEY (song_id, part))"
    sql = "SELECT id AS song_id, 1 AS part, seconds AS length FROM track"
    key = {"track": {"song_id": "id"}}
    second = Crossing(table("song", key=key, select=sql, cardinality="1:n"))
    plan = over(second, newer).tables["song"]
    assert [(each.table, each.name) for each in plan.relation.kept] == [("song@r2", "length")]


def test_keep_is_part_of_the_hash_and_the_other_policies_are_not() -> None:
    def hashed(**losing: str) -> str:
        sql = FIRST.select
        plain = Crossing(table("track", key={"track": "id"}, select=sql, losing=losing))
        return over(None, MIDDLE, plain).tables["track"].hash

    assert hashed() == hashed(seconds="accept") == hashed(seconds="refuse")
    assert hashed() != hashed(seconds="keep") != hashed(name="keep")


@pytest.mark.parametrize(
    ("losing", "code", "found"),
    [
        ({"nothing": "keep"}, "unknown-column", "losing names nothing"),
        ({"id": "accept"}, "broken-crossing", "a column of the key"),
        ({"note": "keep"}, "broken-crossing", "no crossing gives it"),
    ],
)
def test_a_policy_that_means_nothing_is_refused_by_name(losing: dict[str, str], code: str, found: str) -> None:
    newer = "CREATE TABLE track (id INTEGER PRIMARY KEY, seconds REAL, name TEXT, note TEXT)"
    with pytest.raises(ConfigError, match=found) as caught:
        over(Crossing(table("track", losing=losing)), newer)
    assert caught.value.code == code


def test_a_policy_stands_in_forward_and_is_one_of_three() -> None:
    with pytest.raises(ConfigError, match="refuse, accept, keep"):
        table("track", losing={"seconds": "forget"})
    reverse = Two(Crossing(FIRST), Crossing(table("track", losing={"ms": "keep"})))
    with pytest.raises(ConfigError, match="columns of the newer shape"):
        compose(shape(OLD), shape(MIDDLE), [("r1", reverse)], Direction.REVERSE, {}, EMBEDDED)
