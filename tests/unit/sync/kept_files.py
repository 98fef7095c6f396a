"""Two files whose older one cannot hold what the newer one can: a type that is finer, a text that is longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbsync.etl import Crossing, table
from tests.unit.sync.files import Crossed, Files

OLD = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
CREATE TABLE track (id INTEGER PRIMARY KEY, ms INTEGER, title TEXT NOT NULL CHECK (length(title) <= 10), price NUMERIC);
"""
NEW = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE track (id INTEGER PRIMARY KEY, seconds REAL, title TEXT NOT NULL, price NUMERIC);
"""


def forward(**losing: str) -> Crossing:
    """Older to newer, with these policies."""
    select = "SELECT id, ms / 1000.0 AS seconds, title, price FROM track"
    return Crossing(table("track", key={"track": "id"}, select=select, losing=losing))


REVERSE = Crossing(
    table(
        "track",
        key={"track": "id"},
        select="SELECT id, CAST(round(seconds * 1000) AS INTEGER) AS ms, substr(title, 1, 10) AS title, price"
        " FROM track",
        loses={"ms": "rounded to milliseconds", "title": "cut at ten characters"},
    )
)


class Losing(Crossed):
    """The crossing of r2, with policies."""

    def __init__(self, **losing: str) -> None:
        self.forward, self.reverse = forward(**losing), REVERSE


def losing(folder: Path, kind: type[Files] = Files, **policies: str) -> Any:
    """blue (older, live) and green; both columns are kept unless said otherwise."""
    made = kind(folder, (OLD, NEW))
    made.crossed = Losing(**(policies or {"seconds": "keep", "title": "keep"}))
    return made


def newer(files: Files) -> list[tuple[Any, ...]]:
    """The rows of the newer side."""
    return list(files.rows("green", "SELECT id, seconds, title, price FROM track ORDER BY id"))
