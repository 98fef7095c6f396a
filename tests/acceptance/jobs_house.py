"""An installation with a job and a schedule, over two files: made quickly, asked in this process or as a process."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.etl.schedule import Taken

PROGRAM = [sys.executable, "-m", "dbsync"]

CONFIG = """
[databases]
blue  = "sqlite:///blue.db"
green = "sqlite:///green.db"
[cutover]
max_lag = "10m"
"""

SHAPE = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT NOT NULL, cents INTEGER NOT NULL, changed_at TEXT NOT NULL);
CREATE TABLE totals (day TEXT PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0));
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
"""

REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.Text, nullable=False),
    )
    op.create_table(
        "totals",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("cents", sa.Integer, sa.CheckConstraint("cents >= 0"), nullable=False),
    )
def downgrade():
    op.drop_table("totals")
    op.drop_table("orders")
"""

JOB = '''
from pathlib import Path
from dbsync.etl import Job

def slowly(batch):
    """Wait at a closed door, once it was reached."""
    import time
    here = Path({folder!r})
    (here / "reached").touch()
    while (here / "door").exists():
        time.sleep(0.01)
    return batch

job = Job(
    extract="""SELECT day, sum(cents) AS cents FROM orders
               WHERE day IN (SELECT day FROM orders WHERE changed_at >= :since AND changed_at < :until) GROUP BY day""",
    into="totals", key="day", overlap="1m", schedule="0 * * * *", transform=slowly,
)
'''


@dataclass
class Answer:
    """What a command gave."""

    code: int
    data: dict[str, Any]

    @property
    def error(self) -> str:
        """The code of its error, empty for none."""
        return str((self.data.get("error") or {}).get("code", ""))


@dataclass
class House:
    """The installation. `totals` is its job, hourly by its own file."""

    folder: Path

    def words(self, line: str) -> list[str]:
        """A command line."""
        return [*line.split(), "--config", str(self.folder / "dbsync.toml"), "--json"]

    def here(self, line: str) -> Answer:
        """Run a command line in this process."""
        from dbsync.cli.main import run

        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = run(self.words(line))
        return Answer(code, json.loads(out.getvalue()))

    def good(self, line: str) -> dict[str, Any]:
        """The object of a command that must succeed."""
        answer = self.here(line)
        assert answer.code == 0, (line, answer)
        return answer.data

    def start(self, line: str) -> subprocess.Popen[str]:
        """A real process."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*PROGRAM, *self.words(line)], stdout=pipe, stderr=pipe, text=True, cwd=self.folder)

    def ended(self, process: subprocess.Popen[str], seconds: float = 30.0) -> Answer:
        """What a real process said at its end."""
        out, told = process.communicate(timeout=seconds)
        assert "Traceback" not in told, told
        return Answer(process.returncode, json.loads(out))

    def ask(self, side: str, sql: str, *given: Any) -> list[Any]:
        """Run a statement on one side, as an application would."""
        with contextlib.closing(sqlite3.connect(self.folder / f"{side}.db", timeout=10.0)) as db, db:
            return db.execute(sql, given).fetchall()

    def order(self, number: int, day: str, cents: int, side: str = "blue") -> None:
        """An order comes in, stamped by the application."""
        stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
        self.ask(side, "INSERT INTO orders VALUES (?, ?, ?, ?)", number, day, cents, stamp)

    def totals(self, side: str = "green") -> dict[str, int]:
        """What the job has loaded."""
        return dict(self.ask(side, "SELECT day, cents FROM totals"))

    def database(self, side: str) -> SqliteDatabase:
        """One side, as dbsync sees it."""
        return SqliteDatabase(side, f"sqlite:///{self.folder / side}.db")

    def taken(self, job: str, due: datetime, side: str = "green") -> None:
        """Let everything up to a moment have been taken: what was due since is due now."""
        database = self.database(side)
        database.save("due", job, Taken(due).as_document())
        database.dispose()

    def long_ago(self, job: str, hours: int = 3) -> datetime:
        """Let nothing have run for some hours. Gives the last full hour."""
        now = datetime.now(UTC)
        self.taken(job, now - timedelta(hours=hours))
        return now.replace(minute=0, second=0, microsecond=0)

    def configure(self, more: str) -> None:
        """Add to the configuration."""
        (self.folder / "dbsync.toml").write_text(CONFIG + more)

    def runs(self, job: str) -> list[dict[str, Any]]:
        """The history of a job."""
        found: list[dict[str, Any]] = self.good(f"etl history {job} -n 1000")["runs"]
        return found


def house(folder: Path, more: str = "") -> House:
    """Both databases in step, blue active, three orders."""
    made = House(folder)
    for name, text in (
        ("migrations/versions/0001_first.py", REVISION),
        ("etl/jobs/totals.py", JOB.format(folder=str(folder))),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    made.configure(more)
    with contextlib.closing(sqlite3.connect(folder / "blue.db")) as db:
        db.executescript(SHAPE)
    for number, (day, cents) in enumerate([("mon", 10), ("mon", 20), ("tue", 5)]):
        made.order(number, day, cents)
    for line in ("init --active blue", "migrate --target idle", "sync --once"):
        made.good(line)
    return made
