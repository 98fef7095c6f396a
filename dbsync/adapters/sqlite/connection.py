"""Opening a SQLite file the way dbsync needs it, and turning its errors into dbsync's."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from dbsync.errors import ConfigError, Refused, Unavailable

KEY_PLACES = 16
"""Most columns that a primary key may have."""

BUSY_SECONDS = 5.0

_NOT_TEXT = re.compile(r"Could not decode to UTF-8 column '(.*?)'(?: with text|$)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")


NAME_A_FILE = "let [databases] in the configuration name the database's own file"


def connect(path: Path, name: str) -> sqlite3.Connection:
    """A connection in autocommit mode; never creates the file. Raises Unavailable or ConfigError.

    foreign_keys stays OFF: a cascade would change rows that no window carries.
    """
    if path.is_dir():
        raise ConfigError(f"{name}: {path} is a folder, not a database file", code="not-a-database", remedy=NAME_A_FILE)
    if not path.exists():
        raise Unavailable(
            f"{name}: there is no file {path}",
            code="database-missing",
            remedy="check [databases] in the configuration; `dbsync init` creates a missing idle side",
        )
    with translated(name):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Settings, the table of keys, and the first read: only that finds out whether it is a database at all."""
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    places = ", ".join(f"k{i}" for i in range(1, KEY_PLACES + 1))
    connection.execute(f"CREATE TEMP TABLE dbsync_keys ({places})")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn SQLite's errors into ConfigError, Refused or Unavailable, with the environment's name."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "not a database" in text or "file is encrypted" in text:
            raise ConfigError(
                f"{name}: the file is not a SQLite database", code="not-a-database", remedy=NAME_A_FILE
            ) from error
        if "locked" in text or "busy" in text:
            raise Unavailable(
                f"{name}: another process holds the write lock",
                code="database-locked",
                remedy="let the long transaction end, then run the command again",
            ) from error
        column = _NOT_TEXT.search(text)
        if column is not None:
            raise Refused(
                f"{name}: a text in column {column[1]} is not UTF-8, so it can be neither read nor compared",
                code="invalid-text",
                remedy=f"write it again as text, or store it as a blob: UPDATE … SET {column[1]} = CAST({column[1]} AS"
                " BLOB); or exclude the table",
            ) from error
        if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.IntegrityError
        ):
            raise Unavailable(f"{name}: {text}", code="database-error", remedy="dbsync doctor") from error
        raise


def quoted(identifier: str) -> str:
    """An identifier in double quotes, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def backticked(sql: str) -> str:
    """The statement with "name" written as `name`.

    SQLite takes an unknown name in double quotes for a string, silently; in backticks it is an error.
    """
    return _QUOTED.sub(lambda m: m[0] if m[0][0] == "'" else "`" + m[0][1:-1].replace('""', '"') + "`", sql)


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"
