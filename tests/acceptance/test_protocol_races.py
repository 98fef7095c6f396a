"""Races at the cede and the checkpoint, inside one process where the order can be forced (protocol, section 8)."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from dbsync.adapters.sqlite import guard as guards
from dbsync.cutover.resolve import resolve
from dbsync.errors import DbsyncError, PositionLost, Refused, Unavailable
from dbsync.model import GuardState
from tests.acceptance.protocol_rig import until
from tests.acceptance.protocol_road import ONE, Road, road

WORD = "CREATE TABLE word (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT);"


@pytest.fixture
def words(tmp_path: Path) -> Iterator[Road]:
    made = road(tmp_path, ONE + WORD)
    made.write("INSERT INTO word (text) VALUES ('first')")
    made.synced()
    yield made
    made.dispose()


# --- 3 -------------------------------------------------------------------------------------------


def test_a_window_that_arrives_after_a_later_one_is_not_applied(words: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol test 3: windows delivered swapped: the one read earlier comes later, and must not win."""
    slow, fast = words.pump(), words.pump()
    words.write("UPDATE word SET text = 'older image' WHERE id = 1")
    real = slow.writing

    @contextlib.contextmanager
    def late() -> Iterator[Any]:
        monkeypatch.setattr(slow, "writing", real)
        words.write("UPDATE word SET text = 'newer image' WHERE id = 1")
        fast.drain()
        with real() as tx:
            yield tx

    slow.suspect = False
    monkeypatch.setattr(slow, "writing", late)
    slow.step()
    assert words.rows("green", "SELECT text FROM word WHERE id = 1") == [("newer image",)]


def test_two_loaders_at_once_leave_what_one_would_have(words: Road) -> None:
    """Protocol test 3: two appliers of one link under writes."""
    stop = threading.Event()

    def load() -> None:
        pump = words.pump()
        while not stop.is_set():
            pump.step(limit=3)

    with ThreadPoolExecutor(2) as pool:
        loaders = [pool.submit(load) for _ in range(2)]
        for n in range(150):
            words.write("INSERT INTO word (text) VALUES (?)", f"w{n}")
            words.write("UPDATE word SET text = text || '.' WHERE id % 7 = ?", n % 7)
        stop.set()
        for loader in loaders:
            with contextlib.suppress(Unavailable):  # one that was always the slower one
                loader.result(30)
    words.pump().drain()
    every = "SELECT id, text FROM word ORDER BY id"
    assert words.rows("green", every) == words.rows("blue", every)
    assert words.verify().equal


# --- 6 -------------------------------------------------------------------------------------------


class Straggler:
    """A writer that has begun and not committed when the fence is asked for."""

    def __init__(self, words: Road) -> None:
        self.asked, self.begun, self.left = threading.Event(), threading.Event(), threading.Event()
        old: Any = words.active
        real = old.fence

        def fence(*given: Any) -> Any:
            self.asked.set()
            assert self.begun.wait(20)
            try:
                return real(*given)
            finally:
                self.left.set()

        old.fence = fence

    def insert(self, writer: sqlite3.Connection, mode: str) -> None:
        """Begin, once the walk has come to the fence."""
        assert self.asked.wait(20)
        writer.execute(f"BEGIN {mode}")
        writer.execute("INSERT INTO word (text) VALUES ('W')")
        self.begun.set()


@pytest.mark.parametrize("mode", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_a_writer_open_across_the_fence_is_waited_for_and_carried_over(words: Road, mode: str) -> None:
    """Protocol test 6: an insert that is not committed when the fence is asked for, in each kind of transaction."""
    straggler = Straggler(words)
    with words.application("blue") as writer, ThreadPoolExecutor(1) as pool:
        done = pool.submit(words.cut)
        straggler.insert(writer, mode)
        assert not straggler.left.wait(0.1), "the fence stands although a writer is in flight"
        writer.execute("COMMIT")
        assert done.result(20).to == "green"
    assert words.rows("green", "SELECT text FROM word WHERE text = 'W'") == [("W",)]


def test_a_transaction_that_read_before_the_fence_cannot_write_after_it(words: Road) -> None:
    """Protocol test 6: a deferred transaction keeps its snapshot, and may not upgrade it past the fence."""
    with words.application("blue") as writer:
        writer.execute("BEGIN")
        assert writer.execute("SELECT count(*) FROM word").fetchone() == (1,)
        words.active.fence(1, "test", 5.0, 1.0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("INSERT INTO word (text) VALUES ('W')")
    assert words.rows("blue", "SELECT count(*) FROM word") == [(1,)]


def test_a_writer_that_does_not_end_costs_the_cutover_and_nothing_else(words: Road) -> None:
    """Protocol test 6: `drain-timeout`, undone."""
    straggler = Straggler(words)
    with words.application("blue") as writer, ThreadPoolExecutor(1) as pool:
        done = pool.submit(words.cut, max_pause=0.5)
        straggler.insert(writer, "IMMEDIATE")
        assert straggler.left.wait(10)
        writer.execute("COMMIT")
        with pytest.raises(Unavailable) as refused:
            done.result(20)
    assert refused.value.code == "drain-timeout"
    assert words.databases["blue"].guard().state is GuardState.OPEN
    assert words.rows("blue", "SELECT text FROM word WHERE text = 'W'") == [("W",)]


# --- 7 -------------------------------------------------------------------------------------------


class Late:
    """A cede that has passed every check, and commits when it is told to."""

    def __init__(self, words: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words = words
        self.checked, self.commit = threading.Event(), threading.Event()
        self.old = words.active
        self.fenced = self.old.fence(1, "host:1:1:test", 0.4, 1.0)
        with self.old.view() as view:
            self.final = view.position()
        words.pump().drain(self.final)
        self.print = self.old.fingerprint()
        self.zombie: SqliteDatabase = SqliteDatabase("blue", f"sqlite:///{words.folder}/blue.db")
        real = guards.fingerprint

        def slow(connection: sqlite3.Connection) -> str:
            found = real(connection)
            self.checked.set()
            assert self.commit.wait(20)
            return found

        monkeypatch.setattr(guards, "fingerprint", slow)

    def cede(self) -> None:
        """As the coordinator would; then it is gone."""
        self.zombie.cede(self.fenced, self.final, self.print, "green")
        self.zombie.dispose()


@pytest.mark.parametrize("want", ["resume", "abort"])
def test_a_resolver_waits_out_a_cede_whose_commit_is_late(
    words: Road, monkeypatch: pytest.MonkeyPatch, want: str
) -> None:
    """Protocol test 7: abort and resume against a delayed COMMIT: nobody decides before it has landed."""
    late = Late(words, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        ceding = pool.submit(late.cede)
        assert late.checked.wait(5)
        resolving = pool.submit(resolve, words.world(), want, True)
        until(lambda: words.active.guard().fence_left < -0.3)  # type: ignore[operator, union-attr]
        assert not resolving.done(), "it decided while the commit was on its way"
        late.commit.set()
        ceding.result(10)
        if want == "abort":
            with pytest.raises(Refused) as refused:
                resolving.result(10)
            assert refused.value.code == "past-no-return"
            resolve(words.world(), "resume")
        else:
            assert resolving.result(10).active == "green"
    words.turned()
    assert words.active.name == "green"


def test_a_cede_that_comes_after_an_abort_is_refused(words: Road) -> None:
    """Protocol test 7: the abort has raised the attempt: the coordinator that wakes now has lost."""
    old = words.active
    fenced = old.fence(1, "host:1:1:test", 10.0, 1.0)
    with old.view() as view:
        final = view.position()
    words.pump().drain(final)
    expected = old.fingerprint()
    assert resolve(words.world(), "abort", force=True).outcome == "aborted"
    again = old.fence(1, "host:1:1:test", 10.0, 1.0)  # the same owner, a second try
    with pytest.raises(Refused) as refused:
        old.cede(fenced, final, expected, "green")
    assert refused.value.code == "fence-lost"
    assert old.cede(again, final, expected, "green").state is GuardState.CEDED


# --- the tripwires of section 2 --------------------------------------------------------------------


@pytest.mark.parametrize("side", ["blue", "green"])
def test_a_trigger_that_slept_for_a_moment_before_the_fence_costs_the_cutover(words: Road, side: str) -> None:
    """Protocol, section 2: it was dropped and put back after the evidence was judged: nobody knows what passed."""
    old: Any = words.active
    real = old.fence

    def fence(*given: Any) -> Any:
        kind = "capture" if side == "blue" else "guard"
        with words.application(side) as connection:
            name, sql = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE ?", (f"dbsync_{kind}%i",)
            ).fetchone()
            connection.execute(f"DROP TRIGGER {name}")
            if side == "blue":
                connection.execute("INSERT INTO word (text) VALUES ('unseen')")
            connection.execute(sql)
        return real(*given)

    old.fence = fence
    with pytest.raises(DbsyncError) as refused:
        words.cut()
    assert refused.value.code == "guard-changed"
    assert words.rows("blue", "SELECT state, epoch FROM dbsync_guard") == [("open", 1)]


# --- 10 ------------------------------------------------------------------------------------------

AUDITED = (
    ONE
    + WORD
    + "CREATE TABLE tally (id INTEGER PRIMARY KEY, n INTEGER NOT NULL); INSERT INTO tally VALUES (1, 0);"
    + "CREATE TRIGGER counted AFTER INSERT ON word BEGIN UPDATE tally SET n = n + 1; END;"
)


def test_no_trigger_of_the_users_acts_twice_when_a_cutover_dies_before_its_cede(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol test 10: the idle side's triggers sleep until the opening, and nothing before the cede wakes them."""
    made = road(tmp_path, AUDITED)
    made.write("INSERT INTO word (text) VALUES ('one')")
    made.synced()

    class Died(BaseException):
        """The process is gone: nothing is undone."""

    def die(*_: Any) -> Any:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(made.active, "cede", die)
        patched.setattr("dbsync.cutover.run.undo", lambda *_: False)
        with pytest.raises(Died):
            made.cut()
    resolve(made.world(), "abort", force=True)
    made.write("INSERT INTO word (text) VALUES ('two')")
    made.pump().drain()  # the follower goes on
    assert made.rows("green", "SELECT n FROM tally") == made.rows("blue", "SELECT n FROM tally") == [(2,)]
    made.cut()
    made.write("INSERT INTO word (text) VALUES ('three')")
    made.pump().drain()
    assert made.rows("green", "SELECT n FROM tally") == made.rows("blue", "SELECT n FROM tally") == [(3,)]
    made.dispose()


def test_the_pause_does_the_same_work_whatever_the_tables_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocol test 10: counted in steps of the databases' virtual machine, from the fence to the opening."""
    counts = [_steps_of_a_pause(tmp_path / str(rows), rows, monkeypatch) for rows in (1_000, 60_000)]
    small, large = counts
    assert large <= small * 1.3, counts


def _steps_of_a_pause(folder: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> int:
    folder.mkdir()
    steps, counting = 0, False

    def tick() -> int:
        nonlocal steps
        steps += counting
        return 0

    from dbsync.adapters.sqlite import database as module

    real = module.connect

    def connect(path: Path, name: str) -> sqlite3.Connection:
        connection = real(path, name)
        connection.set_progress_handler(tick, 20)
        return connection

    monkeypatch.setattr(module, "connect", connect)
    made = road(folder, ONE + WORD)
    with made.application("blue") as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO word (text) SELECT 'w' FROM n",
            (rows,),
        )
    made.synced()
    for n in range(20):
        made.write("UPDATE word SET text = ? WHERE id = ?", f"changed {n}", n + 1)
    old: Any = made.active
    new: Any = made.idle
    fence, opening = old.fence, new.open

    def fenced(*given: Any) -> Any:
        nonlocal counting
        counting = True
        return fence(*given)

    def opened(*given: Any) -> Any:
        nonlocal counting
        try:
            return opening(*given)
        finally:
            counting = False

    old.fence, new.open = fenced, opened
    made.cut()
    made.dispose()
    assert steps > 0
    return steps


# --- 17 ------------------------------------------------------------------------------------------


def test_emptying_a_table_under_the_fence_is_refused(words: Road) -> None:
    """Protocol test 17: DELETE without WHERE, which SQLite would make into a truncation, fires the guard."""
    words.active.fence(1, "test", 5.0, 1.0)
    with words.application("blue") as connection:
        with pytest.raises(sqlite3.IntegrityError, match=r"^dbsync:"):
            connection.execute("DELETE FROM word")
        assert connection.execute("SELECT count(*) FROM word").fetchone() == (1,)


def test_traffic_on_an_excluded_table_neither_waits_nor_aborts_a_cutover(tmp_path: Path) -> None:
    """Protocol test 17: it goes on under the fence, moves no position, and is no reason to undo."""
    made = road(tmp_path, ONE + WORD + "CREATE TABLE audit (id INTEGER PRIMARY KEY, text TEXT);")
    for name in ("blue", "green"):
        made.databases[name].dispose()
        made.databases[name] = SqliteDatabase(name, f"sqlite:///{tmp_path}/{name}.db", exclude=("audit",))
        made.databases[name].install("blue")
    made.active, made.idle = made.databases["blue"], made.databases["green"]
    made.synced()
    old: Any = made.active
    real = old.cede

    def cede(*given: Any) -> Any:
        made.write("INSERT INTO audit (text) VALUES ('under the fence')", side="blue")
        return real(*given)

    old.cede = cede
    assert made.cut().to == "green"
    assert made.rows("blue", "SELECT count(*) FROM audit") == [(1,)]
    made.dispose()


# --- 18 ------------------------------------------------------------------------------------------


def test_a_copy_of_a_database_file_is_not_taken_for_it(words: Road) -> None:
    """Protocol test 18: a copy put in the place of the file."""
    path = words.folder / "blue.db"
    words.dispose()
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)
    with pytest.raises(PositionLost) as lost:
        words.cut()
    assert lost.value.code == "source-restored"
    assert words.databases["green"].guard().state is GuardState.CLOSED  # type: ignore[union-attr]


def test_a_backup_restored_into_the_same_file_is_another_past(words: Road) -> None:
    """Protocol test 18: the file is the same one, what it holds is not what was followed."""
    with words.application("blue") as live, contextlib.closing(sqlite3.connect(":memory:")) as kept:
        live.backup(kept)
        words.write("INSERT INTO word (text) VALUES ('followed')")
        words.pump().drain()
        kept.backup(live)
    for _ in range(3):  # as many changes as before, and more
        words.write("INSERT INTO word (text) VALUES ('another past')")
    for attempt in (lambda: words.pump().step(), words.cut):
        with pytest.raises(DbsyncError) as lost:
            attempt()
        assert lost.value.code == "source-restored" or "lag-unknown" in {
            b.code for b in getattr(lost.value, "blockers", ())
        }
    assert words.rows("green", "SELECT count(*) FROM word WHERE text = 'another past'") == [(0,)]
