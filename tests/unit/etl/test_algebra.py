"""The laws of dbsync/etl/lens.py, tried out on chains of steps that hypothesis makes up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
import sqlglot
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbsync.adapters.sqlite import SqliteDatabase, staging
from dbsync.adapters.sqlite.catalog import read_catalog
from dbsync.adapters.sqlite.plans import key_table
from dbsync.adapters.sqlite.rows import SqliteScratch
from dbsync.etl import Crossing, table
from dbsync.etl.compose import Composition, compose
from dbsync.etl.run import Applied, Lens, make_lens, put
from dbsync.migrate.shape import to_document
from dbsync.model import Capabilities, Catalog, Direction, Key, Relation, Role, Row
from tests.unit.etl.etl_world import EMBEDDED, Two
from tests.unit.etl.etl_world import Path as Chain
from tests.unit.etl.test_lens_on_files import read, side

Shape = Mapping[str, Mapping[str, str]]
"""Tables, and their columns beside `id` with their types."""

Step = tuple[Two, Shape]
FIRST: Shape = {"t": {"n": "INTEGER", "a": "TEXT", "b": "TEXT"}, "other": {"z": "TEXT"}}


# --- steps: each gives both directions of a revision and the shape after it -----------------------------


def by_name(shape: Shape) -> Step:
    return Two(), shape


def renamed(shape: Shape) -> Step:
    """The first text column of t gets another name."""
    old = next(name for name, kind in shape["t"].items() if kind == "TEXT")
    new = f"{old}_r"
    after = {new if name == old else name: kind for name, kind in shape["t"].items()}
    there = [f"{old} AS {new}" if name == old else name for name in shape["t"]]
    back = [f"{new} AS {old}" if name == old else name for name in shape["t"]]
    return Two(_t(there), _t(back)), {**shape, "t": after}


def computed(shape: Shape) -> Step:
    """A number is moved by one, which a reverse undoes; an expression has no type of its own."""
    there = [f"{name} + 1 AS {name}" if kind == "INTEGER" else name for name, kind in shape["t"].items()]
    back = [f"{name} - 1 AS {name}" if kind == "INTEGER" else name for name, kind in shape["t"].items()]
    return Two(_t(there), _t(back)), shape


def lossy(shape: Shape) -> Step:
    """The last column of t is folded to capital letters: what was small does not come back."""
    name = list(shape["t"])[-1]
    there = [f"upper({each}) AS {each}" if each == name else each for each in shape["t"]]
    return Two(_t(there), _t(list(shape["t"]), loses={name: "it is folded to capital letters"})), shape


def split(shape: Shape) -> Step:
    """The last column of t moves to a table of its own, for the rows that have it."""
    if "u" in shape or len(shape["t"]) < 3:
        return by_name(shape)
    *stay, moves = shape["t"]
    away = f"SELECT id, {moves} FROM t WHERE {moves} IS NOT NULL"
    forward = Crossing(*_t(stay).tables, table("u", key={"t": "id"}, select=away, cardinality="1:0..1"))
    return Two(forward, _joined(stay, [moves])), {
        **shape,
        "t": {name: shape["t"][name] for name in stay},
        "u": {moves: shape["t"][moves]},
    }


def merged(shape: Shape) -> Step:
    """What was split comes together again."""
    if "u" not in shape:
        return by_name(shape)
    rest = {name: kinds for name, kinds in shape.items() if name != "u"}
    return Two(_joined(list(shape["t"]), list(shape["u"]))), {**rest, "t": {**shape["t"], **shape["u"]}}


def some(shape: Shape) -> Step:
    """Only rows with a number go on."""
    select = f"SELECT id, {', '.join(shape['t'])} FROM t WHERE n > 0"
    return Two(Crossing(table("t", key={"t": "id"}, select=select, cardinality="1:0..1"))), shape


def compared(shape: Shape) -> Step:
    """A number is compared with a text: what comes of that depends on the column's type."""
    last = list(shape["t"])[-1]
    gives = [f"CASE WHEN n = '1' THEN 'one' ELSE {name} END AS {name}" if name == last else name for name in shape["t"]]
    return Two(_t(gives)), shape


def mapped(shape: Shape) -> Step:
    """A callable turns the first text round, and makes no row of some."""

    def turned(row: Mapping[str, Any]) -> dict[str, Any] | None:
        name = next(name for name, kind in shape["t"].items() if kind == "TEXT")
        return None if row[name] == "ab" else {**row, name: row[name] and row[name][::-1]}

    select = f"SELECT id, {', '.join(shape['t'])} FROM t"
    return Two(Crossing(table("t", key={"t": "id"}, select=select, cardinality="1:0..1", row=turned))), shape


def _t(gives: Sequence[str], loses: Mapping[str, str] | None = None) -> Crossing:
    return Crossing(table("t", key={"t": "id"}, select=f"SELECT id, {', '.join(gives)} FROM t", loses=loses))


def _joined(stay: Sequence[str], moves: Sequence[str]) -> Crossing:
    gives = ", ".join([f"t.{name}" for name in stay] + [f"u.{name}" for name in moves])
    select = f"SELECT t.id, {gives} FROM t LEFT JOIN u ON u.id = t.id"
    return Crossing(table("t", key={"t": "id", "u": "id"}, select=select))


ONE_WAY = [renamed, computed, compared, lossy, split, merged, some, mapped, by_name]
BOTH_WAYS = [lossy, split, computed, renamed, by_name]

Make = Callable[[Shape], Step]
TEXT = st.sampled_from(["a", "ab", "Ab", "é", "12", "x y", "", None])
NUMBER = st.sampled_from([0, 1, -1, 5, None])
ROWS = st.dictionaries(st.integers(0, 9), st.tuples(NUMBER, TEXT, TEXT), min_size=1, max_size=6)


# --- worlds ------------------------------------------------------------------------------------------


def script(shape: Shape) -> str:
    tables = [
        f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, {', '.join(f'{c} {kind}' for c, kind in columns.items())})"
        for name, columns in shape.items()
    ]
    return ";".join(tables)


class Tables:
    """A database in memory of one shape, read by the real adapter."""

    def __init__(self, shape: Shape) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(script(shape))
        self.connection.execute(key_table())
        self.rows = SqliteScratch(self.connection)
        self.catalog = read_catalog(self.connection)

    def filled(self, rows: Mapping[int, Sequence[Any]]) -> Tables:
        self.rows.fill("t", ("id", "n", "a", "b"), [(key, *rest) for key, rest in rows.items()])
        self.rows.fill("other", ("id", "z"), [(key, "o") for key in rows])
        return self

    def stored(self, made: Composition, shape: Shape) -> Tables:
        """Tables of a later shape that hold what a composition gives."""
        after = Tables(shape)
        for name, plan in made.tables.items():
            after.rows.fill(name, plan.relation.columns, self.rows.by_range(plan.relation, None, None))
        return after

    def content(self, made: Composition) -> dict[str, list[Row]]:
        return {name: self.rows.by_range(plan.relation, None, None) for name, plan in made.tables.items()}


def chain(makes: Sequence[Make]) -> tuple[list[tuple[str, Two]], list[Shape]]:
    shapes: list[Shape] = [FIRST]
    steps = []
    for number, make in enumerate(makes, 1):
        pair, after = make(shapes[-1])
        steps.append((f"r{number}", pair))
        shapes.append(after)
    return steps, shapes


def over(steps: Sequence[tuple[str, Two]], shapes: Sequence[Shape], said: Capabilities = EMBEDDED) -> Composition:
    """The forward composition over these steps; `shapes` stand around them."""
    catalogs: list[Catalog] = [Tables(shape).catalog for shape in shapes]
    known = {revision: catalog for (revision, _), catalog in zip(steps, catalogs[1:], strict=True)}
    return compose(catalogs[0], catalogs[-1], steps, Direction.FORWARD, known, said)


# --- composition -------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(makes=st.lists(st.sampled_from(ONE_WAY), min_size=3, max_size=4), rows=ROWS, cut=st.integers(1, 3))
@example(makes=[computed, compared, by_name], rows={1: (0, "a", "b")}, cut=1)
@example(makes=[mapped, mapped, split, some], rows={1: (1, "ab", "b"), 2: (1, "x y", "é"), 3: (5, "12", None)}, cut=2)
def test_a_path_composed_at_once_gives_what_its_parts_give_over_stored_tables(
    makes: list[Make], rows: dict[int, tuple[Any, ...]], cut: int
) -> None:
    steps, shapes = chain(makes)
    source = Tables(FIRST).filled(rows)
    cut = min(cut, len(steps) - 1)
    between = source.stored(over(steps[:cut], shapes[: cut + 1]), shapes[cut])
    second = over(steps[cut:], shapes[cut:])
    whole = over(steps, shapes)
    assert source.content(whole) == between.content(second)
    assert {name: plan.relation.columns for name, plan in whole.tables.items()} == {
        name: plan.relation.columns for name, plan in second.tables.items()
    }


@settings(max_examples=25, deadline=None)
@given(makes=st.lists(st.sampled_from(ONE_WAY), min_size=1, max_size=3), rows=ROWS, size=st.integers(1, 3))
@example(makes=[mapped, some], rows={n: (n - 3, "x y", "b") for n in range(6)}, size=1)
def test_key_list_key_ranges_and_the_whole_table_give_the_same_rows(
    makes: list[Make], rows: dict[int, tuple[Any, ...]], size: int
) -> None:
    steps, shapes = chain(makes)
    source, made = Tables(FIRST).filled(rows), over(steps, shapes)
    for plan in made.tables.values():
        whole = source.rows.by_range(plan.relation, None, None)
        keys = [(key,) for key in range(10)]
        assert sorted(source.rows.by_keys(plan.relation, keys), key=repr) == sorted(whole, key=repr)
        with patch.object(staging, "PIECE", 1):
            assert list(ranges(source.rows, plan.relation, size)) == whole
        assert source.rows.count(plan.relation) == len(whole)


def ranges(rows: SqliteScratch, relation: Relation, size: int) -> Iterator[Row]:
    after: Key | None = None
    while True:
        part = rows.by_range(relation, after, None, limit=size)
        yield from part
        if len(part) < size:
            return
        after = tuple(part[-1][place] for place in relation.places())


@settings(max_examples=25, deadline=None)
@given(
    makes=st.lists(st.sampled_from(ONE_WAY), min_size=1, max_size=3),
    rows=ROWS,
    key=st.integers(0, 9),
    now=st.none() | st.tuples(NUMBER, TEXT, TEXT),
)
def test_what_a_changed_row_changes_is_among_the_keys_that_it_touches(
    makes: list[Make], rows: dict[int, tuple[Any, ...]], key: int, now: tuple[Any, ...] | None
) -> None:
    steps, shapes = chain(makes)
    made = over(steps, shapes)
    before = Tables(FIRST).filled(rows)
    changed = {**rows, key: now} if now is not None else {k: v for k, v in rows.items() if k != key}
    after = Tables(FIRST).filled(changed)
    touched = made.targets(after.rows, "t", [(key,)])
    for name, plan in made.tables.items():
        differ = set(before.rows.by_range(plan.relation, None, None)) ^ set(
            after.rows.by_range(plan.relation, None, None)
        )
        at = {tuple(row[place] for place in plan.relation.places()) for row in differ}
        assert at <= set(touched.get(name, [])) or name == "other"


@pytest.mark.parametrize(
    ("said", "parser"),
    [(EMBEDDED, "sqlite"), (Capabilities(dialect="another", quote=("[", "]"), temporary="#"), "tsql")],
)
@settings(max_examples=15, deadline=None)
@given(makes=st.lists(st.sampled_from(ONE_WAY), min_size=2, max_size=3))
def test_a_composed_query_is_one_select_to_either_parser(said: Capabilities, parser: str, makes: list[Make]) -> None:
    steps, shapes = chain(makes)
    for plan in over(steps, shapes, said).tables.values():
        waiting = [plan.relation]
        while waiting:
            relation = waiting.pop()
            (tree,) = sqlglot.parse(relation.sql, read=parser)
            assert isinstance(tree, sqlglot.exp.Select)
            waiting += [each.relation for each in relation.staged]
            assert all(each.name.startswith(said.temporary + "dbsync_") for each in relation.staged)


# --- get and put -------------------------------------------------------------------------------------


@contextmanager
def two_files(steps: Sequence[tuple[str, Two]], shapes: Sequence[Shape]) -> Iterator[dict[str, SqliteDatabase]]:
    last = steps[-1][0]
    with TemporaryDirectory() as folder:
        sides = {
            "blue": side(Path(folder) / "b.db", "blue", script(shapes[0]), "r0", "blue"),
            "green": side(Path(folder) / "g.db", "green", script(shapes[-1]), last, "blue"),
        }
        for (revision, _), shape in zip(steps, shapes[1:], strict=True):
            sides["blue"].save("shape", revision, to_document(Tables(shape).catalog))
        try:
            yield sides
        finally:
            for database in sides.values():
                database.dispose()


def lens_of(sides: dict[str, SqliteDatabase], steps: Sequence[tuple[str, Two]], active: str) -> Lens:
    both: Any = sides
    migrator: Any = Chain("r0", *(revision for revision, _ in steps))
    return make_lens(both, active, migrator, dict(steps))


def carried(sides: dict[str, SqliteDatabase], lens: Lens, source: str, target: str) -> Applied:
    """Every table put whole, with the keys that only the target has."""
    role = Role.ACTIVE if target == "blue" else Role.IDLE
    total = Applied()
    to: Any = sides[target]
    with sides[source].view() as view, to.writing(role, 1) as tx:
        for name, plan in lens.toward(target).tables.items():
            rows = view.by_range(plan.relation, None, None)
            places = plan.relation.places()
            keys = [tuple(row[place] for place in places) for row in rows]
            keys += [tuple(row[place] for place in places) for row in tx.by_range(plan.stored, None, None)]
            done = put(tx, to, lens, name, list(dict.fromkeys(keys)), rows)
            total.upserted, total.deleted = total.upserted + done.upserted, total.deleted + done.deleted
    return total


@settings(max_examples=12, deadline=None)
@given(
    # By name alone there is nothing that a row could lose: it is overwritten without being looked at.
    makes=st.lists(st.sampled_from(BOTH_WAYS), min_size=2, max_size=3).filter(lambda makes: {*makes} != {by_name}),
    rows=ROWS,
    edits=st.dictionaries(st.integers(0, 9), st.none() | st.tuples(st.integers(0, 5), TEXT), max_size=3),
)
@example(makes=[lossy, split], rows={1: (1, "ab", "Ab"), 2: (None, "a", "x y")}, edits={2: (3, "é")})
def test_the_lens_laws_hold_but_for_what_loses_declares(
    makes: list[Make], rows: dict[int, tuple[Any, ...]], edits: dict[int, tuple[int, str | None] | None]
) -> None:
    steps, shapes = chain(makes)
    with two_files(steps, shapes) as sides:
        with sides["blue"].writing(Role.ACTIVE, 1) as tx:
            tx.insert("t", ("id", "n", "a", "b"), [(key, *rest) for key, rest in rows.items()])
        carried(sides, lens_of(sides, steps, "blue"), "blue", "green")
        back = lens_of(sides, steps, "green")
        untouched = changes(sides["blue"])
        assert carried(sides, back, "green", "blue").upserted == 0
        assert changes(sides["blue"]) == untouched, "get then put: no row is rewritten, and capture sees nothing"
        was = {row[0]: row for row in read(sides["blue"], "SELECT * FROM t")}
        edit(sides["green"], shapes[-1], edits)
        carried(sides, back, "green", "blue")
        now = {row[0]: row for row in read(sides["blue"], "SELECT * FROM t")}
        assert {key: row for key, row in now.items() if key not in edits} == {
            key: row for key, row in was.items() if key not in edits
        }, "a row that nobody touched over there stays as it is, small letters and all"
        forward = back.forward.tables
        tainted = lossy in makes
        for plan in forward.values():
            with sides["blue"].view() as here, sides["green"].view() as there:
                derived, stored = here.by_range(plan.relation, None, None), there.by_range(plan.stored, None, None)
            assert folded(derived, tainted) == folded(stored, tainted), "put then get: what was put comes back"
        assert tainted == any(plan.loses for plan in back.reverse.tables.values())


def folded(rows: Sequence[Row], tainted: bool) -> list[Row]:
    """The rows, but for the size of letters where a step declares that it does not come back."""
    return [tuple(cell.upper() if tainted and isinstance(cell, str) else cell for cell in row) for row in rows]


def edit(database: SqliteDatabase, shape: Shape, edits: Mapping[int, tuple[int, str | None] | None]) -> None:
    """Rows of t are deleted, changed or made on the newer side, as its application would."""
    text = next(name for name, kind in shape["t"].items() if kind == "TEXT")
    with database.writing(Role.IDLE, 1) as tx:
        for key, new in edits.items():
            if new is None:
                for name in {"t", "u"} & shape.keys():
                    tx.delete(name, [(key,)])
            else:
                tx.upsert("t", ("id", "n", text), [(key, *new)])


def changes(database: SqliteDatabase) -> list[tuple[Any, ...]]:
    return read(database, "SELECT seq, tab, k1 FROM dbsync_changes ORDER BY seq")
