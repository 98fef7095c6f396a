"""Customers, and a client that ignores the proxy: python traffic.py URL BLUE GREEN FOLDER, until its stdin closes.

In FOLDER, one JSON object a line: `acknowledged` (token), `failed` (what, at), and of the client that writes straight
to both databases all the time `direct`: side, epoch, and the moments between which it held that side's write lock and
was let in. Moments are seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))
from served import write

CUSTOMERS = 3
PAUSE = 0.03
DIRECT_PAUSE = 0.012
PATIENCE = 29.0


class Notes:
    """A file to which a line is added at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def add(self, **said: Any) -> None:
        with self._lock:
            self._file.write(json.dumps(said) + "\n")


def customer(number: int, url: str, acknowledged: Notes, failed: Notes, stop: threading.Event) -> None:
    """Write, and read back every other write; nothing is tried twice."""
    parts = urlsplit(url)
    connection: http.client.HTTPConnection | None = None
    count = 0
    while not stop.wait(PAUSE):
        count += 1
        token = f"c{number}-{count}-{time.monotonic_ns()}"
        began = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
            status, side = ask(connection, "POST", "/items", {"token": token})
            if status != 201:
                failed.add(what=f"POST {status} by {side}", began=began, at=time.monotonic())
                continue
            acknowledged.add(token=token, side=side, waited=time.monotonic() - began)
            if count % 2:
                status, other = ask(connection, "GET", f"/items/{token}")
                if status != 200:
                    failed.add(what=f"GET {status} by {other} of what {side} took", began=began, at=time.monotonic())
        except (OSError, http.client.HTTPException) as error:
            failed.add(what=f"{type(error).__name__} {error}", began=began, at=time.monotonic())
            if connection is not None:
                connection.close()
            connection = None


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, str | None]:
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("X-Side")


def intruder(side: str, path: Path, direct: Notes, tally: dict[str, int], stop: threading.Event) -> None:
    """Write straight to one database all the time; note when it was let in, and at which epoch of that database."""
    db = sqlite3.connect(path, isolation_level=None, timeout=0.1)
    count = 0
    while not stop.wait(DIRECT_PAUSE):
        count += 1
        token = f"{side}-{count}-{time.monotonic_ns()}"
        try:
            db.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            write(db, side, token)
            ((epoch, state),) = db.execute("SELECT epoch, state FROM dbsync_guard").fetchall()
            ended = time.monotonic()
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            refused = str(error).startswith("dbsync:")
            tally["refused" if refused else "busy"] += 1
            continue
        direct.add(side=side, epoch=epoch, state=state, began=began, ended=ended, token=token)
        tally["accepted"] += 1
    db.close()


def main() -> None:
    url, blue, green, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    stop = threading.Event()
    acknowledged, failed, direct = (Notes(folder / name) for name in ("acknowledged", "failed", "direct"))
    tally = {side: {"refused": 0, "busy": 0, "accepted": 0} for side in ("blue", "green")}
    threads = [threading.Thread(target=customer, args=(n, url, acknowledged, failed, stop)) for n in range(CUSTOMERS)]
    threads += [
        threading.Thread(target=intruder, args=(side, path, direct, tally[side], stop))
        for side, path in (("blue", blue), ("green", green))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps(tally) + "\n")


if __name__ == "__main__":
    main()
