"""`dbsync history`: the journal, for people; with `--json` the evidence."""

from __future__ import annotations

import click

from dbsync.cli.render import Outcome, Paper, told
from dbsync.cli.session import Session, verb
from dbsync.errors import DbsyncError, Unavailable
from dbsync.model import Fact

DEFAULT = 20


@verb("history")
@click.argument("count", metavar="[N]", type=click.IntRange(min=1), default=DEFAULT)
def history(session: Session, count: int) -> Outcome:
    """Tell what has happened: the newest N entries (default 20), oldest first.

    Example: dbsync history 50
    """
    context = session.context
    seen = context.look()
    if not any(seen.guards.values()):
        raise context.not_initialised([name for name, guard in seen.guards.items() if guard is None])
    facts: list[tuple[str, Fact]] = []
    unreachable = dict(seen.unreachable)
    for name, guard in seen.guards.items():
        if guard is None:
            continue
        try:
            facts += [(name, fact) for fact in context.database(name).journal(count)]
        except Unavailable as exc:
            unreachable[name] = exc
    facts = sorted(facts, key=lambda one: one[1].at)[-count:]
    data: dict[str, object] = {"entries": [_entry(name, fact) for name, fact in facts]}
    if unreachable:
        data["unreachable"] = list(unreachable)

    def text(paper: Paper) -> None:
        _write(paper, facts, unreachable)

    return Outcome(data, text=text)


def _entry(name: str, fact: Fact) -> dict[str, object]:
    return {
        "at": fact.at.isoformat(),
        "kind": fact.kind,
        "epoch": fact.epoch,
        "owner": fact.owner,
        "database": fact.database or name,
        "data": dict(fact.data),
    }


def _write(paper: Paper, facts: list[tuple[str, Fact]], unreachable: dict[str, DbsyncError]) -> None:
    if not facts:
        paper.line("Nothing has happened yet.")
    rows = [
        (f"{fact.at:%Y-%m-%d %H:%M:%S}", fact.database or name, fact.epoch, fact.kind, told(fact.data))
        for name, fact in facts
    ]
    paper.table(("when (UTC)", "database", "epoch", "what", "details"), rows)
    for name, exc in unreachable.items():
        paper.line(f"! {name} does not answer: {exc.message}")
