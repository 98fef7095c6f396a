"""Two SQLite files of different shape with a crossing between them, for tests of sync and verify on real rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.adapters.clock import SystemClock
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl import Crossing, table
from dbsync.etl.run import Lens, make_lens
from dbsync.model import Checkpoint, quiet
from dbsync.sync.run import Pump
from dbsync.verify.run import VerifyReport, verify

OLD = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
CREATE TABLE Customer (CustomerId INTEGER PRIMARY KEY AUTOINCREMENT, FirstName TEXT NOT NULL, LastName TEXT NOT NULL,
  Email TEXT UNIQUE, Street TEXT);
CREATE TABLE "order line" ("Größe" TEXT COLLATE NOCASE, place INTEGER, price NUMERIC, picture BLOB,
  PRIMARY KEY ("Größe", place)) WITHOUT ROWID;
"""
NEW = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE customer (CustomerId INTEGER PRIMARY KEY AUTOINCREMENT, FullName TEXT NOT NULL, Email TEXT UNIQUE);
CREATE TABLE address (CustomerId INTEGER PRIMARY KEY, Street TEXT);
CREATE TABLE "order line" ("Größe" TEXT COLLATE NOCASE, place INTEGER, price NUMERIC, picture BLOB,
  PRIMARY KEY ("Größe", place)) WITHOUT ROWID;
"""

FORWARD = Crossing(
    table(
        "customer",
        key={"Customer": "CustomerId"},
        select="SELECT CustomerId, FirstName || ' ' || LastName AS FullName, Email FROM Customer",
    ),
    table("address", key={"Customer": "CustomerId"}, select="SELECT CustomerId, Street FROM Customer"),
)
REVERSE = Crossing(
    table(
        "Customer",
        key={"customer": "CustomerId", "address": "CustomerId"},
        select="""SELECT c.CustomerId, substr(c.FullName, 1, instr(c.FullName || ' ', ' ') - 1) AS FirstName,
                   substr(c.FullName, instr(c.FullName || ' ', ' ') + 1) AS LastName, c.Email, a.Street
            FROM customer AS c LEFT JOIN address AS a ON a.CustomerId = c.CustomerId""",
        loses={"LastName": "split at the first blank"},
    ),
)


class Crossed:
    """What one revision's crossing file gives."""

    forward: Crossing = FORWARD
    reverse: Crossing = REVERSE
    path = Path("r2.py")


class Path12:
    """A migrator that knows r1 and r2."""

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        return ("r2",) if (older, newer) == ("r1", "r2") else ()


@dataclass
class Files:
    """blue (live at first, the older shape) and green."""

    folder: Path
    shapes: tuple[str, str] = (OLD, NEW)

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.crossed = Crossed()
        self.epoch = 1
        self.databases: dict[str, Any] = {}
        for name, shape in zip(("blue", "green"), self.shapes, strict=True):
            with self.application(name) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(shape)
            self.databases[name] = SqliteDatabase(name, f"sqlite:///{self.folder / name}.db")
        for database in self.databases.values():
            database.install("blue", 1)
        self.active, self.idle = self.databases["blue"], self.databases["green"]

    @contextmanager
    def application(self, name: str) -> Iterator[sqlite3.Connection]:
        """A connection as an application would open it."""
        connection = sqlite3.connect(self.folder / f"{name}.db", isolation_level=None, timeout=5.0)
        try:
            yield connection
        finally:
            connection.close()

    def write(self, sql: str, *values: object, side: str | None = None) -> None:
        """One statement of the application's on the active side."""
        with self.application(side or self.active.name) as connection:
            connection.execute(sql, values)

    def tamper(self, sql: str, *values: object) -> None:
        """One statement on the idle side behind dbsync's back, past its guard."""
        with self.application(self.idle.name) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE dbsync_guard SET state = 'open'")
            connection.execute(sql, values)
            connection.execute("UPDATE dbsync_guard SET state = 'closed'")
            connection.execute("COMMIT")

    def customers(self, count: int, start: int = 1) -> None:
        """Write so many customers into blue."""
        with self.application("blue") as connection:
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO Customer VALUES (?, ?, ?, ?, ?)",
                ((n, f"Mary Ann {n}", "Berg", f"{n}@example.org", f"street {n}") for n in range(start, start + count)),
            )
            connection.execute("COMMIT")

    def lens(self) -> Lens:
        """The lens as things stand."""
        migrator: Any = Path12()
        return make_lens(self.databases, self.active.name, migrator, {"r2": self.crossed})

    def pump(self) -> Pump:
        """A pump from the active to the idle side."""
        return Pump(self.active, self.idle, self.lens(), self.epoch, self.clock, quiet)

    def verify(self, **options: Any) -> VerifyReport:
        """Verify as things stand."""
        return verify(self.active, self.idle, self.lens(), self.epoch, self.clock, quiet, **options)

    def rows(self, name: str, sql: str) -> Sequence[tuple[object, ...]]:
        """Rows as an application sees them."""
        with self.application(name) as connection:
            return connection.execute(sql).fetchall()

    def hand_over(self) -> None:
        """What a cutover does to the databases, without its gates."""
        old, new = self.active, self.idle
        fenced = old.fence(self.epoch, "test", 10.0, 1.0)
        with old.view() as view:
            final = view.position()
        self.pump().drain(final)
        old.cede(fenced, final, old.fingerprint(), new.name)
        opened = new.open(self.epoch + 1)
        self.epoch += 1
        self.active, self.idle = new, old
        old.close(self.epoch, Checkpoint(opened.identity, opened.opened_at))
        self.pump().adopt()

    def dispose(self) -> None:
        """Close everything."""
        for database in self.databases.values():
            database.dispose()
