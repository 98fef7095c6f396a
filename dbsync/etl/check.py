"""Judging crossings without a database: every finding, revision by revision and over the whole path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlglot import exp

from dbsync.errors import ConfigError, DbsyncError
from dbsync.etl.compose import Composition, compose
from dbsync.etl.crossing import Crossing, Pair, TableCrossing
from dbsync.etl.explain import QUERY_REMEDY, SCAN_REMEDY
from dbsync.etl.fits import lost, misfit, type_of
from dbsync.etl.past import Way, check_askable, looks_back
from dbsync.etl.query import Query, Speech, Where, parse, speech
from dbsync.migrate.findings import Finding, missing_crossings, named_tables
from dbsync.model import Capabilities, Catalog, Column, Direction, Severity, Table

SAID = {Direction.FORWARD: "up", Direction.REVERSE: "down"}
"""A finding's direction: that of the revision, as in every finding on one."""

Noted = list[tuple[Where, ConfigError]]


class Unusable(Protocol):
    """A crossing's file that cannot be used."""

    @property
    def revision(self) -> str | None:
        """Whose crossing it is (None: no revision is called so)."""
        ...

    @property
    def error(self) -> ConfigError:
        """Why."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One revision: its shape before and after, and the crossing of its file."""

    revision: str
    before: Catalog
    after: Catalog
    pair: Pair | None


@dataclass(frozen=True, slots=True)
class Crossed:
    """One direction over one revision or over the whole path, composed as far as that could be done."""

    revision: str
    direction: Direction
    source: Catalog
    composition: Composition
    pair: Any


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and the compositions that a database can now be asked about."""

    findings: tuple[Finding, ...]
    crossed: tuple[Crossed, ...]


@dataclass(frozen=True, slots=True)
class _NoFile:
    path: str = ""
    forward: Crossing | None = None
    reverse: Crossing | None = None
    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)


def judge(
    steps: Sequence[Step], capabilities: Capabilities, excluded: frozenset[str] = frozenset(), only: str | None = None
) -> Judgement:
    """Every finding on the crossings of these revisions (with `only`: of that one), given in the chain's order."""
    findings: list[Finding] = []
    crossed: list[Crossed] = []
    for step in steps:
        if only in (None, step.revision):
            findings += missing_crossings(step.before, step.after, step.revision, step.pair)
            ways = [_Way(step, direction, capabilities, excluded) for direction in Direction]
            found = [one for way in ways for one in way.findings()]
            made = [one for way in ways for one in way.crossed]
            crossed += made
            findings += found
            if not any(one.severity is Severity.ERROR for one in found):
                findings += _unaskable([step], made, capabilities, excluded)
    if only is None:
        findings += _whole_path(steps, capabilities, excluded, findings, crossed)
    return Judgement(tuple(findings), tuple(crossed))


def not_compiled(crossed: Crossed, table: str, error: ConfigError) -> Finding:
    """The finding for a query that the database itself does not take."""
    code = error.code if error.code != ConfigError.default_code else "broken-crossing"
    found = f"table {table} does not compile: {error.message}"
    return _finding(crossed, table, code, Severity.ERROR, found, error.remedy or "correct the SELECT")


def unkeyed(crossed: Crossed, table: str, reads: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """The findings for what a compiled query reads though no key says so."""
    known = {name.casefold() for name in crossed.composition.tables[table].sources}
    for name in sorted({name for name, _ in reads}):
        if name.casefold() not in known:
            found = f"table {table} reads {name}, which does not stand in key"
            remedy = "say in key how its changes touch the target's rows"
            yield _finding(crossed, table, "crossing-key", Severity.ERROR, found, remedy)


def scanning(crossed: Crossed, table: str, scans: Sequence[str]) -> Finding:
    """The finding for a query that reads whole tables however few keys it is given."""
    found = f"for one changed key of table {table} all of {', '.join(scans)} is read"
    return _finding(crossed, table, "crossing-scans", Severity.WARNING, found, SCAN_REMEDY)


def asking(crossed: Crossed, table: str, source: str, scans: Sequence[str]) -> Finding:
    """The finding for a key query that reads whole tables however few keys it is asked about."""
    found = f"the key query of {source} for table {table} reads all of {', '.join(scans)} for one changed key"
    return _finding(crossed, table, "crossing-scans", Severity.WARNING, found, QUERY_REMEDY)


@dataclass
class _Way:
    """One revision in one direction."""

    step: Step
    direction: Direction
    capabilities: Capabilities
    excluded: frozenset[str]
    crossed: list[Crossed] = field(default_factory=list)

    def findings(self) -> list[Finding]:
        """Everything that is found; `crossed` has the composition afterwards."""
        step, direction = self.step, self.direction
        pair = step.pair or _NoFile()
        noted: Noted = []
        composition = _composed([step], direction, self.capabilities, self.excluded, noted, pair)
        source, target = (step.before, step.after) if direction is Direction.FORWARD else (step.after, step.before)
        made = Crossed(step.revision, direction, source, composition, pair)
        self.crossed.append(made)
        found = [_noted(made, where, error) for where, error in noted]
        found += _unfilled(made, {where.table.casefold() for where, _ in noted})
        found += _one_way(made)
        bad = {where.table.casefold() for where, _ in noted}
        for name, plan in composition.tables.items():
            table = target.table(name)
            if name.casefold() not in bad and table is not None:
                found += _values(made, table, plan.loses, getattr(plan, "losing", {}), self.capabilities)
        return found


def _composed(
    steps: Sequence[Step],
    direction: Direction,
    capabilities: Capabilities,
    excluded: frozenset[str],
    noted: Noted,
    pair: Any = None,
) -> Composition:
    """The composition, as far as it goes; what goes wrong with a table is put down in `noted`."""
    given = [(step.revision, pair or step.pair or _NoFile()) for step in steps]
    shapes = {step.revision: step.after for step in steps[:-1]}
    older, newer = steps[0].before, steps[-1].after
    try:
        return compose(older, newer, given, direction, shapes, capabilities, excluded, lenient=True, noted=noted)
    except DbsyncError as error:
        told = ConfigError(error.message, code=error.code, remedy=error.remedy)
        noted.append((Where(steps[-1].revision, "", str(direction)), told))
        return Composition(direction, {}, "")


def _whole_path(
    steps: Sequence[Step],
    capabilities: Capabilities,
    excluded: frozenset[str],
    known: Sequence[Finding],
    crossed: list[Crossed],
) -> list[Finding]:
    """What goes wrong only where the revisions are composed: what is wrong with one of them was said before."""
    made: list[Crossed] = []
    begun = next((place for place, step in enumerate(steps) if step.before.tables), len(steps))
    path = steps[begun:]
    if len(path) < 2:
        return []
    pairs = {step.revision: step.pair for step in path}
    wrong = {(f.revision, f.direction) for f in known if f.severity is Severity.ERROR}
    found: list[Finding] = []
    for direction in Direction:
        noted: Noted = []
        composition = _composed(path, direction, capabilities, excluded, noted)
        source = path[0].before if direction is Direction.FORWARD else path[-1].after
        made.append(Crossed(path[-1].revision, direction, source, composition, pairs[path[-1].revision]))
        for where, error in noted:
            if (where.revision, SAID[direction]) not in wrong:
                one = Crossed(where.revision, direction, source, composition, pairs.get(where.revision))
                found.append(_noted(one, where, error))
    if not found and not wrong:
        told = {(one.rule, one.message) for one in known}
        found += [one for one in _unaskable(path, made, capabilities, excluded) if (one.rule, one.message) not in told]
    crossed += made
    return found


def _unaskable(
    steps: Sequence[Step], made: Sequence[Crossed], capabilities: Capabilities, excluded: frozenset[str]
) -> Iterator[Finding]:
    """Key queries of which nobody can tell the answer before a change."""
    given = [(step.revision, step.pair or _NoFile()) for step in steps]
    shapes = {step.revision: step.after for step in steps[:-1]}
    speaks = dict.fromkeys(Direction, capabilities)
    way = Way(steps[0].before, steps[-1].after, given, shapes, speaks, excluded)
    for one in made:
        try:
            if looks_back(one.composition):
                check_askable(one.composition, way.past(one.composition, {}))
        except DbsyncError as error:
            yield _finding(one, "", error.code, Severity.ERROR, error.message, error.remedy)


def _noted(made: Crossed, where: Where, error: ConfigError) -> Finding:
    return _finding(made, where.table, error.code, Severity.ERROR, error.message, error.remedy)


def _unfilled(made: Crossed, bad: frozenset[str] | set[str]) -> Iterator[Finding]:
    """Tables that rows cannot be made for. Forward those that a crossing names; of the others it was said before."""
    forward = made.direction is Direction.FORWARD
    named = named_tables(made.pair)
    for name, reason in made.composition.impossible.items():
        if name.casefold() in bad or (forward and name.casefold() not in named):
            continue
        if forward:
            remedy = "give the column a value in the SELECT, make it nullable, or give it a default"
            yield _finding(made, name, "missing-crossing", Severity.ERROR, f"table {name}: {reason}", remedy)
        else:
            yield _no_way_back(made, name, f"table {name} cannot be filled on the way back: {reason}")
    for name in made.composition.keyless:
        found = f"table {name} has no primary key, so its rows do not cross"
        yield _finding(made, name, "no-primary-key", Severity.WARNING, found, "give it one, or exclude the table")


def _one_way(made: Crossed) -> Iterator[Finding]:
    if made.composition.assumed and made.direction is Direction.REVERSE:
        yield _no_way_back(made, "", "there is a forward crossing and no reverse one")
    elif made.composition.assumed:
        found = "there is a reverse crossing and no forward one, so rows cross by column name"
        yield _finding(made, "", "missing-forward", Severity.WARNING, found, "write `forward = Crossing(…)`")


def _no_way_back(made: Crossed, table: str, found: str) -> Finding:
    remedy = "write it in `reverse`; until then a rollback is refused"
    return _finding(made, table, "missing-reverse", Severity.WARNING, found, remedy)


# --- values ----------------------------------------------------------------------------------------


def _values(
    made: Crossed, target: Table, loses: Mapping[str, str], losing: Mapping[str, Any], capabilities: Capabilities
) -> Iterator[Finding]:
    """Columns whose values do not fit: in kind, in size, or by being absent."""
    declared = {name.casefold() for name in (*loses, *losing)} | _declared(made.pair)
    for column, kind, passed in _outputs(made, target, speech(capabilities)):
        place = f"{target.name}.{column.name}"
        reason = misfit(kind, column.type)
        if reason:
            found = f"{place} gets values of another type: {reason}"
            remedy = f"say CAST(… AS {column.type}) in the SELECT: values of two types are never equal"
            yield _finding(made, target.name, "crossing-type", Severity.ERROR, found, remedy)
        narrower = lost(passed.type if passed is not None else kind, column.type)
        known = {column.name.casefold(), passed.name.casefold() if passed is not None else ""}
        if narrower and not reason and not declared & known:
            yield _narrow(made, target, place, column.name, narrower)
        absent = passed is not None and passed.nullable and not passed.key and not column.nullable and not column.key
        if absent:
            found = f"{place} is NOT NULL, and what it gets may be NULL"
            remedy = "say COALESCE(…) in the SELECT"
            yield _finding(made, target.name, "crossing-null", Severity.WARNING, found, remedy)


def _narrow(made: Crossed, target: Table, place: str, column: str, narrower: str) -> Finding:
    if made.direction is Direction.FORWARD:
        found = f"{place} cannot hold {narrower}"
        remedy = "shorten it in the SELECT of a forward crossing, and declare the loss in the reverse one (`loses`)"
        return _finding(made, target.name, "crossing-narrows", Severity.WARNING, found, remedy)
    found = f"on the way back {place} cannot hold {narrower}, and nothing is declared of it"
    remedy = (
        f'say losing={{"{column}": …}} (refuse, accept, keep) in the forward crossing, or `loses` in the reverse one'
    )
    return _finding(made, target.name, "undeclared-loss", Severity.WARNING, found, remedy)


def _outputs(made: Crossed, target: Table, said: Speech) -> Iterator[tuple[Column, str, Column | None]]:
    """Each column that is filled, the type that its value has (empty: unknown), and the column that is passed on."""
    each = _crossing_of(made, target.name)
    if each is None or each.by_name:
        source = made.source.table(target.name)
        for column in target.columns:
            same = source.column(column.name) if source is not None else None
            if same is not None and not column.generated:
                yield column, same.type, same
        return
    query = parse(each.sql(said.dialect) or "", said.parser, Where("", "", ""))
    for output, node in zip(query.outputs, query.tree.expressions, strict=True):
        filled = target.column(output.name)
        if filled is not None and each.row is None:
            passed = _passed(output.column, query, made.source)
            kind = type_of(node, lambda c: _type(_passed((c.table, c.name), query, made.source)))
            inner = passed or _cast_of(node, query, made.source)
            if inner is not None and inner.name.casefold() in _present(query):
                inner = replace(inner, nullable=False)
            yield filled, kind, inner


def _present(query: Query) -> frozenset[str]:
    """Folded names of the columns that the SELECT's WHERE lets through only where they are not NULL."""
    where = query.tree.args.get("where")
    terms = list(where.this.flatten()) if where is not None and isinstance(where.this, exp.And) else []
    terms = terms or ([where.this] if where is not None else [])
    found = [term.this for term in terms if isinstance(term, exp.Not) and isinstance(term.this, exp.Is)]
    return frozenset(
        one.this.name.casefold()
        for one in found
        if isinstance(one.this, exp.Column) and isinstance(one.expression, exp.Null)
    )


def _cast_of(node: exp.Expr, query: Query, source: Catalog) -> Column | None:
    """The column inside a plain CAST: what it held is what may be lost."""
    cast = node.unalias().unnest()
    if not isinstance(cast, exp.Cast) or not isinstance(cast.this, exp.Column):
        return None
    return _passed((cast.this.table, cast.this.name), query, source)


def _passed(column: tuple[str, str] | None, query: Query, source: Catalog) -> Column | None:
    if column is None:
        return None
    qualifier, name = column
    alias = query.alias_of(qualifier) if qualifier else None
    tables = [alias] if alias is not None else [] if qualifier else list(query.tables)
    found = [table.column(name) for table in map(source.table, tables) if table is not None]
    real = [each for each in found if each is not None]
    return real[0] if len(real) == 1 else None


def _type(column: Column | None) -> str:
    return column.type if column is not None else ""


def _crossing_of(made: Crossed, table: str) -> TableCrossing | None:
    crossing = getattr(made.pair, str(made.direction), None)
    tables: Iterable[TableCrossing] = getattr(crossing, "tables", ())
    return next((each for each in tables if each.name.casefold() == table.casefold()), None)


def _declared(pair: Any) -> frozenset[str]:
    """Folded names of columns of which either crossing says that values are lost, or what becomes of them."""
    tables = [each for crossing in (pair.forward, pair.reverse) for each in getattr(crossing, "tables", ())]
    return frozenset(
        name.casefold() for each in tables for name in (*each.loses, *(getattr(each, "losing", None) or {}))
    )


def _finding(made: Crossed, table: str, rule: str, severity: Severity, message: str, remedy: str) -> Finding:
    lines = getattr(made.pair, "lines", {})
    line = lines.get((str(made.direction), table.casefold()))
    return Finding(made.revision, SAID[made.direction], rule, severity, line, message, remedy)
