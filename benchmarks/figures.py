"""How a figure is told: minimum, median and maximum, against its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One line of the table. `limit` says what must hold of the median."""

    name: str
    values: Sequence[float]
    limit: str
    good: bool
    unit: str = ""

    def line(self) -> str:
        """The figure in one line."""
        low, mid, high = min(self.values), median(self.values), max(self.values)
        mark = "ok  " if self.good else "MISS"
        numbers = f"{low:10.3f} {mid:10.3f} {high:10.3f} {self.unit}"
        return f"{mark} {self.name:<58} {numbers:<36} {self.limit}  (n={len(self.values)})"


def told(figures: Sequence[Figure]) -> str:
    """The table."""
    head = f"     {'':<58} {'min':>10} {'median':>10} {'max':>10}"
    return "\n".join([head, *(figure.line() for figure in figures)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(len(ordered) * share + 0.999999) - 1))]
