"""The Migrator socket over real Alembic files, first on a plain connection, then inside a database of dbsync's."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbsync.adapters.alembic import AlembicScripts
from dbsync.errors import ConfigError, Refused

HEAD = "import sqlalchemy as sa\nfrom alembic import context, op\n\nrevision = {0!r}\ndown_revision = {1!r}\n\n\n"

FIRST = """
def upgrade():
    print("a revision speaks")
    op.create_table("customer", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    customer = sa.table("customer", sa.column("id", sa.Integer), sa.column("name", sa.Text))
    op.bulk_insert(customer, [{"id": 1, "name": "Ann Berg"}])


def downgrade():
    op.drop_table("customer")
"""

SECOND = """
def upgrade():
    assert not context.is_offline_mode()
    with op.batch_alter_table("customer") as batch:
        batch.alter_column("name", type_=sa.String(80), nullable=False)
        batch.add_column(sa.Column("size", sa.Integer))
    bind = op.get_bind()
    for row in bind.execute(sa.text("SELECT id, name FROM customer")):
        bind.execute(sa.text("UPDATE customer SET size = :n WHERE id = :id"), {"n": len(row.name), "id": row.id})


def downgrade():
    with op.batch_alter_table("customer") as batch:
        batch.drop_column("size")
"""

HALF = """
def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute(sa.text("UPDATE customer SET name = 'lost'"))
    op.execute(sa.text("INSERT INTO nowhere VALUES (:secret)").bindparams(secret="s3cret"))


def downgrade():
    pass
"""

EMPTY = "\ndef upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n"


class Folder:
    """A migrations folder in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "versions").mkdir(parents=True)

    def add(self, revision: str, parent: Any, body: str = EMPTY) -> Folder:
        (self.path / "versions" / f"{revision}_step.py").write_text(HEAD.format(revision, parent) + body)
        return self

    @property
    def scripts(self) -> AlembicScripts:
        return AlembicScripts(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Two revisions: a table with a row, and a batch operation with data."""
    return Folder(tmp_path / "migrations").add("aa01", None, FIRST).add("aa02", "aa01", SECOND)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """SQLite with DDL in transactions."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'plain.db'}")
    sa.event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    yield engine
    engine.dispose()


def rows(engine: sa.Engine, sql: str) -> list[tuple[Any, ...]]:
    """What a query gives, on a connection of its own."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


def names(engine: sa.Engine) -> set[str]:
    """The tables."""
    return set(sa.inspect(engine).get_table_names())


# --- the chain ----------------------------------------------------------------------------------------


def test_the_chain_goes_from_base_to_head_without_env_py_or_alembic_ini(folder: Folder) -> None:
    assert folder.scripts.chain() == ("aa01", "aa02")
    assert Folder(folder.path / "other").scripts.chain() == ()


def test_a_path_holds_the_revisions_after_the_older_one(folder: Folder) -> None:
    scripts = folder.scripts
    assert scripts.path(None, "aa02") == ("aa01", "aa02")
    assert scripts.path("aa01", "head") == ("aa02",)
    assert scripts.path("aa02", "aa02") == scripts.path(None, None) == scripts.path("base", "base") == ()


def test_no_folder_is_a_config_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError) as error:
            AlembicScripts(path).chain()
        assert error.value.code == "migrations-missing"


def test_several_heads_are_refused_by_name(folder: Folder) -> None:
    scripts = folder.add("bb02", "aa01").scripts
    with pytest.raises(Refused, match=r"aa02.*bb02") as refused:
        scripts.chain()
    assert refused.value.code == "several-heads"
    assert scripts.path(None, "bb02") == ("aa01", "bb02")
    for one, other in (("aa02", "bb02"), ("aa02", "aa01")):
        with pytest.raises(Refused) as refused:
            scripts.path(one, other)
        assert refused.value.code == "revisions-diverged"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def broken(:\n", "line 1"),
        ("import no_such_module_of_mine\n", "no_such_module_of_mine"),
        ("raise SystemExit(3)\n", "SystemExit"),
        ("down_revision = 'aa02'\n", "revision"),
        (HEAD.format("cc03", "gone") + EMPTY, "'gone'"),
        (HEAD.format("aa01", None) + EMPTY, "aa01_step.py"),
        (HEAD.format("cc03", "cc03") + EMPTY, "loop"),
        (HEAD.format("cc@03", "aa02") + EMPTY, "@"),
        (HEAD.format("cc03", "aa02"), "upgrade"),
    ],
)
def test_a_revision_that_cannot_be_used_is_a_config_error_that_names_its_file(
    folder: Folder, text: str, told: str
) -> None:
    (folder.path / "versions" / "zz_bad.py").write_text(text)
    with pytest.raises(ConfigError, match=r"zz_bad\.py") as error:
        folder.scripts.chain()
    assert error.value.code == "broken-revision"
    assert told in error.value.message


def test_revisions_that_follow_each_other_in_a_circle_are_a_config_error(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="follows itself") as error:
        folder.add("cc03", "cc04").add("cc04", "cc03").scripts.chain()
    assert error.value.code == "broken-revision"


def test_a_merge_is_refused_by_name(folder: Folder) -> None:
    with pytest.raises(Refused) as refused:
        folder.add("bb02", "aa01").add("cc03", ("aa02", "bb02")).scripts.chain()
    assert refused.value.code == "merge-revision"


def test_names_are_ids_or_unique_beginnings_and_nothing_else(folder: Folder) -> None:
    scripts = folder.add("b7", "aa02").scripts
    assert scripts.path("aa02", "b") == ("b7",)
    for name in ("aa", "zz", ""):
        with pytest.raises(ConfigError) as error:
            scripts.path(None, name)
        assert error.value.code == "unknown-revision"


def test_a_file_that_is_rewritten_is_read_anew_and_leaves_no_byte_code(folder: Folder) -> None:
    assert folder.scripts.chain() == ("aa01", "aa02")
    folder.add("aa02", "aa01", SECOND.replace("aa", "bb"))
    (folder.path / "versions" / "aa02_step.py").rename(folder.path / "versions" / "bb02_step.py")
    folder.add("bb02", "aa01", SECOND)
    assert folder.scripts.chain() == ("aa01", "bb02")
    assert not list(folder.path.rglob("*.pyc"))


# --- running --------------------------------------------------------------------------------------------


def test_a_revision_runs_and_is_stamped_inside_the_transaction_that_it_is_given(
    folder: Folder, engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = folder.scripts
    with engine.connect() as connection:
        transaction = connection.begin()
        scripts.run(connection, "aa01", False)
        scripts.run(connection, "aa02", False)
        assert connection.exec_driver_sql("SELECT name, size FROM customer").all() == [("Ann Berg", 8)]
        assert connection.exec_driver_sql("SELECT * FROM alembic_version").all() == [("aa02",)]
        assert transaction.is_active
        transaction.rollback()
    assert names(engine) == set()
    assert capsys.readouterr().out == ""


def test_down_takes_back_what_up_did(folder: Folder, engine: sa.Engine) -> None:
    for revision, down in (("aa01", False), ("aa02", False), ("aa02", True), ("aa01", True)):
        with engine.begin() as connection:
            folder.scripts.run(connection, revision, down)
    assert names(engine) == {"alembic_version"}
    assert rows(engine, "SELECT * FROM alembic_version") == []


def test_a_revision_that_fails_half_way_is_refused_with_its_cause_and_its_place(
    folder: Folder, engine: sa.Engine
) -> None:
    scripts = folder.add("aa03", "aa02", HALF).scripts
    with engine.begin() as connection:
        scripts.run(connection, "aa01", False)
        scripts.run(connection, "aa02", False)
    with pytest.raises(Refused) as refused, engine.begin() as connection:
        scripts.run(connection, "aa03", False)
    assert (refused.value.code, refused.value.changed) == ("revision-failed", False)
    assert "aa03" in refused.value.message
    assert "no such table: nowhere" in refused.value.message
    assert "aa03_step.py (line 12)" in refused.value.message
    assert "s3cret" not in refused.value.message + refused.value.remedy
    assert refused.value.__cause__ is not None
    assert "half" not in names(engine)
    assert rows(engine, "SELECT name, version_num FROM customer, alembic_version") == [("Ann Berg", "aa02")]


@pytest.mark.parametrize(
    "body",
    [
        'op.execute("COMMIT")',
        'op.execute("  rollback;")',
        "op.get_bind().commit()",
        "op.get_bind().rollback()",
        "op.get_context().autocommit_block().__enter__()",
    ],
)
def test_a_revision_cannot_end_the_transaction_that_it_runs_in(folder: Folder, engine: sa.Engine, body: str) -> None:
    made = '    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))\n'
    scripts = folder.add("aa03", "aa02", f"\ndef upgrade():\n{made}    {body}\n").scripts
    with engine.begin() as connection:
        scripts.stamp(connection, "aa02")
    with pytest.raises(Refused, match=r"commit|rolls back") as refused, engine.begin() as connection:
        scripts.run(connection, "aa03", False)
    assert refused.value.code == "revision-failed"
    assert names(engine) == {"alembic_version"}
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    assert rows(engine, "SELECT * FROM alembic_version") == []


def test_a_revision_may_use_savepoints_and_an_orm_session(folder: Folder, engine: sa.Engine) -> None:
    body = """
def upgrade():
    from sqlalchemy.orm import Session

    with op.get_bind().begin_nested():
        op.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY)")
    with Session(op.get_bind()) as session:
        session.execute(sa.text("INSERT INTO kept VALUES (7)"))
        session.commit()
"""
    scripts = Folder(folder.path / "orm").add("a", None, body).scripts
    with engine.begin() as connection:
        scripts.run(connection, "a", False)
    assert rows(engine, "SELECT id, version_num FROM kept, alembic_version") == [(7, "a")]
    with pytest.raises(Refused, match="no downgrade"), engine.begin() as connection:
        scripts.run(connection, "a", True)


def test_a_database_that_stands_elsewhere_is_refused(folder: Folder, engine: sa.Engine) -> None:
    with pytest.raises(Refused) as refused, engine.begin() as connection:
        folder.scripts.run(connection, "aa02", False)
    assert refused.value.code == "revision-moved"


def test_a_stamp_replaces_whatever_stood_there(folder: Folder, engine: sa.Engine) -> None:
    scripts = folder.scripts
    with engine.begin() as connection:
        scripts.stamp(connection, "aa01")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'unheard'")
        scripts.stamp(connection, "aa02")
    assert rows(engine, "SELECT * FROM alembic_version") == [("aa02",)]
    with engine.begin() as connection:
        scripts.stamp(connection, None)
    assert rows(engine, "SELECT * FROM alembic_version") == []


# --- scripts ----------------------------------------------------------------------------------------------


def test_a_script_does_what_a_run_does(folder: Folder, engine: sa.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = folder.scripts
    sql = scripts.script("sqlite", None, "aa01", False)
    with engine.connect() as connection:
        connection.connection.driver_connection.executescript(sql)  # type: ignore[union-attr]
    assert rows(engine, "SELECT name, version_num FROM customer, alembic_version") == [("Ann Berg", "aa01")]
    with engine.connect() as connection:
        connection.connection.driver_connection.executescript(scripts.script("sqlite", "aa01", None, True))  # type: ignore[union-attr]
    assert names(engine) == {"alembic_version"}
    assert scripts.script("sqlite", "aa01", "aa01", False) == ""
    assert capsys.readouterr().out == ""


def test_a_script_that_needs_the_live_table_is_refused_and_names_the_revision(folder: Folder) -> None:
    body = SECOND.replace("    assert not context.is_offline_mode()\n", "")
    with pytest.raises(Refused, match="aa02") as refused:
        folder.add("aa02", "aa01", body).scripts.script("sqlite", None, "head", False)
    assert refused.value.code == "not-scriptable"


def test_a_script_for_sql_server_stops_at_the_first_error(folder: Folder) -> None:
    assert folder.scripts.script("mssql", None, "aa01", False).startswith("SET XACT_ABORT ON;\nGO\n")


# --- inside a database of dbsync's --------------------------------------------------------------------------


@contextmanager
def databases(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Blue and green, empty files with dbsync installed; blue is live."""
    pytest.importorskip("dbsync.adapters.sqlite", exc_type=ImportError)
    from dbsync.adapters.sqlite import SqliteDatabase

    made: dict[str, Any] = {}
    for name in ("blue", "green"):
        path = tmp_path / f"{name}.db"
        path.touch()
        made[name] = SqliteDatabase(name, f"sqlite:///{path}")
        made[name].install("blue")
    try:
        yield made
    finally:
        for database in made.values():
            database.dispose()


def migrated(pair: dict[str, Any], name: str, folder: Folder, **how: Any) -> Any:
    """Migrate one of them as the command would."""
    from dbsync.adapters.clock import SystemClock
    from dbsync.migrate.run import migrate
    from dbsync.model import Role

    other = pair["green" if name == "blue" else "blue"]
    role = Role.ACTIVE if name == "blue" else Role.IDLE
    return migrate(
        pair[name],
        other,
        role,
        1,
        folder.scripts,
        {},
        how.get("to"),
        how.get("down", False),
        how.get("allow", frozenset()),
        how.get("dry_run", False),
        SystemClock(),
    )


def plain(tmp_path: Path, name: str, sql: str) -> list[Any]:
    """What an application sees and does."""
    import sqlite3

    connection = sqlite3.connect(tmp_path / f"{name}.db", isolation_level=None)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_migration_keeps_guard_and_capture_through_a_batch_operation(folder: Folder, tmp_path: Path) -> None:
    with databases(tmp_path) as pair:
        assert migrated(pair, "blue", folder).ran == ("aa01", "aa02")
        assert migrated(pair, "green", folder).ran == ("aa01", "aa02")
        import sqlite3

        with pytest.raises(sqlite3.IntegrityError, match="dbsync:"):
            plain(tmp_path, "green", "UPDATE customer SET size = 9")
        with pair["blue"].view() as view:
            before = view.position()
        plain(tmp_path, "blue", "UPDATE customer SET size = 9")
        with pair["blue"].view() as view:
            (touched,) = view.changes(before).tables
        assert (touched.table, touched.keys) == ("customer", ((1,),))
        assert pair["green"].guard().state == "closed"


def test_a_half_way_failure_leaves_the_revision_before_with_its_guards(folder: Folder, tmp_path: Path) -> None:
    folder.add("aa03", "aa02", HALF)
    with databases(tmp_path) as pair:
        with pytest.raises(Refused) as refused:
            migrated(pair, "green", folder)
        assert (refused.value.code, refused.value.changed) == ("revision-failed", True)
        assert pair["green"].catalog().revision == "aa02"
        assert set(pair["green"].catalog().tables) == {"customer"}
        assert [fact.kind for fact in pair["green"].journal()][-3:] == ["migrated", "migrated", "revision-failed"]
        import sqlite3

        with pytest.raises(sqlite3.IntegrityError, match="dbsync:"):
            plain(tmp_path, "green", "DELETE FROM customer")
        assert plain(tmp_path, "green", "SELECT name FROM customer") == [("Ann Berg",)]


def test_a_rehearsal_finds_the_column_that_goes_and_touches_nothing(folder: Folder, tmp_path: Path) -> None:
    drops = '\ndef upgrade():\n    with op.batch_alter_table("customer") as batch:\n        batch.drop_column("name")\n'
    with databases(tmp_path) as pair:
        migrated(pair, "blue", folder)
        migrated(pair, "green", folder)
        folder.add("aa03", "aa02", drops)
        before = pair["green"].fingerprint()
        for dry in (True, False):
            with pytest.raises(Refused) as refused:
                migrated(pair, "green", folder, dry_run=dry)
            assert refused.value.code == "missing-crossing"
        assert pair["green"].fingerprint() == before
        assert migrated(pair, "green", folder, allow=frozenset({"missing-crossing"})).ran == ("aa03",)


def test_two_migrators_at_once_run_each_revision_once(folder: Folder, tmp_path: Path) -> None:
    """In processes of their own: Alembic's `op` is one a process."""
    code = (
        "import sys; from pathlib import Path\n"
        "from dbsync.adapters.alembic import AlembicScripts\n"
        "from dbsync.adapters.clock import SystemClock\n"
        "from dbsync.adapters.sqlite import SqliteDatabase\n"
        "from dbsync.migrate.run import migrate\n"
        "from dbsync.model import Role\n"
        "green = SqliteDatabase('green', sys.argv[1])\n"
        "done = migrate(green, None, Role.IDLE, 1, AlembicScripts(Path(sys.argv[2])), {}, None, False, frozenset(),"
        " False, SystemClock())\n"
        "print(','.join(done.ran))\n"
    )
    with databases(tmp_path):
        url, path = f"sqlite:///{tmp_path / 'green.db'}", str(folder.path)
        said: list[str] = []

        def one() -> None:
            ended = subprocess.run(
                [sys.executable, "-c", code, url, path], capture_output=True, text=True, timeout=60, check=False
            )
            said.append(ended.stdout.strip() if ended.returncode == 0 else ended.stderr)

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(revision for line in said for revision in line.split(",") if revision) == ["aa01", "aa02"], said
