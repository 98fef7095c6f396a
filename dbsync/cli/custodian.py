"""The custodian: it outlives a coordinator that dies or stops, and finishes or undoes its handover.

Started by `cutover` and `rollback`, never by hand. It reads orders from its standard input, one JSON object a
line; the end of that stream without `done` is the coordinator's death.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from dbsync.adapters.custodian import RecordedGate, is_stopped, start_of
from dbsync.adapters.gate import Supervisor, listen, prepare
from dbsync.adapters.gate_worker import write_state
from dbsync.cli.render import Outcome
from dbsync.cli.session import Session, verb
from dbsync.cli.world import make_world, record_path, state_folder
from dbsync.errors import DbsyncError

log = logging.getLogger("dbsync.custodian")

FIRST_SECONDS = 180.0
"""How long a coordinator may take until it holds; then it is taken to be stuck."""
LEAVE_SECONDS = 1.0
"""How long a coordinator that let go of the pipe may take to end."""
POLL_SECONDS = 0.02
MOST_SECONDS = 900.0


@verb("custodian")
@click.option("--epoch", type=int, required=True)
@click.option("--live", required=True)
@click.option("--owner", required=True)
def custodian(session: Session, epoch: int, live: str, owner: str) -> Outcome | None:
    """Finish or undo a handover whose coordinator died. Started by cutover and rollback."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keeper = _Custodian(session, epoch, live, owner)
    try:
        keeper.announce()
        keeper.watch()
    finally:
        keeper.end()
    return None


class _Custodian:
    def __init__(self, session: Session, epoch: int, live: str, owner: str) -> None:
        self.session, self.epoch, self.live, self.owner = session, epoch, live, owner
        self.config = session.config
        self.record = record_path(self.config)
        self.state: Path = state_folder(self.config) / f"gate-{os.getpid()}.json"
        self.supervisor: Supervisor | None = None
        self.told: dict[str, Any] = {}
        self.deadline = time.monotonic() + FIRST_SECONDS
        self.gone = False
        """Whether the coordinator let go of its end of the pipe."""
        self.moving = time.monotonic()
        """When the coordinator was last seen not stopped."""

    def announce(self) -> None:
        """Start the gate where there is one to keep, record where it is, and say that it is ready."""
        # Read now what could be edited into pieces before it is needed.
        _ = self.session.context.databases
        self.told = {"ready": True, "pid": os.getpid(), "start": start_of(os.getpid()), "owner": self.owner}
        gated = any(r.kind == "http" for r in self.config.routers) and self.config.cutover.hold != "off"
        if gated:
            host, _, port = self.config.cutover.gate.rpartition(":")
            sock = listen(host, int(port))
            made = prepare(self.state, self.live)
            self.supervisor = Supervisor(sock, self.state)
            self.supervisor.start()
            bound = sock.getsockname()[1]
            url = self.config.cutover.gate_url or f"http://{host}:{bound}"
            near = "127.0.0.1" if host in ("0.0.0.0", "") else host.strip("[]")
            self.told |= {"url": url, "host": near, "port": bound, "mark": made.mark, "control": made.control}
        write_state(self.record, self.told)
        sys.stdout.write(json.dumps(self.told) + "\n")
        sys.stdout.flush()

    def watch(self) -> None:
        """Until the coordinator says that it is done; or it is gone or late: then act."""
        heard = b""
        while True:
            if self.supervisor is not None:
                self.supervisor.poll()
            ready, _, _ = select.select([0], [], [], POLL_SECONDS)
            if ready:
                part = os.read(0, 65536)
                if not part:
                    log.info("the coordinator is gone")
                    self.gone = True
                    return self.act()
                *lines, heard = (heard + part).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    if order.get("done"):
                        return None
                    self.deadline = time.monotonic() + float(order["deadline"])
            if time.monotonic() > self.deadline:
                log.info("the coordinator is late")
                return self.act()
            if self._stopped():
                log.info("the coordinator is stopped")
                return self.act()

    def _stopped(self) -> bool:
        """Whether the coordinator has been stopped for longer than any pause may last."""
        if not is_stopped(int(self.owner.rsplit(":", 3)[1])):
            self.moving = time.monotonic()
        return time.monotonic() - self.moving > self.config.cutover.max_pause

    def act(self) -> None:
        """End a coordinator that is stopped, then follow the table until it is followed to its end."""
        self._end_coordinator()
        give_up = time.monotonic() + MOST_SECONDS
        wait = 0.05
        while time.monotonic() < give_up:
            if self.supervisor is not None:
                self.supervisor.poll()
            try:
                self._resolve()
                return
            except DbsyncError as error:
                log.warning("%s: %s", error.code, error.message)
            time.sleep(wait)
            wait = min(wait * 2, 2.0)

    def _resolve(self) -> None:
        from dbsync.cutover.resolve import resolve

        gate = RecordedGate(self.told) if self.supervisor is not None else None
        world = make_world(self.session, self.owner, gate)
        done = resolve(world, "either", force=True)
        log.info("%s: %s is live at epoch %d", done.outcome, done.active, done.epoch)

    def _end_coordinator(self) -> None:
        _, pid, start, _ = self.owner.rsplit(":", 3)

        def lives() -> bool:
            return start_of(int(pid)) == int(start)

        # It may be on its way out with something to say, and an exit code of its own.
        leave = time.monotonic() + LEAVE_SECONDS if self.gone else 0.0
        while lives() and not is_stopped(int(pid)) and time.monotonic() < leave:
            time.sleep(0.01)
        if lives():
            log.info("ending the coordinator %s", pid)
            os.kill(int(pid), signal.SIGKILL)
            give_up = time.monotonic() + 2.0
            while lives() and time.monotonic() < give_up:
                time.sleep(0.01)

    def end(self) -> None:
        """Let the gate and its traces go."""
        if self.supervisor is not None:
            self.supervisor.stop()
        self.state.unlink(missing_ok=True)
        try:
            if json.loads(self.record.read_text()).get("pid") == os.getpid():
                self.record.unlink()
        except (OSError, ValueError):
            log.debug("no record to remove")
