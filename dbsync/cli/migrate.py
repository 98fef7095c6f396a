"""`dbsync migrate`: change the shape of one database, up or down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context
from dbsync.cutover.state import Case, Ownership
from dbsync.errors import Unavailable
from dbsync.model import Role
from dbsync.ports import Database

if TYPE_CHECKING:
    from dbsync.migrate.run import Migrated


@verb("migrate", writes=True)
@click.option("--target", required=True, metavar="idle|active|NAME", help="Which database.")
@click.option("--to", metavar="REV", help="Up to this revision (default: head), or down to it (default: one step).")
@click.option("--down", is_flag=True, help="Down instead of up.")
@click.option("--stamp", metavar="REV", help="Adopt the database at a revision; nothing runs.")
@click.option("--dry-run", is_flag=True, help="Say what would run.")
@click.option("--sql", is_flag=True, help="Print the script instead of running it.")
@click.option("--from", "start", metavar="REV", help="With --sql: where the script begins (default: base).")
@click.option("--allow", multiple=True, metavar="CODE", help="Let a finding pass.")
def migrate(
    session: Session,
    target: str,
    to: str | None,
    down: bool,
    stamp: str | None,
    dry_run: bool,
    sql: bool,
    start: str | None,
    allow: tuple[str, ...],
) -> Outcome:
    """Bring one database to a revision, each revision in a transaction of its own.

    Example: dbsync migrate --target idle
    """
    _refuse_together(stamp=stamp, sql=sql, dry_run=dry_run, down=down, to=to, start=start)
    context = session.context
    if sql:
        return _script(context, target, to, down, start)
    name, roles, other = _side(context, target)
    database = context.database(name)
    role = Role.ACTIVE if roles.active == name else Role.IDLE
    from dbsync.migrate.run import migrate as run
    from dbsync.migrate.run import stamp as adopt

    if stamp is not None:
        done = adopt(database, other, role, roles.epoch, context.migrator, stamp, context.clock)
    else:
        done = run(
            database,
            other,
            role,
            roles.epoch,
            context.migrator,
            context.pairs,
            to,
            down,
            frozenset(allow),
            dry_run,
            context.clock,
            context.report,
        )
    return Outcome(
        done.document(), next=done.next_command, text=lambda paper: _write(paper, done, stamped=stamp is not None)
    )


def _refuse_together(
    stamp: str | None, sql: bool, dry_run: bool, down: bool, to: str | None, start: str | None
) -> None:
    if stamp is not None and (sql or dry_run or down or to is not None):
        raise click.UsageError("--stamp goes with --target alone.")
    if sql and dry_run:
        raise click.UsageError("--sql and --dry-run do not go together.")
    if start is not None and not sql:
        raise click.UsageError("--from goes with --sql.")


def _side(context: Context, target: str) -> tuple[str, Ownership, Database | None]:
    """The environment to migrate, the roles, and the other database where it answers.

    Raises as `Context.roles`, but for the other side's silence; Refused (`cutover-running`), ConfigError.
    """
    if target not in ("idle", "active"):
        context.config.environment(target)
    seen, roles = context.read_roles()
    if roles.active is None or roles.case not in (Case.FOLLOWING, Case.ALONE):
        roles = context.settled()
    name = str({"idle": roles.idle, "active": roles.active}.get(target, target))
    if name in seen.unreachable:
        raise seen.unreachable[name]
    other = context.config.other(name)
    return name, roles, None if other in seen.unreachable else context.database(other)


def _script(context: Context, target: str, to: str | None, down: bool, start: str | None) -> Outcome:
    """The script alone. A name needs no server."""
    from dbsync.migrate.plan import make_plan, resolve
    from dbsync.migrate.run import script

    name = target
    if target in ("idle", "active"):
        try:
            name = context.resolve(target)
        except Unavailable as exc:
            exc.remedy = f"Name the database: --target {context.names[0]} or {context.names[1]} needs no server."
            raise
        start = start if start is not None else context.database(name).catalog().revision
    environment = context.config.environment(name)
    chain = context.migrator.chain()
    begin = resolve(chain, "head" if start is None and down else start)
    plan = make_plan(chain, begin, to, down, name)
    text = script(context.migrator, environment.dialect, begin or "base", to, down)
    data: dict[str, Any] = {
        "target": name,
        "from": plan.start,
        "to": plan.goal,
        "ran": [],
        "findings": [],
        "sql": text,
    }
    return Outcome(data, bare=text if text.endswith("\n") or not text else text + "\n")


def _write(paper: Paper, done: Migrated, stamped: bool) -> None:
    for finding in done.findings:
        paper.line(f"! {finding.rule}: {finding.message}")
        paper.line(f"    → {finding.remedy}")
    way = f"{done.from_ or 'base'} → {done.to or 'base'}"
    if stamped:
        paper.line(f"{done.target} is taken to stand at {done.to or 'base'}; nothing ran.")
    elif not done.ran:
        paper.line(f"{done.target} stands at {done.to or 'base'} already; nothing ran.")
    else:
        paper.line(f"{done.target}: {way}" + (" (would run)" if done.dry_run else ""))
        for revision in done.ran:
            paper.line(f"  {'·' if done.dry_run else '✓'} {revision}")
