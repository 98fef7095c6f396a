"""The first version of a crossing's file: what the two shapes and the operations say, and TODO where they do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dbsync.etl.fits import lost, misfit
from dbsync.etl.pairing import Linked, Lookup, Pairing, Part, pair
from dbsync.etl.query import Speech, speech
from dbsync.model import Capabilities, Catalog, Column, Direction, Renamed

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = (
    "add all alter and as asc begin between by case check collate column commit constraint create cross current default"
    " delete desc distinct drop else end escape except exec exists fetch for foreign from full function grant group"
    " having in index inner insert intersect into is join key left like limit merge natural not null of off on open"
    " option or order outer percent plan primary procedure public references return right rollback rule schema select"
    " session set table then to top transaction trigger union unique update use user using values view when where"
    " with"
)
_RESERVED = frozenset(_WORDS.split())
WIDTH = 96
PAD = "            "


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of the file, and how many decisions it leaves to a person."""

    text: str
    todos: int


@dataclass(frozen=True, slots=True)
class _Item:
    """One column of a SELECT; `notes` are questions about it."""

    value: str
    name: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One table(…) of a crossing. Without items it crosses by column name."""

    name: str
    key: Mapping[str, object] | None = None
    items: tuple[_Item, ...] = ()
    body: tuple[str, ...] = ()
    loses: Mapping[str, str] | None = None
    losing: Sequence[str] = ()
    optional: bool = False
    """Whether a row of the driving table may give none."""


def draft(revision: str, before: Catalog, after: Catalog, renames: Iterable[Renamed], said: Capabilities) -> Draft:
    """The crossing's file of a revision, out of the shapes before and after it and the renamings that it ran."""
    found = pair(before, after, [one for one in renames if one.revision == revision])
    pen = _Pen(revision, speech(said))
    forward, reverse = pen.entries(found, Direction.FORWARD), pen.entries(found, Direction.REVERSE)
    text = _file(revision, forward, reverse, pen)
    return Draft(text, len(re.findall(r"\bTODO:", text)))


class _Pen:
    """Says tables and columns in SQL."""

    def __init__(self, revision: str, said: Speech) -> None:
        self.revision = revision
        self._said = said

    def name(self, name: str) -> str:
        """The name, in quotes where it needs them."""
        plain = _PLAIN.fullmatch(name) and name.casefold() not in _RESERVED
        return name if plain else self._said.quote(name)

    def entries(self, found: Pairing, direction: Direction) -> list[_Entry]:
        """The tables of one direction that do not simply cross by column name."""
        forward = direction is Direction.FORWARD
        made, joined = (found.split, found.merged) if forward else (found.merged, found.split)
        entries = []
        for linked in found.linked:
            one = linked if forward else linked.turned()
            parts = [part for part in joined if part.whole == one.newer.name]
            entry = self._continued(one, parts, forward)
            if entry is not None:
                entries.append(entry)
        sources = {one.older.name if forward else one.newer.name: one for one in found.linked}
        entries += [self._made(part, sources[part.whole], forward) for part in made]
        entries += self._namesakes(found, forward)
        if forward:
            return entries + [self._looked_up(one) for one in found.lookups]
        why = f"revision {self.revision} drops the table"
        named = {entry.name for entry in entries}
        return entries + [_Entry(table.name, loses={"*": why}) for table in found.gone if table.name not in named]

    def _namesakes(self, found: Pairing, forward: bool) -> Iterator[_Entry]:
        """Tables that have the name of another one at the other side: by column name they would get its rows."""
        taken = {one.older.name.casefold(): one for one in found.linked}
        if not forward:
            taken = {one.newer.name.casefold(): one for one in found.linked}
        given = {one.table.name for one in found.lookups}
        for table in found.come if forward else found.gone:
            other = taken.get(table.name.casefold()) if table.name not in given else None
            if other is not None and table.key:
                elsewhere = other.newer.name if forward else other.older.name
                asked = f"{table.name} there is {elsewhere} here: say where the rows of this {table.name} come from"
                key = {table.name: "TODO: say how its key gives the one here"}
                items = (_Item("NULL", table.key[0], (asked,)),)
                yield _Entry(table.name, key, items, (f"FROM {self.name(table.name)}",))

    def _continued(self, one: Linked, parts: Sequence[Part], forward: bool) -> _Entry | None:
        """A table that is on both sides; None where it crosses by name and there is nothing to declare."""
        source, target = one.older, one.newer
        if not (source.key and target.key):
            why = "it has no primary key, so its rows do not cross"
            return None if forward or source == target else _Entry(target.name, loses={"*": why})
        aliases = _aliases([source.name, *(part.table.name for part in parts)]) if parts else [""]
        items = self._items(one, parts, aliases)
        losing = self._losing(one) if forward else ()
        loses = {} if forward else self._loses(one, parts)
        same = [item.value == self.name(item.name) and not item.notes for item in items]
        back = {new: old for old, new in one.columns.items()}
        same.append({back.get(name) for name in target.key} == set(source.key))
        if all(same) and source.name.casefold() == target.name.casefold():
            return _Entry(target.name, loses=loses, losing=losing) if loses or losing else None
        if "" in one.doubts and items:
            items[0] = replace(items[0], notes=(one.doubts[""], *items[0].notes))
        body = [f"FROM {self.name(source.name)}" + (f" AS {aliases[0]}" if parts else "")]
        key: dict[str, object] = {source.name: self._key(source.key, target.key, back)}
        for part, alias in zip(parts, aliases[1:], strict=True):
            pairs = [(c, back.get(k, k)) for c, k in part.key.items()]
            ons = [f"{alias}.{self.name(c)} = {aliases[0]}.{self.name(k)}" for c, k in pairs]
            on = " AND ".join(ons) or f"NULL IS NOT NULL /* TODO: {part.doubt} */"
            body.append(f"LEFT JOIN {self.name(part.table.name)} AS {alias} ON {on}")
            key[part.table.name] = self._part_key(part, target.key)
        return _Entry(target.name, key, tuple(items), tuple(body), loses, losing)

    def _items(self, one: Linked, parts: Sequence[Part], aliases: Sequence[str]) -> list[_Item]:
        """The select list of a table that is on both sides."""
        own = f"{aliases[0]}." if aliases[0] else ""
        back = {new: old for old, new in one.columns.items()}
        joined = {
            column: (part, f"{alias}.{self.name(name)}")
            for part, alias in zip(parts, aliases[1:], strict=False)
            for name, column in part.columns.items()
        }
        items: list[_Item] = []
        for column in one.newer.columns:
            old = one.older.column(back[column.name]) if column.name in back else None
            if old is not None:
                items.append(self._passed(own, old, column, one.doubts))
            elif column.name in joined:
                part, value = joined[column.name]
                absent = () if column.nullable else (f"what is {column.name} where {part.table.name} has no row?",)
                items.append(_Item(value, column.name, absent))
            elif not column.generated and not column.fills_itself:
                items.append(_unknown(column))
        asked = f"nothing of {one.older.name} is left: say where the rows of {one.newer.name} come from"
        return items or [_Item("NULL", one.newer.columns[0].name, (asked,))]

    def _loses(self, one: Linked, parts: Sequence[Part]) -> dict[str, str]:
        """Older columns (of a turned pair) that the way back does not fill, or not with all that they held."""
        back = {new: old for old, new in one.columns.items()}
        joined = {column for part in parts for column in part.columns.values()}
        found: dict[str, str] = {}
        for column in one.newer.columns:
            newer = one.older.column(back[column.name]) if column.name in back else None
            short = lost(column.type, newer.type) if newer is not None else ""
            if short:
                found[column.name] = f"{newer.type if newer is not None else ''} does not hold {short}"
            elif newer is None and column.name not in joined and not column.generated:
                found[column.name] = f"revision {self.revision} drops the column"
        return found

    def _passed(self, own: str, old: Column, new: Column, doubts: Mapping[str, str]) -> _Item:
        value = own + self.name(old.name)
        notes = [doubts[old.name]] if old.name in doubts else []
        if misfit(old.type, new.type) and (old.key or new.key):
            notes.append(f"{old.type} becomes {new.type} in a key, which must be passed on as it is")
        elif misfit(old.type, new.type):
            value = f"CAST({value} AS {new.type})"
        if old.nullable and not new.nullable and not (old.key or new.key):
            notes.append(f"{old.name} may be NULL, {new.name} may not: say COALESCE(…), or take this out")
        return _Item(value, new.name, tuple(notes))

    def _losing(self, one: Linked) -> Sequence[str]:
        """Newer columns that may hold what the older ones cannot."""
        found = []
        for old_name, new_name in one.columns.items():
            old, new = one.older.column(old_name), one.newer.column(new_name)
            if old is not None and new is not None and not new.key and lost(new.type, old.type):
                found.append(new_name)
        return found

    def _key(self, source: Sequence[str], target: Sequence[str], back: Mapping[str, str]) -> object:
        pairs = {name: back.get(name, "") for name in target}
        if not pairs or any(name not in source for name in pairs.values()):
            return f"TODO: which columns of its key ({', '.join(source)}) give ({', '.join(target)})?"
        return _spec(pairs)

    def _part_key(self, part: Part, target: Sequence[str]) -> object:
        """How a changed row of a part is followed to the whole that it is joined into."""
        pairs = {whole: column for column, whole in part.key.items()}
        if set(pairs) != set(target):
            return f"TODO: how does a row of {part.table.name} find its row here?"
        if all(column in part.table.key for column in pairs.values()):
            return _spec({name: pairs[name] for name in target})
        if len(part.table.key) != 1:
            return f"TODO: a query over :keys that gives ({', '.join(target)})"
        gives = ", ".join(self.name(pairs[name]) for name in target)
        return f"SELECT {gives} FROM {self.name(part.table.name)} WHERE {self.name(part.table.key[0])} IN (:keys)"

    def _made(self, part: Part, one: Linked, forward: bool) -> _Entry:
        """A table whose rows come out of a part of another one's columns."""
        whole = one.older if forward else one.newer
        given = {**part.columns, **part.key}
        if len(part.table.key) == 1 and len(whole.key) == 1 and part.table.key[0] not in given:
            given[part.table.key[0]] = whole.key[0]
        items: list[_Item] = []
        for column in part.table.columns:
            if column.generated:
                continue
            old = whole.column(given[column.name]) if column.name in given else None
            if old is not None:
                item = self._passed("", old, column, {})
                unsure = column.key and column.name not in part.key
                doubt = part.doubt or f"is {old.name} of {whole.name} the key, one row for each?"
                notes = (doubt, *item.notes) if column.key and (part.doubt or unsure) else item.notes
                items.append(_Item(item.value, column.name, notes))
            elif not column.fills_itself:
                items.append(_unknown(column))
        items = items or [_unknown(part.table.columns[0])]
        pairs = {name: given.get(name, "") for name in part.table.key}
        known = all(name in whole.key for name in pairs.values())
        key = _spec(pairs) if known else f"TODO: {part.doubt or 'say how its key gives the one here'}"
        body = [f"FROM {self.name(whole.name)}"]
        optional = not forward and all(c.nullable for c in part.table.columns if c.name in part.columns)
        if optional and items:
            # Before, there were rows of the whole without a part: they must not get one by a rollback.
            asked = f"has {part.table.name} no row where all of these are NULL?"
            items[0] = replace(items[0], notes=(asked, *items[0].notes))
            given_one = " OR ".join(f"{self.name(name)} IS NOT NULL" for name in part.columns.values())
            body.append(f"WHERE {given_one}")
        return _Entry(part.table.name, {whole.name: key}, tuple(items), tuple(body), optional=optional)

    def _looked_up(self, one: Lookup) -> _Entry:
        """A table of each text once: the row with the lowest key stands for all that have it."""
        source, key = one.linked.older, one.linked.older.key[0]
        text, table = self.name(one.text), self.name(source.name)
        doubt = f"is {one.text} of {source.name} the key as it is? It needs an index there"
        items = [_Item(f"p.{text}", one.table.key[0], (doubt,))]
        items += [_unknown(column) for column in one.table.columns if not column.key and not column.fills_itself]
        first = f"q.{text} = p.{text} AND q.{self.name(key)} < p.{self.name(key)}"
        body = (
            f"FROM {table} AS p",
            f"WHERE p.{text} IS NOT NULL",
            f"  AND NOT EXISTS (SELECT 1 FROM {table} AS q WHERE {first})",
        )
        asked = f"SELECT {text} FROM {table} WHERE {self.name(key)} IN (:keys)"
        return _Entry(one.table.name, {source.name: asked}, tuple(items), body, optional=True)


def _unknown(column: Column) -> _Item:
    return _Item("NULL", column.name, (f"{column.name} may not be NULL: say its value",))


def _aliases(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        letter = re.sub(r"[^a-z]", "", name.casefold())[:1] or "t"
        alias, number = letter, 1
        while alias in found:
            number += 1
            alias = f"{letter}{number}"
        found.append(alias)
    return found


def _spec(pairs: Mapping[str, str]) -> object:
    """A key as short as it can be said: one name, a list in the target's order, or target and source by name."""
    if len(pairs) == 1:
        return next(iter(pairs.values()))
    return list(pairs.values()) if list(pairs) == list(pairs.values()) else dict(pairs)


# --- text ------------------------------------------------------------------------------------------


def _file(revision: str, forward: Sequence[_Entry], reverse: Sequence[_Entry], pen: _Pen) -> str:
    parts = [
        f'"""How rows cross revision {revision}, there and back. A table that is not named crosses by column name."""'
    ]
    parts += ["", "from dbsync.etl import Crossing" + (", table" if forward or reverse else ""), ""]
    for name, entries in (("forward", forward), ("reverse", reverse)):
        if entries:
            parts += [f"{name} = Crossing(", *(line for entry in entries for line in _entry(entry, pen)), ")"]
        else:
            parts.append(f"{name} = Crossing()")
    return "\n".join(parts) + "\n"


def _entry(entry: _Entry, pen: _Pen) -> Iterator[str]:
    yield "    table("
    yield f"        {_text(entry.name)},"
    if entry.items:
        specs = ", ".join(f"{_text(source)}: {_python(spec)}" for source, spec in (entry.key or {}).items())
        yield f"        key={{{specs}}},"
        yield '        select="""'
        yield from (f"{PAD}{line}" for line in _select(entry.items, pen))
        yield from (f"{PAD}{line}" for line in entry.body)
        # On a line of its own: a name in quotes may be the last word of the SELECT.
        yield '        """,'
    if entry.optional:
        yield '        cardinality="1:0..1",'
    if entry.losing:
        policies = ", ".join(f'{_text(name)}: "refuse"' for name in entry.losing)
        yield f"        losing={{{policies}}},  # or accept, or keep"
    if entry.loses:
        told = [f"{_text(name)}: {_text(why)}" for name, why in entry.loses.items()]
        if len(", ".join(told)) <= WIDTH:
            yield f"        loses={{{', '.join(told)}}},"
        else:
            yield "        loses={"
            yield from (f"            {one}," for one in told)
            yield "        },"
    yield "    ),"


def _select(items: Sequence[_Item], pen: _Pen) -> list[str]:
    """The select list, as lines; a question stands on a line of its own, before what it asks about."""
    lines: list[str] = []
    line = "SELECT"
    for place, item in enumerate(items):
        comma = "," if place + 1 < len(items) else ""
        name = pen.name(item.name)
        said = (
            item.value if item.value in (name, f"{item.value.partition('.')[0]}.{name}") else f"{item.value} AS {name}"
        )
        if item.notes:
            lines += [line, *(f"       /* TODO: {note} */" for note in item.notes)]
            line = "      "
        if len(line) + len(said) > WIDTH and line.strip() != "SELECT":
            lines.append(line)
            line = "      "
        line += f" {said}{comma}"
    return [*lines, line]


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _python(spec: object) -> str:
    if isinstance(spec, Mapping):
        return "{" + ", ".join(f"{_text(str(name))}: {_text(str(value))}" for name, value in spec.items()) + "}"
    if isinstance(spec, list):
        return "[" + ", ".join(_text(str(value)) for value in spec) + "]"
    return _text(str(spec))
