"""Time and traffic in memory: a clock that moves when told, a router of some replicas, and a gate."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from dbsync.errors import Interrupted, Unavailable
from dbsync.model import Check, Route, Severity
from dbsync.ports import Clock, Gate, Router


class FakeClock(Clock):
    """A clock that stands still until `advance` or `sleep` moves it; `interrupt` makes the next sleep raise."""

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0
        self._lock = threading.Lock()
        self.stopped = False

    def now(self) -> datetime:
        """See Clock."""
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """See Clock."""
        return self._passed

    def sleep(self, seconds: float) -> None:
        """See Clock; takes no time."""
        if self.stopped:
            raise Interrupted
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move on by this many seconds."""
        with self._lock:
            self._passed += max(seconds, 0.0)

    def interrupt(self) -> None:
        """What a signal does."""
        self.stopped = True


class MemoryRouter(Router):
    """One router at some replicas. Names in `deaf` do not follow the file; `down` answers nothing."""

    def __init__(self, active: str, services: Mapping[str, str], replicas: Sequence[str] = ("one",)) -> None:
        self.services = dict(services)
        self.says = dict.fromkeys(replicas, active)
        self.deaf: set[str] = set()
        self.down = False
        self.hold: tuple[int, str, str, str] | None = None
        self.writes: int | None = 0
        self._file: str | None = active

    def routes(self) -> list[Route]:
        """See Router."""
        self._answer()
        return [Route("main", self.services[name], name, replica) for replica, name in self.says.items()]

    def written(self) -> str | None:
        """See Router."""
        return self._file

    def examine(self, active: str) -> tuple[Check, ...]:
        """See Router."""
        if self.down:
            return (Check("router-unreachable", Severity.BLOCKER, "the proxy does not answer", "start it"),)
        if set(self.says.values()) != {active}:
            return (Check("route-disagrees", Severity.BLOCKER, f"not all is routed to {active}", "route it there"),)
        return (Check("route", Severity.OK, f"routed to {active}"),)

    def switch(self, environment: str, wait: float) -> list[Route]:
        """See Router."""
        self._answer()
        self._file = environment
        for replica in self.says.keys() - self.deaf:
            self.says[replica] = environment
        if self.deaf:
            raise Unavailable(
                f"replica {min(self.deaf)} does not say {environment} after {wait:g} s",
                code="route-not-confirmed",
                remedy="dbsync cutover --resume",
                changed=True,
            )
        return self.routes()

    def install_hold(self, epoch: int, gate: str, secret: str, active: str, wait: float) -> None:
        """See Router."""
        if self.down or self.deaf:
            raise Unavailable(
                f"the hold was not confirmed within {wait:g} s", code="hold-not-confirmed", remedy="look at the proxy"
            )
        self.hold = (epoch, gate, secret, active)

    def remove_hold(self, wait: float) -> None:
        """See Router."""
        self._answer()
        self.hold = None

    def healthy(self) -> bool:
        """See Router."""
        return not self.down

    def hold_present(self) -> bool:
        """See Router."""
        return self.hold is not None

    def writes_served(self) -> int | None:
        """See Router."""
        return self.writes

    def close(self) -> None:
        """See Router."""

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the proxy does not answer", code="router-unreachable", remedy="start it and run again")


class MemoryGate(Gate):
    """The gate without a process: `request` is the face that a request meets."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or FakeClock()
        self.live = ""
        self.owner = ""
        self.running = False
        self.deadline: float | None = None
        self._passed = 0
        self._waiting: list[float] = []
        self._waits: list[float] = []

    def start(self, epoch: int, live: str, owner: str) -> tuple[str, str]:
        """See Gate."""
        self.live, self.owner, self.running = live, owner, True
        return f"memory://gate/{epoch}", f"mark-{epoch}"

    def hold(self, seconds: float) -> None:
        """See Gate."""
        self.deadline = self._clock.monotonic() + seconds

    def reject(self, seconds: float) -> None:
        """See Gate; here a write waits all the same."""
        self.hold(seconds)

    def decide(self, live: str) -> None:
        """See Gate."""
        now = self._clock.monotonic()
        self._waits += [now - since for since in self._waiting]
        self._passed += len(self._waiting)
        self._waiting.clear()
        self.live, self.deadline = live, None

    def passed_writes(self) -> int:
        """See Gate."""
        return self._passed

    def held(self) -> tuple[int, float]:
        """See Gate."""
        now = self._clock.monotonic()
        waits = self._waits + [now - since for since in self._waiting]
        return len(waits), max(waits, default=0.0) * 1000

    def stop(self) -> None:
        """See Gate."""
        self.running = False

    def close(self) -> None:
        """See Gate."""

    def request(self, write: bool) -> str | None:
        """The environment that a request goes to; None for a write that is held until `decide`."""
        if write and self.deadline is not None:
            self._waiting.append(self._clock.monotonic())
            return None
        self._passed += write
        return self.live
