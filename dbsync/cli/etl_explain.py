"""`dbsync etl explain`: how the rows of one table come about, and what reading them costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb

if TYPE_CHECKING:
    from dbsync.etl.explain import Explained


@verb("explain")
@click.argument("table")
@click.option("--reverse", is_flag=True, help="The way back, to the older revision (default: forward).")
def explain(session: Session, table: str, reverse: bool) -> Outcome:
    """Show the query, the keys, the plan and the losses of one table, between the databases as they stand.

    Example: dbsync etl explain customer --reverse
    """
    from dbsync.etl.explain import explained, plan_of, questions

    context = session.context
    active = context.settled().active
    lens = context.lens(str(active))
    source, target = (lens.newer, lens.older) if reverse else (lens.older, lens.newer)
    composition = lens.reverse if reverse else lens.forward
    plan = plan_of(composition, table)
    database = context.database(source)
    read = database.plan(plan.relation)
    asked = [(source_table, database.asked(one.sql, one.takes)) for source_table, one in questions(plan)]
    found = explained(composition, plan, database.catalog(), database.capabilities, read, asked)
    data = found.document() | {"from": source, "to": target, "revisions": list(lens.path)}
    return Outcome(
        data,
        text=lambda paper: _write(paper, found, source, target),
        warnings=["crossing-scans"] if found.notes else [],
        notes=found.notes,
    )


def _write(paper: Paper, found: Explained, source: str, target: str) -> None:
    how = "by column name" if found.by_name else "through crossings"
    paper.line(f"{found.table} of {target} comes out of {source}, {found.direction}, {how} ({found.cardinality}).")
    for name, sql in found.staged:
        _block(paper, f"First a function makes {name}, out of:", sql.splitlines())
    _block(paper, "SQL", found.sql.splitlines())
    _block(paper, "Keys: a change of", [f"{name} touches {rule}" for name, rule in found.keys])
    _block(paper, f"Plan by a list of keys, as {source} says it", found.plan.lines)
    for name, query in found.asked:
        _block(paper, f"Plan of the key query of {name}", query.lines)
    losses = [f"{column}: {why}" for column, why in found.loses.items()]
    policies = [f"{column}: {policy}" for column, policy in found.losing.items()]
    _block(paper, "Loses", losses)
    _block(paper, "What becomes of values that the older shape cannot hold", policies)


def _block(paper: Paper, title: str, lines: object) -> None:
    rows = list(lines) if isinstance(lines, (list, tuple)) else []
    if rows:
        paper.line()
        paper.line(title)
        for row in rows:
            paper.line(f"  {row}")
