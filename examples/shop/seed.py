"""Rows for a shop of release 1: python seed.py --database blue.db [--customers 2000] [--orders 3000] [--script FILE].

With --script the file is made by running that SQL first (`dbsync migrate --target blue --sql --to 0001` prints it).
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

FIRST = ("Ada", "Mary Ann", "Grace", "Linus", "Zoë", "Jean Luc", "Øystein", "Barbara", "Edsger", "Cher")
LAST = ("Berg", "Lovelace", "van der Berg", "Hopper", "Çelik", "O'Neill", "Liskov", "Picard", "Dijkstra", "")
CITIES = ("Bergen", "Lübeck", "Zürich", "Gdańsk", "Porto", "Delft")
PRODUCTS = 200


def seed(db: sqlite3.Connection, customers: int, orders: int) -> dict[str, int]:
    """Insert the rows, the same ones every time, in one transaction. Gives how many there are by table."""
    chance = random.Random(1)
    db.executemany(
        "INSERT INTO product (id, name, price_cents) VALUES (?, ?, ?)",
        [(n, f"Product {n}", chance.randrange(99, 20000)) for n in range(1, PRODUCTS + 1)],
    )
    people = []
    for n in range(1, customers + 1):
        first, last = chance.choice(FIRST), chance.choice(LAST)
        street, city = f"Street {chance.randrange(1, 200)}", chance.choice(CITIES)
        people.append((n, f"customer{n}.0@shop.example", first, last, street, city, f"{chance.randrange(10000):04}"))
    db.executemany("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?)", people)
    lines = 0
    for n in range(1, orders + 1):
        placed = f"2024-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}T12:00:00.000+00:00"
        db.execute(
            "INSERT INTO orders (id, token, customer_id, placed, total_cents) VALUES (?, ?, ?, ?, ?)",
            (n, f"seed-{n}", chance.randrange(1, customers + 1), placed, chance.randrange(99, 90000)),
        )
        chosen = [(n, k, chance.randrange(1, PRODUCTS + 1), chance.randrange(1, 5)) for k in (1, 2)]
        db.executemany("INSERT INTO order_line VALUES (?, ?, ?, ?)", chosen)
        lines += len(chosen)
    return {"customer": customers, "product": PRODUCTS, "orders": orders, "order_line": lines}


def main() -> None:
    """Fill the file and print what is in it."""
    parser = argparse.ArgumentParser(description="Fill a shop of release 1 with rows.")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--script", type=Path, help="SQL to run first")
    parser.add_argument("--customers", type=int, default=2000)
    parser.add_argument("--orders", type=int, default=3000)
    given = parser.parse_args()
    with closing(sqlite3.connect(given.database)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        if given.script is not None:
            db.executescript(given.script.read_text(encoding="utf-8"))
        with db:
            counts = seed(db, given.customers, given.orders)
    sys.stdout.write(json.dumps(counts) + "\n")


if __name__ == "__main__":
    main()
