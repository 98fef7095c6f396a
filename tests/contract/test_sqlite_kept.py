"""What a SQLite file does with its side table: created late, found by index, removed with the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbsync.adapters.sqlite.connection import connect
from dbsync.adapters.sqlite.keeping import lookup
from dbsync.adapters.sqlite.rows import keyed
from dbsync.errors import Refused
from dbsync.model import Kept, Relation, Role
from tests.contract.sqlite_file import Make

KEPT = Kept("v", ("id",), "t", "v")
RELATION = Relation("t", ("id", "v"), ("id",), "SELECT id, v FROM t", kept=(KEPT,))


def test_a_file_initialised_before_there_was_a_side_table_asks_for_init(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'x')")
    file.execute("DROP TABLE dbsync_kept")
    with file.db.view() as view, pytest.raises(Refused) as refused:
        view.by_keys(RELATION, [(1,)])
    assert (refused.value.code, refused.value.remedy) == ("not-initialised", "dbsync init")
    with pytest.raises(Refused), file.db.writing(Role.ACTIVE, 1) as transaction:
        transaction.keep("t", "v", [((1,), "y", "x")])
    with file.db.view() as view:
        assert view.by_keys(replace(RELATION, kept=()), [(1,)]) == [(1, "x")]
    assert [check.remedy for check in file.db.examine() if check.code == "objects-missing"] == ["dbsync init"]
    assert file.db.install("blue") == ("dbsync_kept",)
    assert [check for check in file.db.examine() if check.code == "objects-missing"] == []
    with file.db.view() as view:
        assert view.by_keys(RELATION, [(1,)]) == [(1, "x")]
    assert "dbsync_kept" in file.db.remove()


def test_a_key_list_seeks_the_base_table_and_the_side_table(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    connection = connect(file.path, "blue")
    for sql, values, table in ((keyed(RELATION), (), "t"), (lookup(2), ("t", "v"), "w")):
        steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert any(step.startswith(f"SEARCH {table} USING") for step in steps), steps
        assert all(step.startswith(("SEARCH", "SCAN k")) for step in steps), steps
    connection.close()
