"""The three-way merge of one row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbsync.etl.merge import alike, merge

CELL = st.none() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, "", "a", b"", b"a"])
ROWS = st.tuples(CELL, CELL, CELL)


@given(ROWS, ROWS)
def test_what_nobody_changed_over_there_stays_as_it_is_here(ours: tuple, base: tuple) -> None:  # type: ignore[type-arg]
    assert alike(merge(ours, base, base), ours)


@given(ROWS, ROWS, ROWS)
def test_each_cell_is_theirs_where_they_changed_it_and_ours_elsewhere(ours: tuple, base: tuple, theirs: tuple) -> None:  # type: ignore[type-arg]
    merged = merge(ours, base, theirs)
    for place in range(3):
        changed = not alike((base[place],), (theirs[place],))
        assert alike((merged[place],), (theirs[place] if changed else ours[place],))


@given(ROWS, ROWS)
def test_a_row_that_is_missing_here_or_cannot_come_back_is_taken_whole(row: tuple, theirs: tuple) -> None:  # type: ignore[type-arg]
    assert merge(None, row, theirs) == theirs
    assert merge(row, None, theirs) == theirs


@given(ROWS, ROWS, ROWS)
def test_merging_twice_is_merging_once(ours: tuple, base: tuple, theirs: tuple) -> None:  # type: ignore[type-arg]
    once = merge(ours, base, theirs)
    assert alike(merge(once, base, theirs), once)


def test_a_number_of_another_type_is_a_change() -> None:
    assert alike(merge((1,), (1,), (1.0,)), (1.0,))
