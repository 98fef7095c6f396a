"""Rows carried over to the other shape and back again, without the other database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dbsync.etl.before import narrowed
from dbsync.etl.keys import KeyRule
from dbsync.etl.lens import Lens
from dbsync.model import Key, Relation, Row, Table
from dbsync.ports import Database, Rows


def over_and_back(
    rows: Rows,
    start: str,
    lens: Lens,
    shapes: Mapping[str, Table],
    scratches: Database,
    table: str,
    keys: Sequence[Key],
) -> list[Row]:
    """What the rows of `table` at these keys become by crossing over and coming back.

    `rows` are those of the environment `start`, `shapes` the tables of the other one; `scratches` gives the place in
    which rows of that shape are held. Read by keys; in whole only for a key query where a callable maps rows.
    """
    older = start == lens.older
    there, back = (lens.forward, lens.reverse) if older else (lens.reverse, lens.forward)
    plan = back.tables[table]
    at_once = lens.over_and_back.get(start, {}).get(table)
    if at_once is not None:
        return rows.by_keys(replace(at_once, kept=()), keys)
    known = {name: shape for name in plan.sources if (shape := shapes.get(name)) is not None}
    with scratches.scratch(list(known.values())) as scratch:
        for name in known:
            if name in there.tables:
                relation = there.tables[name].relation
                scratch.fill(name, relation.columns, _contributing(rows, relation, plan.sources[name], keys))
        return scratch.by_keys(plan.bare, keys)


def _contributing(rows: Rows, there: Relation, rules: Iterable[KeyRule], keys: Sequence[Key]) -> list[Row]:
    """The rows over there that rows here at these keys come from."""
    found: dict[Row, None] = {}
    for rule in rules:
        if not rule.origin:
            # A row over there may serve any number of rows here: only all of them are surely enough.
            return rows.by_range(there, None, None)
        found.update(dict.fromkeys(rows.by_keys(narrowed(there, rule.origin, there.columns), rule.back(keys))))
    return list(found)
