"""The program: finds the verb, runs it, and turns every failure into one message and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from dbsync.cli.options import Settings, VerbGroup, settings_of
from dbsync.cli.verbs import VERBS
from dbsync.errors import ConfigError, DbsyncError, Interrupted


class Root(VerbGroup):
    """The group of all verbs. A verb's module is imported when the verb is run, never for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs that are shown, in the order in which they are used."""
        return [name for name, entry in VERBS.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The click command of a verb, or None when there is none of that name."""
        entry = VERBS.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as exc:
            if exc.name == entry.module:
                return None
            raise
        command: click.Command = getattr(module, entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name].help) for name in self.list_commands(ctx)])


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from importlib.metadata import version

    from dbsync.cli import render

    if settings_of(ctx).json:
        render.write_object({"version": version("dbsync"), "next": None})
    else:
        click.echo(f"dbsync {version('dbsync')}")
    ctx.exit()


@click.command(cls=Root, invoke_without_command=True)
@click.option("--version", is_flag=True, expose_value=False, callback=_version, help="Show the version and end.")
@click.pass_context
def root(ctx: click.Context) -> None:
    """Move a live system from one database to another, and back, without losing a write."""
    if ctx.invoked_subcommand is None:
        raise click.UsageError("No command was given.", ctx)


def asks_for_json(args: Sequence[str]) -> bool:
    """Whether `--json` stands among the arguments: known before they are parsed, for errors in parsing them."""
    options = list(args)
    return "--json" in (options[: options.index("--")] if "--" in options else options)


def run(args: Sequence[str]) -> int:
    """Run one command line. Gives the exit code; whatever there is to say has been said."""
    settings = Settings(json=asks_for_json(args))
    try:
        return int(root.main(args=list(args), prog_name="dbsync", standalone_mode=False, obj=settings) or 0)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except BrokenPipeError:
        # The reader of stdout went away; the interpreter must not fail again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        error: DbsyncError = Interrupted()
    except click.ClickException as exc:
        error = usage_error(exc)
    except DbsyncError as exc:
        error = exc
    except Exception as exc:  # noqa: BLE001
        error = bug(exc, settings)
    from dbsync.cli import render

    render.write_error(error, settings)
    return error.exit_code


def usage_error(exc: click.ClickException) -> ConfigError:
    """What click found wrong with the command line, as one of our errors (code `usage`, exit 2)."""
    ctx = getattr(exc, "ctx", None)
    path = ctx.command_path if ctx is not None else "dbsync"
    return ConfigError(exc.format_message(), code="usage", remedy=f"See `{path} --help`.")


def bug(exc: Exception, settings: Settings) -> DbsyncError:
    """An error that nobody foresaw: one line, and the traceback on stderr only when it was asked for."""
    if settings.verbose:
        import traceback

        from dbsync.cli import render

        render.log("".join(traceback.format_exception(exc)).rstrip())
    said = " ".join(str(exc).split())
    # What it had done before is not known, so it does not say that nothing was changed.
    return DbsyncError(
        f"dbsync met an error that it did not expect: {type(exc).__name__}{': ' + said if said else ''}",
        code="bug",
        remedy="Run it again with -v, and report what stderr says.",
        changed=True,
    )


def main(argv: Sequence[str] | None = None) -> Any:
    """The console script. Ends the process with the exit code."""

    def told(_signal: int, _frame: object) -> None:
        raise Interrupted

    # Until a verb listens itself, a signal must not end the process without a word.
    signal.signal(signal.SIGTERM, told)
    sys.exit(run(sys.argv[1:] if argv is None else argv))
