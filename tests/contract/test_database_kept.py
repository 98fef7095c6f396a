"""The Database socket: values that are kept beside rows, and come back where their base still holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbsync.errors import Refused
from dbsync.model import Kept, Key, Relation, Role, Value
from dbsync.ports import Database
from tests.contract.rig import Rig, by_name, position

PRICE = Kept("price", ("no", "doc"), "Line", "Price")
LINES = [(1, 10, 2.5), (2, 3, None), (3, 3, 0.0)]


@pytest.fixture
def lines(rig: Rig) -> Relation:
    """The lines of green, with what is kept for their prices; its key's columns stand in another order."""
    rig.fill(rig.green, "line", LINES)
    return replace(by_name(rig.shapes["line"]), kept=(PRICE,))


def keep(db: Database, *rows: tuple[Key, Value, Value], gone: tuple[Key, ...] = ()) -> None:
    with db.writing(Role.IDLE, 1) as transaction:
        transaction.keep("Line", "Price", rows, gone)


def read(db: Database, relation: Relation) -> list[tuple[Value, ...]]:
    with db.view() as view:
        return sorted(view.by_range(relation, None, None))


def test_a_value_comes_back_exactly_where_its_base_still_holds(rig: Rig, lines: Relation) -> None:
    keep(rig.green.db, ((10, 1), 2.4999, 2.5), ((3, 2), "kept", None), ((3, 3), 7, 0.5))
    assert read(rig.green.db, lines) == [(1, 10, 2.4999), (2, 3, "kept"), (3, 3, 0.0)]
    assert read(rig.green.db, replace(lines, kept=())) == LINES
    with rig.green.db.view() as view:
        assert view.by_keys(lines, [(10, 1)]) == [(1, 10, 2.4999)]
        assert view.by_keys(lines, [(3, 3)]) == [(3, 3, 0.0)]
        assert view.count(lines) == 3


def test_a_base_of_another_type_is_another_base(rig: Rig, lines: Relation) -> None:
    keep(rig.green.db, ((3, 3), 0.25, 0), ((3, 2), "x", ""))
    assert read(rig.green.db, lines) == LINES


def test_kept_again_it_is_replaced_and_gone_it_is_forgotten(rig: Rig, lines: Relation) -> None:
    keep(rig.green.db, ((10, 1), 1.0, 2.5), ((3, 3), 1.0, 0.0))
    with rig.green.db.view() as view:
        assert view.kept() == {("Line", "Price"): 2}
    keep(rig.green.db, ((10, 1), None, 2.5), gone=((3, 3), (9, 9)))
    assert read(rig.green.db, lines) == [(1, 10, None), (2, 3, None), (3, 3, 0.0)]
    with rig.green.db.view() as view:
        assert view.kept() == {("Line", "Price"): 1}
    keep(rig.green.db, gone=((10, 1),))
    with rig.green.db.view() as view:
        assert view.kept() == {}


def test_names_and_keys_say_what_is_kept_and_the_word_of_a_key_is_what_counts(rig: Rig) -> None:
    rig.fill(rig.green, "country", [("SI", "Slovenija")])
    relation = replace(by_name(rig.shapes["country"]), kept=(Kept("name", ("code",), "land", "title", _lower),))
    with rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.keep("land", "title", [(("si",), "Slovenija, lepa", "Slovenija")])
        transaction.keep("land", "name", [(("si",), "another column", "Slovenija")])
        transaction.keep("country", "title", [(("si",), "another table", "Slovenija")])
        assert transaction.by_keys(relation, [("SI",)]) == [("SI", "Slovenija, lepa")]
    some = replace(relation, columns=("name",), key=("name",), sql='SELECT "name" FROM "country"')
    assert read(rig.green.db, some) == [("Slovenija",)]


def _lower(key: Key) -> Key:
    return tuple(str(part).lower() for part in key)


def test_keeping_is_no_change_and_goes_with_its_transaction(rig: Rig, lines: Relation) -> None:
    before, shape = position(rig.green.db), rig.green.db.fingerprint()
    with pytest.raises(KeyError), rig.green.db.writing(Role.IDLE, 1) as transaction:
        transaction.keep("Line", "Price", [((10, 1), 9.0, 2.5)])
        assert transaction.by_keys(lines, [(10, 1)]) == [(1, 10, 9.0)]
        raise KeyError
    assert read(rig.green.db, lines) == LINES
    keep(rig.green.db, ((10, 1), 9.0, 2.5))
    assert (position(rig.green.db), rig.green.db.fingerprint()) == (before, shape)
    assert rig.green.db.catalog().tables.keys() == rig.shapes.keys()


def test_forgetting_wants_the_live_side_at_its_epoch_open_or_fenced(rig: Rig) -> None:
    rig.fill(rig.blue, "line", LINES, Role.ACTIVE)
    lines = replace(by_name(rig.shapes["line"]), kept=(PRICE,))
    with rig.blue.db.writing(Role.ACTIVE, 1) as transaction:
        transaction.keep("Line", "Price", [((10, 1), 9.0, 2.5), ((3, 3), 9.0, 0.0)])
    before = position(rig.blue.db)
    for db, epoch in ((rig.green.db, 1), (rig.blue.db, 2), (rig.blue.db, 0)):
        with pytest.raises(Refused) as refused:
            db.forget(epoch, [PRICE], [(10, 1)])
        assert refused.value.code == "role-changed"
    rig.blue.db.forget(1, [PRICE], [(10, 1)])
    assert read(rig.blue.db, lines) == [(1, 10, 2.5), (2, 3, None), (3, 3, 9.0)]
    rig.blue.db.fence(1, "me", 30.0, 1.0)
    rig.blue.db.forget(1, [PRICE], [(10, 1), (3, 3)])
    assert read(rig.blue.db, lines) == LINES
    assert position(rig.blue.db) == before
