"""The sockets: what the rooms ask of the world. Small protocols; one adapter class may answer several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from dbsync.model import (
    Capabilities,
    Catalog,
    Changes,
    Check,
    Checkpoint,
    Extracted,
    Fact,
    Fenced,
    Guard,
    Kept,
    Key,
    Lag,
    Loaded,
    Position,
    QueryPlan,
    Relation,
    Renamed,
    Role,
    Route,
    Row,
    Staged,
    Table,
    Value,
)


class Clock(Protocol):
    """Time is a socket: no pure code reads a clock."""

    def now(self) -> datetime:
        """The present, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; ends early (raising Interrupted) when the process is told to stop."""
        ...


class Rows(Protocol):
    """Rows of one database, all as of one moment, with what is kept for them (`Relation.kept`).

    Private tables that a relation reads (`Relation.staged`) are filled first, with no more than its wanted keys need,
    and emptied afterwards. A range read with `limit` never gives fewer rows while there are more.
    """

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """The relation's rows at these keys (fewer where a key gives none), each once."""
        ...

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """The relation's rows with `after` < key <= `upto`, ordered by key (by the relation's key collation)."""
        ...

    def count(self, relation: Relation) -> int:
        """How many rows the relation has (COUNT(*), counted independently of key ranges)."""
        ...

    def key_query(self, sql: str, keys: Sequence[Key]) -> list[Key]:
        """The rows that a query gives when `:keys` stands for a SELECT of these keys, as columns k1, k2, …"""
        ...


class View(Rows, Protocol):
    """A consistent read of one database: history, guard and rows as of the same moment."""

    def position(self) -> Position:
        """How far this database's history goes."""
        ...

    def guard(self) -> Guard | None:
        """The guard row, or None before `init`."""
        ...

    def revision(self) -> str | None:
        """The Alembic revision, or None."""
        ...

    def checkpoint(self) -> Checkpoint | None:
        """Where this database stands as a follower, or None when it has never followed."""
        ...

    def changes(self, since: Position, limit: int | None = None) -> Changes:
        """The keys changed after `since`: at most `limit` recorded changes (then `end` is where they stop).

        Raises PositionLost when the history no longer reaches back to `since`, with code
        `source-restored` when it shows another past than the one that `since` was taken from.
        """
        ...

    def lag(self, since: Position) -> Lag:
        """How many changes were recorded after `since`, and the age of the oldest. Raises as `changes`."""
        ...

    def kept(self) -> Mapping[tuple[str, str], int]:
        """How many values the side table keeps, by the names of table and column under which they are kept."""
        ...

    def now(self) -> datetime:
        """The database's own clock (UTC) at the view's moment, or just before it, never after.

        A row that was committed with an earlier stamp is in the view, unless its transaction was still open.
        """
        ...

    def extract(self, sql: str, parameters: Mapping[str, Any], size: int) -> Iterator[Extracted]:
        """The rows of a job's SELECT in batches of at most `size`, at constant memory; an empty one if there are none.

        `since` and `until` are moments (datetime), bound as the database's own timestamps; `keys` is a list of keys
        of one column, as in `key_query`. Raises ConfigError (`broken-job`) for what does not run, writes, or gives two
        columns of one name.
        """
        ...

    def load(self, kind: str, name: str) -> dict[str, Any] | None:
        """A stored document of dbsync's own, or None."""
        ...

    def load_all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every stored document of one kind, by name."""
        ...


class Scratch(Rows, Protocol):
    """An empty, private copy of some tables' shape, to run a query over rows that are held in hand."""

    def fill(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Add rows to one of its tables, with the types that the table's columns give them."""
        ...


class Transaction(View, Protocol):
    """One writing transaction of dbsync's own: the target's role and epoch are held until its commit.

    Leaving it normally commits; an exception rolls everything back.
    """

    def upsert(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], keep: frozenset[str] = frozenset()
    ) -> None:
        """Insert or update by primary key. Where the row exists, columns in `keep` and those not named stay.

        Unique values may move between the rows of one call. Raises Refused (`row-refused`, naming table
        and key) when a constraint of the target does not take a row.
        """
        ...

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows whose keys are known to be absent; replaces a row that holds one of their unique values."""
        ...

    def delete(self, table: str, keys: Sequence[Key]) -> None:
        """Delete by primary key; absent keys are no error. Nothing cascades."""
        ...

    def load_rows(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], key: Sequence[str], mode: str
    ) -> Loaded:
        """Put a job's rows into its table by `key`, whose values are not NULL; what the database does not take is
        set aside.

        `mode` upsert: where the key is there the row's columns are overwritten; append: it is left alone. Raises
        ConfigError: `unknown-table`, or `broken-job` when the table lacks a column or `key` is neither its primary key
        nor columns of a unique index of their own.
        """
        ...

    def clear(self, table: str) -> None:
        """Delete every row of a job's table. Raises ConfigError (`unknown-table`)."""
        ...

    def set_checkpoint(self, source: str, position: Position, expected: Position | None) -> None:
        """Move the checkpoint; Refused (`checkpoint-moved`) unless it stands at `expected` (None: there is none)."""
        ...

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """Store a document of dbsync's own (None deletes it)."""
        ...

    def keep(self, table: str, column: str, rows: Sequence[tuple[Key, Value, Value]], gone: Sequence[Key] = ()) -> None:
        """Keep (key, value, base) in the side table, under these names; forget what is kept at the keys `gone`.

        Never captured. Refused (`not-initialised`) where `init` has not made the side table yet.
        """
        ...

    def quiet_capture(self, table: str) -> None:
        """Let this table's capture and guard sleep until the commit (for a bulk copy); they wake with it."""
        ...

    def carry_sequences(self, values: Mapping[str, int]) -> None:
        """Raise identity counters to at least these values, never lower."""
        ...


class Database(Protocol):
    """One database: shape, guard, history, rows. Everything it raises is a DbsyncError."""

    name: str
    """The environment's name."""
    capabilities: Capabilities

    @property
    def address(self) -> str:
        """Where it is, with secrets masked."""
        ...

    # shape
    def catalog(self) -> Catalog:
        """User tables (dbsync's own, Alembic's and virtual ones left out) and the revision."""
        ...

    def excluded(self) -> tuple[str, ...]:
        """Tables left out of sync by the configuration or because they cannot be synced (virtual, FTS)."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the shape, a guard or a capture object was altered, even if put back."""
        ...

    def reads(self, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
        """The (table, column) pairs that a SELECT reads, also behind private tables (`staged`).

        Raises ConfigError when it does not compile.
        """
        ...

    def plan(self, relation: Relation) -> QueryPlan:
        """How it would read the relation by a list of keys, by what it knows of its tables. Raises ConfigError."""
        ...

    def asked(self, query: str, width: int) -> QueryPlan:
        """As `plan`, for a key query about keys of that many columns."""
        ...

    def examine(self) -> tuple[Check, ...]:
        """This database's own preconditions (keys, write-ahead log, triggers in place …). Changes nothing."""
        ...

    def scratch(self, tables: Sequence[Table]) -> AbstractContextManager[Scratch]:
        """An empty private copy of these tables' shape."""
        ...

    # guard
    def guard(self) -> Guard | None:
        """The guard row, or None before `init`. Raises Unavailable, or PositionLost (`source-restored`) for a copy."""
        ...

    def install(self, live: str, epoch: int = 1) -> tuple[str, ...]:
        """Create what is missing of dbsync's own objects; the guard is open when `live` is this database.

        Gives the names of what it created (empty when everything was there).
        """
        ...

    def remove(self) -> tuple[str, ...]:
        """Drop everything that is dbsync's own, and wake the user's triggers. Gives the names of what went."""
        ...

    def fence(self, epoch: int, owner: str, seconds: float, wait: float) -> Fenced:
        """Let no application write in until `seconds` from now; waits at most `wait` for a writer in flight.

        Raises Unavailable (`drain-timeout`) when that writer does not end, Refused (`fence-lost`) when
        this database is not open at that epoch.
        """
        ...

    def lift(self, epoch: int) -> Guard:
        """Undo a fence (harmless without one): open again at the same epoch, with the attempt raised,
        so that a cede still on its way fails. Refused (`past-no-return`) when it has ceded."""
        ...

    def cede(self, fenced: Fenced, final: Position, fingerprint: str, to: str) -> Guard:
        """Give up being live for good: one transaction, epoch + 1, naming `to` as live.

        Refused (`fence-lost`) unless the fence of that epoch, attempt and owner still holds, the position
        is still `final` and the fingerprint is unchanged, all read under the exclusive lock.
        """
        ...

    def open(self, epoch: int, fingerprint: str | None = None) -> Guard:
        """Begin to be live at `epoch`: wake the user's triggers, carry sequences, note the position before
        any traffic (`opened_at`). Harmless when already open at that epoch. Refused (`burnt-epoch`) when
        that epoch was marked as never opened."""
        ...

    def close(self, epoch: int, checkpoint: Checkpoint) -> Guard:
        """Complete a handover on the side that ceded: closed at `epoch`, user triggers asleep, at `checkpoint`.

        Harmless when already closed at that epoch."""
        ...

    def reopen(self, epoch: int) -> Guard:
        """Be live again at `epoch` after having ceded (only when the other side was given up for good)."""
        ...

    def lock(self, name: str, wait: float) -> AbstractContextManager[None]:
        """Hold an application lock that dies with the process. Refused (`<name>-running`) when another holds it."""
        ...

    def round_trip(self) -> float:
        """Seconds that an empty durable writing transaction takes just now."""
        ...

    def settled(self, wait: float) -> bool:
        """Whether no application transaction holds a write open; waits at most that many seconds for it."""
        ...

    # rows
    def view(self) -> AbstractContextManager[View]:
        """A consistent read."""
        ...

    def writing(self, role: Role, epoch: int, wait: float = 5.0) -> AbstractContextManager[Transaction]:
        """A writing transaction. Refused (`role-changed`) unless the guard still has this role at this epoch."""
        ...

    def forget(self, epoch: int, kept: Sequence[Kept], keys: Sequence[Key]) -> None:
        """Forget what is kept at these keys, in a transaction of its own; harmless when repeated, never captured.

        Refused (`role-changed`) unless this database is live (open or fenced) at that epoch.
        """
        ...

    def migrating(self, role: Role, epoch: int) -> AbstractContextManager[Any]:
        """A SQLAlchemy Connection inside one transaction, guards and user triggers as a migration needs them.

        Before the commit capture and guards are made right for the shape that it left, and every table
        whose shape or rows it changed is marked as changed in whole.
        """
        ...

    def save(self, kind: str, name: str, document: Mapping[str, Any] | None) -> None:
        """Store a document of dbsync's own, in a transaction of its own (heartbeats, receipts, shapes)."""
        ...

    def record(self, fact: Fact) -> None:
        """Append to the journal, durably."""
        ...

    def journal(self, limit: int | None = None) -> list[Fact]:
        """The newest entries of the journal, oldest first."""
        ...

    def prune(self, below: Position) -> int:
        """Forget recorded changes at or below a position, in small steps. Gives how many went."""
        ...

    def dispose(self) -> None:
        """Let go of every connection."""
        ...


class Sketch(Protocol):
    """Shapes without rows and without a server: where revisions are run, and queries compiled, for a judgement."""

    capabilities: Capabilities

    @property
    def excluded(self) -> frozenset[str]:
        """Folded names of tables in the shapes seen so far that are left out of sync."""
        ...

    def shape_copy(self) -> AbstractContextManager[tuple[Any, Any]]:
        """An empty private database: a connection to it, and what gives its catalog when it is called."""
        ...

    def reads(self, shape: Catalog, sql: str, staged: Sequence[Staged] = ()) -> frozenset[tuple[str, str]]:
        """As Database.reads, over tables of that shape."""
        ...

    def plan(self, shape: Catalog, relation: Relation) -> QueryPlan:
        """As Database.plan, over tables of that shape whose sizes nobody knows."""
        ...

    def asked(self, shape: Catalog, query: str, width: int) -> QueryPlan:
        """As Database.asked, over tables of that shape whose sizes nobody knows."""
        ...


class Migrator(Protocol):
    """The revisions of one migrations folder, and how to run them."""

    def chain(self) -> tuple[str, ...]:
        """Revisions from base to head. Refused (`several-heads`); ConfigError when a file does not load."""
        ...

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        """Revisions after `older` up to and including `newer`.

        Refused (`revisions-diverged`) when neither leads to the other.
        """
        ...

    def run(self, connection: Any, revision: str, down: bool) -> None:
        """Run one revision (its upgrade, or its downgrade) and stamp it, inside the connection's transaction.

        Refused (`revision-failed`) with the cause when it raises.
        """
        ...

    def recording(self) -> AbstractContextManager[list[Renamed]]:
        """Inside it the revisions that run put down there which tables and columns they rename."""
        ...

    def stamp(self, connection: Any, revision: str | None) -> None:
        """Record that the database stands at a revision without running anything."""
        ...

    def script(self, dialect: str, start: str | None, end: str | None, down: bool) -> str:
        """The SQL of these revisions, without a server. Refused (`not-scriptable`, naming the revision)."""
        ...


class Router(Protocol):
    """The routers at the proxy that lead to the application."""

    def routes(self) -> list[Route]:
        """What every replica says now, one a router and replica. Raises Unavailable."""
        ...

    def written(self) -> str | None:
        """The environment that the router file names (None: something else). Raises ConfigError."""
        ...

    def examine(self, active: str) -> tuple[Check, ...]:
        """Preconditions of a handover: version, services, priorities, unlisted routers, files. Changes nothing."""
        ...

    def switch(self, environment: str, wait: float) -> list[Route]:
        """Make the file name this environment and wait until every replica says so.

        Raises Unavailable (`route-not-confirmed`, changed) when one does not within `wait` seconds.
        """
        ...

    def install_hold(self, epoch: int, gate: str, secret: str, active: str, wait: float) -> None:
        """Put the gate before every router, and prove it through every replica's entry point.

        Raises Unavailable (`hold-not-confirmed`); the hold is taken away again first.
        """
        ...

    def remove_hold(self, wait: float) -> None:
        """Take the gate away (harmless when it is not there) and wait until no replica asks it any more."""
        ...

    def hold_present(self) -> bool:
        """Whether hold files of dbsync's lie in the watched directory."""
        ...

    def healthy(self) -> bool:
        """Whether every replica's probe is answered by the application without a server error."""
        ...

    def writes_served(self) -> int | None:
        """Writes that have come back through the held routers, summed over replicas; None when not measured."""
        ...

    def close(self) -> None:
        """Let go of every connection."""
        ...


class Gate(Protocol):
    """The process that every request asks during a handover; it outlives the coordinator."""

    def start(self, epoch: int, live: str, owner: str) -> tuple[str, str]:
        """Start it, letting everything through to `live`.

        Gives its URL as the proxy reaches it, and the mark's secret.
        """
        ...

    def hold(self, seconds: float) -> None:
        """From now on writes wait; the custodian acts when this long has passed without a decision."""
        ...

    def reject(self, seconds: float) -> None:
        """As `hold`, but writes are told to come again (503 and Retry-After)."""
        ...

    def decide(self, live: str) -> None:
        """Everything goes to `live` from now on; what was held is released to it."""
        ...

    def passed_writes(self) -> int:
        """Writes let through so far."""
        ...

    def held(self) -> tuple[int, float]:
        """How many requests were held, and the longest wait in milliseconds."""
        ...

    def stop(self) -> None:
        """The handover is over: let the gate end."""
        ...

    def close(self) -> None:
        """Let go of it as a process that ends does; if the handover is not over, the custodian goes on with it."""
        ...
