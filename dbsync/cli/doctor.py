"""`dbsync doctor`: every precondition, each with its remedy. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING

from dbsync.cli.etl_standing import checks as checks_of_schedule
from dbsync.cli.places import NETWORK, file_system
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context, Seen
from dbsync.cutover.state import Ownership
from dbsync.errors import DbsyncError, Unavailable
from dbsync.model import Check, Severity

if TYPE_CHECKING:
    from dbsync.etl.run import Lens

MARKS = {Severity.OK: "✓", Severity.WARNING: "!", Severity.ERROR: "✗", Severity.BLOCKER: "✗"}


@verb("doctor")
def doctor(session: Session) -> Outcome:
    """Look at every precondition, and name the remedy of each. Exit 3 when one blocks.

    Example: dbsync doctor
    """
    checks = list(examine(session.context))
    blocked = [one for one in checks if one.severity in (Severity.BLOCKER, Severity.ERROR)]

    def text(paper: Paper) -> None:
        for one in checks:
            paper.line(f"{MARKS[one.severity]} {one.code}: {one.found}")
            if one.remedy and one.severity is not Severity.OK:
                paper.line(f"    → {one.remedy}")
        paper.line(f"{len(checks)} checks, {len(blocked)} in the way.")

    data = {
        "checks": [{"code": c.code, "severity": c.severity.value, "found": c.found, "remedy": c.remedy} for c in checks]
    }
    return Outcome(data, next=_next(checks), text=text, exit_code=3 if blocked else 0)


def _next(checks: list[Check]) -> str:
    bad = {one.code for one in checks if one.severity is not Severity.OK}
    for code, command in (
        ("not-initialised", "dbsync init"),
        ("handover", "dbsync cutover --resume"),
        ("idle-empty", "dbsync migrate --target idle"),
        ("never-followed", "dbsync sync"),
        ("lag", "dbsync sync"),
    ):
        if code in bad:
            return command
    return "dbsync status"


def examine(context: Context) -> Iterable[Check]:
    """Every check, in the order in which they build on each other."""
    yield Check("config", Severity.OK, f"{context.config.path.name} names {' and '.join(context.names)}")
    seen = yield from _databases(context)
    yield from _shapes(context)
    if seen is None:
        return
    roles = yield from _roles(context, seen)
    if roles is not None and roles.active is not None and not seen.unreachable:
        yield from _pair(context, roles.active, str(roles.idle))
    yield from _router(context, roles)


def _failed(exc: DbsyncError, code: str = "") -> Check:
    return Check(code or exc.code, Severity.BLOCKER, exc.message, exc.remedy or "Make it answer; then run it again.")


def _try(look: Callable[[], Iterable[Check]]) -> list[Check]:
    try:
        return list(look())
    except DbsyncError as exc:
        return [_failed(exc)]


def _databases(context: Context) -> Generator[Check, None, Seen | None]:
    guards: dict[str, object] = {}
    broken = False
    for name in context.names:
        address = context.config.environment(name).shown
        try:
            guard = context.database(name).guard()
        except Unavailable as exc:
            yield _failed(exc, "unreachable")
            continue
        except DbsyncError as exc:
            broken = True
            yield _failed(exc)
            continue
        guards[name] = guard
        yield Check("reachable", Severity.OK, f"{name} answers at {address}")
        if guard is None:
            yield Check(
                "not-initialised",
                Severity.BLOCKER,
                f"dbsync's own tables are not in {name}",
                "dbsync init" if any(guards.values()) else "dbsync init --active NAME",
            )
        yield from _file_system(context, name)
        yield from _try(context.database(name).examine)
    if broken or not guards:
        return None
    try:
        return context.look()
    except DbsyncError as exc:
        yield _failed(exc)
        return None


def _file_system(context: Context, name: str) -> Iterable[Check]:
    kind = file_system(context.config.environment(name).path)
    if kind in NETWORK:
        yield Check(
            "network-file-system",
            Severity.WARNING,
            f"{name} lies on {kind}, where locks cannot be relied on",
            "Put the file on a local disk.",
        )
    elif kind is not None:
        yield Check("file-system", Severity.OK, f"{name} lies on {kind}")


def _shapes(context: Context) -> Iterable[Check]:
    def revisions() -> Iterable[Check]:
        chain = context.migrator.chain()
        said = f"{len(chain)} revision{'s' * (len(chain) > 1)}, head {chain[-1]}" if chain else "no revisions yet"
        yield Check("migrations", Severity.OK, f"{context.config.migrate.path.name}/ has {said}")

    def crossings() -> Iterable[Check]:
        found = len(context.pairs)
        yield Check(
            "crossings", Severity.OK, f"{context.config.etl.path.name}/ holds the crossings of {found} revisions"
        )

    checks = _try(revisions)
    yield from checks
    if checks[-1].severity is Severity.OK:
        yield from _try(crossings)


def _roles(context: Context, seen: Seen) -> Generator[Check, None, Ownership | None]:
    if any(guard is None for guard in seen.guards.values()):
        return None
    try:
        seen, found = context.read_roles()
    except DbsyncError as exc:
        yield _failed(exc)
        return None
    first, second = (seen.guards.get(name) for name in context.names)
    if first is not None and second is not None and first.identity == second.identity:
        yield Check(
            "same-identity",
            Severity.BLOCKER,
            f"{first.name} and {second.name} have one identity: one is a copy",
            "dbsync init --remove, then dbsync init --active NAME",
        )
    if found.active is None or not (found.settled or seen.unreachable):
        yield Check(
            "handover",
            Severity.BLOCKER,
            f"a handover from {found.old} to {found.new} is under way ({found.phase})",
            "dbsync cutover --resume",
        )
    else:
        yield Check("roles", Severity.OK, f"{found.active} is active, {found.idle} is idle, epoch {found.epoch}")
    return found


def _pair(context: Context, active: str, idle: str) -> Iterable[Check]:
    yield from _try(lambda: _revisions(context, active, idle))
    empty = not context.database(idle).catalog().tables
    if empty:
        yield Check(
            "idle-empty",
            Severity.WARNING,
            f"{idle} has no tables yet",
            "dbsync migrate --target idle, then dbsync sync",
        )
        return
    yield from _try(lambda: _lens(context, active))
    yield from _try(lambda: _following(context, active, idle))
    yield from _try(lambda: checks_of_schedule(context, idle))


def _revisions(context: Context, active: str, idle: str) -> Iterable[Check]:
    known = context.migrator.chain()
    for name in (active, idle):
        catalog = context.database(name).catalog()
        if catalog.revision is None and catalog.tables and known:
            yield Check(
                "revision-unknown",
                Severity.WARNING,
                f"{name} has tables and no revision",
                f"dbsync migrate --target {name} --stamp REV",
            )
        elif catalog.revision is not None and catalog.revision not in known:
            yield Check(
                "revision-unknown",
                Severity.BLOCKER,
                f"{name} is at revision {catalog.revision}, which is not in {context.config.migrate.path.name}/",
                "Bring the file of that revision back.",
            )
        else:
            yield Check("revision", Severity.OK, f"{name} is at {catalog.revision or 'no revision'}")


def _lens(context: Context, active: str) -> Iterable[Check]:
    lens = context.lens(active)
    apart = f"{len(lens.path)} revision{'s' * (len(lens.path) > 1)} apart"
    how = apart if lens.path else "of one shape"
    yield Check("lens", Severity.OK, f"{lens.older} and {lens.newer} are {how}; rows cross both ways")
    yield from scanning(context, lens)


def scanning(context: Context, lens: Lens) -> Iterable[Check]:
    """A warning for each table whose query reads whole tables for a single changed key."""
    from dbsync.etl.explain import QUERY_REMEDY, SCAN_REMEDY, questions

    for composition, source in ((lens.forward, lens.older), (lens.reverse, lens.newer)):
        database = context.database(source)
        for table, plan in composition.tables.items():
            found = [] if plan.by_name else [(database.plan(plan.relation).scans, SCAN_REMEDY)]
            found += [(database.asked(one.sql, one.takes).scans, QUERY_REMEDY) for _, one in questions(plan)]
            for scans, remedy in found:
                if scans:
                    yield Check(
                        "crossing-scans",
                        Severity.WARNING,
                        f"{composition.direction}, one changed key of table {table} reads all of {', '.join(scans)}",
                        f"dbsync etl explain {table}{' --reverse' * (source == lens.newer)}; {remedy}",
                    )


def _following(context: Context, active: str, idle: str) -> Iterable[Check]:
    with context.database(idle).view() as view:
        checkpoint = view.checkpoint()
    if checkpoint is None:
        yield Check("never-followed", Severity.WARNING, f"{idle} has never followed {active}", "dbsync sync")
        return
    with context.database(active).view() as view:
        lag = view.lag(checkpoint.position)
    limit = context.config.cutover.max_lag
    said = f"{idle} is {lag.changes} changes and {lag.seconds:.1f} s behind"
    if lag.seconds > limit:
        yield Check("lag", Severity.WARNING, f"{said}, more than max_lag ({limit:g} s)", "dbsync sync")
    else:
        yield Check("lag", Severity.OK, said)


def _router(context: Context, roles: Ownership | None) -> Iterable[Check]:
    if not context.config.routers:
        yield Check(
            "no-router",
            Severity.WARNING,
            "there is no [router]: a cutover moves the databases only",
            "Add [router], or switch the application by other means.",
        )
        return

    def look() -> Iterable[Check]:
        router = context.router
        if router is None or roles is None or roles.active is None:
            return
        yield from router.examine(roles.active)
        if roles.settled and router.hold_present():
            yield Check(
                "orphan-hold",
                Severity.WARNING,
                "the gate's files lie in the proxy's directory, and nothing is held",
                "dbsync cutover --abort",
            )

    yield from _try(look)
