"""The gate's worker: which side a request of the application goes to. Every request waits for this, so it does little.

HTTP/1.1 with kept connections on an inherited socket. A request under the control path is an order; any
other one is a question that the proxy asks, with the client's method in X-Forwarded-Method.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import re
import resource
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

BACKLOG = 4096
HOLD_LIMIT = 27.0
"""Seconds; the proxy itself gives up at 30 s, with a 500."""
HELD_LIMIT = 20_000
"""Held requests; more are refused with 503, or descriptors would run out and reads would fail too."""

_METHOD = re.compile(rb"\r\nx-forwarded-method: *([^\r]*)", re.IGNORECASE)
# The proxy takes Upgrade away before it asks, for it is hop by hop; the key of the handshake stays.
_UPGRADE = re.compile(rb"\r\n(?:sec-websocket-key:|upgrade: *websocket)", re.IGNORECASE)
_MARK = re.compile(rb"\r\nx-dbsync-mark: *([^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

_LATER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_MARKED = b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 11\r\n\r\ndbsync-gate"
_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEAD_LIMIT = 1_200_000


class Worker:
    """What the worker knows: the live side, whether writes pass, and who waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        state = json.loads(path.read_bytes())
        self.live: str = state["live"]
        self.mode: str = state["mode"]
        self.secret: bytes = state["mark"].encode()
        self.control: bytes = f"/dbsync-control-{state['control']}/".encode()
        # Counted since the first start; after a restart nobody knows how many passed before.
        self.passed = -1 if state.get("started") else 0
        self.held = 0
        self.longest = 0.0
        self.refused = 0
        self.waiting: dict[Connection, float] = {}
        self.stopping = asyncio.Event()
        self._state: dict[str, Any] = {**state, "started": True}
        self._orders = asyncio.Lock()
        self.answer = b""
        self._face(self.live)
        self._write(self._state)

    def _face(self, live: str) -> None:
        self.live = live
        self.answer = b"HTTP/1.1 204 No Content\r\nX-Dbsync-Side: " + live.encode("latin-1") + b"\r\n\r\n"

    def _write(self, state: dict[str, Any]) -> None:
        write_state(self._path, state)
        self._state = state

    async def _save(self, **changes: Any) -> None:
        # In a thread: a slow disk must not keep reads waiting.
        state = {**self._state, **changes}
        await asyncio.get_running_loop().run_in_executor(None, self._write, state)

    # --- orders -------------------------------------------------------------------------------

    async def order(self, words: str) -> dict[str, Any] | None:
        """Carry out an order (`hold?seconds=10`, `reject`, `decide/SIDE`, `stats`, `stop`); None: no such order."""
        word, _, rest = words.partition("?")[0].partition("/")
        async with self._orders:
            if word in ("hold", "reject"):
                # In memory first: the pause begins now. Nobody relies on it before the answer.
                self.mode = word
                await self._save(mode=word)
            elif word == "decide" and rest:
                # Durable first: whoever comes after a crash must not send writes to the other side.
                await self._save(live=rest, mode="pass")
                self.mode = "pass"
                self._face(rest)
                self._release()
            elif word == "stop":
                self.stopping.set()
            elif word != "stats":
                return None
            return self.stats()

    def stats(self) -> dict[str, Any]:
        """What has happened so far; `passed` is -1 when a restart has made it unknown."""
        now = time.monotonic()
        longest = max((now - since for since in self.waiting.values()), default=0.0)
        return {
            "mode": self.mode,
            "live": self.live,
            "passed": self.passed,
            "held": self.held,
            "waiting": len(self.waiting),
            "longest_ms": round(max(self.longest, longest) * 1000, 3),
            "refused": self.refused,
            "pid": os.getpid(),
        }

    # --- questions ----------------------------------------------------------------------------

    def ask(self, connection: Connection, head: bytes) -> bytes | None:
        """The answer to a question, or None: it waits, and is answered later."""
        if self.secret and (mark := _MARK.search(head)) and hmac.compare_digest(mark[1].strip(), self.secret):
            return _MARKED
        found = _METHOD.search(head)
        safe = found is not None and found[1] in _SAFE
        if self.mode == "pass":
            if not safe and self.passed >= 0:
                self.passed += 1
            return self.answer
        if safe and _UPGRADE.search(head) is None:
            return self.answer
        if self.mode == "reject" or len(self.waiting) >= HELD_LIMIT:
            self.refused += 1
            return _LATER
        self.held += 1
        connection.write = not safe
        self.waiting[connection] = time.monotonic()
        return None

    def leave(self, connection: Connection) -> None:
        """The client went away while it waited."""
        self.waiting.pop(connection, None)

    def _release(self) -> None:
        now = time.monotonic()
        waiting, self.waiting = self.waiting, {}
        for connection, since in waiting.items():
            self.longest = max(self.longest, now - since)
            if connection.write and self.passed >= 0:
                self.passed += 1
            connection.reply(self.answer)

    def sweep(self) -> None:
        """Refuse those that have waited as long as the proxy lets them."""
        limit = time.monotonic() - HOLD_LIMIT
        for connection, since in list(self.waiting.items()):
            if since > limit:
                break
            del self.waiting[connection]
            self.longest = max(self.longest, HOLD_LIMIT)
            self.refused += 1
            connection.reply(_LATER)


class Connection(asyncio.Protocol):
    """One kept connection; requests are answered in the order in which they came."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._rest = b""
        self._skip = 0
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self.write = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See asyncio.Protocol."""
        self._transport = None
        self._worker.leave(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._rest = self._rest + data if self._rest else data
        if not self._busy:
            self._go_on()

    def _go_on(self) -> None:
        while not self._busy and self._rest:
            if self._skip:
                skipped = min(self._skip, len(self._rest))
                self._skip -= skipped
                self._rest = self._rest[skipped:]
                continue
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                if len(head) > _HEAD_LIMIT and self._transport is not None:
                    self._transport.write(_LONG)
                    self._transport.close()
                return
            self._rest = rest
            self._request(head)

    def _request(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._skip = int(length[1]) if length else 0
        target = head[: head.find(b"\r\n")].split(b" ")
        if len(target) == 3 and target[1].startswith(self._worker.control):
            self._busy = True
            words = target[1][len(self._worker.control) :].decode("latin-1")
            self._task = asyncio.get_running_loop().create_task(self._obey(words))
            return
        answer = self._worker.ask(self, head)
        if answer is None:
            self._busy = True
        elif self._transport is not None:
            self._transport.write(answer)

    async def _obey(self, words: str) -> None:
        try:
            found = await self._worker.order(words)
            status = "200 OK" if found is not None else "404 Not Found"
        except OSError as exc:
            found, status = {"error": exc.strerror or str(exc)}, "500 Internal Server Error"
        body = json.dumps(found or {}).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.reply(head.encode() + body)

    def reply(self, answer: bytes) -> None:
        """Answer the request that waits, and go on with what came behind it."""
        self._busy = False
        if self._transport is not None:
            self._transport.write(answer)
            if self._rest:
                self._go_on()


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the state file, durably; only its owner may read it (it holds the secrets)."""
    staged = path.with_name(path.name + ".new")
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, json.dumps(state).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    staged.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def _serve(worker: Worker, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(worker), sock=sock, backlog=BACKLOG)
    while not worker.stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.stopping.wait(), 0.25)
        worker.sweep()
    server.close()
    await asyncio.sleep(0.05)  # the answer to the order to stop is still on its way


def _end_with_supervisor() -> None:
    # It holds the other end of stdin: when it is gone, so must the worker be, or a second one could begin.
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def run(fd: int, path: Path) -> None:
    """Serve on an inherited listening socket until told to stop, then end the process with 0."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()

    async def main() -> None:
        await _serve(Worker(path), sock)

    asyncio.run(main())
    os._exit(0)  # not through finalisation: the thread above still reads


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
