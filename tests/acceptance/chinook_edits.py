"""The application of the Chinook story: seeded random edits on either shape, as one that knows its own rules."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

WORDS = [
    *(
        "",
        " ",
        "O'Brien",
        '"so"',
        "Ünï",
        "日本",
        "ß",
        "SS",
        "ss",
        "NULL",
        "null",
        "köln",
        "KÖLN",
        "Köln",
        "köln ",
        " a",
    ),
    *("a\tb", "a\0b", "100%", "a_b", "\\", "[x]", "`y`", "--", ";", "0171", "1e3", "🎵", "I", "ı", "-1", "Æther"),
]
COUNTRIES = [
    "germany",
    "GERMANY",
    "Germany",
    "",
    " ",
    "Chile",
    "chile",
    "Côte d'Ivoire",
    "日本",
    "USA",
    "Norway",
    "Ö",
    "ö",
]


class Editor:
    """One application on one database of the old shape: `run` makes so many edits, in transactions of several."""

    tracks_name = "Name"
    staff = "Employee"
    side = "blue"

    def __init__(self, path: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.path = path
        self.gone: set[tuple[str, int]] = set()
        """(table, number) of tracks and playlists that were deleted, whether or not their number was used again."""
        self.counts: dict[str, int] = {}
        self._db: sqlite3.Connection
        self._unused: frozenset[int] = frozenset()

    # --- running ---------------------------------------------------------------------------------

    def run(self, edits: int, most: int = 40) -> None:
        """Make so many edits, 1 to `most` of them a transaction; some transactions are rolled back."""
        with self._connection() as self._db:
            self._unused = self.unused_media()
            while edits > 0:
                batch = min(edits, self.chance.randint(1, most))
                given_up = self.chance.random() < 0.05
                gone = set(self.gone)
                self._db.execute("BEGIN IMMEDIATE")
                for _ in range(batch):
                    edit = self.chance.choices(tuple(self.kinds), tuple(self.kinds.values()))[0]
                    getattr(self, edit)()
                    self.counts[edit] = self.counts.get(edit, 0) + 1
                self.tidy()
                self._db.execute("ROLLBACK" if given_up else "COMMIT")
                if given_up:
                    self.gone = gone
                else:
                    edits -= batch

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=20.0)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()

    def unused_media(self) -> frozenset[int]:
        """Media types that stand on this side only, so that nobody here knows of them."""
        return frozenset()

    def tidy(self) -> None:
        """What must be true at the end of each transaction of this application."""

    # --- words -----------------------------------------------------------------------------------

    def do(self, sql: str, *given: Any) -> sqlite3.Cursor:
        return self._db.execute(sql, given)

    def one(self, table: str, column: str, where: str = "1 = 1") -> Any:
        """A random value of a key column (None for an empty table), found by seeking: the same for the same seed."""
        found = self.do(f"SELECT MIN({column}), MAX({column}) FROM {table} WHERE {where}").fetchone()
        if found[0] is None:
            return None
        start = self.chance.randint(found[0], found[1])
        return self.do(f"SELECT MIN({column}) FROM {table} WHERE {column} >= ? AND {where}", start).fetchone()[0]

    def new(self, table: str, column: str) -> int:
        """A free number: the next one, or one that somebody else gave up."""
        highest = int(self.do(f"SELECT COALESCE(MAX({column}), 0) FROM {table}").fetchone()[0])
        if self.chance.random() < 0.4:
            used = self.chance.randint(1, highest + 1)
            if self.do(f"SELECT 1 FROM {table} WHERE {column} = ?", used).fetchone() is None:
                return used
        return highest + 1

    def word(self, nullable: bool = True) -> str | None:
        """A text that has hurt somebody."""
        if nullable and self.chance.random() < 0.2:
            return None
        return self.chance.choice(WORDS)

    def cased(self, table: str, column: str, key: str, number: Any) -> None:
        """Change nothing but the case of a text."""
        (text,) = self.do(f"SELECT {column} FROM {table} WHERE {key} = ?", number).fetchone()
        if text is not None:
            self.do(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", text.swapcase(), number)

    # --- artists, albums, genres -------------------------------------------------------------------

    def artist(self) -> None:
        number, roll = self.one("Artist", "ArtistId"), self.chance.random()
        if roll < 0.4:
            self.do("UPDATE Artist SET Name = ? WHERE ArtistId = ?", self.word(), number)
        elif roll < 0.6:
            self.cased("Artist", "Name", "ArtistId", number)
        elif roll < 0.8:
            self.do("INSERT INTO Artist VALUES (?, ?)", self.new("Artist", "ArtistId"), self.word())
        else:
            self.do(
                "DELETE FROM Artist WHERE ArtistId = ? AND NOT EXISTS (SELECT 1 FROM Album AS a WHERE a.ArtistId = ?)",
                number,
                number,
            )

    def album(self) -> None:
        number, roll = self.one("Album", "AlbumId"), self.chance.random()
        artist = self.one("Artist", "ArtistId")
        if roll < 0.5:
            self.do("UPDATE Album SET ArtistId = ? WHERE AlbumId = ?", artist, number)
        elif roll < 0.8:
            self.do("INSERT INTO Album VALUES (?, ?, ?)", self.new("Album", "AlbumId"), self.word(False), artist)
        elif number is not None:
            self.do("UPDATE Track SET AlbumId = NULL WHERE AlbumId = ?", number)
            self.do("DELETE FROM Album WHERE AlbumId = ?", number)

    def genre(self) -> None:
        number, roll = self.one("Genre", "GenreId"), self.chance.random()
        if roll < 0.5:
            self.do("INSERT INTO Genre VALUES (?, ?)", self.new("Genre", "GenreId"), self.word())
        elif roll < 0.8 or number is None:
            self.do("UPDATE Genre SET Name = ? WHERE GenreId = ?", self.word(), number)
        else:
            self.do("UPDATE Track SET GenreId = NULL WHERE GenreId = ?", number)
            self.do("DELETE FROM Genre WHERE GenreId = ?", number)

    # --- tracks ------------------------------------------------------------------------------------

    def track(self) -> None:
        number, roll = self.one("Track", "TrackId"), self.chance.random()
        name = self.tracks_name
        if roll < 0.25:
            self.do(
                f"UPDATE Track SET {name} = ?, Composer = ? WHERE TrackId = ?", self.word(False), self.word(), number
            )
        elif roll < 0.35:
            self.cased("Track", name, "TrackId", number)
        elif roll < 0.5:
            album = self.one("Album", "AlbumId") if roll < 0.45 else None
            self.do("UPDATE Track SET AlbumId = ?, UnitPrice = ? WHERE TrackId = ?", album, 1.29, number)
        elif roll < 0.6:
            self.do(
                "UPDATE Track SET GenreId = ?, Bytes = NULL WHERE TrackId = ?", self.one("Genre", "GenreId"), number
            )
        elif roll < 0.75:
            self.add_track(self.new("Track", "TrackId"))
        elif roll < 0.9:
            self.drop_track(number)
        else:
            self.drop_track(number)
            self.add_track(number)

    def drop_track(self, number: int) -> None:
        self.do("DELETE FROM InvoiceLine WHERE TrackId = ?", number)
        self.do("DELETE FROM PlaylistTrack WHERE TrackId = ?", number)
        self.do("DELETE FROM Track WHERE TrackId = ?", number)
        self.gone.add(("Track", number))

    def add_track(self, number: int) -> None:
        media = self.one("MediaType", "MediaTypeId")
        self.do(
            "INSERT INTO Track (TrackId, Name, AlbumId, MediaTypeId, GenreId, Composer, Milliseconds, Bytes, UnitPrice)"
            " VALUES (?, ?, NULL, ?, NULL, ?, ?, ?, 0.99)",
            *(
                number,
                self.word(False),
                media,
                self.word(),
                self.chance.randint(0, 10**7),
                self.chance.choice([None, 0]),
            ),
        )

    def duration(self) -> None:
        number = self.one("Track", "TrackId")
        if self.chance.random() < 0.5:
            self.do("UPDATE Track SET Milliseconds = Milliseconds + 1 WHERE TrackId = ?", number)
        else:
            self.do("UPDATE Track SET Milliseconds = ? WHERE TrackId = ?", self.chance.randint(0, 10**7), number)

    def media(self) -> None:
        """A media type is renamed, a track gets another one, one appears, one that nobody has disappears."""
        number, roll = self.one("MediaType", "MediaTypeId"), self.chance.random()
        if roll < 0.1:
            self.do("UPDATE MediaType SET Name = ? WHERE MediaTypeId = ?", self.word(), number)
        elif roll < 0.7:
            self.do("UPDATE Track SET MediaTypeId = ? WHERE TrackId = ?", number, self.one("Track", "TrackId"))
        elif roll < 0.8:
            self.do("INSERT INTO MediaType VALUES (?, ?)", self.new("MediaType", "MediaTypeId"), self.word())
        else:
            unused = "NOT EXISTS (SELECT 1 FROM Track AS t WHERE t.MediaTypeId = MediaType.MediaTypeId)"
            self.do(f"DELETE FROM MediaType WHERE MediaTypeId = ? AND {unused}", number)

    def reborn(self) -> None:
        """A track goes and comes again under its number, looking just as it did."""
        number = self.one("Track", "TrackId")
        cursor = self.do("SELECT * FROM Track WHERE TrackId = ?", number)
        row = cursor.fetchone()
        self.drop_track(number)
        self.do(f"INSERT INTO Track VALUES ({', '.join('?' * len(row))})", *row)

    def exchange(self) -> None:
        """Two rows exchange their keys, two parents their children, in one transaction."""
        one, other = self.one("Album", "AlbumId"), self.one("Album", "AlbumId")
        self.do(
            "UPDATE Track SET AlbumId = CASE AlbumId WHEN ? THEN ? ELSE ? END WHERE AlbumId IN (?, ?)",
            *(one, other, one, one, other),
        )
        free = "NOT EXISTS (SELECT 1 FROM Invoice AS i WHERE i.CustomerId = Customer.CustomerId)"
        one, other = self.one("Customer", "CustomerId", free), self.one("Customer", "CustomerId", free)
        if one != other:
            third = self.do("SELECT MAX(CustomerId) + 1 FROM Customer").fetchone()[0]
            for was, now in ((one, third), (other, one), (third, other)):
                self.renumber(was, now)

    # --- customers ---------------------------------------------------------------------------------

    def customer(self) -> None:
        number, roll = self.one("Customer", "CustomerId"), self.chance.random()
        if roll < 0.2:
            self.do(
                "UPDATE Customer SET FirstName = ?, LastName = ?, Company = ? WHERE CustomerId = ?",
                *(self.word(False), self.word(False), self.word(), number),
            )
        elif roll < 0.3:
            self.cased("Customer", "Email", "CustomerId", number)
        elif roll < 0.5:
            self.swap_emails(number, self.one("Customer", "CustomerId"))
        elif roll < 0.6:
            self.do(
                "UPDATE Customer SET SupportRepId = ? WHERE CustomerId = ?",
                *(self.one(self.staff, "EmployeeId"), number),
            )
        elif roll < 0.8:
            self.add_customer(self.new("Customer", "CustomerId"))
        elif roll < 0.9:
            self.renumber(number, self.new("Customer", "CustomerId"))
        else:
            self.drop_customer(number)

    def email(self) -> str:
        return f"{self.chance.choice(WORDS)}{self.chance.getrandbits(48)}@{self.side}"

    def swap_emails(self, one: int, other: int) -> None:
        """Two customers exchange what is unique, over a third value as the new shape's index wants it."""
        if one == other:
            return
        said = "SELECT Email FROM Customer WHERE CustomerId = ?"
        first, second = (self.do(said, number).fetchone()[0] for number in (one, other))
        for number, text in ((one, self.email()), (other, first), (one, second)):
            self.do("UPDATE Customer SET Email = ? WHERE CustomerId = ?", text, number)

    def add_customer(self, number: int) -> None:
        self.do(
            "INSERT INTO Customer (CustomerId, FirstName, LastName, Company, Phone, Email)"
            " VALUES (?, ?, ?, ?, NULL, ?)",
            *(number, self.word(False), self.word(False), self.word(), self.email()),
        )
        self.address(number)

    def drop_customer(self, number: int) -> None:
        of_his = "InvoiceId IN (SELECT InvoiceId FROM Invoice WHERE CustomerId = ?)"
        self.do(f"DELETE FROM InvoiceLine WHERE {of_his}", number)
        self.do("DELETE FROM Invoice WHERE CustomerId = ?", number)
        self.do("DELETE FROM Customer WHERE CustomerId = ?", number)

    def renumber(self, number: int, other: int) -> None:
        """The key itself changes, where nothing refers to it."""
        if self.do("SELECT 1 FROM Invoice WHERE CustomerId = ?", number).fetchone() is None:
            self.do("UPDATE Customer SET CustomerId = ? WHERE CustomerId = ?", other, number)

    def moved(self) -> None:
        self.address(self.one("Customer", "CustomerId"))

    def address(self, number: int) -> None:
        """Another address; none at all every now and then."""
        if self.chance.random() < 0.2:
            parts: list[Any] = [None] * 5
        else:
            parts = [self.word(), self.word(), self.word(), self.country(), self.word()]
        self.put_address(number, parts)

    def put_address(self, number: int, parts: list[Any]) -> None:
        self.do(
            "UPDATE Customer SET Address = ?, City = ?, State = ?, Country = ?, PostalCode = ? WHERE CustomerId = ?",
            *(*parts, number),
        )

    def country(self) -> str | None:
        return self.chance.choice([None, *COUNTRIES])

    # --- invoices, staff, playlists ------------------------------------------------------------------

    def invoice(self) -> None:
        number, roll = self.one("Invoice", "InvoiceId"), self.chance.random()
        customer = self.one("Customer", "CustomerId")
        if roll < 0.3:
            self.do("UPDATE Invoice SET CustomerId = ?, Total = Total + 1 WHERE InvoiceId = ?", customer, number)
        elif roll < 0.6:
            made = self.new("Invoice", "InvoiceId")
            self.do(
                "INSERT INTO Invoice VALUES (?, ?, '2026-02-28 00:00:00', ?, ?, NULL, ?, NULL, ?)",
                *(made, customer, self.word(), self.word(), self.country(), self.chance.choice([0, 1, 0.99, -2.5])),
            )
            for _ in range(self.chance.randint(0, 3)):
                self.line(made)
        elif roll < 0.8:
            self.line(number)
        else:
            self.do("DELETE FROM InvoiceLine WHERE InvoiceId = ?", number)
            self.do("DELETE FROM Invoice WHERE InvoiceId = ?", number)

    def line(self, invoice: int | None) -> None:
        if invoice is not None:
            made, track = self.new("InvoiceLine", "InvoiceLineId"), self.one("Track", "TrackId")
            self.do("INSERT INTO InvoiceLine VALUES (?, ?, ?, 0.99, 1)", made, invoice, track)

    def employee(self) -> None:
        """Chiefs of each other and of themselves, too."""
        staff, number, roll = self.staff, self.one(self.staff, "EmployeeId"), self.chance.random()
        if roll < 0.5:
            self.do(f"UPDATE {staff} SET ReportsTo = ? WHERE EmployeeId = ?", self.one(staff, "EmployeeId"), number)
        elif roll < 0.75:
            made = self.new(staff, "EmployeeId")
            self.do(
                f"INSERT INTO {staff} (EmployeeId, LastName, FirstName, ReportsTo, BirthDate) VALUES (?, ?, ?, ?, ?)",
                *(
                    made,
                    self.word(False),
                    self.word(False),
                    self.chance.choice([None, made, number]),
                    "1970-01-01 00:00:00",
                ),
            )
        else:
            self.do(f"UPDATE {staff} SET ReportsTo = NULL WHERE ReportsTo = ?", number)
            self.do("UPDATE Customer SET SupportRepId = NULL WHERE SupportRepId = ?", number)
            self.do(f"DELETE FROM {staff} WHERE EmployeeId = ?", number)
            if self.do(f"SELECT 1 FROM {staff}").fetchone() is None:
                self.do(f"INSERT INTO {staff} (EmployeeId, LastName, FirstName) VALUES (1, 'a', 'b')")

    def playlist(self) -> None:
        number, roll = self.one("Playlist", "PlaylistId"), self.chance.random()
        track = self.one("Track", "TrackId")
        if roll < 0.1 or number is None:
            self.do(
                "INSERT INTO Playlist (PlaylistId, Name) VALUES (?, ?)", self.new("Playlist", "PlaylistId"), self.word()
            )
        elif roll < 0.2:
            self.do("UPDATE Playlist SET Name = ? WHERE PlaylistId = ?", self.word(), number)
        elif roll < 0.25:
            self.do("DELETE FROM PlaylistTrack WHERE PlaylistId = ?", number)
            self.do("DELETE FROM Playlist WHERE PlaylistId = ?", number)
            self.gone.add(("Playlist", number))
        elif roll < 0.3:
            self.do("INSERT OR REPLACE INTO Playlist (PlaylistId, Name) VALUES (?, ?)", number, self.word())
            self.gone.add(("Playlist", number))
        elif roll < 0.5:
            self.do("INSERT OR IGNORE INTO PlaylistTrack VALUES (?, ?)", number, track)
        elif roll < 0.7:
            self.do("DELETE FROM PlaylistTrack WHERE PlaylistId = ? AND TrackId = ?", number, track)
        else:
            other = self.one("Playlist", "PlaylistId")
            self.do("UPDATE OR IGNORE PlaylistTrack SET PlaylistId = ? WHERE TrackId = ?", other, track)

    kinds: ClassVar[dict[str, int]] = {
        "artist": 5, "album": 8, "genre": 3, "track": 25, "duration": 8, "media": 5, "customer": 12, "moved": 12,
        "invoice": 10, "employee": 4, "playlist": 10, "reborn": 2, "exchange": 2,
    }  # fmt: skip
    """The edits, and how often each is made."""


class NewEditor(Editor):
    """The new release of the application, on the new shape. It keeps what the old one cannot tell out of it:

    a country that no address has goes, and a media type has one name.
    """

    tracks_name = "title"
    staff = "staff"
    side = "green"

    def __init__(self, path: Path, seed: int, unused: frozenset[int] = frozenset()) -> None:
        super().__init__(path, seed)
        self.unused = unused

    def unused_media(self) -> frozenset[int]:
        return self.unused

    def tidy(self) -> None:
        self.do("DELETE FROM country WHERE NOT EXISTS (SELECT 1 FROM CustomerAddress AS a WHERE a.country_name = name)")

    def add_track(self, number: int) -> None:
        media = self.one("Track", "MediaTypeId") or max(self.unused, default=0) + 1
        found = self.do("SELECT media_type FROM Track WHERE MediaTypeId = ?", media).fetchone()
        self.do(
            "INSERT INTO Track (TrackId, title, MediaTypeId, media_type, Composer, duration_s, UnitPrice)"
            " VALUES (?, ?, ?, ?, ?, ?, 0.99)",
            *(number, self.word(False), media, found[0] if found else "first", self.word(), self.seconds()),
        )

    def seconds(self) -> float:
        """Mostly more than the old shape can hold."""
        return round(self.chance.uniform(0, 10_000), self.chance.choice([0, 2, 4, 4, 4]))

    def duration(self) -> None:
        number = self.one("Track", "TrackId")
        if self.chance.random() < 0.3:
            self.do("UPDATE Track SET duration_s = duration_s + 0.0001 WHERE TrackId = ?", number)
        else:
            self.do("UPDATE Track SET duration_s = ? WHERE TrackId = ?", self.seconds(), number)

    def media(self) -> None:
        number, roll = self.one("Track", "MediaTypeId"), self.chance.random()
        track = self.one("Track", "TrackId")
        if roll < 0.1:
            self.do("UPDATE Track SET media_type = ? WHERE MediaTypeId = ?", self.word(), number)
        elif roll < 0.8:
            (name,) = self.do("SELECT media_type FROM Track WHERE MediaTypeId = ?", number).fetchone()
            self.do("UPDATE Track SET MediaTypeId = ?, media_type = ? WHERE TrackId = ?", number, name, track)
        else:
            highest = max(self.do("SELECT MAX(MediaTypeId) FROM Track").fetchone()[0], *self.unused, 0)
            self.do(
                "UPDATE Track SET MediaTypeId = ?, media_type = ? WHERE TrackId = ?", highest + 1, self.word(), track
            )

    def put_address(self, number: int, parts: list[Any]) -> None:
        """A row where there is something to tell, none where there is not; the old shape knows no other."""
        country = parts[3]
        if country is not None:
            self.do("INSERT OR IGNORE INTO country (name) VALUES (?)", country)
        if all(part is None for part in parts):
            self.do("DELETE FROM CustomerAddress WHERE CustomerId = ?", number)
            return
        self.do(
            "UPDATE CustomerAddress SET Address = ?, City = ?, State = ?, country_name = ?, PostalCode = ?"
            " WHERE CustomerId = ?",
            *(*parts, number),
        )
        self.do("INSERT OR IGNORE INTO CustomerAddress VALUES (?, ?, ?, ?, ?, ?)", number, *parts)

    def drop_customer(self, number: int) -> None:
        self.do("DELETE FROM CustomerAddress WHERE CustomerId = ?", number)
        super().drop_customer(number)

    def renumber(self, number: int, other: int) -> None:
        if self.do("SELECT 1 FROM Invoice WHERE CustomerId = ?", number).fetchone() is None:
            self._db.execute("PRAGMA defer_foreign_keys = ON")
            self.do("UPDATE Customer SET CustomerId = ? WHERE CustomerId = ?", other, number)
            self.do("UPDATE CustomerAddress SET CustomerId = ? WHERE CustomerId = ?", other, number)

    def only_new(self) -> None:
        """What only this shape has: a playlist's cover, a country's region."""
        number = self.one("Playlist", "PlaylistId")
        self.do("UPDATE Playlist SET cover = ? WHERE PlaylistId = ?", self.word(), number)
        self.do("UPDATE country SET region = ? WHERE name = ?", self.word(False), self.chance.choice(COUNTRIES))

    kinds: ClassVar[dict[str, int]] = {**Editor.kinds, "only_new": 4}
