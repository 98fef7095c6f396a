"""The shop's customers: python load.py run --url http://127.0.0.1:8000 --ledger FILE, until SIGTERM or --seconds.

A third of the requests write. Every acknowledged write is noted in the ledger and read back at once by another
client: what it does not show then is counted as stale. `load.py check --ledger FILE --database FILE` counts the
acknowledged writes that a database does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ledger import Ledger, check, version_of
from seed import FIRST, LAST, PRODUCTS

TIMEOUT = 30.0
CATCH_UP = 1.0
"""How far behind its schedule a client may be and still make up for it, in seconds."""
OPENING = 20.0
SHOWN = 50

Entry = dict[str, Any]


@dataclass
class Tally:
    """What happened, counted by many threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reads: int = 0
    writes: int = 0
    acknowledged: int = 0
    failed: int = 0
    stale: int = 0
    checked: int = 0
    longest_write: float = 0.0
    longest_read: float = 0.0
    sides: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def request(self, write: bool, seconds: float, side: str | None) -> None:
        """Count a request that was answered as it should be."""
        with self.lock:
            if write:
                self.writes += 1
                self.acknowledged += 1
                self.longest_write = max(self.longest_write, seconds)
            else:
                self.reads += 1
                self.longest_read = max(self.longest_read, seconds)
            self.sides[side or "?"] = self.sides.get(side or "?", 0) + 1

    def failure(self, write: bool, what: str) -> None:
        """Count a request that failed."""
        with self.lock:
            self.writes += write
            self.reads += not write
            self.failed += 1
            if len(self.details) < SHOWN:
                self.details.append(f"{time.strftime('%H:%M:%S')} {what}")

    def read_back(self, fresh: bool, what: str) -> None:
        """Count an acknowledged write that was read back."""
        with self.lock:
            self.checked += 1
            self.stale += not fresh
            if not fresh and len(self.details) < SHOWN:
                self.details.append(f"{time.strftime('%H:%M:%S')} stale: {what}")

    def summary(self, seconds: float) -> Entry:
        """Everything as one object; waits in milliseconds."""
        with self.lock:
            requests = self.reads + self.writes
            return {
                "requests": requests,
                "writes": self.writes,
                "acknowledged_writes": self.acknowledged,
                "failed": self.failed,
                "stale": self.stale,
                "checked": self.checked,
                "longest_write_ms": round(self.longest_write * 1000, 1),
                "longest_read_ms": round(self.longest_read * 1000, 1),
                "seconds": round(seconds, 1),
                "per_second": round(requests / seconds, 1) if seconds else 0.0,
                "sides": dict(self.sides),
                "failures": list(self.details),
            }


class Client:
    """One keep-alive connection."""

    def __init__(self, url: str, tally: Tally) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), parts.port or 80
        self._tally = tally
        self._connection: HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Entry | None = None) -> tuple[Entry, str] | None:
        """The answer and the side that gave it; None for a failure, which is counted. Nothing is tried twice."""
        write = method != "GET"
        begun = time.monotonic()
        try:
            if self._connection is None:
                self._connection = HTTPConnection(self._host, self._port, timeout=TIMEOUT)
            payload = None if body is None else json.dumps(body).encode()
            self._connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            raw = response.read()
            if response.status >= 300:
                raise HTTPException(f"{response.status} {raw[:200]!r}")
            answer = json.loads(raw)
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            waited = time.monotonic() - begun
            self._tally.failure(write, f"{method} {path} after {waited * 1000:.0f} ms: {type(error).__name__} {error}")
            return None
        side = response.getheader("X-Shop-Side") or "?"
        self._tally.request(write, time.monotonic() - begun, side)
        return answer, side

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """Writers and readers, each on a schedule of its own."""

    def __init__(self, url: str, ledger: Ledger, rate: float, writers: int, readers: int, customers: int) -> None:
        self.url, self.ledger, self.customers = url, ledger, customers
        self.tally = Tally()
        self.stop = threading.Event()
        self._to_check: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._orders: list[int] = []
        self._writers, self._readers = writers, readers
        self._write_every = writers / (rate / 3)
        self._read_every = readers / (rate * 2 / 3)
        # Tokens and addresses are this run's own: a second run over the same files must not meet the first one's.
        self._run = f"{int(time.time()):x}{os.getpid():x}"
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(self._writers)]
        self._threads += [threading.Thread(target=self._read, args=(n,), daemon=True) for n in range(self._readers)]
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        """Wait until every request that is under way has been answered, at most that long."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _next(self, due: float, every: float) -> float:
        return max(due + every, time.monotonic() - CATCH_UP)

    # --- writing -------------------------------------------------------------------------------

    def _write(self, number: int) -> None:
        client, chance = Client(self.url, self.tally), random.Random()
        # The customers whose address this writer alone changes, and how often it has.
        mine = list(range(1 + number, self.customers + 1, self._writers))
        version = int(time.time() * 10) << 4
        due = time.monotonic() + self._write_every * chance.random()
        count = 0
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            count += 1
            kind = chance.random()
            if kind < 0.7 or not mine:
                entry = self._order(client, chance, f"{self._run}-{number}-{count}")
            elif kind < 0.85:
                entry = self._customer(client, chance, f"{self._run}-{number}-{count}")
            else:
                version += 1
                entry = self._email(client, chance.choice(mine), version)
            if entry is not None:
                self.ledger.add(entry)
                self._to_check.put(entry)
            due = self._next(due, self._write_every)
        client.close()

    def _order(self, client: Client, chance: random.Random, token: str) -> Entry | None:
        chosen = range(chance.randrange(1, 4))
        lines = [{"product_id": chance.randrange(1, PRODUCTS + 1), "qty": chance.randrange(1, 5)} for _ in chosen]
        body = {"token": token, "customer_id": chance.randrange(1, self.customers + 1), "lines": lines}
        answer = client.ask("POST", "/orders", body)
        return None if answer is None else {"kind": "order", "id": answer[0]["id"], "side": answer[1], **body}

    def _customer(self, client: Client, chance: random.Random, mark: str) -> Entry | None:
        first, last = chance.choice(FIRST), chance.choice(LAST)
        body = {"first_name": first, "last_name": last, "email": f"{mark}@new.example"}
        body |= {"street": f"Street {chance.randrange(200)}", "city": "Riga", "postcode": "1001"}
        answer = client.ask("POST", "/customers", body)
        if answer is None:
            return None
        name = " ".join(part for part in (first, last) if part)
        return {"kind": "customer", "id": answer[0]["id"], "release": answer[0].get("release"), "name": name} | body

    def _email(self, client: Client, customer: int, version: int) -> Entry | None:
        email = f"customer{customer}.{version}@shop.example"
        answer = client.ask("PUT", f"/customers/{customer}/email", {"email": email})
        return None if answer is None else {"kind": "email", "id": customer, "email": email, "side": answer[1]}

    # --- reading -------------------------------------------------------------------------------

    def _read(self, _number: int) -> None:
        client, chance = Client(self.url, self.tally), random.Random()
        due = time.monotonic() + self._read_every * chance.random()
        while not self.stop.is_set():
            try:
                entry = self._to_check.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                self._look(client, chance)
            else:
                self._read_back(client, entry)
            due = self._next(due, self._read_every)
        client.close()

    def _look(self, client: Client, chance: random.Random) -> None:
        recent = self._orders[-1000:]
        if recent and chance.random() < 0.5:
            client.ask("GET", f"/orders/{chance.choice(recent)}")
        else:
            client.ask("GET", f"/customers/{chance.randrange(1, self.customers + 1)}")

    def _read_back(self, client: Client, entry: Entry) -> None:
        order = entry["kind"] == "order"
        path = f"/{'orders' if order else 'customers'}/{entry['id']}"
        answer = client.ask("GET", path)
        if answer is None:
            # Acknowledged and not there is the very thing that is looked for, whatever else it is.
            self.tally.read_back(False, f"{entry['kind']} {entry['id']} was not answered")
            return
        found, side = answer
        if order:
            fresh = found["token"] == entry["token"] and found["lines"] == entry["lines"]
            self._orders.append(entry["id"])
        elif entry["kind"] == "email":
            fresh = version_of(found["email"]) >= version_of(entry["email"])
        else:
            fresh = found["name"] == entry["name"]
        self.tally.read_back(fresh, f"{entry['kind']} {entry['id']} on {side}")


def run(given: argparse.Namespace) -> int:
    """Load the shop until stopped. Prints the summary; exit code 1 when something failed or was stale."""
    ledger = Ledger(given.ledger)
    load = Load(given.url, ledger, given.rate, given.writers, given.readers, given.customers)
    # Not load.stop itself: a handler that interrupts a wait on an Event, in the thread that holds its lock, deadlocks.
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    _await_opening(given.url, told)
    begun = time.monotonic()
    load.start()
    while not told and time.monotonic() - begun < given.seconds:
        time.sleep(0.2)
        _publish(given.progress, load.tally.summary(time.monotonic() - begun))
    load.stop.set()
    seconds = time.monotonic() - begun
    load.join(TIMEOUT)
    found = load.tally.summary(seconds)
    ledger.close()
    _publish(given.progress, found)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["failed"] or found["stale"] else 0


def _await_opening(url: str, told: list[int]) -> None:
    """Wait until the shop is open, for a while: what is asked before that has not failed."""
    deadline = time.monotonic() + OPENING
    while not told and time.monotonic() < deadline:
        client = Client(url, Tally())
        opened = client.ask("GET", "/health") is not None
        client.close()
        if opened:
            return
        time.sleep(0.05)


def _publish(path: Path | None, found: Entry) -> None:
    """Put the summary so far into a file, in one piece."""
    if path is not None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(found), encoding="utf-8")
        new.replace(path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="The shop's customers.")
    verbs = parser.add_subparsers(required=True)
    loading = verbs.add_parser("run", help="send requests until stopped")
    loading.add_argument("--url", required=True)
    loading.add_argument("--ledger", type=Path, required=True)
    loading.add_argument("--rate", type=float, default=180.0, help="requests a second, a third of them writes")
    loading.add_argument("--seconds", type=float, default=600.0, help="the longest that it runs")
    loading.add_argument("--writers", type=int, default=12)
    loading.add_argument("--readers", type=int, default=12)
    loading.add_argument("--customers", type=int, default=2000, help="how many there are from the seed")
    loading.add_argument("--progress", type=Path, help="where the summary so far is kept")
    loading.set_defaults(run=run)
    checking = verbs.add_parser("check", help="count the acknowledged writes that a database does not hold")
    checking.add_argument("--ledger", type=Path, required=True)
    checking.add_argument("--database", type=Path, required=True)
    checking.set_defaults(run=run_check)
    given = parser.parse_args()
    return int(given.run(given))


def run_check(given: argparse.Namespace) -> int:
    """Print how many acknowledged writes are lost; exit code 1 when there are some."""
    found = check(given.ledger, given.database)
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
