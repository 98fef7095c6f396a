"""What one side of the Chinook story must hold when the other one holds these rows: plain Python, no SQL of a crossing.

Rows are mappings by column name, tables are rows by key.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Rows = dict[tuple[Any, ...], Row]
Side = dict[str, Rows]

PARTS = ("Address", "City", "State", "Country", "PostalCode")
SAME = ("Artist", "Album", "Genre", "Invoice", "InvoiceLine", "Playlist", "PlaylistTrack")
"""Tables that all three revisions leave alone (but for what is new in them)."""
KEYS = {
    **{name: (f"{name}Id",) for name in ("Artist", "Album", "Genre", "MediaType", "Playlist", "Employee", "Customer")},
    **{name: (f"{name}Id",) for name in ("Track", "Invoice", "InvoiceLine")},
    "PlaylistTrack": ("PlaylistId", "TrackId"),
    "CustomerAddress": ("CustomerId",),
    "country": ("name",),
    "staff": ("EmployeeId",),
}
OLD = (*SAME, "Track", "Customer", "Employee", "MediaType")
NEW = (*SAME, "Track", "Customer", "CustomerAddress", "country", "staff")
ONLY_NEW = {"Playlist": "cover", "country": "region"}


def read(path: Path, tables: Iterable[str]) -> Side:
    """Every row of these tables, in one transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        side: Side = {}
        for name in tables:
            rows = [dict(row) for row in connection.execute(f'SELECT * FROM "{name}"')]
            side[name] = {tuple(row[column] for column in KEYS[name]): row for row in rows}
            assert len(side[name]) == len(rows)
        return side


def forward(blue: Side) -> Side:
    """What green must hold when blue holds this, but for what only green has."""
    green = {name: blue[name] for name in SAME}
    customers = blue["Customer"]
    green["Customer"] = {key: _without(row, *PARTS) for key, row in customers.items()}
    addresses = {
        key: {"CustomerId": row["CustomerId"], **{part: row[part] for part in PARTS}}
        for key, row in customers.items()
        if any(row[part] is not None for part in PARTS)
    }
    green["CustomerAddress"] = {key: _renamed(row, Country="country_name") for key, row in addresses.items()}
    used = {row["Country"] for row in addresses.values()} - {None}
    green["country"] = {(name,): {"name": name} for name in used}
    green["staff"] = blue["Employee"]
    media = {key[0]: row["Name"] for key, row in blue["MediaType"].items()}
    green["Track"] = {}
    for key, row in blue["Track"].items():
        made = _renamed(_without(row, "Milliseconds"), Name="title")
        made["media_type"] = media[row["MediaTypeId"]]
        made["duration_s"] = row["Milliseconds"] / 1000.0
        green["Track"][key] = made
    return green


def back(green: Side, unused_media: Mapping[tuple[Any, ...], Row]) -> Side:
    """What blue must hold when green holds this; green knows nothing of media types that no track has."""
    blue = {name: {key: _without(row, ONLY_NEW.get(name, "")) for key, row in green[name].items()} for name in SAME}
    blue["Employee"] = green["staff"]
    nowhere = dict.fromkeys((*PARTS[:3], "country_name", "PostalCode"))
    blue["Customer"] = {
        key: row | _renamed(_without(green["CustomerAddress"].get(key, nowhere), "CustomerId"), country_name="Country")
        for key, row in green["Customer"].items()
    }
    blue["MediaType"] = dict(unused_media)
    blue["Track"] = {}
    for key, row in green["Track"].items():
        made = _renamed(_without(row, "duration_s", "media_type"), title="Name")
        made["Milliseconds"] = milliseconds(row["duration_s"])
        blue["Track"][key] = made
        media = (row["MediaTypeId"],)
        blue["MediaType"][media] = {"MediaTypeId": row["MediaTypeId"], "Name": row["media_type"]}
    return blue


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, half of one upwards."""
    return int(seconds * 1000 + 0.5)


def unused_media(blue: Side) -> Rows:
    """The media types that no track has."""
    used = {row["MediaTypeId"] for row in blue["Track"].values()}
    return {key: row for key, row in blue["MediaType"].items() if key[0] not in used}


def differences(wanted: Side, found: Side) -> list[str]:
    """Every cell in which two sides differ (at most 20), in the columns that are wanted; 1 and 1.0 are two values."""
    told: list[str] = []
    for table, rows in wanted.items():
        there = found[table]
        told += [f"{table} {key}: missing" for key in rows if key not in there]
        told += [f"{table} {key}: extra" for key in there if key not in rows]
        told += [
            f"{table} {key}.{name}: {there[key][name]!r} and not {value!r}"
            for key, row in rows.items()
            if key in there
            for name, value in row.items()
            if (type(value), value) != (type(there[key][name]), there[key][name])
        ]
    return told[:20]


def _without(row: Mapping[str, Any], *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _renamed(row: Mapping[str, Any], **names: str) -> Row:
    return {names.get(name, name): value for name, value in row.items()}
