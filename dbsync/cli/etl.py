"""`dbsync etl`: what happens to the rows between the revisions."""

from __future__ import annotations

from typing import Any

import click

from dbsync.cli.options import VerbGroup
from dbsync.cli.render import Outcome, Paper, told
from dbsync.cli.session import Session, verb


@click.group("etl", cls=VerbGroup)
def etl() -> None:
    """List the crossings."""


@verb("list")
def list_crossings(session: Session) -> Outcome:
    """List the crossings of this installation, and what each reverse one cannot bring back.

    Example: dbsync etl list
    """
    pairs = session.context.pairs
    order = {revision: place for place, revision in enumerate(session.context.migrator.chain())}
    crossings: list[dict[str, Any]] = []
    for revision in sorted(pairs, key=lambda one: order.get(one, len(order))):
        for direction in ("forward", "reverse"):
            crossing = getattr(pairs[revision], direction)
            if crossing is not None:
                crossings.append(_described(revision, direction, crossing))

    def text(paper: Paper) -> None:
        if not crossings:
            paper.line("There are no crossings: every table crosses by column name.")
        paper.table(
            ("revision", "direction", "tables", "loses"),
            [(c["revision"], c["direction"], told(c["tables"]), told(c["loses"])) for c in crossings],
        )

    return Outcome({"jobs": [], "crossings": crossings}, text=text)


def _described(revision: str, direction: str, crossing: Any) -> dict[str, Any]:
    loses = {f"{one.name}.{column}": why for one in crossing.tables for column, why in one.loses.items()}
    return {
        "revision": revision,
        "direction": direction,
        "tables": [one.name for one in crossing.tables],
        "loses": loses,
    }


etl.add_command(list_crossings)
