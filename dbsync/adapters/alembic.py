"""Alembic as the Migrator: revisions run one by one, inside a transaction that is someone else's.

Alembic's `op` is one proxy a process: two databases are never migrated at once in threads of one process.
"""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from textwrap import shorten
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import event
from sqlalchemy.exc import NoSuchModuleError, StatementError

from dbsync.adapters.alembic_files import Files, place
from dbsync.adapters.alembic_renames import noting
from dbsync.errors import ConfigError, DbsyncError, Refused
from dbsync.model import Renamed
from dbsync.ports import Migrator

VERSION_TABLE = "alembic_version"
ENDS = re.compile(r"\s*(commit|end|rollback(?!\s+(transaction\s+)?to\b))\b", re.IGNORECASE)
"""A statement that would end the transaction around a revision."""


class AlembicScripts(Migrator):
    """The revisions under `folder/versions/`. No env.py and no alembic.ini is needed, and none is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._renames: list[Renamed] | None = None

    @functools.cached_property
    def _files(self) -> Files:
        return Files(self.folder)

    def chain(self) -> tuple[str, ...]:
        """See Migrator. Raises ConfigError (`migrations-missing`, `broken-revision`), Refused (`merge-revision`)."""
        return self._files.chain()

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        """See Migrator. Raises ConfigError (`unknown-revision`)."""
        files = self._files
        first, last = files.resolve(older), files.resolve(newer)
        line = files.line(last)
        if first is None:
            return line
        if first in line:
            return line[line.index(first) + 1 :]
        way = "the other way round" if last is None or last in files.line(first) else "and neither leads to the other"
        raise Refused(
            f"revision {last or 'base'} does not follow {first}; {way}",
            code="revisions-diverged",
            remedy="migrate one database to a revision that the other's leads to",
        )

    def run(self, connection: Any, revision: str, down: bool) -> None:
        """See Migrator. Refused (`revision-moved`) when the database does not stand just before that revision."""
        files = self._files
        resolved = files.resolve(revision)
        if resolved is None:
            raise ConfigError(
                "base is not a revision that could be run",
                code="unknown-revision",
                remedy="name a revision of the chain",
            )
        step = self._step(resolved, down)
        expected = resolved if down else files.parents[resolved]

        def steps(heads: Any, _: MigrationContext) -> list[RevisionStep]:
            if tuple(heads) != (() if expected is None else (expected,)):
                raise Refused(
                    f"the database stands at {', '.join(heads) or 'base'}, not at {expected or 'base'}",
                    code="revision-moved",
                    remedy="run the command again",
                )
            return [step]

        if not connection.in_transaction():
            connection.begin()
        try:
            with (
                _one_transaction(connection),
                self._noting(connection, resolved),
                self._environment(steps) as environment,
            ):
                environment.configure(connection=connection)
                _run(environment)
        except DbsyncError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(resolved, down, error) from error

    @contextmanager
    def recording(self) -> Iterator[list[Renamed]]:
        """See Migrator."""
        before, self._renames = self._renames, []
        try:
            yield self._renames
        finally:
            self._renames = before

    def _noting(self, connection: Any, revision: str) -> AbstractContextManager[None]:
        return nullcontext() if self._renames is None else noting(connection, revision, self._renames)

    def stamp(self, connection: Any, revision: str | None) -> None:
        """See Migrator. Whatever stood there before goes, known or not. Raises ConfigError (`unknown-revision`)."""
        resolved = self._files.resolve(revision)
        context = MigrationContext.configure(connection)
        table = context.impl.version_table_impl(
            version_table=VERSION_TABLE, version_table_schema=None, version_table_pk=True
        )
        table.create(connection, checkfirst=True)
        connection.execute(table.delete())
        if resolved is not None:
            connection.execute(table.insert().values(version_num=resolved))

    def script(self, dialect: str, start: str | None, end: str | None, down: bool) -> str:
        """See Migrator. Each revision is a transaction of its own. Nothing to do: an empty text."""
        files = self._files
        first, last = files.resolve(start), files.resolve(end)
        path = tuple(reversed(self.path(last, first))) if down else self.path(first, last)
        if not path:
            return ""
        at = path[0]

        def steps(_: Any, __: MigrationContext) -> Iterator[RevisionStep]:
            nonlocal at
            for at in path:
                yield self._step(at, down)

        out = io.StringIO()
        try:
            with self._environment(steps, as_sql=True) as environment:
                environment.configure(
                    dialect_name=dialect,
                    output_buffer=out,
                    starting_rev=first,
                    transactional_ddl=True,
                    transaction_per_migration=True,
                    literal_binds=True,
                )
                _run(environment)
        except NoSuchModuleError as error:
            raise ConfigError(
                f"there is no dialect {dialect}", code="unsupported-dialect", remedy="correct [databases]"
            ) from error
        except DbsyncError:
            raise
        except (Exception, SystemExit) as error:
            raise self._not_scriptable(at, error) from error
        # sqlcmd goes on after an error: without this it would stamp and commit half a revision.
        head = "SET XACT_ABORT ON;\nGO\n\n" if dialect == "mssql" else ""
        return head + out.getvalue()

    def _step(self, revision: str, down: bool) -> RevisionStep:
        script = self._files.scripts[revision]
        make = MigrationStep.downgrade_from_script if down else MigrationStep.upgrade_from_script
        return make(self._files.map, script)

    def _environment(self, steps: Any, **options: Any) -> EnvironmentContext:
        directory = ScriptDirectory(self.folder)
        directory.revision_map = self._files.map
        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        return EnvironmentContext(config, directory, fn=steps, **options)

    def _failed(self, revision: str, down: bool, error: BaseException) -> Refused:
        file = self._files.file(revision)
        done = "downgrade" if down else "upgrade"
        return Refused(
            f"the {done} of revision {revision} failed: {file.name}{place(error, file)}: {told(error)}",
            code="revision-failed",
            remedy=f"correct {file}, or the rows that it stumbles over, and run the command again",
        )

    def _not_scriptable(self, revision: str, error: BaseException) -> Refused:
        file = self._files.file(revision)
        return Refused(
            f"revision {revision} cannot be written as a script: {file.name}{place(error, file)}: {told(error)}",
            code="not-scriptable",
            remedy="it needs the live database: run it with `dbsync migrate`; --from and --to write the others",
        )


def told(error: BaseException) -> str:
    """What an error says, without the values that a statement was given."""
    if isinstance(error, EndsTransaction):
        return str(error)
    if not isinstance(error, StatementError):
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    cause: BaseException = error.orig or error
    statement = shorten(error.statement or "", 160, placeholder=" …")
    return f"{type(cause).__name__}: {cause}" + (f" (in: {statement})" if statement else "")


def _run(environment: EnvironmentContext) -> None:
    """Run what the environment was given. What revisions print goes to stderr: stdout is not theirs."""
    context = environment.get_context()
    context.autocommit_block = _refuse_autocommit  # type: ignore[method-assign]
    with redirect_stdout(sys.stderr), Operations.context(context):
        context.run_migrations()


class EndsTransaction(Exception):
    """A revision tried to end the transaction that it runs in."""


def _refuse_autocommit() -> Any:
    raise EndsTransaction("it asks for an autocommit block, which would commit half of the revision")


def _refuse_end(*_: Any, **__: Any) -> None:
    raise EndsTransaction("it commits or rolls back by itself, which would leave half of the revision")


def _watch(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
    if ENDS.match(statement):
        _refuse_end()


@contextmanager
def _one_transaction(connection: Any) -> Iterator[None]:
    """Keep a revision inside its transaction. Refused (`revision-failed`, changed) when it got out all the same."""
    root, open_before = connection.get_transaction(), _open(connection)
    shadowed: Sequence[str] = ("commit", "rollback", "close")
    for name in shadowed:
        setattr(connection, name, _refuse_end)
    event.listen(connection, "before_cursor_execute", _watch)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", _watch)
        for name in shadowed:
            delattr(connection, name)
    if connection.get_transaction() is not root or (open_before and not _open(connection)):
        raise Refused(
            "the revision ended the transaction that it ran in; what it had done until then stays",
            code="revision-failed",
            remedy="look at the database, and let the revision do without commit and rollback",
            changed=True,
        )


def _open(connection: Any) -> bool:
    """Whether the driver says that a transaction is open (True where it does not say)."""
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", True))
