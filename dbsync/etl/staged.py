"""Rows that a callable makes in the middle of a path: put into a private table, out of which the later steps read.

A callable cannot stand inside a query. So the step that has one ends a query; the next step's query begins at the
table that the database fills with these rows first, and only with those that the wanted keys can need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from dbsync.etl.crossing import RowMap
from dbsync.etl.keys import KeyRule, identity
from dbsync.etl.query import Speech
from dbsync.etl.stage import Rules, Stage, same_order
from dbsync.model import Relation, Staged, Table


def staged(stage: Stage, shape: Table, mark: str, speech: Speech) -> Stage:
    """The table of a step whose rows `stage.row` makes, as a private table of that shape filled with them."""
    wanted = [(own, own if (column := shape.column(own)) is None else column.name) for own in stage.columns]
    keyed = [shape.column(name) for name in shape.key]
    inner = Relation(
        shape.name,
        shape.stored,
        shape.key,
        stage.select(speech.quote, wanted),
        stage.row,
        stage.lead,
        tuple(collating(column.collation) if column is not None else "" for column in keyed),
        staged=placed(stage, shape.key),
    )
    columns = tuple(column for column in shape.columns if not column.generated)
    word = sha256(repr((words(inner), [(c.name, c.type, c.collation) for c in columns])).encode()).hexdigest()[:12]
    name = f"{speech.temporary}dbsync_{mark}_{word}"
    given = ", ".join(f"q.{speech.quote(column.name)}" for column in columns)
    # Where the key's values sort or compare otherwise than the source's, keys and ranges do not lead back to it.
    faithful = all(
        column is not None and same_order(stage.types.get(column.name.casefold()), column)
        for column in keyed[: stage.lead]
    )
    return replace(
        stage,
        columns=shape.stored,
        key=shape.key,
        rules={**followed_rules(stage), name: (identity(len(shape.key)),) if faithful else ()},
        body=f"SELECT {given} FROM {speech.quote(name)} AS q",
        ctes=(),
        types={column.name.casefold(): column for column in columns},
        fixes={},
        row=None,
        lead=None,
        staged=(Staged(name, columns, inner),),
    )


def placed(stage: Stage, key: tuple[str, ...]) -> tuple[Staged, ...]:
    """The private tables that the stage's query reads, each with how keys of the stage lead to keys of its rows."""
    return tuple(_placed(each, stage.rules.get(each.name, ()), key) for each in stage.staged)


def followed_rules(stage: Stage) -> Rules:
    """The rules of the stage for tables of the database: a change is only ever seen there."""
    private = {each.name for each in stage.staged}
    return {base: rules for base, rules in stage.rules.items() if base not in private}


def words(relation: Relation) -> list[Any]:
    """What a relation does, for a digest."""
    inner = [
        (
            each.name,
            [(column.name, column.type, column.collation) for column in each.columns],
            words(each.relation),
            each.places,
        )
        for each in relation.staged
    ]
    row = code_words(relation.row)
    return [relation.table, relation.columns, relation.key, relation.sql, row, relation.lead, inner]


def code_words(row: RowMap | Any) -> Any:
    """What a callable does, without the addresses that the repr of nested code has."""
    code = getattr(row, "__code__", None) if row is not None else None
    if code is None and hasattr(row, "co_code"):
        code = row
    if code is None:
        return None if row is None else getattr(row, "__qualname__", type(row).__qualname__)
    consts = [code_words(const) if hasattr(const, "co_code") else repr(const) for const in code.co_consts]
    return [code.co_code.hex(), consts, list(code.co_names)]


def collating(collation: str | None) -> str:
    """The collation where it takes texts that differ for one, else nothing."""
    upper = (collation or "BINARY").upper()
    return "" if "BIN" in upper or "_CS" in upper else upper


def narrowed(each: Staged, known: Sequence[int]) -> Staged:
    """The same private table for a relation of which only the key columns at `known` are given."""
    back = {column: known.index(place) for column, place in enumerate(each.places or ()) if place in known}
    return _with_places(each, back, len(known))


def _placed(each: Staged, rules: Iterable[KeyRule], key: tuple[str, ...]) -> Staged:
    ways = [_back(rule) for rule in rules]
    if not ways or any(way is None or way != ways[0] for way in ways):
        return each
    return _with_places(each, ways[0] or {}, len(key))


def _with_places(each: Staged, back: Mapping[int, int], width: int) -> Staged:
    """`back` says for columns of the inner key where they stand in a key of `width` columns."""
    inner = each.relation
    if len(back) == len(inner.key):
        places = tuple(back[place] for place in range(len(inner.key)))
        leads = places == tuple(range(len(places))) and len(places) <= width and inner.key == each.key
        return replace(each, places=places, leads=leads)
    # Of a part of the key only what the SELECT itself gives can be asked for.
    known = sorted(place for place in back if inner.lead is None or place < inner.lead)
    if not known:
        return replace(each, places=None, leads=False)
    narrow = replace(
        inner,
        key=tuple(inner.key[place] for place in known),
        lead=None,
        collations=tuple(inner.collations[place] for place in known),
        staged=tuple(narrowed(one, known) for one in inner.staged),
    )
    return replace(each, relation=narrow, places=tuple(back[place] for place in known), leads=False)


def _back(rule: KeyRule) -> Mapping[int, int] | None:
    """For each column of the key that went in, where its value stands in the key that comes out (None: a query)."""
    if rule.questions:
        return None
    found: dict[int, int] = {}
    for place, source in enumerate(rule.places):
        if source is not None:
            found.setdefault(source, place)
    return found
