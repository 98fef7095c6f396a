"""One run of one verb: the file, the clock, signals, progress; and the frame in which a verb's body stands."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbsync.cli import render
from dbsync.cli.options import Settings, Verb, settings_of
from dbsync.cli.render import Outcome
from dbsync.errors import ConfigError, Interrupted, Refused

if TYPE_CHECKING:
    from dbsync.cli.progress import Progress
    from dbsync.cli.wiring import Context
    from dbsync.config import Config


class Stop:
    """Whether the program was told to stop. The first signal sets it; the second one raises Interrupted at once."""

    def __init__(self) -> None:
        self.asked = False
        self.wake: Callable[[], None] = lambda: None

    def __call__(self) -> bool:
        """Whether the program was told to stop."""
        return self.asked

    def handle(self, _signal: int, _frame: object) -> None:
        """What a signal does."""
        if self.asked:
            raise Interrupted
        self.asked = True
        self.wake()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM inside the block (in the main thread; elsewhere nothing happens)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Session:
    """What a verb's body works with. Nothing is read or opened before it is asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stop = Stop()
        self.running = False
        """Whether this verb runs until it is stopped: then a stop does not interrupt its reports."""

    @property
    def file(self) -> Path:
        """The configuration file: --config, else DBSYNC_CONFIG, else ./dbsync.toml."""
        named = self.settings.config or Path(os.environ.get("DBSYNC_CONFIG") or "dbsync.toml")
        return named.absolute()

    @functools.cached_property
    def config(self) -> Config:
        """The configuration. Raises ConfigError."""
        from dbsync.config import parse

        config = parse(read_config(self.file), self.file, os.environ)
        render.use_mask(config.mask)
        return config

    @functools.cached_property
    def report(self) -> Progress:
        """Progress on stderr, as a `model.Report`."""
        import time

        from dbsync.cli.progress import Progress

        return Progress(time.monotonic, lambda: self.stop.asked and not self.running)

    @functools.cached_property
    def context(self) -> Context:
        """Everything that the file names, ready to use. Raises ConfigError."""
        from dbsync.cli.wiring import Context

        context = Context(self.config, self.report, self.stop)
        self.stop.wake = context.clock.interrupt
        return context

    @property
    def interactive(self) -> bool:
        """Whether a question can be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and not self.settings.json

    def confirm(self, question: str, yes: bool) -> None:
        """Go on only with a yes. Raises Refused (`not-confirmed`), ConfigError (`confirmation-needed`)."""
        if yes:
            return
        if not self.interactive:
            raise ConfigError(
                f"{question} This needs an answer, and there is no terminal to ask at.",
                code="confirmation-needed",
                remedy="Add --yes.",
            )
        if not click.confirm(render.masked(question), err=True):
            raise Refused("It was not confirmed.", code="not-confirmed", remedy="Answer yes, or add --yes.")

    def emit(self, outcome: Outcome) -> None:
        """Print an object now (for a verb that prints one a line)."""
        render.write_outcome(outcome, self.settings)

    def close(self) -> None:
        """Let go of everything that was opened."""
        if "report" in self.__dict__:
            self.report.close()
        if "context" in self.__dict__:
            self.context.close()


def read_config(path: Path) -> str:
    """The text of the configuration file. Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {path}.",
            code="no-config",
            remedy="Run `dbsync init` to write one, or name it with --config.",
        ) from None
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path.name} is not UTF-8 text (byte {exc.start}).", code="config-syntax", remedy="Save it as UTF-8."
        ) from None
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc.strerror}.", code="config-unreadable", remedy="Name a readable file."
        ) from None


Body = Callable[..., Outcome | None]


def verb(name: str, *, writes: bool = False, runs: bool = False, **attributes: Any) -> Callable[[Body], click.Command]:
    """Make a click command of a body `(session, **options) -> Outcome | None`.

    `writes`: an interruption of this verb may have changed something. `runs`: it runs until it is stopped.
    """

    def wrap(body: Body) -> click.Command:
        def callback(**options: Any) -> int:
            session = Session(settings_of(click.get_current_context()))
            session.running = runs
            return perform(session, body, options, writes)

        functools.update_wrapper(callback, body)
        command: click.Command = click.command(name, cls=Verb, **attributes)(callback)
        return command

    return wrap


def perform(session: Session, body: Body, options: dict[str, Any], writes: bool = False) -> int:
    """Run a body, print what it has to say, and let go of everything. Gives the exit code."""
    from dbsync.cli import log

    log.to_stderr(session.settings.verbose)
    with session.stop.listening():
        try:
            outcome = body(session, **options)
        except Interrupted as exc:
            exc.changed = exc.changed or writes
            raise
        finally:
            session.close()
        if outcome is None:
            return 0
        render.write_outcome(outcome, session.settings)
        return outcome.exit_code
