"""The shop's web application, release 1 or 2: python app.py --release 1 --database blue.db --port 8001 --name blue.

POST /customers, POST /orders, PUT /customers/ID/email, GET /customers/ID, GET /orders/ID, GET /health. A write that the
database refuses because it is not the active one is a 503; a database that has not got its shape yet is a 503 too.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shapes import RELEASES, Release

MAX_BODY = 1 << 20
Answer = tuple[int, dict[str, Any]]


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Shop:
    """One release over one database file; every thread has a connection of its own."""

    def __init__(self, release: Release, database: Path, name: str) -> None:
        self.release, self.database, self.name = release, database, name
        self._local = threading.local()

    def connection(self) -> sqlite3.Connection:
        """This thread's connection. The file is never created: an absent one is not this program's to make."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None:
            url = f"file:{quote(str(self.database.absolute()))}?mode=rw"
            found = sqlite3.connect(url, uri=True, timeout=5.0, isolation_level=None)
            found.execute("PRAGMA foreign_keys = ON")
            found.execute("PRAGMA synchronous = FULL")
            self._local.db = found
        return found

    def close(self) -> None:
        """Let go of this thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is not None:
            found.close()
            self._local.db = None

    def read(self, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """What `act` reads, all of it as of one moment."""
        db = self.connection()
        db.execute("BEGIN")
        try:
            return act(db)
        finally:
            db.execute("COMMIT")

    def write(self, act: Callable[[sqlite3.Connection], Any]) -> Any:
        """What `act` gives, in one committed transaction."""
        db = self.connection()
        try:
            db.execute("BEGIN IMMEDIATE")
            result = act(db)
            db.execute("COMMIT")
        except BaseException:
            # A refusal of dbsync's has ended the transaction already; anything else must not be left open,
            # for an open one keeps the write lock.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """The status and object that a request is answered with."""
        parts = [part for part in path.partition("?")[0].split("/") if part]
        try:
            return self._act(method, parts, body)
        except Problem as problem:
            return problem.status, {"error": str(problem)}
        except (KeyError, TypeError, ValueError) as error:
            return 400, {"error": f"bad request: {error!r}"}
        except sqlite3.Error as error:
            return (503 if self._passing(error) else 500), {"error": str(error)}

    def _passing(self, error: sqlite3.Error) -> bool:
        """Whether it is refused here and now: not the active database, not there yet, or not in shape yet."""
        said = str(error)
        return said.startswith(("dbsync:", "unable to open database", "no such table", "no such column"))

    def _act(self, method: str, parts: list[str], body: dict[str, Any]) -> Answer:
        match (method, parts):
            case ("GET", ["health"]):
                ready = bool(self.read(self.release.ready))
                return (200 if ready else 503), {"ready": ready, "release": self.release.number, "side": self.name}
            case ("GET", ["customers", number]):
                return self._found(self.read(lambda db: self.release.read_customer(db, int(number))))
            case ("GET", ["orders", number]):
                return self._found(self.read(lambda db: self.release.read_order(db, int(number))))
            case ("POST", ["customers"]):
                return 201, self._create_customer(body)
            case ("POST", ["orders"]):
                return 201, self._create_order(body)
            case ("PUT", ["customers", number, "email"]):
                return self._set_email(int(number), str(body["email"]))
        raise Problem(404, f"there is no {method} /{'/'.join(parts)}")

    def _found(self, record: dict[str, Any] | None) -> Answer:
        if record is None:
            raise Problem(404, "there is no such row")
        return 200, record

    def _create_customer(self, body: dict[str, Any]) -> dict[str, Any]:
        given = {name: str(body[name]).strip() for name in ("email", "first_name", "last_name")}
        given |= {name: str(body.get(name, "")) for name in ("street", "city", "postcode")}
        try:
            customer = self.write(lambda db: self.release.create_customer(db, given))
        except sqlite3.IntegrityError as error:
            raise self._conflict(error) from error
        return {"id": customer, "release": self.release.number}

    def _create_order(self, body: dict[str, Any]) -> dict[str, Any]:
        token, customer = str(body["token"]), int(body["customer_id"])
        lines = [(int(line["product_id"]), int(line["qty"])) for line in body["lines"]]
        try:
            order, total = self.write(lambda db: self.release.create_order(db, token, customer, lines))
        except LookupError as error:
            raise Problem(409, str(error)) from error
        except sqlite3.IntegrityError as error:
            raise self._conflict(error) from error
        return {"id": order, "token": token, "total_cents": total}

    def _set_email(self, customer: int, email: str) -> Answer:
        try:
            found = self.write(lambda db: self.release.set_email(db, customer, email))
        except sqlite3.IntegrityError as error:
            raise self._conflict(error) from error
        return self._found({"id": customer, "email": email} if found else None)

    def _conflict(self, error: sqlite3.IntegrityError) -> Problem:
        # RAISE in a trigger is an IntegrityError as well.
        return Problem(503 if str(error).startswith("dbsync:") else 409, str(error))


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one piece
    shop: Shop

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            self._send(413, {"error": "too large"})
            return
        raw = self.rfile.read(length) if length else b"{}"
        try:
            body = json.loads(raw)
        except ValueError:
            self._send(400, {"error": "not JSON"})
            return
        self._send(*self.shop.answer(self.command, self.path, body if isinstance(body, dict) else {}))

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("X-Shop-Side", self.shop.name)
        self.end_headers()
        self.wfile.write(payload)

    def finish(self) -> None:
        """End the connection, and this thread's connection to the database."""
        super().finish()
        self.shop.close()

    def log_message(self, format: str, *args: object) -> None:
        """Only what failed is worth a line."""
        if args and str(args[1] if len(args) > 1 else "").startswith("5"):
            sys.stderr.write(f"{self.shop.name}: {format % args}\n")


class Server(ThreadingHTTPServer):
    """A thread a connection; a backlog that takes the burst after a handover."""

    daemon_threads = True
    request_queue_size = 4096
    allow_reuse_address = True


def make_server(release: int, database: Path, name: str, port: int = 0) -> Server:
    """The server, listening on the loopback address but not serving yet (port 0: any free one)."""
    handler = type("ShopHandler", (Handler,), {"shop": Shop(RELEASES[release], database, name)})
    return Server(("127.0.0.1", port), handler)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="The shop's web application.")
    parser.add_argument("--release", type=int, choices=sorted(RELEASES), required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True, help="what X-Shop-Side says")
    given = parser.parse_args()
    server = make_server(given.release, given.database, given.name, given.port)

    def stop(*_: object) -> None:
        # shutdown() waits for the loop, which runs in this thread.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
