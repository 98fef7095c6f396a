"""Two in-memory databases of one shape, blue live, and what tests of sync and verify do with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dbsync.adapters.memory import FakeClock, MemoryDatabase
from dbsync.etl.run import Lens, make_lens
from dbsync.model import Column, Row, Table, Value, quiet
from dbsync.sync.run import Pump

CUSTOMER = Table(
    "Customer",
    (
        Column("id", "INTEGER", nullable=False, key=1),
        Column("name", "TEXT"),
        Column("email", "TEXT"),
    ),
    uniques=(("email",),),
)
LINE = Table(
    "order line",
    (
        Column("order", "TEXT", nullable=False, key=1),
        Column("place", "INTEGER", nullable=False, key=2),
        Column("price", "REAL"),
    ),
)


@dataclass
class Pair:
    """blue (active at first) and green, their clock, and the lens between them."""

    tables: Sequence[Table] = (CUSTOMER, LINE)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.blue = MemoryDatabase("blue", self.tables, clock=self.clock)
        self.green = MemoryDatabase("green", self.tables, clock=self.clock)
        self.epoch = 1
        self.active, self.idle = self.blue, self.green
        for side in (self.blue, self.green):
            side.install("blue", 1)

    def lens(self) -> Lens:
        """The lens as things stand."""
        none: Any = None
        return make_lens({"blue": self.blue, "green": self.green}, self.active.name, none, {})

    def pump(self) -> Pump:
        """A pump from the active to the idle side."""
        return Pump(self.active, self.idle, self.lens(), self.epoch, self.clock, quiet)

    def customers(self, count: int, start: int = 1) -> None:
        """Write so many customers on the active side."""
        with self.active.application.transaction() as tx:
            for n in range(start, start + count):
                tx.execute_put("Customer", {"id": n, "name": f"name {n}", "email": f"{n}@example.org"})

    def put(self, table: str, **row: Value) -> None:
        """One write of the application's."""
        self.active.application.execute_put(table, row)

    def rows(self, side: MemoryDatabase, table: str = "Customer") -> list[Row]:
        """All rows of a table."""
        plan = self.lens().forward.tables[table]
        with side.view() as view:
            return view.by_range(plan.stored, None, None)

    def same(self) -> bool:
        """Whether both sides hold the same rows."""
        return all(self.rows(self.blue, table.name) == self.rows(self.green, table.name) for table in self.tables)

    def hand_over(self) -> None:
        """What a cutover does to the databases, without its gates."""
        old, new = self.active, self.idle
        fenced = old.fence(self.epoch, "test", 10.0, 1.0)
        with old.view() as view:
            final = view.position()
        old.cede(fenced, final, old.fingerprint(), new.name)
        opened = new.open(self.epoch + 1)
        self.epoch += 1
        self.active, self.idle = new, old
        from dbsync.model import Checkpoint

        assert opened.opened_at is not None
        old.close(self.epoch, Checkpoint(opened.identity, opened.opened_at))

    @contextmanager
    def tampered(self) -> Iterator[Any]:
        """A transaction on the idle side behind dbsync's back, as an application that the guard does not stop."""
        from dbsync.adapters.memory_transaction import MemoryTransaction

        with self.idle.exclusive() as state:
            yield MemoryTransaction(state, self.clock, own=False)
