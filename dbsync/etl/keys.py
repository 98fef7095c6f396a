"""How a changed key of a source table becomes keys of a target table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbsync.model import Key
from dbsync.ports import Rows

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

Place = int | None
"""Where a column's value stands in the key that goes in. None: any value, which makes the key a partial one."""


def fold_text(text: str, collation: str) -> str:
    """The text as a word that is equal for texts which a collation takes for one.

    NOCASE folds ASCII letters only: 'Ä' and 'ä' are two keys under it.
    """
    name = collation.casefold()
    if name == "nocase":
        return text.translate(_ASCII_LOWER)
    if name == "rtrim":
        return text.rstrip(" ")
    return text.casefold() if "_ci" in name else text


@dataclass(frozen=True, slots=True)
class Projection:
    """For each column of the key that comes out, where its value stands in the key that goes in."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A key query: a SELECT of `gives` columns in which `:keys` stands for the keys (of `takes` columns) that go in.

    A question depends on the state of the rows that it reads. It must be asked both of the state after a change
    and of the one before, or a row that moves from one parent to another leaves the first one behind.
    """

    sql: str
    takes: int
    gives: int
    settled: bool = False
    """Whether the state after a change is enough: what it reads is followed by its own key as well."""
    mute: str = field(default="", compare=False)
    """Why it cannot be asked here (only in a composition that stands for an earlier state)."""
    where: str = field(default="", compare=False)
    """The crossing and the table that it stands in, for messages."""


@dataclass(frozen=True, slots=True)
class KeyRule:
    """A chain of projections and questions, from keys of a source table to (perhaps partial) keys of a target table.

    Projections and questions take turns; a projection stands at both ends. `keys` gives the values of the target's key
    columns at `known` only; where these are all of them, whole keys.
    """

    parts: tuple[Projection | Question, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """For each column of the target's key, where its value stands in what comes before (None: any value)."""
        last = self.parts[-1]
        assert isinstance(last, Projection)
        return last.places

    @property
    def known(self) -> tuple[int, ...]:
        """The columns of the target's key (their places in it) of which it gives values."""
        return tuple(place for place, value in enumerate(self.places) if value is not None)

    @property
    def partial(self) -> bool:
        """Whether a key that it gives stands for every row that has these values."""
        return None in self.places

    @property
    def questions(self) -> tuple[Question, ...]:
        """Its key queries."""
        return tuple(part for part in self.parts if isinstance(part, Question))

    @property
    def looks_back(self) -> bool:
        """Whether it must be asked of the state before a change, too."""
        return any(not question.settled for question in self.questions)

    def keys(self, rows: Rows, changed: Sequence[Key]) -> list[Key]:
        """The values at `known` that these changed source keys touch in the state that `rows` shows, each once.

        `rows` is read only for questions.
        """
        found: Sequence[Key] = changed
        for part in self.parts:
            if isinstance(part, Question):
                found = rows.key_query(part.sql, found) if found else []
            else:
                at = [place for place in part.places if place is not None]
                found = [tuple(key[place] for place in at) for key in found]
            # An outer join in a key query gives NULL where there is no target row.
            found = list(dict.fromkeys(key for key in found if None not in key))
        return list(found)

    def then(self, more: KeyRule) -> KeyRule:
        """This rule followed by another one, whose first projection must not ask a question of unknown columns."""
        last, first = self.places, more.parts[0]
        assert isinstance(first, Projection)
        joined = Projection(tuple(None if place is None else last[place] for place in first.places))
        return KeyRule((*self.parts[:-1], joined, *more.parts[1:]))

    def turns(self, width: int) -> bool:
        """Whether a target key gives back the one source key of that many columns."""
        return len(self.parts) == 1 and sorted(map(_last, self.places)) == list(range(width))

    @property
    def origin(self) -> tuple[int, ...]:
        """The columns of the source's key that a target key gives back: all if it turns, none through a query."""
        if self.questions:
            return ()
        return tuple(sorted({place for place in self.places if place is not None}))

    def back(self, keys: Iterable[Key]) -> list[Key]:
        """The values at `origin` of the source keys that give these (whole) target keys, each once."""
        at = [self.places.index(place) for place in self.origin]
        return list(dict.fromkeys(tuple(key[place] for place in at) for key in keys))

    def words(self) -> list[Any]:
        """What it does, as plain JSON, for a hash."""
        return [part.sql if isinstance(part, Question) else list(part.places) for part in self.parts]


def _last(place: Place) -> int:
    return -1 if place is None else place


def projected(places: Sequence[Place]) -> KeyRule:
    """The rule of a key whose columns stand at these places of the source's key."""
    return KeyRule((Projection(tuple(places)),))


def asked(question: Question, takes: Sequence[int], places: Sequence[Place]) -> KeyRule:
    """A question about the columns `takes` of a key, followed by a projection of the rows that it gives."""
    return KeyRule((Projection(tuple(takes)), question, Projection(tuple(places))))


def identity(width: int) -> KeyRule:
    """The rule of a table whose key crosses as it is."""
    return projected(range(width))
