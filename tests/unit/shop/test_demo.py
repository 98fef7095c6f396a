"""What the demo finds, writes and makes of its commands, without running it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import dbsync
from dbsync.cli.demo_files import Folder, Ports, free_ports, material
from dbsync.cli.demo_processes import Processes, object_of
from dbsync.cli.main import run
from dbsync.config import parse
from dbsync.errors import ConfigError, DbsyncError, Different, Interrupted, Refused, Unavailable
from tests.unit.shop.conftest import ROOT

PORTS = Ports(web=1, api=2, gate=3, blue=4, green=5)


def test_without_its_extra_the_demo_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    assert run(["demo", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert (told["code"], told["remedy"]) == ("demo-extra-missing", "pip install 'dbsync[demo]'")


def test_the_material_lies_beside_the_package_in_a_checkout() -> None:
    assert material() == {
        "shop": ROOT / "examples" / "shop",
        "migrations": ROOT / "migrations",
        "etl": ROOT / "etl",
    }


def test_the_material_of_a_wheel_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbsync, "__file__", str(tmp_path / "dbsync" / "__init__.py"))
    with pytest.raises(ConfigError) as caught:
        material()
    assert caught.value.code == "demo-material-missing"
    for name in ("shop", "migrations", "etl"):
        (tmp_path / "dbsync" / "_demo" / name).mkdir(parents=True)
    assert material()["shop"] == tmp_path / "dbsync" / "_demo" / "shop"


def test_the_folder_is_a_configuration_that_dbsync_reads(tmp_path: Path) -> None:
    path = tmp_path / 'a "folder" für mich'
    path.mkdir()
    Folder(path, PORTS, Path("/bin/traefik"), fast=True).write()
    text = (path / "dbsync.toml").read_text(encoding="utf-8")
    config = parse(text, path / "dbsync.toml", {})
    assert tomllib.loads(text)["router"]["probe"] == ["http://127.0.0.1:1/health"]
    assert config.names == ("blue", "green")
    assert (path / "migrations" / "versions" / "0001_shop.py").exists()
    assert (path / "traefik" / "dynamic" / "main-router.yml").exists()


def test_only_the_fast_demo_changes_the_throttle(tmp_path: Path) -> None:
    for fast in (True, False):
        path = tmp_path / str(fast)
        path.mkdir()
        Folder(path, PORTS, Path("/bin/traefik"), fast).write()
        assert ("providersThrottleDuration" in (path / "traefik" / "traefik.yml").read_text()) is fast


def test_the_ports_are_different_ones() -> None:
    ports = free_ports()
    assert len({ports.web, ports.api, ports.gate, ports.blue, ports.green}) == 5


@pytest.mark.parametrize(("code", "kind"), [(2, ConfigError), (3, Refused), (4, Different), (5, Unavailable)])
def test_a_command_that_failed_ends_the_demo_with_its_own_error(code: int, kind: type[DbsyncError]) -> None:
    told = {"error": {"code": "lag-too-high", "message": "Too far behind.", "remedy": "dbsync sync", "blockers": []}}
    with pytest.raises(kind) as caught:
        object_of("dbsync cutover", code, json.dumps(told))
    assert caught.value.code == "lag-too-high"
    assert caught.value.exit_code == code
    assert "`dbsync cutover`: Too far behind." in caught.value.message


def test_a_command_that_gave_no_object_is_told_with_its_last_words() -> None:
    with pytest.raises(Unavailable) as caught:
        object_of("dbsync cutover", -9, "", "Killed")
    assert "Killed" in caught.value.message


def test_what_finds_a_difference_is_told_with_what_it_found() -> None:
    with pytest.raises(Different) as caught:
        object_of("dbsync verify", 4, json.dumps({"equal": False}))
    assert '"equal": false' in caught.value.message


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def test_every_process_is_ended_also_one_that_does_not_listen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbsync.cli.demo_processes.GRACE", 0.2)
    with pytest.raises(ZeroDivisionError), Processes(place, lambda: False) as processes:
        processes.start("one", SLEEPER)
        processes.start("deaf", [sys.executable, "-c", DEAF])
        for name in ("one", "deaf"):
            processes.wait(name, lambda name=name: processes.last_words(name) == "up", 10)
        _ = 1 / 0
    # The fixture of every test sees that no child is left.


def test_a_process_that_died_is_told_with_its_last_words(place: Path) -> None:
    with Processes(place, lambda: False) as processes:
        processes.start("shop", [sys.executable, "-c", "raise SystemExit('no such port')"])
        with pytest.raises(Unavailable) as caught:
            processes.wait("it", lambda: False, 10)
    assert caught.value.code == "demo-died"
    assert "no such port" in caught.value.message


def test_a_stop_ends_the_command_that_is_running(place: Path) -> None:
    asked: list[bool] = []
    with Processes(place, lambda: bool(asked)) as processes:
        asked.append(True)
        with pytest.raises(Interrupted):
            processes.ask("sleeper", SLEEPER)


def test_a_command_that_takes_too_long_is_ended(place: Path) -> None:
    with Processes(place, lambda: False) as processes, pytest.raises(Unavailable) as caught:
        processes.ask("sleeper", SLEEPER, seconds=0.2)
    assert caught.value.code == "demo-stuck"


def test_a_command_does_not_take_the_user_s_own_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBSYNC_CONFIG", "/somewhere/else.toml")
    show = [sys.executable, "-c", "import os; print(os.environ.get('DBSYNC_CONFIG'), os.getcwd())"]
    with Processes(place, lambda: False) as processes:
        assert processes.ask("show", show) == (0, f"None {os.path.realpath(place)}\n")
