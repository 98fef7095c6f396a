"""A world to break: two databases, a crossing both ways, a real Traefik, two releases, customers, an intruder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import standby
from tests.acceptance.served import write
from tests.contract.traefik_rig import Traefik, traefik, wait_for
from tests.standby import Process

HERE = Path(__file__).parent
MAX_PAUSE = 2.0
BUSY = 4.0
"""Seconds more that this machine may take for what needs no time of its own."""

BLUE = """
CREATE TABLE item (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE, label TEXT NOT NULL);
CREATE TABLE note (id INTEGER PRIMARY KEY, item_id INTEGER NOT NULL REFERENCES item (id), body TEXT NOT NULL);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
"""

REVISIONS = {
    "0001_first.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade():
    op.create_table(
        "item",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("token", sa.Text, nullable=False, unique=True),
        sa.Column("label", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "note",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("item_id", sa.Integer, sa.ForeignKey("item.id"), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
def downgrade():
    op.drop_table("note")
    op.drop_table("item")
""",
    "0002_renamed.py": """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.alter_column("item", "label", new_column_name="title")
    op.alter_column("note", "body", new_column_name="remark")
def downgrade():
    op.alter_column("note", "remark", new_column_name="body")
    op.alter_column("item", "title", new_column_name="label")
""",
}

CROSSING = """
from dbsync.etl import Crossing, table
forward = Crossing(
    table("item", key={"item": "id"}, select="SELECT id, token, label AS title FROM item"),
    table("note", key={"note": "id"}, select="SELECT id, item_id, body AS remark FROM note"),
)
reverse = Crossing(
    table("item", key={"item": "id"}, select="SELECT id, token, title AS label FROM item"),
    table("note", key={"note": "id"}, select="SELECT id, item_id, remark AS body FROM note"),
)
"""

CONFIG = """
[databases]
blue  = "sqlite:///{folder}/blue.db"
green = "sqlite:///{folder}/green.db"

[router]
provider = "traefik-file"
file     = "{dynamic}/main-router.yml"
router   = "main-router"
services = {{ blue = "blue-service", green = "green-service" }}
api      = ["{api}"]
probe    = ["{web}health"]

[migrate]
path = "{folder}/migrations"

[etl]
path = "{folder}/etl"

[cutover]
max_pause = "2s"
max_lag = "2m"
gate_entrypoint = "dbsync"
"""


@dataclass
class Answer:
    """What a command of dbsync's gave."""

    code: int
    data: dict[str, Any]
    told: str

    @property
    def error(self) -> str:
        """The code of its error, empty for none."""
        return str((self.data.get("error") or {}).get("code", ""))


@dataclass
class World:
    """Everything, running. `processes` are ended with it."""

    folder: Path
    proxy: Traefik
    traffic: Process | None = None
    processes: list[Process] = field(default_factory=list)
    tally: dict[str, dict[str, int]] = field(default_factory=dict)
    ledgers: dict[str, tuple[int, list[dict[str, Any]]]] = field(default_factory=dict)

    # --- what runs -----------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "dbsync.toml"

    def path(self, side: str) -> Path:
        """The database of one side."""
        return self.folder / f"{side}.db"

    def words(self, *words: str) -> list[str]:
        """A command line of dbsync's."""
        return ["--config", str(self.config), "--json", *words]

    def program(self) -> list[str]:
        """The real program."""
        return [sys.executable, "-m", "dbsync"]

    def dbsync(self, *words: str, timeout: float = 60.0) -> Answer:
        """Run the real program to its end, in a process of its own."""
        line = [*self.program(), *self.words(*words)]
        process = standby.start(line, self.folder, stdout=standby.PIPE, stderr=standby.PIPE)
        try:
            out, told = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return _answer(process.wait(), out, told)

    def here(self, *words: str) -> Answer:
        """Run the command line in this process: what must be asked often."""
        from dbsync.cli.main import run

        out, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            code = run(self.words(*words))
        return _answer(code, out.getvalue(), told.getvalue())

    def good(self, *words: str) -> dict[str, Any]:
        """The object of a command that must succeed."""
        done = self.here(*words)
        assert done.code == 0, (words, done)
        return done.data

    def start(self, line: list[str], name: str, stdout: int = standby.PIPE) -> Process:
        """A process of its own group, ended with the world."""
        with (self.folder / f"{name}.log").open("ab") as log:
            made = standby.start(line, self.folder, stdin=standby.PIPE, stdout=stdout, stderr=log, session=True)
        self.processes.append(made)
        return made

    def follower(self) -> Process:
        """`dbsync sync`, until it is ended."""
        line = [*self.program(), *self.words("sync")]
        return self.start(line, "follower", stdout=standby.DEVNULL)

    def driven(self, strike: Mapping[str, Any], *words: str) -> Process:
        """The program under tests/acceptance/driver.py."""
        (self.folder / "struck").unlink(missing_ok=True)
        told = {**strike, "told": str(self.folder / "struck")}
        line = [sys.executable, str(HERE / "driver.py"), json.dumps(told), "--", *self.words(*words)]
        return self.start(line, "coordinator")

    def struck(self, process: Process, seconds: float = 40.0) -> float:
        """The moment at which the driver struck. Fails when the program ended without."""
        mark = self.folder / "struck"
        wait_for(lambda: mark.exists() or process.poll() is not None, seconds, "it never came to the point")
        if not mark.exists():
            out = process.stdout.read() if process.stdout else ""
            raise AssertionError(f"it ended with {process.returncode} before the point: {out}{self.log('coordinator')}")
        return float(mark.read_text())

    def end(self, process: Process) -> None:
        """Kill its whole group (nothing to do when it is gone) and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if process in self.processes:
            self.processes.remove(process)

    def log(self, name: str, last: int = 3000) -> str:
        """The end of what a process said."""
        place = self.folder / f"{name}.log"
        return place.read_text(errors="replace")[-last:] if place.exists() else ""

    # --- what is true ----------------------------------------------------------------------------

    def guards(self) -> dict[str, tuple[str, int]]:
        """State and epoch of both guard rows."""
        return {side: self.ask(side, "SELECT state, epoch FROM dbsync_guard")[0] for side in ("blue", "green")}

    def ask(self, side: str, sql: str, *given: Any) -> list[Any]:
        """Rows of one database."""
        with contextlib.closing(sqlite3.connect(self.path(side), timeout=10.0)) as db:
            return db.execute(sql, given).fetchall()

    def live(self) -> str | None:
        """The side whose guard is open, if the other one's is closed at the same epoch."""
        found = self.guards()
        states = {state for state, _ in found.values()}
        if states != {"open", "closed"} or len({epoch for _, epoch in found.values()}) != 1:
            return None
        return next(side for side, (state, _) in found.items() if state == "open")

    def routed(self) -> str:
        """The environment that the router file names, by the proxy's own word."""
        return str(self.proxy.service_of("main-router")).removesuffix("-service").removesuffix("-service@file")

    def holds(self) -> list[str]:
        """Hold files in the watched directory."""
        return sorted(file.name for file in self.proxy.dynamic.iterdir() if "dbsync" in file.name)

    @property
    def record(self) -> Path:
        """Where a custodian records itself."""
        return self.folder / ".dbsync" / "handover.json"

    def custodian(self) -> int | None:
        """The process id of the custodian that runs, if one does."""
        try:
            pid = int(json.loads(self.record.read_text())["pid"])
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError, KeyError):
            return None
        return None if state in "ZX" else pid

    def lines(self, name: str) -> list[dict[str, Any]]:
        """One of the ledgers of traffic.py, as far as it is written. It only ever grows: what was read is kept."""
        place = self.folder / name
        offset, known = self.ledgers.setdefault(name, (0, []))
        if place.exists():
            with place.open("rb") as ledger:
                ledger.seek(offset)
                whole = ledger.read().rpartition(b"\n")[0]
            if whole:
                known += map(json.loads, whole.splitlines())
                self.ledgers[name] = offset + len(whole) + 1, known
        return known

    def completed(self) -> bool:
        """Whether the handover that made the live side live has been recorded as complete, if there was one."""
        epoch = self.guards()["blue"][1]
        sql = "SELECT count(*) FROM dbsync_journal WHERE kind = 'completed' AND epoch = ?"
        return epoch == 1 or sum(self.ask(side, sql, epoch)[0][0] for side in ("blue", "green")) == 1

    def let_in(self, since: float, seconds: float) -> dict[str, Any] | None:
        """The first direct write that began after a moment and was let in; None when there is none in time."""
        give_up = time.monotonic() + seconds
        while True:
            found = [one for one in self.lines("direct") if one["began"] > since]
            if found:
                return min(found, key=lambda one: float(one["began"]))
            if time.monotonic() > give_up:
                return None
            time.sleep(0.02)

    # --- what must be true -------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """Acknowledged writes, of customers and of the intruder, that the live database does not hold."""
        said = {one["token"] for name in ("acknowledged", "direct") for one in self.lines(name)}
        there = {token for (token,) in self.ask(str(self.live()), "SELECT token FROM item")}
        return sorted(said - there)

    def check_whole(self) -> None:
        """One writer, no trace of a handover, the route as the guards say, both sides equal, nothing lost."""
        live = self.live()
        assert live is not None, self.guards()
        assert self.holds() == []
        wait_for(lambda: self.routed() == live, 10, f"{live} is live and the route leads to {self.routed()}")
        self.good("sync", "--once")
        assert self.good("verify")["equal"] is True
        assert self.missing() == []

    def check_never_two(self) -> None:
        """At every epoch one side took writes, and none of them overlaps or follows one of a later epoch."""
        by_epoch: dict[int, list[dict[str, Any]]] = {}
        for one in self.lines("direct"):
            assert one["state"] in ("open", "fenced"), one
            by_epoch.setdefault(int(one["epoch"]), []).append(one)
        last: tuple[float, str] = (float("-inf"), "")
        for epoch, taken in sorted(by_epoch.items()):
            sides = {one["side"] for one in taken}
            assert len(sides) == 1, f"both sides took writes at epoch {epoch}"
            first = min(float(one["began"]) for one in taken)
            assert first > last[0], f"{sides} took a write at epoch {epoch} while {last[1]} still did"
            assert sides != {last[1]}, f"{sides} at two epochs, one after the other"
            last = (max(float(one["ended"]) for one in taken), sides.pop())


def _answer(code: int, out: str, told: str) -> Answer:
    try:
        data = json.loads(out) if out.strip() else {}
    except ValueError:
        raise AssertionError(f"not one JSON object: {out!r} {told}") from None
    return Answer(code, data, told)


# --- building it ---------------------------------------------------------------------------------


@contextmanager
def world(folder: Path, traffic: bool = True, more: str = "") -> Iterator[World]:
    """Both databases in step and verified, customers and intruder at work. `more` is added to the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    with traefik(folder / "traefik", throttle="100ms", certificate=True) as proxy:
        made = World(folder, proxy)
        try:
            _lay_out(made, more)
            _serve(made)
            for words in (
                ("init", "--active", "blue"),
                ("migrate", "--target", "idle"),
                ("sync", "--once"),
                ("verify",),
            ):
                made.good(*words)
            if traffic:
                begin_traffic(made)
            yield made
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                end_traffic(made)
            for process in list(made.processes):
                made.end(process)
            _end_custodian(made)


def _lay_out(made: World, more: str) -> None:
    for name, text in REVISIONS.items():
        _put(made.folder / "migrations" / "versions" / name, text)
    _put(made.folder / "etl" / "0002_renamed.py", CROSSING)
    proxy = made.proxy
    text = CONFIG.format(folder=made.folder, dynamic=proxy.dynamic, api=proxy.api, web=proxy.web)
    _put(made.config, text + more)
    with contextlib.closing(sqlite3.connect(made.path("blue"), isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + BLUE)
        db.execute("BEGIN")
        for number in range(200):
            write(db, "blue", f"seed-{number}")
        db.execute("COMMIT")
    made.path("green").touch()


def _put(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def _serve(made: World) -> None:
    line = [sys.executable, str(HERE / "served.py"), str(made.path("blue")), str(made.path("green"))]
    served = made.start(line, "served")
    assert served.stdout is not None
    blue, green = json.loads(served.stdout.readline())
    made.proxy.put(
        "services.yml",
        "http:\n  services:\n"
        f'    blue-service: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{blue}"}}]}}}}\n'
        f'    green-service: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{green}"}}]}}}}\n',
    )
    made.proxy.put(
        "main-router.yml",
        "http:\n  routers:\n    main-router:\n      rule: PathPrefix(`/`)\n"
        "      entryPoints: [web]\n      service: blue-service   # the live one\n",
    )
    wait_for(lambda: made.proxy.get("/health")[0] == 200, 15, "the application does not answer")


def begin_traffic(made: World) -> None:
    """Customers and the intruder."""
    sides = [str(made.path(side)) for side in ("blue", "green")]
    line = [sys.executable, str(HERE / "traffic.py"), made.proxy.web, *sides, str(made.folder)]
    made.traffic = made.start(line, "traffic")
    wait_for(lambda: made.lines("acknowledged") and made.lines("direct"), 15, "no traffic")


def end_traffic(made: World) -> dict[str, dict[str, int]]:
    """Let them go; gives what the intruder counted on each side: accepted, refused, busy."""
    traffic, made.traffic = made.traffic, None
    if traffic is not None and traffic.poll() is None:
        out, _ = traffic.communicate("", timeout=40)
        made.tally = json.loads(out)
    return made.tally


def _end_custodian(made: World) -> None:
    pid = made.custodian()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
