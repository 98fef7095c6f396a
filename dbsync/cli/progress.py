"""Progress on stderr: a bar on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TextIO

from dbsync.cli import render
from dbsync.errors import Interrupted

EVERY = 5.0
"""Seconds between two plain lines."""


class Progress:
    """A `model.Report`. Raises Interrupted from a report once the program was told to stop."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        stop: Callable[[], bool] = lambda: False,
        stream: TextIO | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._stop = stop
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._last = monotonic()
        self._began: dict[str, tuple[float, int]] = {}
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Say how far `what` has come."""
        if self._stop():
            raise Interrupted
        now = self._monotonic()
        # A rate counts from where this run began: what an earlier one copied took no time now.
        since, before = self._began.setdefault(what, (now, done))
        if self._terminal:
            self._draw(what, done, total)
        elif now - self._last >= EVERY:
            self._last = now
            line = progress_line(what, done, total, done - before, now - since)
            print(render.masked(line), file=self._stream, flush=True)

    def _draw(self, what: str, done: int, total: int | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._bar.start()
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(render.masked(what), total=total, rate="")
        since, before = self._began[what]
        rate = _rate(done - before, self._monotonic() - since)
        self._bar.update(self._tasks[what], completed=done, total=total, rate=f"{rate:,.0f}/s" if rate else "")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()


def _rate(moved: int, elapsed: float) -> float:
    return moved / elapsed if elapsed > 0 and moved > 0 else 0.0


def progress_line(what: str, done: int, total: int | None, moved: int, elapsed: float) -> str:
    """One plain line: what, how many of how many, the rate a second, the time left."""
    rate = _rate(moved, elapsed)
    parts = [f"{what}: {done:,}" if total is None else f"{what}: {done:,} of {total:,}"]
    if total:
        parts[0] += f" ({100 * done // total} %)"
    if rate:
        parts.append(f"{rate:,.0f}/s")
        if total is not None and total > done:
            parts.append(f"{render.seconds((total - done) / rate)} left")
    return ", ".join(parts)
