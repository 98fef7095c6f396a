"""An application in full swing, a process: python writer.py DATABASE LEDGER RATE, until its stdin closes.

It writes as applications do, several rows a transaction, about RATE rows a second in all. After each commit a line of
LEDGER says when (seconds of the machine's monotonic clock) and how many rows have been written by then.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import threading
import time
from pathlib import Path

BATCH = 20
"""Rows a transaction: of these one is deleted and one is new."""


def transaction(db: sqlite3.Connection, draw: random.Random, keys: list[int], new: int) -> None:
    """One transaction over rows of `reading`, whose keys are kept in `keys`."""
    db.execute("BEGIN IMMEDIATE")
    for _ in range(BATCH - 2):
        text = f"value {draw.randrange(10**9)}"
        db.execute("UPDATE reading SET label = ?, amount = amount + 1 WHERE id = ?", (text, draw.choice(keys)))
    place = draw.randrange(len(keys))
    db.execute("DELETE FROM reading WHERE id = ?", (keys[place],))
    db.execute("INSERT INTO reading VALUES (?, 'new', 0)", (new,))
    db.execute("COMMIT")
    keys[place] = new


def main() -> None:
    database, ledger, rate = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    db = sqlite3.connect(database, isolation_level=None, timeout=10.0)
    keys = [key for (key,) in db.execute("SELECT id FROM reading")]
    draw, new, written = random.Random(11), max(keys), 0
    with ledger.open("w", buffering=1) as told:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            new += 1
            transaction(db, draw, keys, new)
            written += BATCH
            told.write(f"{time.monotonic()} {written}\n")
            # Behind its time it goes on at once, but never stores up more than a second to make good.
            due = max(due + BATCH / rate, time.monotonic() - 1.0)
    db.close()


if __name__ == "__main__":
    main()
