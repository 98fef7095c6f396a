"""`dbsync demo`: the whole story on this machine, with the real commands, and a verdict that is counted."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from dbsync.cli.demo_files import ORDERS, Folder, free_ports, traefik_binary
from dbsync.cli.demo_processes import LOOK, Processes, answers, object_of
from dbsync.cli.render import Outcome, Paper, seconds
from dbsync.cli.session import Session, verb
from dbsync.errors import ConfigError, Unavailable

Found = dict[str, Any]
Told = Callable[[Found], str]

LOAD_CODES = (0, 1)
"""It counted to the end: nothing failed, or something did."""

LOAD_GRACE = 40.0
"""How long in seconds the load may take to end: it waits for its last answers, for 30 s at the most."""


@verb("demo", writes=True)
@click.option("--keep", metavar="DIR", help="Leave everything in this folder (new, or empty) to play with.")
@click.option("--fast", is_flag=True, help="Shorter waits, and a Traefik that reloads at once.")
def demo(session: Session, keep: str | None, fast: bool) -> Outcome:
    """Release 2 of a small shop goes live on another database, and back, while customers use it.

    Exit 4 if a request failed, a read was stale or an acknowledged write was lost.

    Example: dbsync demo --keep shop-demo
    """
    traefik = traefik_binary()
    with place(keep) as path:
        folder = Folder(path, free_ports(), traefik, fast)
        folder.write()
        begun = time.monotonic()
        with Processes(path, session.stop) as processes:
            story = Story(folder, processes, None if session.settings.json else Paper())
            story.run()
        found = story.verdict(time.monotonic() - begun)
        if keep is not None:
            folder.write_start()
            found["directory"] = str(path)
    following = None if keep is None else f"dbsync --config {shlex.quote(str(path / 'dbsync.toml'))} status"
    good = not (found["failed"] or found["stale"] or found["lost"])
    return Outcome(
        found, next=following, text=lambda paper: _write(paper, found, good, keep), exit_code=0 if good else 4
    )


@contextmanager
def place(keep: str | None) -> Iterator[Path]:
    """The folder to work in: the one to keep, else one that is gone afterwards. Raises ConfigError (`demo-folder`)."""
    if keep is None:
        path = Path(tempfile.mkdtemp(prefix="dbsync-demo-")).resolve()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
        return
    path = Path(keep).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be used: {exc.strerror}.", code="demo-folder", remedy="Name a folder to be made."
        ) from exc
    if taken:
        raise ConfigError(f"{path} is not empty.", code="demo-folder", remedy="Name a folder that is new, or empty.")
    yield path


@dataclass
class Story:
    """The road, walked once in each direction under load."""

    folder: Folder
    processes: Processes
    paper: Paper | None
    cutover: Found = field(default_factory=dict)
    rollback: Found = field(default_factory=dict)
    after_cutover: Found = field(default_factory=dict)
    after_rollback: Found = field(default_factory=dict)
    load: Found = field(default_factory=dict)

    def run(self) -> None:
        """Walk it. Raises what a command that failed raised, Interrupted, Unavailable."""
        self.open_the_shop()
        self.prepare()
        self.go()
        self.go_back()
        self.close_the_shop()

    # --- the chapters --------------------------------------------------------------------------

    def open_the_shop(self) -> None:
        """blue.db with rows, Traefik, release 1 on blue, customers."""
        self.say(f"A shop with {ORDERS:,} orders: release 1 on blue, release 2 waiting for green, Traefik before them.")
        script = self.folder.path / "0001.sql"
        made = self.dbsync("migrate", "--target", "blue", "--sql", "--to", "0001", told=lambda _: "the base revision")
        script.write_text(made["sql"], encoding="utf-8")
        self.tool("seed", self.folder.seed(script))
        self.processes.start("traefik", self.folder.proxy())
        self.processes.start("blue", self.folder.app("blue", 1))
        self.processes.start("green", self.folder.app("green", 2))
        self.processes.wait("the shop", lambda: answers(f"{self.folder.url}/health", "blue"), 20)
        self.processes.start("load", self.folder.load())
        self.processes.wait("the load", lambda: self.so_far().get("requests", 0) > 0, 20)
        self.say("Customers are in: a third of their requests write, and each write is read back at once.")

    def prepare(self) -> None:
        """green.db: made, brought to the new shape, filled, followed, verified."""
        self.dbsync("init", "--active", "blue", told=lambda d: f"{d['active']} is active, {d['idle']} is idle")
        self.dbsync("doctor", told=_checks)
        self.dbsync("migrate", "--target", "idle", told=lambda d: f"{d['target']} ran {', '.join(d['ran'])}")
        green = f"http://127.0.0.1:{self.folder.ports.green}/health"
        self.processes.wait("release 2", lambda: answers(green, "green"), 20)
        self.dbsync("sync", "--once", told=_copied)
        self.follow()
        self.dbsync("verify", told=_compared)

    def follow(self) -> None:
        """The follower, in the background from now on."""
        self.processes.start("follower", self.folder.dbsync("sync"))
        self.shown("sync &", "follows from now on, through the handovers too", None)

    def go(self) -> None:
        """Release 2 goes live."""
        self.dbsync("cutover", "--dry-run", told=_predicted)
        self.cutover = self.dbsync("cutover", told=_handed_over)
        self.linger("green")
        self.after_cutover = self.count("green", "the cutover")
        self.dbsync("verify", told=_compared)

    def go_back(self) -> None:
        """Release 1 is live again, with what was sold meanwhile."""
        self.rollback = self.dbsync("rollback", told=_handed_over)
        self.linger("blue")
        self.dbsync("verify", told=_compared)

    def close_the_shop(self) -> None:
        """The customers leave; then what was acknowledged is counted for the last time."""
        code = self.processes.end("load", LOAD_GRACE)
        if code not in LOAD_CODES:
            # Then its last numbers are not its final ones, and no verdict may rest on them.
            raise Unavailable(f"The load ended with {code}.", code="demo-died", remedy=LOOK, changed=True)
        self.load = self.so_far()
        self.after_rollback = self.count("blue", "the rollback")

    # --- how it is told ------------------------------------------------------------------------

    def dbsync(self, *words: str, told: Told) -> Found:
        """Run a command of dbsync's as a process of its own, and show it as one would type it."""
        begun = time.monotonic()
        command = " ".join(("dbsync", *words))
        self.processes.breathe()
        code, out = self.processes.ask("dbsync", self.folder.dbsync("--json", *words))
        found = object_of(command, code, out, self.processes.last_words("dbsync"))
        self.shown(" ".join(words), told(found), time.monotonic() - begun)
        return found

    def tool(self, name: str, line: list[str], *, may_find: bool = False) -> Found:
        """Run one of the shop's own programs. `may_find`: exit code 1 means that it found something."""
        code, out = self.processes.ask(name, line)
        return object_of(f"shop/{name}", 0 if may_find and code == 1 else code, out, self.processes.last_words(name))

    def shown(self, words: str, told: str, took: float | None) -> None:
        """A command and its result, with what the customers have seen so far."""
        self.say(f"\n$ dbsync {words}")
        self.say(f"    {told}" + (f"   [{seconds(took)}]" if took is not None else ""))
        so_far = self.so_far()
        if so_far:
            self.say(f"    … {so_far['requests']:,} requests so far, {so_far['failed']} failed")

    def say(self, text: str) -> None:
        """A line for people."""
        if self.paper is not None:
            self.paper.line(text)

    # --- what is counted -----------------------------------------------------------------------

    def so_far(self) -> Found:
        """The load's summary so far, empty before it has one."""
        try:
            found: Found = json.loads(self.folder.progress.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def linger(self, side: str) -> None:
        """Let customers use that side for a while; it must be the one that answers."""
        before = self.so_far()["sides"].get(side, 0)
        self.processes.wait(f"{side} answering", lambda: self.so_far()["sides"].get(side, 0) > before, 20)
        self.processes.pause(1.5 if self.folder.fast else 4.0)

    def count(self, name: str, after: str) -> Found:
        """How many acknowledged writes there are, and how many of them that database does not hold."""
        found = self.tool("check", self.folder.check(name), may_find=True)
        self.say(
            f"\nAfter {after}: {found['acknowledged']:,} acknowledged writes, {found['lost']} of them not in {name}."
        )
        return found

    def verdict(self, took: float) -> Found:
        """The demo's object."""
        held = [one.get("held") or {} for one in (self.cutover, self.rollback)]
        return {
            "requests": self.load["requests"],
            "per_second": self.load["per_second"],
            "failed": self.load["failed"],
            "failures": self.load["failures"],
            "stale": self.load["stale"],
            "held": {
                "requests": sum(int(one.get("requests", 0)) for one in held),
                "longest_ms": self.load["longest_write_ms"],
            },
            "acknowledged_writes": self.load["acknowledged_writes"],
            "lost": self.after_cutover["lost"] + self.after_rollback["lost"],
            "lost_after_cutover": self.after_cutover["lost"],
            "lost_after_rollback": self.after_rollback["lost"],
            "pause_ms": self.cutover["pause_ms"],
            "rollback_pause_ms": self.rollback["pause_ms"],
            "seconds": round(took, 1),
        }


def _checks(found: Found) -> str:
    warnings = [one["code"] for one in found["checks"] if one["severity"] == "warning"]
    return f"{len(found['checks'])} checks, none blocks" + (f"; warnings: {', '.join(warnings)}" if warnings else "")


def _copied(found: Found) -> str:
    copied = found["snapshot"] or {"rows": 0, "tables": 0}
    return f"copied {copied['rows']:,} rows of {copied['tables']} tables, then {found['windows']} windows of changes"


def _compared(found: Found) -> str:
    rows = sum(one["rows"] for one in found["tables"])
    return f"equal: {rows:,} rows of {len(found['tables'])} tables compared while customers go on buying"


def _predicted(found: Found) -> str:
    return f"{len(found['steps'])} steps; writes would wait about {found['predicted_pause_ms']:.0f} ms"


def _handed_over(found: Found) -> str:
    held = found.get("held") or {"requests": 0}
    waited = f"writes waited {found['pause_ms']:.0f} ms at most, {held['requests']} were held"
    return f"{found['from']} → {found['to']}: {waited}"


def _write(paper: Paper, found: Found, good: bool, keep: str | None) -> None:
    paper.line()
    paper.pairs(
        [
            ("requests", f"{found['requests']:,} ({found['per_second']:.0f} a second)"),
            ("failed", str(found["failed"])),
            ("stale reads", str(found["stale"])),
            (
                "held",
                f"{found['held']['requests']}; the longest wait of a write was {found['held']['longest_ms']:.0f} ms",
            ),
            ("acknowledged writes", f"{found['acknowledged_writes']:,}"),
            (
                "lost",
                f"{found['lost_after_cutover']} after the cutover, {found['lost_after_rollback']} after the rollback",
            ),
            ("pause", f"{found['pause_ms']:.0f} ms; back: {found['rollback_pause_ms']:.0f} ms"),
        ]
    )
    for line in found["failures"][:10]:
        paper.line(f"  {line}")
    paper.line("✓ Nothing failed, nothing was lost." if good else "✗ That should not have happened.")
    if keep is not None:
        paper.line(
            f"Everything is in {found['directory']}: ./start.sh there starts it again, README.md says how to play on."
        )
