"""The clock of the machine, and the one place where a signal to stop wakes whoever waits."""

from __future__ import annotations

import queue
import time
from datetime import UTC, datetime

from dbsync.errors import Interrupted
from dbsync.ports import Clock


class SystemClock(Clock):
    """Real time. `interrupt` may be called from a signal handler or another thread."""

    def __init__(self) -> None:
        self._stopped = False
        # Not an Event: its lock is not reentrant, so a handler that sets it while the same thread is
        # between two steps of wait() would never return. SimpleQueue.put is safe there.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def stopped(self) -> bool:
        """Whether the process was told to stop."""
        return self._stopped

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; raises Interrupted as soon as the process is told to stop, at once when it was."""
        try:
            self._wake.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return
        self._wake.put(None)  # for the next sleeper
        raise Interrupted

    def interrupt(self) -> None:
        """Tell the process to stop: every sleep, now and later, ends with Interrupted."""
        self._stopped = True
        self._wake.put(None)
