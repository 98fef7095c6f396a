"""How one value of the configuration is read: text in, a value out, or an error that says where and what is wanted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.errors import ConfigError

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LATER = "not built yet in this version"


def duration(text: object, where: str = "the duration") -> float:
    """A number and a unit (ms, s, m, h, d) as seconds. Raises ConfigError (`bad-duration`)."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigError(
            f"{where} is {text!r}, which is not a duration.",
            code="bad-duration",
            remedy='Write a number and one of ms, s, m, h, d, for example "200ms" or "5s".',
        )
    return float(found[1]) * _UNITS[found[2]]


def nearest(word: str, known: Sequence[str]) -> str:
    """A remedy that names the known word nearest to `word`, or all of them."""
    close = difflib.get_close_matches(word.casefold(), [k.casefold() for k in known], 1, 0.6)
    if close:
        match = next(k for k in known if k.casefold() == close[0])
        return f"Did you mean {match!r}?"
    return f"Known: {', '.join(known)}." if known else "Remove it."


# --- how one value is read ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in the file, and against which folder its paths are relative."""

    name: str
    folder: Path

    def wrong(self, value: object, wanted: str) -> ConfigError:
        """The error for a value that is not what is wanted here."""
        return ConfigError(f"{self.name} is {value!r}, which is not {wanted}.", remedy=f"Give {wanted}.")


Reader = Callable[[Any, Place], Any]


def text(value: Any, place: Place) -> str:
    """A text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise place.wrong(value, "a text")
    return value


def text_or_empty(value: Any, place: Place) -> str:
    """A text, which may be empty."""
    if not isinstance(value, str):
        raise place.wrong(value, "a text")
    return value


def texts(value: Any, place: Place) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise place.wrong(value, "a list of texts")
    return tuple(value)


def text_or_texts(value: Any, place: Place) -> tuple[str, ...]:
    """One text, or a list of them."""
    return (value,) if isinstance(value, str) and value else texts(value, place)


def urls(value: Any, place: Place) -> tuple[str, ...]:
    """Addresses of the web, one or several."""
    urls = text_or_texts(value, place)
    for url in urls:
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
            raise place.wrong(url, "an http:// or https:// address")
    return urls


def path(value: Any, place: Place) -> Path:
    """A path, relative to the file's folder."""
    return place.folder / text(value, place)


def seconds(value: Any, place: Place) -> float:
    """A duration, in seconds."""
    return duration(value, place.name)


def listen(value: Any, place: Place) -> str:
    """An address and a port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):(\d{1,5})", text(value, place))
    if found is None or int(found[2]) > 65535:
        raise place.wrong(value, 'an address and a port, for example "127.0.0.1:0"')
    return str(value)


def zone(value: Any, place: Place) -> str:
    """A time zone by its name."""
    from dbsync.etl.cron import check_zone

    check_zone(text(value, place), place.name)
    return str(value)


def schedules(value: Any, place: Place) -> Mapping[str, str]:
    """Cron expressions by job; an empty one switches the job's own schedule off."""
    from dbsync.etl.cron import check

    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise place.wrong(value, "a table of cron expressions")
    for name, expression in value.items():
        if expression.strip():
            check(expression, f"{place.name}.{name}")
    return {name: expression.strip() for name, expression in value.items()}


def pairs(value: Any, place: Place) -> Mapping[str, str]:
    """A table of texts."""
    if not isinstance(value, dict) or not all(isinstance(v, str) and v for v in value.values()):
        raise place.wrong(value, "a table of texts")
    return dict(value)


def one_of(*built: str, later: tuple[str, ...] = ()) -> Reader:
    """A reader of these words; those of `later` belong to the contract, and this version does not have them."""

    def read(value: Any, place: Place) -> str:
        if isinstance(value, str) and value in built:
            return value
        if isinstance(value, str) and value in later:
            raise not_built(f"{place.name} = {value!r}", f"Use {' or '.join(map(repr, built))}.")
        raise ConfigError(f"{place.name} is {value!r}.", remedy=f"It is one of {', '.join(built)}.")

    return read


def not_built(what: str, remedy: str) -> ConfigError:
    """The error for something that the contract names and this version does not have."""
    return ConfigError(f"{what} is {_LATER}.", code="not-built", remedy=remedy)
