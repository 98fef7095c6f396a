"""Key queries: asked of the tables of one step, wherever those come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.optimizer.scope import Scope

from dbsync.etl.crossing import PARAMETER
from dbsync.etl.equal import Equalities
from dbsync.etl.keys import KeyRule, Place, Question, asked
from dbsync.etl.query import Read, Speech, Where, parse_question, renamed
from dbsync.etl.stage import Stage, with_clause

_LIST = "dbsync_keys_asked"
_PARTS = ("joins", "group", "having", "limit", "offset", "laterals", "with_")
WAYS = (
    "name columns of the source's primary key; or select the key of one table that is followed by its own key, where"
    " the column that the SELECT joins on stands IN (:keys); or mend the crossing of the other direction"
)


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """A key query, parsed. `:keys` stands in `text` as a SELECT of k1, k2, … from a table of its own."""

    text: str
    tree: exp.Query
    reads: tuple[Read, ...]
    scopes: tuple[Scope, ...]
    takes: int
    where: Where

    @property
    def tables(self) -> tuple[str, ...]:
        """Folded names of the tables that it reads, each once."""
        return tuple(dict.fromkeys(read.name.casefold() for read in self.reads))

    @property
    def gives(self) -> int:
        """How many columns it selects."""
        return len(self.tree.selects)

    def question(self, stages: Mapping[str, Stage], speech: Speech, mark: str, settled: bool) -> Question:
        """The question to ask, with its tables exchanged for what gives their rows at this step."""
        reads = {name: stages[name].read(speech.quote, mark) for name in self.tables}
        text = renamed(self.text, self.reads, {n: read[0] for n, read in reads.items() if stages[n].derived})
        ctes = dict(cte for _, each in reads.values() for cte in each)
        text = _preceded(text, self.tree, ctes.items())
        mute = next((why for name in self.tables if (why := stages[name].mute)), "") or self._lost(stages)
        return Question(text.replace(_listed(self.takes), PARAMETER), self.takes, self.gives, settled, mute)

    def _lost(self, stages: Mapping[str, Stage]) -> str:
        """Why a column that it reads cannot be relied upon, if there is one."""
        for scope in self.scopes:
            aliases = {alias.casefold(): source for alias, source in scope.sources.items()}
            for column in scope.columns:
                source = aliases.get(column.table.casefold()) if column.table else None
                named = [source.name.casefold()] if isinstance(source, exp.Table) else self.tables
                for name in named if source is None or isinstance(source, exp.Table) else ():
                    why = stages[name].lost.get(column.name.casefold()) if name in stages else None
                    if why:
                        return f"it reads {stages[name].table}.{column.name}, {why}"
        return ""

    def copied(self) -> tuple[int, ...] | None:
        """The places of the key that it passes on, where it does nothing else (SELECT k.k1 FROM (:keys) AS k)."""
        tree = self.tree
        if self.reads or not isinstance(tree, exp.Select) or any(tree.args.get(part) for part in ("where", *_PARTS)):
            return None
        known = {f"k{n + 1}": n for n in range(self.takes)}
        given = [each.unalias() for each in tree.selects]
        if not all(isinstance(each, exp.Column) and each.name.casefold() in known for each in given):
            return None
        return tuple(known[each.name.casefold()] for each in given)

    def looks_up(self, own: str, columns: Sequence[str], ties: Sequence[tuple[str, str]], tied: Equalities) -> bool:
        """Whether it is SELECT `columns` FROM `own` WHERE (…) IN (:keys), the latter those that a SELECT joins on.

        `ties` are the key columns, (table, column) folded, of the table whose keys go in.
        """
        tree = self.tree
        if not isinstance(tree, exp.Select) or self.tables != (own,) or len(self.reads) != 1:
            return False
        if any(tree.args.get(part) for part in _PARTS):
            return False
        given = [each.unalias() for each in tree.selects]
        if [each.name.casefold() for each in given if isinstance(each, exp.Column)] != [c.casefold() for c in columns]:
            return False
        where = tree.args.get("where")
        test = where.this if where is not None else None
        if not isinstance(test, exp.In) or not isinstance(test.args.get("query"), exp.Query):
            return False
        asks = test.this.expressions if isinstance(test.this, exp.Tuple) else [test.this.unnest()]
        if len(asks) != len(ties) or not all(isinstance(each, exp.Column) for each in asks):
            return False
        return all(tied.tied((own, each.name.casefold()), tie) for each, tie in zip(asks, ties, strict=True))


def read_question(text: str, takes: int, speech: Speech, where: Where) -> KeyQuery:
    """A key query over keys of `takes` columns. Raises ConfigError `broken-crossing`."""
    whole = text.strip().rstrip(";").rstrip().replace(PARAMETER, _listed(takes))
    tree, reads, scopes = parse_question(whole, speech.parser, where)
    if any(each.is_star for each in tree.selects):
        raise where.error("broken-crossing", "a key query says *", "name the columns of the target's key")
    if tree.args.get("with_") is not None and not whole[:4].upper() == "WITH":
        raise where.error("broken-crossing", "a key query does not begin with its WITH", "put comments behind it")
    return KeyQuery(whole, tree, tuple(r for r in reads if r.name != _LIST), scopes, takes, where)


def whole_keys(stage: Stage, known: Sequence[int], speech: Speech, mark: str, where: Where) -> KeyRule:
    """The rule that makes whole keys of a step's table out of partial ones, by reading its rows."""
    name, ctes = stage.read(speech.quote, mark)
    gives = ", ".join(f"q.{speech.quote(column)}" for column in stage.key)
    match = " AND ".join(f"k.k{n} = q.{speech.quote(stage.key[place])}" for n, place in enumerate(known, 1))
    sql = f"{with_clause(ctes)}SELECT DISTINCT {gives} FROM ({PARAMETER}) AS k INNER JOIN {name} AS q ON {match}"
    lost = next((f"the key column {c} {why}" for c in stage.key if (why := stage.lost.get(c.casefold()))), "")
    question = Question(sql, len(known), len(stage.key), mute=stage.mute or lost, where=str(where))
    places: list[Place] = list(range(len(stage.key)))
    return asked(question, known, places)


def sampled(question: Question) -> str:
    """The question as a statement that compiles without keys."""
    return question.sql.replace(PARAMETER, "SELECT " + ", ".join(f"NULL AS k{n + 1}" for n in range(question.takes)))


def _listed(takes: int) -> str:
    return f"SELECT {', '.join(f'k{n + 1}' for n in range(takes))} FROM {_LIST}"


def _preceded(text: str, tree: exp.Query, ctes: Iterable[tuple[str, str]]) -> str:
    """The query with these CTEs before it, or before its own ones."""
    front = with_clause(ctes)
    if not front:
        return text
    if tree.args.get("with_") is None:
        return front + text
    rest = text[len("WITH") :].lstrip()
    if rest[: len("RECURSIVE")].upper() == "RECURSIVE":
        return f"WITH RECURSIVE {front[len('WITH ') :].rstrip()}, {rest[len('RECURSIVE') :].lstrip()}"
    return f"{front.rstrip()}, {rest}"
