"""Two real files and the handover between them in this process: no router, no custodian, nothing to wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbsync.cutover.gate import Limits
from dbsync.cutover.run import Handed, hand_over
from dbsync.cutover.world import World
from dbsync.etl.run import Lens, make_lens
from tests.unit.sync.files import Files, Path12

ONE = "CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY); INSERT INTO alembic_version VALUES ('r1');"
"""The beginning of a script that makes a side whose revision is the other one's too."""


class Road(Files):
    """blue is live at first; `synced` has copied and verified."""

    def synced(self) -> Road:
        """Copy, and verify with a receipt."""
        self.pump().drain()
        assert self.verify().receipt is not None
        return self

    def lens_for(self, active: str) -> Lens:
        """The lens, whoever is active."""
        migrator: Any = Path12()
        return make_lens(self.databases, active, migrator, {"r2": self.crossed})

    def world(self, **limits: Any) -> World:
        """What a handover works with."""
        return World(
            databases=self.databases,
            lens=self.lens_for,
            router=None,
            gate=None,
            clock=self.clock,
            limits=Limits(**({"max_pause": 5.0} | limits)),
            owner="host:1:1:test",
            names=("blue", "green"),
        )

    def cut(self, verb: str = "cutover", **limits: Any) -> Handed:
        """A handover by the real walk; the roles of this object follow it."""
        done = hand_over(self.world(**limits), verb)
        self.turned()
        return done

    def turned(self) -> None:
        """Take over who is live from the guards."""
        guards = {name: database.guard() for name, database in self.databases.items()}
        (live,) = (name for name, guard in guards.items() if guard is not None and guard.accepts)
        (other,) = (name for name in guards if name != live)
        self.active, self.idle = self.databases[live], self.databases[other]
        self.epoch = guards[live].epoch  # type: ignore[union-attr]


def road(folder: Path, shape: str, newer: str | None = None) -> Road:
    """A road between two shapes; with one shape both sides stand at its revision."""
    return Road(folder, (shape, newer or shape))
