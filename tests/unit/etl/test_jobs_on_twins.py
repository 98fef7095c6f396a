"""Jobs between two twins in memory, with a clock that is told where it stands."""

from __future__ import annotations

from datetime import timedelta

from dbsync.adapters.memory import FakeClock, MemoryDatabase
from dbsync.adapters.memory_rows import ordered
from dbsync.etl import Job
from dbsync.etl.load import run_job
from dbsync.etl.runs import Run
from dbsync.model import Column, Relation, Table

ORDERS = Table("orders", (Column("id", "INTEGER", False, key=1), Column("changed_at", "TEXT")))
COPIES = Table("copies", (Column("id", "INTEGER", False, key=1), Column("seen", "INTEGER")))
BOUNDED = "SELECT id FROM orders WHERE changed_at >= :since AND changed_at < :until"
HOUR = 3600.0


class Moved(FakeClock):
    """A clock that may also be set."""

    offset = timedelta()

    def now(self):  # type: ignore[no-untyped-def]
        return super().now() + self.offset


def test_a_source_clock_set_back_two_hours_skips_and_doubles_nothing() -> None:
    clock = Moved()
    blue, green = (MemoryDatabase(name, [ORDERS, COPIES], ["copies"], clock) for name in ("blue", "green"))
    for database in (blue, green):
        database.install("blue")
    job = Job(extract=BOUNDED, into="copies", key="id", mode="append", overlap="5m")

    def run() -> Run:
        return run_job("job", job, {"blue": blue, "green": green}, "blue", "green", 1, FakeClock())

    def order(number: int) -> None:
        stamp = clock.now().strftime("%Y-%m-%d %H:%M:%S.%f")
        blue.application.execute_put("orders", {"id": number, "changed_at": stamp})

    warned = []
    for number in range(12):
        if number == 6:
            clock.offset = timedelta(hours=-2)
        order(number)
        clock.advance(HOUR / 4)
        if number % 3 == 2:
            warned.append(run().warnings)
    clock.advance(1)
    run()
    every = Relation("copies", ("id",), ("id",), "SELECT id FROM copies")
    with green.view() as view:
        keys = view.by_range(every, None, None)
    assert sorted(keys, key=ordered) == [(number,) for number in range(12)]
    assert warned == [(), (), ("clock-went-back",), ()]
