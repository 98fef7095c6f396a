"""The algebra of crossings: both ways between two databases as they stand, and the laws that hold.

A crossing is a lens. An older row and the newer row that is made of it are two views of one thing:

    get    newer := forward(older)          a query over the older side              Lens.forward
    put    older := older + newer           a query over the newer side, merged      Lens.reverse, run.put, merge.merge

Both are `Composition`s: for each table of the side that is written one query over the other one's tables
(`TablePlan.relation`), and the rules by which a changed key over there gives the keys to read here
(`TablePlan.sources`). They are put together out of four things, from small to large:

    mapping by name   a table's columns under the names of the next shape            stage.by_name
    projection        a SELECT over the tables of the step before, its key followed  step.selected, follow.followed
    settling          what a stored table of that shape would hold: types, defaults  stage.settle, staged.staged
    composition       step after step, each reading the one before as a CTE          compose.compose

The laws, where each is kept, and the test that tries to break it:

    newer = forward(older), at every checkpoint                 verify.compare           test_protocol_rows
    one query, three uses: by key list, by key range and the    compose, Rows sockets    test_algebra: key_list
      whole table give the same rows
    composition is associative: a path at once is its parts     stage.settle             test_algebra: at_once
      over stored tables
    key-local: what a changed row changes is among the keys     follow, keys, before     test_algebra: touches
      that its rules give; what cannot be followed is refused
    the same each time; what is not is set once                 stable, fickle, once     test_stable, test_once
    get, then put: nothing is written                           merge.merge              test_algebra: lens_laws
    put, then get: what was put, but for what `loses` declares  merge.merge              test_algebra: lens_laws
    put touches only what was changed over there: a cell in     merge.merge              test_algebra: lens_laws
      which over-and-back agrees with the newer row stays ours
    a column that only the newer side has is set when its row   newer_only, left_alone   test_lens
      is created, then left alone and not compared
    what the older side cannot hold is refused, accepted or     losing, loss, run.put    test_loss, test_kept
      kept, as declared; never lost in silence

By name alone there is nothing to merge: a put overwrites the row without looking at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from dbsync.errors import Refused
from dbsync.etl.before import Before
from dbsync.etl.compose import Composition
from dbsync.model import Relation, Table
from dbsync.ports import Rows


@dataclass(frozen=True, slots=True)
class Lens:
    """Both ways between the two databases as they stand now."""

    older: str
    """The environment at the older revision (at one revision: the active one)."""
    newer: str
    path: tuple[str, ...]
    """The revisions between the two."""
    forward: Composition
    """Rows of the newer side out of the older one."""
    reverse: Composition
    """Rows of the older side out of the newer one."""
    kept: Mapping[str, frozenset[str]]
    """Columns that only the newer shape has, by its table: filled when a row is created, then never overwritten
    and not compared. Empty until the newer side has been live at a revision of `path`."""
    hash: str
    shapes: Mapping[str, Table] = field(default_factory=dict)
    """The newer side's tables."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """What an environment has no place for though the other one holds rows of it, by environment."""
    past: Mapping[str, Composition] = field(default_factory=dict)
    """By environment the way toward it, over what it tells of the other one itself (where a key query needs that)."""
    over_and_back: Mapping[str, Mapping[str, Relation]] = field(default_factory=dict)
    """By environment and table what its rows become by crossing over and back, in one query over that environment
    (where the way back has a key query, and one query can say it)."""

    def before(self, follower: str, rows: Rows) -> Before:
        """How the other side was when `follower` was last brought up to date: `rows` are the follower's, of that time.

        For Composition.targets of the way toward that environment. The rows may be those of its writing transaction
        before anything is written, or of a view at its checkpoint.
        """
        past = self.past.get(follower)
        return Before(rows, {} if past is None else {name: plan.sources for name, plan in past.tables.items()})

    def toward(self, idle: str) -> Composition:
        """The direction that ends at an environment.

        Refused: `schema-missing` when it has no place for rows, `missing-crossing` when rows of it cannot be made.
        """
        if idle in self.absent:
            raise Refused(
                f"{idle} has no {self.absent[idle]}: what stands there would be left behind",
                code="schema-missing",
                remedy=f"`dbsync migrate --target {idle}`; where no revision creates it, copy the schema into {idle}",
                next_command="dbsync migrate --target idle",
            )
        composition = self.forward if idle == self.newer else self.reverse
        for table, reason in composition.impossible.items():
            raise Refused(
                f"table {table} of {idle} cannot be filled: {reason}",
                code="missing-crossing",
                remedy="write the crossing of that direction, or make the column nullable or give it a default",
            )
        return composition

    def merges(self, table: str) -> bool:
        """Whether rows of the older side's `table` hold more than crosses, so that a put must merge."""
        plan = self.reverse.tables[table]
        touched = (self.forward.tables[name] for name in self.forward.targets_of(table))
        return not plan.by_name or any(not other.by_name for other in touched)


def lens_hash(path: tuple[str, ...], forward: Composition, reverse: Composition) -> str:
    """One word for the path and both directions; at one revision the same whichever side is active."""
    both = (forward.hash, reverse.hash) if path else tuple(sorted((forward.hash, reverse.hash)))
    return sha256("\n".join((*path, "", *both)).encode()).hexdigest()


def newer_only(
    forward: Composition, reverse: Composition, reads: Mapping[str, frozenset[tuple[str, str]]]
) -> dict[str, frozenset[str]]:
    """The columns that forward fills and nothing brings back, by newer table.

    `reads` holds, by older table, the (table, column) pairs that its reverse relation reads. Where a
    crossing has no reverse nothing is brought back at all, and then nothing is kept either: the older
    side is the only source of those rows.
    """
    if forward.assumed or reverse.assumed:
        return {}
    brought = {(table.casefold(), column.casefold()) for pairs in reads.values() for table, column in pairs}
    found: dict[str, frozenset[str]] = {}
    for name, plan in forward.tables.items():
        if plan.by_name:
            continue
        rest = [column for column in plan.relation.columns if column not in plan.relation.key]
        kept = frozenset(column for column in rest if (name.casefold(), column.casefold()) not in brought)
        if kept:
            found[name] = kept
    return found


def left_alone(forward: Composition, kept: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """`kept` and, whether or not the newer side has been live, the columns that are set once, by newer table."""
    once = {name: plan.once for name, plan in forward.tables.items() if plan.once}
    return {name: kept.get(name, frozenset()) | once.get(name, frozenset()) for name in {**kept, **once}}
