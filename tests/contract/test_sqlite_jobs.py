"""What a SQLite file does with a job's extract and load that other databases do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dbsync.errors import ConfigError, Refused
from dbsync.model import Loaded, Role, Row
from tests.contract.sqlite_file import File, Make

TABLE = "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)"


def extracted(file: File, sql: str, **parameters: object) -> list[Row]:
    with file.db.view() as view:
        return [row for part in view.extract(sql, parameters, 10) for row in part.rows]


def loaded(file: File, columns: tuple[str, ...], rows: list[Row], key: tuple[str, ...], mode: str = "upsert") -> Loaded:
    with file.db.writing(Role.ACTIVE, 1) as transaction:
        return transaction.load_rows("t", columns, rows, key, mode)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (9, 9, 9) RETURNING id",
        "WITH gone AS (SELECT 1) DELETE FROM t WHERE id IN (SELECT * FROM gone)",
        "UPDATE t SET a = 0",
        "CREATE TABLE other (a)",
        "CREATE TABLE other AS SELECT * FROM t",
        "CREATE TEMP TABLE other (a)",
        "PRAGMA user_version = 7",
        "PRAGMA foreign_keys",
        "ATTACH ':memory:' AS other",
        "COMMIT",
        "VACUUM",
        "EXPLAIN SELECT 1; DELETE FROM t",
        "SELECT load_extension('x')",
        "",
    ],
)
def test_an_extract_only_reads(make: Make, sql: str) -> None:
    file = make(TABLE, "INSERT INTO t VALUES (1, 1, 1)")
    with pytest.raises(ConfigError) as refused:
        extracted(file, sql)
    assert refused.value.code == "broken-job"
    assert file.execute("SELECT * FROM t") == [(1, 1, 1)]
    assert file.execute("PRAGMA user_version") == [(0,)]
    # and the connection serves as before
    assert extracted(file, "SELECT id FROM t") == [(1,)]
    file.db.save("kind", "name", {"a": 1})


def test_recursion_json_full_text_and_comments_are_read(make: Make) -> None:
    file = make(
        TABLE, "INSERT INTO t VALUES (1, '[1, 2]', 'it''s :since')", "CREATE VIRTUAL TABLE f USING fts5 (words)"
    )
    file.execute("INSERT INTO f VALUES ('one two')")
    sql = (
        "-- don't stop at \"half a name\n"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2) /* \"' */"
        "SELECT t.\"id\", j.value, n.i FROM t, json_each(t.a) AS j, n WHERE t.b = 'it''s :since' ORDER BY 2, 3;"
    )
    assert extracted(file, sql) == [(1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2)]
    assert extracted(file, "SELECT words FROM f WHERE f MATCH 'two'") == [("one two",)]


def test_an_unknown_name_in_double_quotes_is_no_text(make: Make) -> None:
    with pytest.raises(ConfigError):
        extracted(make(TABLE), 'SELECT "nothing" FROM t')


def test_a_view_says_a_moment_before_which_every_committed_row_is_in_it(make: Make) -> None:
    file = make(TABLE)
    with file.db.view() as view:
        file.execute("INSERT INTO t VALUES (1, strftime('%Y-%m-%d %H:%M:%f', 'now'), 0)")
        ((stamp,),) = file.execute("SELECT a FROM t")
        assert view.now() <= datetime.fromisoformat(stamp).replace(tzinfo=UTC)


def test_a_key_of_several_columns_is_listed_as_rows(make: Make) -> None:
    file = make("CREATE TABLE t (a, b, c, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (1, 1, 1), (1, 2, 2), (2, 1, 3)")
    sql = "SELECT c FROM t WHERE (a, b) IN (:keys) ORDER BY c"
    assert extracted(file, sql, keys=[(1, 2), (2, 1)]) == [(2,), (3,)]


def test_a_key_that_differs_in_case_is_one_row(make: Make) -> None:
    file = make("CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, b)", "INSERT INTO t VALUES ('One', 1)")
    assert loaded(file, ("a", "b"), [("ONE", 2)], ("a",)).written == 1
    assert file.execute("SELECT * FROM t") == [("ONE", 2)]


def test_a_unique_index_of_its_own_collation_serves_and_a_partial_one_does_not(make: Make) -> None:
    file = make(TABLE, "CREATE UNIQUE INDEX ta ON t (a COLLATE NOCASE)", "CREATE UNIQUE INDEX tb ON t (b) WHERE b > 0")
    loaded(file, ("a", "b"), [("x", 1)], ("a",))
    loaded(file, ("A", "b"), [("X", 2)], ("a",))
    assert file.execute("SELECT a, b FROM t") == [("X", 2)]
    with pytest.raises(ConfigError):
        loaded(file, ("a", "b"), [("x", 1)], ("b",))


def test_values_that_cannot_be_bound_are_set_aside(make: Make) -> None:
    file = make(TABLE)
    rows: list[Row] = [(1, 2**70, 0), (2, object(), 0), (3, "\ud800", 0), (4, "fine", 0)]
    done = loaded(file, ("id", "a", "b"), rows, ("id",))
    assert [one.row[0] for one in done.rejected] == [1, 2, 3]
    assert file.execute("SELECT id FROM t") == [(4,)]


def test_a_row_without_its_parent_is_set_aside(make: Make) -> None:
    file = make(
        "CREATE TABLE p (a, b, PRIMARY KEY (a, b))",
        "INSERT INTO p VALUES (1, 1)",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, up REFERENCES t, FOREIGN KEY (a, b) REFERENCES p)",
    )
    rows: list[Row] = [(1, 1, 1, 2), (2, 1, 9, None), (3, 1, None, None)]
    done = loaded(file, ("id", "a", "b", "up"), rows, ("id",))
    assert [one.row[0] for one in done.rejected] == [2]
    assert "FOREIGN KEY" in done.rejected[0].reason
    assert file.execute("SELECT id FROM t") == [(1,), (3,)]


def test_a_computed_column_is_refused_by_name(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b AS (a + 1))")
    with pytest.raises(ConfigError, match="computed"):
        loaded(file, ("id", "b"), [(1, 1)], ("id",))


def test_a_constraint_that_ends_the_transaction_loads_nothing(make: Make) -> None:
    file = make("CREATE TABLE t (id INTEGER PRIMARY KEY, a NOT NULL ON CONFLICT ROLLBACK)")
    with pytest.raises(Refused) as refused:
        loaded(file, ("id", "a"), [(1, 1), (2, None), (3, 3)], ("id",))
    assert refused.value.code == "row-refused"
    assert file.execute("SELECT * FROM t") == []


def test_a_trigger_that_refuses_a_row_sets_it_aside(make: Make) -> None:
    trigger = "CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.a < 0 BEGIN SELECT RAISE(ABORT, 'not below zero'); END"
    file = make(TABLE, trigger)
    done = loaded(file, ("id", "a"), [(1, 1), (2, -2)], ("id",))
    assert [(one.row, one.reason) for one in done.rejected] == [((2, -2), "not below zero")]
