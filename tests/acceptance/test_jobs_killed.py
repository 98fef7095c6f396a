"""Jobs killed at any moment: the target ends as if none had ever been."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl import Job
from dbsync.etl.load import run_job
from tests.acceptance.shelf import Shelf
from tests.unit.etl.jobs_world import LEFT_OUT, World, each, sums

SEED, KILLS = 4, 20
ORDERS = "SELECT id, -id AS total FROM orders WHERE changed_at >= :since AND changed_at < :until"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.dispose()


def run_in_child(world: World, job: Job, name: str, idle: str, kill_at: int = 0) -> tuple[int, int]:
    """Run a job in a process of its own, which kills itself at its `kill_at`-th call (0: never).

    Gives how it ended (0, or minus the signal), and how many calls there were.
    """
    world.dispose()  # SQLite's connections must not be carried into another process
    told = world.folder / "calls"
    told.write_text("0")
    child = os.fork()
    if child == 0:
        code = 9
        try:
            databases = {"blue": world.folder / "blue.db", "green": world.folder / f"{idle}.db"}
            made = {side: SqliteDatabase(side, f"sqlite:///{path}", LEFT_OUT) for side, path in databases.items()}
            told.write_text(str(_counted(lambda: run_job(name, job, made, "blue", "green", 1, world.clock), kill_at)))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(told.read_text())


def _counted(action: Any, kill_at: int) -> int:
    """Do something, and count every call and return of a function, Python's or SQLite's, on the way."""
    seen = 0

    def count(_frame: object, _event: str, _what: object) -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    action()
    sys.setprofile(None)
    return seen


def copied(world: World, name: str) -> None:
    """The idle side once more as it stands, to run the job there without being killed."""
    world.dispose()
    path = world.folder / f"{name}.db"
    with closing(sqlite3.connect(world.folder / "green.db")) as green, closing(sqlite3.connect(path)) as copy:
        green.backup(copy)
    database = SqliteDatabase("green", f"sqlite:///{path}", LEFT_OUT)
    database.install("blue")
    database.dispose()


def stored(world: World, idle: str) -> tuple[Any, Any, Any]:
    """What the jobs left: both tables, and where they ended."""
    with closing(sqlite3.connect(world.folder / f"{idle}.db")) as connection:
        ended = connection.execute("SELECT name, document FROM dbsync_documents WHERE kind = 'job' ORDER BY 1")
        documents = {name: json.loads(text)["until"] for name, text in ended}
        tables = [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in ("totals", "copies")]
    return tables[0], tables[1], documents


@pytest.mark.kill
def test_a_job_killed_at_twenty_moments_ends_like_one_that_never_was(world: World) -> None:
    chance = random.Random(SEED)
    jobs = {"sums": sums(overlap=None), "copies": each(extract=ORDERS)}
    copied(world, "spared")
    number = 0
    for kill in range(KILLS):
        for _ in range(chance.randrange(1, 40)):
            number += 1
            world.order(number, day=str(number % 7), total=number, ago=chance.choice([0, 0, 0.5]))
        changed = chance.randrange(1, number + 1)
        world.order(changed, day=str(changed % 7), total=chance.randrange(1000))
        name = list(jobs)[kill % 2]
        assert run_in_child(world, jobs[name], name, "spared")[0] == 0
        copied(world, "probe")
        ended, calls = run_in_child(world, jobs[name], name, "probe")
        assert (ended, calls > 500) == (0, True)
        before = stored(world, "green")
        moment = chance.randrange(1, calls)
        ended, _ = run_in_child(world, jobs[name], name, "green", moment)
        assert ended == -signal.SIGKILL, f"kill {kill} at {moment} of {calls}"
        after = stored(world, "green")
        if after[2] == before[2]:
            assert after == before, f"kill {kill} at {moment} of {calls}: rows came without their bounds"
    for name, job in jobs.items():
        for idle in ("spared", "green"):
            assert run_in_child(world, job, name, idle)[0] == 0
    assert stored(world, "green")[:2] == stored(world, "spared")[:2]
    with world.application() as connection:
        days = connection.execute("SELECT day, SUM(total) FROM orders GROUP BY day ORDER BY 1").fetchall()
    assert stored(world, "green")[0] == days
    assert [key for key, _ in stored(world, "green")[1]] == list(range(1, number + 1))


JOB = """
import os, signal, sys
from dbsync.etl import Job
def transform(rows):
    if os.environ.get("DBSYNC_TEST_SIGNAL"):
        os.kill(os.getpid(), int(os.environ["DBSYNC_TEST_SIGNAL"]))
    return rows
job = Job(extract="SELECT id, total FROM orders WHERE changed_at >= :since AND changed_at < :until",
          into="copies", key="id", mode="append", overlap="1h", transform=transform)
"""


@pytest.mark.kill
def test_the_command_killed_or_told_to_stop_leaves_nothing_and_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path)
    (tmp_path / "etl" / "jobs").mkdir()
    shelf.write("etl/jobs", {"orders.py": JOB})
    for side in ("blue", "green"):
        with closing(sqlite3.connect(tmp_path / f"{side}.db")) as connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total, changed_at)")
            connection.execute("CREATE TABLE copies (id INTEGER PRIMARY KEY, total)")
            connection.execute("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
            connection.execute("INSERT INTO alembic_version VALUES ('0001')")
            connection.commit()
    assert _dbsync(tmp_path, "init", "--active", "blue")[0] == 0
    with closing(sqlite3.connect(tmp_path / "blue.db")) as connection:
        connection.execute("INSERT INTO orders VALUES (1, 10, strftime('%Y-%m-%d %H:%M:%f', 'now'))")
        connection.commit()
    for number, code, said in ((signal.SIGKILL, -signal.SIGKILL, None), (signal.SIGTERM, 130, "interrupted")):
        monkeypatch.setenv("DBSYNC_TEST_SIGNAL", str(int(number)))
        ended, answer = _dbsync(tmp_path, "etl", "run", "orders")
        assert ended == code
        assert (answer or {"error": {"code": None}})["error"]["code"] == said
    monkeypatch.delenv("DBSYNC_TEST_SIGNAL")
    ended, answer = _dbsync(tmp_path, "etl", "run", "orders")
    assert (ended, answer["status"], answer["written"]) == (0, "done", 1)
    _, answer = _dbsync(tmp_path, "etl", "history", "orders")
    assert [run["status"] for run in answer["runs"]][-2:] == ["interrupted", "done"]
    with closing(sqlite3.connect(tmp_path / "green.db")) as connection:
        assert connection.execute("SELECT * FROM copies").fetchall() == [(1, 10)]


def _dbsync(folder: Path, *words: str) -> tuple[int, Any]:

    command = [sys.executable, "-m", "dbsync", "--json", "--config", str(folder / "dbsync.toml"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None
