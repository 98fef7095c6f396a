"""How a changed key of a source table becomes keys of a target table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dbsync.model import Key
from dbsync.ports import Rows

_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


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
class KeyRule:
    """A projection of the source's key, after a query over the source's rows when there is one."""

    places: tuple[int, ...]
    """For each column of the target's key, where its value stands in the source's key (or the query's row)."""
    query: str | None = None

    def keys(self, rows: Rows, changed: Sequence[Key]) -> list[Key]:
        """The target's keys that these changed source keys touch, each once. `rows` is read only for a query."""
        found = rows.key_query(self.query, changed) if self.query else changed
        projected = (tuple(key[place] for place in self.places) for key in found)
        # An outer join in a key query gives NULL where there is no target row.
        return list(dict.fromkeys(key for key in projected if None not in key))

    def then(self, places: Sequence[int]) -> KeyRule:
        """This rule followed by a projection of what it gives."""
        return KeyRule(tuple(self.places[place] for place in places), self.query)

    def turns(self, width: int) -> bool:
        """Whether a target key gives back the one source key of that many columns."""
        return self.query is None and sorted(self.places) == list(range(width))

    def back(self, keys: Iterable[Key]) -> list[Key]:
        """The source keys that give these target keys; only for a rule that turns."""
        order = [self.places.index(place) for place in range(len(self.places))]
        return list(dict.fromkeys(tuple(key[place] for place in order) for key in keys))


def identity(width: int) -> KeyRule:
    """The rule of a table whose key crosses as it is."""
    return KeyRule(tuple(range(width)))
