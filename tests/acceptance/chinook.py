"""The material of the Chinook story: its schema, rows of our own, three revisions and their crossings.

The SQL of revisions and crossings is what both SQLite and SQL Server read; where they differ the crossing says so.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

REAL = "DBSYNC_TEST_CHINOOK"
"""The variable that names a real Chinook file: the story then runs on a copy of it."""

SCHEMA = """
CREATE TABLE [Artist] ([ArtistId] INTEGER NOT NULL, [Name] NVARCHAR(120),
  CONSTRAINT [PK_Artist] PRIMARY KEY ([ArtistId]));
CREATE TABLE [Genre] ([GenreId] INTEGER NOT NULL, [Name] NVARCHAR(120), CONSTRAINT [PK_Genre] PRIMARY KEY ([GenreId]));
CREATE TABLE [MediaType] ([MediaTypeId] INTEGER NOT NULL, [Name] NVARCHAR(120),
  CONSTRAINT [PK_MediaType] PRIMARY KEY ([MediaTypeId]));
CREATE TABLE [Playlist] ([PlaylistId] INTEGER NOT NULL, [Name] NVARCHAR(120),
  CONSTRAINT [PK_Playlist] PRIMARY KEY ([PlaylistId]));
CREATE TABLE [Employee] ([EmployeeId] INTEGER NOT NULL, [LastName] NVARCHAR(20) NOT NULL,
  [FirstName] NVARCHAR(20) NOT NULL, [Title] NVARCHAR(30), [ReportsTo] INTEGER, [BirthDate] DATETIME,
  [HireDate] DATETIME, [Address] NVARCHAR(70), [City] NVARCHAR(40), [State] NVARCHAR(40), [Country] NVARCHAR(40),
  [PostalCode] NVARCHAR(10), [Phone] NVARCHAR(24), [Fax] NVARCHAR(24), [Email] NVARCHAR(60),
  CONSTRAINT [PK_Employee] PRIMARY KEY ([EmployeeId]),
  FOREIGN KEY ([ReportsTo]) REFERENCES [Employee] ([EmployeeId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [Customer] ([CustomerId] INTEGER NOT NULL, [FirstName] NVARCHAR(40) NOT NULL,
  [LastName] NVARCHAR(20) NOT NULL, [Company] NVARCHAR(80), [Address] NVARCHAR(70), [City] NVARCHAR(40),
  [State] NVARCHAR(40), [Country] NVARCHAR(40), [PostalCode] NVARCHAR(10), [Phone] NVARCHAR(24), [Fax] NVARCHAR(24),
  [Email] NVARCHAR(60) NOT NULL, [SupportRepId] INTEGER, CONSTRAINT [PK_Customer] PRIMARY KEY ([CustomerId]),
  FOREIGN KEY ([SupportRepId]) REFERENCES [Employee] ([EmployeeId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [Album] ([AlbumId] INTEGER NOT NULL, [Title] NVARCHAR(160) NOT NULL, [ArtistId] INTEGER NOT NULL,
  CONSTRAINT [PK_Album] PRIMARY KEY ([AlbumId]),
  FOREIGN KEY ([ArtistId]) REFERENCES [Artist] ([ArtistId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [Track] ([TrackId] INTEGER NOT NULL, [Name] NVARCHAR(200) NOT NULL, [AlbumId] INTEGER,
  [MediaTypeId] INTEGER NOT NULL, [GenreId] INTEGER, [Composer] NVARCHAR(220), [Milliseconds] INTEGER NOT NULL,
  [Bytes] INTEGER, [UnitPrice] NUMERIC(10,2) NOT NULL, CONSTRAINT [PK_Track] PRIMARY KEY ([TrackId]),
  FOREIGN KEY ([AlbumId]) REFERENCES [Album] ([AlbumId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
  FOREIGN KEY ([GenreId]) REFERENCES [Genre] ([GenreId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
  FOREIGN KEY ([MediaTypeId]) REFERENCES [MediaType] ([MediaTypeId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [Invoice] ([InvoiceId] INTEGER NOT NULL, [CustomerId] INTEGER NOT NULL, [InvoiceDate] DATETIME NOT NULL,
  [BillingAddress] NVARCHAR(70), [BillingCity] NVARCHAR(40), [BillingState] NVARCHAR(40),
  [BillingCountry] NVARCHAR(40), [BillingPostalCode] NVARCHAR(10), [Total] NUMERIC(10,2) NOT NULL,
  CONSTRAINT [PK_Invoice] PRIMARY KEY ([InvoiceId]),
  FOREIGN KEY ([CustomerId]) REFERENCES [Customer] ([CustomerId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [InvoiceLine] ([InvoiceLineId] INTEGER NOT NULL, [InvoiceId] INTEGER NOT NULL, [TrackId] INTEGER NOT NULL,
  [UnitPrice] NUMERIC(10,2) NOT NULL, [Quantity] INTEGER NOT NULL,
  CONSTRAINT [PK_InvoiceLine] PRIMARY KEY ([InvoiceLineId]),
  FOREIGN KEY ([InvoiceId]) REFERENCES [Invoice] ([InvoiceId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
  FOREIGN KEY ([TrackId]) REFERENCES [Track] ([TrackId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE TABLE [PlaylistTrack] ([PlaylistId] INTEGER NOT NULL, [TrackId] INTEGER NOT NULL,
  CONSTRAINT [PK_PlaylistTrack] PRIMARY KEY ([PlaylistId], [TrackId]),
  FOREIGN KEY ([PlaylistId]) REFERENCES [Playlist] ([PlaylistId]) ON DELETE NO ACTION ON UPDATE NO ACTION,
  FOREIGN KEY ([TrackId]) REFERENCES [Track] ([TrackId]) ON DELETE NO ACTION ON UPDATE NO ACTION);
CREATE INDEX [IFK_AlbumArtistId] ON [Album] ([ArtistId]);
CREATE INDEX [IFK_CustomerSupportRepId] ON [Customer] ([SupportRepId]);
CREATE INDEX [IFK_EmployeeReportsTo] ON [Employee] ([ReportsTo]);
CREATE INDEX [IFK_InvoiceCustomerId] ON [Invoice] ([CustomerId]);
CREATE INDEX [IFK_InvoiceLineInvoiceId] ON [InvoiceLine] ([InvoiceId]);
CREATE INDEX [IFK_InvoiceLineTrackId] ON [InvoiceLine] ([TrackId]);
CREATE INDEX [IFK_PlaylistTrackPlaylistId] ON [PlaylistTrack] ([PlaylistId]);
CREATE INDEX [IFK_PlaylistTrackTrackId] ON [PlaylistTrack] ([TrackId]);
CREATE INDEX [IFK_TrackAlbumId] ON [Track] ([AlbumId]);
CREATE INDEX [IFK_TrackGenreId] ON [Track] ([GenreId]);
CREATE INDEX [IFK_TrackMediaTypeId] ON [Track] ([MediaTypeId]);
"""

COUNTRIES = ["Brazil", "Germany", "Česko", "USA", "Côte d'Ivoire", "日本", 'The "Isles"', "Norway", "Chile", "India"]
MEDIA = ["MPEG audio file", "Protected AAC", "Wachs, 1½ Zoll", "", None, "never used"]


def blue_database(path: Path, seed: int = 1) -> None:
    """A database as it was before dbsync came: a copy of the real one where it is named, else rows of our own."""
    real = os.environ.get(REAL)
    if real:
        shutil.copyfile(real, path)
        return
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    for table, rows in _rows(random.Random(seed)).items():
        connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    connection.commit()
    connection.close()


def _rows(chance: random.Random) -> dict[str, list[tuple[Any, ...]]]:
    pick, upto = chance.choice, chance.randint
    tracks = [
        (n, f"Lied {n} für O'{pick('ABC')}", pick([None, *range(1, 91)]), upto(1, 5), pick([None, *range(1, 13)]),
         pick([None, "", "Bach", "Dvořák"]), upto(1_000, 9_999_999), pick([None, upto(1, 10**9)]), pick([0.99, 1.99]))
        for n in range(1, 701)
    ]  # fmt: skip
    customers = [
        (n, pick(["Mary Ann", "Zoë", "Bjørn"]), f"O'Neil {n}", pick([None, "", "Acme"]), pick([None, f"Straße {n}"]),
         pick([None, "Köln", "Oslo"]), pick([None, "", "SP"]), pick([None, *COUNTRIES]), pick([None, "0171"]),
         f"+49 {n}", None, f"{n}@old", pick([None, *range(1, 10)]))
        for n in range(1, 121)
    ]  # fmt: skip
    chiefs = [None, 1, 1, 2, 2, 2, 3, 7, 9]
    places = {(upto(1, 12), upto(1, 700)) for _ in range(850)}
    return {
        "Artist": [(n, pick([f"Künstler {n}", "", None])) for n in range(1, 61)],
        "Genre": [(n, f"Genre {n}") for n in range(1, 13)],
        "MediaType": list(enumerate(MEDIA, 1)),
        "Playlist": [(n, pick(["90’s Music", f"List {n}", None])) for n in range(1, 13)],
        "Employee": [
            (n, f"Last {n}", f"First {n}", None, chief, "1962-02-18 00:00:00", None, "1 Way", "Calgary", "AB", "Canada",
             "T5K 2N1", None, None, f"{n}@work")
            for n, chief in enumerate(chiefs, 1)
        ],
        "Customer": customers,
        "Album": [(n, f"Album {n}", upto(1, 60)) for n in range(1, 91)],
        "Track": tracks,
        "Invoice": [
            (n, upto(1, 120), f"2026-01-{upto(1, 28):02} 00:00:00", None, "Köln", "", pick(COUNTRIES), "0171", n * 0.99)
            for n in range(1, 301)
        ],
        "InvoiceLine": [(n, upto(1, 300), upto(1, 700), 0.99, upto(1, 3)) for n in range(1, 901)],
        "PlaylistTrack": sorted(places),
    }  # fmt: skip


# --- shapes --------------------------------------------------------------------------------------

_ADDRESS = '''
"""A customer's address becomes a table of its own; a track's name is called its title."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
PARTS = ("Address", "City", "State", "Country", "PostalCode")
def upgrade():
    op.create_table(
        "CustomerAddress",
        sa.Column("CustomerId", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("Address", sa.NVARCHAR(70)),
        sa.Column("City", sa.NVARCHAR(40)),
        sa.Column("State", sa.NVARCHAR(40)),
        sa.Column("Country", sa.NVARCHAR(40)),
        sa.Column("PostalCode", sa.NVARCHAR(10)),
        sa.ForeignKeyConstraint(["CustomerId"], ["Customer.CustomerId"]),
    )
    op.execute(
        "INSERT INTO CustomerAddress (CustomerId, Address, City, State, Country, PostalCode)"
        " SELECT CustomerId, Address, City, State, Country, PostalCode FROM Customer"
        " WHERE COALESCE(Address, City, State, Country, PostalCode) IS NOT NULL"
    )
    with op.batch_alter_table("Customer") as batch:
        for name in PARTS:
            batch.drop_column(name)
    op.create_index("UQ_CustomerEmail", "Customer", ["Email"], unique=True)
    with op.batch_alter_table("Track") as batch:
        batch.alter_column("Name", new_column_name="title", existing_type=sa.NVARCHAR(200), existing_nullable=False)
def downgrade():
    raise NotImplementedError
'''

_LOOKUPS = '''
"""Countries become a lookup table; the media types, which were one, become text in the tracks."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
NAMES = {"fk": "fk_%(table_name)s_%(column_0_name)s"}
def upgrade():
    op.create_table(
        "country",
        sa.Column("name", sa.NVARCHAR(40), primary_key=True),
        sa.Column("region", sa.NVARCHAR(20), nullable=False, server_default="unknown"),
    )
    op.execute(
        "INSERT INTO country (name) SELECT DISTINCT Country FROM CustomerAddress WHERE Country IS NOT NULL"
    )
    with op.batch_alter_table("CustomerAddress") as batch:
        batch.alter_column("Country", new_column_name="country_name", existing_type=sa.NVARCHAR(40))
    with op.batch_alter_table("CustomerAddress") as batch:
        batch.create_foreign_key("FK_AddressCountry", "country", ["country_name"], ["name"])
    op.create_index("IFK_AddressCountry", "CustomerAddress", ["country_name"])
    with op.batch_alter_table("Track") as batch:
        batch.add_column(sa.Column("media_type", sa.NVARCHAR(120)))
    op.execute(
        "UPDATE Track SET media_type = (SELECT m.Name FROM MediaType AS m WHERE m.MediaTypeId = Track.MediaTypeId)"
    )
    foreign = sa.inspect(op.get_bind()).get_foreign_keys("Track")
    held = next(each["name"] for each in foreign if each["referred_table"] == "MediaType")
    with op.batch_alter_table("Track", naming_convention=NAMES) as batch:
        batch.drop_constraint(held or "fk_Track_MediaTypeId", type_="foreignkey")
    op.drop_table("MediaType")
    op.add_column("Playlist", sa.Column("cover", sa.NVARCHAR(40)))
def downgrade():
    raise NotImplementedError
'''

_DURATION = '''
"""A track lasts seconds, with parts of a millisecond; employees are called staff."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0004", "0003"
def upgrade():
    with op.batch_alter_table("Track") as batch:
        batch.add_column(sa.Column("duration_s", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE Track SET duration_s = Milliseconds / 1000.0")
    with op.batch_alter_table("Track") as batch:
        batch.drop_column("Milliseconds")
    op.rename_table("Employee", "staff")
def downgrade():
    raise NotImplementedError
'''

REVISIONS = {"0002_address.py": _ADDRESS, "0003_lookups.py": _LOOKUPS, "0004_duration.py": _DURATION}

# --- rows ----------------------------------------------------------------------------------------

_ADDRESS_ROWS = '''
from dbsync.etl import Crossing, table
forward = Crossing(
    table("Customer", key={"Customer": "CustomerId"}, select="""
        SELECT CustomerId, FirstName, LastName, Company, Phone, Fax, Email, SupportRepId FROM Customer"""),
    table("CustomerAddress", key={"Customer": "CustomerId"}, cardinality="1:0..1", select="""
        SELECT CustomerId, Address, City, State, Country, PostalCode FROM Customer
        WHERE COALESCE(Address, City, State, Country, PostalCode) IS NOT NULL"""),
    table("Track", key={"Track": "TrackId"}, select="""
        SELECT TrackId, Name AS title, AlbumId, MediaTypeId, GenreId, Composer, Milliseconds, Bytes, UnitPrice
        FROM Track"""),
)
reverse = Crossing(
    table("Customer", key={"Customer": "CustomerId", "CustomerAddress": "CustomerId"}, select="""
        SELECT c.CustomerId, c.FirstName, c.LastName, c.Company, a.Address, a.City, a.State, a.Country, a.PostalCode,
               c.Phone, c.Fax, c.Email, c.SupportRepId
        FROM Customer AS c LEFT JOIN CustomerAddress AS a ON a.CustomerId = c.CustomerId"""),
    table("Track", key={"Track": "TrackId"}, select="""
        SELECT TrackId, title AS Name, AlbumId, MediaTypeId, GenreId, Composer, Milliseconds, Bytes, UnitPrice
        FROM Track"""),
)
'''

_LOOKUP_ROWS = '''
from dbsync.etl import Crossing, table
forward = Crossing(
    table("CustomerAddress", key={"CustomerAddress": "CustomerId"}, select="""
        SELECT CustomerId, Address, City, State, Country AS country_name, PostalCode FROM CustomerAddress"""),
    table("country", cardinality="1:0..1",
          key={"CustomerAddress": "SELECT Country FROM CustomerAddress WHERE CustomerId IN (:keys)"},
          select="SELECT DISTINCT Country AS name FROM CustomerAddress WHERE Country IS NOT NULL"),
    table("Track",
          key={"Track": "TrackId", "MediaType": "SELECT TrackId FROM Track WHERE MediaTypeId IN (:keys)"}, select="""
        SELECT t.TrackId, t.title, t.AlbumId, t.MediaTypeId, m.Name AS media_type, t.GenreId, t.Composer,
               t.Milliseconds, t.Bytes, t.UnitPrice
        FROM Track AS t LEFT JOIN MediaType AS m ON m.MediaTypeId = t.MediaTypeId"""),
)
reverse = Crossing(
    table("CustomerAddress", key={"CustomerAddress": "CustomerId"}, select="""
        SELECT CustomerId, Address, City, State, country_name AS Country, PostalCode FROM CustomerAddress"""),
    table("MediaType", cardinality="1:0..1",
          key={"Track": "SELECT MediaTypeId FROM Track WHERE TrackId IN (:keys)"},
          select="SELECT DISTINCT MediaTypeId, media_type AS Name FROM Track"),
    table("Track", key={"Track": "TrackId"}, select="""
        SELECT TrackId, title, AlbumId, MediaTypeId, GenreId, Composer, Milliseconds, Bytes, UnitPrice FROM Track"""),
)
'''

_DURATION_ROWS = '''
from dbsync.etl import Crossing, table
forward = Crossing(
    table("Track", key={"Track": "TrackId"}, losing={"duration_s": "keep"}, select="""
        SELECT TrackId, title, AlbumId, MediaTypeId, media_type, GenreId, Composer,
               Milliseconds / 1000.0 AS duration_s, Bytes, UnitPrice
        FROM Track"""),
    table("staff", key={"Employee": "EmployeeId"}, select="""
        SELECT EmployeeId, LastName, FirstName, Title, ReportsTo, BirthDate, HireDate, Address, City, State, Country,
               PostalCode, Phone, Fax, Email
        FROM Employee"""),
)
reverse = Crossing(
    table("Track", key={"Track": "TrackId"}, select="""
        SELECT TrackId, title, AlbumId, MediaTypeId, media_type, GenreId, Composer,
               CAST(ROUND(duration_s * 1000, 0) AS INTEGER) AS Milliseconds, Bytes, UnitPrice
        FROM Track""", loses={"Milliseconds": "parts of a millisecond"}),
    table("Employee", key={"staff": "EmployeeId"}, select="""
        SELECT EmployeeId, LastName, FirstName, Title, ReportsTo, BirthDate, HireDate, Address, City, State, Country,
               PostalCode, Phone, Fax, Email
        FROM staff"""),
)
'''

CROSSINGS = {
    "0002_address.py": _ADDRESS_ROWS,
    "0003_lookups.py": _LOOKUP_ROWS,
    "0004_duration.py": _DURATION_ROWS,
}
WITHOUT_KEEP = {name: text.replace('losing={"duration_s": "keep"}, ', "") for name, text in CROSSINGS.items()}
