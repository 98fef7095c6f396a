"""Rows between their extract and their load: in memory while they are few, else in a file that has no name."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dbsync.model import Row

IN_MEMORY = 8 * 1024 * 1024
"""Bytes that are held in memory at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to load, and rows that are set aside already: (columns, row, reason)."""

    columns: tuple[str, ...]
    rows: list[Row]
    rejected: tuple[tuple[tuple[str, ...], Row, str], ...] = ()


class Spool:
    """Batches in the order in which they were put. A context manager: what it holds goes with it.

    The target's write lock is taken when everything is read and transformed, so a slow source holds up nobody.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115

    def put(self, batch: Batch) -> None:
        """Add a batch. Raises what pickling raises for a value that is no plain one."""
        pickle.dump((batch.columns, batch.rows, batch.rejected), self._file, pickle.HIGHEST_PROTOCOL)

    def __iter__(self) -> Iterator[Batch]:
        """Every batch, from the first."""
        self._file.seek(0)
        reading: Any = self._file
        while True:
            try:
                yield Batch(*pickle.load(reading))
            except EOFError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
