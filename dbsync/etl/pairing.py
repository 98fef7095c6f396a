"""What became of each table and column between two shapes: known from the operations, or guessed and marked so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbsync.etl.fits import family
from dbsync.model import Catalog, Column, Renamed, Table

ALIKE = 0.6
"""From which share of equal columns on a table that comes is taken for one that goes."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A table at both revisions. `columns` are pairs (older, newer); `doubts` say which of them are guessed."""

    older: Table
    newer: Table
    columns: Mapping[str, str]
    doubts: Mapping[str, str] = field(default_factory=dict)
    """By older column, or "" for the table itself: what has to be confirmed."""

    def turned(self) -> Linked:
        """The same with the revisions exchanged."""
        doubts = {self.columns.get(name, name): why for name, why in self.doubts.items()}
        return Linked(self.newer, self.older, {new: old for old, new in self.columns.items()}, doubts)

    @property
    def gone(self) -> list[Column]:
        """Columns of the older table that no newer one continues."""
        return [one for one in self.older.columns if not one.generated and one.name not in self.columns]

    @property
    def come(self) -> list[Column]:
        """Columns of the newer table that continue no older one."""
        taken = set(self.columns.values())
        return [one for one in self.newer.columns if not one.generated and one.name not in taken]


@dataclass(frozen=True, slots=True)
class Part:
    """A table of one revision only, whose columns stand in another table at the other revision."""

    table: Table
    whole: str
    """That other table, at the revision where the part is not."""
    beside: str
    """The same table at the revision where the part is."""
    columns: Mapping[str, str]
    """Columns of the part, and where their values stand in the whole."""
    key: Mapping[str, str]
    """Columns of the part that hold the whole's key: where it stands in the whole."""
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A table of the newer revision whose key is what an older text column held."""

    table: Table
    linked: Linked
    text: str
    """The older column."""
    refers: str
    """The newer column that refers to it."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Everything that was recognised between two shapes."""

    linked: tuple[Linked, ...]
    split: tuple[Part, ...]
    """Parts at the newer revision."""
    merged: tuple[Part, ...]
    """Parts at the older revision."""
    lookups: tuple[Lookup, ...]
    gone: tuple[Table, ...]
    """Older tables of which nothing is left."""
    come: tuple[Table, ...]


def pair(before: Catalog, after: Catalog, renames: Iterable[Renamed]) -> Pairing:
    """What became of the tables of `before` in `after`, `renames` being what the revision said itself."""
    tables, columns = _followed(before, renames)
    pairs = {old.name: (old, new) for old, new in _same(before, after, tables)}
    linked = [_linked(*pairs[name], columns) for name in before.tables if name in pairs]
    gone = [table for table in before.tables.values() if table.name not in {one.older.name for one in linked}]
    come = [table for table in after.tables.values() if table.name not in {one.newer.name for one in linked}]
    linked += list(_alike(gone, come))
    gone = [table for table in gone if table.name not in {one.older.name for one in linked}]
    come = [table for table in come if table.name not in {one.newer.name for one in linked}]
    split = [part for table in come if (part := _part(table, linked)) is not None]
    merged = [part for table in gone if (part := _part(table, [one.turned() for one in linked])) is not None]
    lookups = [found for table in come if (found := _lookup(table, linked)) is not None]
    for found in lookups:
        linked = [_through(one, found) for one in linked]
    moved = {(part.whole, column) for part in (*split, *merged) for column in part.columns.values()}
    linked = [_guessed(one, moved) for one in linked]
    parts = {part.table.name for part in (*split, *merged)}
    return Pairing(
        tuple(linked),
        tuple(split),
        tuple(merged),
        tuple(lookups),
        tuple(table for table in gone if table.name not in parts),
        tuple(table for table in come if table.name not in parts),
    )


def _followed(before: Catalog, renames: Iterable[Renamed]) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """What each older table, and (table, column), is called in the end."""
    tables = {name: name for name in before.tables}
    columns = {(name, one.name): one.name for name, table in before.tables.items() for one in table.columns}
    for one in renames:
        older = next((old for old, now in tables.items() if now.casefold() == one.table.casefold()), None)
        if older is None:
            continue
        if one.column is None:
            tables[older] = one.to
            continue
        wanted = one.column.casefold()
        found = next((key for key, now in columns.items() if key[0] == older and now.casefold() == wanted), None)
        if found is not None:
            columns[found] = one.to
    return tables, columns


def _same(before: Catalog, after: Catalog, tables: Mapping[str, str]) -> Iterator[tuple[Table, Table]]:
    """Each older table that goes on, and the newer one: what a renaming says comes before an equal name."""
    taken: set[str] = set()
    for table in sorted(before.tables.values(), key=lambda one: tables[one.name] == one.name):
        # A table that is built anew is first renamed out of the way, and then dropped.
        for name in (tables[table.name], table.name):
            newer = after.table(name)
            if newer is not None and newer.name not in taken:
                taken.add(newer.name)
                yield table, newer
                break


def _linked(old: Table, new: Table, renamed: Mapping[tuple[str, str], str]) -> Linked:
    pairs = {}
    for one in old.columns:
        there = new.column(renamed.get((old.name, one.name), one.name)) or new.column(one.name)
        if there is not None and not there.generated and not one.generated:
            pairs[one.name] = there.name
    return Linked(old, new, pairs)


def _alike(gone: Sequence[Table], come: Sequence[Table]) -> Iterator[Linked]:
    """Tables that are so much alike that one is probably the other by a new name."""
    free = list(come)
    for old in gone:
        scored = sorted(((_likeness(old, new), new.name, new) for new in free), reverse=True, key=lambda one: one[:2])
        if scored and scored[0][0] >= ALIKE:
            new = scored[0][2]
            free.remove(new)
            yield replace(_linked(old, new, {}), doubts={"": f"is it {old.name} that became {new.name}?"})


def _likeness(old: Table, new: Table) -> float:
    names = {(one.name.casefold(), family(one.type)) for one in old.columns}
    others = {(one.name.casefold(), family(one.type)) for one in new.columns}
    return len(names & others) / max(len(names | others), 1)


def _part(table: Table, linked: Sequence[Linked]) -> Part | None:
    """The table as a part of one whose columns it has taken over."""
    best: tuple[int, Linked, dict[str, str]] | None = None
    for one in linked:
        gone = {column.name.casefold(): column.name for column in one.gone}
        moved = {c.name: gone[c.name.casefold()] for c in table.columns if not c.key and c.name.casefold() in gone}
        if moved and (best is None or len(moved) > best[0]):
            best = (len(moved), one, moved)
    if best is None or not best[1].older.key or not table.key:
        return None
    _, one, moved = best
    key, doubt = _part_key(table, one)
    return Part(table, one.older.name, one.newer.name, moved, key, doubt)


def _part_key(table: Table, one: Linked) -> tuple[dict[str, str], str]:
    """Which columns of a part hold the key of the whole, and what is doubtful about it."""
    back = {new.casefold(): old for old, new in one.columns.items()}
    for reference in table.foreign_keys:
        if reference.table.casefold() == one.newer.name.casefold():
            referred = [name or key for name, key in zip(reference.referred, one.newer.key, strict=False)]
            wanted = [back.get(name.casefold(), "") for name in referred]
            if all(name in one.older.key for name in wanted) and len(wanted) == len(one.older.key):
                return dict(zip(reference.columns, wanted, strict=True)), ""
    if any(name not in one.columns for name in one.older.key):
        return {}, f"how does the key of {one.older.name} give {', '.join(table.key)}?"
    own = {name.casefold(): name for name in one.older.key}
    if {name.casefold() for name in table.key} == set(own):
        return {name: own[name.casefold()] for name in table.key}, ""
    if len(table.key) == len(one.older.key):
        key = dict(zip(table.key, one.older.key, strict=True))
        return key, f"is {', '.join(table.key)} the key of {one.older.name}?"
    return {}, f"how does the key of {one.older.name} give {', '.join(table.key)}?"


def _lookup(table: Table, linked: Sequence[Linked]) -> Lookup | None:
    """The table as one of the texts that an older column held, if a newer table refers to it so."""
    keys = [column for column in table.columns if column.key]
    if len(keys) != 1 or family(keys[0].type) != "text":
        return None
    for one in linked:
        points = [f for f in one.newer.foreign_keys if f.table.casefold() == table.name.casefold()]
        for point in points if len(one.older.key) == 1 else ():
            text = _text_of(point.columns[0], table, one) if len(point.columns) == 1 else None
            if text is not None:
                return Lookup(table, one, text, point.columns[0])
    return None


def _text_of(refers: str, table: Table, one: Linked) -> str | None:
    """The older text column that became a newer column which refers to a table."""
    back = {new.casefold(): old for old, new in one.columns.items()}
    went_on = one.older.column(back.get(refers.casefold(), ""))
    if went_on is not None:
        return went_on.name if family(went_on.type) == "text" else None
    texts = [column.name for column in one.gone if family(column.type) == "text"]
    called = f"{refers} {table.name}".casefold()
    likely = [name for name in texts if name.casefold() in called] or texts
    return likely[0] if len(likely) == 1 else None


def _through(one: Linked, lookup: Lookup) -> Linked:
    if one != lookup.linked or lookup.text in one.columns:
        return one
    column = one.newer.column(lookup.refers)
    name = column.name if column is not None else lookup.refers
    doubt = f"is it the text of {lookup.text} that {name} refers to?"
    return replace(one, columns={**one.columns, lookup.text: name}, doubts={**one.doubts, lookup.text: doubt})


def _guessed(one: Linked, moved: set[tuple[str, str]]) -> Linked:
    """The one column that goes, taken for the one that comes, where they are of one type."""
    gone = [column for column in one.gone if (one.older.name, column.name) not in moved]
    come = [column for column in one.come if (one.newer.name, column.name) not in moved]
    if len(gone) != 1 or len(come) != 1 or bool(gone[0].key) != bool(come[0].key):
        return one
    old, new = gone[0], come[0]
    if family(old.type) != family(new.type) or family(old.type) == "other":
        return one
    doubt = f"is it {old.name} that became {new.name}?"
    return replace(one, columns={**one.columns, old.name: new.name}, doubts={**one.doubts, old.name: doubt})
