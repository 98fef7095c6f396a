"""The program, loaded once: each command is forked from it and is a process of its own, without a second of imports.

Only where there is fork and /proc (Linux); elsewhere `start` runs the command line as it stands. The process that
stands by is one for each process of pytest, and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "tests.standby"
LOADED = (
    "dbsync.adapters.alembic",
    "dbsync.adapters.crossings",
    "dbsync.adapters.sqlite",
    "dbsync.adapters.traefik",
    "dbsync.cli.cutover",
    "dbsync.cli.main",
    "dbsync.cli.sync",
    "dbsync.cli.world",
    "dbsync.cutover.bake",
    "dbsync.verify.run",
)
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


# --- the process that stands by ------------------------------------------------------------------------


def serve(end: socket.socket) -> dict[str, Any] | None:
    """Answer what is asked. Comes back in a forked process with what it has to run; None when the tests are over."""
    while True:
        data, files, _, _ = socket.recv_fds(end, 1 << 20, 3)
        if not data:
            return None
        asked: dict[str, Any] = json.loads(data)
        if "pid" in asked:
            done, status = os.waitpid(asked["pid"], os.WNOHANG)
            end.send(json.dumps(os.waitstatus_to_exitcode(status) if done else None).encode())
        elif os.fork() == 0:
            _become(asked, files)
            end.send(str(os.getpid()).encode())
            end.close()
            return asked
        for file in files:
            os.close(file)


def _become(asked: Mapping[str, Any], files: Sequence[int]) -> None:
    if asked["session"]:
        os.setsid()
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    random.seed()


def run(asked: Mapping[str, Any]) -> None:
    """Run the command as `python -m MODULE` or `python FILE` would."""
    sys.argv = list(asked["line"])
    if asked["module"]:
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


# --- seen from the tests -------------------------------------------------------------------------------


class Standby:
    """The tests' end."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(60)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-m", NAME, str(other.fileno())],
                pass_fds=[other.fileno()],
                start_new_session=True,
                stdin=DEVNULL,
                stdout=DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
        atexit.register(self.close)

    def ask(self, asked: Mapping[str, Any], files: Sequence[int] = ()) -> Any:
        """One question, and its answer."""
        socket.send_fds(self.end, [json.dumps(asked).encode()], files)
        return json.loads(self.end.recv(1024))

    def close(self) -> None:
        """Let it end."""
        self.end.close()
        self.process.wait(10)


@functools.cache
def standby() -> Standby:
    """The one of this process."""
    return Standby()


class Forked:
    """A process that was forked: what tests use of subprocess.Popen."""

    def __init__(self, asked: Mapping[str, Any], stdin: Any, stdout: Any, stderr: Any) -> None:
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        self.returncode: int | None = None
        with contextlib.ExitStack() as theirs:
            files = []
            for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                mode = "r" if name == "stdin" else "w"
                if given == PIPE:
                    read, write = os.pipe()
                    their, our = (read, write) if name == "stdin" else (write, read)
                    theirs.callback(os.close, their)
                    setattr(self, name, os.fdopen(our, "w" if name == "stdin" else "r"))
                    files.append(their)
                elif given == DEVNULL:
                    files.append(theirs.enter_context(Path(os.devnull).open(mode)).fileno())
                else:
                    files.append(given.fileno())
            self.pid = int(standby().ask(asked, files))

    def poll(self) -> int | None:
        """Its exit code, None while it lives."""
        if self.returncode is None:
            self.returncode = standby().ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        give_up = time.monotonic() + (float("inf") if timeout is None else timeout)
        pause = 0.001
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return code

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Write, read to the end, and wait. Raises subprocess.TimeoutExpired."""
        give_up = None if timeout is None else time.monotonic() + timeout
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                if input:
                    self.stdin.write(input)
                self.stdin.close()
        said: dict[Any, list[bytes]] = {self.stdout: [], self.stderr: []}
        with selectors.DefaultSelector() as ready:
            for stream in filter(None, said):
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map():
                found = ready.select(None if give_up is None else max(0.0, give_up - time.monotonic()))
                if not found:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
                for key, _ in found:
                    part = os.read(key.fd, 1 << 16)
                    said[key.fileobj].append(part)
                    if not part:
                        ready.unregister(key.fileobj)
        for stream in filter(None, said):
            stream.close()
        self.wait(None if give_up is None else max(0.1, give_up - time.monotonic()))
        out, told = (b"".join(said[stream]).decode() if stream else "" for stream in (self.stdout, self.stderr))
        return out, told

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[str] | Forked


def start(
    line: Sequence[str],
    cwd: Path,
    stdin: Any = DEVNULL,
    stdout: Any = DEVNULL,
    stderr: Any = DEVNULL,
    session: bool = False,
    env: Mapping[str, str] = os.environ,
) -> Process:
    """Run a command line of this Python's: `-m MODULE` or a file, and its words."""
    if not sys.platform.startswith("linux"):
        return subprocess.Popen(
            line,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=session,
            env=dict(env),
            text=True,
        )
    assert line[0] == sys.executable
    module = line[2] if line[1] == "-m" else ""
    rest = [module, *line[3:]] if module else list(line[1:])
    asked = {"module": module, "line": rest, "cwd": str(cwd), "env": dict(env), "session": session}
    return Forked(asked, stdin, stdout, stderr)


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    if (told := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        run(told)
