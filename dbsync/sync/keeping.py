"""What the older side cannot hold of the newer one's values is kept beside its rows, in the transaction that puts them.

A value that is kept must be one that the older row reflects already: a put takes it for what the older row would
become by crossing over, and would leave a cell alone that has not been brought up to date. So it is stored only
where every older row at that key is put, and never for a key whose change is still on its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dbsync.errors import PositionLost
from dbsync.etl.losing import KIND, is_kept
from dbsync.etl.merge import alike, same
from dbsync.etl.run import Lens, TablePlan
from dbsync.model import Changes, Key, Position, Row, Value
from dbsync.ports import Transaction, View
from dbsync.sync import batch, snapshot
from dbsync.sync.link import Link, drain_timeout


class Keeper:
    """Keeps and forgets over a link, whichever way it goes; does nothing where no column is kept."""

    def __init__(self, link: Link) -> None:
        self.link = link
        plans = {name: plan for name, plan in link.lens.forward.tables.items() if plan.relation.kept}
        self.back = plans if link.target.name == link.lens.older else {}
        """Newer tables of which something is kept, when the older side follows."""
        self.there = plans if link.target.name == link.lens.newer else {}
        """The same when the newer side follows."""

    # --- the older side is live --------------------------------------------------------------------

    def void(self, born: batch.Keys) -> None:
        """Forget what is kept at newer keys at which the older side has a row made anew, in the live database itself.

        Done again it does no harm, so that a window which is not applied in the end may be read again.
        """
        for name, keys in born.items():
            if keys and name in self.there:
                self.link.source.forget(self.link.epoch, self.there[name].relation.kept, list(keys))

    def void_since_opened(self, view: View) -> None:
        """The same before everything is copied anew: the windows that said so are not read any more.

        What is kept is older than the side's being live, so no row made since then has to do with it.
        """
        guard = view.guard()
        if not self.there or guard is None or guard.opened_at is None:
            return
        found: batch.Keys = {}
        try:
            changes = view.changes(guard.opened_at)
        except PositionLost:
            return
        for touched in changes.tables:
            if touched.born:
                batch.merge(found, self.link.lens.forward.born(view, touched.table, tuple(touched.born)))
        self.void(found)

    # --- the older side follows --------------------------------------------------------------------

    def touched(self, tx: Transaction, keys: batch.Keys) -> batch.Keys:
        """The newer keys that these older ones contribute to, as the older side stands now."""
        found: batch.Keys = {}
        if self.back:
            for name, own in keys.items():
                if own:
                    more = self.link.lens.forward.targets(tx, name, list(own))
                    batch.merge(found, {table: there for table, there in more.items() if table in self.back})
        return found

    def changed(self, changes: Changes) -> batch.Keys:
        """The newer keys that changed, of tables of which something is kept."""
        return {t.table: dict.fromkeys(t.keys) for t in changes.tables if t.table in self.back and t.keys}

    def keep(self, view: View, tx: Transaction, keys: batch.Keys, since: Position | None) -> None:
        """Keep, or forget, what these newer keys need, once their older rows are put.

        A key that changed after `since` is left to the window that brings it (None: nothing is on its way).
        """
        keys = {name: own for name, own in keys.items() if own}
        if not keys:
            return
        later = view.changes(since) if since is not None else None
        on_their_way = self.changed(later) if later is not None else {}
        whole = {touched.table for touched in later.tables if touched.whole} if later is not None else set()
        for name, own in keys.items():
            left = on_their_way.get(name, {})
            now = [key for key in own if key not in left] if name not in whole else []
            for part in batch.pieces(now):
                self._keep(view, tx, self.back[name], part)

    def keep_or_forget(self, view: View, tx: Transaction, keys: batch.Keys, since: Position | None) -> None:
        """As `keep`; but while older tables are being put again, nothing new is kept of rows that wait for that."""
        if not any(keys.values()):
            return
        documents = tx.load_all(KIND)
        swept = all(is_kept(documents.get(name), plan.hash) for name, plan in self.back.items())
        if swept and self._copied(tx):
            self.keep(view, tx, keys, since)
            return
        for name, own in keys.items():
            for kept in self.back[name].relation.kept:
                tx.keep(kept.table, kept.name, (), [kept.word(key) for key in own])

    def _copied(self, tx: Transaction) -> bool:
        """Whether the older tables are what the newer side said (no copy set: that of a completed handover)."""
        documents = tx.load_all("copy")
        plans = self.link.composition.tables
        return not documents or all(snapshot.current(documents.get(name), plan.hash) for name, plan in plans.items())

    def _keep(self, view: View, tx: Transaction, plan: TablePlan, keys: Sequence[Key]) -> None:
        places = plan.relation.places()
        theirs = _by_word(plan, view.by_keys(plan.stored, keys), places)
        bases = _by_word(plan, tx.by_keys(plan.bare, keys), places)
        words = list(dict.fromkeys(map(plan.same_key, keys)))
        both = [word for word in words if word in theirs and word in bases]
        unlike = {word: bases[word] for word in both if not alike(theirs[word], bases[word])}
        settled = self._settled(plan, unlike, places)
        for kept in plan.relation.kept:
            at = plan.relation.columns.index(kept.column)
            rows: list[tuple[Key, Value, Value]] = [
                (word, theirs[word][at], bases[word][at])
                for word in both
                if not same(settled.get(word, bases[word])[at], theirs[word][at])
            ]
            stays = {word for word, _, _ in rows}
            tx.keep(kept.table, kept.name, rows, [word for word in words if word not in stays])

    def _settled(self, plan: TablePlan, rows: Mapping[Key, Row], places: Sequence[int]) -> dict[Key, Row]:
        """The rows with the types that the newer table's columns give them."""
        if not rows:
            return {}
        shape = self.link.lens.shapes[plan.relation.table]
        with self.link.target.scratch([shape]) as scratch:
            scratch.fill(shape.name, plan.stored.columns, rows.values())
            return _by_word(plan, scratch.by_range(plan.stored, None, None), places)

    # --- all of them -------------------------------------------------------------------------------

    def unswept(self) -> tuple[str, ...]:
        """The older tables beside which something may still have to be kept that no window will bring."""
        if not self.back:
            return ()
        with self.link.target.view() as view:
            return unswept(view, self.link.lens)

    def restart(self, tx: Transaction) -> None:
        """Note that an older table is put again: what is kept beside it has to be looked at again afterwards."""
        for name in self.back:
            tx.save(KIND, name, None)

    def adopt(self, tx: Transaction) -> None:
        """Note at the end of a handover that everything is kept, where newer rows were exactly what forward gives."""
        for name, plan in self.back.items():
            if self._exact(plan):
                tx.save(KIND, name, snapshot.Copy(plan.hash, done=True).document())

    def copied(self) -> None:
        """The same on the live older side, once the newer one has been copied from it."""
        for name, plan in self.there.items():
            with self.link.source.view() as view:
                noted = is_kept(view.load(KIND, name), plan.hash)
            if not noted and self._exact(plan):
                self.link.source.save(KIND, name, snapshot.Copy(plan.hash, done=True).document())

    def _exact(self, plan: TablePlan) -> bool:
        left_alone = self.link.lens.kept.get(plan.relation.table, frozenset())
        return not any(kept.column in left_alone for kept in plan.relation.kept)

    def sweep(self, deadline: float | None) -> None:
        """Keep what has to be kept of every newer row, once the older tables are copied; goes on where it stopped."""
        link = self.link
        self.copied()
        if not self.unswept():
            return
        for name, plan in self.back.items():
            with link.target.view() as view:
                document = view.load(KIND, name)
            copy = snapshot.resumed(document, plan.hash)
            if is_kept(document, plan.hash):
                continue
            while not copy.done:
                if deadline is not None and link.clock.monotonic() > deadline:
                    raise drain_timeout(f"what {link.target.name} keeps of {name} was still being read")
                copy = link.unraced(lambda plan=plan, copy=copy: self._range(plan, copy))  # type: ignore[misc]
                link.report(f"keep {name}", copy.rows, None)
                link.pulse()

    def _range(self, plan: TablePlan, copy: snapshot.Copy) -> snapshot.Copy:
        link, name = self.link, plan.relation.table
        start = link.checkpoint()
        with link.source.view() as view:
            link.admit(start, view)
            rows = view.by_range(plan.stored, copy.cursor, None, limit=batch.BATCH_KEYS)
            keys = batch.keys_of(rows, plan.relation.places())
            with link.writing() as tx:
                tx.set_checkpoint(start.source, start.position, expected=start.position)
                stands = snapshot.read_copy(tx.load(KIND, name))
                if not self._copied(tx) or (copy.cursor is not None and stands != copy):
                    return replace(copy, done=True)  # put again meanwhile, or read by another process
                self.keep(view, tx, {name: dict.fromkeys(keys)}, start.position)
                after = copy.advanced(keys[-1] if keys else None, len(rows), len(rows) < batch.BATCH_KEYS)
                tx.save(KIND, name, after.document())
        return after


def unswept(older: View, lens: Lens) -> tuple[str, ...]:
    """The tables of the older side, which follows, beside which something may still have to be kept."""
    plans = {name: plan for name, plan in lens.forward.tables.items() if plan.relation.kept}
    documents = older.load_all(KIND) if plans else {}
    left = [plan for name, plan in plans.items() if not is_kept(documents.get(name), plan.hash)]
    return tuple(name for name in lens.reverse.tables if any(name in plan.sources for plan in left))


def _by_word(plan: TablePlan, rows: Iterable[Row], places: Sequence[int]) -> dict[Key, Row]:
    return {plan.same_key(tuple(row[place] for place in places)): row for row in rows}
