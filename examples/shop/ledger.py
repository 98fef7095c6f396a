"""What was acknowledged, written down by the client: one JSON object a line, and the check that none of it is lost."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shapes import Record, Release, shape_of

SHOWN = 20


class Ledger:
    """The file, appended to by many threads. A line stands in it before anybody is told of the acknowledgement."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self.written = 0

    def add(self, entry: Record) -> None:
        """Append an entry."""
        line = json.dumps(entry) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            self.written += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> Iterator[Record]:
    """The entries so far; a line that is still being written is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def check(ledger: Path, database: Path) -> dict[str, Any]:
    """How many acknowledged writes there are, and how many of them the database does not hold as acknowledged.

    Gives {"acknowledged", "lost", "examples"}. The entries are read before the database is, so it may go on changing.
    """
    entries = list(read(ledger))
    with closing(sqlite3.connect(f"file:{quote(str(database.absolute()))}?mode=ro", uri=True, timeout=10)) as db:
        db.execute("BEGIN")
        release = shape_of(db)
        lost = [entry for entry in entries if not _held(db, release, entry)]
    return {"acknowledged": len(entries), "lost": len(lost), "examples": lost[:SHOWN]}


def _held(db: sqlite3.Connection, release: Release, entry: Record) -> bool:
    """Whether the database holds what an entry says was acknowledged."""
    if entry["kind"] == "order":
        order = release.read_order(db, entry["id"])
        return order is not None and all(order[name] == entry[name] for name in ("token", "customer_id", "lines"))
    customer = release.read_customer(db, entry["id"])
    if customer is None:
        return False
    if entry["kind"] == "email":
        # A later change may have been acknowledged since, or be on its way.
        return version_of(customer["email"]) >= version_of(entry["email"])
    whole = {name: customer[name] for name in ("name", "street", "city", "postcode")}
    return whole == {name: entry[name] for name in whole} and _same_names(db, release, entry)


def _same_names(db: sqlite3.Connection, release: Release, entry: Record) -> bool:
    """A customer entered with two names by release 1 has exactly these wherever the shape has two."""
    if release.number != 1 or entry.get("release") != 1:
        return True
    row = db.execute("SELECT first_name, last_name FROM customer WHERE id = ?", (entry["id"],)).fetchone()
    return tuple(row) == (entry["first_name"], entry["last_name"])


def version_of(email: str) -> int:
    """How often the load generator has changed an address (`name.7@…` is 7; 0 for one that it did not make)."""
    digits = email.partition("@")[0].rpartition(".")[2]
    return int(digits) if digits.isdigit() else 0
