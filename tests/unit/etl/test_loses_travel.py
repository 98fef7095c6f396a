"""A declared loss along several revisions: it stands under the columns that later SELECTs make of the lossy one."""

from __future__ import annotations

from dbsync.etl import Crossing, table
from dbsync.model import Direction
from tests.unit.etl.etl_world import Two, World, composed

OLDER = """
CREATE TABLE Track (id INTEGER PRIMARY KEY, Name TEXT, Ms INTEGER, Tag TEXT);
CREATE TABLE Media (id INTEGER PRIMARY KEY, Name TEXT);
"""
NEWER = "CREATE TABLE track (id INTEGER PRIMARY KEY, name TEXT, seconds REAL, media_id INTEGER, media TEXT);"
LATER = Crossing(
    table(
        "track",
        key={"track": "id"},
        select="SELECT id, name, CAST(seconds * 1000 AS INTEGER) AS milliseconds, media_id, media FROM track",
        loses={"Milliseconds": "parts of a millisecond"},
    )
)


def lost(track: str, media: str) -> dict[str, dict[str, str]]:
    """What going back loses, by table, when the crossing of the step before reads the lossy table so."""
    key = {"track": "SELECT media_id FROM track WHERE id IN (:keys)"}
    before = Crossing(
        table("Track", key={"track": "id"}, select=track),
        table("Media", key=key, cardinality="1:0..1", select=media),
    )
    steps = [("r1", Two(reverse=before)), ("r2", Two(reverse=LATER))]
    made = composed(World(OLDER), World(NEWER), steps, Direction.REVERSE, lenient=True)
    return {name: dict(plan.loses) for name, plan in made.tables.items()}


def test_a_loss_follows_its_column_through_a_renaming_and_an_expression() -> None:
    found = lost(
        "SELECT id, name AS Name, milliseconds AS Ms, 'm' || MILLISECONDS AS Tag FROM track",
        "SELECT DISTINCT media_id AS id, media AS Name FROM track",
    )
    assert found == {"Track": dict.fromkeys(("Ms", "Tag"), "parts of a millisecond"), "Media": {}}


def test_a_loss_that_only_decides_which_rows_there_are_is_still_told() -> None:
    found = lost(
        "SELECT id, name AS Name, 0 AS Ms, NULL AS Tag FROM track",
        "SELECT DISTINCT media_id AS id, media AS Name FROM track AS t WHERE t.milliseconds > 0",
    )
    assert found == {"Track": {}, "Media": {"milliseconds": "parts of a millisecond"}}
