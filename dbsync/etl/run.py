"""Making the lens between two databases, and putting rows through it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dbsync.errors import ConfigError, Refused
from dbsync.etl.around import over_and_back
from dbsync.etl.compose import Composition, TablePlan, compose
from dbsync.etl.crossing import Crossing, Pair
from dbsync.etl.keys import KeyRule, Question
from dbsync.etl.lens import Lens, left_alone, lens_hash, newer_only
from dbsync.etl.losing import KIND, is_kept
from dbsync.etl.merge import alike, merge
from dbsync.etl.past import Way, asks, check_askable, looks_back, untold_of
from dbsync.etl.question import WAYS, sampled
from dbsync.migrate.shape import from_document
from dbsync.model import Catalog, Direction, Key, Relation, Row
from dbsync.ports import Database, Migrator, Rows, Transaction

__all__ = [
    "Applied",
    "Composition",
    "KeyRule",
    "Lens",
    "TablePlan",
    "check_cardinality",
    "compose",
    "make_lens",
    "put",
]


@dataclass
class Applied:
    """Rows written and keys deleted."""

    upserted: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class _ByName:
    """A revision without a crossing's file."""

    path: str = ""
    forward: Crossing | None = None
    reverse: Crossing | None = None


def make_lens(databases: Mapping[str, Database], active: str, migrator: Migrator, pairs: Mapping[str, Pair]) -> Lens:
    """Both ways between the two databases as they stand now.

    Raises Refused (`revisions-diverged`, `missing-crossing`), ConfigError for a crossing that is wrong,
    and whatever the databases raise.
    """
    (idle,) = (name for name in databases if name != active)
    catalogs = {name: databases[name].catalog() for name in (active, idle)}
    older, newer, path = _ordered(catalogs, active, idle, migrator)
    excluded = frozenset(name.casefold() for database in databases.values() for name in database.excluded())
    for name, catalog in catalogs.items():
        _refuse_ambiguous(name, catalog, excluded)
    absent = _absent(catalogs, path, excluded)
    if not (catalogs[older].tables and catalogs[newer].tables):
        # A side without tables has not got its shape yet: nothing can cross.
        catalogs = {older: Catalog({}, catalogs[older].revision), newer: Catalog({}, catalogs[newer].revision)}
        steps = []
    else:
        steps = [(revision, pairs.get(revision) or _ByName()) for revision in path]
    way = Way(
        catalogs[older],
        catalogs[newer],
        steps,
        _shapes(databases.values(), path),
        {Direction.FORWARD: databases[older].capabilities, Direction.REVERSE: databases[newer].capabilities},
        excluded,
    )
    forward, reverse = way.composed(Direction.FORWARD), way.composed(Direction.REVERSE, lenient=True)
    _compiled(forward, databases[older])
    reads = _compiled(reverse, databases[newer])
    only = newer_only(forward, reverse, reads) if path else {}
    kept = left_alone(forward, _inexact(forward, databases[older], only) if _lived(databases[newer], path) else {})
    past = {
        name: made
        for name, own, untold in ((newer, forward, {}), (older, reverse, untold_of(forward, left_alone(forward, only))))
        if (made := _past(way, own, databases[older if name == newer else newer], databases[name], untold)) is not None
    }
    again = {
        name: way.over_and_back(there)
        for name, there, back in ((older, forward, reverse), (newer, reverse, forward))
        if asks(back)
    }
    word = lens_hash(path, forward, reverse)
    return Lens(older, newer, path, forward, reverse, kept, word, dict(catalogs[newer].tables), absent, past, again)


def _inexact(forward: Composition, older: Database, only: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The columns that only the newer shape has, but for those whose values the older side keeps: these are exact.

    While not everything is kept yet (the policy is new) they are left alone like the others.
    """
    with older.view() as view:
        documents = view.load_all(KIND)
    found: dict[str, frozenset[str]] = {}
    for name, columns in only.items():
        plan = forward.tables[name]
        exact = {each.column for each in plan.relation.kept} if is_kept(documents.get(name), plan.hash) else set()
        found[name] = columns - exact
    return {name: columns for name, columns in found.items() if columns}


def _past(
    way: Way, own: Composition, source: Database, target: Database, untold: Mapping[str, frozenset[str]]
) -> Composition | None:
    """`own` as the target tells its source's earlier state (None: nothing asks for that). Raises ConfigError."""
    for question in asks(own):
        _runs(source, question, "broken-crossing")
    if not looks_back(own):
        return None
    past = way.past(own, untold)
    for question in check_askable(own, past):
        _runs(target, question, "crossing-key")
    return past


def _runs(database: Database, question: Question, code: str) -> None:
    try:
        database.reads(sampled(question))
    except ConfigError as error:
        raise ConfigError(
            f"{question.where} does not compile on {database.name}: {error.message}", code=code, remedy=WAYS
        ) from error


def put(
    tx: Transaction,
    target: Database,
    lens: Lens,
    table: str,
    keys: Sequence[Key],
    rows: Sequence[Row],
    fresh: bool = False,
    born: Collection[Key] = (),
) -> Applied:
    """Make the target's `table` hold exactly `rows`, the relation's, at `keys`.

    By name and forward the row is overwritten, but for kept columns. In reverse through a crossing each
    cell is written only where it was changed on the newer side (protocol: crossings are lenses). `fresh`:
    the keys are known to be absent. `born`: keys at which the source has a new row: nothing of an older row
    there is kept. Raises Refused (`crossing-cardinality`) for two rows at one key, and
    as Transaction.upsert does.
    """
    composition = lens.toward(target.name)
    plan = composition.tables[table]
    given = _by_key(plan, rows, table)
    gone = [key for key in dict.fromkeys(keys) if plan.same_key(key) not in given]
    columns = plan.relation.columns
    written = list(rows)
    if born and lens.path:
        tx.delete(table, [key for key in keys if key in born])
    if fresh:
        if written:
            tx.insert(table, columns, written)
        return Applied(len(written), 0)
    if composition.direction is Direction.REVERSE and lens.path and lens.merges(table):
        written = _merged(tx, target, lens, table, given)
        if written:
            tx.upsert(table, columns, written)
    elif written:
        kept = lens.kept.get(table, frozenset()) if composition.direction is Direction.FORWARD else frozenset()
        tx.upsert(table, columns, written, keep=kept)
    if gone:
        tx.delete(table, gone)
    return Applied(len(written), len(gone))


def check_cardinality(source: Rows, plan: TablePlan) -> None:
    """Raises Refused (`crossing-cardinality`) unless a "1:1" crossing gives as many rows as its driving table has."""
    if plan.by_name or plan.driver is None or plan.cardinality == "1:n":
        return
    had, gives = source.count(plan.driver), source.count(plan.relation)
    if had != gives:
        raise Refused(
            f"table {plan.relation.table}: {plan.driver.table} has {had} rows, its crossing gives {gives}",
            code="crossing-cardinality",
            remedy='a join drops or doubles rows: make it a LEFT JOIN on a key, or declare cardinality="1:0..1"',
        )


def _by_key(plan: TablePlan, rows: Sequence[Row], table: str) -> dict[Key, Row]:
    places = plan.relation.places()
    found: dict[Key, Row] = {}
    for row in rows:
        key = tuple(row[place] for place in places)
        if found.setdefault(plan.same_key(key), row) is not row:
            raise Refused(
                f"table {table}: the crossing gives more than one row at key {key!r}",
                code="crossing-cardinality",
                remedy="correct the SELECT: it must give one row for each key",
            )
    return found


def _merged(tx: Transaction, target: Database, lens: Lens, table: str, given: Mapping[Key, Row]) -> list[Row]:
    """The rows to write: ours with the cells that were changed on the newer side, left out where none was."""
    plan = lens.reverse.tables[table]
    places = plan.relation.places()
    keys = [tuple(row[place] for place in places) for row in given.values()]
    if not keys:
        return []
    ours = {plan.same_key(tuple(row[p] for p in places)): row for row in tx.by_keys(plan.stored, keys)}
    known = [key for key in keys if plan.same_key(key) in ours]
    crossed = over_and_back(tx, lens.older, lens, lens.shapes, target, table, known) if known else []
    bases = {plan.same_key(tuple(row[p] for p in places)): row for row in crossed}
    written = []
    for key, theirs in given.items():
        mine = ours.get(key)
        row = merge(mine, bases.get(key), theirs)
        if not alike(row, mine):
            written.append(row)
    return written


def _refuse_ambiguous(name: str, catalog: Catalog, excluded: frozenset[str]) -> None:
    """Refused (`ambiguous-name`): rows cross by names compared without case, and some databases fold only ASCII."""
    tables = [table for table in catalog.tables.values() if table.name.casefold() not in excluded]
    spelt = [("tables", [table.name for table in tables])]
    spelt += [(f"columns of {table.name}", [column.name for column in table.columns]) for table in tables]
    for what, names in spelt:
        seen: dict[str, str] = {}
        for each in names:
            other = seen.setdefault(each.casefold(), each)
            if other is not each:
                raise Refused(
                    f"{name}: the {what} {other} and {each} differ only in case",
                    code="ambiguous-name",
                    remedy="rename one of them, or exclude the table",
                )


def _absent(catalogs: Mapping[str, Catalog], path: Sequence[str], excluded: frozenset[str]) -> dict[str, str]:
    """What each side lacks of the other. Between revisions that is what crossings speak of, unless all is missing."""
    first, second = catalogs
    found = {}
    for name, other in ((first, second), (second, first)):
        here, there = catalogs[name], catalogs[other]
        tables = [table for table in there.tables.values() if table.name.casefold() not in excluded]
        lacks = [f"table {table.name}" for table in tables if here.table(table.name) is None]
        if path:
            lacks = ["tables"] if lacks and not here.tables else []
        else:
            lacks += [
                f"column {table.name}.{column}"
                for table in tables
                if (same := here.table(table.name)) is not None
                for column in table.stored
                if same.column(column) is None
            ]
        if lacks:
            more = f" (and {len(lacks) - 3} more)" if len(lacks) > 3 else ""
            found[name] = f"{', no '.join(lacks[:3])}{more}"
    return found


def _ordered(
    catalogs: Mapping[str, Catalog], active: str, idle: str, migrator: Migrator
) -> tuple[str, str, tuple[str, ...]]:
    """(older, newer, revisions between). Refused (`revisions-diverged`) when neither revision leads to the other."""
    here, there = catalogs[active].revision, catalogs[idle].revision
    if here == there:
        return active, idle, ()
    refusal: Refused | None = None
    for older, newer in ((active, idle), (idle, active)):
        low, high = catalogs[older].revision, catalogs[newer].revision
        if high is None:
            continue
        try:
            path = tuple(migrator.path(low, high))
        except Refused as refused:
            refusal = refused
            continue
        if path and path[-1] == high and low not in path:
            return older, newer, path
    raise refusal or Refused(
        f"{active} stands at revision {here}, {idle} at {there}, and neither leads to the other",
        code="revisions-diverged",
        remedy="migrate one of the two to a revision that the other's leads to",
    )


def _shapes(databases: Iterable[Database], path: Sequence[str]) -> dict[str, Catalog]:
    """What is recorded of the revisions between; the last one is a database's own shape."""
    found: dict[str, Catalog] = {}
    if len(path) < 2:
        return found
    for database in databases:
        with database.view() as view:
            documents = view.load_all("shape")
        found.update({name: from_document(documents[name]) for name in path[:-1] if name in documents})
    return found


def _compiled(composition: Composition, source: Database) -> dict[str, frozenset[tuple[str, str]]]:
    """What each query reads, by target table, as the source database itself says. Raises ConfigError."""
    found: dict[str, frozenset[tuple[str, str]]] = {}
    for table, plan in composition.tables.items():
        if plan.by_name:
            found[table] = frozenset((plan.relation.table, column) for column in plan.relation.columns)
            continue
        found[table] = _reads(source, table, plan.relation)
        known = {name.casefold() for name in plan.sources}
        for name in sorted({name for name, _ in found[table]}):
            if name.casefold() not in known:
                raise ConfigError(
                    f"the crossing of table {table} reads {name}, which does not stand in key",
                    code="crossing-key",
                    remedy="say in key how its changes touch the target's rows",
                )
    return found


def _reads(source: Database, table: str, relation: Relation) -> frozenset[tuple[str, str]]:
    try:
        return source.reads(relation.sql, relation.staged)
    except ConfigError as error:
        raise ConfigError(
            f"the crossing of table {table} does not compile on {source.name}: {error.message}",
            code=error.code if error.code != ConfigError.default_code else "broken-crossing",
            remedy=error.remedy or "correct the SELECT",
        ) from error


def _lived(newer: Database, path: Sequence[str]) -> bool:
    guard = newer.guard()
    return guard is not None and not guard.lived.isdisjoint(path)
