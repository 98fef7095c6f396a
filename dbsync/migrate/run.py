"""Bring one database to a revision: each revision judged on a copy, then run in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol, cast

from dbsync.errors import Blocker, ConfigError, DbsyncError, Refused
from dbsync.migrate.compare import differences
from dbsync.migrate.findings import (
    KEPT_VALUES,
    MISSING_CROSSING,
    Finding,
    kept_names,
    missing_crossings,
    not_rehearsed,
    unfinished,
)
from dbsync.migrate.plan import Plan, make_plan, resolve, standing, still_to_run
from dbsync.migrate.shape import from_document, to_document
from dbsync.model import Catalog, Fact, Report, Role, Severity, quiet
from dbsync.ports import Clock, Database, Migrator

LOCK_SECONDS = 5.0
"""How long a migrator waits for another one to end."""

DIFFERENCES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a migration (or a stamp) did: from one revision to another (None: base), and by which.

    In a dry run nothing was done, and `ran` is what would run.
    """

    target: str
    role: Role
    from_: str | None
    to: str | None
    ran: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    dry_run: bool = False

    @property
    def next_command(self) -> str:
        """The command to run next."""
        if self.dry_run:
            return f"dbsync migrate --target {self.target}" if self.ran else "dbsync status"
        return "dbsync sync" if self.role is Role.IDLE else "dbsync status"

    def document(self) -> dict[str, Any]:
        """It as plain JSON, without `next`."""
        return {
            "target": self.target,
            "from": self.from_,
            "to": self.to,
            "ran": list(self.ran),
            "findings": [finding.document() for finding in self.findings],
            "dry_run": self.dry_run,
        }


class Copies(Protocol):
    """What a rehearsal asks of a database beyond the socket."""

    def shape_copy(self) -> AbstractContextManager[tuple[Any, Callable[[], Catalog]]]:
        """A private copy of the shape without rows: a connection to it, and what gives its catalog."""
        ...


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What revisions did to a copy without rows: shapes before and after each, and the one that failed, and why."""

    start: Catalog
    steps: tuple[tuple[str, Catalog, Catalog], ...] = ()
    failed: tuple[str, str] | None = None

    def at(self, revision: str | None) -> Catalog:
        """The shape at a revision, or the last one that was reached."""
        reached = [after for done, _, after in self.steps if done == revision]
        return reached[0] if reached else self.steps[-1][2] if self.steps else self.start


def migrate(
    target: Database,
    other: Database | None,
    role: Role,
    epoch: int,
    migrator: Migrator,
    pairs: Mapping[str, Any],
    to: str | None,
    down: bool,
    allow: frozenset[str],
    dry_run: bool,
    clock: Clock,
    report: Report = quiet,
) -> Migrated:
    """Run what lies between where `target` stands and `to` (None: head; down: one step). Gives what was done.

    `other` is the other database, None when it does not answer; `allow` holds codes of findings that do not refuse.
    Raises Refused: `missing-crossing`, `kept-values`, `schema-missing`, `wrong-direction`, `migrate-running`,
    `revision-moved`, `revision-failed` (the database stands at the revision before; `changed` when others had run);
    ConfigError.
    """
    _check_rules(allow)
    chain = migrator.chain()
    with nullcontext() if dry_run else target.lock("migrate", LOCK_SECONDS):
        here = target.catalog()
        plan = make_plan(chain, here.revision, to, down, target.name)
        judged = not down and (bool(plan.revisions) or to is None)
        findings = _judge(target, other, here, migrator, pairs, chain, plan) if judged else ()
        _refuse(target.name, plan, findings, allow)
        if role is Role.ACTIVE and not down and KEPT_VALUES not in allow:
            _refuse_kept(target, plan, pairs)
        if dry_run:
            return Migrated(target.name, role, plan.start, plan.goal, plan.revisions, findings, True)
        ran = _Runner(target, role, epoch, migrator, chain, plan, clock, report).run()
    return Migrated(target.name, role, plan.start, plan.goal, ran, findings)


def stamp(
    target: Database,
    other: Database | None,
    role: Role,
    epoch: int,
    migrator: Migrator,
    revision: str,
    clock: Clock,
) -> Migrated:
    """Adopt a database at a revision: nothing runs, and its shape becomes the known one of that revision.

    Raises Refused (`catalog-differs`) when another shape of that revision is known, ConfigError (`unknown-revision`).
    """
    wanted = resolve(migrator.chain(), revision)
    with target.lock("migrate", LOCK_SECONDS):
        here = target.catalog()
        for known in _known_shapes(target, other, wanted):
            _refuse_difference(target.name, wanted, differences(known, here))
        with target.migrating(role, epoch) as connection:
            migrator.stamp(connection, wanted)
        _remember(target)
        target.record(Fact("stamped", clock.now(), epoch, data={"from": here.revision, "to": wanted}))
    return Migrated(target.name, role, here.revision, wanted, ())


def script(migrator: Migrator, dialect: str, start: str | None, to: str | None, down: bool) -> str:
    """The SQL of the revisions from `start` (None: base; down: head) to `to` (None: head; down: one step).

    Needs no server. Raises as Migrator.script, ConfigError (`unknown-revision`), Refused (`wrong-direction`).
    """
    chain = migrator.chain()
    begin = resolve(chain, "head" if start is None and down else start)
    plan = make_plan(chain, begin, to, down, "the script")
    return migrator.script(dialect, plan.start, plan.goal, down) if plan.revisions else ""


def rehearse(target: Database | Copies, migrator: Migrator, revisions: Sequence[str]) -> Rehearsal:
    """Run revisions upwards on a copy of the target's shape that has no rows. Nothing of the target changes."""
    with cast("Copies", target).shape_copy() as (connection, catalog):
        start = before = catalog()
        steps: list[tuple[str, Catalog, Catalog]] = []
        for revision in revisions:
            try:
                migrator.run(connection, revision, False)
            except Refused as refused:
                return Rehearsal(start, tuple(steps), (revision, refused.message))
            after = catalog()
            steps.append((revision, before, after))
            before = after
    return Rehearsal(start, tuple(steps))


# --- judging ---------------------------------------------------------------------------------------


def _check_rules(allow: frozenset[str]) -> None:
    unknown = sorted(allow - {MISSING_CROSSING, KEPT_VALUES})
    if unknown:
        raise ConfigError(
            f"there is no finding {unknown[0]!r} that could be allowed",
            code="unknown-rule",
            remedy=f"one of {MISSING_CROSSING}, {KEPT_VALUES}",
        )


def _refuse_kept(target: Database, plan: Plan, pairs: Mapping[str, Any]) -> None:
    """Refused (`kept-values`) where the live side keeps values of the shape that it is about to get.

    The revision computes them anew out of what the older shape holds; they come back only by going over.
    """
    names = {name for revision in plan.revisions for name in kept_names(pairs.get(revision), revision)}
    with target.view() as view:
        kept = {
            f"{table.rpartition('@')[0]}.{column}": count
            for (table, column), count in view.kept().items()
            if (table.casefold(), column.casefold()) in names
        }
    if kept:
        told = ", ".join(f"{count} of {name}" for name, count in kept.items())
        raise Refused(
            f"{target.name} keeps values that its shape cannot hold ({told}); the revisions would compute others",
            code="kept-values",
            remedy=f"`dbsync cutover` first, then migrate {target.name}; or give them up with --allow {KEPT_VALUES}",
            next_command="dbsync cutover",
        )


def _judge(
    target: Database,
    other: Database | None,
    here: Catalog,
    migrator: Migrator,
    pairs: Mapping[str, Any],
    chain: Sequence[str],
    plan: Plan,
) -> tuple[Finding, ...]:
    """What stands against the plan. Raises Refused (`schema-missing`)."""
    there = other.catalog() if other is not None else None
    rehearsal = rehearse(target, migrator, plan.revisions)
    empty = not here.tables
    if empty and other is not None and there is not None:
        _refuse_missing_schema(target.name, other.name, there, rehearsal)
    # Rows cross only what lies between the two databases: what the other one has behind it needs no crossing.
    behind = 0
    if there is not None and there.revision in chain:
        behind = standing(chain, there.revision, target.name)
    elif empty and there is not None and not there.tables:
        behind = len(chain)
    findings: list[Finding] = []
    for revision, before, after in rehearsal.steps:
        if chain.index(revision) >= behind:
            findings += missing_crossings(before, after, revision, pairs.get(revision))
            findings += unfinished(revision, pairs.get(revision))
    if rehearsal.failed is not None:
        findings.append(not_rehearsed(*rehearsal.failed))
    return tuple(findings)


def _refuse_missing_schema(name: str, other: str, there: Catalog, rehearsal: Rehearsal) -> None:
    reached = rehearsal.at(there.revision)
    if not there.tables or any(reached.table(table) is not None for table in there.tables):
        return
    why = f" ({rehearsal.failed[1]})" if rehearsal.failed is not None else ""
    adopt = "" if there.revision else f"`dbsync migrate --target {other} --stamp REV`, "
    if not reached.revision and not rehearsal.steps and not there.revision:
        adopt = f"write a first revision that stands for the shape of {other} (it may do nothing), {adopt}"
    raise Refused(
        f"{name} is empty, and the revisions up to {there.revision or 'head'} create none of the tables of"
        f" {other}{why}",
        code="schema-missing",
        remedy=f"{adopt}copy the schema of {other} into {name}, then"
        f" `dbsync migrate --target {name} --stamp {there.revision or 'REV'}`",
    )


def _refuse(name: str, plan: Plan, findings: Sequence[Finding], allow: frozenset[str]) -> None:
    errors = [f for f in findings if f.severity is Severity.ERROR and f.direction == "up" and f.rule not in allow]
    if not errors:
        return
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    allowed = errors[0].rule == MISSING_CROSSING
    raise Refused(
        f"{name} is not migrated to {plan.goal}: {errors[0].message}{more}",
        code=errors[0].rule,
        remedy=errors[0].remedy + (f"; or accept it with --allow {MISSING_CROSSING}" if allowed else ""),
        blockers=[Blocker(f.rule, f.message, f.remedy) for f in errors],
    )


# --- running ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Runner:
    """One plan on its way: every revision is planned again under the lock that it runs under."""

    target: Database
    role: Role
    epoch: int
    migrator: Migrator
    chain: Sequence[str]
    plan: Plan
    clock: Clock
    report: Report

    def run(self) -> tuple[str, ...]:
        """Gives what this one ran; where another migrator was faster that is less than the plan."""
        ran: list[str] = []
        try:
            _remember(self.target)
            while self._left():
                self.report(f"migrate {self.target.name}", len(ran), len(self.plan.revisions))
                done = self._step()
                if done is not None:
                    ran.append(done)
                    self._keep(done)
            self.report(f"migrate {self.target.name}", len(ran), len(ran))
        except DbsyncError as error:
            error.changed = error.changed or bool(ran)
            raise
        return tuple(ran)

    def _left(self) -> tuple[str, ...]:
        return still_to_run(self.plan, self.chain, self.target.catalog().revision, self.target.name)

    def _step(self) -> str | None:
        """Run the next revision in a transaction of its own. Gives None when another migrator has done all of it."""
        tried: str | None = None
        try:
            with self.target.migrating(self.role, self.epoch) as connection:
                left = self._left()
                if not left:
                    return None
                tried = left[0]
                self.migrator.run(connection, tried, self.plan.down)
        except Refused as refused:
            if tried is not None:
                # The refusal is what matters to whoever asked, even where it cannot be written down.
                with suppress(DbsyncError):
                    self._record("revision-failed", {"revision": tried, "found": refused.message})
            raise
        return tried

    def _keep(self, revision: str) -> None:
        _remember(self.target)
        self._record("migrated", {"revision": revision, "to": self.plan.after(revision)})

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        direction = "down" if self.plan.down else "up"
        self.target.record(Fact(kind, self.clock.now(), self.epoch, data={**data, "direction": direction}))


def _remember(target: Database) -> None:
    """Store the shape of the revision that a database stands at: crossings pass through it later."""
    catalog = target.catalog()
    if catalog.revision is None:
        return
    document = to_document(catalog)
    with target.view() as view:
        known = view.load("shape", catalog.revision)
    if known != document:
        target.save("shape", catalog.revision, document)


def _known_shapes(target: Database, other: Database | None, revision: str | None) -> Iterator[Catalog]:
    """Every shape that dbsync knows of a revision: stored in either database, or what the other one is at it."""
    if revision is None:
        return
    for database in (target, other):
        if database is None:
            continue
        with database.view() as view:
            document = view.load("shape", revision)
        if document is not None:
            yield from_document(document)
    if other is not None:
        there = other.catalog()
        if there.revision == revision:
            yield there


def _refuse_difference(name: str, revision: str | None, found: Sequence[str]) -> None:
    if not found:
        return
    shown = "; ".join(found[:DIFFERENCES_SHOWN])
    more = f"; and {len(found) - DIFFERENCES_SHOWN} more" if len(found) > DIFFERENCES_SHOWN else ""
    remedy = "stamp the revision whose shape this is, or bring the tables into the shape that is known"
    raise Refused(
        f"{name} does not have the shape that is known of revision {revision}: {shown}{more}",
        code="catalog-differs",
        remedy=remedy,
        blockers=[Blocker("catalog-differs", one, remedy) for one in found],
    )
