"""How far a copy has got, and how large its next chunk may be."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbsync.sync import snapshot

CELLS = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.booleans())


@given(st.lists(CELLS, min_size=1, max_size=4))
def test_a_key_comes_back_from_json_as_it_was(cells: list[Any]) -> None:
    stored = json.loads(json.dumps(snapshot.encode_key(tuple(cells))))
    back = snapshot.decode_key(stored)
    assert back == tuple(cells)
    assert [type(cell) for cell in back] == [type(cell) for cell in cells]


@pytest.mark.parametrize("cell", [Decimal("1.50"), datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2)])
def test_typed_cells_come_back_too(cell: Any) -> None:
    assert snapshot.decode_key(json.loads(json.dumps(snapshot.encode_key((cell,))))) == (cell,)


def test_a_stored_key_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        snapshot.decode_key([{"uuid": "x"}])


def test_a_copy_that_died_goes_on_from_its_cursor_only_under_the_same_plan() -> None:
    half = snapshot.Copy("h1", cursor=(b"\x00", 5), rows=10).document()
    assert snapshot.resumed(half, "h1").cursor == (b"\x00", 5)
    assert snapshot.resumed(half, "h2") == snapshot.Copy("h2")


def test_a_complete_copy_under_another_plan_begins_again_as_stale() -> None:
    done = snapshot.Copy("h1", done=True, rows=10).document()
    assert snapshot.current(done, "h1")
    assert not snapshot.current(done, "h2")
    assert snapshot.resumed(done, "h2") == snapshot.Copy("h2", stale=True)
    assert not snapshot.Copy("h2", stale=True).advanced(None, 4, done=True).stale


def test_wide_rows_make_small_chunks_and_narrow_ones_grow_to_the_most() -> None:
    assert snapshot.next_rows([(1, "x")] * 64, 64) == 64 * 16
    assert snapshot.next_rows([(1, "x")] * 5000, 5000) == snapshot.MOST_ROWS
    assert snapshot.next_rows([(1, b"x" * 10_000_000)] * 64, 64) == 1
