"""One table at one point of the revision path, as a query over the database that the rows come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbsync.etl.crossing import RowMap
from dbsync.etl.keys import KeyRule, Place, identity, projected
from dbsync.etl.losing import Policies
from dbsync.model import Column, Staged, Table

Rules = Mapping[str, tuple[KeyRule, ...]]
Quote = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Stage:
    """A table of one step: a table of the database itself (`body` is None), or a SELECT over the step before."""

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    """Its primary key, as far as it is known (empty: it has none, or nobody knows it)."""
    origin: str
    """The quoted name under which a query reads it."""
    rules: Rules
    """For each table of the database that it reads: how changed keys there give keys here."""
    body: str | None = None
    ctes: tuple[tuple[str, str], ...] = ()
    """What `body` (or, for a table, `origin`) needs before it, in order: (quoted name, SELECT)."""
    types: Mapping[str, Column] = field(default_factory=dict)
    """By folded name, the column whose type the value has; absent where it is an expression."""
    fixes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By folded name, (name, expression over `q`): what a stored table of this shape would hold instead."""
    driver: str | None = None
    """The table of the database that gives exactly one row for each of its own, or None."""
    driving: tuple[str, ...] = ()
    """The key columns of that table."""
    loses: Mapping[str, str] = field(default_factory=dict)
    losing: Policies = field(default_factory=dict)
    row: RowMap | None = None
    staged: tuple[Staged, ...] = ()
    """Private tables that the query reads. `rules` says of each, as of a table of the database, how keys there give
    keys here (nothing where that is not known)."""
    once: frozenset[str] = frozenset()
    """Folded names of columns that are set when a row is created, and not derived again afterwards."""
    cardinality: str = "1:1"
    selects: int = 0
    broken: str = ""
    """Why its key cannot be followed from the database's tables, when it cannot."""
    exact: bool = True
    """Whether the driver gives exactly one row for each of its own at every step."""
    lead: int | None = None
    """With `row`: how many columns at the beginning of the key the SELECT gives as they are (None: all of them)."""
    mute: str = ""
    """Why a query cannot read these rows, when it cannot."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """By folded name, the columns whose values cannot be relied upon, with the reason (where a stage stands for an
    earlier state, which another database must tell)."""

    def has(self, name: str) -> str | None:
        """The column of that name as it is spelt here (None: there is none that holds rows' own values)."""
        return _spelt(self.columns, name)

    @property
    def derived(self) -> bool:
        """Whether reading it needs a query of its own, because it is not a table of the database as it is."""
        return self.body is not None or bool(self.fixes)

    @property
    def readable(self) -> tuple[str, ...]:
        """The columns that a later SELECT may name: its own, and those that the shape fills with a default."""
        filled = [name for folded, (name, _) in self.fixes.items() if self.has(folded) is None]
        return (*self.columns, *filled)

    def read(self, quote: Quote, suffix: str) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The name to put after FROM, and the CTEs that must stand before."""
        if not self.derived:
            return self.origin, self.ctes
        name = quote(f"{suffix}_{self.table}")
        if not self.fixes:
            return name, (*self.ctes, (name, self.body or ""))
        return name, (*self.ctes, (name, f"SELECT {self._fixed(quote)} FROM {self.inner} AS q"))

    @property
    def inner(self) -> str:
        """What stands after FROM where its rows are read as they come (`ctes` must stand before)."""
        return self.origin if self.body is None else f"({self.body}\n)"

    def _fixed(self, quote: Quote) -> str:
        gives = []
        for column in self.readable:
            name, expression = self.fixes.get(column.casefold(), (column, f"q.{quote(column)}"))
            gives.append(f"{expression} AS {quote(name)}")
        return ", ".join(gives)

    def select(self, quote: Quote, wanted: Sequence[tuple[str, str]]) -> str:
        """The whole query of this table, giving (own column, name) in that order."""
        gives = ", ".join(f"q.{quote(column)} AS {quote(name)}" for column, name in wanted)
        return f"{with_clause(self.ctes)}SELECT {gives} FROM {self.inner} AS q"


def stored(table: Table, quote: Quote) -> Stage:
    """A table of the database as the first step of a chain."""
    own = (identity(len(table.key)),) if table.key else None
    return Stage(
        table=table.name,
        columns=tuple(column.name for column in table.columns),
        key=table.key,
        origin=quote(table.name),
        rules={table.name: own} if own else {},
        types={column.name.casefold(): column for column in table.columns},
        driver=table.name if own else None,
        driving=table.key,
    )


def by_name(
    stage: Stage,
    shape: Table | None,
    last: bool,
    quote: Quote,
    stable: Callable[[str], bool],
    loses: Mapping[str, str],
) -> Stage:
    """The same rows one step on, under the shape's names (unchanged where the shape is not known)."""
    stage = replace(stage, loses={**stage.loses, **loses})
    if shape is None or not stage.key:
        return stage
    places = [_place(stage.key, name) for name in shape.key]
    order = [place for place in places if place is not None]
    lost = len(order) < len(places)
    rules: Rules = {} if lost or not order else then(stage.rules, order)
    broken = f"its primary key ({_list(shape.key)}) does not come out of the one before ({_list(stage.key)})"
    if not lost:
        unknown = any(not rule.known for each in rules.values() for rule in each)
        broken = f"nothing is known of its primary key ({_list(shape.key)})" if unknown else ""
    moved = replace(
        stage,
        table=shape.name,
        columns=tuple(name for name in stage.columns if shape.column(name) is not None),
        key=shape.key,
        rules=rules,
        driver=stage.driver if sorted(order) == list(range(len(stage.key))) else None,
        broken=broken or stage.broken,
    )
    return moved if last else settle(moved, shape, quote, stable)


def then(rules: Rules, places: Sequence[Place]) -> Rules:
    """The rules followed by a projection of the keys that they give."""
    more = projected(places)
    return {base: tuple(dict.fromkeys(rule.then(more) for rule in each)) for base, each in rules.items()}


def settle(stage: Stage, shape: Table, quote: Quote, stable: Callable[[str], bool]) -> Stage:
    """The stage as a stored table of that shape would hold it: types of expressions, defaults of new columns.

    Without it a chain matches other rows than tables would: an expression has no type of its own.
    """
    fixes: dict[str, tuple[str, str]] = {}
    for column in shape.columns:
        folded = column.name.casefold()
        own = stage.has(column.name)
        if own is not None:
            plain = f"q.{quote(own)}"
            held = as_cast(plain, stage, own, column)
            if held != plain:
                fixes[folded] = (own, held)
        elif not column.generated and column.fills_itself and stable(column.default or ""):
            value = "NULL" if column.default is None else f"({column.default})"
            fixes[folded] = (column.name, _cast(value, column) if castable(column.type) else value)
    rules = stage.rules
    if any(name.casefold() in fixes for name in stage.key):
        # A key that is cast does not lead back to the rows of a private table.
        rules = {**rules, **{each.name: () for each in stage.staged}}
    return replace(stage, fixes=fixes, rules=rules)


def as_cast(value: str, stage: Stage, own: str, column: Column) -> str:
    """A stage's column as a stored column would hold its values: cast, unless it comes from one of that kind."""
    had = stage.types.get(own.casefold())
    if (had is None or _family(had.type) != _family(column.type)) and castable(column.type):
        return _cast(value, column)
    return value


def same_order(had: Column | None, column: Column) -> bool:
    """Whether values of the one column are equal, and sort, as they do in the other."""
    folds = ["" if each is None or each.collation is None else each.collation.upper() for each in (had, column)]
    return had is not None and _family(had.type) == _family(column.type) and folds[0] == folds[1]


def floating(type_: str) -> bool:
    """Whether a declared type is that of a binary floating number, whose sum depends on the order of additions."""
    return any(word in type_.upper() for word in ("REAL", "FLOA", "DOUB"))


def castable(type_: str) -> bool:
    """Whether CAST to a declared type keeps every value that a column of that type would keep.

    A date's type is not among them: where it only has a numeric affinity, CAST makes a year of it.
    """
    return _family(type_) in ("text", "integer", "real")


def with_clause(ctes: Iterable[tuple[str, str]]) -> str:
    """The CTEs as the beginning of a query (nothing when there are none)."""
    parts = [f"{name} AS ({sql}\n)" for name, sql in dict(ctes).items()]
    return f"WITH {', '.join(parts)} " if parts else ""


def _family(type_: str) -> str:
    upper = type_.upper()
    families = (
        ("text", ("CHAR", "CLOB", "TEXT")),
        ("other", ("DATE", "TIME", "BOOL", "BLOB", "BINARY", "JSON", "POINT", "INTERVAL")),
        ("integer", ("INT",)),
        ("real", ("REAL", "FLOA", "DOUB", "DECIMAL", "NUMERIC", "MONEY")),
    )
    return next((name for name, words in families if any(word in upper for word in words)), f"other {upper}")


def _cast(expression: str, column: Column) -> str:
    plain = column.collation is None or column.collation.upper() == "BINARY" or _family(column.type) != "text"
    return f"CAST({expression} AS {column.type})" + ("" if plain else f" COLLATE {column.collation}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _place(names: Sequence[str], wanted: str) -> int | None:
    folded = wanted.casefold()
    return next((place for place, name in enumerate(names) if name.casefold() == folded), None)


def _spelt(names: Sequence[str], wanted: str) -> str | None:
    place = _place(names, wanted)
    return None if place is None else names[place]
