"""What a composition says of one target table, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from dbsync.errors import ConfigError
from dbsync.etl.compose import Composition, TablePlan
from dbsync.etl.keys import KeyRule, Projection, Question
from dbsync.etl.layout import laid_out
from dbsync.etl.query import speech
from dbsync.model import Capabilities, Catalog, QueryPlan

SCAN_REMEDY = (
    "let the key reach the table's index: join on its primary key or an indexed column; use a correlated subquery"
    " instead of a LEFT JOIN of a grouped one or DISTINCT, and name a CTE once only"
)


QUERY_REMEDY = "give what the key query looks for an index"


@dataclass(frozen=True, slots=True)
class Explained:
    """One target table: where its rows come from, how changed keys find it, how the database reads it."""

    table: str
    direction: str
    by_name: bool
    cardinality: str
    sql: str
    keys: tuple[tuple[str, str], ...]
    """(source table, rule in words); a source with several rules stands there several times."""
    plan: QueryPlan
    loses: Mapping[str, str]
    losing: Mapping[str, str]
    """Policies by column of the newer table."""
    asked: tuple[tuple[str, QueryPlan], ...] = ()
    """How the key queries are read, by the source table whose changes they follow."""
    staged: tuple[tuple[str, str], ...] = ()
    """Rows that a Python function makes on the way: (name, the SELECT that feeds it)."""

    @property
    def notes(self) -> list[str]:
        """What it costs that is not bounded by the number of changed keys, with the remedy."""
        scans, asked = self.plan.scans, [(source, one.scans) for source, one in self.asked if one.scans]
        found = [f"However few keys changed, all of {', '.join(scans)} is read: {SCAN_REMEDY}."] if scans else []
        return found + [
            f"The key query of {source} reads all of {', '.join(read)}: {QUERY_REMEDY}." for source, read in asked
        ]

    def document(self) -> dict[str, Any]:
        """It as plain JSON."""
        return {
            "table": self.table,
            "direction": self.direction,
            "by_name": self.by_name,
            "cardinality": self.cardinality,
            "sql": self.sql,
            "staged": [{"name": name, "sql": sql} for name, sql in self.staged],
            "keys": [{"source": source, "rule": rule} for source, rule in self.keys],
            "plan": list(self.plan.lines),
            "scans": list(self.plan.scans),
            "key_queries": [
                {"source": source, "plan": list(one.lines), "scans": list(one.scans)} for source, one in self.asked
            ],
            "loses": dict(self.loses),
            "losing": dict(self.losing),
        }


def plan_of(composition: Composition, table: str) -> TablePlan:
    """The plan of a target table (case does not count). ConfigError `unknown-table`, naming the nearest one."""
    folded = table.casefold()
    for name, plan in composition.tables.items():
        if name.casefold() == folded:
            return plan
    for name, reason in composition.impossible.items():
        if name.casefold() == folded:
            raise ConfigError(
                f"the rows of table {name} cannot be made: {reason}",
                code="missing-crossing",
                remedy="write the crossing of that direction, or make the column nullable or give it a default",
            )
    names = {name.casefold(): name for name in composition.tables}
    near = get_close_matches(folded, names, n=1, cutoff=0.5)
    raise ConfigError(
        f"no table {table} is crossed into",
        code="unknown-table",
        remedy=f"did you mean {names[near[0]]}?" if near else f"name one of: {', '.join(names.values()) or 'none'}",
    )


def explained(
    composition: Composition,
    plan: TablePlan,
    source: Catalog,
    capabilities: Capabilities,
    read: QueryPlan,
    asked: Sequence[tuple[str, QueryPlan]] = (),
) -> Explained:
    """One table of a composition in words. `source` is the shape that its rows come from, `read` how they are read,
    `asked` how the key queries are (by source table).
    """
    parser = speech(capabilities).parser
    relation = plan.relation
    keys: list[tuple[str, str]] = []
    for name, rules in plan.sources.items():
        table = source.table(name)
        own = table.key if table is not None else ()
        keys += [(name, rule_words(rule, own, relation.key)) for rule in rules]
    return Explained(
        table=relation.table,
        direction=str(composition.direction),
        by_name=plan.by_name,
        cardinality=plan.cardinality,
        sql=laid_out(relation.sql, parser),
        keys=tuple(keys),
        plan=read,
        loses=dict(plan.loses),
        losing={column: str(policy) for column, policy in getattr(plan, "losing", {}).items()},
        asked=tuple(asked),
        staged=tuple((each.name, laid_out(each.relation.sql, parser)) for each in getattr(relation, "staged", ())),
    )


def questions(plan: TablePlan) -> Iterator[tuple[str, Question]]:
    """The key queries of a table's rules, each once: (the source table whose changes are followed, the query)."""
    found = [(source, question) for source, rules in plan.sources.items() for r in rules for question in r.questions]
    yield from dict.fromkeys(found)


def rule_words(rule: KeyRule, source_key: Sequence[str], target_key: Sequence[str]) -> str:
    """What a changed key of a source table means for the target's rows, as a sentence without its subject."""
    values = [str(name) for name in source_key]
    asked: list[str] = []
    for part in rule.parts:
        if isinstance(part, Projection):
            values = ["" if place is None else _at(values, place) for place in part.places]
        else:
            given = ", ".join(value for value in values if value)
            when = "" if part.settled else ", before and after the change"
            asked.append(f"ask{when}, with :keys = {given}: {' '.join(part.sql.split())}")
            values = [f"answer {place}" for place in range(1, part.gives + 1)]
    pairs = [f"{target} = {value}" for target, value in zip(target_key, values, strict=False) if value]
    rows = f"{'every row' if rule.partial else 'the row'} with {' and '.join(pairs)}"
    return "; then ".join([*asked, rows])


def _at(values: Sequence[str], place: int) -> str:
    return values[place] if place < len(values) else f"key column {place + 1}"
