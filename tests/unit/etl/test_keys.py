"""Rules that carry changed keys from table to table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbsync.etl.keys import KeyRule, identity
from tests.unit.etl.etl_world import World

NOWHERE = World("")
KEYS = st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=1), st.integers(0, 1)), max_size=5)


@given(KEYS, st.permutations([0, 1, 2]), st.permutations([0, 1, 2]))
def test_a_rule_followed_by_another_gives_what_the_two_give_one_after_the_other(
    keys: list[tuple[int, str, int]], first: list[int], second: list[int]
) -> None:
    one, two = KeyRule(tuple(first)), KeyRule(tuple(second))
    assert one.then(second).keys(NOWHERE, keys) == two.keys(NOWHERE, one.keys(NOWHERE, keys))


@given(KEYS, st.permutations([0, 1, 2]))
def test_a_rule_that_turns_goes_back_to_the_keys_that_it_came_from(
    keys: list[tuple[int, str, int]], places: list[int]
) -> None:
    rule = KeyRule(tuple(places))
    assert rule.turns(3) and rule.back(rule.keys(NOWHERE, keys)) == list(dict.fromkeys(keys))


def test_a_projection_onto_a_part_of_the_key_gives_each_key_once_and_does_not_turn() -> None:
    rule = KeyRule((0,))
    assert rule.keys(NOWHERE, [(1, 2), (1, 3)]) == [(1,)] and not rule.turns(2)
    assert identity(2).turns(2)


def test_a_key_that_is_null_touches_nothing() -> None:
    assert KeyRule((0,), "SELECT NULL FROM (SELECT 1) WHERE 1 IN (:keys)").keys(NOWHERE, [(1,)]) == []
