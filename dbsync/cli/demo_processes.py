"""The demo's processes: started, watched, asked, and all ended whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import dbsync
from dbsync.errors import DbsyncError, Interrupted, Unavailable

COMMAND_SECONDS = 90.0
PATIENCE = 0.05
LOOK = "Run `dbsync demo --keep DIR`: the files and logs stay there."
GRACE = 10.0
"""How long a process that was told to end may take, in seconds."""


class Processes:
    """What runs beside the demo. Leaving the block ends all of it."""

    def __init__(self, folder: Path, stop: Callable[[], bool]) -> None:
        self.folder, self.stop = folder, stop
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Last come, first gone: the load before what it talks to. A second signal does not leave any behind.
        while self._running:
            with suppress(Interrupted):
                self.end(next(reversed(self._running)))

    def start(self, name: str, line: Sequence[str]) -> None:
        """Start a process; what it says goes to logs/NAME.log."""
        with self._log(name) as log:
            self._running[name] = subprocess.Popen(
                line,
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is for the demo, which ends the others in order.
                start_new_session=True,
            )

    def end(self, name: str, grace: float = GRACE) -> int | None:
        """Tell a process to end, and see that it does within `grace` seconds, or kill it.

        Gives its exit code, None when there is none of that name.
        """
        process = self._running.get(name)
        if process is None:
            return None
        code = _end(process, grace)
        self._running.pop(name, None)
        return code

    def ask(self, name: str, line: Sequence[str], seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
        """Run a command to its end. Gives its exit code and what it wrote on stdout.

        Raises Interrupted when the demo is stopped meanwhile, Unavailable when it takes too long; either
        way the command has ended.
        """
        with self._log(name) as log:
            process = subprocess.Popen(
                line,
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + seconds
        with process:
            while True:
                try:
                    out, _ = process.communicate(timeout=0.1)
                except subprocess.TimeoutExpired:
                    pass
                else:
                    return process.returncode, out.decode("utf-8", "replace")
                if self.stop() or time.monotonic() > deadline:
                    # A handover under way finishes or undoes itself, within its own longest pause.
                    _end(process, GRACE * 3)
                    if self.stop():
                        raise Interrupted(changed=True)
                    raise Unavailable(
                        f"{name} did not end within {seconds:.0f} s.", code="demo-stuck", remedy=LOOK, changed=True
                    )

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds. Raises Interrupted, Unavailable (`demo-stuck`), also when a process died."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.breathe()
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{what} did not come true within {seconds:.0f} s.", code="demo-stuck", remedy=LOOK, changed=True
                )
            time.sleep(PATIENCE)

    def pause(self, seconds: float) -> None:
        """Let the others work for a while. Raises as `wait`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.breathe()
            time.sleep(min(left, PATIENCE))

    def breathe(self) -> None:
        """Raises Interrupted when the demo is told to stop, Unavailable (`demo-died`) when one of the others died."""
        if self.stop():
            raise Interrupted(changed=True)
        for name, process in self._running.items():
            if process.poll() is not None:
                raise Unavailable(
                    f"{name} ended with {process.returncode}: {self.last_words(name)}",
                    code="demo-died",
                    remedy=LOOK,
                    changed=True,
                )

    def last_words(self, name: str) -> str:
        """The last line of a process's log."""
        try:
            lines = (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it left no log"
        return lines[-1] if lines else "it said nothing"

    def _log(self, name: str) -> Any:
        return (self.folder / "logs" / f"{name}.log").open("ab")


def answers(url: str, side: str | None = None, status: int = 200) -> bool:
    """Whether a GET is answered with that status, by that side of the shop where one is named."""
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port or 80, timeout=2)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        response.read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return response.status == status and side in (None, response.getheader("X-Shop-Side"))


def object_of(command: str, code: int, out: str, last_words: str = "") -> dict[str, Any]:
    """The object that a command printed. Raises the command's own error, as its exit code and object say it."""
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        raise Unavailable(
            f"`{command}` ended with {code} and gave no object: {last_words or out[:200]}",
            code="demo-command-failed",
            remedy=LOOK,
            changed=True,
        ) from None
    if code == 0:
        return found
    told = found.get("error") or {"code": "demo-command-failed", "message": json.dumps(found)}
    kind = next((one for one in DbsyncError.__subclasses__() if one.exit_code == code), DbsyncError)
    blockers = "; ".join(f"{one['code']}: {one['found']}" for one in told.get("blockers", ()))
    raise kind(
        f"`{command}`: {told['message']}{' ' + blockers if blockers else ''}",
        code=told["code"],
        remedy=told.get("remedy") or LOOK,
        changed=True,
    )


def _end(process: subprocess.Popen[bytes], grace: float) -> int:
    """End a process: asked first, killed when it does not. Gives its exit code."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        if process.poll() is not None:
            break
        process.send_signal(number)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(PATIENCE)
    return process.wait()


def _environment() -> dict[str, str]:
    """The environment of a child: this very dbsync, also in a checkout that is not installed."""
    given = dict(os.environ)
    given.pop("DBSYNC_CONFIG", None)
    parent = Path(dbsync.__file__).resolve().parent.parent
    if (parent / "pyproject.toml").exists():
        given["PYTHONPATH"] = os.pathsep.join(part for part in (str(parent), given.get("PYTHONPATH")) if part)
    return given
