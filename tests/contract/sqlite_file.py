"""One SQLite file, its adapter, and plain connections as an application has them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.model import Changes, Key, Position
from dbsync.ports import Database

REFUSED = "^dbsync: "


class File:
    """A file with dbsync installed in it."""

    def __init__(
        self, path: Path, *statements: str, name: str = "blue", live: str = "blue", exclude: Sequence[str] = ()
    ):
        self.path = path
        with self.application() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in statements:
                connection.execute(statement)
        self.db: Database = SqliteDatabase(name, f"sqlite:///{path}", exclude)
        self.db.install(live)

    @contextmanager
    def application(self, isolation: Literal["DEFERRED"] | None = None) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, isolation_level=isolation, timeout=1.0)) as connection:
            yield connection

    def execute(self, sql: str, *values: Any) -> list[Any]:
        with self.application() as connection:
            return connection.execute(sql, values).fetchall()

    def position(self) -> Position:
        with self.db.view() as view:
            return view.position()

    def changes(self, since: Position) -> Changes:
        with self.db.view() as view:
            return view.changes(since)

    def keys(self, since: Position) -> set[Key]:
        """Keys that the history says have changed in table t."""
        found = [table for table in self.changes(since).tables if table.table == "t"]
        return {key for table in found for key in table.keys}

    def cede(self, to: str = "green", epoch: int = 1) -> None:
        fenced = self.db.fence(epoch, "me", 30.0, 1.0)
        self.db.cede(fenced, self.position(), self.db.fingerprint(), to)


Make = Callable[..., File]
