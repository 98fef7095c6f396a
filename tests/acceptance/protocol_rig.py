"""An installation in a folder: two files, two revisions, a crossing both ways; every command is a process of its own.

It is made once by the program itself, and each test works on a copy.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import standby
from tests.standby import Process

ROOT = Path(__file__).resolve().parents[2]
BUSY = 4.0
"""Seconds more that this machine may take for what needs no time of its own."""

CEDE = "dbsync.adapters.sqlite.database:SqliteDatabase.cede"
FENCE = "dbsync.adapters.sqlite.database:SqliteDatabase.fence"
OPEN = "dbsync.adapters.sqlite.database:SqliteDatabase.open"
CLOSE = "dbsync.adapters.sqlite.database:SqliteDatabase.close"

OLD = """
CREATE TABLE alembic_version (version_num TEXT NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
CREATE TABLE customer (id INTEGER PRIMARY KEY AUTOINCREMENT, first_name TEXT NOT NULL, last_name TEXT NOT NULL,
  email TEXT UNIQUE);
CREATE TABLE word (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL);
CREATE TABLE audit_log (id INTEGER PRIMARY KEY, text TEXT);
INSERT INTO customer VALUES (1, 'Mary Ann', 'Berg', 'mary@x'), (2, 'Bo', 'Li', 'bo@x');
INSERT INTO word (text) VALUES ('first'), ('second');
"""
FIRST = '''
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    op.execute("""CREATE TABLE customer (id INTEGER PRIMARY KEY AUTOINCREMENT, first_name TEXT NOT NULL,
      last_name TEXT NOT NULL, email TEXT UNIQUE)""")
    op.execute("CREATE TABLE word (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)")
    op.execute("CREATE TABLE audit_log (id INTEGER PRIMARY KEY, text TEXT)")


def downgrade():
    op.execute("DROP TABLE customer")
    op.execute("DROP TABLE word")
'''
SECOND = """
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.execute("ALTER TABLE customer ADD COLUMN full_name TEXT NOT NULL DEFAULT ''")
    op.execute("UPDATE customer SET full_name = first_name || ' ' || last_name")
    op.execute("ALTER TABLE customer DROP COLUMN first_name")
    op.execute("ALTER TABLE customer DROP COLUMN last_name")
    op.execute("ALTER TABLE customer ADD COLUMN nick TEXT")


def downgrade():
    op.execute("ALTER TABLE customer DROP COLUMN nick")
    op.execute("ALTER TABLE customer ADD COLUMN first_name TEXT NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE customer ADD COLUMN last_name TEXT NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE customer DROP COLUMN full_name")
"""
THIRD = """
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade():
    op.execute("ALTER TABLE word ADD COLUMN lang TEXT DEFAULT 'en'")


def downgrade():
    op.execute("ALTER TABLE word DROP COLUMN lang")
"""
CROSSING = '''
from dbsync.etl import Crossing, table

forward = Crossing(table("customer", key={"customer": "id"},
    select="SELECT id, first_name || ' ' || last_name AS full_name, email FROM customer"))
reverse = Crossing(table("customer", key={"customer": "id"},
    select="""SELECT id, substr(full_name, 1, instr(full_name || ' ', ' ') - 1) AS first_name,
              substr(full_name, instr(full_name || ' ', ' ') + 1) AS last_name, email FROM customer""",
    loses={"last_name": "split at the first blank"}))
'''
FILE = """[databases]
blue = "sqlite:///blue.db"
green = "sqlite:///green.db"
[databases.options]
exclude = ["audit_*"]
[cutover]
max_lag = "60s"
max_pause = "{pause}"
hold = "{hold}"
"""


@dataclass
class Done:
    """A command that has ended."""

    code: int
    data: dict[str, Any]
    log: str

    @property
    def refusal(self) -> str:
        """The error's code, or nothing."""
        return str(self.data.get("error", {}).get("code", ""))


def until(condition: Callable[[], object], seconds: float = 20.0, told: str = "") -> None:
    """Poll until the condition holds; an AssertionError when it does not in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, told or f"did not come true within {seconds:g} s"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """The kernel's letter for the state of a process; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Installation:
    """A configuration, two databases, and the program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Process] = []

    # --- the program ---------------------------------------------------------------------------

    def run(self, *words: str, seconds: float = 60.0) -> Done:
        """Run a command to its end."""
        return self.ended(self.start(*words), seconds)

    def ok(self, *words: str) -> dict[str, Any]:
        """Run a command that must succeed. Gives its object.

        A handover that undid itself because its pause grew too long (the disk is busy with other tests) is run again,
        as exit code 5 asks for.
        """
        done = self.run(*words)
        for _ in range(2):
            if done.refusal != "drain-timeout":
                break
            done = self.run(*words)
        assert done.code == 0, (words, done)
        return done.data

    def start(self, *words: str, stall: Sequence[str] = ()) -> Process:
        """Start a command; `stall` is where, when, which call, which signal."""
        program = ["tests.acceptance.stall", *stall] if stall else ["dbsync"]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = standby.start(
            [sys.executable, "-m", *program, "--json", "--config", str(self.folder / "dbsync.toml"), *words],
            self.folder,
            stdout=standby.PIPE,
            stderr=standby.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.started.append(process)
        return process

    def stopped(self, *words: str, at: str, when: str = "before", nth: int = 1) -> Process:
        """Start a command and wait until it has stopped itself there."""
        process = self.start(*words, stall=(at, when, str(nth), "SIGSTOP"))
        until(lambda: state_of(process.pid) in ("T", "Z", ""), told="it never came to the point")
        if state_of(process.pid) != "T":
            raise AssertionError(self.ended(process))
        return process

    def lost(self, *words: str, at: str, when: str = "before", nth: int = 1) -> None:
        """Start a command that stops itself there, and wait until it has, or has been ended for it by its custodian.

        On a busy machine the custodian may have acted before this process looks.
        """
        process = self.start(*words, stall=(at, when, str(nth), "SIGSTOP"))
        until(lambda: state_of(process.pid) in ("T", "Z", ""), told="it never came to the point")
        if state_of(process.pid) != "T":
            done = self.ended(process)
            assert done.code == -signal.SIGKILL, done

    def killed(self, *words: str, at: str, when: str = "before", nth: int = 1) -> None:
        """Run a command that is killed there."""
        process = self.start(*words, stall=(at, when, str(nth), "SIGKILL"))
        done = self.ended(process)
        assert done.code == -signal.SIGKILL, done

    @staticmethod
    def ended(process: Process, seconds: float = 60.0) -> Done:
        """The command's exit code, its object and its log."""
        out, log = process.communicate(timeout=seconds)
        return Done(process.returncode, json.loads(out) if out.strip() else {}, log)

    def custodian(self) -> int:
        """The pid of the custodian that runs."""
        record = self.folder / ".dbsync" / "handover.json"
        until(record.exists, told="no custodian was recorded")
        return int(json.loads(record.read_text())["pid"])

    def close(self) -> None:
        """End what is left of the program."""
        for process in self.started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.kill()
            process.wait(10)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for pid in self._custodians():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        give_up = time.monotonic() + 15
        while (left := self._custodians()) and time.monotonic() < give_up:
            time.sleep(0.02)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _custodians(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(self.folder) in line and "custodian" in line and state_of(int(entry.name)) not in ("Z", ""):
                    found.append(int(entry.name))
        return found

    # --- the databases -------------------------------------------------------------------------

    @contextmanager
    def application(self, name: str) -> Iterator[sqlite3.Connection]:
        """A connection as an application would open it."""
        connection = sqlite3.connect(self.folder / f"{name}.db", isolation_level=None, timeout=1.0)
        try:
            yield connection
        finally:
            connection.close()

    def rows(self, name: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows as an application sees them."""
        with self.application(name) as connection:
            return connection.execute(sql).fetchall()

    def write(self, name: str, sql: str, *values: object) -> bool:
        """One statement of the application's; whether the database took it."""
        try:
            with self.application(name) as connection:
                connection.execute(sql, values)
        except sqlite3.Error as error:
            if not str(error).startswith("dbsync:") and "locked" not in str(error):
                raise
            return False
        return True

    def word(self, name: str, text: str) -> bool:
        """Whether the database takes one more word."""
        return self.write(name, "INSERT INTO word (text) VALUES (?)", text)

    def words(self, name: str) -> list[str]:
        """The words that a database holds."""
        return [text for (text,) in self.rows(name, "SELECT text FROM word ORDER BY id")]

    def guard(self, name: str) -> tuple[str, int]:
        """State and epoch of a guard."""
        return self.rows(name, "SELECT state, epoch FROM dbsync_guard")[0]

    def tells(self, kind: str) -> bool:
        """Whether a journal of either side has an entry of that kind."""
        sql = f"SELECT 1 FROM dbsync_journal WHERE kind = '{kind}'"
        return any(self.rows(name, sql) for name in ("blue", "green"))

    def live(self) -> list[str]:
        """The sides that take a write just now (it is rolled back)."""
        found = []
        for name in ("blue", "green"):
            with self.application(name) as connection, suppress(sqlite3.Error):
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO word (text) VALUES ('probe')")
                connection.execute("ROLLBACK")
                found.append(name)
        return found

    def tamper(self, name: str, sql: str) -> None:
        """One statement past the guard, as somebody who knows its row would do it."""
        with self.application(name) as connection:
            (was,) = connection.execute("SELECT state FROM dbsync_guard").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE dbsync_guard SET state = 'open'")
            connection.execute(sql)
            connection.execute("UPDATE dbsync_guard SET state = ?", (was,))
            connection.execute("COMMIT")


@functools.cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dbsync-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "migrations" / "versions").mkdir(parents=True)
    (folder / "migrations" / "versions" / "0001_first.py").write_text(FIRST)
    (folder / "migrations" / "versions" / "0002_second.py").write_text(SECOND)
    (folder / "etl").mkdir()
    (folder / "etl" / "0002_second.py").write_text(CROSSING)
    (folder / "dbsync.toml").write_text(FILE.format(pause="1s", hold="hold"))
    made = Installation(folder)
    with made.application("blue") as connection:
        connection.executescript("PRAGMA journal_mode = WAL;" + OLD)
    made.ok("init", "--active", "blue")
    made.ok("migrate", "--target", "green")
    made.ok("sync", "--once")
    made.ok("verify")
    made.close()
    return folder


@contextmanager
def installation(folder: Path, pause: str = "1s", router: str = "", hold: str = "hold") -> Iterator[Installation]:
    """A copy of the installation: blue live at 0001, green at 0002, synced and verified."""
    place = folder / "installation"
    shutil.copytree(_template(), place, ignore=shutil.ignore_patterns("*-shm", "*-wal", ".dbsync", "__pycache__"))
    (place / "dbsync.toml").write_text(FILE.format(pause=pause, hold=hold) + router)
    made = Installation(place)
    for name in ("blue", "green"):
        found = (place / f"{name}.db").stat()
        with made.application(name) as connection:
            connection.execute("UPDATE dbsync_guard SET inode = ?", (f"{found.st_dev}:{found.st_ino}",))
    try:
        yield made
    finally:
        made.close()
