"""Snapshot and verify against a bare loop over the same rows, and the memory of a verify of two million rows."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure
from dbsync.adapters.clock import SystemClock
from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl.run import Lens, make_lens
from dbsync.model import quiet
from dbsync.sync.run import Pump
from dbsync.verify.run import verify

SHAPE = (
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT, price REAL, amount INTEGER,"
    " made TEXT, code BLOB, kind TEXT)"
)
COLUMNS = 8
BATCH = 20_000
SELECT = "SELECT id, name, note, price, amount, made, code, kind FROM item"
INSERT = f"INSERT INTO item VALUES ({', '.join('?' * COLUMNS)})"


class NoRevisions:
    """Both sides stand at no revision."""

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        """No step between them."""
        return () if older == newer else (str(newer),)


class Pair:
    """Two files, blue with rows and live, green with the same shape and empty."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder
        for name in ("blue", "green"):
            connection = sqlite3.connect(folder / f"{name}.db")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(SHAPE)
            if name == "blue":
                connection.executemany(INSERT, made(rows))
            connection.commit()
            connection.close()
        self.blue, self.green = (SqliteDatabase(n, f"sqlite:///{folder / n}.db") for n in ("blue", "green"))
        self.blue.install("blue")
        self.green.install("blue")

    def lens(self) -> Lens:
        """By name, both ways."""
        return make_lens({"blue": self.blue, "green": self.green}, "blue", NoRevisions(), {})  # type: ignore[arg-type]

    def pump(self) -> Pump:
        """From blue to green."""
        return Pump(self.blue, self.green, self.lens(), 1, SystemClock(), quiet)


def made(rows: int) -> list[tuple[object, ...]]:
    """Rows of about 120 bytes."""
    return [
        (i, f"item number {i}", f"a note about {i % 977}", i * 0.25, i % 1000, "2026-01-01", b"%016d" % i, "common")
        for i in range(rows)
    ]


def bare_copy(folder: Path) -> float:
    """Seconds of fetchmany and executemany into an empty file of the same shape."""
    target = folder / "bare.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    out = sqlite3.connect(target, isolation_level=None)
    out.execute("PRAGMA journal_mode = WAL")
    out.execute("PRAGMA synchronous = FULL")
    out.execute(SHAPE)
    source = sqlite3.connect(folder / "blue.db")
    began = time.perf_counter()
    cursor = source.execute(SELECT)
    while rows := cursor.fetchmany(BATCH):
        out.execute("BEGIN IMMEDIATE")
        out.executemany(INSERT, rows)
        out.execute("COMMIT")
    took = time.perf_counter() - began
    out.close()
    source.close()
    return took


def bare_fetch(folder: Path) -> float:
    """Seconds of fetching the same rows, in order of their key, from both files."""
    began = time.perf_counter()
    for name in ("blue", "green"):
        connection = sqlite3.connect(folder / f"{name}.db")
        cursor = connection.execute(f"{SELECT} ORDER BY id")
        while cursor.fetchmany(BATCH):
            pass
        connection.close()
    return time.perf_counter() - began


def our_copy(pair: Pair) -> float:
    """Seconds of a snapshot into an empty idle side."""
    connection = sqlite3.connect(pair.folder / "green.db", isolation_level=None)
    connection.execute("UPDATE dbsync_guard SET exempt = 1")
    connection.execute("DELETE FROM item")
    connection.execute("UPDATE dbsync_guard SET exempt = 0")
    connection.execute("DELETE FROM dbsync_changes WHERE seq < (SELECT max(seq) FROM dbsync_changes)")
    connection.execute("DELETE FROM dbsync_documents")
    connection.execute("DELETE FROM dbsync_checkpoint")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    pump = pair.pump()
    began = time.perf_counter()
    pump.ensure_snapshot()
    return time.perf_counter() - began


def our_verify(pair: Pair) -> float:
    """Seconds of a full verify."""
    began = time.perf_counter()
    found = verify(pair.blue, pair.green, pair.lens(), 1, SystemClock(), quiet)
    took = time.perf_counter() - began
    assert found.equal
    return took


def ratios(rows: int = 500_000, rounds: int = 5) -> list[Figure]:
    """Snapshot and verify in turn with their peers; each ratio is peer's time / dbsync's time of the same round."""
    folder = Path(tempfile.mkdtemp(prefix="dbsync-bench-"))
    try:
        pair = Pair(folder, rows)
        copies = [bare_copy(folder) / our_copy(pair) for _ in range(rounds)]
        pair.pump().drain()
        verifies = [bare_fetch(folder) / our_verify(pair) for _ in range(rounds)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [
        Figure(f"snapshot / bare fetchmany+executemany, {rows:,} rows", copies, ">= 0.6", median(copies) >= 0.6),
        Figure(f"verify / bare fetch of both sides, {rows:,} rows", verifies, ">= 0.8", median(verifies) >= 0.8),
    ]


def memory(rows: int = 2_000_000) -> list[Figure]:
    """Peak memory of a process that verifies two million rows."""
    folder = Path(tempfile.mkdtemp(prefix="dbsync-bench-"))
    try:
        build = f"from benchmarks.rows import build; build({str(folder)!r}, {rows})"
        subprocess.run([sys.executable, "-c", build], check=True)
        look = f"from benchmarks.rows import look; look({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
        peak = float(done.stdout)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [Figure(f"peak memory of a verify of {rows:,} rows", [peak], "< 200 MiB", peak < 200, "MiB")]


def build(folder: str, rows: int) -> None:
    """Two files with the same rows, followed and ready to be verified."""
    pair = Pair(Path(folder), rows)
    pair.pump().drain()


def look(folder: str) -> None:
    """Verify, and print this process's peak memory in MiB."""
    blue, green = (SqliteDatabase(n, f"sqlite:///{folder}/{n}.db") for n in ("blue", "green"))
    lens = make_lens({"blue": blue, "green": green}, "blue", NoRevisions(), {})  # type: ignore[arg-type]
    assert verify(blue, green, lens, 1, SystemClock(), quiet).equal
    # Not ru_maxrss: a child inherits the peak of the process that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(float(status["VmHWM"].split()[0]) / 1024)
