"""The whole road on a database that was there before dbsync came, over the command line, without a router.

What the databases should hold is worked out here in plain Python, never by a crossing's SQL.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.shelf import Shelf
from tests.conftest import Eventually

OLD = """
CREATE TABLE [Desk] ([DeskId] INTEGER NOT NULL, [Head] INTEGER, [Name] NVARCHAR(40),
  CONSTRAINT [PK_Desk] PRIMARY KEY ([DeskId]), FOREIGN KEY ([Head]) REFERENCES [Desk] ([DeskId]));
CREATE TABLE [Reader] ([ReaderId] INTEGER NOT NULL, [First] NVARCHAR(40) NOT NULL, [Last] NVARCHAR(20) NOT NULL,
  [Mail] NVARCHAR(60) NOT NULL, [Street] NVARCHAR(70), [City] NVARCHAR(40), [DeskId] INTEGER,
  CONSTRAINT [PK_Reader] PRIMARY KEY ([ReaderId]), FOREIGN KEY ([DeskId]) REFERENCES [Desk] ([DeskId]));
CREATE TABLE [Piece] ([PieceId] INTEGER NOT NULL, [Title] NVARCHAR(200) NOT NULL, [Millis] INTEGER NOT NULL,
  [Price] NUMERIC(10,2) NOT NULL, CONSTRAINT [PK_Piece] PRIMARY KEY ([PieceId]));
CREATE TABLE [Pick] ([ReaderId] INTEGER NOT NULL, [PieceId] INTEGER NOT NULL,
  CONSTRAINT [PK_Pick] PRIMARY KEY ([ReaderId], [PieceId]),
  FOREIGN KEY ([ReaderId]) REFERENCES [Reader] ([ReaderId]), FOREIGN KEY ([PieceId]) REFERENCES [Piece] ([PieceId]));
CREATE INDEX [PickPiece] ON [Pick] ([PieceId]);
"""

REVISIONS = {
    "0002_address.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.create_table(
        "Address",
        sa.Column("ReaderId", sa.Integer, sa.ForeignKey("Reader.ReaderId"), primary_key=True),
        sa.Column("Street", sa.Unicode(70)),
        sa.Column("City", sa.Unicode(40)),
    )
    op.execute("INSERT INTO Address SELECT ReaderId, Street, City FROM Reader")
    with op.batch_alter_table("Reader") as batch:
        batch.drop_column("Street")
        batch.drop_column("City")
def downgrade():
    raise NotImplementedError
""",
    "0003_duration.py": """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade():
    with op.batch_alter_table("Piece") as batch:
        batch.add_column(sa.Column("duration_s", sa.Float, nullable=False, server_default="0"))
        batch.add_column(sa.Column("mood", sa.Text, nullable=False, server_default="calm"))
    op.execute("UPDATE Piece SET duration_s = Millis / 1000.0")
    with op.batch_alter_table("Piece") as batch:
        batch.drop_column("Millis")
def downgrade():
    raise NotImplementedError
""",
}

ADDRESS = """
from dbsync.etl import Crossing, table
forward = Crossing(
    table("Reader", key={"Reader": "ReaderId"}, select="SELECT ReaderId, First, Last, Mail, DeskId FROM Reader"),
    table("Address", key={"Reader": "ReaderId"}, CARDINALITY
          select="SELECT ReaderId, Street, City FROM Reader WHERECLAUSE"),
)
reverse = Crossing(
    table("Reader", key={"Reader": "ReaderId", "Address": "ReaderId"}, select='''
        SELECT r.ReaderId, r.First, r.Last, r.Mail, a.Street, a.City, r.DeskId
        FROM Reader AS r LEFT JOIN Address AS a ON a.ReaderId = r.ReaderId'''),
)
"""
STRICT = ADDRESS.replace("CARDINALITY", "").replace("WHERECLAUSE", "")
LOOSE = ADDRESS.replace("CARDINALITY", 'cardinality="1:0..1",').replace(
    "WHERECLAUSE", "WHERE coalesce(Street, City) IS NOT NULL"
)

DURATION = """
from dbsync.etl import Crossing, table
forward = Crossing(
    table("Piece", key={"Piece": "PieceId"},
          select="SELECT PieceId, Title, Millis / 1000.0 AS duration_s, Price FROM Piece"),
)
reverse = Crossing(
    table("Piece", key={"Piece": "PieceId"},
          select="SELECT PieceId, Title, CAST(round(duration_s * 1000) AS INTEGER) AS Millis, Price FROM Piece",
          loses={"Millis": "parts of a millisecond"}),
)
"""
PICKS, READERS, PIECES = 300, 60, 80


def old_library(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
        connection.executemany("INSERT INTO Desk VALUES (?, ?, ?)", [(1, None, "Leitung"), (2, 1, "Ost"), (3, 2, None)])
        connection.executemany(
            "INSERT INTO Reader VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (n, "Mary Ann" if n % 3 else "Zoë", f"O'Neil {n}", f"{n}@old", f"Straße {n}", "Köln", n % 3 + 1)
                for n in range(1, READERS + 1)
            ],
        )
        connection.executemany(
            "INSERT INTO Piece VALUES (?, ?, ?, ?)",
            [(n, f"Stück {n}", 200_000 + n * 7, "0.99") for n in range(1, PIECES + 1)],
        )
        connection.executemany(
            "INSERT INTO Pick VALUES (?, ?)", [(n % READERS + 1, n // READERS * 9 + n % 9 + 1) for n in range(PICKS)]
        )
    connection.close()


@pytest.fixture
def library(tmp_path: Path) -> Shelf:
    """A library of the old shape in blue, which dbsync has never seen."""
    shelf = Shelf(tmp_path)
    old_library(tmp_path / "blue.db")
    return shelf


def adopt(shelf: Shelf) -> None:
    """blue is taken as it is, green gets the same schema by hand, and follows."""
    shelf.dbsync("init --active blue")
    shelf.dbsync("migrate --target blue --stamp 0001")
    shelf.copy_schema("blue", "green")
    shelf.dbsync("migrate --target green --stamp 0001")
    shelf.dbsync("sync --once")


def widen(shelf: Shelf, address: str) -> None:
    """Both revisions and their crossings, green at the newer one."""
    shelf.write("migrations/versions", REVISIONS)
    shelf.write("etl", {"0002_address.py": address, "0003_duration.py": DURATION})
    shelf.dbsync("migrate --target idle")
    shelf.dbsync("sync --once")


@dataclass
class Customer:
    """An application that writes where it is let, follows a refusal to the other side, and keeps a ledger."""

    shelf: Shelf
    live: str = "blue"
    mails: dict[int, str] = field(default_factory=dict)
    written: int = 0
    refused: int = 0
    odd: list[str] = field(default_factory=list)

    @contextmanager
    def busy(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            reader, mail = number % READERS + 1, f"{number}@new"
            try:
                with self.shelf.application(self.live) as connection:
                    connection.execute("UPDATE Reader SET Mail = ? WHERE ReaderId = ?", (mail, reader))
                self.mails[reader] = mail
                self.written += 1
            except sqlite3.Error as error:
                if not str(error).startswith("dbsync:"):
                    self.odd.append(str(error))
                self.refused += 1
                self.live = "green" if self.live == "blue" else "blue"
            stop.wait(0.004)


CHANGES = """
UPDATE Reader SET Mail = 'mary@new' WHERE ReaderId = 1;
UPDATE Reader SET First = 'Mary Ann', Last = 'von Berg' WHERE ReaderId = 2;
UPDATE Address SET City = 'Ülm', Street = NULL WHERE ReaderId = 3;
INSERT INTO Reader VALUES (101, 'Neu', 'Kunde', 'n@new', 3);
INSERT INTO Address VALUES (101, 'Am Ring 1', 'Bonn');
UPDATE Desk SET Head = 3 WHERE DeskId = 1;
UPDATE Desk SET Head = NULL WHERE DeskId = 2;
DELETE FROM Pick WHERE PieceId = 5;
DELETE FROM Piece WHERE PieceId = 5;
UPDATE Pick SET ReaderId = 101 WHERE ReaderId = 7;
UPDATE Piece SET duration_s = 343.7195 WHERE PieceId = 1;
UPDATE Piece SET duration_s = 100.25, mood = 'wild' WHERE PieceId = 2;
INSERT INTO Piece (PieceId, Title, duration_s, Price) VALUES (901, 'Kurz', 0.0004, 1.5);
"""
"""What the application does on green: two of these durations do not fit into whole milliseconds."""


def test_an_old_database_goes_over_under_load_and_comes_back_with_only_what_it_can_hold(
    library: Shelf, eventually: Eventually
) -> None:
    adopt(library)
    widen(library, LOOSE)
    customer = Customer(library)
    with library.follower(), customer.busy():
        eventually(lambda: library.dbsync("status")["follower"] == "running", 15)
        assert library.dbsync("verify")["equal"]
        foreseen = library.dbsync("cutover --dry-run")
        assert foreseen["dry_run"]
        assert foreseen["loses"] == [{"table": "Piece", "column": "Millis", "reason": "parts of a millisecond"}]
        gone = library.dbsync("cutover")
        assert (gone["from"], gone["to"], gone["epoch"]) == ("blue", "green", 2)
        assert (gone["route_confirmed"], gone["warnings"]) == ([], ["no-router"])
        before = customer.written
        eventually(lambda: customer.live == "green" and customer.written > before + 10, 20)
        eventually(lambda: library.dbsync("status")["next"] is None, 20)
    assert customer.odd == []
    assert customer.refused
    assert before
    mails = dict(library.rows("green", "SELECT ReaderId, Mail FROM Reader"))
    assert {n: mails[n] for n in customer.mails} == customer.mails

    readers = {row[0]: row for row in library.rows("blue", "SELECT * FROM Reader")}
    pieces = {row[0]: row for row in library.rows("blue", "SELECT * FROM Piece")}
    with library.application("green") as connection:
        connection.executescript(CHANGES)
    library.dbsync("sync --once")

    for line in ("rollback --dry-run", "rollback"):
        refusal = library.error(line)
        assert refusal["code"] == "loss"
        assert "in 2 rows" in refusal["blockers"][0]["found"]
    assert library.error("rollback --accept-loss", 2)["code"] == "confirmation-needed"
    back = library.dbsync("rollback --accept-loss --yes")
    assert (back["from"], back["to"]) == ("green", "blue")
    assert [loss["rows"] for loss in back["losses"] if loss["policy"] == "refuse"] == [2]

    for n, mail in mails.items():
        readers[n] = (*readers[n][:3], mail, *readers[n][4:])
    readers[1] = (*readers[1][:3], "mary@new", *readers[1][4:])
    readers[2] = (2, "Mary Ann", "von Berg", *readers[2][3:])
    readers[3] = (*readers[3][:4], None, "Ülm", readers[3][6])
    readers[101] = (101, "Neu", "Kunde", "n@new", "Am Ring 1", "Bonn", 3)
    del pieces[5]
    pieces[1] = (1, "Stück 1", 343_720, pieces[1][3])
    pieces[2] = (2, "Stück 2", 100_250, pieces[2][3])
    pieces[901] = (901, "Kurz", 0, 1.5)
    assert library.rows("blue", "SELECT * FROM Reader ORDER BY 1") == [readers[n] for n in sorted(readers)]
    assert library.rows("blue", "SELECT * FROM Piece ORDER BY 1") == [pieces[n] for n in sorted(pieces)]
    assert library.rows("blue", "SELECT * FROM Desk ORDER BY 1") == [(1, 3, "Leitung"), (2, None, "Ost"), (3, 2, None)]
    picks = library.rows("blue", "SELECT * FROM Pick ORDER BY 1, 2")
    assert picks == library.rows("green", "SELECT * FROM Pick ORDER BY 1, 2")
    assert 101 in {reader for reader, _ in picks}
    assert not {7} & {reader for reader, _ in picks}

    assert library.dbsync("verify")["equal"]
    library.dbsync("cutover")
    assert library.rows("green", "SELECT mood FROM Piece WHERE PieceId IN (1, 2, 901) ORDER BY PieceId") == [
        ("calm",),
        ("wild",),
        ("calm",),
    ]
    status = library.dbsync("status")
    assert (status["active"], status["epoch"], status["phase"]) == ("green", 4, "following")
    assert status["revisions"] == {"blue": "0001", "green": "0003"}
    assert status["next"] == "dbsync sync"
    assert library.dbsync("verify")["next"] == "dbsync status"
    assert [one["kind"] for one in library.dbsync("history")["entries"]].count("completed") == 3


def test_a_row_that_the_older_shape_cannot_tell_is_named_and_no_repair_is_promised(library: Shelf) -> None:
    adopt(library)
    widen(library, STRICT)
    library.dbsync("verify")
    library.dbsync("cutover")
    with library.application("green") as connection:
        connection.execute("DELETE FROM Address WHERE ReaderId = 4")
    library.dbsync("sync --once")
    assert library.error("rollback")["blockers"][0]["code"] == "not-verified"
    found = library.dbsync("verify --repair", 4)
    (address,) = [one for one in found["tables"] if one["name"] == "Address"]
    assert address["keys"] == [{"key": [4], "kind": "extra"}]
    assert "beyond-repair" in found["warnings"]
    # The remedy is the crossing: a reader without an address is one whose address is empty.
    library.write("etl", {"0002_address.py": LOOSE})
    library.dbsync("sync --once")
    assert library.dbsync("verify")["equal"]
    library.dbsync("rollback")
    assert library.rows("blue", "SELECT Street, City FROM Reader WHERE ReaderId = 4") == [(None, None)]


def test_an_empty_idle_side_never_becomes_active(library: Shelf) -> None:
    library.dbsync("init --active blue")
    (library.folder / "migrations/versions/0001_adopted.py").unlink()
    for line in ("sync --once", "sync", "cutover", "cutover --dry-run", "migrate --target idle"):
        assert library.error(line)["code"] == "schema-missing", line
    assert library.error("verify")["code"] in ("schema-missing", "no-snapshot")
    status = library.dbsync("status")
    assert not status["ready"]
    assert (status["blockers"][0]["code"], status["next"]) == ("schema-missing", "dbsync migrate --target idle")
    library.write(
        "migrations/versions", {"0001_adopted.py": "revision, down_revision = '0001', None\ndef upgrade(): ..."}
    )
    told = library.error("migrate --target idle")
    assert told["code"] == "schema-missing"
    assert "--target blue --stamp" in told["remedy"]
    library.dbsync("migrate --target blue --stamp 0001")
    assert library.error("sync --once")["code"] == "schema-missing"
    assert library.error("cutover")["code"] == "schema-missing"
    assert library.dbsync("status")["active"] == "blue"


@pytest.mark.parametrize(
    ("lack", "named"),
    [("DROP TABLE Pick", "table Pick"), ("ALTER TABLE Reader DROP COLUMN City", "column Reader.City")],
)
def test_what_the_idle_side_has_no_place_for_at_the_same_revision_is_refused(
    library: Shelf, lack: str, named: str
) -> None:
    adopt(library)
    library.dbsync("verify")
    with sqlite3.connect(library.folder / "green.db") as connection:
        connection.execute(lack)
    connection.close()
    for line in ("sync --once", "verify", "cutover"):
        refusal = library.error(line)
        assert refusal["code"] == "schema-missing"
        assert named in refusal["message"]


def test_a_base_revision_that_creates_the_tables_gives_the_idle_side_its_shape(library: Shelf) -> None:
    made = [line for line in OLD.strip().split(";\n") if line]
    body = "\n".join(f"    op.execute({statement!r})" for statement in made)
    library.write(
        "migrations/versions",
        {
            "0001_adopted.py": "from alembic import op\nrevision, down_revision = '0001', None\n"
            f"def upgrade():\n{body}\ndef downgrade(): ..."
        },
    )
    library.dbsync("init --active blue")
    library.dbsync("migrate --target blue --stamp 0001")
    assert library.dbsync("migrate --target idle")["ran"] == ["0001"]
    copied = library.dbsync("sync --once")["snapshot"]
    assert copied == {"tables": 4, "rows": PICKS + READERS + PIECES + 3}
    verified = library.dbsync("verify")
    assert verified["equal"]
    assert verified["receipt"]["valid"]
    for table in ("Desk", "Reader", "Piece", "Pick"):
        assert (
            len({tuple(sorted(library.rows(side, f"SELECT * FROM {table}"), key=repr)) for side in ("blue", "green")})
            == 1
        )
