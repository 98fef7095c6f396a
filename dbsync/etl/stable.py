"""Whether a crossing's rows come out the same each time, and depend on nothing but the rows at their key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlglot import Dialect, exp
from sqlglot.optimizer.scope import Scope

from dbsync.etl.fickle import fickle, spans
from dbsync.etl.query import Query, Where
from dbsync.etl.stage import floating

_UNORDERED = frozenset(["group_concat", "string_agg", "json_group_array", "json_group_object"])

NEEDED = "a row of the target may depend only on the source rows at its key, and must come out the same each time"
ONCE = "; a column that is to be set when its row is created, and left alone then, stands in once=(…) of table()"
SUMS = "sum integers, or CAST or ROUND what is summed to a decimal, or ROUND the sum: ROUND(SUM(x), 2)"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the tables that a SELECT reads, by folded name."""

    owns: Callable[[str, str], bool]
    """Whether a table has a column of that name, which tells a correlated subquery."""
    type_of: Callable[[str, str], str] = field(default=lambda _table, _column: "")
    """The declared type of a table's column (empty: not known)."""


def check_stable(query: Query, dialect: str, where: Where, known: Known, once: frozenset[str] = frozenset()) -> None:
    """ConfigError (`crossing-not-deterministic`) unless the rows at a key depend on that key's rows alone.

    In the columns `once` (folded names) a call may give another value each time.
    """
    for found in _moods(query, dialect, once):
        where.refuse("crossing-not-deterministic", f"the SELECT uses {found}", NEEDED + ONCE)
    for found in _across(query, known.owns):
        where.refuse("crossing-not-deterministic", f"the SELECT uses {found}", NEEDED)
    for found in _sums(query, known):
        where.refuse(
            "crossing-not-deterministic",
            f"the SELECT uses {found}: the order of the additions, which is not fixed, changes the last digits",
            SUMS,
        )


def _moods(query: Query, dialect: str, once: frozenset[str]) -> Iterator[str]:
    tokens = Dialect.get_or_raise(dialect).tokenize(query.text)
    places = spans(tokens) if once else []
    free: set[int] = set()
    if len(places) == len(query.outputs):
        for output, place in zip(query.outputs, places, strict=True):
            free.update(place if output.name.casefold() in once else ())
    for at, found in fickle(tokens):
        if at not in free:
            yield found


def _across(query: Query, owns: Callable[[str, str], bool]) -> Iterator[str]:
    kinds = (
        (exp.Window, "a window function"),
        (exp.Limit, "LIMIT"),
        (exp.Fetch, "FETCH or TOP"),
        (exp.Offset, "OFFSET"),
        (exp.TableSample, "TABLESAMPLE"),
    )
    for kind, what in kinds:
        if query.tree.find(kind) is not None:
            yield what
    for node in query.tree.walk():
        if _function(node) in _UNORDERED and node.find(exp.Order) is None:
            yield f"{_function(node)} without an order"
    for scope in query.scopes:
        gathers = [node for node in scope.expression.find_all(exp.AggFunc, exp.Anonymous) if _gathers(node, scope)]
        if not gathers or scope.expression.args.get("group"):
            continue
        if scope.is_root or not _correlated(scope, owns):
            yield f"{gathers[0].sql()} over all rows"


def _function(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return str(node.this).casefold()
    return "group_concat" if isinstance(node, exp.GroupConcat) else ""


def _gathers(node: exp.Expr, scope: Scope) -> bool:
    """Whether this is an aggregate of that very scope (MAX of several values is a plain function)."""
    if node.find_ancestor(exp.Select) is not scope.expression:
        return False
    if isinstance(node, exp.Anonymous):
        return str(node.this).casefold() in (_UNORDERED | {"total"})
    return not (isinstance(node, (exp.Max, exp.Min)) and node.expressions)


def _correlated(scope: Scope, owns: Callable[[str, str], bool]) -> bool:
    inner = {name.casefold(): source for name, source in scope.sources.items()}
    for column in scope.expression.find_all(exp.Column):
        if column.table:
            if column.table.casefold() not in inner:
                return True
            continue
        tables = [source.name.casefold() for source in inner.values() if isinstance(source, exp.Table)]
        if len(tables) == len(inner) and not any(owns(table, column.name) for table in tables):
            return True
    return False


# --- sums of floating numbers ----------------------------------------------------------------------


def _sums(query: Query, known: Known) -> Iterator[str]:
    for scope in query.scopes:
        for node in scope.expression.find_all(exp.Sum, exp.Avg, exp.Anonymous):
            if node.find_ancestor(exp.Select) is not scope.expression or _rounded(node):
                continue
            if isinstance(node, exp.Anonymous):
                summed = node.expressions if str(node.this).casefold() == "total" else []
            else:
                summed = [node.this]
            if any(_floats(each, scope, known) for each in summed):
                yield f"{node.sql()} of floating numbers"


def _rounded(node: exp.Expr) -> bool:
    """Whether what is around it takes the last digits away."""
    around = node.parent
    while around is not None and not isinstance(around, exp.Select):
        if isinstance(around, exp.Round) or (isinstance(around, exp.Cast) and not _to_float(around)):
            return True
        around = around.parent
    return False


def _floats(node: exp.Expr, scope: Scope, known: Known) -> bool:
    """Whether the value of an expression is a floating number, as far as declared types tell."""
    if isinstance(node, exp.Column):
        return _floating_column(node, scope, known)
    if isinstance(node, exp.Cast):
        return _to_float(node)
    if isinstance(node, exp.Case):
        chosen = [each.args.get("true") for each in node.args.get("ifs") or ()] + [node.args.get("default")]
    elif isinstance(node, exp.If):
        chosen = [node.args.get("true"), node.args.get("false")]
    elif isinstance(node, (exp.Round, exp.Predicate, exp.Not, exp.Count, exp.Query, exp.Length)):
        return False
    else:
        chosen = list(node.iter_expressions())
    return any(each is not None and _floats(each, scope, known) for each in chosen)


def _to_float(cast: exp.Cast) -> bool:
    return cast.to.this in exp.DataType.FLOAT_TYPES or floating(cast.to.sql())


def _floating_column(column: exp.Column, scope: Scope, known: Known) -> bool:
    sources = {alias.casefold(): source for alias, source in scope.sources.items()}
    wanted = [sources.get(column.table.casefold())] if column.table else list(sources.values())
    for source in wanted:
        if isinstance(source, exp.Table):
            if floating(known.type_of(source.name.casefold(), column.name)):
                return True
        elif isinstance(source, Scope) and isinstance(source.expression, exp.Select):
            for given in source.expression.selects:
                if given.alias_or_name.casefold() == column.name.casefold():
                    inner = given.unalias()
                    return not isinstance(inner, exp.Round) and _floats(inner, source, known)
    return False
