"""The Database socket: what jobs extract and load. Every test runs over the twin and over every real adapter."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from dbsync.errors import ConfigError
from dbsync.model import Loaded, Role, Row
from tests.contract.rig import Rig, Side

SEAT = ("id", "hall", "place")


def extracted(side: Side, sql: str, size: int = 100, **parameters: object) -> list[Row]:
    with side.db.view() as view:
        return [row for part in view.extract(sql, parameters, size) for row in part.rows]


def loaded(
    rig: Rig, table: str, columns: tuple[str, ...], rows: list[Row], key: tuple[str, ...], mode: str = "upsert"
) -> Loaded:
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        return transaction.load_rows(table, columns, rows, key, mode)


def test_the_clock_of_a_view_does_not_go_on_after_its_snapshot(rig: Rig) -> None:
    with rig.blue.db.view() as view:
        for _ in itertools.takewhile(lambda _: later(rig, view.now()), itertools.count()):
            pass
        assert view.now().tzinfo is not None
        rig.blue.put("country", {"code": "XX", "name": "afterwards"})
        with rig.blue.db.view() as after:
            assert view.now() < after.now()
        assert view.now() == view.now()


def later(rig: Rig, moment: datetime) -> bool:
    """Whether the clock has not yet moved on from a moment."""
    rig.pass_time(1)
    with rig.blue.db.view() as view:
        return view.now() <= moment


def test_an_extract_comes_in_batches_with_the_names_of_its_columns(rig: Rig) -> None:
    for number in range(7):
        rig.blue.put("ticket", {"id": number, "subject": f"no {number}"})
    with rig.blue.db.view() as view:
        parts = list(view.extract('SELECT id AS "number", subject FROM ticket', {}, 3))
    assert [len(part.rows) for part in parts if part.rows] == [3, 3, 1]
    assert {part.columns for part in parts} == {("number", "subject")}
    assert [row for part in parts for row in part.rows] == [(n, f"no {n}") for n in range(7)]


def test_an_extract_without_rows_still_names_its_columns(rig: Rig) -> None:
    with rig.blue.db.view() as view:
        parts = list(view.extract("SELECT id, subject FROM ticket", {}, 3))
    assert [(part.columns, list(part.rows)) for part in parts] == [(("id", "subject"), [])]


def test_time_bounds_take_the_first_moment_in_and_leave_the_second_out(rig: Rig) -> None:
    noon = datetime(2024, 2, 29, 12, tzinfo=UTC)
    for number in range(4):
        stamp = (noon + timedelta(microseconds=number)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rig.blue.put("ticket", {"id": number, "subject": stamp})
    sql = "SELECT id FROM ticket WHERE subject >= :since AND subject < :until"
    bounds = {"since": noon + timedelta(microseconds=1), "until": noon + timedelta(microseconds=3)}
    assert extracted(rig.blue, sql, **bounds) == [(1,), (2,)]
    everything = {"since": datetime(1, 1, 1, tzinfo=UTC), "until": datetime(9999, 12, 31, tzinfo=UTC)}
    assert extracted(rig.blue, sql, **everything) == [(0,), (1,), (2,), (3,)]


def test_a_moment_of_another_zone_is_bound_in_utc(rig: Rig) -> None:
    rig.blue.put("ticket", {"id": 1, "subject": "2024-02-29 12:00:00.000000"})
    here = datetime.fromisoformat("2024-02-29T14:00:00+02:00")
    sql = "SELECT id FROM ticket WHERE subject >= :since AND subject < :until"
    assert extracted(rig.blue, sql, since=here, until=here + timedelta(seconds=1)) == [(1,)]
    assert extracted(rig.blue, sql, since=here + timedelta(seconds=1), until=here + timedelta(hours=3)) == []


def test_a_key_list_is_extracted_and_an_empty_one_gives_nothing(rig: Rig) -> None:
    for number in range(5):
        rig.blue.put("ticket", {"id": number, "subject": "s"})
    sql = "SELECT id FROM ticket WHERE id IN (:keys)"
    assert sorted(extracted(rig.blue, sql, keys=[(1,), (3,), (9,)])) == [(1,), (3,)]
    assert extracted(rig.blue, sql, keys=[]) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM ticket",
        "SELECT id FROM nowhere",
        "SELECT id, id FROM ticket",
        "DELETE FROM ticket",
        "not even a statement",
    ],
)
def test_an_extract_that_cannot_be_read_is_refused(rig: Rig, sql: str) -> None:
    rig.blue.put("ticket", {"id": 1, "subject": "stays"})
    with pytest.raises(ConfigError) as refused:
        extracted(rig.blue, sql)
    assert refused.value.code == "broken-job"
    assert rig.rows(rig.blue, "ticket") == [(1, "stays")]


def test_upsert_overwrites_what_it_names_and_leaves_the_rest(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 1, 1), (2, 1, 2)])
    done = loaded(rig, "seat", SEAT, [(2, 9, 9), (3, 2, 2)], ("id",))
    assert (done.written, done.rejected) == (2, ())
    assert rig.rows(rig.green, "seat") == [(1, 1, 1), (2, 9, 9), (3, 2, 2)]
    loaded(rig, "seat", ("id", "place"), [(3, 7)], ("id",))
    assert rig.rows(rig.green, "seat")[-1] == (3, 2, 7)


def test_append_leaves_a_key_that_is_there_alone(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 1, 1)])
    done = loaded(rig, "seat", SEAT, [(1, 9, 9), (2, 2, 2)], ("id",), "append")
    assert (done.written, done.rejected) == (1, ())
    assert rig.rows(rig.green, "seat") == [(1, 1, 1), (2, 2, 2)]


def test_unique_columns_serve_as_a_key(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 1, 1)])
    done = loaded(rig, "seat", SEAT, [(1, 1, 1), (5, 2, 2)], ("place", "hall"))
    assert done.rejected == ()
    assert rig.rows(rig.green, "seat") == [(1, 1, 1), (5, 2, 2)]


def test_a_row_that_is_not_taken_is_set_aside_and_the_others_are_loaded(rig: Rig) -> None:
    rows: list[Row] = [(1, 1, 1), (2, None, 1), (3, 1, 1), (4, 4, 4)]
    done = loaded(rig, "seat", SEAT, rows, ("id",))
    assert done.written == 2
    assert [one.row for one in done.rejected] == [(2, None, 1), (3, 1, 1)]
    assert all(one.reason for one in done.rejected)
    assert rig.rows(rig.green, "seat") == [(1, 1, 1), (4, 4, 4)]


@pytest.mark.parametrize(
    ("table", "columns", "key", "code"),
    [
        ("nowhere", ("id",), ("id",), "unknown-table"),
        ("seat", (*SEAT, "row"), ("id",), "broken-job"),
        ("seat", ("hall", "place"), ("id",), "broken-job"),
        ("seat", SEAT, ("hall",), "broken-job"),
        ("ticket", ("id", "subject"), ("subject",), "broken-job"),
    ],
)
def test_a_table_or_key_that_cannot_serve_is_refused(
    rig: Rig, table: str, columns: tuple[str, ...], key: tuple[str, ...], code: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(rig, table, columns, [], key)
    assert refused.value.code == code


def test_clear_empties_a_table_and_an_exception_brings_it_back(rig: Rig) -> None:
    rig.fill(rig.green, "seat", [(1, 1, 1), (2, 1, 2)])
    with pytest.raises(ZeroDivisionError), rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.clear("seat")
        raise ZeroDivisionError
    assert len(rig.rows(rig.green, "seat")) == 2
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.clear("seat")
    assert rig.rows(rig.green, "seat") == []
