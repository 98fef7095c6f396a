"""`dbsync cutover` and `dbsync rollback`: one road, walked both ways."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dbsync.cli.render import Outcome, Paper, seconds
from dbsync.cli.session import Session, verb
from dbsync.errors import ConfigError, Refused

if TYPE_CHECKING:
    from dbsync.cutover.resolve import Resolved
    from dbsync.cutover.run import Handed

WAIT_EXTRA_SECONDS = 30.0


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--dry-run", is_flag=True, help="Print the steps and what stands in the way; change nothing."),
            click.option("--rehearse", is_flag=True, help="Everything up to the cede, then undone; reports the pause."),
            click.option("--resume", is_flag=True, help="Finish (or undo) a handover whose process died."),
            click.option("--abort", is_flag=True, help="Undo a handover that has not ceded."),
            click.option(
                "--abandon", metavar="NAME", help="NAME will never come back: the side that ceded lives again."
            ),
            click.option("--accept-loss", is_flag=True, help="Go on although values would be lost."),
            click.option("--bake", metavar="D", help="Watch this long afterwards; go back if the probe fails."),
            click.option("--yes", is_flag=True, help="Do not ask."),
        )
    ):
        command = option(command)
    return command


@verb("cutover", writes=True)
@_options
def cutover(session: Session, **options: Any) -> Outcome:
    """Make the idle database the active one, without a lost write and without a failed request.

    Example: dbsync cutover --dry-run
    """
    return _run(session, "cutover", **options)


@verb("rollback", writes=True)
@_options
def rollback(session: Session, **options: Any) -> Outcome:
    """Go back by the same road: the side that was active before the last cutover is made live again.

    Example: dbsync rollback
    """
    return _run(session, "rollback", **options)


def _run(
    session: Session,
    name: str,
    dry_run: bool,
    rehearse: bool,
    resume: bool,
    abort: bool,
    abandon: str | None,
    accept_loss: bool,
    bake: str | None,
    yes: bool,
) -> Outcome:
    chosen = [dry_run, rehearse, resume, abort, abandon is not None]
    if sum(map(bool, chosen)) > 1:
        raise click.UsageError("--dry-run, --rehearse, --resume, --abort and --abandon do not go together.")
    if resume or abort:
        return _resolve(session, "resume" if resume else "abort")
    if abandon is not None:
        return _abandon(session, abandon, yes)
    return _walk(session, name, dry_run, rehearse, accept_loss, bake, yes)


def _walk(
    session: Session, name: str, dry_run: bool, rehearse: bool, accept_loss: bool, bake: str | None, yes: bool
) -> Outcome:
    from dbsync.cli.world import coordinator_world, new_owner
    from dbsync.config import duration
    from dbsync.cutover.bake import bake as watch
    from dbsync.cutover.run import hand_over

    baking = duration(bake, "--bake") if bake is not None else session.config.cutover.bake
    if accept_loss and not dry_run:
        session.confirm("Values that the other shape cannot hold will be lost.", yes)
    elif not (dry_run or rehearse or yes) and session.interactive:
        session.confirm(f"Begin the {name} now?", yes)
    world = coordinator_world(session, new_owner(), accept_loss)
    if world.router is not None:
        # A file that cannot be used is bad input and a proxy that does not answer is unavailable, as everywhere else;
        # what remains for the gates is what both say.
        world.router.written()
        world.router.routes()
    done = hand_over(world, name, dry_run, rehearse)
    if baking > 0 and not (dry_run or rehearse):
        back = watch(world, done, baking, lambda: coordinator_world(session, new_owner(), accept_loss))
        if back is not None:
            return _outcome(back, "rollback", ["rolled-back"])
    return _outcome(done, name)


def _resolve(session: Session, want: str) -> Outcome:
    from dbsync.cli.world import new_owner, resolver_world
    from dbsync.cutover.resolve import resolve

    _await_custodian(session)
    world = resolver_world(session, new_owner())
    patience = session.config.cutover.max_pause + WAIT_EXTRA_SECONDS
    with session.context.database(session.context.names[0]).lock("resolve", patience):
        return _resolved(resolve(world, want))


def _await_custodian(session: Session) -> None:
    """A custodian that runs follows the same table: let it."""
    from dbsync.cli.world import owner_lives, read_record, record_path

    give_up = time.monotonic() + session.config.cutover.max_pause + WAIT_EXTRA_SECONDS
    path = record_path(session.config)
    while (record := read_record(path)) is not None and time.monotonic() < give_up:
        whose = "its coordinator runs" if owner_lives(str(record.get("owner", ""))) else "its coordinator is gone"
        session.report(f"a handover is under way; {whose}", 0, None)
        session.context.clock.sleep(0.1)


def _abandon(session: Session, name: str, yes: bool) -> Outcome:
    from dbsync.cli.world import new_owner, resolver_world
    from dbsync.cutover.resolve import abandon

    if name not in session.context.names:
        raise ConfigError(
            f"There is no database {name!r}.",
            code="unknown-database",
            remedy=f"Name {' or '.join(session.context.names)}.",
        )
    missing = [other for other, guard in session.context.look().guards.items() if guard is None]
    if missing:
        raise session.context.not_initialised(missing)
    if not yes and not session.interactive:
        session.confirm(f"{name} is given up for good.", yes)
    if session.interactive and not yes and click.prompt(f"Type {name} to give it up for good", err=True) != name:
        raise Refused("It was not confirmed.", code="not-confirmed", remedy="Type its name, or add --yes.")
    return _resolved(abandon(resolver_world(session, new_owner()), name))


def _resolved(done: Resolved) -> Outcome:
    said = {
        "nothing": "There is nothing to resume and nothing to abort.",
        "aborted": f"The handover was undone: {done.active} is live.",
        "resumed": f"The handover was finished: {done.active} is live.",
    }[done.outcome]
    data = {
        "from": done.old,
        "to": done.new,
        "epoch": done.epoch,
        "pause_ms": None,
        "predicted_pause_ms": None,
        "held": {"requests": 0, "longest_ms": 0.0},
        "steps": [],
        "route_confirmed": done.route_confirmed,
        "outcome": done.outcome,
        "active": done.active,
        "message": said,
    }
    follow = "dbsync cutover" if done.outcome == "aborted" else "dbsync sync" if done.outcome == "resumed" else None
    return Outcome(data, next=follow or "dbsync status", text=lambda paper: paper.line(said))


def _outcome(done: Handed, name: str, warnings: list[str] | None = None) -> Outcome:
    data: dict[str, Any] = {
        "from": done.from_,
        "to": done.to,
        "epoch": done.epoch,
        "pause_ms": done.pause_ms,
        "predicted_pause_ms": done.predicted_pause_ms,
        "held": done.held,
        "steps": done.steps,
        "route_confirmed": done.route_confirmed,
        "losses": [loss.document() for loss in done.losses],
        "loses": done.loses,
        "dry_run": done.dry_run,
        "rehearsed": done.rehearsed,
    }
    follow = f"dbsync {name}" if done.dry_run or done.rehearsed else "dbsync sync"
    return Outcome(
        data, next=follow, text=lambda paper: _write(paper, done, name), warnings=[*done.warnings, *(warnings or [])]
    )


def _write(paper: Paper, done: Handed, name: str) -> None:
    if done.dry_run:
        paper.line(f"{name} from {done.from_} to {done.to} would take these steps; nothing was changed:")
        paper.table(("step", "what happens", "undo"), [(s.name, s.says, _undo(s.undo)) for s in done.plan])
        if done.predicted_pause_ms is not None:
            paper.line(f"Writes would wait about {seconds(done.predicted_pause_ms / 1000)}.")
        if done.losses:
            paper.line("What a way back costs (values that the older shape does not give back):")
            rows = [(f"{x.table}.{x.column}", f"{x.rows:,}", x.policy, x.why) for x in done.losses]
            paper.table(("column", "rows", "policy", "why"), rows)
        for one in done.loses:
            paper.line(f"The way back cannot bring back {one['table']}.{one['column']}: {one['reason']}.")
        return
    paper.table(("step", "ms"), [(step["name"], f"{step['ms']:.1f}") for step in done.steps])
    if done.rehearsed:
        paper.line(f"Rehearsed and undone: {done.from_} is live as before.")
    else:
        paper.line(f"{done.to} is live at epoch {done.epoch}; {done.from_} follows.")
    if done.pause_ms is not None:
        met = "were refused for" if "no-router" in done.warnings else "waited"
        held = "" if "no-router" in done.warnings else f" at most; {done.held['requests']} were held"
        paper.line(f"Writes {met} {seconds(done.pause_ms / 1000)}{held}.")
    if done.route_confirmed:
        paper.line(f"Confirmed by {', '.join(done.route_confirmed)}.")


def _undo(text: str | None) -> str:
    return "none: only forward" if text is None else text or "–"
