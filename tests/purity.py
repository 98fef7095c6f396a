"""What a room may do, read off its source: an allow-list of imports, no effects, no clock, no product's name."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("migrate", "etl", "sync", "verify", "cutover")
NOUNS = ("model.py", "ports.py", "errors.py")

PURE = frozenset(
    {
        "__future__",
        "collections",
        "contextlib",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "enum",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "marshal",
        "math",
        "re",
        "statistics",
        "string",
        "textwrap",
        "typing",
        "sqlglot",
        "alembic.operations.ops",
        "sqlalchemy.types",
        "dbsync",
    }
)
"""What any module of a room may import; a name allows what is below it."""

# The runner of cutover stands in four files; each acts through the sockets only, as does what carries a receipt on.
# A job's runner is a file of its own beside etl's run.py.
RUNNERS = frozenset({"cutover/bake.py", "cutover/resolve.py", "cutover/world.py", "etl/load.py", "verify/refresh.py"})
EXTRA = {
    "run.py": frozenset({"gc", "logging", "os", "platform", "queue", "secrets", "threading", "uuid"}),
    "config.py": frozenset({"pathlib", "posixpath", "tomllib"}),
    "reading.py": frozenset({"pathlib"}),
    "etl/spool.py": frozenset({"pickle", "tempfile", "types"}),
    "etl/cron.py": frozenset({"cronsim", "heapq", "zoneinfo"}),
}
"""What some files may import beside that: the one with effects, and the reader of text."""

EFFECTS = frozenset({"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "exit", "quit"})
CLOCKS = frozenset({"now", "utcnow", "today"})
PRODUCTS = ("mssql", "sqlite", "kafka", "traefik", "postgresql")
DATES = frozenset({"datetime", "date"})


def offences(package: Path) -> list[str]:
    """Every place in a copy of the package that breaks a rule, as `file:line what`."""
    return [
        offence
        for path in _pure_files(package)
        for offence in _offences(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8"))
    ]


@functools.cache
def _offences(name: str, text: str) -> tuple[str, ...]:
    """Those of one file; kept, for each test breaks one file of some hundred."""
    tree, file = ast.parse(text), name.rpartition("/")[2]
    runs = file == "run.py" or name in RUNNERS
    allowed = PURE | EXTRA.get("run.py" if runs else file, frozenset()) | EXTRA.get(name, frozenset())
    found = [f"{name}:{line} imports {module}" for line, module in _imports(tree) if not _within(module, allowed)]
    found += [f"{name}:{line} calls {what}" for line, what in _effects(tree, runs)]
    if file != "config.py":
        found += [f"{name}:{line} names {what}" for line, what in _products(tree)]
    return tuple(found)


ERRORS = frozenset({"ConfigError", "Refused", "Different", "Unavailable", "PositionLost", "OwnershipAmbiguous"})


def helpless(package: Path) -> list[str]:
    """Every error, as `file:line`, that does not say what to do next; the twins' own are never seen by anybody."""
    return [
        f"{path.relative_to(package).as_posix()}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        if not path.name.startswith("memory")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS
        if node.args and not {"remedy", None} & {given.arg for given in node.keywords}
    ]


def _pure_files(package: Path) -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((package / room).rglob("*.py"))
    yield from (package / name for name in (*NOUNS, "config.py", "reading.py"))


def _within(module: str, allowed: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in allowed for length in range(1, len(parts) + 1))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module in {"alembic", "alembic.operations", "sqlalchemy"}:
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module if node.level == 0 else "dbsync"


def _effects(tree: ast.AST, runs: bool) -> Iterator[tuple[int, str]]:
    """Calls with an effect. Only `run.py` may ask a Clock; no module asks datetime."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in EFFECTS and isinstance(node.ctx, ast.Load):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            owner = ast.unparse(node.value).rpartition(".")[2]
            if not runs or owner in DATES:
                yield node.lineno, f"{ast.unparse(node)}"


def _products(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of products in identifiers and strings; prose (comments and docstrings) may say them."""
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            text = node.value
        elif isinstance(node, ast.Name):
            text = node.id
        elif isinstance(node, ast.Attribute):
            text = node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = node.name
        elif isinstance(node, ast.arg):
            text = node.arg
        for product in PRODUCTS:
            if product in text.casefold():
                yield getattr(node, "lineno", 0), product
