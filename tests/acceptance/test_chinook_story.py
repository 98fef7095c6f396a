"""Chinook through three revisions, there, back and there again, under thousands of random edits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.acceptance import chinook, chinook_model
from tests.acceptance.chinook_edits import Editor, NewEditor
from tests.acceptance.chinook_model import NEW, OLD, Side, differences, forward, read, unused_media
from tests.acceptance.shelf import Shelf

EDITS = int(os.environ.get("DBSYNC_TEST_CHINOOK_EDITS", "2000"))
"""How many random edits each leg of the story makes."""
CHECKPOINTS = max(2, EDITS // 1000)
SEED = int(os.environ.get("DBSYNC_TEST_CHINOOK_SEED", "20261124"))


def adopt(shelf: Shelf) -> None:
    """blue is taken as it is, green gets the same schema by hand and follows; then all three revisions at once."""
    chinook.blue_database(shelf.folder / "blue.db")
    shelf.dbsync("init --active blue")
    shelf.dbsync("migrate --target blue --stamp 0001")
    shelf.copy_schema("blue", "green")
    shelf.dbsync("migrate --target green --stamp 0001")
    shelf.dbsync("sync --once")
    shelf.write("migrations/versions", chinook.REVISIONS)
    shelf.write("etl", chinook.CROSSINGS)
    assert shelf.dbsync("migrate --target idle")["ran"] == ["0002", "0003", "0004"]
    shelf.dbsync("sync --once")


def edit(shelf: Shelf, editor: Editor, check: Callable[[], None]) -> None:
    """Random edits while a follower follows; at every checkpoint the editor pauses and both sides are compared."""
    with shelf.follower():
        for _ in range(CHECKPOINTS):
            editor.run(EDITS // CHECKPOINTS)
            shelf.dbsync("sync --once")
            check()


def compared(shelf: Shelf, wanted: Callable[[Side, Side], Side], toward: str) -> None:
    """Both sides as they are; the one that follows holds what plain Python makes of the other one."""
    blue, green = read(shelf.folder / "blue.db", OLD), read(shelf.folder / "green.db", NEW)
    assert differences(wanted(blue, green), blue if toward == "blue" else green) == []


def test_chinook_goes_over_comes_back_and_goes_over_again_and_nothing_is_lost(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    blue, green = tmp_path / "blue.db", tmp_path / "green.db"
    adopt(shelf)
    first = Editor(blue, SEED)
    compared(shelf, lambda old, _: forward(old), "green")
    edit(shelf, first, lambda: compared(shelf, lambda old, _: forward(old), "green"))
    assert shelf.dbsync("verify")["equal"]
    shelf.dbsync("cutover")

    unused = unused_media(read(blue, OLD))
    second = NewEditor(green, SEED + 1, frozenset(number for (number,) in unused))
    edit(shelf, second, lambda: compared(shelf, lambda _, new: chinook_model.back(new, unused), "blue"))
    assert shelf.dbsync("verify")["equal"]
    before = read(green, NEW)
    shelf.dbsync("rollback")
    assert read(green, NEW) == before

    third = Editor(blue, SEED + 2)
    edit(shelf, third, lambda: compared(shelf, lambda old, _: kept(old, before, third.gone), "green"))
    assert shelf.dbsync("verify")["equal"]
    shelf.dbsync("cutover")
    compared(shelf, lambda old, _: kept(old, before, third.gone), "green")
    held = [key for key, row in before["Track"].items() if row["duration_s"] * 1000 % 1]
    there = read(green, NEW)["Track"]
    assert sum(there[key]["duration_s"] == before["Track"][key]["duration_s"] for key in held if key in there) > 10


def kept(blue: Side, before: Side, gone: set[tuple[str, int]]) -> Side:
    """What green must hold of blue after it was live: what only it can hold stands where blue left the row alone."""
    green = forward(blue)
    for key, row in before["Track"].items():
        now = blue["Track"].get(key)
        same = now is not None and now["Milliseconds"] == chinook_model.milliseconds(row["duration_s"])
        if same and ("Track", *key) not in gone:
            green["Track"][key]["duration_s"] = row["duration_s"]
    covers = {key: row["cover"] for key, row in before["Playlist"].items() if ("Playlist", *key) not in gone}
    green["Playlist"] = {key: row | {"cover": covers.get(key)} for key, row in green["Playlist"].items()}
    return green
