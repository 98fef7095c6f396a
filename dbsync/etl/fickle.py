"""What gives another value at another time, on another server or in another session, read off the tokens of SQL.

Tokens and not the tree: a name is found however it is quoted, spaced or nested, and in every dialect's spelling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlglot import Token, TokenType

# Functions that are fickle whatever they are given.
_CALLS = frozenset(
    [
        # chance
        "random",
        "randomblob",
        "rand",
        "newid",
        "newsequentialid",
        "uuid",
        "gen_random_uuid",
        "crypt_gen_random",
        # the clock
        "getdate",
        "getutcdate",
        "sysdatetime",
        "sysutcdatetime",
        "sysdatetimeoffset",
        "now",
        "curdate",
        "curtime",
        "current_timezone",
        "current_timezone_id",
        # the session, the server and what it has just done
        "last_insert_rowid",
        "changes",
        "total_changes",
        "load_extension",
        "scope_identity",
        "ident_current",
        "min_active_rowversion",
        "current_transaction_id",
        "xact_state",
        "rowcount_big",
        "host_name",
        "app_name",
        "db_name",
        "original_login",
        "suser_sname",
        "suser_name",
        "suser_id",
        "suser_sid",
        "user_name",
        "user_id",
        "database_principal_id",
        "has_perms_by_name",
        "is_member",
        "is_rolemember",
        "is_srvrolemember",
        "session_context",
        "sessionproperty",
        "serverproperty",
        "connectionproperty",
        "databasepropertyex",
        "context_info",
    ]
)
_WORDS = frozenset(
    [
        "current_timestamp",
        "current_date",
        "current_time",
        "current_user",
        "session_user",
        "system_user",
    ]
)
_CLOCKS = frozenset(["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"])
_MOMENTS = frozenset({"now", "localtime"})
_SUBSECONDS = frozenset({"subsec", "subsecond"})
_STRINGS = (TokenType.STRING, TokenType.NATIONAL_STRING)

Found = tuple[int, str]
"""The place of a token, and what it says, for a message."""


def fickle(tokens: Sequence[Token]) -> Iterator[Found]:
    """Every place that is not the same each time."""
    for place, token in enumerate(tokens):
        word = token.text.casefold()
        literal = token.token_type in _STRINGS
        called = not literal and _type(tokens, place + 1) is TokenType.L_PAREN
        if literal and word.strip() in _MOMENTS:
            yield place, f"'{token.text}'"
        elif called and word in _CALLS:
            yield place, f"{token.text}()"
        elif called and word in _CLOCKS:
            yield from _clock(tokens, place)
        elif literal or token.token_type is TokenType.IDENTIFIER:
            continue
        elif word.startswith("@@") or (word in _WORDS and _type(tokens, place - 1) is not TokenType.DOT):
            yield place, token.text
        elif word == "next value for" or _texts(tokens, place, 3) == ["next", "value", "for"]:
            yield place, "NEXT VALUE FOR"


def _clock(tokens: Sequence[Token], place: int) -> Iterator[Found]:
    """A function over moments: of the present one where it is given none, or by the machine's time zone."""
    name = tokens[place].text
    given = list(_arguments(tokens, place + 1))
    moments = given[1:] if name.casefold() == "strftime" else given
    first = _only(moments[0]) if moments else None
    if not moments or (first is not None and first.text.casefold().strip() in _SUBSECONDS):
        yield place, f"{name}() of the present moment"
    for each in moments[1:]:
        token = _only(each)
        if token is not None and token.text.casefold().strip() == "utc":
            yield place, f"'{token.text}'"
    quoted = [token for each in moments if (token := _only(each)) is not None and token.token_type not in _STRINGS]
    for token in quoted:
        # In double quotes some databases take an unknown name for a string.
        if token.token_type is TokenType.IDENTIFIER and token.text.casefold().strip() in _MOMENTS:
            yield place, f'"{token.text}"'


def _arguments(tokens: Sequence[Token], opening: int) -> Iterator[list[Token]]:
    depth, each = 0, list[Token]()
    for token in tokens[opening + 1 :]:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth < 0:
            break
        if depth == 0 and token.token_type is TokenType.COMMA:
            yield each
            each = []
        else:
            each.append(token)
    if each:
        yield each


def spans(tokens: Sequence[Token]) -> list[range]:
    """Where each column of the outermost SELECT stands among the tokens."""
    depth, found = 0, list[range]()
    start: int | None = None
    for place, token in enumerate(tokens):
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth:
            continue
        if start is None:
            start = place + 1 if token.token_type is TokenType.SELECT else None
        elif token.token_type in (TokenType.COMMA, TokenType.FROM):
            found.append(range(start, place))
            start = place + 1
            if token.token_type is TokenType.FROM:
                break
    return found


def _type(tokens: Sequence[Token], place: int) -> TokenType | None:
    return tokens[place].token_type if 0 <= place < len(tokens) else None


def _texts(tokens: Sequence[Token], start: int, count: int) -> list[str]:
    return [token.text.casefold() for token in tokens[start : start + count]]


def _only(tokens: Sequence[Token]) -> Token | None:
    return tokens[0] if len(tokens) == 1 else None
