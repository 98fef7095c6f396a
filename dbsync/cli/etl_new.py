"""`dbsync etl new`: the first version of a crossing's file."""

from __future__ import annotations

import re
from pathlib import Path

import click

from dbsync.cli.etl_shapes import known_shapes
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.cli.wiring import Context
from dbsync.errors import ConfigError, Refused


@verb("new", writes=True)
@click.argument("revision")
@click.option("--slug", metavar="WORD", help="The end of the file's name (default: that of the revision's own file).")
@click.option("--force", is_flag=True, help="Write over the file of this revision that is there.")
def new(session: Session, revision: str, slug: str | None, force: bool) -> Outcome:
    """Write the crossing's file of a revision, with TODO where a person must decide; it is refused until then.

    Example: dbsync etl new 0002 --slug full_name
    """
    from dbsync.etl.draft import draft
    from dbsync.migrate.plan import resolve

    context = session.context
    resolved = resolve(context.migrator.chain(), revision)
    if resolved is None:
        raise ConfigError("base is not a revision", code="unknown-revision", remedy="name a revision of the chain")
    path, rest = _path(context, resolved, slug, force)
    shapes = known_shapes(context)
    before, after = shapes.before(resolved), shapes.at.get(resolved)
    if before is None or after is None:
        why = shapes.failed[1] if shapes.failed is not None else "it did not run"
        raise Refused(
            f"the shape before or after revision {resolved} is not known: {why}",
            code="shape-unknown",
            remedy="let a database that stands at it be reachable, or correct the revision",
        )
    made = draft(resolved, before, after, shapes.renames, context.sketch.capabilities)
    _write(path, made.text)
    for other in rest:
        other.unlink()
    return Outcome(
        {"revision": resolved, "file": str(path), "todos": made.todos},
        next=f"dbsync etl check {resolved}",
        text=lambda paper: _tell(paper, path, made.todos),
    )


def _path(context: Context, revision: str, slug: str | None, force: bool) -> tuple[Path, list[Path]]:
    """Where to write, and other files of the revision that go. Refused (`crossing-exists`) unless forced."""
    folder = context.config.etl.path
    there = [path for path in sorted(folder.glob("*.py")) if context.revision_of(path) == revision]
    if there and not force:
        raise Refused(
            f"revision {revision} has a crossing already: {there[0]}",
            code="crossing-exists",
            remedy="add to it, or write over it with --force",
        )
    if slug is None and len(there) == 1:
        return there[0], []
    word = re.sub(r"[^a-z0-9]+", "_", (slug or _own_slug(context, revision)).casefold()).strip("_")
    path = folder / (f"{revision}_{word}.py" if word else f"{revision}.py")
    if context.revision_of(path) != revision:
        raise ConfigError(
            f"{path.name} would be the file of revision {context.revision_of(path)}",
            code="usage",
            remedy="give another --slug",
        )
    return path, [other for other in there if other != path]


def _own_slug(context: Context, revision: str) -> str:
    files = sorted((context.config.migrate.path / "versions").glob(f"{revision}_*.py"))
    return files[0].stem.removeprefix(f"{revision}_") if files else "rows"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be written: {exc.strerror}", code="not-writable", remedy="make its folder writable"
        ) from exc


def _tell(paper: Paper, path: Path, todos: int) -> None:
    paper.line(f"✓ {path}")
    if todos:
        paper.line(f"  {todos} × TODO: decide each, and take it out; until then the file is refused.")
