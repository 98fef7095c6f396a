"""The custodian as the coordinator sees it: a process of its own, and the gate that it keeps."""

from __future__ import annotations

import json
import os
import platform
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dbsync.adapters.gate import Control
from dbsync.errors import Unavailable

START_SECONDS = 20.0
ROUTE_SECONDS = 60.0
"""How long the coordinator may take from the release to the confirmed route before the custodian goes on alone."""


def new_owner() -> str:
    """A word for this process that no other one has, from which its host can tell whether it still runs."""
    return f"{platform.node()}:{os.getpid()}:{start_of(os.getpid()) or 0}:{uuid.uuid4().hex[:8]}"


def start_of(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None when there is no such process. Tells a reused pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP, Ctrl-Z) and has not been continued."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def owner_lives(owner: str) -> bool | None:
    """Whether the process that an owner's word names still runs; None when it is another host's."""
    parts = owner.rsplit(":", 3)
    if len(parts) != 4 or parts[0] != platform.node() or not (parts[1] + parts[2]).isdecimal():
        return None
    return start_of(int(parts[1])) == int(parts[2])


class CustodianProcess:
    """See ports.Gate. The custodian acts by itself when this process dies, or does not decide in time."""

    def __init__(self, command: Sequence[str], record: Path) -> None:
        self._command = command
        self._record = record
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Control | None = None

    def start(self, epoch: int, live: str, owner: str) -> tuple[str, str]:
        """See ports.Gate."""
        words = [*self._command, "--epoch", str(epoch), "--live", live, "--owner", owner]
        log = self._record.with_name("custodian.log")
        self._record.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        ready = self._ready()
        if ready.get("port"):
            self._control = Control(str(ready["host"]), int(ready["port"]), str(ready["control"]))
        return str(ready.get("url", "")), str(ready.get("mark", ""))

    def _ready(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = _line(self._process.stdout, START_SECONDS)
        found = json.loads(line) if line else {}
        if not found.get("ready"):
            self._process.kill()
            raise Unavailable(
                f"the custodian did not start: {found.get('error', 'no answer')}",
                code="custodian-failed",
                remedy=f"see {self._record.with_name('custodian.log')}",
            )
        return dict(found)

    def hold(self, seconds: float) -> None:
        """See ports.Gate."""
        self._tell({"deadline": seconds})
        if self._control is not None:
            self._control.hold(seconds)

    def reject(self, seconds: float) -> None:
        """As `hold`, but writes are answered with 503 and Retry-After."""
        self._tell({"deadline": seconds})
        if self._control is not None:
            self._control.reject()

    def decide(self, live: str) -> None:
        """See ports.Gate."""
        if self._control is not None:
            self._control.decide(live)
        self._tell({"deadline": ROUTE_SECONDS})

    def passed_writes(self) -> int:
        """See ports.Gate."""
        return int(self._control.stats()["passed"]) if self._control is not None else 0

    def held(self) -> tuple[int, float]:
        """See ports.Gate."""
        if self._control is None:
            return 0, 0.0
        stats = self._control.stats()
        return int(stats["held"]), float(stats["longest_ms"])

    def stop(self) -> None:
        """See ports.Gate."""
        if self._process is not None:
            self._tell({"done": True})
            process = self._process
            self.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10.0)

    def close(self) -> None:
        """See ports.Gate. The end of the stream, without `done`, tells the custodian to go on alone."""
        if self._control is not None:
            self._control.close()
        process, self._process = self._process, None
        for stream in (process.stdin, process.stdout) if process is not None else ():
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _tell(self, message: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            return
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise Unavailable("the custodian is gone", code="custodian-failed", remedy="dbsync status") from error


class RecordedGate:
    """See ports.Gate. The gate of a handover that another process began on this host, by what it recorded."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._control = Control(str(record["host"]), int(record["port"]), str(record["control"]))

    def start(self, epoch: int, live: str, owner: str) -> tuple[str, str]:
        """It runs already."""
        raise Unavailable(
            "the gate of another handover runs already", code="cutover-running", remedy="dbsync cutover --resume"
        )

    def hold(self, seconds: float) -> None:
        """See ports.Gate."""
        self._control.hold(seconds)

    def reject(self, seconds: float) -> None:
        """See ports.Gate."""
        self._control.reject()

    def decide(self, live: str) -> None:
        """See ports.Gate."""
        with suppress(Unavailable):
            self._control.decide(live)

    def passed_writes(self) -> int:
        """See ports.Gate."""
        return int(self._control.stats()["passed"])

    def held(self) -> tuple[int, float]:
        """See ports.Gate."""
        stats = self._control.stats()
        return int(stats["held"]), float(stats["longest_ms"])

    def stop(self) -> None:
        """The custodian that keeps it ends by itself."""
        self.close()

    def close(self) -> None:
        """See ports.Gate."""
        self._control.close()


def read_record(path: Path) -> dict[str, Any] | None:
    """What the custodian of a handover recorded, if it still runs; None otherwise."""
    try:
        record = dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None
    return record if start_of(int(record.get("pid", 0))) == record.get("start") else None


def own_command(config: Path) -> list[str]:
    """How to run the custodian with the program that runs now."""
    return [sys.executable, "-m", "dbsync", "--config", str(config), "custodian"]


def _line(stream: IO[bytes], seconds: float) -> bytes:
    give_up = time.monotonic() + seconds
    found = b""
    while not found.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, give_up - time.monotonic()))
        if not ready:
            return b""
        part = os.read(stream.fileno(), 65536)
        if not part:
            return found
        found += part
    return found
