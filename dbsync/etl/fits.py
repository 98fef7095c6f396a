"""Which values of one declared type a column of another holds, and of which type an expression is."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

_WORDS = (
    ("text", ("CHAR", "CLOB", "TEXT")),
    ("other", ("DATE", "TIME", "BOOL", "BIT", "BLOB", "BINARY", "JSON", "POINT", "INTERVAL", "XML", "UNIQUE")),
    ("integer", ("INT",)),
    ("real", ("REAL", "FLOA", "DOUB")),
    ("decimal", ("DECIMAL", "NUMERIC", "MONEY")),
)
_SIZES = ("TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT")
_LOSES = {
    ("text", "integer"): "text that is no whole number",
    ("text", "real"): "text that is no number",
    ("text", "decimal"): "text that is no number",
    ("real", "integer"): "what stands after the decimal point",
    ("decimal", "integer"): "what stands after the decimal point",
    ("real", "decimal"): "digits beyond the declared ones",
}
_GIVES_TEXT = (exp.DPipe, exp.Concat, exp.Upper, exp.Lower, exp.Trim, exp.Substring)


def family(type_: str) -> str:
    """text, integer, real, decimal; `other` where nothing is said about it here, empty for no type at all."""
    upper = type_.upper()
    if not upper.strip():
        return ""
    return next((name for name, words in _WORDS if any(word in upper for word in words)), "other")


def misfit(source: str, target: str) -> str:
    """Why values of the source's type must be converted for a column of the target's; empty when they need not."""
    one, other = family(source), family(target)
    same = one == other or (one, other) in (("integer", "decimal"), ("decimal", "real"), ("real", "decimal"))
    if same or "other" in (one, other) or not (one and other):
        return ""
    return f"{source} is not {target}"


def lost(source: str, target: str) -> str:
    """What a column of the target's type cannot hold of the source's values; empty when it holds them all."""
    one, other = family(source), family(target)
    if one != other:
        return _LOSES.get((one, other), "")
    if one == "text":
        before, after = _length(source), _length(target)
        return f"text of more than {after} characters" if after is not None and (before or after + 1) > after else ""
    if one == "integer":
        return f"numbers beyond {target}" if _size(target) < _size(source) else ""
    if one == "decimal":
        (whole, part), (left, right) = _digits(source), _digits(target)
        if left is not None and (whole is None or left < whole or right < part):
            return f"digits beyond {target}"
    return ""


def type_of(node: exp.Expr, column: Callable[[exp.Column], str]) -> str:
    """The type of what an expression gives, as a declared type; empty where that is not plain to see.

    `column` says the declared type of a column.
    """
    node = node.unalias().unnest()
    if isinstance(node, exp.Column):
        return column(node)
    if isinstance(node, exp.Cast):
        return str(node.to.sql())
    if isinstance(node, exp.Literal):
        return "TEXT" if node.is_string else "INTEGER" if node.is_int else ""
    if isinstance(node, _GIVES_TEXT):
        return "TEXT"
    parts: list[exp.Expr] = []
    if isinstance(node, exp.Coalesce):
        parts = [node.this, *node.expressions]
    elif isinstance(node, exp.Case):
        parts = [each.args["true"] for each in node.args.get("ifs") or ()]
        parts += [node.args["default"]] if node.args.get("default") is not None else []
    types = [type_of(part, column) for part in parts if not isinstance(part, exp.Null)]
    return types[0] if types and len({family(each) for each in types}) == 1 else ""


def _length(type_: str) -> int | None:
    found = re.search(r"\((\d+)", type_)
    return int(found[1]) if found else None


def _size(type_: str) -> int:
    upper = type_.upper().replace("INTEGER", "INT")
    return next((place for place, word in enumerate(_SIZES) if upper.startswith(word)), len(_SIZES))


def _digits(type_: str) -> tuple[int | None, int]:
    """Digits before and after the point; None: as many as there are."""
    found = re.search(r"\((\d+)\s*(?:,\s*(\d+))?", type_)
    if found is None:
        return None, 0
    scale = int(found[2] or 0)
    return int(found[1]) - scale, scale
