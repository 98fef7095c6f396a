"""What becomes of values that the older shape cannot hold: a policy a column, carried along the revision path."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dbsync.errors import ConfigError
from dbsync.etl.crossing import POLICIES, TableCrossing
from dbsync.etl.keys import fold_text
from dbsync.etl.query import Query, Where
from dbsync.migrate.findings import kept_under
from dbsync.model import Catalog, Direction, Kept, Key, Table

REFUSE, ACCEPT, KEEP = POLICIES
KIND = "kept"
"""Documents of the older side, by newer table: whether with this plan everything is kept that has to be."""


@dataclass(frozen=True, slots=True)
class Losing:
    """The policy of one column, and the names under which its values are kept: those where it was first declared.

    Later revisions may rename the column or its table: what was kept before is found all the same.
    """

    policy: str
    table: str
    column: str


Policies = Mapping[str, Losing]
"""By folded name of the column."""


class Held(Protocol):
    """As much of a table of one step as policies depend on."""

    @property
    def table(self) -> str:
        """Its name."""
        ...

    @property
    def key(self) -> tuple[str, ...]:
        """Its primary key."""
        ...

    @property
    def losing(self) -> Policies:
        """Its columns' policies."""
        ...

    def has(self, name: str) -> str | None:
        """The column of that name as it is spelt."""
        ...


def declared(before: Policies, crossing: TableCrossing, shape: Catalog | None, where: Where) -> dict[str, Losing]:
    """The policies after a crossing has declared its own. Raises ConfigError."""
    if crossing.losing and where.direction != Direction.FORWARD:
        raise where.error(
            "broken-crossing", "losing speaks of columns of the newer shape", "declare it in forward, not in reverse"
        )
    table = shape.table(crossing.name) if shape is not None else None
    found = dict(before)
    for name, policy in crossing.losing.items():
        column = table.column(name) if table is not None else None
        if table is not None and column is None:
            raise where.error("unknown-column", f"losing names {name}, which {table.name} has not", "correct its name")
        if column is not None and column.key:
            raise where.error(
                "broken-crossing", f"losing names {name}, a column of the key", "a row with another key is another row"
            )
        old = found.get(name.casefold())
        under = kept_under(crossing.name, where.revision)
        fresh = Losing(policy, under, name if column is None else column.name)
        found[name.casefold()] = fresh if old is None else replace(old, policy=policy)
    return found


def moved_on(before: Held, after: Held) -> dict[str, Losing]:
    """The policies of a table that goes on by name."""
    same = [name.casefold() for name in before.key] == [name.casefold() for name in after.key]
    if same:
        return dict(before.losing)
    return {
        folded: Losing(each.policy, kept_under(after.table, each.table.rpartition("@")[2]), each.column)
        for folded, each in before.losing.items()
    }


def passed_on(query: Query, sources: Mapping[str, Held], where: Where, key: Sequence[str]) -> dict[str, Losing]:
    """The policies of what a SELECT gives: those of the columns that it passes on as they are."""
    found: dict[str, Losing] = {}
    bare = {output.name.casefold(): output.column for output in query.outputs if output.column is not None}
    for output in query.outputs:
        source, name = _source(output.column, query, sources)
        old = source.losing.get(name.casefold()) if source is not None else None
        if source is None or old is None:
            continue
        keys = [_source(bare.get(part.casefold()), query, sources) for part in key]
        same = [one is source and part.casefold() for one, part in keys] == [part.casefold() for part in source.key]
        under = kept_under(where.table, where.revision)
        found[output.name.casefold()] = old if same else Losing(old.policy, under, output.name)
    return found


def policies(losing: Policies, table: Table) -> dict[str, str]:
    """The policies by column of the target's table, as it spells them."""
    return {column.name: found.policy for column in table.columns if (found := losing.get(column.name.casefold()))}


def kept(
    losing: Policies, table: Table, columns: Sequence[str], once: Collection[str], word: Callable[[Key], Key]
) -> tuple[Kept, ...]:
    """What is kept of a target's table. Raises ConfigError where nothing gives a column whose values are to be kept,
    or where it is another value at each reading (`once`: folded names)."""
    found = []
    for column in table.columns:
        each = losing.get(column.name.casefold())
        if each is None or each.policy != KEEP:
            continue
        if column.name not in columns:
            raise ConfigError(
                f"table {table.name}: {column.name} is to be kept, but no crossing gives it",
                code="broken-crossing",
                remedy="give it in the SELECT of forward (NULL, or what a new row has), or take the policy out",
            )
        if column.name.casefold() in once:
            raise ConfigError(
                f"table {table.name}: {column.name} is set once, so nothing tells whether what was kept still holds",
                code="broken-crossing",
                remedy="declare it either once or to be kept",
            )
        found.append(Kept(column.name, table.key, each.table, each.column, word))
    return tuple(found)


def is_kept(document: Mapping[str, Any] | None, plan_hash: str) -> bool:
    """Whether a document says that everything is kept: the newer rows are exactly what forward gives."""
    return document is not None and bool(document.get("done")) and document.get("hash") == plan_hash


def folding(collations: Sequence[str]) -> Callable[[Key], Key]:
    """A function that makes one word of keys that these collations take for one."""
    if not any(collations):
        return tuple

    def word(key: Key) -> Key:
        return tuple(
            fold_text(part, collation) if collation and isinstance(part, str) else part
            for part, collation in zip(key, collations, strict=True)
        )

    return word


def _source(column: tuple[str, str] | None, query: Query, sources: Mapping[str, Held]) -> tuple[Held | None, str]:
    """The one table that a bare column comes from (None: it is not clear), and its name there."""
    if column is None:
        return None, ""
    qualifier, name = column
    table = query.alias_of(qualifier) or "" if qualifier else ""
    stages = [sources[table]] if table in sources else [] if qualifier else list(sources.values())
    found = [stage for stage in stages if stage.has(name) is not None]
    return (found[0], name) if len(found) == 1 else (None, "")
