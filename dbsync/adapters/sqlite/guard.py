"""The guard row of a SQLite file and its transitions; each is one transaction that reads under the write lock.

docs/protocol.md has the rules. Times are compared by the database's clock only, and only for liveness: whether
the cede may happen rests on the position, the fingerprint, the epoch, the attempt and the owner.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbsync.adapters.sqlite.catalog import has_table, is_autoincrement, read_catalog, read_revision
from dbsync.adapters.sqlite.objects import NOW, fingerprint, park_triggers, wake_triggers
from dbsync.errors import PositionLost, Refused, Unavailable
from dbsync.model import Checkpoint, Fenced, Guard, GuardState, Position


def inode(path: Path) -> str:
    """What tells a file from a copy of it."""
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}"


def read_guard(connection: sqlite3.Connection, path: Path, checked: bool = True) -> Guard | None:
    """The guard row, or None before `init`. Raises PositionLost when the file is a copy or was replaced."""
    if not has_table(connection, "dbsync_guard"):
        return None
    row = connection.execute(
        f"SELECT name, identity, inode, state, epoch, attempt, live, owner, fence_until - {NOW}, opened_at, lived"
        " FROM dbsync_guard WHERE id = 1"
    ).fetchone()
    if row is None:
        return None
    name, identity, node, state, epoch, attempt, live, owner, left, opened_at, lived = row
    if checked and node != inode(path):
        raise PositionLost(
            f"{path} holds the guard of {name} and is a copy, or was restored or replaced, since `dbsync init`",
            code="source-restored",
            remedy="if it is meant to be used as it is: `dbsync init`, then `dbsync sync --snapshot`",
        )
    return Guard(
        name=name,
        identity=identity,
        state=GuardState(state),
        epoch=epoch,
        attempt=attempt,
        live=live,
        owner=owner,
        fence_left=left if state == "fenced" else None,
        opened_at=Position(opened_at) if opened_at else None,
        lived=frozenset(json.loads(lived)),
    )


def position(connection: sqlite3.Connection) -> Position:
    """The newest recorded change: its number, and a random word that tells its past from another one's."""
    row = connection.execute("SELECT seq, nonce FROM dbsync_changes ORDER BY seq DESC LIMIT 1").fetchone()
    return Position(f"{row[0]}.{row[1]}")


def new_guard(connection: sqlite3.Connection, path: Path, name: str, live: str, epoch: int) -> None:
    """Write the first guard row, or take a replaced file as what it is now: a new identity, a new past."""
    state = "open" if live == name else "closed"
    revision = read_revision(connection)
    lived = json.dumps([revision] if live == name and revision else [])
    connection.execute("DELETE FROM dbsync_guard")
    connection.execute(
        "INSERT INTO dbsync_guard (id, name, identity, inode, state, epoch, live, lived)"
        " VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
        (name, uuid.uuid4().hex, inode(path), state, epoch, live, lived),
    )
    first_change(connection)


def moved(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is not the one that the guard row was written in."""
    row = connection.execute("SELECT inode FROM dbsync_guard WHERE id = 1").fetchone()
    return row is None or row[0] != inode(path)


def first_change(connection: sqlite3.Connection) -> None:
    """A recorded change of no table, so that there always is a newest one."""
    connection.execute(f"INSERT INTO dbsync_changes (tab, mine, nonce, at) VALUES (0, 1, abs(random() / 2), {NOW})")


@contextmanager
def immediate(connection: sqlite3.Connection, wait: float) -> Iterator[None]:
    """The write lock, waited for at most `wait` seconds, until the commit; an exception rolls back."""
    connection.execute(f"PRAGMA busy_timeout = {max(0, int(wait * 1000))}")
    try:
        connection.execute("BEGIN IMMEDIATE")
    finally:
        connection.execute("PRAGMA busy_timeout = 5000")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def fence(connection: sqlite3.Connection, path: Path, epoch: int, owner: str, seconds: float, wait: float) -> Fenced:
    """Raise the fence. In WAL mode a writer that began before cannot upgrade past it: it gets SQLITE_BUSY."""
    try:
        with immediate(connection, wait):
            guard = _present(connection, path)
            if not guard.accepts or guard.epoch != epoch:
                raise Refused(
                    f"{guard.name} is {guard.state.value} at epoch {guard.epoch}, not open at epoch {epoch}",
                    code="fence-lost",
                    remedy="dbsync status",
                )
            connection.execute(
                f"UPDATE dbsync_guard SET state = 'fenced', attempt = attempt + 1, owner = ?, fence_until = {NOW} + ?",
                (owner, seconds),
            )
            return Fenced(epoch, guard.attempt + 1, owner)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise Unavailable(
            f"a writing transaction was held open for more than {wait:.1f}s: the fence was not raised",
            code="drain-timeout",
            remedy="end the long transaction, then run the command again",
        ) from error


def lift(connection: sqlite3.Connection, path: Path, epoch: int, wait: float) -> Guard:
    """Undo a fence; the attempt goes up, so a cede that is still on its way fails."""
    with immediate(connection, wait):
        guard = _present(connection, path)
        if guard.state is GuardState.CEDED or guard.epoch != epoch:
            raise Refused(
                f"{guard.name} has given up being live (epoch {guard.epoch})",
                code="past-no-return",
                remedy="dbsync cutover --resume",
            )
        if guard.state is GuardState.CLOSED:
            raise Refused(
                f"{guard.name} is closed: there is no fence to lift", code="role-changed", remedy="dbsync status"
            )
        if guard.state is GuardState.FENCED:
            connection.execute(
                "UPDATE dbsync_guard SET state = 'open', attempt = attempt + 1, owner = NULL, fence_until = NULL"
            )
        elif guard.state is GuardState.OPEN:
            connection.execute("UPDATE dbsync_guard SET attempt = attempt + 1")
        return _present(connection, path)


def cede(connection: sqlite3.Connection, path: Path, fenced: Fenced, final: Position, expected: str, to: str) -> Guard:
    """The point of no return: everything is read again under the lock, by statements that begin after it was taken."""
    with immediate(connection, 1.0):
        guard = _present(connection, path)
        holds = guard.state is GuardState.FENCED and not guard.accepts
        same = (guard.epoch, guard.attempt, guard.owner) == (fenced.epoch, fenced.attempt, fenced.owner)
        if not holds or not same:
            raise Refused(f"the fence on {guard.name} is no longer ours", code="fence-lost", remedy="dbsync status")
        if position(connection) != final:
            raise Refused(f"{guard.name} was written to after the fence", code="fence-lost", remedy="dbsync status")
        if fingerprint(connection) != expected:
            raise Refused(
                f"the schema or a guard of {guard.name} was changed under the fence",
                code="guard-changed",
                remedy="dbsync verify",
            )
        changed = connection.execute(
            "UPDATE dbsync_guard SET state = 'ceded', epoch = epoch + 1, live = ?, fence_until = NULL"
            " WHERE id = 1 AND state = 'fenced' AND epoch = ? AND attempt = ?",
            (to, fenced.epoch, fenced.attempt),
        ).rowcount
        if changed != 1:
            raise Refused(f"the fence on {guard.name} is no longer ours", code="fence-lost", remedy="dbsync status")
        return _present(connection, path)


def open_(
    connection: sqlite3.Connection, path: Path, epoch: int, expected: str | None, exclude: tuple[str, ...]
) -> Guard:
    """Begin to be live: user triggers awake, sequences carried upward, the position before any traffic noted."""
    with immediate(connection, 5.0):
        guard = _present(connection, path)
        if guard.state is GuardState.OPEN and guard.epoch == epoch:
            return guard
        if guard.state is not GuardState.CLOSED or guard.epoch >= epoch + (guard.live == guard.name):
            raise Refused(
                f"{guard.name} is {guard.state.value} at epoch {guard.epoch} and cannot be opened at {epoch}",
                code="burnt-epoch",
                remedy="dbsync status",
            )
        if expected is not None and fingerprint(connection) != expected:
            raise Refused(f"{guard.name} was changed", code="guard-changed", remedy="dbsync verify")
        wake_triggers(connection)
        carry(connection, _stored_sequences(connection), exclude)
        revision = read_revision(connection)
        lived = sorted(guard.lived | ({revision} if revision else set()))
        connection.execute(
            "UPDATE dbsync_guard SET state = 'open', epoch = ?, live = name, owner = NULL, fence_until = NULL,"
            " opened_at = ?, lived = ?",
            (epoch, position(connection), json.dumps(lived)),
        )
        return _present(connection, path)


def close(
    connection: sqlite3.Connection, path: Path, epoch: int, checkpoint: Checkpoint, exclude: tuple[str, ...]
) -> Guard:
    """Complete the handover on the side that ceded: user triggers asleep, following from the checkpoint."""
    with immediate(connection, 5.0):
        guard = _present(connection, path)
        if guard.state is GuardState.CLOSED and guard.epoch == epoch:
            return guard
        if guard.state is not GuardState.CEDED or guard.epoch != epoch:
            raise Refused(
                f"{guard.name} is {guard.state.value} at epoch {guard.epoch} and cannot be closed at {epoch}",
                code="role-changed",
                remedy="dbsync status",
            )
        park_triggers(connection, exclude)
        write_checkpoint(connection, checkpoint.source, checkpoint.position)
        connection.execute("UPDATE dbsync_guard SET state = 'closed', owner = NULL, fence_until = NULL")
        return _present(connection, path)


def reopen(connection: sqlite3.Connection, path: Path, epoch: int) -> Guard:
    """Live again after having ceded: the other side was given up for good."""
    with immediate(connection, 5.0):
        guard = _present(connection, path)
        if guard.state is GuardState.OPEN and guard.epoch == epoch:
            return guard
        if guard.state is not GuardState.CEDED or guard.epoch >= epoch:
            raise Refused(f"{guard.name} has not ceded", code="role-changed", remedy="dbsync status")
        connection.execute(
            "UPDATE dbsync_guard SET state = 'open', epoch = ?, live = name, attempt = attempt + 1, owner = NULL,"
            " opened_at = ?",
            (epoch, position(connection)),
        )
        return _present(connection, path)


def write_checkpoint(connection: sqlite3.Connection, source: str, at: Position) -> None:
    """Store where this database stands as a follower."""
    connection.execute(
        f"INSERT OR REPLACE INTO dbsync_checkpoint (id, source, position, at) VALUES (1, ?, ?, {NOW})", (source, at)
    )


def live_sequences(connection: sqlite3.Connection) -> dict[str, int]:
    """The highest identity value that each AUTOINCREMENT table ever gave."""
    if not has_table(connection, "sqlite_sequence"):
        return {}
    rows = connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
    return {name: seq for name, seq in rows if not name.startswith("dbsync_")}


def carry(connection: sqlite3.Connection, values: dict[str, int], exclude: tuple[str, ...]) -> None:
    """Raise identity counters, never lower them."""
    tables = read_catalog(connection, exclude).tables
    for name, value in values.items():
        if name not in tables or not is_autoincrement(tables[name]):
            continue
        changed = connection.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (value, name)
        ).rowcount
        if not changed:
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, value))


def _stored_sequences(connection: sqlite3.Connection) -> dict[str, int]:
    row = connection.execute(
        "SELECT document FROM dbsync_documents WHERE kind = 'sequences' AND name = 'source'"
    ).fetchone()
    return dict(json.loads(row[0])) if row else {}


def _present(connection: sqlite3.Connection, path: Path) -> Guard:
    guard = read_guard(connection, path)
    if guard is None:
        raise Refused("there is no guard row", code="not-initialised", remedy="dbsync init --active NAME")
    return guard
