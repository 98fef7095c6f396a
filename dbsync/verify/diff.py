"""Where two sets of rows differ, by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dbsync.model import Key, Mismatch, MismatchKind, Row, TableResult
from dbsync.verify.values import canonical

SHOWN_KEYS = 20

ByKey = dict[Key, tuple[Key, Row]]
"""Rows by the form of their key under which equal keys are equal, with the key as it is written."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key (folded, and as written) with the row that forward(older) and the one that newer has there."""

    folded: Key
    key: Key
    derived: Row | None
    stored: Row | None


def by_key(rows: Iterable[Row], places: Sequence[int], folded: Callable[[Key], Key]) -> ByKey:
    """The rows by key."""
    result: ByKey = {}
    for row in rows:
        key = tuple(row[at] for at in places)
        result[folded(key)] = (key, row)
    return result


def differences(derived: ByKey, stored: ByKey) -> list[Difference]:
    """The keys at which the two do not hold the same row, those of `stored` first."""
    found = []
    for folded, (key, row) in stored.items():
        other = derived.get(folded)
        if other is None:
            found.append(Difference(folded, key, None, row))
        elif canonical([other[1]]) != canonical([row]):
            found.append(Difference(folded, key, other[1], row))
    found += [Difference(folded, key, row, None) for folded, (key, row) in derived.items() if folded not in stored]
    return found


def kind_of(difference: Difference, newer_is_idle: bool) -> MismatchKind:
    """What the idle side does wrong there: it lacks the row, has one too many, or another."""
    if difference.derived is not None and difference.stored is not None:
        return MismatchKind.DIFFERENT
    idle = difference.stored if newer_is_idle else difference.derived
    return MismatchKind.MISSING if idle is None else MismatchKind.EXTRA


def losses(mismatches: Iterable[Mismatch]) -> dict[str, dict[str, int]]:
    """By table and column, in how many of the lossy rows it differs."""
    found: dict[str, dict[str, int]] = {}
    for mismatch in mismatches:
        columns = found.setdefault(mismatch.table, {}) if mismatch.columns else {}
        for column in mismatch.columns:
            columns[column] = columns.get(column, 0) + 1
    return found


@dataclass
class Tally:
    """What has been found so far in one table."""

    name: str
    rows: int = 0
    digest: str = ""
    counts: dict[MismatchKind, int] | None = None
    shown: tuple[Mismatch, ...] = ()
    losses: dict[str, int] = field(default_factory=dict)

    def add(self, mismatches: Sequence[Mismatch]) -> None:
        """Count mismatches; the first ones are kept by key."""
        counts = self.counts = self.counts or {}
        for mismatch in mismatches:
            counts[mismatch.kind] = counts.get(mismatch.kind, 0) + 1
            for column in mismatch.columns:
                self.losses[column] = self.losses.get(column, 0) + 1
        told = [mismatch for mismatch in mismatches if mismatch.kind is not MismatchKind.LOSSY]
        self.shown = (*self.shown, *told[: SHOWN_KEYS - len(self.shown)])

    def result(self) -> TableResult:
        """The finding."""
        counts: Mapping[MismatchKind, int] = self.counts or {}
        return TableResult(
            name=self.name,
            rows=self.rows,
            missing=counts.get(MismatchKind.MISSING, 0),
            extra=counts.get(MismatchKind.EXTRA, 0),
            different=counts.get(MismatchKind.DIFFERENT, 0),
            lossy=counts.get(MismatchKind.LOSSY, 0),
            digest=self.digest,
            keys=self.shown,
            losses=dict(sorted(self.losses.items())),
        )
