"""Differences by key, and what they are called from the idle side's point of view."""

from __future__ import annotations

from dbsync.model import Mismatch, MismatchKind
from dbsync.verify.diff import SHOWN_KEYS, Tally, by_key, differences, kind_of


def test_missing_extra_and_different_rows_are_told_apart_whichever_side_is_idle() -> None:
    derived = by_key([(1, "a"), (2, "b"), (3, 1)], (0,), tuple)
    stored = by_key([(1, "a"), (3, 1.0), (4, "d")], (0,), tuple)
    found = {d.key: d for d in differences(derived, stored)}
    assert set(found) == {(2,), (3,), (4,)}
    kinds = {key: kind_of(d, newer_is_idle=True) for key, d in found.items()}
    assert kinds == {(2,): MismatchKind.MISSING, (3,): MismatchKind.DIFFERENT, (4,): MismatchKind.EXTRA}
    turned = {key: kind_of(d, newer_is_idle=False) for key, d in found.items()}
    assert turned == {(2,): MismatchKind.EXTRA, (3,): MismatchKind.DIFFERENT, (4,): MismatchKind.MISSING}


def test_a_tally_counts_all_and_names_the_first_without_the_lossy_ones() -> None:
    tally = Tally("t")
    tally.add([Mismatch("t", (0,), MismatchKind.LOSSY)])
    tally.add([Mismatch("t", (n,), MismatchKind.EXTRA) for n in range(1, 100)])
    result = tally.result()
    assert (result.lossy, result.extra, len(result.keys)) == (1, 99, SHOWN_KEYS)
    assert result.keys[0].key == (1,)
    assert not result.equal
