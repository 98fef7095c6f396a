"""`dbsync verify`: prove that the two databases say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dbsync.cli.options import tables_option
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.standing import receipt_of
from dbsync.model import TableResult

if TYPE_CHECKING:
    from dbsync.verify.run import VerifyReport

SHOWN_KEYS = 20


@verb("verify", writes=True)
@tables_option("Only these tables (gives no receipt).")
@click.option("--repair", is_flag=True, help="Put right what differs, as an ordinary change would (gives no receipt).")
def verify(session: Session, tables: tuple[str, ...] | None, repair: bool) -> Outcome:
    """Compare newer with forward(older) while both are in use. Exit 4 if they differ; a receipt if they do not.

    Example: dbsync verify
    """
    from dbsync.verify.run import verify as run

    context = session.context
    roles = context.settled()
    active, idle = context.database(str(roles.active)), context.database(str(roles.idle))
    lens = context.lens(active.name)
    found = run(active, idle, lens, roles.epoch, context.clock, context.report, tables=tables, repair=repair)
    receipt = None
    if found.receipt is not None:
        receipt = receipt_of(found.receipt, context.clock.now()) | {"valid": True}
    data: dict[str, Any] = {"equal": found.equal, "tables": [describe(one) for one in found.tables], "receipt": receipt}
    if repair:
        data["repaired"] = len(found.repaired)
    return Outcome(
        data,
        next=found.next_command,
        text=lambda paper: _write(paper, found),
        warnings=[note.partition(":")[0] for note in found.notes],
        notes=[_said(note) for note in found.notes],
        exit_code=0 if found.equal else 4,
    )


def describe(one: TableResult) -> dict[str, Any]:
    """One table's result as scripts read it: the counts, and at most 20 keys."""
    return {
        "name": one.name,
        "rows": one.rows,
        "missing": one.missing,
        "extra": one.extra,
        "different": one.different,
        "lossy": one.lossy,
        "losses": dict(one.losses),
        "keys": [{"key": list(m.key), "kind": m.kind.value} for m in one.keys[:SHOWN_KEYS]],
    }


def _said(note: str) -> str:
    code, _, detail = note.partition(": ")
    return {
        "partial": "Only some tables were compared, so there is no receipt.",
        "repairing": "A run that repairs gives no receipt.",
        "table-stale": f"{detail} has to be put again first, so there is no receipt.",
        "no-primary-key": f"{detail} has no primary key and was not compared, so there is no receipt.",
        "beyond-repair": f"{detail} differs still after its rows were crossed again:"
        " forward of what the older side holds does not give them. Correct its crossing.",
        "guard-changed": f"Triggers of dbsync's are missing or altered in {detail}, so there is no receipt.",
        "changed-meanwhile": f"The {detail} changed meanwhile, so there is no receipt.",
    }.get(code, note)


def _write(paper: Paper, found: VerifyReport) -> None:
    paper.table(
        ("table", "rows", "missing", "extra", "different", "lossy"),
        [(t.name, f"{t.rows:,}", t.missing, t.extra, t.different, t.lossy) for t in found.tables],
    )
    for one in found.tables:
        for mismatch in one.keys[:SHOWN_KEYS]:
            key = ", ".join(cell.hex() if isinstance(cell, bytes) else str(cell) for cell in mismatch.key)
            paper.line(f"  {one.name} {key}: {mismatch.kind.value}")
    if found.repaired:
        paper.line(f"Put right: {len(found.repaired)} rows.")
    rows = sum(one.rows for one in found.tables)
    paper.line(f"Equal: {rows:,} rows compared." if found.equal else "✗ The two sides differ.")
    if found.receipt is not None:
        paper.line(f"Receipt {found.receipt['id']}.")
