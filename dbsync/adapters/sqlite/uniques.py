"""What a unique index keeps apart, as a condition between two rows: its text as written, its columns turned.

SQLite uses an index over expressions only for the very same expression: parsed and printed again, `substr` has become
SUBSTRING and `ifnull` COALESCE, and each search scans the table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from sqlglot import Token, TokenType, tokenize

from dbsync.adapters.sqlite.connection import quoted
from dbsync.model import Table


def unique_conditions(
    connection: sqlite3.Connection, table: Table, found: str, given: str, exact: bool = False
) -> list[str]:
    """For each unique index other than the primary key: that row `found` holds what row `given` would put into it.

    Without `exact` a superset may be found: `given` is not asked whether a partial index takes it.
    """
    conditions = []
    for _, index, unique, origin, partial in connection.execute("SELECT * FROM pragma_index_list(?)", (table.name,)):
        if not unique or origin == "pk":
            continue
        parts = connection.execute(
            "SELECT cid, name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno", (index,)
        ).fetchall()
        if partial or any(cid < 0 for cid, _, _ in parts):
            (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()
            names = [c.name for c in table.columns]
            conditions.append(index_condition(sql, names, found, given, exact))
        else:
            terms = (f"{found}.{quoted(c)} = {_value(c, table, given)} COLLATE {quoted(coll)}" for _, c, coll in parts)
            conditions.append(" AND ".join(terms))
    return conditions


def _value(name: str, table: Table, given: str) -> str:
    """The value a row brings: OR REPLACE puts the default in for NULL where the column takes none."""
    column = table.column(name)
    if column is not None and not column.nullable and column.default is not None:
        return f"coalesce({given}.{quoted(name)}, {column.default})"
    return f"{given}.{quoted(name)}"


def index_condition(sql: str, columns: Collection[str], found: str, given: str, exact: bool = False) -> str:
    """The condition that a row called `found` holds what the row `given` would put into this unique index."""
    terms, predicate = _parts(sql)
    names = {name.casefold() for name in columns}
    equal = [f"({_imaged(sql, term, names, found)}) = ({_imaged(sql, term, names, given)})" for term in terms]
    images = (found, given) if exact else (found,)
    return " AND ".join(equal + [f"({_imaged(sql, predicate, names, image)})" for image in images if predicate])


def _parts(sql: str) -> tuple[list[list[Token]], list[Token]]:
    """The tokens of each indexed term, and those after WHERE."""
    tokens = tokenize(sql, read="sqlite")
    depth, place = 0, len(tokens)
    terms: list[list[Token]] = [[]]
    for place, token in enumerate(tokens):  # noqa: B007  (read after the loop)
        if token.token_type is TokenType.R_PAREN:
            depth -= 1
            if depth == 0:
                break
        if depth == 1 and token.token_type is TokenType.COMMA:
            terms.append([])
        elif depth:
            terms[-1].append(token)
        if token.token_type is TokenType.L_PAREN:
            depth += 1
    order = {TokenType.ASC, TokenType.DESC}
    cut = [term[:-1] if term[-1].token_type in order else term for term in terms]
    return cut, tokens[place + 2 :]


def _imaged(sql: str, tokens: list[Token], names: set[str], image: str) -> str:
    text, at = "", tokens[0].start
    for place, token in enumerate(tokens):
        after = tokens[place + 1].token_type if place + 1 < len(tokens) else None
        before = tokens[place - 1].text.upper() if place else ""
        column = token.text.casefold() in names and token.token_type is not TokenType.STRING
        if column and after is not TokenType.L_PAREN and before != "COLLATE":
            quoted = token.text.replace('"', '""')
            text += f'{sql[at : token.start]}{image}."{quoted}"'
            at = token.end + 1
    return text + sql[at : tokens[-1].end + 1]
