"""A crossing's SELECT as a parsed tree: what it reads, what it gives, whether it may be trusted, and renaming.

The text is never written anew from the tree: a table's name is exchanged where the tree says that it
stands, so every other character stays as its author wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import Dialect, Token, TokenType, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from dbsync.errors import ConfigError
from dbsync.model import Capabilities

# What gives another value at another time, on another server or in another order of rows.
_CALLS = frozenset(
    [
        "random",
        "randomblob",
        "rand",
        "newid",
        "newsequentialid",
        "uuid",
        "gen_random_uuid",
        "crypt_gen_random",
        "getdate",
        "getutcdate",
        "sysdatetime",
        "sysutcdatetime",
        "sysdatetimeoffset",
        "now",
        "last_insert_rowid",
        "changes",
        "total_changes",
        "scope_identity",
        "host_name",
        "suser_sname",
        "suser_name",
        "user_name",
        "session_context",
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
        "@@rowcount",
        "@@identity",
    ]
)
_CLOCKS = frozenset(["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"])
_MOMENTS = frozenset({"now", "localtime"})
_UNORDERED = frozenset(["group_concat", "string_agg", "json_group_array", "json_group_object"])


@dataclass(frozen=True, slots=True)
class Where:
    """Where a SELECT stands, for messages."""

    revision: str
    table: str
    direction: str
    path: str = ""

    def __str__(self) -> str:
        place = f" ({self.path})" if self.path else ""
        return f"crossing {self.revision}{place}, {self.direction}, table {self.table}"

    def error(self, code: str, found: str, remedy: str) -> ConfigError:
        """A ConfigError that names this place."""
        return ConfigError(f"{self}: {found}", code=code, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Output:
    """One column that a SELECT gives, and the bare column that it passes on, if it is one."""

    name: str
    node: exp.Column | None

    @property
    def column(self) -> tuple[str, str] | None:
        """Qualifier and name of the column that it passes on."""
        return None if self.node is None else (self.node.table, self.node.name)


@dataclass(frozen=True, slots=True)
class Read:
    """One place where a SELECT names a table that is not its own: where, and under which alias."""

    name: str
    alias: str
    start: int
    stop: int
    named: bool
    """Whether the alias stands in the text."""
    written: str


@dataclass(frozen=True, slots=True)
class Query:
    """A crossing's SELECT, parsed."""

    text: str
    tree: exp.Select
    outputs: tuple[Output, ...]
    reads: tuple[Read, ...]
    scopes: tuple[Scope, ...]

    @property
    def tables(self) -> tuple[str, ...]:
        """Folded names of the tables that it reads, each once."""
        return tuple(dict.fromkeys(read.name.casefold() for read in self.reads))

    @property
    def driving(self) -> str | None:
        """The folded name of the table that its FROM begins with (None: something else)."""
        source = self.tree.args.get("from_") or self.tree.args.get("from")
        first = source.this if source is not None else None
        if not isinstance(first, exp.Table):
            return None
        return first.name.casefold() if first.name.casefold() in self.tables else None

    @property
    def own_names(self) -> frozenset[str]:
        """Folded names of the columns that its own parts give each other (WITH, subqueries, aliases)."""
        aliases = [each for each in self.tree.find_all(exp.Alias) if each.this.name.casefold() != each.alias.casefold()]
        names = {each.alias for each in aliases}
        for part in self.tree.find_all(exp.CTE, exp.Subquery):
            names.update(part.alias_column_names)
        return frozenset(name.casefold() for name in names)

    @property
    def open(self) -> bool:
        """Whether it reads something whose columns are not known (a function that gives a table)."""
        return any(not isinstance(each.this, exp.Identifier) for each in self.tree.find_all(exp.Table))

    def table_of(self, source: object) -> str | None:
        """The folded name of the table behind a scope's source, or None."""
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
            return source.name.casefold()
        return None

    def alias_of(self, qualifier: str) -> str | None:
        """The folded name of the table that a qualifier stands for."""
        folded = qualifier.casefold()
        return next((read.name.casefold() for read in self.reads if read.alias.casefold() == folded), None)


@dataclass(frozen=True, slots=True)
class Speech:
    """How SQL is spoken to one database: the crossings' dialect, the parser's name for it, the quotes."""

    dialect: str
    parser: str
    quotes: tuple[str, str]

    def quote(self, name: str) -> str:
        """The name as an identifier of that database."""
        opening, closing = self.quotes
        return f"{opening}{name.replace(closing, closing * 2)}{closing}"

    def stable(self, expression: str) -> bool:
        """Whether an expression (a column's default) gives the same value each time."""
        return next(_moody(Dialect.get_or_raise(self.parser).tokenize(expression)), None) is None


def speech(capabilities: Capabilities) -> Speech:
    """How to speak to a database. The parser's dialect is its own, or Transact-SQL where names stand in brackets."""
    name = capabilities.dialect
    if Dialect.get(name) is None:
        name = "tsql" if capabilities.quote[0] == "[" else ""
    return Speech(capabilities.dialect, name, capabilities.quote)


def parse(text: str, dialect: str, where: Where) -> Query:
    """The SELECT as a tree. ConfigError `broken-crossing` unless it is one plain SELECT that names its columns."""
    trees = _trees(text, dialect, where)
    if len(trees) != 1 or not isinstance(trees[0], exp.Select):
        kind = f"{len(trees)} statements" if len(trees) != 1 else type(trees[0]).__name__.upper()
        raise where.error(
            "broken-crossing",
            f"the SQL is not one SELECT but {kind}",
            "write one SELECT; several sources are joined, because a union cannot be read by key",
        )
    tree = trees[0]
    if tree.find(exp.Placeholder, exp.Parameter, exp.Into) is not None:
        raise where.error("broken-crossing", "the SELECT has a parameter or INTO", "take it out: it only reads rows")
    if tree.args.get("order"):
        raise where.error("broken-crossing", "the SELECT is ordered", "take ORDER BY out: rows cross by key")
    if not tree.expressions:
        raise where.error("broken-crossing", "the SELECT gives no columns", "name every column that the target keeps")
    text = _without_semicolon(text, dialect)
    scopes = tuple(traverse_scope(tree))
    return Query(text, tree, _outputs(tree, where), _reads(text, tree, scopes, where), scopes)


def tables_of(text: str, dialect: str, where: Where) -> tuple[str, ...]:
    """Folded names of the tables that a key query reads. ConfigError `broken-crossing` unless it is a SELECT."""
    trees = _trees(text, dialect, where)
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise where.error("broken-crossing", "a key query is not one SELECT", "write SELECT … WHERE … IN (:keys)")
    scopes = tuple(traverse_scope(trees[0]))
    return tuple(dict.fromkeys(read.name.casefold() for read in _reads(text, trees[0], scopes, where)))


def rename(query: Query, origins: Mapping[str, str]) -> str:
    """The SELECT with tables (by folded name) exchanged for the quoted names given; aliases keep their meaning."""
    text = query.text
    for read in sorted(query.reads, key=lambda read: read.start, reverse=True):
        origin = origins.get(read.name.casefold())
        if origin is None:
            continue
        alias = "" if read.named else f" AS {read.written}"
        text = text[: read.start] + origin + alias + text[read.stop :]
    return text


def check_stable(query: Query, dialect: str, where: Where, owns: Callable[[str, str], bool]) -> None:
    """Raises ConfigError (`crossing-not-deterministic`) unless the rows at a key depend on that key's rows alone.

    `owns` says whether a table (folded) has a column of that name, which tells a correlated subquery.
    """
    tokens = Dialect.get_or_raise(dialect).tokenize(query.text)
    for found in (*_moody(tokens), *_across(query, owns)):
        raise where.error(
            "crossing-not-deterministic",
            f"the SELECT uses {found}",
            "a row of the target may depend only on the source rows at its key, and must come out the same each time",
        )


def _trees(text: str, dialect: str, where: Where) -> list[exp.Expr]:
    try:
        parsed = Dialect.get_or_raise(dialect).parse(text)
    except SqlglotError as error:
        cause = str(error).splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")
        raise where.error("broken-crossing", f"the SQL does not parse: {cause}", "correct the SELECT") from None
    return [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]


def _without_semicolon(text: str, dialect: str) -> str:
    tokens = Dialect.get_or_raise(dialect).tokenize(text)
    ends = [token for token in tokens if token.token_type is TokenType.SEMICOLON]
    for token in reversed(ends):
        text = text[: token.start] + text[token.end + 1 :]
    return text.rstrip()


def _outputs(tree: exp.Select, where: Where) -> tuple[Output, ...]:
    outputs: list[Output] = []
    for place, given in enumerate(tree.expressions, 1):
        if given.is_star:
            raise where.error("broken-crossing", "the SELECT says *", "name every column that the target keeps")
        name = given.alias_or_name
        inner = given.unalias()
        if not name or not isinstance(given, (exp.Alias, exp.Column)):
            raise where.error("broken-crossing", f"column {place} of the SELECT has no name", "give it one with AS")
        if any(name.casefold() == each.name.casefold() for each in outputs):
            raise where.error("broken-crossing", f"the SELECT gives {name} twice", "give each column once")
        outputs.append(Output(name, inner if isinstance(inner, exp.Column) else None))
    return tuple(outputs)


def _reads(text: str, tree: exp.Expr, scopes: Sequence[Scope], where: Where) -> tuple[Read, ...]:
    own = {cte.alias.casefold() for cte in tree.find_all(exp.CTE)}
    reads: dict[int, Read] = {}
    for scope in scopes:
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier):
                if source.name.casefold() in own:
                    raise where.error(
                        "broken-crossing",
                        f"{source.name} is both a table and a name given by WITH (case does not tell them apart)",
                        "give the WITH another name",
                    )
                read = _read(text, source, where)
                reads[read.start] = read
    return tuple(reads[start] for start in sorted(reads))


def _read(text: str, source: exp.Table, where: Where) -> Read:
    first, last = source.parts[0].meta, source.this.meta
    if "start" not in first or "end" not in last or source.name not in _unquoted(text[last["start"] : last["end"] + 1]):
        raise where.error("broken-crossing", f"the place of table {source.name} is not clear", "write it plainly")
    return Read(
        name=source.name,
        alias=source.alias or source.name,
        start=first["start"],
        stop=last["end"] + 1,
        named=bool(source.alias),
        written=text[last["start"] : last["end"] + 1],
    )


def _unquoted(written: str) -> tuple[str, ...]:
    inner = written[1:-1]
    return written, inner, inner.replace('""', '"'), inner.replace("]]", "]"), inner.replace("``", "`")


def _moody(tokens: Sequence[Token]) -> Iterator[str]:
    for place, token in enumerate(tokens):
        word = token.text.casefold()
        literal = token.token_type in (TokenType.STRING, TokenType.NATIONAL_STRING)
        after = [each.token_type for each in tokens[place + 1 : place + 4]]
        called = bool(after) and after[0] is TokenType.L_PAREN and not literal
        if literal and word.strip() in _MOMENTS:
            yield f"'{token.text}'"
        elif called and word in _CALLS:
            yield f"{token.text}()"
        elif not literal and word in _WORDS and token.token_type is not TokenType.IDENTIFIER:
            yield token.text
        elif called and word in _CLOCKS and after[1:2] == [TokenType.R_PAREN]:
            yield f"{token.text}()"
        elif called and word == "strftime" and after[1:] == [TokenType.STRING, TokenType.R_PAREN]:
            yield f"{token.text} of the present moment"


def _across(query: Query, owns: Callable[[str, str], bool]) -> Iterator[str]:
    for kind, what in ((exp.Window, "a window function"), (exp.Limit, "LIMIT"), (exp.Fetch, "FETCH or TOP")):
        if query.tree.find(kind) is not None:
            yield what
    if query.tree.find(exp.Offset) is not None:
        yield "OFFSET"
    for node in query.tree.walk():
        if _function(node) in _UNORDERED and node.find(exp.Order) is None:
            yield f"{_function(node)} without an order"
    for scope in query.scopes:
        gathers = [node for node in scope.expression.find_all(exp.AggFunc, exp.Anonymous) if _gathers(node, scope)]
        if not gathers or scope.expression.args.get("group"):
            continue
        if scope.is_root or not _correlated(scope, owns):
            yield f"{gathers[0].sql()} over all rows"


def _function(node: exp.Expr) -> str:
    if isinstance(node, exp.Anonymous):
        return str(node.this).casefold()
    return "group_concat" if isinstance(node, exp.GroupConcat) else ""


def _gathers(node: exp.Expr, scope: Scope) -> bool:
    """Whether this is an aggregate of that very scope (MAX of several values is a plain function)."""
    if node.find_ancestor(exp.Select) is not scope.expression:
        return False
    if isinstance(node, exp.Anonymous):
        return str(node.this).casefold() in (_UNORDERED | {"total"})
    return not (isinstance(node, (exp.Max, exp.Min)) and node.expressions)


def _correlated(scope: Scope, owns: Callable[[str, str], bool]) -> bool:
    inner = {name.casefold(): source for name, source in scope.sources.items()}
    for column in scope.expression.find_all(exp.Column):
        if column.table:
            if column.table.casefold() not in inner:
                return True
            continue
        tables = [source.name.casefold() for source in inner.values() if isinstance(source, exp.Table)]
        if len(tables) == len(inner) and not any(owns(table, column.name) for table in tables):
            return True
    return False
