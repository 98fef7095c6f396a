"""The house as it is checked: the arrows by import-linter, the purity of rooms by tests/purity.py.

Each rule is also broken on purpose in a copy of the package, and seen to fail there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.purity import helpless, offences

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dbsync"


def lint(folder: Path) -> tuple[int, str]:
    """What `lint-imports` says about the copy of the package in a folder."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(command), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package to break."""
    shutil.copytree(PACKAGE, tmp_path / "dbsync", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def add(folder: Path, module: str, line: str) -> None:
    path = folder / "dbsync" / module
    assert path.exists()
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")


def test_the_arrows_hold() -> None:
    code, told = lint(ROOT)
    assert code == 0, told


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("model.py", "import dbsync.ports", "Imports point down"),
        ("sync/__init__.py", "import dbsync.verify", "Imports point down"),
        ("etl/__init__.py", "def later() -> None:\n    import dbsync.cutover", "Imports point down"),
        ("adapters/memory.py", "import dbsync.sync", "Adapters know ports"),
        ("cutover/__init__.py", "import dbsync.adapters.memory", "Only cli/wiring.py"),
        ("cli/render.py", "import dbsync.adapters.memory", "Only cli/wiring.py"),
        ("adapters/clock.py", "import click", "Only cli/ knows"),
        ("verify/__init__.py", "import sqlite3", "Rooms know no driver"),
    ],
)
def test_the_linter_fails_when_an_arrow_is_broken(copy: Path, module: str, line: str, contract: str) -> None:
    add(copy, module, line)
    code, told = lint(copy)
    assert code != 0
    broken = [text for text in told.splitlines() if text.endswith("BROKEN")]
    assert any(contract in text for text in broken), told


def test_every_error_says_what_to_do_next(copy: Path) -> None:
    assert helpless(PACKAGE) == []
    add(copy, "sync/run.py", "def give_up() -> None:\n    raise Refused('no', code='no')")
    assert [one.partition(":")[0] for one in helpless(copy / "dbsync")] == ["sync/run.py"]


def test_rooms_are_pure() -> None:
    assert offences(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "line", "told"),
    [
        ("model.py", "import os", "imports os"),
        ("sync/__init__.py", "from time import monotonic", "imports time"),
        ("etl/__init__.py", "from sqlalchemy import create_engine", "imports sqlalchemy.create_engine"),
        ("verify/__init__.py", "def shout() -> None:\n    print('x')", "calls print"),
        ("cutover/state.py", "content = open('x').read()", "calls open"),
        ("migrate/__init__.py", "answer = input()", "calls input"),
        ("cutover/state.py", "import datetime\nstamp = datetime.datetime.now()", "calls datetime.datetime.now"),
        ("verify/run.py", "from datetime import datetime\nstamp = datetime.utcnow()", "calls datetime.utcnow"),
        ("model.py", "from datetime import date\nday = date.today", "calls date.today"),
        ("sync/__init__.py", "kind = 'mssql+pyodbc'", "names mssql"),
        ("ports.py", "class Kafka: ...", "names kafka"),
        ("errors.py", "is_sqlite = True", "names sqlite"),
    ],
)
def test_an_impure_room_is_found(copy: Path, module: str, line: str, told: str) -> None:
    add(copy, module, line)
    assert any(told in offence and offence.startswith(f"{module}:") for offence in offences(copy / "dbsync"))
