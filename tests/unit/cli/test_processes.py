"""The program as a process, over two real files: signals, secrets, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import standby

PROGRAM = [sys.executable, "-m", "dbsync"]
TEXT = '[databases]\nblue = "sqlite:///blue.db"\ngreen = "sqlite:///green.db"\n'
TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dbsync.toml").write_text(TEXT)
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    for name in ("blue", "green"):
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            connection.execute(TABLE)
        connection.close()
    return tmp_path


def ran(folder: Path, line: str, **environ: str) -> tuple[int, dict[str, Any], str]:
    process = started(folder, *line.split(), **environ)
    try:
        out, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in told
    return process.wait(), json.loads(out), told


def started(folder: Path, *words: str, **environ: str) -> standby.Process:
    pipe = standby.PIPE
    return standby.start([*PROGRAM, *words, "--json"], folder, stdout=pipe, stderr=pipe, env=os.environ | environ)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_follower_that_is_stopped_prints_its_object_and_exits_0(
    folder: Path, number: signal.Signals, eventually: Callable[..., None]
) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    follower = started(folder, "sync")
    try:
        eventually(lambda: ran(folder, "status")[1]["follower"] == "running", 30)
        follower.send_signal(number)
        out, _ = follower.communicate(timeout=20)
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0
    found = json.loads(out)
    assert found["lag"] == {"changes": 0, "seconds": 0.0}
    assert ran(folder, "status")[1]["follower"] == "stopped"


def test_watch_prints_one_object_a_line_and_ends_with_success(folder: Path) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    watcher = started(folder, "status", "--watch")
    assert watcher.stdout is not None
    try:
        first = watcher.stdout.readline()
        watcher.send_signal(signal.SIGTERM)
        rest, _ = watcher.communicate(timeout=20)
    finally:
        watcher.kill()
        watcher.wait()
    assert {json.loads(line)["active"] for line in [first, *rest.splitlines()]} == {"blue"}
    assert watcher.returncode == 0


def test_what_came_out_of_the_environment_is_printed_as_its_name(folder: Path) -> None:
    (folder / "dbsync.toml").write_text(TEXT.replace("green.db", "${SECRET}/green.db"))
    code, found, err = ran(folder, "init --active blue", SECRET="no-such-folder-s3cret")
    assert code == 5
    assert "s3cret" not in json.dumps(found) + err
    assert "${SECRET}" in found["error"]["message"]


def test_init_says_that_it_puts_the_files_into_wal(folder: Path) -> None:
    _, found, _ = ran(folder, "init --active blue")
    assert {"blue: write-ahead log (WAL)", "green: write-ahead log (WAL)"} <= set(found["created"])
    assert ran(folder, "init")[1]["created"] == []


def test_a_file_that_is_no_database_is_a_config_error(folder: Path) -> None:
    (folder / "green.db").write_text("this is a letter, not a database" * 100)
    code, found, _ = ran(folder, "status")
    assert (code, found["error"]["code"]) == (2, "not-a-database")


def test_one_file_under_two_names_is_a_config_error(folder: Path) -> None:
    (folder / "green.db").unlink()
    (folder / "green.db").symlink_to("blue.db")
    code, found, _ = ran(folder, "init --active blue")
    assert (code, found["error"]["code"]) == (2, "same-database")


def test_a_missing_file_is_unavailable_and_is_not_created(folder: Path) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    (folder / "green.db").unlink()
    for line in ("sync --once", "verify", "migrate --target green"):
        assert ran(folder, line)[0] == 5, line
    code, found, _ = ran(folder, "status")
    assert (code, found["unreachable"]) == (0, ["green"])
    assert not (folder / "green.db").exists()


def test_a_copied_file_is_refused_as_a_second_database(folder: Path) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    (folder / "green.db").write_bytes((folder / "blue.db").read_bytes())
    code, found, _ = ran(folder, "init")
    assert (code, found["error"]["code"]) == (2, "same-identity")


def test_remove_leaves_nothing_behind(folder: Path) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    code, found, _ = ran(folder, "init --remove")
    assert (code, found["error"]["code"]) == (2, "confirmation-needed")
    assert ran(folder, "init --remove --yes")[0] == 0
    with sqlite3.connect(folder / "blue.db") as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    connection.close()
    assert names == ["t"]


def test_status_loads_no_driver_that_the_file_does_not_name(folder: Path) -> None:
    assert ran(folder, "init --active blue")[0] == 0
    code = "from dbsync.cli.main import run; run(['status']); import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert not {"confluent_kafka", "pyodbc", "mssql_python", "httpx"} & set(done.stdout.split())
