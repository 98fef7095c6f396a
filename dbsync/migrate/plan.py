"""Which revisions are to run, from where a database stands to where it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dbsync.errors import ConfigError, Refused


@dataclass(frozen=True, slots=True)
class Plan:
    """From one revision to another (None: base), and what runs between, in the order in which it runs."""

    start: str | None
    goal: str | None
    down: bool
    revisions: tuple[str, ...]

    def after(self, revision: str) -> str | None:
        """Where the database stands when this revision of the plan has run."""
        if not self.down:
            return revision
        place = self.revisions.index(revision) + 1
        return self.revisions[place] if place < len(self.revisions) else self.goal


def resolve(chain: Sequence[str], name: str | None) -> str | None:
    """The revision that an id, the unique beginning of one, `head` or `base` (None) stands for.

    Raises ConfigError (`unknown-revision`).
    """
    if name is None or name == "base":
        return None
    if name == "head":
        return chain[-1] if chain else None
    if name in chain:
        return name
    begun = [revision for revision in chain if name and revision.startswith(name)]
    if len(begun) == 1:
        return begun[0]
    found = f"{name!r} is the beginning of {', '.join(begun)}" if begun else f"there is no revision {name!r}"
    raise ConfigError(found, code="unknown-revision", remedy=f"name one of: base, {', '.join(chain) or 'nothing else'}")


def standing(chain: Sequence[str], revision: str | None, name: str) -> int:
    """How many revisions of the chain a database has behind it. Raises ConfigError (`unknown-revision`)."""
    if revision is None:
        return 0
    if revision not in chain:
        raise ConfigError(
            f"{name} stands at revision {revision}, which is not among the migrations",
            code="unknown-revision",
            remedy="bring the file of that revision back",
        )
    return chain.index(revision) + 1


def make_plan(chain: Sequence[str], at: str | None, to: str | None, down: bool, name: str) -> Plan:
    """The way of the database `name` from revision `at`: up to `to` (None: head), or down to it (None: one step).

    Raises ConfigError (`unknown-revision`), Refused (`wrong-direction`).
    """
    here = standing(chain, at, name)
    if to is None:
        there = max(here - 1, 0) if down else len(chain)
    else:
        there = standing(chain, resolve(chain, to), name)
    goal = chain[there - 1] if there else None
    if (there > here) if down else (there < here):
        raise Refused(
            f"{name} stands at {at or 'base'}, and {goal or 'base'} comes {'after' if down else 'before'} that",
            code="wrong-direction",
            remedy="leave out --down" if down else "add --down",
        )
    between = tuple(reversed(chain[there:here])) if down else tuple(chain[here:there])
    return Plan(at, goal, down, between)


def still_to_run(plan: Plan, chain: Sequence[str], at: str | None, name: str) -> tuple[str, ...]:
    """What is left of a plan for a database that stands at `at` by now; another migrator may have been faster.

    Raises Refused (`revision-moved`) when the database has left the way of the plan.
    """
    if at == plan.goal:
        return ()
    if at == plan.start:
        return plan.revisions
    for place, revision in enumerate(plan.revisions):
        if plan.after(revision) == at:
            return plan.revisions[place + 1 :]
    standing(chain, at, name)
    raise Refused(
        f"{name} was brought to revision {at or 'base'} by someone else meanwhile",
        code="revision-moved",
        remedy="look at it (`dbsync status`), and run the command again",
    )
