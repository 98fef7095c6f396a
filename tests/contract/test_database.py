"""The Database socket: shape, reading, history. Every test runs over the twin and over every real adapter."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbsync.adapters.memory_rows import ordered
from dbsync.errors import ConfigError, PositionLost, Refused
from dbsync.model import Fact, GuardState, Key, Relation, Role
from tests.contract.rig import SAMPLES, SHAPES, Rig, by_name, changes, guard_of, position, touched

# --- installing and removing -------------------------------------------------------------------------


def test_install_is_idempotent_and_names_what_it_created(bare: Rig) -> None:
    created = bare.blue.db.install("blue")
    assert created and all(isinstance(name, str) for name in created)
    identity = guard_of(bare.blue).identity
    assert bare.blue.db.install("blue") == ()
    assert guard_of(bare.blue).identity == identity


def test_before_install_there_is_no_guard_and_the_application_writes(bare: Rig) -> None:
    assert bare.blue.db.guard() is None
    bare.blue.put("country", {"code": "SI", "name": "Slovenija"})
    with bare.blue.db.view() as view:
        assert view.guard() is None
    assert bare.rows(bare.blue, "country") == [("SI", "Slovenija")]


def test_before_install_writing_is_refused(bare: Rig) -> None:
    with pytest.raises(Refused) as refused, bare.blue.db.writing(Role.ACTIVE, 1):
        pass
    assert refused.value.code in {"not-initialised", "role-changed"}


def test_install_opens_the_live_side_and_closes_the_other(rig: Rig) -> None:
    blue, green = guard_of(rig.blue), guard_of(rig.green)
    assert (blue.state, blue.name, blue.live, blue.epoch) == (GuardState.OPEN, "blue", "blue", 1)
    assert (green.state, green.name, green.live, green.epoch) == (GuardState.CLOSED, "green", "blue", 1)
    assert blue.identity != green.identity
    assert blue.accepts and not green.accepts


def test_install_may_begin_at_a_later_epoch(bare: Rig) -> None:
    bare.blue.db.install("blue", epoch=7)
    assert guard_of(bare.blue).epoch == 7


def test_install_never_changes_who_is_live(rig: Rig) -> None:
    rig.blue.db.install("green", epoch=9)
    assert guard_of(rig.blue).state is GuardState.OPEN
    assert guard_of(rig.blue).epoch == 1


def test_remove_leaves_nothing_and_names_what_went(rig: Rig) -> None:
    shape = rig.green.db.catalog().tables
    assert rig.green.db.remove()
    assert rig.green.db.guard() is None
    assert rig.green.db.catalog().tables == shape
    rig.green.put("country", {"code": "AT", "name": "Österreich"})
    assert rig.rows(rig.green, "country") == [("AT", "Österreich")]
    assert rig.green.db.remove() == ()


def test_installing_again_after_a_removal_makes_another_history(rig: Rig) -> None:
    rig.blue.put("country", {"code": "SI"})
    old = position(rig.blue.db)
    rig.blue.db.remove()
    rig.blue.db.install("blue")
    with pytest.raises(PositionLost):
        changes(rig.blue.db, old)


# --- shape -------------------------------------------------------------------------------------------


def test_the_catalog_holds_the_users_tables_and_nothing_else(rig: Rig) -> None:
    catalog = rig.blue.db.catalog()
    assert set(catalog.tables) == set(SHAPES)
    assert catalog.revision is None


@pytest.mark.parametrize("name", SHAPES)
def test_the_catalog_says_columns_keys_and_uniques(rig: Rig, name: str) -> None:
    found, wanted = rig.blue.db.catalog().tables[name], rig.shapes[name]
    assert found.stored == wanted.stored
    assert found.key == wanted.key
    assert set(found.uniques) == set(wanted.uniques)
    assert set(found.foreign_keys) == set(wanted.foreign_keys)
    assert [column.type for column in found.columns] == [column.type for column in wanted.columns]
    assert [column.default for column in found.columns] == [column.default for column in wanted.columns]


def test_a_key_in_another_order_than_the_columns_keeps_its_order(rig: Rig) -> None:
    assert rig.blue.db.catalog().tables["line"].key == ("no", "doc")


def test_both_sides_of_one_shape_have_equal_tables(rig: Rig) -> None:
    assert rig.blue.db.catalog().tables == rig.green.db.catalog().tables


def test_the_address_names_the_place_and_capabilities_a_dialect(rig: Rig) -> None:
    assert rig.blue.db.address != rig.green.db.address
    assert rig.blue.db.capabilities.dialect
    assert rig.blue.db.name == "blue"


def test_a_fingerprint_stays_while_rows_change(rig: Rig) -> None:
    before = rig.blue.db.fingerprint()
    rig.blue.put("country", {"code": "SI"})
    rig.fill(rig.green, "country", [("SI", None)])
    assert rig.blue.db.fingerprint() == before


def test_a_guard_that_was_dropped_and_put_back_shows_in_the_fingerprint(rig: Rig) -> None:
    before = rig.blue.db.fingerprint()
    rig.blue.disturb_guard()
    assert rig.blue.db.fingerprint() != before


def test_reads_gives_the_table_and_column_pairs(rig: Rig) -> None:
    found = rig.blue.db.reads('SELECT "name", "code" FROM "country"')
    assert found == {("country", "name"), ("country", "code")}


def test_reads_refuses_a_column_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(ConfigError):
        rig.blue.db.reads("SELECT q.planet FROM country AS q")


def test_examine_changes_nothing_and_finds_no_blocker_here(rig: Rig) -> None:
    before, print_before = position(rig.blue.db), rig.blue.db.fingerprint()
    checks = rig.blue.db.examine()
    assert [check for check in checks if check.severity.value == "blocker"] == []
    assert position(rig.blue.db) == before
    assert rig.blue.db.fingerprint() == print_before


def test_nothing_is_excluded_here(rig: Rig) -> None:
    assert rig.blue.db.excluded() == ()


# --- reading rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_rows_come_back_as_written_ordered_by_key(rig: Rig, name: str) -> None:
    rig.fill(rig.green, name, SAMPLES[name])
    places = by_name(rig.shapes[name]).places()
    wanted = sorted(SAMPLES[name], key=lambda row: ordered(tuple(row[place] for place in places)))
    assert rig.rows(rig.green, name) == wanted


@pytest.mark.parametrize("name", SAMPLES)
def test_by_keys_gives_each_row_once_and_nothing_for_absent_keys(rig: Rig, name: str) -> None:
    rig.fill(rig.green, name, SAMPLES[name])
    relation = by_name(rig.shapes[name])
    keys: list[Key] = [tuple(row[place] for place in relation.places()) for row in SAMPLES[name]]
    absent: Key = tuple(b"absent" if name == "file" else -77 for _ in relation.key)
    with rig.green.db.view() as view:
        found = view.by_keys(relation, [*keys, keys[0], absent])
        assert sorted(map(repr, found)) == sorted(map(repr, SAMPLES[name]))
        assert view.by_keys(relation, []) == []
        assert view.count(relation) == len(SAMPLES[name])


def test_a_relation_may_name_some_columns_in_another_order(rig: Rig) -> None:
    rig.fill(rig.green, "line", SAMPLES["line"])
    relation = by_name(rig.shapes["line"], ("price", "no", "doc"))
    with rig.green.db.view() as view:
        assert view.by_range(relation, None, (3, 2)) == [(None, 3, 2)]


def test_a_relation_may_rename_columns_and_its_key_is_then_the_new_name(rig: Rig) -> None:
    rig.fill(rig.green, "country", [("SI", "Slovenija"), ("AT", None)])
    sql = 'SELECT q."name" AS "text", q."code" AS "the key" FROM "country" AS q'
    renamed = Relation("land", ("text", "the key"), ("the key",), sql)
    with rig.green.db.view() as view:
        assert view.by_range(renamed, None, None) == [(None, "AT"), ("Slovenija", "SI")]
        assert view.by_range(renamed, ("AT",), None) == view.by_keys(renamed, [("SI",)]) == [("Slovenija", "SI")]
        assert view.count(renamed) == 2


def test_a_row_function_maps_each_row_to_none_one_or_several(rig: Rig) -> None:
    rig.fill(rig.green, "country", [("SI", "one"), ("AT", "none"), ("DE", "two")])
    made = {"one": 1, "none": 0, "two": 2}
    relation = by_name(rig.shapes["country"])
    mapped = type(relation)(
        relation.table, relation.columns, relation.key, relation.sql,
        lambda row: [{"code": row["code"], "name": str(number)} for number in range(made[row["name"]])],
    )  # fmt: skip
    with rig.green.db.view() as view:
        assert sorted(view.by_keys(mapped, [("SI",), ("AT",), ("DE",)])) == [("DE", "0"), ("DE", "1"), ("SI", "0")]
        assert len(view.by_range(mapped, None, None)) == 3


ENDS = st.none() | st.text(alphabet="aBž 0", max_size=2)
CODES = st.lists(st.text(alphabet="aBž 0%_'", max_size=3), unique=True, max_size=12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=CODES, after=ENDS, upto=ENDS)
def test_ranges_keys_and_count_agree(rig: Rig, codes: list[str], after: str | None, upto: str | None) -> None:
    relation = by_name(rig.shapes["country"])
    low, high = (None if end is None else (end,) for end in (after, upto))
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.delete("country", [row[:1] for row in transaction.by_range(relation, None, None)])
        transaction.upsert("country", ("code", "name"), [(code, code) for code in codes])
        everything = transaction.by_range(relation, None, None)
        part = transaction.by_range(relation, low, high)
        inside = [
            code for code in codes
            if (after is None or ordered((code,)) > ordered((after,)))
            and (upto is None or ordered((code,)) <= ordered((upto,)))
        ]  # fmt: skip
        assert [row[0] for row in part] == sorted(inside, key=lambda code: code.encode())
        assert transaction.by_range(relation, low, high, 2) == part[:2]
        assert sorted(transaction.by_keys(relation, [(code,) for code in codes])) == sorted(everything)
        assert transaction.count(relation) == len(everything) == len(codes)


def test_composite_ranges_compare_by_the_keys_order(rig: Rig) -> None:
    rig.fill(rig.green, "line", [(doc, no, None) for doc in range(4) for no in range(4)])
    relation = by_name(rig.shapes["line"])
    with rig.green.db.view() as view:
        part = view.by_range(relation, (1, 2), (3, 0))
    assert [(no, doc) for doc, no, _ in part] == [(1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]


def test_a_view_is_a_consistent_snapshot_while_writers_go_on(rig: Rig) -> None:
    rig.blue.put("country", {"code": "SI", "name": "before"})
    relation = by_name(rig.shapes["country"])
    with rig.blue.db.view() as view:
        start = view.position()
        seen = view.count(relation)
        writer = threading.Thread(target=lambda: rig.blue.put("country", {"code": "AT", "name": "during"}))
        writer.start()
        writer.join()
        rig.blue.put("country", {"code": "SI", "name": "after"})
        assert view.count(relation) == seen == 1
        assert view.by_keys(relation, [("SI",), ("AT",)]) == [("SI", "before")]
        assert view.position() == start
        assert view.changes(start).count == 0
    assert touched(changes(rig.blue.db, start)) == {"country": {("SI",), ("AT",)}}


def test_scratch_is_empty_private_and_gives_the_tables_types(rig: Rig) -> None:
    rig.blue.put("line", {"doc": 1, "no": 1, "price": 1})
    shape = rig.shapes["line"]
    with rig.blue.db.scratch([shape]) as scratch:
        assert scratch.count(by_name(shape)) == 0
        scratch.fill("line", ("doc", "no", "price"), [("7", 8, "2"), (1, 1, None)])
        found = scratch.by_range(by_name(shape), None, None)
        assert found == [(1, 1, None), (7, 8, 2.0)]
        assert isinstance(found[1][2], float)
    assert rig.rows(rig.blue, "line") == [(1, 1, 1.0)]


# --- journal, locks, time ----------------------------------------------------------------------------


def test_the_journal_keeps_the_order_and_gives_the_newest(rig: Rig) -> None:
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    for number in range(4):
        rig.green.db.record(Fact("step", at + timedelta(seconds=number), 3, "me", {"n": number, "text": "ž"}))
    everything = rig.green.db.journal()
    assert [fact.data["n"] for fact in everything] == [0, 1, 2, 3]
    assert [fact.data["n"] for fact in rig.green.db.journal(2)] == [2, 3]
    first = everything[0]
    assert (first.kind, first.at, first.epoch, first.owner) == ("step", at, 3, "me")
    assert first.data == {"n": 0, "text": "ž"}
    assert first.database == "green"


def test_a_lock_excludes_and_is_free_again_afterwards(rig: Rig) -> None:
    with rig.blue.db.lock("cutover", 0.0):
        with pytest.raises(Refused) as refused, rig.blue.db.lock("cutover", 0.0):
            pass
        assert refused.value.code == "cutover-running"
        with rig.blue.db.lock("migrate", 0.0), rig.green.db.lock("cutover", 0.0):
            pass
    with rig.blue.db.lock("cutover", 0.0):
        pass


def test_a_lock_goes_when_its_holder_fails(rig: Rig) -> None:
    with pytest.raises(KeyError), rig.blue.db.lock("cutover", 0.0):
        raise KeyError
    with rig.blue.db.lock("cutover", 0.0):
        pass


def test_a_round_trip_takes_time_and_changes_nothing(rig: Rig) -> None:
    before = position(rig.blue.db)
    assert 0.0 < rig.blue.db.round_trip() < 5.0
    assert position(rig.blue.db) == before


def test_settled_is_false_while_the_application_writes(rig: Rig) -> None:
    assert rig.blue.db.settled(0.0)
    with rig.blue.transaction() as transaction:
        transaction.put("country", {"code": "SI"})
        assert not rig.blue.db.settled(0.02)
    assert rig.blue.db.settled(0.5)
