"""The law of keep: a value of the newer side comes back unless somebody overwrote it on the older one."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sync.files import Files
from tests.unit.sync.kept_files import losing, newer

IDS = st.integers(1, 4)
SECONDS = st.none() | st.builds(
    lambda whole, part: whole + part / 10_000, st.integers(0, 2), st.sampled_from((0, 1, 7))
)
TITLES = st.sampled_from(("a", "ten letter", "ten letters!", "ten letters?", "another long one"))
EDIT = st.one_of(
    st.tuples(st.just("time"), IDS, SECONDS),
    st.tuples(st.just("title"), IDS, TITLES),
    st.tuples(st.just("price"), IDS, st.integers(0, 9)),
    st.tuples(st.just("insert"), IDS, SECONDS, TITLES),
    st.tuples(st.just("delete"), IDS),
    st.tuples(st.just("sync")),
)


def rounded(seconds: float | None) -> int | None:
    """What the older side makes of a time."""
    return None if seconds is None else math.floor(seconds * 1000 + 0.5)


@dataclass
class Row:
    """One row as both sides must hold it: the older one's cells, and what was last said on the newer one."""

    ms: int | None
    title: str
    price: int = 0
    kept: dict[str, Any] = field(default_factory=dict)

    def newer(self) -> tuple[Any, ...]:
        time, time_base = self.kept.get("time", (None, -1))
        title, title_base = self.kept.get("title", (None, None))
        plain = None if self.ms is None else self.ms / 1000.0
        return (
            time if time_base == self.ms else plain,
            title if title_base == self.title else self.title,
            self.price,
        )

    def said(self) -> None:
        """The newer side goes on being live: what it shows is what it said."""
        seconds, title, _ = self.newer()
        self.say(seconds, title)

    def say(self, seconds: float | None, title: str) -> None:
        self.ms, self.title = rounded(seconds), title[:10]
        self.kept = {"time": (seconds, self.ms), "title": (title, self.title)}


def edit(files: Files, rows: dict[int, Row], step: tuple[Any, ...]) -> None:
    """One edit of the application's on the live side, in the file and in the model."""
    older = files.active.name == "blue"
    kind, *given = step
    if kind == "sync":
        files.pump().drain()
        return
    number, *values = given
    if kind == "delete":
        files.write("DELETE FROM track WHERE id = ?", number)
        rows.pop(number, None)
    elif kind == "insert" and number not in rows:
        seconds, title = values
        row = rows[number] = Row(None, "")
        if older:
            row.ms, row.title = rounded(seconds), title[:10]
            files.write("INSERT INTO track VALUES (?, ?, ?, 0)", number, row.ms, row.title)
        else:
            row.say(seconds, title)
            files.write("INSERT INTO track VALUES (?, ?, ?, 0)", number, seconds, title)
    elif kind in ("time", "title", "price") and number in rows:
        row, (value,) = rows[number], values
        if kind == "price":
            row.price = value
        elif older:
            value = rounded(value) if kind == "time" else value[:10]
            setattr(row, "ms" if kind == "time" else "title", value)
        else:
            seconds, title, _ = row.newer()
            row.say(*((value, title) if kind == "time" else (seconds, value)))
        column = {"time": "ms" if older else "seconds"}.get(kind, kind)
        files.write(f"UPDATE track SET {column} = ? WHERE id = ?", value, number)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(turns=st.lists(st.lists(EDIT, max_size=8), min_size=2, max_size=5))
def test_random_edits_on_both_sides_in_turn_lose_nothing_that_nobody_overwrote(
    turns: list[list[tuple[Any, ...]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files: Files = losing(Path(folder))
        rows: dict[int, Row] = {}
        for number in (1, 2):
            rows[number] = Row(number * 1000, f"track {number}")
            files.write("INSERT INTO track VALUES (?, ?, ?, 0)", number, number * 1000, f"track {number}")
        files.pump().drain()
        files.hand_over()
        for row in rows.values():
            row.said()
        for turn in turns:
            for step in turn:
                edit(files, rows, step)
            files.pump().drain()
            found = files.verify()
            assert found.equal
            assert sum(table.lossy for table in found.tables) == 0
            assert newer(files) == [(number, *rows[number].newer()) for number in sorted(rows)]
            files.hand_over()
            if files.active.name == "green":
                for row in rows.values():
                    row.said()
        files.dispose()
