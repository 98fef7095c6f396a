"""Rules that carry changed keys from table to table."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dbsync.etl.keys import KeyRule, Place, Question, asked, identity, projected
from tests.unit.etl.etl_world import World

NOWHERE = World("")
KEYS = st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=1), st.integers(0, 1)), max_size=5)
PLACES = st.lists(st.none() | st.integers(0, 2), min_size=1, max_size=4)


def filled(rule: KeyRule, keys: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The keys at full width: a star where any value may stand."""
    made = []
    for key in rule.keys(NOWHERE, keys):
        values = dict(zip(rule.known, key, strict=True))
        made.append(tuple(values.get(place, "*") for place in range(len(rule.places))))
    return made


@given(KEYS, PLACES, st.data())
def test_a_rule_followed_by_another_gives_what_the_two_give_one_after_the_other(
    keys: list[tuple[int, str, int]], first: list[Place], data: st.DataObject
) -> None:
    second = data.draw(st.lists(st.none() | st.integers(0, len(first) - 1), min_size=1, max_size=4))
    one, two = projected(first), projected(second)
    after = [tuple("*" if p is None else key[p] for p in second) for key in filled(one, keys)]
    assert filled(one.then(two), keys) == list(dict.fromkeys(after))


@given(PLACES, st.data())
def test_rules_may_be_joined_in_any_order(first: list[Place], data: st.DataObject) -> None:
    def drawn(width: int) -> KeyRule:
        return projected(data.draw(st.lists(st.none() | st.integers(0, width - 1), min_size=1, max_size=4)))

    one = projected(first)
    two = drawn(len(first))
    three = drawn(len(two.places))
    assert one.then(two).then(three) == one.then(two.then(three))


@given(KEYS, st.permutations([0, 1, 2]))
def test_a_rule_that_turns_goes_back_to_the_keys_that_it_came_from(
    keys: list[tuple[int, str, int]], places: list[int]
) -> None:
    rule = projected(places)
    assert rule.turns(3) and rule.origin == (0, 1, 2)
    assert rule.back(rule.keys(NOWHERE, keys)) == list(dict.fromkeys(keys))


def test_a_projection_onto_a_part_of_the_key_gives_each_key_once_and_goes_back_to_that_part() -> None:
    rule = projected((1,))
    assert rule.keys(NOWHERE, [(1, 2), (3, 2)]) == [(2,)] and not rule.turns(2)
    assert rule.origin == (1,) and rule.back([(2,)]) == [(2,)]
    assert identity(2).turns(2)


def test_a_partial_key_knows_some_columns_and_turns_back_from_a_whole_one() -> None:
    rule = projected((None, 0))
    assert rule.partial and rule.known == (1,) and rule.keys(NOWHERE, [(7,), (7,)]) == [(7,)]
    assert not rule.turns(1) and rule.origin == (0,) and rule.back([("any", 7), ("other", 7)]) == [(7,)]


def test_a_key_that_is_null_touches_nothing() -> None:
    question = Question("SELECT NULL FROM (SELECT 1) WHERE 1 IN (:keys)", takes=1, gives=1)
    rule = asked(question, (0,), (0,))
    assert rule.keys(NOWHERE, [(1,)]) == [] and rule.looks_back and rule.origin == ()
    assert not asked(Question("SELECT 1", 1, 1, settled=True), (0,), (0,)).looks_back


def test_questions_stand_between_projections_and_both_count_for_the_hash() -> None:
    question = Question("SELECT k.k1 + 10, k.k1 + 20 FROM (:keys) AS k", takes=1, gives=2)
    rule = projected((1, 0)).then(asked(question, (1,), (1, 0))).then(projected((1,)))
    assert rule.words() == [[0], question.sql, [0]]
    assert rule.keys(NOWHERE, [(1, 5)]) == [(11,)]
