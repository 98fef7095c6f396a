"""What gives another value each time is found in every spelling, and a sum of floats is refused with the way out."""

from __future__ import annotations

import pytest

from dbsync.errors import ConfigError
from dbsync.etl.query import Where, parse, speech
from dbsync.etl.stable import Known, check_stable
from dbsync.model import Capabilities

DIALECTS = {
    "embedded": speech(Capabilities(dialect="sqlite")),
    "server": speech(Capabilities(dialect="another", quote=("[", "]"))),
}
TYPES = {"real": "REAL", "dbl": "double precision", "fl": "float(53)", "n": "INTEGER", "money": "DECIMAL(9, 2)"}
WHERE = Where("r1", "t", "forward")


def judged(dialect: str, select: str, once: frozenset[str] = frozenset()) -> str:
    """What is said of a SELECT (nothing: it may be trusted)."""
    parser = DIALECTS[dialect].parser
    known = Known(lambda _t, _c: False, lambda _t, column: TYPES.get(column.casefold(), ""))
    noted: list[tuple[Where, ConfigError]] = []
    check_stable(parse(select, parser, WHERE), parser, Where("r1", "t", "forward", noted=noted), known, once)
    assert all(error.code == "crossing-not-deterministic" and error.remedy for _, error in noted)
    return "; ".join(error.message for _, error in noted)


FICKLE = {
    "embedded": [
        "datetime('now', 'localtime')",
        "STRFTIME ( '%s' , ' NOW ' )",
        "strftime('%s')",
        "unixepoch('subsec')",
        "strftime('%f', 'subsecond')",
        'datetime("now")',
        "datetime(at, 'utc')",
        "[random] ()",
        "`RandomBlob`(4)",
        "julianday(current_timestamp)",
        "CURRENT_date",
        "Last_Insert_RowId()",
        "lower(hex(randomblob(16)))",
    ],
    "server": [
        "GETDATE()",
        "[getdate] ( )",
        "GetUtcDate/* it is late */()",
        "SYSDATETIME()",
        "SysDateTimeOffset()",
        "DATEADD(day, 1, SYSUTCDATETIME())",
        "CURRENT_TIMESTAMP",
        "{fn NOW()}",
        "NEWID()",
        "CONVERT(varchar(36), NewId())",
        "RAND()",
        "ABS(CHECKSUM(NEWID())) % 10",
        "CRYPT_GEN_RANDOM(8)",
        "NEXT VALUE FOR dbo.numbers",
        "SCOPE_IDENTITY()",
        "SUSER_SNAME()",
        "SYSTEM_USER",
    ],
}


@pytest.mark.parametrize(("dialect", "call"), [(name, call) for name, calls in FICKLE.items() for call in calls])
def test_what_differs_each_time_is_found_and_allowed_only_in_a_column_that_is_set_once(dialect: str, call: str) -> None:
    select = f"SELECT c.id, {call} AS token, c.at FROM c"
    try:
        parse(select, DIALECTS[dialect].parser, WHERE)
    except ConfigError:
        assert call.startswith("{fn"), "what the parser does not take is refused as well"
        return
    assert "the SELECT uses" in judged(dialect, select)
    assert judged(dialect, select, frozenset({"token"})) == ""
    assert judged(dialect, select, frozenset({"at"})) != ""
    assert judged(dialect, f"SELECT c.id, c.token FROM c WHERE c.at < {call}", frozenset({"token"})) != ""


def test_what_a_counter_of_the_server_says_is_refused() -> None:
    with pytest.raises(ConfigError, match="parameter") as caught:
        judged("server", "SELECT id, @@ROWCOUNT AS n FROM c")
    assert caught.value.code == "broken-crossing"


@pytest.mark.parametrize(
    "expression",
    [
        "datetime(at, '+1 day')",
        "datetime(at, 'subsec')",
        "'utc'",
        "c.now",
        "date(at)",
        "strftime('%Y', at)",
        "c.current_user",
    ],
)
def test_what_only_looks_like_the_clock_is_taken(expression: str) -> None:
    assert judged("embedded", f"SELECT c.id, {expression} AS x FROM c") == ""


GROUPED = "SELECT c.id, {} AS x FROM c LEFT JOIN o ON o.cid = c.id GROUP BY c.id"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "expression",
    [
        "SUM(o.real)",
        "AVG(o.dbl)",
        "SUM(o.n * o.fl)",
        "SUM(CAST(o.n AS FLOAT))",
        "SUM(CASE WHEN o.n > 1 THEN o.real ELSE 0 END)",
        "COALESCE(SUM(o.real), 0)",
    ],
)
def test_a_sum_of_floating_numbers_is_refused_with_the_way_out(dialect: str, expression: str) -> None:
    assert "floating numbers: the order of the additions" in judged(dialect, GROUPED.format(expression))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "expression",
    [
        "SUM(o.n)",
        "AVG(o.money)",
        "ROUND(SUM(o.real), 2)",
        "CAST(SUM(o.real) AS DECIMAL(12, 2))",
        "SUM(ROUND(o.real, 2))",
        "SUM(CAST(o.real AS INTEGER))",
        "SUM(CASE WHEN o.real > 1.5 THEN o.n ELSE 0 END)",
        "COUNT(o.real)",
        "MAX(o.real)",
    ],
)
def test_a_sum_that_does_not_depend_on_the_order_is_taken(dialect: str, expression: str) -> None:
    assert judged(dialect, GROUPED.format(expression)) == ""


def test_a_floating_column_is_followed_through_the_parts_of_a_select() -> None:
    summed = "SELECT c.id, s.x FROM c LEFT JOIN (SELECT w.cid, {} AS x FROM w GROUP BY w.cid) s ON s.cid = c.id"
    for inner, refused in (("SUM(w.y)", True), ("ROUND(SUM(w.y), 1)", False)):
        select = f"WITH w AS (SELECT o.cid, o.real AS y FROM o) {summed.format(inner)}"
        assert bool(judged("embedded", select)) is refused
    assert "total" in judged("embedded", GROUPED.format("total(o.real)")).casefold()
