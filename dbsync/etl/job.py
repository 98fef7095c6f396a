"""A job as its author writes it: a frozen value, checked as far as it can be without a database."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dbsync.errors import ConfigError
from dbsync.etl.crossing import Pair

Batch = list[dict[str, Any]]
Transform = Callable[[Batch], Batch]
"""Takes the rows of one batch, as dicts by column name, and gives the rows to load."""

MODES = ("upsert", "replace", "append")
SIDES = ("active", "idle")
PARAMETERS = ("since", "until", "keys")

_NOT_CODE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PARAMETER = re.compile(r"(?<![:\w]):([A-Za-z_]\w*)")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An extract, transform and load run of this installation's own.

    `extract` is one SELECT, or one a dialect. Its `:since` and `:until` are this run's bounds by the source's
    clock; with `through` its `:keys` are the keys of that source table that changed since the last finished run.
    `key` names the columns of `into` that tell its rows apart: its primary key, or unique columns. Raises ConfigError
    (`broken-job`) for everything that can be seen to be wrong without a database.
    """

    extract: str | Mapping[str, str]
    into: str
    key: str | Sequence[str]
    source: str = "active"
    target: str = "idle"
    mode: str = "upsert"
    """upsert: by key; append: a key that is there is left alone; replace: everything anew, from the beginning."""
    overlap: str | None = None
    """How far back a late commit may reach, such as "5m"."""
    schedule: str | None = None
    """A cron expression."""
    transform: Transform | None = None
    through: str | None = None
    """A source table whose capture says which keys changed, instead of a clock."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        extract = dict(self.extract) if isinstance(self.extract, Mapping) else self.extract
        object.__setattr__(self, "extract", extract)
        object.__setattr__(self, "key", _names(self.key))
        _check_sides(self)
        _check_extract(self)
        if self.overlap is not None and not (_is_text(self.overlap) and _DURATION.fullmatch(self.overlap)):
            raise _broken(f"overlap is {self.overlap!r}, which is not a duration", 'write it as "5m" (ms, s, m, h, d)')
        if self.transform is not None and not callable(self.transform):
            raise _broken(f"transform is a {type(self.transform).__name__}, not a callable that maps a batch of rows")
        if self.schedule is not None:
            check_schedule(self.schedule)

    @property
    def columns(self) -> tuple[str, ...]:
        """The key's columns."""
        return tuple(self.key)

    @property
    def late(self) -> timedelta:
        """The overlap; zero without one."""
        found = _DURATION.fullmatch(self.overlap or "")
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]]) if found else timedelta()

    @property
    def bounded(self) -> bool:
        """Whether its extract asks for the time bounds."""
        return any({"since", "until"} & parameters(sql) for sql in _texts(self.extract))

    def sql(self, dialect: str) -> str:
        """Its SELECT for that dialect. Raises ConfigError (`broken-job`) when it has none for it."""
        if isinstance(self.extract, str):
            return self.extract
        if dialect not in self.extract:
            known = ", ".join(sorted(self.extract))
            raise _broken(f"it has no extract for {dialect}, only for {known}", f"add extract[{dialect!r}]")
        return self.extract[dialect]


def parameters(sql: str) -> frozenset[str]:
    """The names of the `:name` parameters of a statement (not those inside texts and comments)."""
    return frozenset(_PARAMETER.findall(_NOT_CODE.sub(" ", sql)))


def without_parameters(sql: str) -> str:
    """The statement with NULL for each parameter, to ask what it reads; texts and comments stay."""
    kept = re.compile(f"({_NOT_CODE.pattern})|{_PARAMETER.pattern}", re.DOTALL)
    return kept.sub(lambda found: found[1] or "NULL", sql)


def check_schedule(expression: str) -> None:
    """Raises ConfigError (`broken-job`) for an expression that cron does not understand."""
    from dbsync.etl.cron import check  # time zones are not read where no schedule is

    if not _is_text(expression):
        raise _broken(f"schedule is {expression!r}, which is no cron expression", 'such as "*/15 * * * *"')
    try:
        check(expression, "schedule")
    except ConfigError as error:
        raise _broken(error.message, error.remedy) from error


def refuse_shared(jobs: Mapping[str, Job]) -> None:
    """Raises ConfigError (`broken-job`) when one of the jobs would clear what another one loads."""
    seen: dict[str, tuple[str, Job]] = {}
    for name, job in jobs.items():
        other, before = seen.setdefault(job.into.casefold(), (name, job))
        if other != name and "replace" in (job.mode, before.mode):
            raise _broken(
                f"the jobs {other} and {name} both write {job.into}, and one of them replaces all of it",
                "give each a table of its own",
            )


def refuse_crossed(jobs: Mapping[str, Job], pairs: Mapping[str, Pair]) -> None:
    """Raises ConfigError (`broken-job`) when a crossing names a table that a job writes."""
    written = {job.into.casefold(): name for name, job in jobs.items()}
    for revision, pair in pairs.items():
        for crossing in (pair.forward, pair.reverse):
            for one in crossing.tables if crossing is not None else ():
                if one.name.casefold() in written:
                    raise _broken(
                        f"the job {written[one.name.casefold()]} writes {one.name}, and the crossing of revision"
                        f" {revision} names it: what a job writes does not cross",
                        "let the job write a table of its own, or take it out of the crossing",
                    )


def _is_text(given: object) -> bool:
    return isinstance(given, str) and bool(given.strip())


def _texts(extract: str | Mapping[str, str]) -> tuple[str, ...]:
    return (extract,) if isinstance(extract, str) else tuple(extract.values())


def _names(key: object) -> tuple[str, ...]:
    names = (key,) if isinstance(key, str) else tuple(key) if isinstance(key, Sequence) else ()
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise _broken(f"key is {key!r}; it names the columns of `into` that tell its rows apart")
    if len({name.casefold() for name in names}) < len(names):
        raise _broken(f"key names a column twice: {', '.join(names)}")
    return names


def _check_sides(job: Job) -> None:
    for what in ("source", "target"):
        side = getattr(job, what)
        if side not in SIDES:
            raise _broken(f"{what} is {side!r}, which is not one of {', '.join(SIDES)}")
    if job.mode not in MODES:
        raise _broken(f"mode is {job.mode!r}, which is not one of {', '.join(MODES)}")
    if not _is_text(job.into):
        raise _broken(f"into is {job.into!r}; it is the name of the table that the job writes")
    if job.through is not None and not _is_text(job.through):
        raise _broken(f"through is {job.through!r}; it is the name of a table of the source")


def _check_extract(job: Job) -> None:
    given: object = job.extract
    texts = _texts(job.extract) if isinstance(given, str | Mapping) else ()
    if not texts or not all(map(_is_text, texts)):
        raise _broken("extract is a SELECT, or a mapping of dialects to one each")
    for sql in texts:
        named = parameters(sql)
        unknown = sorted(named - set(PARAMETERS))
        if unknown:
            raise _broken(f"its extract has the unknown parameter :{unknown[0]}", "use :since, :until or :keys")
        if "keys" in named and job.through is None:
            raise _broken(
                "its extract has :keys, and there is no `through`", "name the table whose changed keys they are"
            )
        if job.through is not None and "keys" not in named:
            raise _broken("it goes through a table, and its extract has no :keys", "use :keys in the extract")
        if job.through is not None and named != {"keys"}:
            raise _broken("its extract has both :keys and a time bound", "use one of them")
        if not named and job.mode == "append":
            raise _broken(
                "its extract has no :since, :until or :keys, so each run appends everything",
                "bound the extract, or use mode upsert or replace",
            )


def _broken(found: str, remedy: str = "correct the job's file") -> ConfigError:
    return ConfigError(found, code="broken-job", remedy=remedy)
