"""The real command line, struck down at one named point: python driver.py STRIKE -- dbsync's words.

STRIKE is JSON: `at` (a name of POINTS), `when` ("before" or "after" that call), `nth`, `armed` (calls count only
after this other point has been passed), `later` (seconds to wait, in the background, before it strikes), `signal`, and
`told` (a file that is written just before: the moment on the machine's monotonic clock). The signal goes to the whole
process group; a custodian is killed first, with its gate, if `orphan` names the file in which it records itself.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = {
    "journal": ("dbsync.cutover.world", "World", "journal"),
    "custodian": ("dbsync.adapters.custodian", "CustodianProcess", "start"),
    "hold": ("dbsync.adapters.custodian", "CustodianProcess", "hold"),
    "hold-order": ("dbsync.adapters.gate", "Control", "hold"),
    "decide": ("dbsync.adapters.custodian", "CustodianProcess", "decide"),
    "decide-order": ("dbsync.adapters.gate", "Control", "decide"),
    "stop": ("dbsync.adapters.custodian", "CustodianProcess", "stop"),
    "install": ("dbsync.adapters.traefik", "Routers", "install_hold"),
    "publish": ("dbsync.adapters.traefik_files", None, "publish"),
    "rename": ("dbsync.adapters.traefik_files", None, "_write"),
    "switch": ("dbsync.adapters.traefik", "Routers", "switch"),
    "ungate": ("dbsync.adapters.traefik", "Routers", "remove_hold"),
    "unlink": ("dbsync.adapters.traefik_files", None, "remove"),
    "settled": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "settled"),
    "fence": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "fence"),
    "drain": ("dbsync.sync.pump", "Pump", "drain"),
    "window": ("dbsync.adapters.sqlite.writing", "SqliteTransaction", "set_checkpoint"),
    "recheck": ("dbsync.cutover.run", None, "recheck"),
    "fingerprint": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "fingerprint"),
    "cede": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "cede"),
    "in-fence-or-cede": ("dbsync.adapters.sqlite.guard", None, "_present"),
    "in-cede": ("dbsync.adapters.sqlite.guard", None, "fingerprint"),
    "open": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "open"),
    "in-open": ("dbsync.adapters.sqlite.guard", None, "wake_triggers"),
    "close": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "close"),
    "in-close": ("dbsync.adapters.sqlite.guard", None, "write_checkpoint"),
    "save": ("dbsync.adapters.sqlite.database", "SqliteDatabase", "save"),
    "migrating": ("dbsync.adapters.alembic", "AlembicScripts", "run"),
}


class Strike:
    """The one blow."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self.armed = not said.get("armed")
        self.seen = 0

    def land(self) -> None:
        """Tell the moment, then send the signal to this process group; or do so in a while."""
        if self.said.get("later") is None:
            self._land()
        else:
            threading.Timer(float(self.said["later"]), self._land).start()

    def _land(self) -> None:
        told = Path(self.said["told"])
        told.with_suffix(".new").write_text(str(time.monotonic()))
        told.with_suffix(".new").replace(told)
        if self.said.get("orphan"):
            os.killpg(int(json.loads(Path(self.said["orphan"]).read_text())["pid"]), signal.SIGKILL)
        os.killpg(os.getpgid(0), signal.Signals[self.said["signal"]])

    def prepare(self) -> None:
        """Wrap the calls that it waits for."""
        if self.said.get("armed"):
            self._wrap(self.said["armed"], None, self._arm)
        self._wrap(self.said["at"], self._before, self._after)

    def _arm(self) -> None:
        self.armed = True

    def _before(self) -> None:
        self.seen += self.armed
        if self.said["when"] == "before" and self.armed and self.seen == self.said.get("nth", 1):
            self.land()

    def _after(self) -> None:
        if self.said["when"] == "after" and self.armed and self.seen == self.said.get("nth", 1):
            self.land()

    def _wrap(self, name: str, before: Callable[[], None] | None, after: Callable[[], None]) -> None:
        module, owner, attribute = POINTS[name]
        place: Any = importlib.import_module(module)
        if owner is not None:
            place = getattr(place, owner)
        original = getattr(place, attribute)

        @functools.wraps(original)
        def struck(*args: Any, **named: Any) -> Any:
            if before is not None:
                before()
            given = original(*args, **named)
            after()
            return given

        setattr(place, attribute, struck)


def main() -> None:
    said = json.loads(sys.argv[1])
    import dbsync.cutover.run

    # Shorter than a stranger's: the requests of these tests take milliseconds.
    dbsync.cutover.run.PASS_SECONDS = 0.2
    Strike(said).prepare()
    from dbsync.cli.main import main as dbsync_main

    dbsync_main(sys.argv[3:])


if __name__ == "__main__":
    main()
