"""How the source was when the target was last brought up to date: asked of the target itself.

A key query depends on the rows that it reads. What they were before a change only the target still knows: its rows,
seen through the other direction, are the source's old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dbsync.etl.keys import KeyRule
from dbsync.etl.stage import Rules
from dbsync.etl.staged import narrowed as narrowed_table
from dbsync.model import Key, Relation
from dbsync.ports import Rows


@dataclass(frozen=True, slots=True)
class Before:
    """The state of the source that the target still reflects. Made by Lens.before."""

    rows: Rows
    """The target's rows, as of its checkpoint."""
    rules: Mapping[str, Rules]
    """By target table, the rules that ask: over the target's tables instead of the source's."""


def touched_keys(
    relation: Relation,
    stored: Relation,
    rules: Sequence[KeyRule],
    past: Sequence[KeyRule],
    view: Rows,
    keys: Sequence[Key],
    before: Before | None,
) -> list[Key]:
    """The whole keys of one target table that changed keys of one source table touch, each once.

    `relation` gives its rows out of `view`, `stored` what the target holds. `past` are the rules as asked of `before`.
    """
    found: dict[tuple[int, ...], dict[Key, None]] = {}
    for rule in rules:
        found.setdefault(rule.known, {}).update(dict.fromkeys(rule.keys(view, keys)))
    if before is not None:
        for rule in past:
            if rule.looks_back:
                found.setdefault(rule.known, {}).update(dict.fromkeys(rule.keys(before.rows, keys)))
    whole = found.pop(tuple(range(len(relation.key))), {})
    for known, partial in found.items():
        whole.update(dict.fromkeys(expanded(view, relation, known, list(partial))))
        if before is not None:
            whole.update(dict.fromkeys(expanded(before.rows, stored, known, list(partial))))
    return list(whole)


def expanded(rows: Rows, relation: Relation, known: Sequence[int], partial: Sequence[Key]) -> list[Key]:
    """The whole keys of the relation's rows that have these values in the `known` columns of its key."""
    return rows.by_keys(narrowed(relation, known, relation.key), partial) if partial else []


def narrowed(relation: Relation, known: Sequence[int], columns: Sequence[str]) -> Relation:
    """The relation restricted by some columns of its key, giving these columns."""
    key = tuple(relation.key[place] for place in known)
    folds = tuple(relation.collations[place] for place in known) if relation.collations else ()
    staged = tuple(narrowed_table(each, known) for each in relation.staged)
    return replace(relation, columns=tuple(columns), key=key, lead=None, collations=folds, staged=staged)
