"""Which tables and columns a revision renames: read off the operations and the statements that it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.operations.base import AbstractOperations
from alembic.operations.ops import AlterColumnOp, MigrateOperation, RenameTableOp
from sqlalchemy import event

from dbsync.model import Renamed

_NAME = r'("(?:[^"]|"")+"|\[[^\]]+\]|`[^`]+`|\w+)'
_TABLE = re.compile(rf"\s*ALTER\s+TABLE\s+{_NAME}\s+RENAME\s+TO\s+{_NAME}\s*;?\s*", re.IGNORECASE)
_COLUMN = re.compile(
    rf"\s*ALTER\s+TABLE\s+{_NAME}\s+RENAME\s+(?:COLUMN\s+)?{_NAME}\s+TO\s+{_NAME}\s*;?\s*", re.IGNORECASE
)
_BUILT_ANEW = "_alembic_tmp_"
"""How a batch operation names the table that it builds."""


@contextmanager
def noting(connection: Any, revision: str, found: list[Renamed]) -> Iterator[None]:
    """Inside it every renaming on this connection is added to `found`, each once.

    A batch operation builds its table anew, so that only the operation knows of the renaming; text that is executed
    has no operation, so that only the statement does.
    """
    invoke = AbstractOperations.invoke

    def note(one: Renamed | None) -> None:
        if one is not None and one not in found and not one.table.startswith(_BUILT_ANEW):
            found.append(one)

    def noted(self: AbstractOperations, operation: MigrateOperation) -> Any:
        note(_of_operation(revision, operation))
        return invoke(self, operation)

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        note(_of_statement(revision, statement))

    event.listen(connection, "before_cursor_execute", executed)
    AbstractOperations.invoke = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        AbstractOperations.invoke = invoke  # type: ignore[method-assign]
        event.remove(connection, "before_cursor_execute", executed)


def _of_operation(revision: str, operation: MigrateOperation) -> Renamed | None:
    if isinstance(operation, AlterColumnOp) and operation.modify_name:
        return Renamed(revision, str(operation.table_name), str(operation.column_name), str(operation.modify_name))
    if isinstance(operation, RenameTableOp):
        return Renamed(revision, str(operation.table_name), None, str(operation.new_table_name))
    return None


def _of_statement(revision: str, statement: str) -> Renamed | None:
    table = _TABLE.fullmatch(statement)
    if table is not None:
        return Renamed(revision, _plain(table[1]), None, _plain(table[2]))
    column = _COLUMN.fullmatch(statement)
    if column is not None:
        return Renamed(revision, _plain(column[1]), _plain(column[2]), _plain(column[3]))
    return None


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] in '"[`' else name
