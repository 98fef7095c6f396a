"""What holds for every command: options anywhere, one object, exit codes, and what `--help` costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from dbsync.cli.main import run, usage_error
from dbsync.cli.options import Settings
from dbsync.cli.render import Outcome
from dbsync.cli.session import Session, Stop, perform
from dbsync.cli.verbs import VERBS
from dbsync.errors import Blocker, ConfigError, Interrupted, Refused


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBSYNC_CONFIG", raising=False)


def objects(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    "line",
    [
        "--json status",
        "status --json",
        "--json -v status",
        "status -v --json",
        "--config dbsync.toml --json status",
        "status --config dbsync.toml --json",
        "--json route show",
        "route --json show",
        "route show --json",
    ],
)
def test_options_are_taken_before_and_after_the_name(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    (found,) = objects(capsys)
    assert found["error"]["code"] == "no-config"
    assert "dbsync init" in found["error"]["remedy"]


@pytest.mark.parametrize(
    "line",
    [
        "--json",
        "--json nothing",
        "nothing --json",
        "--json --nothing",
        "status --nothing --json",
        "status too much --json",
        "route --json",
        "route weight blue=5 --json",
        "etl walk x --json",
        "lint --json",
        "serve --json",
        "grants --json",
        "history x --json",
        "history 0 --json",
        "sync capture --json",
        "--config",
        "sync --tables , --json",
    ],
)
def test_a_wrong_command_line_is_one_object_and_exit_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = line.split()
    code = run(args)
    captured = capsys.readouterr()
    assert code == 2
    if "--json" in args:
        error = json.loads(captured.out)["error"]
        assert error["code"] == "usage"
        assert error["changed"] is False
        assert error["blockers"] == []
    else:
        assert captured.out == ""
        assert captured.err.startswith("✗ ")
        assert "Nothing was changed." in captured.err


def test_dbsync_config_names_the_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBSYNC_CONFIG", "elsewhere.toml")
    assert run(["status"]) == 2
    assert "elsewhere.toml" in capsys.readouterr().err
    assert run(["--config", "first.toml", "status", "--config", "last.toml"]) == 2
    assert "last.toml" in capsys.readouterr().err


def test_help_lists_what_is_built_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names == [name for name, entry in VERBS.items() if not entry.hidden]
    assert not {"lint", "serve", "grants", "custodian"} & set(names)


def test_help_with_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help", "--json"]) == 0
    (found,) = objects(capsys)
    assert found["next"] is None
    assert "Usage" in found["help"]


def loaded(code: str) -> set[str]:
    found = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    modules = loaded("from dbsync.cli.main import run; run(['--help'])")
    heavy = {"confluent_kafka", "sqlalchemy", "alembic", "rich", "httpx", "sqlglot", "pyodbc", "mssql_python"}
    assert not heavy & modules
    assert not {entry.module for entry in VERBS.values()} & modules


def performed(body: Any, settings: Settings | None = None, writes: bool = False) -> int:
    return perform(Session(settings or Settings(json=True)), body, {}, writes)


def test_a_refusal_says_what_was_found_what_to_do_and_that_nothing_changed(capsys: pytest.CaptureFixture[str]) -> None:
    from dbsync.cli import render

    error = Refused("It is too early.", code="x", remedy="dbsync sync", blockers=[Blocker("lag", "9 s behind", "wait")])
    render.write_error(error, Settings())
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "✗ It is too early.",
        "  • lag: 9 s behind",
        "    → wait",
        "→ dbsync sync",
        "Nothing was changed.",
    ]
    render.write_error(error, Settings(json=True))
    assert objects(capsys) == [
        {
            "error": {
                "code": "x",
                "message": "It is too early.",
                "remedy": "dbsync sync",
                "changed": False,
                "blockers": [{"code": "lag", "found": "9 s behind", "remedy": "wait"}],
            }
        }
    ]


def test_what_nobody_foresaw_is_one_line_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("deep\ninside")

    monkeypatch.setattr("dbsync.cli.session.read_config", broken)
    assert run(["status"]) == 1
    said = capsys.readouterr()
    assert "ZeroDivisionError: deep inside" in said.err
    assert "Traceback" not in said.err + said.out
    assert run(["status", "--json", "-v"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["code"] == "bug"
    assert "Traceback" in said.err


def test_every_object_of_success_has_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert performed(lambda session: Outcome({"a": 1.5, "b": float("nan"), "c": b"\x01"}, warnings=["w"])) == 0
    assert objects(capsys) == [{"a": 1.5, "b": None, "c": "01", "next": None, "warnings": ["w"]}]


def test_the_first_signal_asks_and_the_second_one_interrupts() -> None:
    stop, woken = Stop(), []
    stop.wake = lambda: woken.append(1)
    stop.handle(2, None)
    assert stop()
    assert woken == [1]
    with pytest.raises(Interrupted):
        stop.handle(2, None)


def test_a_report_ends_a_command_that_was_told_to_stop() -> None:
    def body(session: Session) -> Outcome:
        session.stop.handle(15, None)
        session.report("rows", 1, None)
        raise AssertionError("went on")

    with pytest.raises(Interrupted) as caught:
        performed(body, writes=True)
    assert caught.value.exit_code == 130
    assert caught.value.changed


def test_a_question_needs_a_terminal_or_yes() -> None:
    session = Session(Settings())
    session.confirm("Really?", yes=True)
    with pytest.raises(ConfigError) as caught:
        session.confirm("Really?", yes=False)
    assert caught.value.code == "confirmation-needed"


def test_a_usage_error_names_the_help_of_its_command() -> None:
    error = usage_error(click.UsageError("no"))
    assert (error.code, error.exit_code, error.remedy) == ("usage", 2, "See `dbsync --help`.")
