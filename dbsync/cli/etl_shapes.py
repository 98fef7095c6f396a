"""The shape at every revision: from running the revisions on the desk, or else from what the databases know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbsync.errors import DbsyncError
from dbsync.model import Catalog, Renamed

if TYPE_CHECKING:
    from dbsync.cli.wiring import Context
    from dbsync.etl.check import Step
    from dbsync.migrate.findings import Finding


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is known of the shapes along a chain of revisions."""

    chain: tuple[str, ...]
    at: Mapping[str, Catalog]
    """By revision; one whose shape nobody knows is left out."""
    renames: tuple[Renamed, ...]
    failed: tuple[str, str] | None
    """The revision that does not run on an empty database, and why."""

    def before(self, revision: str) -> Catalog | None:
        """The shape before a revision; that before the first one is empty."""
        place = self.chain.index(revision)
        return self.at.get(self.chain[place - 1]) if place else Catalog({})

    def steps(self, pairs: Mapping[str, Any]) -> list[Step]:
        """The revisions whose shape is known before and after."""
        from dbsync.etl.check import Step

        found = []
        for revision in self.chain:
            before, after = self.before(revision), self.at.get(revision)
            if before is not None and after is not None:
                found.append(Step(revision, before, after, pairs.get(revision)))
        return found

    def unknown(self) -> list[Finding]:
        """A warning for each revision that could not be judged."""
        from dbsync.migrate.findings import not_rehearsed

        why = self.failed[1] if self.failed is not None else "no shape is known"
        missing = [one for one in self.chain if self.before(one) is None or one not in self.at]
        return [not_rehearsed(missing[0], why)] if missing else []


def known_shapes(context: Context) -> Shapes:
    """The shapes along the chain. Needs no database, but asks those that answer where a revision does not run alone."""
    from dbsync.migrate.run import rehearse

    chain = context.migrator.chain()
    with context.migrator.recording() as renames:
        rehearsal = rehearse(context.sketch, context.migrator, chain)
        found = {revision: after for revision, _, after in rehearsal.steps}
        if rehearsal.failed is not None:
            # What was made of nothing is not what a database is that was there before its first revision.
            found |= _recorded(context, chain)
    return Shapes(chain, found, tuple(dict.fromkeys(renames)), rehearsal.failed)


def _recorded(context: Context, chain: Sequence[str]) -> dict[str, Catalog]:
    from dbsync.migrate.run import rehearse
    from dbsync.migrate.shape import from_document

    found: dict[str, Catalog] = {}
    for database in context.databases.values():
        with suppress(DbsyncError):
            here = database.catalog()
            with database.view() as view:
                documents = view.load_all("shape")
            found.update({name: from_document(one) for name, one in documents.items() if name in chain})
            if here.revision is not None and here.revision in chain:
                found[here.revision] = here
                later = chain[chain.index(here.revision) + 1 :]
                rehearsal = rehearse(database, context.migrator, later)
                for revision, _, after in rehearsal.steps:
                    found.setdefault(revision, after)
    return found
