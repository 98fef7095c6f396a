"""The only place that chooses adapters: from a configuration to databases, migrations, crossings, router and clock."""

from __future__ import annotations

import functools
import glob
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbsync.adapters.clock import SystemClock
from dbsync.config import Config, nearest
from dbsync.cutover.state import Case, Ownership, ownership
from dbsync.errors import ConfigError, DbsyncError, OwnershipAmbiguous, Refused, Unavailable
from dbsync.model import Guard, Report, quiet
from dbsync.ports import Database, Gate, Migrator, Router, Sketch

if TYPE_CHECKING:
    from dbsync.adapters.crossings import Faulty
    from dbsync.cutover.world import World
    from dbsync.etl.crossing import Pair
    from dbsync.etl.job import Job
    from dbsync.etl.run import Lens
    from dbsync.sync.run import Pump


RACES, RACE_SECONDS = 4, 0.05
"""How often, and after how long, guard rows that contradict each other are read again."""


@dataclass(frozen=True)
class Seen:
    """Both guard rows, as far as they can be read."""

    guards: Mapping[str, Guard | None]
    """By environment; None before `init`. A side that does not answer is left out."""
    unreachable: Mapping[str, DbsyncError]
    """Why a side does not answer."""


class Context:
    """Everything that a configuration names. Each part is made when it is first asked for, and kept.

    Who is live, and the lens between the databases, are read anew at each call: they change while we run.
    """

    def __init__(self, config: Config, report: Report = quiet, stop: Callable[[], bool] = lambda: False) -> None:
        self.config = config
        self.report = report
        self.stop = stop
        self.clock = SystemClock()
        self._databases: dict[str, Database] = {}
        self.closing: list[Callable[[], None]] = []
        """What else is to be let go of at the end."""

    # --- databases -----------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, str]:
        """The environments' names, in the order of the file."""
        return self.config.names

    def database(self, name: str) -> Database:
        """The database of one environment; nothing is opened yet. Raises ConfigError."""
        if name not in self._databases:
            from dbsync.adapters.sqlite import SqliteDatabase

            environment = self.config.environment(name)
            self._refuse_one_file()
            self._databases[name] = SqliteDatabase(environment.name, environment.url, self._left_out, environment.shown)
        return self._databases[name]

    @property
    def _left_out(self) -> tuple[str, ...]:
        # What a job writes is its own: neither synced nor verified, in either database.
        return (*self.config.options.exclude, *(glob.escape(job.into) for job in self.jobs.values()))

    @property
    def databases(self) -> dict[str, Database]:
        """Both databases by name, in the order of the file."""
        return {name: self.database(name) for name in self.names}

    def _refuse_one_file(self) -> None:
        first, second = self.config.databases
        with suppress(OSError):
            if first.path.samefile(second.path):
                raise ConfigError(
                    f"{first.name} and {second.name} are the same file by two names: {second.shown}.",
                    code="same-database",
                    remedy="Give each name a database of its own.",
                )

    def exists(self, name: str) -> bool:
        """Whether the database is there at all."""
        return self.config.environment(name).path.exists()

    def create(self, name: str) -> bool:
        """Create an empty database where there is none. Gives whether it did."""
        path = self.config.environment(name).path
        if path.exists():
            return False
        try:
            path.touch(exist_ok=False)
        except OSError as exc:
            raise Unavailable(
                f"{name}: {self.config.environment(name).shown} cannot be created: {exc.strerror}.",
                code="database-missing",
                remedy="Create its folder, or correct the URL.",
            ) from exc
        return True

    # --- who is live ---------------------------------------------------------------------------

    def look(self) -> Seen:
        """Both guard rows, without failing for a side that does not answer.

        Raises Unavailable (`unreachable`) when neither answers; what is wrong with a file that does answer is raised.
        """
        guards: dict[str, Guard | None] = {}
        unreachable: dict[str, DbsyncError] = {}
        for name in self.names:
            try:
                guards[name] = self.database(name).guard()
            except Unavailable as exc:
                unreachable[name] = exc
        if not guards:
            found = " ".join(exc.message.rstrip(".") + "." for exc in unreachable.values())
            remedy = next(iter(unreachable.values())).remedy or "Start them."
            raise Unavailable(f"Neither database answers. {found}", code="unreachable", remedy=remedy)
        return Seen(guards, unreachable)

    def read_roles(self) -> tuple[Seen, Ownership]:
        """Both guard rows and who is live by them; a side that does not answer is told by the other one.

        Raises Unavailable when neither answers, Refused (`not-initialised`), OwnershipAmbiguous.
        """
        for _ in range(RACES):
            try:
                return self._read_roles()
            except OwnershipAmbiguous:
                # The rows are read one after the other: a handover in between makes them contradict each other.
                self.clock.sleep(RACE_SECONDS)
        return self._read_roles()

    def _read_roles(self) -> tuple[Seen, Ownership]:
        seen = self.look()
        missing = [name for name, guard in seen.guards.items() if guard is None]
        if missing:
            raise self.not_initialised(missing)
        first, second = (seen.guards.get(name) for name in self.names)
        return seen, ownership(first, second, self.names)

    def roles(self) -> Ownership:
        """Who is live, read off both guards now.

        Raises Unavailable when either side does not answer, Refused (`not-initialised`), OwnershipAmbiguous.
        """
        seen, found = self.read_roles()
        for exc in seen.unreachable.values():
            raise exc
        return found

    def not_initialised(self, missing: list[str]) -> Refused:
        """The refusal before `init`."""
        both = len(missing) == 2
        return Refused(
            f"dbsync's own tables are not in {' and '.join(missing)}.",
            code="not-initialised",
            remedy="Run `dbsync init --active NAME`, naming the database that the application uses now."
            if both
            else "Run `dbsync init`.",
            next_command="dbsync init",
        )

    def settled(self) -> Ownership:
        """Who is live when no handover is under way. Raises as `roles`, and Refused (`cutover-running`)."""
        found = self.roles()
        if found.active is None or found.idle is None or not found.settled:
            raise Refused(
                f"A handover from {found.old} to {found.new} is under way ({found.phase}).",
                code="cutover-running",
                remedy="Wait for it, or run `dbsync cutover --resume` or `--abort`.",
                next_command="dbsync cutover --resume",
            )
        return found

    def resolve(self, target: str) -> str:
        """The environment that `idle`, `active` or a name stands for. Raises as `settled`, ConfigError."""
        if target in self.names:
            return target
        if target not in ("idle", "active"):
            raise ConfigError(
                f"There is no database {target!r}.",
                code="unknown-database",
                remedy=nearest(target, ["idle", "active", *self.names]),
            )
        roles = self.settled()
        return str(roles.active if target == "active" else roles.idle)

    # --- shape and rows ------------------------------------------------------------------------

    @functools.cached_property
    def migrator(self) -> Migrator:
        """The revisions. Raises ConfigError when there is no migrations folder."""
        from dbsync.adapters.alembic import AlembicScripts

        return AlembicScripts(self.config.migrate.path)

    @functools.cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """The crossings by revision; empty where there is no folder. Raises ConfigError (`broken-crossing`)."""
        from dbsync.adapters.crossings import load_crossings
        from dbsync.etl.job import refuse_crossed

        folder = self.config.etl.path
        pairs = load_crossings(folder, self.migrator.chain()) if folder.is_dir() else {}
        refuse_crossed(self.jobs, pairs)
        return pairs

    @functools.cached_property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs of this installation by name, sorted; empty without any. Raises ConfigError (`broken-job`)."""
        from dbsync.adapters.job_files import load_jobs
        from dbsync.etl.job import refuse_shared

        jobs = load_jobs(self.config.etl.path / "jobs")
        refuse_shared(jobs)
        return jobs

    def crossing_files(self) -> tuple[Mapping[str, Pair], Sequence[Faulty]]:
        """As `pairs`, read anew; what is wrong with a file is given beside them instead of being raised."""
        from dbsync.adapters.crossings import load_each

        return load_each(self.config.etl.path, self.migrator.chain())

    def revision_of(self, path: Path) -> str | None:
        """The revision whose crossing a file of that name is, or None."""
        from dbsync.adapters.crossings import revision_of

        return revision_of(path, self.migrator.chain())

    @functools.cached_property
    def sketch(self) -> Sketch:
        """Where revisions run and queries are compiled without any of the databases."""
        from dbsync.adapters.sqlite.sketch import SqliteSketch

        return SqliteSketch(self._left_out)

    def lens(self, active: str) -> Lens:
        """Both ways between the two databases as they stand now. Raises as `etl.run.make_lens`."""
        from dbsync.etl.run import make_lens

        return make_lens(self.databases, active, self.migrator, self.pairs)

    def pump(self) -> Pump:
        """The pump from the active to the idle side. Raises as `settled` and `lens`."""
        return self._pump(self.settled())

    def open_pair(self) -> Pump | None:
        """A pump for the roles as they are now, None while no side is the idle one; crossings are read anew."""
        found = self.roles()
        if found.case not in (Case.FOLLOWING, Case.FENCED):
            return None
        for cached in ("migrator", "pairs"):
            self.__dict__.pop(cached, None)
        return self._pump(found)

    def _pump(self, roles: Ownership) -> Pump:
        from dbsync.sync.run import Pump

        active, idle = str(roles.active), str(roles.idle)
        lens = self.lens(active)
        return Pump(self.database(active), self.database(idle), lens, roles.epoch, self.clock, self.report)

    # --- traffic -------------------------------------------------------------------------------

    @functools.cached_property
    def router(self) -> Router | None:
        """The routers at the proxy, all of them as one; None without [router]. Raises ConfigError."""
        if not self.config.routers:
            return None
        from dbsync.adapters.traefik import Routers, TraefikRouter

        cutover = self.config.cutover
        return Routers(
            [
                TraefikRouter(
                    file=one.file,
                    router=one.router,
                    services=one.services,
                    api=one.api,
                    state_dir=self.state_dir,
                    kind=one.kind,
                    probe=one.probe,
                    probe_host=one.probe_host or None,
                    ignore=one.ignore,
                    gate_entrypoint=cutover.gate_entrypoint,
                    hold=cutover.hold,
                    still_live=self.is_live,
                )
                for one in self.config.routers
            ]
        )

    @property
    def state_dir(self) -> Path:
        """The folder of dbsync's own beside the configuration file (locks, the route's epoch)."""
        return self.config.path.absolute().parent / ".dbsync"

    def is_live(self, name: str) -> bool:
        """Whether the guards say now that this environment is live."""
        return self.read_roles()[1].active == name

    # --- the handover --------------------------------------------------------------------------

    @property
    def owner(self) -> str:
        """This process, as it stands in guards and journals."""
        return f"{platform.node()}:{os.getpid()}"

    def world(
        self,
        gate: Gate | None = None,
        accept_loss: bool = False,
        owner_lives: Callable[[str], bool | None] = lambda _owner: None,
    ) -> World:
        """What a handover works with. Raises ConfigError."""
        from dbsync.cutover.gate import Limits
        from dbsync.cutover.world import World

        cutover = self.config.cutover
        return World(
            databases=self.databases,
            lens=self.lens,
            router=self.router,
            gate=gate,
            clock=self.clock,
            limits=Limits(
                max_lag=cutover.max_lag,
                receipt_max_age=self.config.verify.receipt_max_age,
                max_pause=cutover.max_pause,
                hold=cutover.hold,
                accept_loss=accept_loss,
            ),
            owner=self.owner,
            report=self.report,
            stop=self.stop,
            owner_lives=owner_lives,
            names=self.names,
        )

    def close(self) -> None:
        """Let go of every connection."""
        for let_go in self.closing:
            let_go()
        router = self.__dict__.get("router")
        if router is not None:
            router.close()
        for database in self._databases.values():
            with suppress(DbsyncError):
                database.dispose()
