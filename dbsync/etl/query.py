"""A crossing's SELECT as a parsed tree: what it reads, what it gives, whether it may be trusted, and renaming.

The text is never written anew from the tree: a table's name is exchanged where the tree says that it
stands, so every other character stays as its author wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import Dialect, TokenType, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from dbsync.errors import ConfigError
from dbsync.etl.fickle import fickle
from dbsync.model import Capabilities


@dataclass(frozen=True, slots=True)
class Where:
    """Where a SELECT stands, for messages."""

    revision: str
    table: str
    direction: str
    path: str = ""
    noted: list[tuple[Where, ConfigError]] | None = None
    """Where errors are put down instead of being raised, so that one look finds all of them."""

    def __str__(self) -> str:
        place = f" ({self.path})" if self.path else ""
        return f"crossing {self.revision}{place}, {self.direction}, table {self.table}"

    def error(self, code: str, found: str, remedy: str) -> ConfigError:
        """A ConfigError that names this place."""
        return ConfigError(f"{self}: {found}", code=code, remedy=remedy)

    def refuse(self, code: str, found: str, remedy: str) -> None:
        """Raise that error, or put it down where errors are gathered."""
        error = self.error(code, found, remedy)
        if self.noted is None:
            raise error
        self.noted.append((self, error))


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
    mark: str = "s"
    """What the names of a chain's own queries begin with: another one where chains stand in one query."""
    temporary: str = ""
    """What the name of a private temporary table begins with."""
    past: bool = False
    """Whether the chain stands for an earlier state, as far as the other database can tell it."""

    def quote(self, name: str) -> str:
        """The name as an identifier of that database."""
        opening, closing = self.quotes
        return f"{opening}{name.replace(closing, closing * 2)}{closing}"

    def stable(self, expression: str) -> bool:
        """Whether an expression (a column's default) gives the same value each time."""
        return next(fickle(Dialect.get_or_raise(self.parser).tokenize(expression)), None) is None


def speech(capabilities: Capabilities) -> Speech:
    """How to speak to a database. The parser's dialect is its own, or Transact-SQL where names stand in brackets."""
    name = capabilities.dialect
    if Dialect.get(name) is None:
        name = "tsql" if capabilities.quote[0] == "[" else ""
    return Speech(capabilities.dialect, name, capabilities.quote, temporary=capabilities.temporary)


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


def parse_question(text: str, dialect: str, where: Where) -> tuple[exp.Query, tuple[Read, ...], tuple[Scope, ...]]:
    """A key query as a tree, and where it names tables. ConfigError `broken-crossing` unless it is one SELECT."""
    trees = _trees(text, dialect, where)
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise where.error("broken-crossing", "a key query is not one SELECT", "write SELECT … WHERE … IN (:keys)")
    scopes = tuple(traverse_scope(trees[0]))
    return trees[0], _reads(text, trees[0], scopes, where), scopes


def rename(query: Query, origins: Mapping[str, str]) -> str:
    """The SELECT with tables (by folded name) exchanged for the quoted names given; aliases keep their meaning."""
    return renamed(query.text, query.reads, origins)


def renamed(text: str, reads: Sequence[Read], origins: Mapping[str, str]) -> str:
    """A text with the tables at these places exchanged, by folded name."""
    for read in sorted(reads, key=lambda read: read.start, reverse=True):
        origin = origins.get(read.name.casefold())
        if origin is None:
            continue
        alias = "" if read.named else f" AS {read.written}"
        text = text[: read.start] + origin + alias + text[read.stop :]
    return text


def _trees(text: str, dialect: str, where: Where) -> list[exp.Expr]:
    try:
        parsed = _parsed(text, dialect)
    except SqlglotError as error:
        cause = str(error).splitlines()[0].replace("\x1b[4m", "").replace("\x1b[0m", "")
        raise where.error("broken-crossing", f"the SQL does not parse: {cause}", "correct the SELECT") from None
    return [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]


@lru_cache(maxsize=512)
def _parsed(text: str, dialect: str) -> list[exp.Expr | None]:
    """The trees of a text. Nobody changes them: the same SELECT is composed into several chains."""
    return Dialect.get_or_raise(dialect).parse(text)


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
