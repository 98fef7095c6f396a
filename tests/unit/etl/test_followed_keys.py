"""Changed keys on real files: both states are asked, and partial keys become whole ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbsync.errors import ConfigError, Refused
from dbsync.etl import Crossing
from dbsync.sync import snapshot
from tests.unit.etl.music import FORWARD, NEW, OLD, Music
from tests.unit.sync.files import Files

FIRST = (
    "INSERT INTO Album VALUES (1, 'one'), (2, 'two')",
    "INSERT INTO Track VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c')",
    "INSERT INTO Land VALUES ('de', 'D'), ('se', 'S')",
    "INSERT INTO Customer VALUES (1, 'Ann', 'D', 'x,y,z', '1', '2'), (2, 'Bo', 'S', NULL, NULL, '3')",
    "INSERT INTO Customer VALUES (3, 'Cy', 'D', 'q', NULL, NULL)",
    "INSERT INTO Line VALUES (1, 1, 10, NULL), (1, 2, 20, NULL)",
    "INSERT INTO Rebate VALUES (1, 2, 'half')",
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path, (OLD, NEW))
    made.crossed = Music()  # type: ignore[assignment]
    for sql in FIRST:
        made.write(sql)
    made.pump().drain()
    yield made
    made.dispose()


def follow(files: Files, *edits: str) -> None:
    """Write on the active side, apply the window, and look at the whole: nothing may have been overlooked."""
    for sql in edits:
        files.write(sql)
    files.pump().drain()
    report = files.verify()
    assert report.equal and not report.hot, report


def green(files: Files, sql: str) -> list[tuple[Any, ...]]:
    return list(files.rows("green", sql))


def test_a_row_that_moves_from_one_parent_to_another_touches_both(files: Files) -> None:
    assert green(files, "SELECT album_id, tracks FROM album") == [(1, 2), (2, 1)]
    follow(files, "UPDATE Track SET AlbumId = 2 WHERE TrackId = 1")
    assert green(files, "SELECT album_id, tracks FROM album") == [(1, 1), (2, 2)]
    follow(files, "DELETE FROM Track WHERE TrackId = 3")
    assert green(files, "SELECT album_id, tracks FROM album") == [(1, 1), (2, 1)]


def test_the_last_row_of_a_text_takes_the_row_that_stands_for_it_with_it(files: Files) -> None:
    assert green(files, "SELECT name FROM country ORDER BY 1") == [("D",), ("S",)]
    follow(files, "UPDATE Customer SET Country = 'N' WHERE CustomerId = 2")
    assert green(files, "SELECT name FROM country ORDER BY 1") == [("D",), ("N",)]
    follow(files, "DELETE FROM Customer WHERE CustomerId IN (1, 3)")
    assert green(files, "SELECT name FROM country ORDER BY 1") == [("N",)]


def test_renaming_what_is_looked_up_by_its_name_touches_those_of_the_old_and_of_the_new_name(files: Files) -> None:
    follow(files, "UPDATE Customer SET Country = 'T' WHERE CustomerId = 3")
    assert green(files, "SELECT id, land_code FROM person") == [(1, "de"), (2, "se"), (3, None)]
    follow(files, "UPDATE Land SET LandName = 'T' WHERE Code = 'de'")
    assert green(files, "SELECT id, land_code FROM person") == [(1, None), (2, "se"), (3, "de")]
    follow(files, "DELETE FROM Land WHERE Code = 'de'")
    assert green(files, "SELECT id, land_code FROM person") == [(1, None), (2, "se"), (3, None)]


def test_children_that_are_no_longer_made_are_deleted_whether_sql_or_a_generator_makes_them(files: Files) -> None:
    assert green(files, "SELECT * FROM tag") == [(1, 1, "x"), (1, 2, "y"), (1, 3, "z"), (3, 1, "q")]
    assert green(files, "SELECT * FROM phone") == [(1, "home", "1"), (1, "work", "2"), (2, "work", "3")]
    follow(files, "UPDATE Customer SET Tags = 'y', Home = NULL WHERE CustomerId = 1")
    assert green(files, "SELECT * FROM tag") == [(1, 1, "y"), (3, 1, "q")]
    assert green(files, "SELECT * FROM phone WHERE person_id = 1") == [(1, "work", "2")]
    follow(files, "DELETE FROM Customer WHERE CustomerId = 1", "UPDATE Customer SET Tags = 'a,b' WHERE CustomerId = 2")
    assert green(files, "SELECT * FROM tag ORDER BY 1, 2") == [(2, 1, "a"), (2, 2, "b"), (3, 1, "q")]


def test_a_composite_key_goes_into_a_query_as_several_columns(files: Files) -> None:
    assert green(files, "SELECT nr, note FROM line") == [(1, None), (2, "half")]
    follow(files, "UPDATE Rebate SET Nr = 1", "DELETE FROM Line WHERE Nr = 3")
    assert green(files, "SELECT nr, note FROM line") == [(1, "half"), (2, None)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_chunk_may_end_between_the_rows_that_one_source_row_gives(
    files: Files, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "FIRST_ROWS", size)
    monkeypatch.setattr(snapshot, "MOST_ROWS", size)
    files.tamper("DELETE FROM tag")
    files.tamper("INSERT INTO tag VALUES (1, 9, 'w'), (7, 1, 'w')")
    files.pump().ensure_snapshot(force=True)
    assert green(files, "SELECT count(*), max(nr) FROM tag") == [(4, 3)]
    assert files.verify().equal


def test_a_generator_that_gives_two_rows_at_one_key_is_refused(files: Files) -> None:
    def twice(row: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"person_id": row["person_id"], "nr": 1, "word": word} for word in "ab"]

    double = [replace(each, row=twice) if each.name == "tag" else each for each in FORWARD.tables]
    files.crossed.forward = Crossing(*double)
    with pytest.raises(Refused) as caught:
        files.pump().ensure_snapshot(force=True)
    assert caught.value.code == "crossing-cardinality"


def test_what_one_row_became_comes_back_into_it_and_an_untouched_row_is_not_written(files: Files) -> None:
    follow(files, "UPDATE Customer SET Tags = 'x,y,z', Name = 'Ann A' WHERE CustomerId = 1")
    files.hand_over()
    files.write("UPDATE tag SET word = 'Y' WHERE person_id = 1 AND nr = 2")
    files.write("DELETE FROM phone WHERE person_id = 2")
    files.write("INSERT INTO phone VALUES (3, 'home', '9')")
    files.write("UPDATE track SET album_id = 2 WHERE track_id = 1")
    files.write("UPDATE album SET tracks = (SELECT count(*) FROM track t WHERE t.album_id = album.album_id)")
    files.write("UPDATE track SET album_title = 'two' WHERE track_id = 1")
    files.write("UPDATE line SET note = NULL WHERE nr = 2")
    done = files.pump().drain()
    assert files.rows("blue", "SELECT CustomerId, Tags, Home, Work FROM Customer") == [
        (1, "x,Y,z", "1", "2"),
        (2, None, None, None),
        (3, "q", "9", None),
    ]
    assert files.rows("blue", "SELECT AlbumId FROM Track WHERE TrackId = 1") == [(2,)]
    assert files.rows("blue", "SELECT * FROM Rebate") == []
    assert done.upserted == 4, "three customers and a track: neither albums nor lines were changed"
    assert files.verify().equal


def test_a_declared_loss_is_told_from_a_difference_where_the_select_looks_something_up(files: Files) -> None:
    upper = [
        replace(each, select=str(each.select).replace("c.Name AS name", "upper(c.Name) AS name"))
        for each in FORWARD.tables
    ]
    loses = [
        replace(each, loses={"Name": "case"}) if each.name == "Customer" else each for each in Music.reverse.tables
    ]
    files.crossed.forward, files.crossed.reverse = Crossing(*upper), Crossing(*loses)
    files.pump().drain()
    files.hand_over()
    files.write("UPDATE person SET name = 'mixed' WHERE id = 1")
    files.pump().drain()
    report = files.verify()
    assert report.equal and {each.name: each.lossy for each in report.tables if each.lossy} == {"person": 1}
    files.tamper("UPDATE Customer SET Country = 'S' WHERE CustomerId = 1")
    assert not files.verify().equal


def test_every_row_of_a_driving_row_that_was_born_anew_is_born_with_it(files: Files) -> None:
    made = files.lens().forward
    with files.active.view() as view:
        born = made.born(view, "Customer", [(1,)])
        touched = made.targets(view, "Customer", [(1,)])
    assert born["tag"] == [(1, 1), (1, 2), (1, 3)] and born["person"] == [(1,)]
    assert sorted(born["phone"]) == [(1, "home"), (1, "work")] and "country" not in born
    assert touched["country"] == [("D",)]
    with pytest.raises(ConfigError, match="changes person_id"), files.active.view() as view:
        view.by_keys(replace(made.tables["tag"].relation, row=lambda row: {"person_id": 9, "nr": 1}), [(1, 1)])


def edited(chance: random.Random) -> str:
    number, other = chance.randint(1, 4), chance.randint(1, 4)
    country = chance.choice(["'D'", "'S'", "'T'", "NULL"])
    tags = chance.choice(["'a,b,c'", "'b'", "'a,c'", "NULL"])
    return chance.choice(
        [
            f"INSERT OR REPLACE INTO Album VALUES ({number}, 'title {other}')",
            f"DELETE FROM Album WHERE AlbumId = {number}",
            f"INSERT OR REPLACE INTO Track VALUES ({number}, {other}, 'n')",
            f"UPDATE Track SET AlbumId = {other} WHERE TrackId = {number}",
            f"DELETE FROM Track WHERE TrackId = {number}",
            f"INSERT OR REPLACE INTO Land VALUES ('{chance.choice('ds')}e', {country})",
            f"DELETE FROM Land WHERE Code = '{chance.choice('ds')}e'",
            f"INSERT OR REPLACE INTO Customer VALUES ({number}, 'N{other}', {country}, {tags}, '1', NULL)",
            f"UPDATE Customer SET Country = {country}, Tags = {tags}, Work = {other} WHERE CustomerId = {number}",
            f"DELETE FROM Customer WHERE CustomerId = {number}",
            f"INSERT OR REPLACE INTO Line VALUES ({number}, {other}, 5, NULL)",
            f"INSERT OR REPLACE INTO Rebate VALUES ({number}, {other}, 'r')",
            f"DELETE FROM Rebate WHERE OrderId = {number}",
        ]
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), windows=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_windows_of_any_edits_leave_what_the_whole_would_give(files: Files, seed: int, windows: list[int]) -> None:
    chance = random.Random(seed)
    pump = files.pump()
    for count in windows:
        with files.application("blue") as connection:
            connection.execute("PRAGMA recursive_triggers = ON")  # so that OR REPLACE is seen by capture
            for _ in range(count):
                connection.execute(edited(chance))
        pump.step()
        with files.active.view() as source, files.idle.view() as idle:
            for name, plan in pump.composition.tables.items():
                whole = source.by_range(plan.relation, None, None)
                held = idle.by_range(plan.stored, None, None)
                assert sorted(map(repr, whole)) == sorted(map(repr, held)), name


def edited_over_there(chance: random.Random) -> list[str]:
    """One edit of the newer shape that the older one can hold: children stand in a row, and have a person."""
    number, nr = chance.randint(1, 3), chance.randint(1, 2)
    person = f"INSERT OR IGNORE INTO person (id, name) VALUES ({number}, 'born')"
    gone = [f"DELETE FROM {name} WHERE person_id = {number}" for name in ("tag", "phone")]
    words = [
        f"INSERT INTO tag VALUES ({number}, {n}, '{chance.choice('xyz')}')" for n in range(1, chance.randint(1, 4))
    ]
    return chance.choice(
        [
            [person, f"UPDATE person SET name = 'N{nr}' WHERE id = {number}"],
            [f"DELETE FROM person WHERE id = {number}", *gone],
            [person, gone[0], *words],
            [person, f"INSERT OR REPLACE INTO phone VALUES ({number}, '{chance.choice(['home', 'work'])}', '{nr}')"],
            [gone[1]],
            [f"INSERT OR REPLACE INTO line VALUES ({number}, {nr}, {number}, {chance.choice(['NULL', chr(39) * 2])})"],
            [f"DELETE FROM line WHERE order_id = {number}"],
        ]
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), windows=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_windows_of_any_edits_come_back_so_that_going_over_again_gives_them(
    files: Files, seed: int, windows: list[int]
) -> None:
    chance = random.Random(seed)
    if files.active.name == "blue":
        files.write("DELETE FROM Customer")
        files.hand_over()
    pump = files.pump()
    for count in windows:
        with files.application("green") as connection:
            connection.execute("PRAGMA recursive_triggers = ON")
            for sql in (sql for _ in range(count) for sql in edited_over_there(chance)):
                connection.execute(sql)
        pump.step()
        with files.active.view() as newer, files.idle.view() as older:
            for name, plan in pump.lens.forward.tables.items():
                whole = older.by_range(plan.relation, None, None)
                held = newer.by_range(plan.stored, None, None)
                assert sorted(map(repr, whole)) == sorted(map(repr, held)), name
