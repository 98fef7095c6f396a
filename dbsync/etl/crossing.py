"""A crossing as its author writes it: frozen values, checked as far as they can be without a database."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dbsync.errors import ConfigError
from dbsync.model import Value

KeySpec = str | tuple[str, ...] | Mapping[str, str]
"""A column, columns in the order of the target's key, {target column: source column}, or a query over `:keys`."""

RowMap = Callable[[Mapping[str, Value]], Any]

PARAMETER = ":keys"
_TODO = re.compile(r"\bTODO:(?:(?!\*/|\n).)*")
POLICIES = ("refuse", "accept", "keep")
CARDINALITIES = ("1:1", "1:0..1", "1:n")


def is_query(spec: KeySpec) -> bool:
    """Whether a key is given as a query that finds the touched keys."""
    return isinstance(spec, str) and PARAMETER in spec


@dataclass(frozen=True, slots=True)
class TableCrossing:
    """How the rows of one target table come out of the source's tables."""

    name: str
    select: str | None
    dialects: Mapping[str, str]
    key: Mapping[str, KeySpec] | None
    loses: Mapping[str, str]
    row: RowMap | None
    cardinality: str
    losing: Mapping[str, str] = field(default_factory=dict)
    """By column of a newer table, what becomes of values that the older shape cannot hold."""
    once: tuple[str, ...] = ()
    """Columns that are set when a row is created, and neither overwritten nor compared afterwards."""

    @property
    def by_name(self) -> bool:
        """Whether it has no SELECT of its own (it may still declare losses)."""
        return self.select is None and not self.dialects

    @property
    def todos(self) -> tuple[str, ...]:
        """What a person has still to decide: every text that says `TODO:`. The table is refused until then."""
        specs = (self.key or {}).values()
        texts = [self.select or "", *self.dialects.values(), *(s for s in specs if isinstance(s, str))]
        texts += self.loses.values()
        return tuple(" ".join(match[0].split()) for text in texts for match in _TODO.finditer(text))

    def sql(self, dialect: str) -> str | None:
        """The SELECT for that dialect, or None when it has none for it."""
        return self.dialects.get(dialect, self.select)


class Crossing:
    """What happens to the rows in one direction between a revision and the one before it."""

    __slots__ = ("tables",)

    tables: tuple[TableCrossing, ...]

    def __init__(self, *tables: TableCrossing) -> None:
        """Takes the tables that do not cross by column name. Raises ConfigError when one is named twice."""
        seen: set[str] = set()
        for each in tables:
            if not isinstance(each, TableCrossing):
                raise _broken(f"Crossing() takes table(…) values, not {type(each).__name__}")
            if each.name.casefold() in seen:
                raise _broken(f"table {each.name} is named twice in one crossing")
            seen.add(each.name.casefold())
        object.__setattr__(self, "tables", tuple(tables))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Crossing does not change; {name} was not set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Crossing) and other.tables == self.tables

    def __hash__(self) -> int:
        return hash(tuple(each.name for each in self.tables))

    def __repr__(self) -> str:
        return f"Crossing({', '.join(each.name for each in self.tables)})"


class Pair(Protocol):
    """Both directions of one revision's crossing, and the file that they were read from."""

    @property
    def forward(self) -> Any:
        """Older to newer: a Crossing, or None for by name."""
        ...

    @property
    def reverse(self) -> Any:
        """Newer to older: a Crossing, or None for by name."""
        ...

    @property
    def path(self) -> Any:
        """The file."""
        ...


def table(
    name: str,
    key: Mapping[str, str | Sequence[str] | Mapping[str, str]] | None = None,
    select: str | None = None,
    dialects: Mapping[str, str] | None = None,
    loses: Mapping[str, str] | None = None,
    row: RowMap | None = None,
    cardinality: str = "1:1",
    losing: Mapping[str, str] | None = None,
    once: Sequence[str] = (),
) -> TableCrossing:
    """The crossing of one target table.

    `key` says for each source table which of its primary-key columns give the target row's key. `losing` says
    for columns of a newer table (in `forward`) what becomes of values that the older shape cannot hold: "refuse"
    to go back while rows have some, "accept" that they are lost, or "keep" them beside the older rows.
    `once` names columns (in `forward`) that are set when a row is created, and left alone then: they may be random.
    Raises ConfigError (`broken-crossing`) for what can be seen to be wrong without a database.
    """
    if not str(name).strip():
        raise _broken("table() needs the name of the target table")
    if cardinality not in CARDINALITIES:
        raise _broken(f"table {name}: cardinality is one of {', '.join(CARDINALITIES)}, not {cardinality!r}")
    if row is not None and not callable(row):
        raise _broken(f"table {name}: row is a callable that maps a selected row, not {type(row).__name__}")
    queries = dict(dialects or {})
    for text in (*queries.values(), *([] if select is None else [select])):
        if not str(text).strip():
            raise _broken(f"table {name}: a select is SQL text, and is not empty")
    if select is None and not queries and (key is not None or row is not None):
        raise _broken(f"table {name}: key and row mean nothing without a select")
    spec = None if key is None else {source: _spec(name, source, given) for source, given in key.items()}
    policies = dict(losing or {})
    for column, policy in policies.items():
        if policy not in POLICIES:
            raise _broken(f"table {name}: losing of {column} is one of {', '.join(POLICIES)}, not {policy!r}")
    if isinstance(once, str) or not all(str(each).strip() for each in once):
        raise _broken(f'table {name}: once names columns: once=("column",)')
    if once and select is None and not queries:
        raise _broken(f"table {name}: once means nothing without a select")
    return TableCrossing(name, select, queries, spec, dict(loses or {}), row, cardinality, policies, tuple(once))


def _spec(name: str, source: str, given: object) -> KeySpec:
    if isinstance(given, str) and given.strip():
        return given
    if isinstance(given, Mapping) and given and all(isinstance(part, str) for pair in given.items() for part in pair):
        return dict(given)
    if isinstance(given, Sequence) and given and all(isinstance(part, str) for part in given):
        return tuple(given)
    raise _broken(
        f"table {name}: the key of {source} is a column, a list of columns, {{target column: source column}} or a query"
    )


def _broken(found: str) -> ConfigError:
    return ConfigError(found, code="broken-crossing", remedy="correct the crossing's file")
