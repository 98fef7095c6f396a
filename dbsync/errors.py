"""One tree of errors, sorted by what the operator does next.

Every error carries a stable machine word (`code`), what was found (the message), what to do
(`remedy`) and whether anything was changed. The docstring of a class is its default message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that stands in the way: a stable code, what was found, what to do."""

    code: str
    found: str
    remedy: str


class DbsyncError(Exception):
    """dbsync failed."""

    exit_code = 1
    default_code = "failed"

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        remedy: str = "",
        changed: bool = False,
        blockers: Sequence[Blocker] = (),
        next_command: str | None = None,
    ) -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.code = code or self.default_code
        self.remedy = remedy
        self.changed = changed
        self.blockers = tuple(blockers)
        self.next_command = next_command
        super().__init__(self.message)


class ConfigError(DbsyncError):
    """The configuration, or the command line, cannot be used as it is."""

    exit_code = 2
    default_code = "config"


class Refused(DbsyncError):
    """A rule or a gate said no. Nothing was changed."""

    exit_code = 3
    default_code = "refused"


class Different(DbsyncError):
    """The two sides differ, or a judgement found errors."""

    exit_code = 4
    default_code = "different"


class Unavailable(DbsyncError):
    """Something outside did not answer. It is safe to run the command again."""

    exit_code = 5
    default_code = "unavailable"


class PositionLost(DbsyncError):
    """The place up to which the idle database had followed is gone. Take a new snapshot."""

    exit_code = 6
    default_code = "position-lost"


class OwnershipAmbiguous(DbsyncError):
    """The two guard rows do not say which database is live. Stop and look."""

    exit_code = 7
    default_code = "ownership-ambiguous"


class Interrupted(DbsyncError):
    """Stopped by a signal; what had been done is recorded."""

    exit_code = 130
    default_code = "interrupted"
