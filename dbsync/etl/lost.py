"""What can be relied upon where a SELECT reads rows of an earlier state, which another database tells."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from dbsync.etl.query import Query
from dbsync.etl.stage import Stage


def lost_through(query: Query, sources: Mapping[str, Stage]) -> tuple[str, dict[str, str]]:
    """Why the rows that a SELECT gives cannot be relied upon (empty: they can), and the columns that cannot.

    A column that is lost spoils what is computed from it; one that decides which rows there are spoils them all.
    """
    mute = next((f"{stage.table}: {stage.mute}" for stage in sources.values() if stage.mute), "")
    if mute or not any(stage.lost for stage in sources.values()):
        return mute, {}
    outputs = {
        id(column): given.alias_or_name.casefold()
        for given in query.tree.expressions
        for column in given.find_all(exp.Column)
    }
    lost: dict[str, str] = {}
    for scope in query.scopes:
        for column in scope.columns:
            why = _why(column, scope, sources)
            output = outputs.get(id(column))
            if why and output is not None:
                lost[output] = why
            elif why:
                return f"it depends on {column.sql()}, {why}", {}
    return "", lost


def loses_through(query: Query, sources: Mapping[str, Stage]) -> dict[str, str]:
    """What earlier crossings declared to be lost, under the columns that a SELECT makes of it.

    What it does not read is lost no more; what only decides which rows there are stays under its own name.
    """
    if not any(stage.loses for stage in sources.values()):
        return {}
    declared = {name: {own.casefold(): why for own, why in stage.loses.items()} for name, stage in sources.items()}
    outputs = {
        id(column): given.alias_or_name for given in query.tree.expressions for column in given.find_all(exp.Column)
    }
    found: dict[str, str] = {}
    for scope in query.scopes:
        for column in scope.columns:
            why = _reason(column, scope, declared)
            if why:
                found[outputs.get(id(column), column.name)] = why
    return found


def _why(column: exp.Column, scope: Scope, sources: Mapping[str, Stage]) -> str:
    return _reason(column, scope, {name: stage.lost for name, stage in sources.items()})


def _reason(column: exp.Column, scope: Scope, reasons: Mapping[str, Mapping[str, str]]) -> str:
    aliases = {alias.casefold(): source for alias, source in scope.sources.items()}
    source = aliases.get(column.table.casefold()) if column.table else None
    if isinstance(source, Scope):
        return ""  # its own columns are looked at where it reads them
    named = [source.name.casefold()] if isinstance(source, exp.Table) else list(reasons)
    folded = column.name.casefold()
    return next((why for name in named if (why := reasons.get(name, {}).get(folded))), "")
