"""Two shapes between which rows do everything that is hard to follow: they move between parents, are looked up by a
column that is no key, are told apart by text, and come in several rows for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dbsync.etl import Crossing, table

OLD = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r1');
CREATE TABLE Album (AlbumId INTEGER PRIMARY KEY, Title TEXT);
CREATE TABLE Track (TrackId INTEGER PRIMARY KEY, AlbumId INTEGER, Name TEXT);
CREATE INDEX track_album ON Track (AlbumId);
CREATE TABLE Land (Code TEXT PRIMARY KEY, LandName TEXT);
CREATE TABLE Customer (CustomerId INTEGER PRIMARY KEY, Name TEXT, Country TEXT, Tags TEXT, Home TEXT, Work TEXT);
CREATE TABLE Line (OrderId INTEGER, Nr INTEGER, Price INTEGER, Rebate TEXT, PRIMARY KEY (OrderId, Nr));
CREATE TABLE Rebate (OrderId INTEGER, Nr INTEGER, Note TEXT, PRIMARY KEY (OrderId, Nr));
"""
NEW = """
CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY);
INSERT INTO alembic_version VALUES ('r2');
CREATE TABLE album (album_id INTEGER PRIMARY KEY, title TEXT, tracks INTEGER);
CREATE TABLE track (track_id INTEGER PRIMARY KEY, album_id INTEGER, name TEXT, album_title TEXT);
CREATE INDEX track_album ON track (album_id);
CREATE TABLE Land (Code TEXT PRIMARY KEY, LandName TEXT);
CREATE TABLE country (name TEXT PRIMARY KEY);
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT, country TEXT, land_code TEXT);
CREATE TABLE tag (person_id INTEGER, nr INTEGER, word TEXT, PRIMARY KEY (person_id, nr));
CREATE TABLE phone (person_id INTEGER, kind TEXT, number TEXT, PRIMARY KEY (person_id, kind));
CREATE TABLE line (order_id INTEGER, nr INTEGER, price INTEGER, note TEXT, PRIMARY KEY (order_id, nr));
"""


def words(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each word of Tags."""
    for nr, word in enumerate((row["tags"] or "").split(",") if row["tags"] else (), 1):
        yield {"person_id": row["person_id"], "nr": nr, "word": word}


FORWARD = Crossing(
    table(
        "album",
        key={"Album": "AlbumId", "Track": "SELECT AlbumId FROM Track WHERE TrackId IN (:keys)"},
        select="""SELECT a.AlbumId AS album_id, a.Title AS title,
                  (SELECT count(*) FROM Track t WHERE t.AlbumId = a.AlbumId) AS tracks FROM Album a""",
    ),
    table(
        "track",
        key={"Track": "TrackId", "Album": "SELECT TrackId FROM Track WHERE AlbumId IN (:keys)"},
        select="""SELECT t.TrackId AS track_id, t.AlbumId AS album_id, t.Name AS name, a.Title AS album_title
                  FROM Track t LEFT JOIN Album a ON a.AlbumId = t.AlbumId""",
    ),
    table(
        "country",
        key={"Customer": "SELECT Country FROM Customer WHERE CustomerId IN (:keys)"},
        select="SELECT DISTINCT Country AS name FROM Customer WHERE Country IS NOT NULL",
    ),
    table(
        "person",
        key={
            "Customer": "CustomerId",
            "Land": """SELECT c.CustomerId FROM Land l JOIN Customer c ON c.Country = l.LandName
                       WHERE l.Code IN (:keys)""",
        },
        select="""SELECT c.CustomerId AS id, c.Name AS name, c.Country AS country,
                  (SELECT min(l.Code) FROM Land l WHERE l.LandName = c.Country) AS land_code FROM Customer c""",
    ),
    table(
        "tag",
        key={"Customer": "CustomerId"},
        select="SELECT CustomerId AS person_id, Tags AS tags FROM Customer",
        row=words,
        cardinality="1:n",
    ),
    table(
        "phone",
        key={"Customer": {"person_id": "CustomerId"}},
        select="""SELECT c.CustomerId AS person_id, k.kind,
                  CASE k.kind WHEN 'home' THEN c.Home ELSE c.Work END AS number
                  FROM Customer c JOIN (SELECT 'home' AS kind UNION ALL SELECT 'work') AS k
                  WHERE CASE k.kind WHEN 'home' THEN c.Home ELSE c.Work END IS NOT NULL""",
        cardinality="1:n",
    ),
    table(
        "line",
        key={
            "Line": ["OrderId", "Nr"],
            "Rebate": """SELECT l.OrderId, l.Nr FROM Line l JOIN (:keys) AS k ON k.k1 = l.OrderId AND k.k2 = l.Nr""",
        },
        select="""SELECT l.OrderId AS order_id, l.Nr AS nr, l.Price AS price, r.Note AS note
                  FROM Line l LEFT JOIN Rebate r ON r.OrderId = l.OrderId AND r.Nr = l.Nr""",
    ),
)
REVERSE = Crossing(
    table("Album", key={"album": "album_id"}, select="SELECT album_id AS AlbumId, title AS Title FROM album"),
    table(
        "Track",
        key={"track": "track_id"},
        select="SELECT track_id AS TrackId, album_id AS AlbumId, name AS Name FROM track",
    ),
    table(
        "Customer",
        key={"person": "id", "tag": {"CustomerId": "person_id"}, "phone": "SELECT k.k1 FROM (:keys) AS k"},
        select="""SELECT p.id AS CustomerId, p.name AS Name, p.country AS Country,
                  (SELECT max(CASE t.nr WHEN 1 THEN t.word END)
                          || coalesce(',' || max(CASE t.nr WHEN 2 THEN t.word END), '')
                          || coalesce(',' || max(CASE t.nr WHEN 3 THEN t.word END), '')
                   FROM tag t WHERE t.person_id = p.id) AS Tags,
                  (SELECT h.number FROM phone h WHERE h.person_id = p.id AND h.kind = 'home') AS Home,
                  (SELECT w.number FROM phone w WHERE w.person_id = p.id AND w.kind = 'work') AS Work
                  FROM person p""",
    ),
    table(
        "Line",
        key={"line": ["order_id", "nr"]},
        select="SELECT order_id AS OrderId, nr AS Nr, price AS Price FROM line",
    ),
    table(
        "Rebate",
        key={"line": ["order_id", "nr"]},
        select="SELECT order_id AS OrderId, nr AS Nr, note AS Note FROM line WHERE note IS NOT NULL",
        cardinality="1:0..1",
    ),
)


class Music:
    """What the crossing's file gives."""

    forward: Crossing = FORWARD
    reverse: Crossing = REVERSE
    path = "r2.py"
