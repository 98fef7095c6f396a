"""A path with a Python function in its middle, in both directions, and a column that is set once: the whole way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dbsync.etl import Crossing, table
from dbsync.etl.run import Lens, make_lens
from dbsync.migrate.shape import to_document
from dbsync.sync import snapshot
from tests.unit.etl.etl_world import Path as Chain
from tests.unit.etl.etl_world import Two, World
from tests.unit.sync.files import Files

STAMP = "CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY); INSERT INTO alembic_version VALUES ('{}');"
SHAPE = "CREATE TABLE person (id INTEGER, region TEXT, name TEXT, PRIMARY KEY (id, region)) WITHOUT ROWID;"
NEW = "CREATE TABLE person (region TEXT, id INTEGER, label TEXT, token TEXT, PRIMARY KEY (region, id)) WITHOUT ROWID;"
KEY = {"person": ["id", "region"]}


class Staged(Files):
    """blue at r1, green at r3; between them rows go through Python, and the key changes its order."""

    seen = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, (STAMP.format("r1") + SHAPE, STAMP.format("r3") + NEW))
        self.active.save("shape", "r2", to_document(World(SHAPE, revision="r2").catalog()))

    def titled(self, row: Mapping[str, Any]) -> dict[str, Any]:
        self.seen += 1
        return {**row, "name": row["name"].title()}

    def tokens(self) -> dict[object, object]:
        return {row[0]: row[1] for row in self.rows("green", "SELECT id, token FROM person")}

    def lens(self) -> Lens:
        def plain(row: Mapping[str, Any]) -> dict[str, Any]:
            return {**row, "name": row["label"].removesuffix("!")}

        second = Two(
            Crossing(table("person", key=KEY, select="SELECT id, region, name FROM person", row=self.titled)),
            Crossing(
                table(
                    "person",
                    key=KEY,
                    select="SELECT id, region, lower(name) AS name FROM person",
                    loses={"name": "capital letters"},
                )
            ),
        )
        third = Two(
            Crossing(
                table(
                    "person",
                    key={"person": ["region", "id"]},
                    select="SELECT region, id, name || '!' AS label, lower(hex(randomblob(6))) AS token FROM person",
                    once=("token",),
                )
            ),
            Crossing(table("person", key=KEY, select="SELECT id, region, label FROM person", row=plain)),
        )
        chain: Any = Chain("r1", "r2", "r3")
        return make_lens(self.databases, self.active.name, chain, {"r2": second, "r3": third})


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Staged]:
    made = Staged(tmp_path)
    yield made
    made.dispose()


def test_windows_and_verification_go_through_it_there_and_back(files: Staged) -> None:
    for number, name in enumerate(["ann", "Bo Ek", "cy"]):
        files.write("INSERT INTO person VALUES (?, ?, ?)", number, "ns"[number % 2], name)
    pump = files.pump()
    pump.ensure_snapshot()
    assert files.rows("green", "SELECT region, id, label FROM person") == [
        ("n", 0, "Ann!"),
        ("n", 2, "Cy!"),
        ("s", 1, "Bo Ek!"),
    ]
    before = files.tokens()
    files.write("UPDATE person SET name = 'anna' WHERE id = 0")
    files.write("DELETE FROM person WHERE id = 2")
    pump.drain()
    files.write("INSERT INTO person VALUES (2, 'n', 'cyd')")
    pump.drain()
    after = files.tokens()
    assert after[0] == before[0] and after[1] == before[1], "set once, and left alone"
    assert after[2] != before[2], "a row that is born again gets a new one"
    assert files.verify().equal
    files.hand_over()
    files.write("UPDATE person SET label = 'Dan!' WHERE id = 0")
    files.write("UPDATE person SET token = 'mine' WHERE id = 1")
    pump = files.pump()
    pump.drain()
    assert files.rows("blue", "SELECT name FROM person ORDER BY id") == [("dan",), ("Bo Ek",), ("cyd",)]
    assert files.verify().equal
    files.hand_over()
    files.write("UPDATE person SET name = 'bo' WHERE id = 1")
    files.pump().drain()
    assert files.rows("green", "SELECT label, token FROM person WHERE id = 1") == [("Bo!", "mine")]
    assert files.verify().equal


def test_a_copy_and_a_comparison_in_many_ranges_make_each_row_a_few_times_and_not_once_a_range(
    files: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_ROWS", 20)
    monkeypatch.setattr(snapshot, "MOST_ROWS", 20)
    rows = 200
    with files.application("blue") as connection:
        connection.executemany("INSERT INTO person VALUES (?, ?, 'x y')", [(n, f"r{n % 7}") for n in range(rows)])
    assert not files.lens().forward.tables["person"].relation.ranged
    copied = files.pump().ensure_snapshot()
    assert copied == {"tables": 1, "rows": rows} and files.seen <= 3 * rows
    tokens = files.rows("green", "SELECT id, token FROM person ORDER BY id")
    files.seen = 0
    assert files.verify().equal and files.seen <= 3 * rows
    upserted = "SELECT count(*) FROM dbsync_changes"
    had = files.rows("green", upserted)
    files.pump().ensure_snapshot(force=True)
    assert files.rows("green", "SELECT id, token FROM person ORDER BY id") == tokens
    assert files.rows("green", upserted) == had, "a copy over equal rows writes none, whatever is set once"
