"""`dbsync etl check`: judge every crossing, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from dbsync.cli.etl_shapes import Shapes, known_shapes
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.errors import ConfigError
from dbsync.model import Severity

if TYPE_CHECKING:
    from dbsync.cli.wiring import Context
    from dbsync.etl.check import Crossed, Unusable
    from dbsync.etl.compose import TablePlan
    from dbsync.migrate.findings import Finding

WAY = {"up": "forward", "down": "reverse"}


@verb("check")
@click.argument("revision", required=False)
def check(session: Session, revision: str | None) -> Outcome:
    """Judge the crossings of all revisions (or of one), without a database. Exit 4 on an error.

    Example: dbsync etl check
    """
    from dbsync.migrate.plan import resolve

    context = session.context
    only = resolve(context.migrator.chain(), revision)
    shapes = known_shapes(context)
    found = [one for one in findings_of(context, shapes, only) if only in (None, one.revision)]
    errors = [one for one in found if one.severity is Severity.ERROR]
    checked = [only] if only is not None else list(shapes.chain)
    return Outcome(
        {"checked": checked, "findings": [one.document() for one in found]},
        next=_next(context, errors),
        text=lambda paper: _write(paper, found, len(checked)),
        exit_code=4 if errors else 0,
    )


def findings_of(context: Context, shapes: Shapes, only: str | None) -> list[Finding]:
    """Everything that is found, in the chain's order: files that do not load, then crossings, then their queries."""
    from dbsync.etl.check import judge

    pairs, faulty = context.crossing_files()
    broken = {one.revision for one in faulty}
    steps = [step for step in shapes.steps(pairs) if step.revision not in broken]
    judged = judge(steps, context.sketch.capabilities, context.sketch.excluded, only)
    found = [*_broken(faulty), *judged.findings, *shapes.unknown()]
    for crossed in judged.crossed:
        found += _compiled(context, crossed, found)
    order = {revision: place for place, revision in enumerate(shapes.chain)}
    return sorted(dict.fromkeys(found), key=lambda one: order.get(one.revision, -1))


def _broken(faulty: Iterable[Unusable]) -> Iterator[Finding]:
    from dbsync.migrate.findings import Finding

    for one in faulty:
        known = one.revision is not None
        rule, severity = ("broken-crossing", Severity.ERROR) if known else ("crossing-unused", Severity.WARNING)
        yield Finding(one.revision or "", "up", rule, severity, None, one.error.message, one.error.remedy)


def _compiled(context: Context, crossed: Crossed, known: Sequence[Finding]) -> Iterator[Finding]:
    """What the database's own compiler says of each query, but for tables that scan in a single step already."""
    told = {(one.rule, one.direction, one.message) for one in known}
    for table, plan in crossed.composition.tables.items():
        if not plan.by_name:
            for one in _of_table(context, crossed, table, plan):
                if (one.rule, one.direction, one.message) not in told:
                    yield one


def _of_table(context: Context, crossed: Crossed, table: str, plan: TablePlan) -> Iterator[Finding]:
    from dbsync.etl.check import asking, not_compiled, scanning, unkeyed
    from dbsync.etl.explain import questions

    sketch, shape, relation = context.sketch, crossed.source, plan.relation
    try:
        yield from unkeyed(crossed, table, sketch.reads(shape, relation.sql, relation.staged))
        scans = sketch.plan(shape, relation).scans
        if scans:
            yield scanning(crossed, table, scans)
        for source, question in questions(plan):
            scans = sketch.asked(shape, question.sql, question.takes).scans
            if scans:
                yield asking(crossed, table, source, scans)
    except ConfigError as error:
        yield not_compiled(crossed, table, error)


def _next(context: Context, errors: Sequence[Finding]) -> str | None:
    pairs, _ = context.crossing_files()
    bare = (one for one in errors if one.rule == "missing-crossing" and one.revision not in pairs)
    missing = next(bare, None)
    if missing is not None:
        return f"dbsync etl new {missing.revision}"
    return None if errors else "dbsync migrate --target idle"


def _write(paper: Paper, found: Sequence[Finding], revisions: int) -> None:
    for one in found:
        mark = "✗" if one.severity is Severity.ERROR else "!"
        line = f", line {one.line}" if one.line is not None else ""
        paper.line(f"{mark} {one.revision or 'etl'} {WAY[one.direction]}{line}: {one.rule}: {one.message}")
        paper.line(f"    → {one.remedy}")
    errors = sum(one.severity is Severity.ERROR for one in found)
    paper.line(f"{revisions} revisions, {errors} errors, {len(found) - errors} warnings.")
