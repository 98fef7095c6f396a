"""The nouns that two rooms, or a room and an adapter, share. Reads as the glossary of docs/."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

Value = Any
"""One cell. On SQLite: None, int, float, str or bytes."""

Key = tuple[Value, ...]
"""The primary-key values of one row, in the order of the table's key columns."""

Row = tuple[Value, ...]

Position = NewType("Position", str)
"""How far a database's history goes. Opaque: only the adapter that made it may read it."""


class Direction(StrEnum):
    """Forward goes from the older revision to the newer one; reverse the other way."""

    FORWARD = "forward"
    REVERSE = "reverse"


class Role(StrEnum):
    """The active database takes the application's writes; the idle one follows. Always derived."""

    ACTIVE = "active"
    IDLE = "idle"


# --- shape -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. `key` is its 1-based place in the primary key, 0 outside it."""

    name: str
    type: str = ""
    nullable: bool = True
    default: str | None = None
    key: int = 0
    collation: str | None = None
    generated: bool = False

    @property
    def fills_itself(self) -> bool:
        """Whether a row can be created without a value for this column."""
        return self.nullable or self.default is not None or self.generated


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference from some columns of a table to the key of another (or the same) table."""

    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns in order, its primary key (empty when it has none)."""

    name: str
    columns: tuple[Column, ...]
    uniques: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    ddl: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the primary-key columns, in the order of the key."""
        keyed = sorted((c for c in self.columns if c.key), key=lambda c: c.key)
        return tuple(c.name for c in keyed)

    @property
    def stored(self) -> tuple[str, ...]:
        """Names of the columns that hold a value of their own (generated ones do not)."""
        return tuple(c.name for c in self.columns if not c.generated)

    def column(self, name: str) -> Column | None:
        """The column of that name (case-insensitive, as SQL compares names), or None."""
        folded = name.casefold()
        return next((c for c in self.columns if c.name.casefold() == folded), None)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The shape of a database: its user tables by name, and its Alembic revision (or None)."""

    tables: Mapping[str, Table]
    revision: str | None = None

    def table(self, name: str) -> Table | None:
        """The table of that name (case-insensitive), or None."""
        found = self.tables.get(name)
        if found is not None:
            return found
        folded = name.casefold()
        return next((t for n, t in self.tables.items() if n.casefold() == folded), None)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a database can do. A room asks this, never for a product's name."""

    dialect: str
    """The name under which crossings and jobs may give SQL of their own."""
    quote: tuple[str, str] = ('"', '"')
    transactional_ddl: bool = True
    lock_fence: bool = False
    """Whether writers can be made to wait at the fence (otherwise they are refused)."""
    temporary: str = ""
    """What the name of a private temporary table begins with."""


# --- rows ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """A column of a relation whose value may stand in the side table of the database that it is read from.

    Where a value is kept at a row's key, and its base is still what the query gives there, the row has that
    value. `table` and `name` say under which names it is kept: those under which `keep` was first declared.
    """

    column: str
    key: tuple[str, ...]
    """The columns of the relation that give the key, in the order in which keys are kept."""
    table: str
    name: str
    word: Callable[[Key], Key] = tuple
    """The key as it is kept: equal for keys that the newer shape takes for one."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A query that gives the rows of one table in another shape: snapshot, window and digest.

    `sql` selects `columns` in that order, for the whole table; adapters restrict it by key list
    or key range. `row`, when given, maps each selected row (as a mapping) to one or more mappings.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    sql: str
    row: Callable[[Mapping[str, Value]], Any] | None = None
    lead: int | None = None
    """How many columns at the beginning of the key `sql` gives; `row` gives the others, several rows for one of
    `sql`'s (None: all of them). Ranges are read in the order of these columns, and cut exactly after `row`."""
    collations: tuple[str, ...] = ()
    """For each key column the collation under which two texts are one key; empty where equal bytes are."""

    kept: tuple[Kept, ...] = ()
    """Columns that have what is kept for them, where it still holds."""
    staged: tuple[Staged, ...] = ()
    """Private temporary tables that `sql` reads, to be filled before it runs."""

    @property
    def ranged(self) -> bool:
        """Whether reading a key range costs no more than its rows. Where not, read all ranges within one view."""
        leads = {len(each.places or ()) if each.leads else 0 for each in self.staged}
        fits = not leads or (leads != {0} and len(leads) == 1 and self.row is None)
        return fits and all(each.relation.ranged for each in self.staged)

    def places(self) -> tuple[int, ...]:
        """Where the key's columns stand among the selected ones."""
        return tuple(self.columns.index(name) for name in self.key)


@dataclass(frozen=True, slots=True)
class Staged:
    """A private temporary table: rows that a callable makes, so that the SQL of a later step can read them.

    Before the SQL of the relation that reads it runs, the database fills `name` with the rows of `relation`. By key
    list only with those whose key (`relation.key`, perhaps only a part of the table's own) the wanted keys have at
    `places`; with all of them where that is None. By key range with that range, where `leads`.
    """

    name: str
    columns: tuple[Column, ...]
    """Names, types and collations: a comparison finds what it would find in a stored table of that shape."""
    relation: Relation
    places: tuple[int, ...] | None = None
    """For each column of `relation.key`, where its value stands in the key of the relation that reads this."""
    leads: bool = False
    """Whether `relation.key` is, in that order, the beginning of the key of the relation that reads this."""

    @property
    def key(self) -> tuple[str, ...]:
        """The key columns of the table."""
        return tuple(column.name for column in sorted(self.columns, key=lambda c: c.key) if column.key)


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """How a database would read a relation by a list of keys, in its own words, a line a step.

    `scans` names the stored tables of which it would read every row, whatever the keys are.
    """

    lines: tuple[str, ...]
    scans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Renamed:
    """A table (`column` is None) or a column that a revision renames."""

    revision: str
    table: str
    column: str | None
    to: str


@dataclass(frozen=True, slots=True)
class Touched:
    """What changed in one source table: its keys, or (`whole`) possibly every row.

    `born` are those of the keys at which a row was created: what an earlier row of that key left behind
    elsewhere is not theirs.
    """

    table: str
    keys: tuple[Key, ...]
    whole: bool = False
    born: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Changes:
    """Every change between two positions, net, consistent as of the second one.

    `count` is the number of recorded changes; `foreign` how many of them dbsync did not make itself.
    """

    start: Position
    end: Position
    tables: tuple[Touched, ...] = ()
    count: int = 0
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The position of `source` (a database's identity) up to which the idle database reflects it."""

    source: str
    position: Position
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """Checkpoint against position: recorded changes, and the age in seconds of the oldest of them."""

    changes: int
    seconds: float


# --- jobs ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extracted:
    """Some rows of a job's extract, and the names of their columns."""

    columns: tuple[str, ...]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that a database did not take, and why."""

    row: Row
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows were written (one that was left alone was not), and the rows that were not taken."""

    written: int
    rejected: tuple[Rejected, ...] = ()


# --- who is live -------------------------------------------------------------------------------


class GuardState(StrEnum):
    """What a guard row says: open to the application, closed, fenced for a while, or ceded for good."""

    OPEN = "open"
    CLOSED = "closed"
    FENCED = "fenced"
    CEDED = "ceded"


@dataclass(frozen=True, slots=True)
class Guard:
    """The row in each database that says whether it is open to the application, and since which handover.

    `live` is the environment that `epoch` made live. `fence_left` is the time in seconds until a
    fence ends by itself, by the database's own clock (None when not fenced, <= 0 once it has ended).
    `opened_at` is the position at which this database was last opened. `lived` holds the
    revisions at which it has been live.
    """

    name: str
    identity: str
    state: GuardState
    epoch: int
    attempt: int = 0
    live: str = ""
    owner: str | None = None
    fence_left: float | None = None
    opened_at: Position | None = None
    lived: frozenset[str] = frozenset()

    @property
    def accepts(self) -> bool:
        """Whether this database takes the application's writes now."""
        if self.state is GuardState.FENCED:
            return self.fence_left is None or self.fence_left <= 0
        return self.state is GuardState.OPEN


@dataclass(frozen=True, slots=True)
class Fenced:
    """The fence as it was raised: needed again, unchanged, at the cede."""

    epoch: int
    attempt: int
    owner: str


# --- findings ----------------------------------------------------------------------------------


class Severity(StrEnum):
    """How much a finding weighs."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    BLOCKER = "blocker"


@dataclass(frozen=True, slots=True)
class Check:
    """One precondition that `doctor` looked at."""

    code: str
    severity: Severity
    found: str
    remedy: str = ""


class MismatchKind(StrEnum):
    """How a row of the idle side differs from what the active side says it should be."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"
    LOSSY = "lossy"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key (of the newer shape) at which the two sides differ."""

    table: str
    key: Key
    kind: MismatchKind
    columns: tuple[str, ...] = ()
    """For a lossy row: the columns that the older shape does not give as they are."""


@dataclass(frozen=True, slots=True)
class TableResult:
    """What verifying one table gave: counts, the digest of its rows, and the first mismatched keys."""

    name: str
    rows: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    lossy: int = 0
    digest: str = ""
    keys: tuple[Mismatch, ...] = ()
    losses: Mapping[str, int] = field(default_factory=dict)
    """By column, in how many of the lossy rows it differs."""

    @property
    def equal(self) -> bool:
        """Whether nothing but declared losses was found."""
        return not (self.missing or self.extra or self.different)


# --- history -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that has happened, as it stands in the journal. `data` is plain JSON."""

    kind: str
    at: datetime
    epoch: int = 0
    owner: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    database: str = ""


# --- traffic -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """Where one router sends requests: the service as written, and the environment it stands for."""

    router: str
    service: str | None
    environment: str | None
    """The environment's name, None when unknown, or "other"."""
    replica: str = ""
    rule: str = ""
    detail: str = ""


Report = Callable[[str, int, int | None], None]
"""Progress: what is being worked on, how many units are done, how many there are (None: unknown)."""


def quiet(what: str, done: int, total: int | None) -> None:
    """A Report that says nothing."""


def environments(names: Iterable[str]) -> tuple[str, str]:
    """The two environments' names as a pair. Raises ValueError unless there are exactly two."""
    first, second = names
    return first, second
