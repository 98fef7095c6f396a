"""Which columns of a SELECT's tables are equal in every row that it gives: what its joins say."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from dbsync.etl.query import Query

Place = tuple[str, str]
"""(table or alias, column), folded."""

Owns = Callable[[str, str], bool]


class Equalities:
    """Classes of columns that a SELECT's equalities tie together; a table stands under its own name."""

    def __init__(self, query: Query, owns: Owns) -> None:
        """`owns` says whether a table (folded) has a column of that name."""
        self._owns = owns
        self._parent: dict[Place, Place] = {}
        for scope in query.scopes:
            self._read(scope)

    def tied(self, one: Place, other: Place) -> bool:
        """Whether the two always hold the same value (or one of them no row)."""
        return self._root(one) == self._root(other)

    def places(self, column: exp.Column, scope: Scope) -> list[Place]:
        """The columns that a name may stand for."""
        name = column.name.casefold()
        if column.table:
            folded = column.table.casefold()
            source = next((each for alias, each in scope.sources.items() if alias.casefold() == folded), None)
            if source is None and scope.parent is not None:
                return self.places(column, scope.parent)
            return [(source.name.casefold() if isinstance(source, exp.Table) else folded, name)]
        own = [each.name.casefold() for each in scope.sources.values() if isinstance(each, exp.Table)]
        found = [(table, name) for table in dict.fromkeys(own) if self._owns(table, name)]
        found += [
            (alias.casefold(), name)
            for alias, each in scope.sources.items()
            if isinstance(each, Scope) and name in _given(each)
        ]
        if not found and scope.parent is not None:
            return self.places(column, scope.parent)
        return found

    def _read(self, scope: Scope) -> None:
        for equal in scope.find_all(exp.EQ):
            left, right = equal.this, equal.expression
            if (
                isinstance(left, exp.Column)
                and isinstance(right, exp.Column)
                and not equal.find_ancestor(exp.Or, exp.Not)
            ):
                self._tie(self.places(left, scope), self.places(right, scope))
        for join in scope.expression.args.get("joins") or ():
            for name in join.args.get("using") or ():
                tied = self.places(exp.column(name.name), scope)
                for place in tied[1:]:
                    self._join(tied[0], place)
        for alias, inner in scope.sources.items():
            if isinstance(inner, Scope) and isinstance(inner.expression, exp.Select):
                for given in inner.expression.selects:
                    column = given.unalias()
                    if isinstance(column, exp.Column):
                        outer = (alias.casefold(), given.alias_or_name.casefold())
                        self._tie([outer], self.places(column, inner))

    def _tie(self, left: list[Place], right: list[Place]) -> None:
        if len(left) == 1 and len(right) == 1:
            self._join(left[0], right[0])

    def _join(self, one: Place, other: Place) -> None:
        self._parent[self._root(one)] = self._root(other)

    def _root(self, place: Place) -> Place:
        while place in self._parent and self._parent[place] != place:
            place = self._parent[place]
        return place


def _given(scope: Scope) -> frozenset[str]:
    selects = scope.expression.selects if isinstance(scope.expression, exp.Query) else []
    return frozenset(given.alias_or_name.casefold() for given in selects)
