"""From what a source gives to what a target is given: batches of a bounded weight, transformed, keys present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dbsync.errors import DbsyncError, Refused
from dbsync.etl.job import Job
from dbsync.etl.spool import Batch
from dbsync.model import Extracted, Row, Value

ROWS = 5_000
"""Most rows of a batch."""

SAMPLE = 5
"""Every how many rows one is weighed."""

WEIGHT = 4 * 1024 * 1024
"""Characters and bytes of a batch, about: a batch of long ones has fewer rows."""


def gathered(parts: Iterable[Extracted]) -> Iterator[Extracted]:
    """Small parts as batches of up to ROWS rows and about WEIGHT bytes; parts without rows are left out."""
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    weight = 0
    for part in parts:
        if rows and part.columns != columns:
            yield Extracted(columns, rows)
            rows, weight = [], 0
        columns = part.columns
        rows.extend(part.rows)
        weight += SAMPLE * sum(_weight(value) for row in part.rows[::SAMPLE] for value in row)
        if len(rows) >= ROWS or weight >= WEIGHT:
            yield Extracted(columns, rows)
            rows, weight = [], 0
    if rows:
        yield Extracted(columns, rows)


def _weight(value: Value) -> int:
    return len(value) if isinstance(value, str | bytes) else 8


def prepared(job: Job, extracted: Extracted) -> Iterator[Batch]:
    """What is to be loaded of a batch; rows without a value in a key column are set aside.

    Raises Refused (`transform-failed`) when the job's transform raises, or gives something else than dicts.
    """
    if job.transform is None:
        yield _keyed(job, extracted.columns, list(extracted.rows))
        return
    given = [dict(zip(extracted.columns, row, strict=True)) for row in extracted.rows]
    columns: tuple[str, ...] = ()
    rows: list[Row] = []
    for one in _transformed(job, given):
        if rows and (tuple(one) != columns or len(rows) >= ROWS):
            yield _keyed(job, columns, rows)
            rows = []
        columns = tuple(one)
        rows.append(tuple(one.values()))
    if rows:
        yield _keyed(job, columns, rows)


def _transformed(job: Job, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert job.transform is not None
    try:
        made: list[Any] = list(job.transform(given) or ())
    except DbsyncError:
        raise
    except Exception as error:
        raise _failed(f"transform raised {type(error).__name__}: {error}") from error
    for one in made:
        if not isinstance(one, Mapping) or not all(isinstance(name, str) for name in one):
            raise _failed(f"transform gave {repr(one)[:200]}, not a dict by column name")
    return made


def _keyed(job: Job, columns: tuple[str, ...], rows: list[Row]) -> Batch:
    """The rows whose key is whole; a NULL in it would make a new row at each run."""
    places = {name.casefold(): place for place, name in enumerate(columns)}
    absent = [name for name in job.columns if name.casefold() not in places]
    if absent and job.transform is not None:
        return Batch(columns, [], tuple((columns, row, f"it has no key column {absent[0]}") for row in rows))
    keyed = [(name, places[name.casefold()]) for name in job.columns if not absent]
    fit: list[Row] = []
    aside: list[tuple[tuple[str, ...], Row, str]] = []
    for row in rows:
        empty = next((name for name, place in keyed if row[place] is None), None)
        if empty is None:
            fit.append(row)
        else:
            aside.append((columns, row, f"its key column {empty} is NULL"))
    return Batch(columns, fit, tuple(aside))


def _failed(found: str) -> Refused:
    return Refused(found, code="transform-failed", remedy="mend the job's transform, then run the job again")
