"""The two shapes of the shop's database: what release 1 and release 2 say in SQL for the same five acts."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Record = dict[str, Any]


class Release:
    """What both releases have in common. Every act runs inside the transaction of the caller."""

    number = 0
    tables: tuple[str, ...] = ()
    probe = ""
    """A statement that compiles only where the database has this release's shape."""
    total = ""
    """The column of orders that holds the total, in cents."""
    customer = ""
    """Selects id, email, name, street, city and postcode of customers."""

    def create_customer(self, db: sqlite3.Connection, given: Mapping[str, str]) -> int:
        """Insert a customer. Gives its id."""
        raise NotImplementedError

    def create_order(
        self, db: sqlite3.Connection, token: str, customer: int, lines: Sequence[tuple[int, int]]
    ) -> tuple[int, int]:
        """Insert an order with lines of (product, quantity). Gives its id and the total in cents.

        A token that is there already gives the order that it made: a client may safely send it again.
        """
        known = db.execute(f"SELECT id, {self.total} FROM orders WHERE token = ?", (token,)).fetchone()
        if known is not None:
            return int(known[0]), int(known[1])
        total = 0
        for product, qty in lines:
            price = db.execute("SELECT price_cents FROM product WHERE id = ?", (product,)).fetchone()
            if price is None:
                raise LookupError(f"there is no product {product}")
            total += int(price[0]) * qty
        done = db.execute(
            f"INSERT INTO orders (token, customer_id, placed, {self.total}) VALUES (?, ?, ?, ?)",
            (token, customer, datetime.now(UTC).isoformat(timespec="milliseconds"), total),
        )
        order = int(done.lastrowid or 0)
        db.executemany(
            "INSERT INTO order_line (order_id, line_no, product_id, qty) VALUES (?, ?, ?, ?)",
            [(order, number, product, qty) for number, (product, qty) in enumerate(lines, 1)],
        )
        return order, total

    def set_email(self, db: sqlite3.Connection, customer: int, email: str) -> bool:
        """Change a customer's e-mail address. Gives whether there is such a customer."""
        return db.execute("UPDATE customer SET email = ? WHERE id = ?", (email, customer)).rowcount == 1

    def read_customer(self, db: sqlite3.Connection, customer: int) -> Record | None:
        """A customer, or None."""
        row = db.execute(f"{self.customer} WHERE c.id = ?", (customer,)).fetchone()
        return (
            None if row is None else dict(zip(("id", "email", "name", "street", "city", "postcode"), row, strict=True))
        )

    def read_order(self, db: sqlite3.Connection, order: int) -> Record | None:
        """An order with its lines, or None."""
        row = db.execute(
            f"SELECT id, token, customer_id, placed, {self.total} FROM orders WHERE id = ?", (order,)
        ).fetchone()
        if row is None:
            return None
        found = dict(zip(("id", "token", "customer_id", "placed", "total_cents"), row, strict=True))
        lines = db.execute("SELECT product_id, qty FROM order_line WHERE order_id = ? ORDER BY line_no", (order,))
        found["lines"] = [{"product_id": product, "qty": qty} for product, qty in lines]
        return found

    def ready(self, db: sqlite3.Connection) -> bool:
        """Whether the database has this release's shape."""
        try:
            db.execute(self.probe).fetchone()
        except sqlite3.OperationalError:
            return False
        return True


class First(Release):
    """Revision 0001: two name columns, the address in customer, orders.total_cents."""

    number = 1
    total = "total_cents"
    customer = (
        "SELECT c.id, c.email, CASE WHEN c.last_name = '' THEN c.first_name "
        "ELSE c.first_name || ' ' || c.last_name END, c.street, c.city, c.postcode FROM customer c"
    )
    probe = "SELECT first_name, street, total_cents FROM customer, orders LIMIT 1"

    def create_customer(self, db: sqlite3.Connection, given: Mapping[str, str]) -> int:
        """See Release."""
        done = db.execute(
            "INSERT INTO customer (email, first_name, last_name, street, city, postcode) VALUES (?, ?, ?, ?, ?, ?)",
            tuple(given[name] for name in ("email", "first_name", "last_name", "street", "city", "postcode")),
        )
        return int(done.lastrowid or 0)


class Second(Release):
    """Revision 0002: one full name, the address in a table of its own, orders.total."""

    number = 2
    total = "total"
    customer = (
        "SELECT c.id, c.email, c.full_name, coalesce(a.street, ''), coalesce(a.city, ''), coalesce(a.postcode, '') "
        "FROM customer c LEFT JOIN customer_address a ON a.customer_id = c.id"
    )
    probe = "SELECT full_name, a.street, total FROM customer, customer_address a, orders LIMIT 1"

    def create_customer(self, db: sqlite3.Connection, given: Mapping[str, str]) -> int:
        """See Release."""
        name = " ".join(part for part in (given["first_name"], given["last_name"]) if part)
        done = db.execute("INSERT INTO customer (email, full_name) VALUES (?, ?)", (given["email"], name))
        customer = int(done.lastrowid or 0)
        db.execute(
            "INSERT INTO customer_address (customer_id, street, city, postcode) VALUES (?, ?, ?, ?)",
            (customer, given["street"], given["city"], given["postcode"]),
        )
        return customer


RELEASES: Mapping[int, Release] = {1: First(), 2: Second()}


def shape_of(db: sqlite3.Connection) -> Release:
    """The release whose shape a database has. Raises LookupError."""
    for release in RELEASES.values():
        if release.ready(db):
            return release
    raise LookupError("the database has neither release's shape")
