"""SQL set out in lines for people to read. Only the blanks between its words change, so that it is what runs."""

from __future__ import annotations

from sqlglot import Dialect, Token, TokenType
from sqlglot.errors import SqlglotError

WIDTH = 100
INDENT = "    "

_CLAUSES = frozenset({"SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "UNION", "INTERSECT", "EXCEPT"})
_JOINS = frozenset({"JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", "OUTER"})


def laid_out(sql: str, parser: str) -> str:
    """The SQL with a line for each clause and each subquery indented; as it was where it cannot be read.

    `parser` is the parser's name of the dialect.
    """
    try:
        tokens = Dialect.get_or_raise(parser).tokenize(sql)
    except SqlglotError:
        return sql
    page = _Page(sql)
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        page.put(tokens[place - 1] if place else None, token, after)
    return page.text.strip()


class _Page:
    """What has been set out so far."""

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.text = ""
        self.open: list[bool] = []
        """For each open parenthesis, whether a query stands in it."""
        self.lists: list[bool] = [False]
        """For each query that is open, whether its WITH still goes on."""

    def put(self, before: Token | None, token: Token, after: Token | None) -> None:
        """Add one word."""
        word = token.text.upper()
        closes = token.token_type is TokenType.R_PAREN and bool(self.open) and self.open.pop()
        if closes and len(self.lists) > 1:
            self.lists.pop()
        gap = self.sql[before.end + 1 if before is not None else 0 : token.start]
        if gap.strip():
            self.text += gap  # a comment: what it belongs to is not known
        elif before is None:
            pass
        elif closes or self._begins(before, token, word, after):
            self.text += "\n" + INDENT * sum(self.open)
        elif gap:
            long = before.token_type is TokenType.COMMA and len(self.text) - self.text.rfind("\n") > WIDTH
            self.text += "\n" + INDENT * (sum(self.open) + 1) if long else " "
        self.text += self.sql[token.start : token.end + 1]
        if token.token_type is TokenType.L_PAREN:
            query = after is not None and after.text.upper() in ("SELECT", "WITH")
            self.open.append(query)
            if query:
                self.lists.append(False)
        elif self._bare and _is_word(token):
            self.lists[-1] = word == "WITH" or (self.lists[-1] and word != "SELECT")

    @property
    def _bare(self) -> bool:
        """Whether we stand in a query, and not in parentheses inside it."""
        return not self.open or self.open[-1]

    def _begins(self, before: Token, token: Token, word: str, after: Token | None) -> bool:
        if before.token_type is TokenType.L_PAREN:
            return bool(self.open) and self.open[-1]
        if not self._bare:
            return False
        if before.token_type is TokenType.COMMA:
            return self.lists[-1]
        called = after is not None and after.token_type is TokenType.L_PAREN
        joins = word in _JOINS and before.text.upper() not in _JOINS and not (called and word in ("LEFT", "RIGHT"))
        return _is_word(token) and (word in _CLAUSES or joins) and before.text.upper() != "DISTINCT"


def _is_word(token: Token) -> bool:
    return token.token_type not in (TokenType.STRING, TokenType.NATIONAL_STRING, TokenType.IDENTIFIER)
