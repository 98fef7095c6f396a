"""The gate from outside: the socket that outlives its worker, the supervisor that restarts it, and how it is told.

The supervisor owns the listening socket, so a worker that dies takes no connection attempt with it: the
next one finds them in the backlog, and in the state file which side is live and whether writes wait.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dbsync.adapters.gate_worker import BACKLOG, write_state
from dbsync.errors import Unavailable

_CRASH_PAUSE = 0.2
"""Seconds to wait before another start, when the last worker did not live that long."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What lets one speak with the gate: the mark gets an answer of the gate's own, the control word gives orders."""

    mark: str
    control: str


def prepare(path: Path, live: str) -> Secrets:
    """Write the state file of a new gate that lets everything through to `live`; gives its secrets.

    The file is readable by its owner only: secrets never stand in a process list.
    """
    made = Secrets(secrets.token_hex(16), secrets.token_hex(16))
    state = {"live": live, "mode": "pass", "mark": made.mark, "control": made.control}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_state(path, state)
    except OSError as exc:
        raise _failed(f"its state file {path} cannot be written: {exc.strerror}") from exc
    return made


def listen(host: str, port: int) -> socket.socket:
    """The gate's listening socket (port 0: any that is free). Raises Unavailable (`gate-failed`)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise _failed(f"it cannot listen on {host}:{port}: {exc.strerror}", "Correct cutover.gate.") from exc


class Supervisor:
    """Runs the worker in a process of its own and starts it again whenever it dies; call `poll` regularly."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self._sock = sock
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self.restarts = 0
        self.ended = False
        """Whether the worker ended because it was told to."""

    @property
    def pid(self) -> int | None:
        """The worker's process id, None while there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the worker. Raises Unavailable (`gate-failed`) when no process can be started."""
        fd = self._sock.fileno()
        command: Sequence[str] = (sys.executable, "-m", "dbsync.adapters.gate_worker", str(fd), str(self._path))
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=(fd,),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                # A group of its own: a signal for the coordinator's group must not end the gate.
                start_new_session=True,
            )
        except OSError as exc:
            raise _failed(f"its process cannot be started: {exc.strerror}") from exc
        self._born = time.monotonic()

    def poll(self) -> bool:
        """Whether a worker runs; starts another when it has died. False once it has ended because it was told to."""
        if self._process is None or self.ended:
            return False
        code = self._process.poll()
        if code is None:
            return True
        if code == 0:
            self._reap()
            self.ended = True
            return False
        if time.monotonic() - self._born < _CRASH_PAUSE and self.restarts:
            return False  # it dies at once: not in a tight loop
        self._reap()
        self.restarts += 1
        self.start()
        return True

    def stop(self) -> None:
        """End the worker at once, whatever waits there, and let go of the socket."""
        self.ended = True
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()
            self._process.wait()
            self._reap()
        self._sock.close()

    def _reap(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        self._process = None


def supervise(sock: socket.socket, path: Path, done: Callable[[], bool], pause: float = 0.02) -> None:
    """Run the worker, and start it again whenever it dies, until `done` or until it was told to stop."""
    supervisor = Supervisor(sock, path)
    supervisor.start()
    try:
        while not done() and not supervisor.ended:
            supervisor.poll()
            time.sleep(pause)
    finally:
        supervisor.stop()


class Control:
    """Gives a gate its orders. Every order may be given twice; all raise Unavailable (`gate-unreachable`)."""

    def __init__(self, host: str, port: int, secret: str, timeout: float = 5.0) -> None:
        self._address = (host, port)
        self._path = f"/dbsync-control-{secret}/"
        self._timeout = timeout
        self._open: http.client.HTTPConnection | None = None

    def hold(self, seconds: float) -> dict[str, Any]:
        """From now on writes wait; gives the statistics. `seconds` is how long that is meant to last."""
        return self._order(f"hold?seconds={seconds:g}")

    def reject(self) -> dict[str, Any]:
        """From now on writes are refused with 503 and Retry-After."""
        return self._order("reject")

    def decide(self, side: str) -> dict[str, Any]:
        """Everything goes to `side` from now on, durably; what was held is released to it."""
        return self._order(f"decide/{quote(side, safe='')}")

    def stats(self) -> dict[str, Any]:
        """`mode`, `live`, `passed` writes (-1: unknown since a restart), `held`, `waiting`, `longest_ms`, `refused`."""
        return self._order("stats")

    def stop(self) -> None:
        """Let the worker end; harmless when it is gone."""
        with suppress(Unavailable):
            self._order("stop", patience=0.5)
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _order(self, words: str, patience: float | None = None) -> dict[str, Any]:
        # A worker that died under an order is back within a moment, and every order may be repeated.
        deadline = time.monotonic() + (self._timeout if patience is None else patience)
        while True:
            try:
                return self._once(words, max(deadline - time.monotonic(), 0.05))
            except (OSError, http.client.HTTPException, ValueError) as exc:
                self.close()
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"The gate at {self._address[0]}:{self._address[1]} does not answer.",
                        code="gate-unreachable",
                        remedy="dbsync cutover --resume",
                    ) from exc
                time.sleep(0.01)

    def _once(self, words: str, timeout: float) -> dict[str, Any]:
        if self._open is None:
            self._open = http.client.HTTPConnection(*self._address, timeout=timeout)
        elif self._open.sock is not None:
            self._open.sock.settimeout(timeout)
        self._open.request("POST", self._path + words)
        answer = self._open.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200 or not isinstance(found, dict):
            raise ValueError(f"the gate answers {answer.status}")
        return found


def _failed(why: str, remedy: str = "Free what it needs, and run again.") -> Unavailable:
    return Unavailable(f"The gate does not start: {why}.", code="gate-failed", remedy=remedy)
