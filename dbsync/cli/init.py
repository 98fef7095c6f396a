"""`dbsync init`: the file first; then dbsync's own tables in both databases, and who is active."""

from __future__ import annotations

import click

from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context
from dbsync.config import nearest
from dbsync.cutover.state import Ownership, ownership
from dbsync.errors import ConfigError, OwnershipAmbiguous, PositionLost, Refused, Unavailable
from dbsync.model import Guard, Severity


@verb("init", writes=True)
@click.option("--active", metavar="NAME", help="The database that the application uses now (needed the first time).")
@click.option("--remove", is_flag=True, help="Take everything of dbsync's out of both databases.")
@click.option("--yes", is_flag=True, help="Do not ask before removing.")
def init(session: Session, active: str | None, remove: bool, yes: bool) -> Outcome:
    """Write a commented dbsync.toml where there is none; where there is one, prepare both databases.

    Twice is harmless.

    Example: dbsync init --active blue
    """
    if not session.file.exists() and not remove:
        return write_file(session, active)
    context = session.context
    if active is not None and active not in context.names:
        raise ConfigError(
            f"There is no database {active!r}.", code="unknown-database", remedy=nearest(active, context.names)
        )
    if remove:
        session.confirm(f"Take everything of dbsync's out of {' and '.join(context.names)}?", yes)
        return take_out(context)
    return prepare(context, active)


def write_file(session: Session, active: str | None) -> Outcome:
    """Write the commented file."""
    from dbsync.cli.template import TEMPLATE

    path = session.file
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}.",
            code="config-unreadable",
            remedy="Create its folder, or name another file with --config.",
        ) from exc
    following = f"dbsync init --active {active or 'NAME'}"

    def text(paper: Paper) -> None:
        paper.line(f"Wrote {path}. Put the URLs of your two databases into it.")

    return Outcome({"active": None, "idle": None, "created": [str(path)]}, next=following, text=text)


def prepare(context: Context, wanted: str | None) -> Outcome:
    """Create what is missing in both databases."""
    guards, replaced = look_at(context)
    present = [guard for guard in guards.values() if guard is not None]
    if not present:
        active, epoch = first_time(context, wanted), 1
    else:
        active, epoch = recorded(context, guards, present, replaced)
        if wanted is not None and wanted != active:
            raise Refused(
                f"{active} is the active database by dbsync's own record, not {wanted}.",
                code="active-contradicts",
                remedy=f"Run `dbsync cutover` to make {wanted} active; `dbsync status` shows where things stand.",
                next_command="dbsync status",
            )
    idle = context.config.other(active)
    if not context.exists(active):
        # Asking for it says what is missing, in the adapter's own words.
        context.database(active).guard()
        raise Unavailable(
            f"{active} is not there.", code="database-missing", remedy="Check [databases] in the configuration."
        )
    created = [context.config.environment(idle).shown] if context.create(idle) else []
    # The closed side first: at no moment are both open.
    for name in (idle, active):
        logged = _logs_ahead(context, name)
        created += [f"{name}: {what}" for what in context.database(name).install(active, epoch)]
        created += [] if logged else [f"{name}: write-ahead log (WAL)"]
    _refuse_one_identity(context)

    def text(paper: Paper) -> None:
        paper.line(f"{active} is active, {idle} is idle.")
        triggers = [what for what in created if "dbsync_" in what and what.rpartition("_")[2] in ("i", "u", "d")]
        for what in created:
            if what not in triggers:
                paper.line(f"  + {what}")
        if triggers:
            paper.line(f"  + {len(triggers)} triggers that guard and capture")
        if not created:
            paper.line("Everything was there already.")

    return Outcome({"active": active, "idle": idle, "created": created}, next="dbsync doctor", text=text)


def look_at(context: Context) -> tuple[dict[str, Guard | None], list[str]]:
    """The guards, and the names of files that are not those in which their guard was written.

    Such a file counts as one without a guard: `install` takes it as what it is now.
    """
    guards: dict[str, Guard | None] = {}
    replaced = []
    for name in context.names:
        try:
            guards[name] = context.database(name).guard() if context.exists(name) else None
        except PositionLost:
            guards[name] = None
            replaced.append(name)
    return guards, replaced


def _logs_ahead(context: Context, name: str) -> bool:
    """Whether the file is in WAL mode already: `install` puts it there, and that outlives dbsync."""
    checks = context.database(name).examine()
    return not any(check.code == "wal" and check.severity is not Severity.OK for check in checks)


def first_time(context: Context, wanted: str | None) -> str:
    """The environment that was named as active. Raises ConfigError (`active-missing`), Unavailable."""
    if wanted is None:
        raise ConfigError(
            "Nothing says yet which database is active.",
            code="active-missing",
            remedy=f"Run `dbsync init --active {context.names[0]}` or `--active {context.names[1]}`.",
        )
    return wanted


def recorded(
    context: Context, guards: dict[str, Guard | None], present: list[Guard], replaced: list[str]
) -> tuple[str, int]:
    """Who is active by the guards that are there, and since which epoch."""
    missing = [name for name in context.names if guards[name] is None]
    if not missing:
        first, second = present
        return _settled(ownership(first, second)), first.epoch
    known = present[0]
    if known.live not in context.names:
        raise OwnershipAmbiguous(
            f"{known.name} says that {known.live!r} is live, and no database is called so.",
            remedy="Give [databases] in dbsync.toml the names that the databases were initialised with.",
        )
    if known.live == missing[0] and known.epoch > 1 and missing[0] not in replaced:
        # Its guard is what decides; a database without it is not the one that was handed over to.
        raise PositionLost(
            f"{missing[0]} was made active in handover {known.epoch}, and its guard is gone: "
            "it was restored from a backup, or replaced.",
            code="source-restored",
            remedy="Make sure which database is the right one; then `dbsync init --remove`.",
        )
    if not known.accepts and known.live != missing[0]:
        raise Refused(
            f"{known.name} is {known.state.value}, and {missing[0]} has no guard.",
            code="cutover-running",
            remedy="Run `dbsync cutover --resume` or `--abort` first.",
        )
    return known.live, known.epoch


def _settled(found: Ownership) -> str:
    if found.active is None or not found.settled:
        raise Refused(
            f"A handover from {found.old} to {found.new} is under way ({found.phase}).",
            code="cutover-running",
            remedy="Run `dbsync cutover --resume` or `--abort` first.",
            next_command="dbsync cutover --resume",
        )
    return found.active


def _refuse_one_identity(context: Context) -> None:
    first, second = (context.database(name).guard() for name in context.names)
    if first is not None and second is not None and first.identity == second.identity:
        raise Refused(
            f"{first.name} and {second.name} have one identity: one is a copy of the other's file.",
            code="same-identity",
            remedy="Run `dbsync init --remove` on the copy's file, then init again.",
            changed=True,
        )


def take_out(context: Context) -> Outcome:
    """Remove everything that is dbsync's own."""
    guards, _ = look_at(context)
    for name in context.names:
        if not context.exists(name):
            context.database(name).guard()
    first, second = guards.values()
    if first is not None and second is not None:
        _settled(ownership(first, second))
    removed = [f"{name}: {what}" for name in context.names for what in context.database(name).remove()]

    def text(paper: Paper) -> None:
        paper.line("Nothing of dbsync's is left in either database." if removed else "There was nothing to remove.")

    return Outcome({"active": None, "idle": None, "created": [], "removed": removed}, text=text)
