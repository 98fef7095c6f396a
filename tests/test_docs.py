"""The pages are true as far as a machine can tell: commands parse, links lead somewhere, nothing is left out."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dbsync import config, model
from dbsync.cli import reference
from dbsync.cli.main import root
from dbsync.cli.options import Settings

TOP = Path(__file__).resolve().parents[1]
DOCS = TOP / "docs"
PAGES = sorted([TOP / "README.md", TOP / "CHANGELOG.md", *DOCS.rglob("*.md")])
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]
PLANNED = ("lint", "serve", "grants")

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(dbsync [^`\n]+)`")


def named(page: Path) -> str:
    return str(page.relative_to(TOP))


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that is listed."""
    if path:
        yield path
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from commands(below, (*path, name))


def lines_of(page: Path) -> list[str]:
    """The command lines of dbsync's that a page shows, in its blocks and in its sentences."""
    text = page.read_text(encoding="utf-8")
    found = [
        line.strip().removeprefix("$ ").split("#")[0].strip()
        for language, block in FENCE.findall(text)
        if language in ("sh", "")
        for line in block.splitlines()
    ]
    # In a sentence a command's bare name stands for the command, whatever options it needs.
    bare = {f"dbsync {' '.join(path)}" for path in commands(root)}
    found += [line for line in INLINE.findall(FENCE.sub("", text)) if line not in bare]
    return [line.removesuffix("&").strip() for line in found if line.startswith("dbsync ")]


def parse(words: list[str]) -> None:
    """Let click read the words as the program would, and run nothing. Raises what click raises."""
    command: click.Command = root
    ctx: click.Context | None = None
    settings = Settings()
    while True:
        ctx = command.make_context(command.name or "dbsync", list(words), parent=ctx, obj=settings)
        if not isinstance(command, click.Group):
            return
        words = [*ctx._protected_args, *ctx.args]
        if not words:
            raise click.UsageError("no command", ctx)
        name, below, words = command.resolve_command(ctx, words)
        assert below is not None, name
        command = below


def anchors(page: Path) -> set[str]:
    """The anchors that the headings of a page give."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keys() -> list[tuple[str, str]]:
    return [(section, one.name) for section, cls in config.SECTIONS.items() for one in dataclasses.fields(cls)]


def test_the_generated_reference_is_fresh() -> None:
    assert reference.stale() == []


@pytest.mark.parametrize("path", list(commands(root)), ids=" ".join)
def test_a_command_has_its_section_and_is_spoken_of_in_the_pages(path: tuple[str, ...]) -> None:
    words = f"dbsync {' '.join(path)}"
    assert f"\n## {words}\n" in (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    # A group (`dbsync etl`) is spoken of where one of its commands is.
    assert any(words in page.read_text(encoding="utf-8") for page in WRITTEN), words


@pytest.mark.parametrize(("section", "key"), keys())
def test_a_key_of_the_file_is_documented(section: str, key: str) -> None:
    text = (DOCS / "reference" / "config.md").read_text(encoding="utf-8")
    part = text.split(f"\n## [{section}]\n")[1].split("\n## ")[0]
    assert f"| `{key}` |" in part


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_a_page_and_a_heading_that_are_there(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_every_command_line_shown_is_one_that_the_program_takes(page: Path) -> None:
    wrong = {}
    for line in lines_of(page):
        try:
            parse(shlex.split(line)[1:])
        except click.ClickException as exc:
            wrong[line] = exc.format_message()
    assert wrong == {}


def test_a_command_line_that_the_program_does_not_take_would_be_seen() -> None:
    for line in ("cutover --force", "lint", "sync --one", "etl walk nightly"):
        with pytest.raises(click.ClickException):
            parse(shlex.split(line))


def test_the_command_lines_are_found() -> None:
    assert sum(len(lines_of(page)) for page in WRITTEN) > 50
    assert "dbsync migrate --target active --stamp 0001" in lines_of(TOP / "README.md")


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [TOP / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links if "://" not in link]
    assert [named(page) for page in PAGES if page not in seen] == []


def test_the_glossary_says_what_the_code_says() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    for name, noun in vars(model).items():
        if inspect.isclass(noun) and noun.__module__ == model.__name__:
            said = " ".join((inspect.getdoc(noun) or "").split("\n\n")[0].split()).replace("|", "\\|")
            assert f"| {name} | {said} |" in text, name


def test_what_is_not_built_is_not_offered_and_is_named_in_the_readme() -> None:
    offered = {path[0] for path in commands(root)}
    assert offered.isdisjoint(PLANNED)
    after = (TOP / "README.md").read_text(encoding="utf-8").split("## What it does not do yet")[1]
    for word in ("SQL Server", "Kafka", "Debezium", "linter", "metrics", "grants"):
        assert word in after


def test_no_page_names_a_folder_of_the_machine_that_it_was_written_on() -> None:
    homes = re.compile(r"/(?:home|root|work|tmp|Users)/")
    assert [named(page) for page in PAGES if homes.search(page.read_text(encoding="utf-8"))] == []
