"""What every test may use: polling with a deadline, and the promise that no process is left behind."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Eventually = Callable[..., None]

SERVICE = re.compile(r"^(?:Skipped: )?service missing: (?P<name>[^\n(]+)")
"""A test that needs an outside service skips with this text, so that the summary can count it by name."""


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """`eventually(condition, seconds)`: poll until the condition holds; fails when it does not in time."""

    def wait(condition: Callable[[], object], seconds: float = 5.0, told: str = "") -> None:
        deadline = time.monotonic() + seconds
        pause = 0.002
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(told or f"did not come true within {seconds:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    return wait


def children() -> dict[int, str]:
    """Child processes of this one that are still there, zombies left out (empty where there is no /proc)."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
            command = (entry.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        ours = "multiprocessing.resource_tracker" in command  # Python's own, lives as long as this process
        if int(parent) == os.getpid() and state != "Z" and not ours:
            found[int(entry.parent.name)] = command
    return found


@pytest.fixture(autouse=True)
def no_child_is_left(eventually: Eventually) -> Iterator[None]:
    """Fails a test that leaves a process of its own running."""
    before = children().keys()
    yield
    left: dict[int, str] = {}

    def gone() -> bool:
        left.clear()
        left.update({pid: command for pid, command in children().items() if pid not in before})
        return not left

    deadline = time.monotonic() + 3.0
    while not gone() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left, f"processes were left running: {left}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name and count the services whose tests were skipped, so that a green run says what it did not see."""
    counts: Counter[str] = Counter()
    other = 0
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        found = SERVICE.match(reason)
        if found is None:
            other += 1
        else:
            counts[found["name"].strip()] += 1
    if counts:
        told = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        terminalreporter.write_line(f"services missing, tests skipped: {told}", yellow=True)
    elif not other:
        terminalreporter.write_line("services missing: none")
    if other:
        terminalreporter.write_line(f"skipped for other reasons: {other}", yellow=True)
