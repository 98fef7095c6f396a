"""The options that every command takes, before its name and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click


@dataclass
class Settings:
    """What the common options said. The last one said counts."""

    json: bool = False
    verbose: int = 0
    config: Path | None = None


def settings_of(ctx: click.Context) -> Settings:
    """The settings of this run of the program."""
    return ctx.ensure_object(Settings)


def _config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        settings_of(ctx).config = Path(value)


def _json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        settings_of(ctx).json = True


def _verbose(ctx: click.Context, _param: click.Parameter, value: int) -> None:
    settings_of(ctx).verbose += value


def _help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    if settings_of(ctx).json:
        from dbsync.cli import render

        render.write_object({"help": ctx.get_help(), "next": None})
    else:
        click.echo(ctx.get_help())
    ctx.exit()


def common() -> list[click.Parameter]:
    """Fresh copies of the common options."""
    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            expose_value=False,
            callback=_config,
            is_eager=True,
            help="The file to use (default: DBSYNC_CONFIG, then ./dbsync.toml).",
        ),
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_json,
            is_eager=True,
            help="One JSON object on stdout, also on failure.",
        ),
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_verbose,
            is_eager=True,
            help="Say more on stderr.",
        ),
        click.Option(
            ["-h", "--help"], is_flag=True, expose_value=False, callback=_help, help="Show this text and end."
        ),
    ]


class Verb(click.Command):
    """A command that takes the common options after its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["add_help_option"] = False
        super().__init__(*args, **kwargs)
        self.params.extend(common())


class VerbGroup(click.Group):
    """A verb with words of its own below it (`route show`)."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"add_help_option": False, "no_args_is_help": False}
        super().__init__(*args, **kwargs)
        self.params.extend(common())


def names_of_tables(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`--tables a,b` as a tuple, None when it is not given."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise click.BadParameter("name at least one table")
    return names


def tables_option(help_text: str) -> Callable[[Any], Any]:
    """`--tables a,b`."""
    return click.option("--tables", metavar="A,B", callback=names_of_tables, help=help_text)
