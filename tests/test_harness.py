"""The promises of tests/conftest.py, seen from outside: a run of pytest's own over a small folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


def run(folder: Path, text: str) -> tuple[int, str]:
    shutil.copy(CONFTEST, folder)
    (folder / "test_some.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_summary_names_and_counts_missing_services(tmp_path: Path) -> None:
    code, told = run(
        tmp_path,
        "import pytest\n"
        "def test_a(): pytest.skip('service missing: traefik (not installed)')\n"
        "def test_b(): pytest.skip('service missing: traefik')\n"
        "def test_c(): pytest.skip('service missing: SQL Server (DBSYNC_TEST_MSSQL_BLUE is not set)')\n"
        "def test_d(): pytest.skip('no reason at all')\n",
    )
    assert code == 0
    assert "services missing, tests skipped: SQL Server (1), traefik (2)" in told
    assert "skipped for other reasons: 1" in told


def test_the_summary_says_when_nothing_was_missing(tmp_path: Path) -> None:
    code, told = run(tmp_path, "def test_a(): pass\n")
    assert code == 0
    assert "services missing: none" in told


def test_a_test_that_leaves_a_process_fails(tmp_path: Path) -> None:
    code, told = run(
        tmp_path,
        "import subprocess\n"
        "def test_a():\n"
        "    left = subprocess.Popen(['sleep', '30'])\n"
        "    open('pid', 'w').write(str(left.pid))\n"
        "    left.returncode = 0\n",
    )
    try:
        assert code != 0
        assert re.search(r"processes were left running: \{\d+: 'sleep 30", told)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_eventually_gives_up_at_its_deadline(tmp_path: Path) -> None:
    code, told = run(tmp_path, "def test_a(eventually): eventually(lambda: False, 0.05)\n")
    assert code != 0
    assert "did not come true within 0.05 s" in told


def test_eventually_waits_for_a_condition(eventually: pytest.FixtureRequest) -> None:
    seen: list[int] = []

    def third_time() -> bool:
        seen.append(1)
        return len(seen) == 3

    eventually(third_time, 5.0)  # type: ignore[operator]
    assert len(seen) == 3
