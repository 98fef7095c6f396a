"""Two database files in a folder, a configuration beside them, and dbsync's commands as a script would call them."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.cli.main import run

CONFIG = """
[databases]
blue  = "sqlite:///blue.db"
green = "sqlite:///green.db"
[databases.options]
exclude = {exclude}
[migrate]
path = "migrations"
[etl]
path = "etl"
"""

ADOPTED = """
revision, down_revision = "0001", None
def upgrade(): ...
def downgrade(): ...
"""
"""A first revision for a database that was there before: nothing to do."""

EXIT_CODES = {0, 2, 3, 4, 5, 6, 7, 130}


@dataclass
class Shelf:
    """The folder of one installation."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "migrations" / "versions").mkdir(parents=True)
        (self.folder / "etl").mkdir()
        self.configure()
        self.write("migrations/versions", {"0001_adopted.py": ADOPTED})

    def configure(self, *exclude: str) -> None:
        """Write the configuration, with these tables left out."""
        (self.folder / "dbsync.toml").write_text(CONFIG.format(exclude=json.dumps(exclude)), encoding="utf-8")

    def write(self, under: str, files: Mapping[str, str]) -> None:
        """Write files of the installation."""
        for name, text in files.items():
            (self.folder / under / name).write_text(text, encoding="utf-8")

    def dbsync(self, line: str, expect: int = 0) -> dict[str, Any]:
        """One command with --json. Its exit code must be the expected one, its output one object as promised."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = run(["--config", str(self.folder / "dbsync.toml"), "--json", *line.split()])
        said: dict[str, Any] = json.loads(out.getvalue())
        assert code == expect, (line, code, said)
        assert code in EXIT_CODES
        if "error" in said:
            assert code != 0
            assert {"code", "message", "remedy", "changed", "blockers"} <= said["error"].keys()
        else:
            assert said["next"] is None or said["next"].startswith("dbsync ")
        return said

    def error(self, line: str, code: int = 3) -> dict[str, Any]:
        """The error that a command ends with; nothing was changed."""
        found: dict[str, Any] = self.dbsync(line, code)["error"]
        assert found["changed"] is False
        assert found["remedy"]
        return found

    @contextmanager
    def application(self, name: str) -> Iterator[sqlite3.Connection]:
        """A connection as an application would open it."""
        connection = sqlite3.connect(self.folder / f"{name}.db", isolation_level=None, timeout=5.0)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows as an application reads them."""
        with self.application(name) as connection:
            return connection.execute(sql).fetchall()

    def copy_schema(self, source: str, target: str) -> None:
        """What an operator does by hand: every object but dbsync's own, in the order in which it was made."""
        made = self.rows(
            source,
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'dbsync%' AND name NOT LIKE"
            " 'sqlite%' AND name <> 'alembic_version' AND tbl_name NOT LIKE 'dbsync%' ORDER BY rowid",
        )
        with self.application(target) as connection:
            connection.executescript(";\n".join(sql for (sql,) in made))

    @contextmanager
    def follower(self) -> Iterator[subprocess.Popen[bytes]]:
        """`dbsync sync` in a process of its own, ended as an operator ends it."""
        line = [sys.executable, "-m", "dbsync", "--config", str(self.folder / "dbsync.toml"), "--json", "sync"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.terminate()
            told, _ = process.communicate(timeout=15)
        assert process.returncode == 0
        assert json.loads(told)["next"] == "dbsync status"
