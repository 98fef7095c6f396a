"""A composed crossing of three revisions against the same rows by name: snapshot, window, and a table's size."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from dbsync.adapters.clock import SystemClock
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl import Crossing, table
from dbsync.etl.run import Lens, make_lens
from dbsync.migrate.shape import to_document
from dbsync.model import Catalog, quiet
from dbsync.sync.run import Pump

KINDS = 50
BATCH = 20_000
VERSION = "CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY); INSERT INTO alembic_version VALUES ('{0}');"
PLAIN = (
    "CREATE TABLE plain (id INTEGER PRIMARY KEY, title TEXT NOT NULL, note TEXT, price REAL, amount INTEGER,"
    " made TEXT, code BLOB, kind TEXT);"
)
KIND = "CREATE TABLE kind (id INTEGER PRIMARY KEY, label TEXT NOT NULL);"
ITEM = (
    "CREATE TABLE item (id INTEGER PRIMARY KEY, {0} TEXT NOT NULL, note TEXT, price_cents INTEGER, amount INTEGER,"
    " made TEXT, code BLOB, {1});"
)
SHAPES = {
    "r0": PLAIN + KIND + ITEM.format("name", "kind_id INTEGER REFERENCES kind (id)"),
    "r1": PLAIN + KIND + ITEM.format("title", "kind_id INTEGER REFERENCES kind (id)"),
    "r2": PLAIN + KIND + ITEM.format("title", "kind_id INTEGER, kind TEXT"),
    "r3": PLAIN + KIND + PLAIN.replace("plain", "article").replace("kind TEXT", "kind_id INTEGER, kind TEXT"),
}


class Step:
    """One revision's crossing, forward and reverse."""

    path = "etl/benchmark.py"

    def __init__(self, forward: Crossing, reverse: Crossing) -> None:
        self.forward, self.reverse = forward, reverse


def _one(name: str, source: str, columns: str, losing: dict[str, str] | None = None) -> Crossing:
    return Crossing(table(name, key={source: "id"}, select=f"SELECT id, {columns} FROM {source}", losing=losing))


REST = "note, price_cents, amount, made, code"
STEPS = {
    "r1": Step(
        _one("item", "item", f"name AS title, {REST}, kind_id"), _one("item", "item", f"title AS name, {REST}, kind_id")
    ),
    "r2": Step(
        Crossing(
            table(
                "item",
                key={"item": "id", "kind": "SELECT id FROM item WHERE kind_id IN (:keys)"},
                select="SELECT i.id, i.title, i.note, i.price_cents, i.amount, i.made, i.code, i.kind_id,"
                " k.label AS kind FROM item AS i LEFT JOIN kind AS k ON k.id = i.kind_id",
            )
        ),
        _one("item", "item", f"title, {REST}, kind_id"),
    ),
    "r3": Step(
        _one(
            "article",
            "item",
            "title, note, price_cents / 100.0 AS price, amount, made, code, kind_id, kind",
            {"price": "keep"},
        ),
        _one(
            "item",
            "article",
            "title, note, CAST(ROUND(price * 100, 0) AS INTEGER) AS price_cents, amount, made, code, kind_id, kind",
        ),
    ),
}


class Revisions:
    """blue stands at r0, green at r3."""

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        """The three steps between them."""
        return ("r1", "r2", "r3") if (older, newer) == ("r0", "r3") else ()


class Both:
    """Two files with the same rows twice: in a table that crosses by name, and in one that crosses three revisions."""

    def __init__(self, folder: Path, rows: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows = folder, rows
        for name, revision in (("blue", "r0"), ("green", "r3")):
            connection = sqlite3.connect(folder / f"{name}.db")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(VERSION.format(revision) + SHAPES[revision])
            if name == "blue":
                self._fill(connection)
            connection.commit()
            connection.close()
        self.blue, self.green = (SqliteDatabase(n, f"sqlite:///{folder / n}.db") for n in ("blue", "green"))
        self.blue.install("blue")
        self.green.install("blue")
        for revision, shape in SHAPES.items():
            self.green.save("shape", revision, to_document(_catalog(folder / "shape.db", revision, shape)))

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO kind VALUES (?, ?)", [(n, f"kind {n}") for n in range(KINDS)])
        for start in range(0, self.rows, BATCH):
            part = range(start, min(start + BATCH, self.rows))
            rest = [(i, f"item number {i}", f"a note about {i % 977}", i % 1000, b"%016d" % i) for i in part]
            connection.executemany(
                "INSERT INTO plain VALUES (?, ?, ?, ?, ?, '2026-01-01', ?, ?)",
                [(i, n, t, i * 0.25, a, c, f"kind {i % KINDS}") for i, n, t, a, c in rest],
            )
            connection.executemany(
                "INSERT INTO item VALUES (?, ?, ?, ?, ?, '2026-01-01', ?, ?)",
                [(i, n, t, i * 25, a, c, i % KINDS) for i, n, t, a, c in rest],
            )

    def lens(self) -> Lens:
        """Three revisions, both ways."""
        return make_lens({"blue": self.blue, "green": self.green}, "blue", Revisions(), STEPS)  # type: ignore[arg-type]

    def pump(self) -> Pump:
        """From blue to green."""
        return Pump(self.blue, self.green, self.lens(), 1, SystemClock(), quiet)

    def copy(self, name: str) -> float:
        """Seconds of the snapshot of one table into an empty idle side."""
        connection = sqlite3.connect(self.folder / "green.db", isolation_level=None)
        connection.execute("UPDATE dbsync_guard SET exempt = 1")
        for each in ("plain", "article"):
            connection.execute(f"DELETE FROM {each}")
        connection.execute("UPDATE dbsync_guard SET exempt = 0")
        connection.execute("DELETE FROM dbsync_changes WHERE seq < (SELECT max(seq) FROM dbsync_changes)")
        connection.execute("DELETE FROM dbsync_documents WHERE kind <> 'shape'")
        connection.execute("DELETE FROM dbsync_checkpoint")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        pump = self.pump()
        began = time.perf_counter()
        pump.ensure_snapshot((name,))
        return time.perf_counter() - began

    def window(self, pump: Pump, name: str, chance: random.Random, keys: int = 1_000, among: int = 0) -> float:
        """Seconds of a window of so many changed keys of one table: of any, or `among` so many neighbours."""
        start = chance.randrange(self.rows - among + 1) if among else 0
        chosen = [(start + n,) for n in chance.sample(range(among or self.rows), keys)]
        self.change(f"UPDATE {name} SET amount = amount + 1 WHERE id = ?", chosen)
        began = time.perf_counter()
        applied = pump.step()
        took = time.perf_counter() - began
        assert applied is not None
        assert applied.upserted == keys
        return took

    def change(self, sql: str, values: Sequence[tuple[int, ...]]) -> float:
        """Seconds of an application's own transaction on the active side."""
        connection = sqlite3.connect(self.folder / "blue.db", isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(sql, values)
        connection.execute("COMMIT")
        took = time.perf_counter() - began
        connection.close()
        return took


def _catalog(place: Path, revision: str, shape: str) -> Catalog:
    place.unlink(missing_ok=True)
    connection = sqlite3.connect(place)
    connection.executescript(VERSION.format(revision) + shape)
    connection.close()
    return SqliteDatabase("shape", f"sqlite:///{place}").catalog()


def snapshots(rows: int = 500_000, rounds: int = 5) -> list[Figure]:
    """By name's time / the crossing's time, each of the same round."""
    folder = Path(tempfile.mkdtemp(prefix="dbsync-bench-"))
    try:
        both = Both(folder, rows)
        shares = [both.copy("plain") / both.copy("article") for _ in range(rounds)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(f"snapshot through 3 revisions / by name, {rows:,} rows", shares, ">= 0.7", median(shares) >= 0.7, "x")
    ]


def windows(large: int = 2_000_000, small: int = 10_000, rounds: int = 9, keys: int = 1_000) -> list[Figure]:
    """A window of 1,000 keys through the crossing, against one by name and against one of a small table.

    1,000 keys anywhere are on 1,000 pages of a large table and on a third of them in a small one, which any writer
    pays for; among as many neighbours as the small table has, they are on as many pages as there.
    """
    folder = Path(tempfile.mkdtemp(prefix="dbsync-bench-"))
    try:
        many, few = Both(folder / "many", large), Both(folder / "few", small)
        pumps = {id(both): both.pump() for both in (many, few)}
        for pump in pumps.values():
            pump.drain()
        chance = random.Random(4)

        def window(both: Both, name: str, among: int = 0) -> float:
            return both.window(pumps[id(both)], name, chance, keys, among)

        def around() -> tuple[float, ...]:
            by_name, crossed, tiny = window(many, "plain"), window(many, "item"), window(few, "item")
            return crossed / by_name, window(many, "item", small) / tiny, crossed / tiny, crossed * 1000

        around()  # the first round warms what every later one finds warm
        done = list(zip(*(around() for _ in range(rounds)), strict=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sizes = f"{large:,} rows / {small:,}"
    return [
        Figure(f"window of {keys:,} of {large:,} rows: crossed / by name", done[0], "< 3", median(done[0]) < 3, "x"),
        Figure(f"crossed window, neighbours: {sizes}", done[1], "< 1.5", median(done[1]) < 1.5, "x"),
        Figure(f"crossed window, anywhere: {sizes}", done[2], "-", True, "x"),
        Figure(f"crossed window of {keys:,} keys anywhere", done[3], "-", True, "ms"),
    ]
