"""Count what going back would cost, over both databases in key ranges. Acts through the sockets only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from dbsync.etl.lens import Lens
from dbsync.etl.loss import Loss, can_lose, filled, may_differ, only_newer, report
from dbsync.etl.merge import same
from dbsync.model import Key, MismatchKind, Report, Row, quiet
from dbsync.ports import Database
from dbsync.sync import batch, snapshot
from dbsync.verify.compare import Comparer, Subject
from dbsync.verify.diff import Tally
from dbsync.verify.values import canonical


def count_losses(active: Database, idle: Database, lens: Lens, report_to: Report = quiet) -> tuple[Loss, ...]:
    """How many rows of the newer side now hold what the older one would not give back, by table and column.

    Only tables that can lose anything are read, at constant memory. A key whose change is on its way is not counted.
    Raises as reading does.
    """
    counting = _Counting(active, idle, lens, report_to)
    tables = can_lose(lens)
    with closing(counting.comparer):
        lossy = {name: counting.lossy(name) for name in tables if may_differ(lens, name)}
        left = {name: counting.left(name) for name in tables if only_newer(lens, name)}
    return report(lens, lossy, left)


class _Counting:
    def __init__(self, active: Database, idle: Database, lens: Lens, report_to: Report) -> None:
        self.lens, self.report = lens, report_to
        self.comparer = Comparer(active, idle, lens)

    def lossy(self, name: str) -> dict[str, int]:
        """By column, the rows that a declared loss makes differ from what forward gives."""
        subject, tally = self.comparer.subjects[name], Tally(name)
        for derived, stored in self._ranges(subject):
            suspects = self.comparer.suspects(subject, derived, stored)
            real = self.comparer.judge(subject, suspects).real if suspects else []
            tally.add([mismatch for mismatch in real if mismatch.kind is MismatchKind.LOSSY])
        return tally.losses

    def left(self, name: str) -> dict[str, int]:
        """By column that only the newer side has, the rows whose value is not the one that they were created with."""
        plan, shape = self.lens.forward.tables[name], self.lens.shapes[name]
        found: dict[str, int] = {}
        given = tuple(c for c in only_newer(self.lens, name) if c in plan.relation.columns)
        subject = self.comparer.subject(plan, shape, (*plan.relation.key, *given))
        for derived, stored in self._ranges(subject) if given else ():
            for difference in self.comparer.different(subject, derived, stored):
                if difference.derived is not None and difference.stored is not None:
                    for column in subject.unlike(difference):
                        found[column] = found.get(column, 0) + 1
        return {**found, **self._unfilled(name)}

    def _unfilled(self, name: str) -> dict[str, int]:
        """The same for columns that forward does not give: the rows whose value is not the column's default."""
        shape, newer = self.lens.shapes[name], self.comparer.newer
        defaults = {c: value for c in only_newer(self.lens, name) if (value := filled(self.lens, name, c)) is not None}
        if not defaults:
            return {}
        relation = batch.plain(shape, (*shape.key, *defaults), newer.capabilities)
        found: dict[str, int] = {}
        created: Row | None = None
        after: Key | None = None
        while True:
            with newer.view() as view:
                rows = view.by_range(relation, after, None, limit=snapshot.MOST_ROWS)
            if rows and created is None:
                with newer.scratch([shape]) as scratch:
                    values = tuple(value for (value,) in defaults.values())
                    scratch.fill(shape.name, relation.columns, [(*rows[0][: len(shape.key)], *values)])
                    (created,) = scratch.by_range(relation, None, None)
            for place, column in enumerate(relation.columns):
                if created is not None and column in defaults:
                    count = sum(not same(row[place], created[place]) for row in rows)
                    found[column] = found.get(column, 0) + count
            if len(rows) < snapshot.MOST_ROWS:
                return {column: count for column, count in found.items() if count}
            after = batch.keys_of(rows[-1:], relation.places())[0]

    def _ranges(self, subject: Subject) -> Iterator[tuple[list[Row], list[Row]]]:
        """Ranges of rows of both sides (derived, stored) that are not the same."""
        after: Key | None = None
        size, rows = snapshot.FIRST_ROWS, 0
        while True:
            derived, stored, upto = self.comparer.read_range(subject, after, size)
            if canonical(derived) != canonical(stored):
                yield derived, stored
            rows += len(stored)
            self.report(f"losses of {subject.name}", rows, None)
            size = snapshot.next_rows(stored, size)
            if upto is None:
                return
            after = upto
