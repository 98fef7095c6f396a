"""What going back would cost: by table and column of the newer shape, how many rows hold what would not come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dbsync.etl.lens import Lens
from dbsync.etl.losing import ACCEPT, KEEP, REFUSE
from dbsync.model import Value

Counts = Mapping[str, Mapping[str, int]]
"""Rows by newer table and column."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One column of the newer shape, and how many rows now hold a value there that the older shape cannot give back."""

    table: str
    column: str
    rows: int
    policy: str
    why: str

    def document(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "table": self.table,
            "column": self.column,
            "rows": self.rows,
            "policy": self.policy,
            "why": self.why,
        }


def report(lens: Lens, lossy: Counts, left: Counts) -> tuple[Loss, ...]:
    """The losses: every column with a declared policy, and every other one in which rows lose something.

    `lossy` counts values that the older shape does not give back as they are; `left` values of columns that only the
    newer shape has, which are left behind there: reported, and refused only where that was declared.
    """
    found: list[Loss] = []
    for name, plan in lens.forward.tables.items():
        rows, beside = lossy.get(name, {}), left.get(name, {})
        for column in _spelt(lens, name, (*plan.losing, *rows, *beside)):
            stays = column in only_newer(lens, name)
            policy = plan.losing.get(column, ACCEPT if stays else REFUSE)
            count = (beside if stays else rows).get(column, 0)
            found.append(Loss(name, column, count, policy, _why(lens, name, column, policy, stays)))
    return tuple(sorted(found, key=lambda loss: (loss.table, loss.column)))


def added(losses: Iterable[Loss], more: Iterable[Loss]) -> tuple[Loss, ...]:
    """The losses with those that came later. A row that is counted in both counts twice."""
    found = {(loss.table, loss.column): loss for loss in losses}
    for loss in more:
        had = found.get((loss.table, loss.column))
        found[loss.table, loss.column] = loss if had is None else replace(had, rows=had.rows + loss.rows)
    return tuple(found[key] for key in sorted(found))


def refused(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Those that stand in the way of going back."""
    return tuple(loss for loss in losses if loss.rows and loss.policy == REFUSE)


def told(losses: Sequence[Loss]) -> str:
    """The losses in a few words: `track.seconds in 3 rows`."""
    parts = [f"{loss.table}.{loss.column} in {loss.rows} {'row' if loss.rows == 1 else 'rows'}" for loss in losses]
    more = f" and {len(parts) - 5} more columns" if len(parts) > 5 else ""
    return ", ".join(parts[:5]) + more


def ways_out(losses: Sequence[Loss]) -> str:
    """What can be done about them."""
    names = ", ".join(f'"{column}": "keep"' for column in dict.fromkeys(loss.column for loss in losses[:3]))
    return (
        f"add --accept-loss, or declare a policy in the forward crossing: losing={{{names}}} keeps the values beside"
        ' the older rows and loses nothing, "accept" gives them up'
    )


def can_lose(lens: Lens) -> tuple[str, ...]:
    """The newer tables of which any value may not come back; nothing else has to be counted."""
    return tuple(name for name in lens.forward.tables if may_differ(lens, name) or only_newer(lens, name))


def watches(lens: Lens) -> bool:
    """Whether going back is refused while a column that only the newer shape has holds values: no verify sees those."""
    return any(
        plan.losing.get(column) == REFUSE
        for name, plan in lens.forward.tables.items()
        if plan.losing
        for column in only_newer(lens, name)
    )


def may_differ(lens: Lens, name: str) -> bool:
    """Whether rows of a newer table may differ from what forward gives by declaration."""
    plan = lens.forward.tables[name]
    readers = lens.reverse.targets_of(name)
    return bool(plan.losing) or any(lens.reverse.tables[reader].loses for reader in readers)


def only_newer(lens: Lens, name: str) -> tuple[str, ...]:
    """The columns of a newer table that nothing of the older side stands for, in the table's order."""
    plan, shape = lens.forward.tables[name], lens.shapes.get(name)
    if not lens.path or shape is None:
        return ()
    kept = lens.kept.get(name, frozenset()) - plan.once
    return tuple(c.name for c in shape.columns if c.name in kept or filled(lens, name, c.name) is not None)


def filled(lens: Lens, name: str, column: str) -> tuple[Value] | None:
    """What a new row has in a column that forward does not give: its default, where that is plain (else None)."""
    plan, shape = lens.forward.tables[name], lens.shapes[name]
    there = shape.column(column)
    if there is None or there.generated or there.name in plan.relation.columns:
        return None
    return literal(there.default)


def literal(default: str | None) -> tuple[Value] | None:
    """The value that a column's default says, in a tuple; None where it is not a plain one."""
    text = (default or "NULL").strip()
    while text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    if text.casefold() == "null":
        return (None,)
    if len(text) >= 2 and text[0] == text[-1] == "'" and "'" not in text[1:-1].replace("''", ""):
        return (text[1:-1].replace("''", "'"),)
    for kind in (int, float):
        try:
            return (kind(text),)
        except ValueError:
            continue
    return None


def _spelt(lens: Lens, name: str, columns: Iterable[str]) -> list[str]:
    wanted = set(columns)
    shape = lens.shapes.get(name)
    return [column.name for column in shape.columns if column.name in wanted] if shape is not None else sorted(wanted)


def _why(lens: Lens, name: str, column: str, policy: str, stays: bool) -> str:
    if stays:
        return f"only {lens.newer} has this column: its values stay there"
    if policy == KEEP:
        return f"kept beside the rows of {lens.older}: comes back"
    loses = [(older, lens.reverse.tables[older].loses) for older in lens.reverse.targets_of(name)]
    same = [why for _, reasons in loses for own, why in reasons.items() if own.casefold() == column.casefold()]
    if same:
        return "; ".join(dict.fromkeys(same))
    every = dict.fromkeys(f"{older}.{own}: {why}" for older, reasons in loses for own, why in reasons.items())
    return "; ".join(every) or f"{lens.older} has no place for it"
