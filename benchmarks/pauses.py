"""How long writes wait at a handover: the demo's shop under load, there and back, at the proxy's default throttle."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, percentile
from dbsync.cli.demo import Story
from dbsync.cli.demo_files import Folder, free_ports, traefik_binary
from dbsync.cli.demo_processes import Processes

NOISE_MS = 50.0


@contextlib.contextmanager
def shop(more_orders: int = 0, fast: bool = False) -> Iterator[Story]:
    """The demo's shop, open, its idle side following and verified."""
    path = Path(tempfile.mkdtemp(prefix="dbsync-bench-")).resolve()
    try:
        folder = Folder(path, free_ports(), traefik_binary(), fast)
        folder.write()
        with Processes(path, lambda: False) as processes:
            story = Story(folder, processes, None)
            story.open_the_shop()
            if more_orders:
                grow(path / "blue.db", more_orders)
            story.prepare()
            yield story
    finally:
        shutil.rmtree(path, ignore_errors=True)


def grow(database: Path, orders: int) -> None:
    """Many more orders, in parts, so that the shop goes on beside it."""
    connection = sqlite3.connect(database, timeout=30)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(orders)") if row[1] != "id"]
    copied = ", ".join("'grown-' || o.id || '-' || n.i" if c == "token" else f"o.{c}" for c in columns)
    part = 20_000
    for start in range(0, orders, part):
        connection.execute(
            f"INSERT INTO orders ({', '.join(columns)}) WITH RECURSIVE n(i) AS"
            f" (SELECT {start} UNION ALL SELECT i + 1 FROM n WHERE i < {start + part - 1})"
            f" SELECT {copied} FROM n CROSS JOIN (SELECT * FROM orders ORDER BY id LIMIT 1) AS o"
        )
        connection.commit()
    connection.close()


def handovers(story: Story, count: int) -> list[dict[str, Any]]:
    """Cutovers and rollbacks in turn, each under load."""
    done = []
    for i in range(count):
        done.append(story.dbsync("rollback" if i % 2 else "cutover", told=lambda _: ""))
        story.processes.pause(1.0)
    return done


def default_throttle(count: int = 30) -> list[Figure]:
    """Pauses, stale reads, failures, predictions and held requests over many handovers at a throttle of 2 s."""
    with shop() as story:
        done = handovers(story, count)
        story.processes.end("load")
        load = story.so_far()
        lost = story.count("blue" if count % 2 == 0 else "green", "the last handover")["lost"]
    pauses = [one["pause_ms"] for one in done]
    within = sum(0.5 <= one["predicted_pause_ms"] / one["pause_ms"] <= 2.0 for one in done)
    extra = [one["held"]["longest_ms"] - one["pause_ms"] for one in done]
    share = 27 / 30
    return [
        Figure("pause (p50), throttle 2 s", pauses, "p50 <= 250 ms", percentile(pauses, 0.5) <= 250, "ms"),
        Figure(
            "pause (p99), throttle 2 s",
            [percentile(pauses, 0.99)],
            "p99 <= 1000 ms",
            percentile(pauses, 0.99) <= 1000,
            "ms",
        ),
        Figure("longest held request beyond the pause", extra, f"<= {NOISE_MS:g} ms", max(extra) <= NOISE_MS, "ms"),
        Figure("predictions within a factor of 2", [within], f">= {share:.0%} of {count}", within >= share * count),
        Figure("failed requests", [load["failed"]], "0", load["failed"] == 0),
        Figure("stale reads", [load["stale"]], "0", load["stale"] == 0),
        Figure("acknowledged writes lost", [lost], "0", lost == 0),
    ]


def sizes(count: int = 6, small: int = 10_000, large: int = 1_000_000) -> list[Figure]:
    """The pause with a large table against the pause with a small one."""
    medians = []
    for rows in (small, large):
        with shop(rows, fast=True) as story:
            medians.append(median(one["pause_ms"] for one in handovers(story, count)))
    ratio = medians[1] / medians[0]
    return [Figure(f"pause at {large:,} rows / pause at {small:,}", [ratio], "<= 1.3", ratio <= 1.3)]


if __name__ == "__main__":
    began = time.monotonic()
    print(json.dumps([figure.line() for figure in default_throttle()], indent=1))
    print(f"{time.monotonic() - began:.0f} s")
