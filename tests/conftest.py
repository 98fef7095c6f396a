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


LONGEST = (
    "test_killed.py",
    "test_stopped.py",
    "test_killed_others.py",
    "test_demo.py",
    "test_route.py",
    "test_protocol_owner.py",
    "test_processes.py",
    "test_protocol_evidence.py",
    "test_verify_in_use.py",
    "test_protocol_traffic.py",
    "test_chinook_story.py",
    "test_jobs_killed.py",
    "test_schedulers.py",
    "test_architecture.py",
    "test_refresh.py",
)
"""Files that take more than a few seconds, the longest first."""


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
    """Processes of this one's that are still there, zombies left out (empty where there is no /proc).

    What was forked from the process that stands by (tests/standby.py) counts as this one's; that process itself stays.
    """
    found: list[tuple[int, int, str]] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
            command = (entry.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            found.append((int(entry.parent.name), int(parent), command))
    mine = [(pid, command) for pid, parent, command in found if parent == os.getpid()]
    standing = {pid for pid, command in mine if "tests.standby" in command}
    mine += [(pid, command) for pid, parent, command in found if parent in standing]
    # The tracker is Python's own, and lives as long as this process.
    return {pid: c for pid, c in mine if pid not in standing and "multiprocessing.resource_tracker" not in c}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin, so that the workers end together (a file stays with its worker)."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


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
