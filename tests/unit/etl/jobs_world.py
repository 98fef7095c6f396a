"""Two files with orders, tables that jobs write, and an application that stamps its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbsync.adapters.memory import FakeClock
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.adapters.sqlite.rows import SqliteView
from dbsync.etl import Job
from dbsync.etl.load import run_job
from dbsync.etl.runs import Run
from dbsync.model import Checkpoint

SHAPE = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT, total INTEGER, changed_at TEXT)",
    "CREATE TABLE loose (id INTEGER PRIMARY KEY, day TEXT, total INTEGER, changed_at TEXT)",
    "CREATE TABLE totals (day TEXT PRIMARY KEY, total INTEGER NOT NULL CHECK (total < 1000000))",
    "CREATE TABLE copies (id INTEGER PRIMARY KEY, total INTEGER)",
)
"""`loose` is excluded as well, so its changes are not recorded."""

LEFT_OUT = ("totals", "copies", "loose")

SUMS = (
    "SELECT day, SUM(total) AS total FROM orders WHERE day IN"
    " (SELECT day FROM orders WHERE changed_at >= :since AND changed_at < :until) GROUP BY day"
)
EACH = "SELECT id, total FROM {table} WHERE changed_at >= :since AND changed_at < :until"


def sums(**given: Any) -> Job:
    """Whole days, summed anew where one of their orders changed."""
    return Job(**({"extract": SUMS, "into": "totals", "key": "day", "overlap": "5m"} | given))


def each(of: str = "orders", **given: Any) -> Job:
    """Each order by itself, appended."""
    made = {"extract": EACH.format(table=of), "into": "copies", "key": "id", "mode": "append"}
    return Job(**(made | given))


class Shifted(SqliteDatabase):
    """A file whose clock is off by `shift`."""

    shift = timedelta()

    @contextmanager
    def view(self) -> Iterator[SqliteView]:
        with super().view() as view:
            began = view.now() + self.shift
            view.now = lambda: began  # type: ignore[method-assign]
            yield view


class World:
    """Blue is active, green idle, both with the whole shape."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock(datetime.now(UTC))
        self.active, self.idle, self.epoch = "blue", "green", 1
        self.databases = {name: self.make(name) for name in ("blue", "green")}

    def make(self, name: str) -> Shifted:
        """A new file."""
        path = self.folder / f"{name}.db"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            for statement in SHAPE:
                connection.execute(statement)
        database = Shifted(name, f"sqlite:///{path}", LEFT_OUT)
        database.install(self.active, self.epoch)
        return database

    def dispose(self) -> None:
        for database in self.databases.values():
            database.dispose()

    @contextmanager
    def application(self, name: str = "") -> Iterator[sqlite3.Connection]:
        """A transaction of the application's."""
        path = self.folder / f"{name or self.active}.db"
        with closing(sqlite3.connect(path, isolation_level=None, timeout=1.0)) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    def stamp(self, ago: float = 0.0) -> str:
        """What the application writes into changed_at, by the active database's clock."""
        moment = datetime.now(UTC) + self.databases[self.active].shift - timedelta(seconds=ago)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")

    def order(self, number: int, day: str = "monday", total: int = 1, table: str = "orders", ago: float = 0.0) -> None:
        with self.application() as connection:
            values = (number, day, total, self.stamp(ago))
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", values)

    def run(self, job: Job, name: str = "job", **given: Any) -> Run:
        self.clock.advance(1)
        return run_job(name, job, self.databases, self.active, self.idle, self.epoch, self.clock, **given)

    def rows(self, table: str, name: str = "") -> list[Any]:
        with self.application(name or self.idle) as connection:
            return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()

    def documents(self, kind: str, name: str = "") -> dict[str, dict[str, Any]]:
        with self.databases[name or self.idle].view() as view:
            return view.load_all(kind)

    def handover(self) -> None:
        """The other side becomes active, with the real transitions of both guards."""
        old, new = self.databases[self.active], self.databases[self.idle]
        fenced = old.fence(self.epoch, "me", 30.0, 1.0)
        with SqliteDatabase.view(old) as view:
            final = view.position()
        old.cede(fenced, final, old.fingerprint(), new.name)
        guard = new.open(self.epoch + 1)
        assert guard.opened_at is not None
        old.close(self.epoch + 1, Checkpoint(guard.identity, guard.opened_at))
        self.active, self.idle, self.epoch = self.idle, self.active, self.epoch + 1


def once(action: Callable[[], Any]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """A transform that does something at the first batch, and changes nothing."""
    done: list[bool] = []

    def transform(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not done:
            done.append(True)
            action()
        return rows

    return transform


def undated(run: Run) -> Run:
    """A run without what is never the same twice."""
    return replace(run, run="", since=None, until=None, started=None, ended=None)
