"""Sync and verify between two SQLite files, through a crossing both ways, while they are in use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dbsync.errors import Refused
from dbsync.etl import Crossing, table
from dbsync.model import MismatchKind
from dbsync.sync import snapshot
from dbsync.sync.run import follow
from dbsync.verify.run import recheck
from tests.unit.sync.files import OLD, Files


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    made.dispose()


def test_a_snapshot_and_windows_go_through_the_crossing(files: Files) -> None:
    files.customers(300)
    files.write('INSERT INTO "order line" VALUES (?, 1, 1.5, ?)', "Ünter", b"\x00\xff")
    pump = files.pump()
    assert pump.ensure_snapshot() == {"tables": 3, "rows": 601}
    files.write("UPDATE Customer SET LastName = 'Stone' WHERE CustomerId = 7")
    files.write("DELETE FROM Customer WHERE CustomerId = 8")
    files.write("UPDATE Customer SET CustomerId = 900 WHERE CustomerId = 9")
    files.write('UPDATE "order line" SET price = 2 WHERE place = 1')
    pump.drain()
    assert files.rows("green", "SELECT FullName FROM customer WHERE CustomerId = 7") == [("Mary Ann 7 Stone",)]
    assert files.rows("green", "SELECT count(*) FROM address WHERE CustomerId IN (8, 9, 900)") == [(1,)]
    found = files.verify()
    assert found.equal and found.receipt is not None, found


def test_a_key_that_only_changes_its_case_stays_one_row(files: Files) -> None:
    files.write('INSERT INTO "order line" VALUES (?, 1, 1, NULL)', "abc")
    pump = files.pump()
    pump.ensure_snapshot()
    files.write('UPDATE "order line" SET "Größe" = ?', "ABC")
    pump.drain()
    assert files.rows("green", 'SELECT "Größe" FROM "order line"') == [("ABC",)]
    assert files.verify().equal


def test_a_unique_value_moves_between_rows_and_to_a_new_one(files: Files) -> None:
    files.customers(4)
    pump = files.pump()
    pump.ensure_snapshot()
    files.write("UPDATE Customer SET Email = 'x' WHERE CustomerId = 1")
    files.write("UPDATE Customer SET Email = '1@example.org' WHERE CustomerId = 2")
    files.write("UPDATE Customer SET Email = '2@example.org' WHERE CustomerId = 1")
    files.write("DELETE FROM Customer WHERE CustomerId = 3")
    files.write("INSERT INTO Customer VALUES (30, 'a', 'b', '3@example.org', NULL)")
    pump.drain()
    assert files.verify().receipt is not None


def test_a_copy_that_dies_in_the_middle_goes_on_and_converges(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_ROWS", 50)
    files.customers(400)
    pump = files.pump()
    beats = []

    def pulse() -> None:
        beats.append(1)
        if len(beats) == 5:
            raise KeyboardInterrupt

    pump.pulse = pulse
    with pytest.raises(KeyboardInterrupt):
        pump.ensure_snapshot()
    copied = files.rows("green", "SELECT (SELECT count(*) FROM customer) + (SELECT count(*) FROM address)")[0][0]
    assert isinstance(copied, int) and 0 < copied < 800
    files.write("UPDATE Customer SET FirstName = 'Changed' WHERE CustomerId IN (1, 399)")
    files.write("DELETE FROM Customer WHERE CustomerId = 2")
    again = files.pump().ensure_snapshot()
    assert again is not None and again["rows"] in (798 - copied, 799 - copied)
    files.pump().drain()
    assert files.verify().receipt is not None


def test_large_chunks_are_copied_with_capture_asleep_and_it_is_awake_afterwards(files: Files) -> None:
    files.customers(3000)
    pump = files.pump()
    pump.ensure_snapshot()
    recorded = files.rows("green", "SELECT count(*) FROM dbsync_changes")[0][0]
    assert isinstance(recorded, int) and recorded < 6000
    files.tamper("DELETE FROM customer WHERE CustomerId = 5")
    after = files.rows("green", "SELECT count(*) FROM dbsync_changes")[0][0]
    assert after == recorded + 1
    found = files.verify()
    assert [(t.name, t.missing) for t in found.tables if not t.equal] == [("customer", 1)]


def test_one_changed_byte_is_found_named_and_mended(files: Files) -> None:
    files.customers(2000)
    files.write('INSERT INTO "order line" VALUES (?, 1, 1.5, ?)', "a", b"\x00" * 5000 + b"\x01")
    files.pump().ensure_snapshot()
    assert files.verify().receipt is not None
    files.tamper('UPDATE "order line" SET picture = ?', b"\x00" * 5000 + b"\x02")
    files.tamper("UPDATE customer SET FullName = 'Mary Ann 1234 berg' WHERE CustomerId = 1234")
    files.tamper("INSERT INTO address VALUES (-4, 'nowhere')")
    found = files.verify()
    named = {(m.table, m.key, m.kind) for t in found.tables for m in t.keys}
    assert named == {
        ("order line", ("a", 1), MismatchKind.DIFFERENT),
        ("customer", (1234,), MismatchKind.DIFFERENT),
        ("address", (-4,), MismatchKind.EXTRA),
    }
    assert not found.equal and found.receipt is None
    assert files.verify(repair=True).equal
    assert files.verify().receipt is not None


def test_a_crossing_that_drops_rows_is_found_by_counting_the_table_that_drives_it(files: Files) -> None:
    files.customers(3)
    select = "SELECT CustomerId, FirstName || ' ' || LastName AS FullName, Email FROM Customer WHERE CustomerId <> 2"
    files.crossed.forward = Crossing(table("customer", key={"Customer": "CustomerId"}, select=select))
    with pytest.raises(Refused) as refused:
        files.pump().ensure_snapshot(["customer"])
    assert refused.value.code == "crossing-cardinality"


def test_after_a_handover_a_lossy_name_survives_and_counts_as_lossy_not_as_different(files: Files) -> None:
    files.customers(5)
    files.pump().ensure_snapshot()
    receipt = files.verify().receipt
    assert receipt is not None
    files.hand_over()
    files.write("UPDATE customer SET Email = 'new' WHERE CustomerId = 1")
    files.write("UPDATE customer SET FullName = 'Mono' WHERE CustomerId = 2")
    files.write("UPDATE address SET Street = 'moved' WHERE CustomerId = 3")
    done = files.pump().drain()
    assert done.snapshot is None
    found = files.rows("blue", "SELECT CustomerId, FirstName, LastName, Email, Street FROM Customer LIMIT 3")
    assert found[0] == (1, "Mary Ann 1", "Berg", "new", "street 1")
    assert found[2] == (3, "Mary Ann 3", "Berg", "3@example.org", "moved")
    verified = files.verify()
    # 'Mono' comes back as ('Mono', ''), and goes over again as 'Mono ': declared, so lossy.
    assert verified.equal, verified
    assert {t.name: t.lossy for t in verified.tables}["customer"] == 1
    assert verified.receipt is not None


def test_an_older_side_that_was_tampered_with_is_found_and_mended(files: Files) -> None:
    files.customers(5)
    files.pump().ensure_snapshot()
    files.hand_over()
    files.tamper("UPDATE Customer SET Street = 'wrong' WHERE CustomerId = 4")
    files.tamper("DELETE FROM Customer WHERE CustomerId = 5")
    files.tamper("INSERT INTO Customer VALUES (77, 'x', 'y', 'z', 'w')")
    found = files.verify()
    assert {t.name: (t.missing, t.extra, t.different) for t in found.tables} == {
        "customer": (1, 1, 0), "address": (1, 1, 1), "order line": (0, 0, 0),
    }  # fmt: skip
    assert files.verify(repair=True).equal
    assert files.verify().receipt is not None
    assert files.rows("blue", "SELECT FirstName, LastName FROM Customer WHERE CustomerId = 4") == [
        ("Mary Ann 4", "Berg")
    ]


def test_no_difference_is_seen_under_concurrent_writes_with_a_follower(files: Files) -> None:
    files.customers(3000)
    files.pump().ensure_snapshot()
    stop, written = threading.Event(), []

    def write() -> None:
        n = 0
        with files.application("blue") as connection:
            connection.execute("PRAGMA synchronous = OFF")
            while not stop.wait(0.002):
                n += 1
                key = n * 37 % 3000 + 1
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE Customer SET LastName = ? WHERE CustomerId = ?", (f"v{n}", key))
                if n % 10 == 0:
                    connection.execute("DELETE FROM Customer WHERE CustomerId = ?", (key,))
                    connection.execute("INSERT INTO Customer VALUES (?, 'n', 'm', ?, NULL)", (10_000 + n, f"n{n}"))
                connection.execute("COMMIT")
                written.append(n)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(write), threads.submit(follow, files.pump, files.clock, 0.01, stop.is_set)]
        try:
            found = [files.verify() for _ in range(4)]
        finally:
            stop.set()
    for thread in running:
        thread.result()
    assert all(one.equal and one.receipt is not None for one in found), found
    assert len(written) > 100
    receipt = found[0].receipt
    assert receipt is not None
    files.pump().drain()
    checked = recheck(files.active, files.idle, files.lens(), receipt["position"], receipt["idle_position"])
    assert (checked.mismatches, checked.hot, checked.foreign) == ((), 0, 0)
    assert checked.keys > 0


def test_types_that_a_column_gives_to_values_are_not_differences(tmp_path: Path) -> None:
    shape = OLD.replace("price NUMERIC", "price TEXT").replace("r1", "r2")
    files = Files(tmp_path, (OLD.replace("r1", "r2"), shape))
    files.write('INSERT INTO "order line" VALUES (?, 1, 1.50, NULL)', "a")
    files.write('INSERT INTO "order line" VALUES (?, 2, 7, NULL)', "a")
    files.pump().ensure_snapshot()
    assert files.rows("green", 'SELECT price FROM "order line"') == [("1.5",), ("7",)]
    assert files.verify().receipt is not None
    files.dispose()
