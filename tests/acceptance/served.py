"""Two small releases of one application, a process: python served.py BLUE GREEN prints the ports, then serves.

POST /items with {"token"} writes an item and its note in one transaction; GET /items/TOKEN reads it back. A database
that refuses because it is not the active one is a 503.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COLUMNS = {"blue": ("label", "body"), "green": ("title", "remark")}
"""What the two releases call one item's name and one note's text."""


def statements(side: str) -> tuple[str, str]:
    """The two inserts of one write, in a release's words."""
    name, text = COLUMNS[side]
    return f"INSERT INTO item (token, {name}) VALUES (?, ?)", f"INSERT INTO note (item_id, {text}) VALUES (?, ?)"


def write(db: sqlite3.Connection, side: str, token: str) -> None:
    """One item and its note; the caller's transaction."""
    item, note = statements(side)
    made = db.execute(item, (token, f"name of {token}")).lastrowid
    db.execute(note, (made, f"about {token}"))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def handler(side: str, path: Path) -> type[BaseHTTPRequestHandler]:
    """One release over one database; every connection of a client has a connection to the database."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1
        db: sqlite3.Connection | None = None

        def do_GET(self) -> None:
            token = self.path.rpartition("/")[2]
            if token == "health":
                return self._send(200)
            found = self._db().execute("SELECT 1 FROM item WHERE token = ?", (token,)).fetchone()
            return self._send(200 if found else 404)

        def do_POST(self) -> None:
            token = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["token"]
            db = self._db()
            try:
                db.execute("BEGIN IMMEDIATE")
                write(db, side, token)
                db.execute("COMMIT")
            except sqlite3.Error as error:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                return self._send(503, str(error))
            return self._send(201)

        def _db(self) -> sqlite3.Connection:
            if self.db is None:
                self.db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            return self.db

        def _send(self, status: int, told: str = "") -> None:
            payload = told.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("X-Side", side)
            self.end_headers()
            self.wfile.write(payload)

        def finish(self) -> None:
            super().finish()
            if self.db is not None:
                self.db.close()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def main() -> None:
    servers = [
        Server(("127.0.0.1", 0), handler(side, Path(path)))
        for side, path in zip(("blue", "green"), sys.argv[1:3], strict=True)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps([server.server_address[1] for server in servers]) + "\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it lets go


if __name__ == "__main__":
    main()
