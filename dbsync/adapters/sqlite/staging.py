"""Private temporary tables that a relation reads: made, filled with what its wanted keys need, and emptied.

How much is filled is the cost of a read. By key list it is the rows at those keys; by key range a piece of the range
at a time, as far as the wanted rows reach. Where a range of the outer rows is no range of the inner ones, all of them
are filled: once for as long as the view lives, in which nothing changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from dbsync.adapters.sqlite.connection import quoted
from dbsync.errors import ConfigError, Refused
from dbsync.model import Key, Relation, Row, Staged

PIECE = 2_000
"""The least number of inner rows that a piece of a range is made of."""


class Inner(Protocol):
    """What fills the tables: the rows of the same connection."""

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """See ports.Rows."""
        ...

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None = None) -> list[Row]:
        """See ports.Rows; a bound may be the beginning of a key."""
        ...


class Staging:
    """The private tables of one connection, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, rows: Inner, steady: bool) -> None:
        """`steady`: nothing that is read changes as long as this lives."""
        self._connection = connection
        self._rows = rows
        self._steady = steady
        self._whole: dict[str, Staged] = {}
        self._made: dict[str, Staged] = {}

    def by_keys(self, relation: Relation, keys: Sequence[Key]) -> list[Row]:
        """The relation's rows at these keys."""
        for each in relation.staged:
            if each.places is None:
                self._fill_whole(each)
            elif not self._holds(each):
                places = each.places
                wanted = dict.fromkeys(tuple(key[place] for place in places) for key in keys)
                self._fill(each, self._rows.by_keys(each.relation, [key for key in wanted if None not in key]))
        rows = self._rows.by_keys(replace(relation, staged=(), kept=()), keys)
        self._empty(relation)
        return rows

    def by_range(self, relation: Relation, after: Key | None, upto: Key | None, limit: int | None) -> list[Row]:
        """The relation's rows in a key range: never fewer than `limit` while there are more."""
        plain = replace(relation, staged=(), kept=())
        if not _led(relation) or all(map(self._holds, relation.staged)):
            for each in relation.staged:
                self._fill_whole(each)
            rows = self._rows.by_range(plain, after, upto, limit)
        else:
            rows = self._in_pieces(relation, plain, after, upto, limit)
        self._empty(relation)
        return rows

    def fill_all(self, relation: Relation) -> Relation:
        """Fill the tables with all of their rows. Gives the relation as it can be read then."""
        for each in relation.staged:
            self._fill_whole(each)
        return replace(relation, staged=())

    def shells(self, staged: Sequence[Staged]) -> None:
        """Make the tables, empty, so that SQL which reads them compiles."""
        for each in staged:
            self._make(each)

    def release(self) -> None:
        """Drop the tables."""
        for name in self._made:
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{quoted(name)}")
        self._made.clear()
        self._whole.clear()

    # --- filling -----------------------------------------------------------------------------------

    def _in_pieces(
        self, relation: Relation, plain: Relation, after: Key | None, upto: Key | None, limit: int | None
    ) -> list[Row]:
        """Piece by piece, because how many of the inner rows the outer query drops is not known before it has run."""
        found: list[Row] = []
        while True:
            left = None if limit is None else limit - len(found)
            last = self._fill_range(relation.staged, after, upto, None if left is None else max(left, PIECE))
            found += self._rows.by_range(plain, after, upto if last is None else last, left)
            if last is None or (limit is not None and len(found) >= limit):
                return found
            after = last

    def _fill_range(
        self, tables: Sequence[Staged], after: Key | None, upto: Key | None, size: int | None
    ) -> Key | None:
        """Fill the tables up to the same inner key, and give it; None: as far as the range goes."""
        width = len(tables[0].relation.key)
        low = None if after is None else after[:width]
        high = None if upto is None else upto[:width]
        last: Key | None = None
        for number, each in enumerate(tables):
            rows = []
            if low is not None and after is not None and len(after) > width:
                # Inside one inner key the outer range goes on.
                rows = self._rows.by_keys(each.relation, [low])
            more = self._rows.by_range(each.relation, low, high, size if number == 0 else None)
            if number == 0 and size is not None and len(more) >= size:
                last = high = tuple(more[-1][place] for place in each.relation.places())
            self._fill(each, (*rows, *more))
        return last

    def _holds(self, each: Staged) -> bool:
        return self._steady and _same(self._whole.get(each.name), each)

    def _fill_whole(self, each: Staged) -> None:
        if not self._holds(each):
            self._fill(each, self._rows.by_range(each.relation, None, None))
            self._whole[each.name] = each

    def _fill(self, each: Staged, rows: Iterable[Row]) -> None:
        self._make(each)
        self._whole.pop(each.name, None)
        name = f"temp.{quoted(each.name)}"
        names = ", ".join(quoted(column) for column in each.relation.columns)
        marks = ", ".join("?" for _ in each.relation.columns)
        try:
            self._connection.execute(f"DELETE FROM {name}")
            self._connection.executemany(f"INSERT INTO {name} ({names}) VALUES ({marks})", rows)
        except sqlite3.IntegrityError as error:
            raise Refused(
                f"table {each.relation.table}: row= gives more than one row at one key, ({', '.join(each.key)})",
                code="crossing-cardinality",
                remedy="correct the crossing: it must give one row for each key",
            ) from error
        except (sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
            raise ConfigError(
                f"table {each.relation.table}: row= gives a value that the database cannot hold: {error}",
                code="broken-crossing",
                remedy="give None, int, float, str or bytes",
            ) from error

    def _make(self, each: Staged) -> None:
        if _same(self._made.get(each.name), each):
            return
        name = f"temp.{quoted(each.name)}"
        columns = [
            f"{quoted(column.name)} {column.type}"
            + (f" COLLATE {quoted(column.collation)}" if column.collation else "")
            for column in each.columns
        ]
        key = ", ".join(quoted(column) for column in each.key)
        self._connection.execute(f"DROP TABLE IF EXISTS {name}")
        self._connection.execute(f"CREATE TEMP TABLE {quoted(each.name)} ({', '.join(columns)}, UNIQUE ({key}))")
        self._made[each.name] = each

    def _empty(self, relation: Relation) -> None:
        for each in relation.staged:
            if not self._holds(each):
                self._connection.execute(f"DELETE FROM temp.{quoted(each.name)}")
                self._whole.pop(each.name, None)


def _same(one: Staged | None, other: Staged) -> bool:
    """Whether two tables of one name hold the same rows, whatever part of them their readers ask for."""
    if one is None or one.columns != other.columns:
        return False
    return one.relation.sql == other.relation.sql and one.relation.row is other.relation.row


def _led(relation: Relation) -> bool:
    """Whether a key range of the relation is one of every table that it reads, of keys of the same width."""
    widths = {len(each.relation.key) for each in relation.staged}
    return relation.row is None and len(widths) == 1 and all(each.leads for each in relation.staged)
