"""An installation in a folder: revisions, crossings, two files; the real command line, in this process."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from dbsync.cli.main import run

CONFIG = """
[databases]
blue = "sqlite:///blue.db"
green = "sqlite:///green.db"
[migrate]
path = "migrations"
[etl]
path = "etl"
"""


class Project:
    """A folder with a configuration. Revisions are given as SQL statements by their id, in order."""

    def __init__(self, folder: Path, revisions: Mapping[str, str], crossings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        (folder / "migrations" / "versions").mkdir(parents=True)
        (folder / "etl").mkdir()
        (folder / "dbsync.toml").write_text(CONFIG)
        before = None
        for revision, body in revisions.items():
            self.revision(revision, before, body)
            before = revision
        for name, text in (crossings or {}).items():
            self.crossing(name, text)

    def revision(self, revision: str, before: str | None, body: str) -> None:
        """A revision's file: `body` is SQL, or Python that begins with `op.` or `with`."""
        lines = body.strip().splitlines()
        if not lines[0].startswith(("op.", "with ", "pass")):
            lines = [f"op.execute({part.strip()!r})" for part in body.split(";") if part.strip()]
        text = "\n".join(f"    {line}" for line in lines)
        path = self.folder / "migrations" / "versions" / f"{revision}_change.py"
        path.write_text(
            f"from alembic import op\nrevision, down_revision = {revision!r}, {before!r}\n\n"
            f"def upgrade():\n{text}\n\ndef downgrade():\n    raise NotImplementedError\n"
        )

    def crossing(self, name: str, text: str) -> Path:
        """A crossing's file, without its import."""
        path = self.folder / "etl" / name
        path.write_text(f"from dbsync.etl import Crossing, table\n{text}")
        return path

    def __call__(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run a command, which must end with that exit code. Gives its object."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            ended = run([*words, "--json", "--config", str(self.folder / "dbsync.toml")])
        said = out.getvalue()
        assert ended == code, f"dbsync {' '.join(words)} ended with {ended}: {said}{err.getvalue()}"
        answer: dict[str, Any] = json.loads(said)
        return answer

    def text(self, *words: str) -> str:
        """What people read."""
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            run([*words, "--config", str(self.folder / "dbsync.toml")])
        return out.getvalue()

    def sql(self, name: str, script: str) -> None:
        """Run statements on one of the files, as an application would."""
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as connection:
            connection.executescript(script)

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """Read one of the files."""
        with closing(sqlite3.connect(self.folder / f"{name}.db")) as connection:
            return connection.execute(sql).fetchall()

    def begin(self, rows: str, revision: str = "0001") -> None:
        """Blue at a revision, with rows, and live; green at head."""
        sqlite3.connect(self.folder / "blue.db").close()
        self("init", "--active", "blue")
        self("migrate", "--target", "active", "--to", revision)
        self.sql("blue", rows)
        self("migrate", "--target", "idle")

    def rules(self, *words: str, code: int) -> set[tuple[str, str, str]]:
        """(revision, direction, rule) of every finding of `etl check`."""
        found = self("etl", "check", *words, code=code)["findings"]
        return {(one["revision"], one["direction"], one["rule"]) for one in found}
