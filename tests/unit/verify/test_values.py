"""The canonical form tells apart whatever a database tells apart."""

from __future__ import annotations

import sys
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from dbsync.verify.values import body, canonical, projected

CELLS = st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=20)


def test_types_and_signs_are_told_apart() -> None:
    forms = [canonical([(value,)]) for value in (1, 1.0, "1", b"1", None, 0.0, -0.0, Decimal(1))]
    assert len(set(forms)) == len(forms)


def test_it_does_not_depend_on_how_a_string_came_about() -> None:
    word = str(b"abcd", "ascii")
    before = canonical([(word, "x"), (word, "x")])
    again = sys.intern(str(b"abcd", "ascii"))
    assert canonical([(again, "x"), ("abcd", "x")]) == before


@given(ROWS, ROWS)
def test_two_parts_put_together_are_the_whole(one: list[tuple[object, ...]], two: list[tuple[object, ...]]) -> None:
    assert bytes(body(canonical(one))) + bytes(body(canonical(two))) == bytes(body(canonical(one + two)))


@given(ROWS, ROWS)
def test_equal_bytes_mean_equal_rows(one: list[tuple[object, ...]], two: list[tuple[object, ...]]) -> None:
    if canonical(one) == canonical(two):
        assert repr(one) == repr(two)


def test_rows_are_projected_on_the_compared_columns() -> None:
    assert projected([(1, 2, 3)], (2, 0)) == [(3, 1)]
    assert projected([(1, 2, 3)], (1,)) == [(2,)]
    assert projected([(1, 2, 3)], None) == [(1, 2, 3)]
