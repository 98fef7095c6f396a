"""Migrating over the in-memory twin, with revisions that are functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from dbsync.adapters.memory import FakeClock, MemoryDatabase
from dbsync.adapters.memory_state import State
from dbsync.adapters.memory_transaction import MemoryMigration
from dbsync.errors import ConfigError, Interrupted, Refused
from dbsync.etl import Crossing
from dbsync.etl import table as crossed
from dbsync.migrate.plan import make_plan
from dbsync.migrate.run import Migrated, migrate, script, stamp
from dbsync.model import Catalog, Column, Role, Table, quiet
from dbsync.ports import Migrator

ID = Column("id", "INTEGER", key=1)
OLD = Table("customer", (ID, Column("first", "TEXT"), Column("last", "TEXT")))
WIDE = Table("customer", (*OLD.columns, Column("vip", "INTEGER")))
NEW = Table("customer", (ID, Column("name", "TEXT"), Column("vip", "INTEGER")))

Step = Callable[[MemoryMigration], None]


class Twin(MemoryDatabase):
    """The twin, which can also give a copy of its shape."""

    @contextmanager
    def shape_copy(self) -> Iterator[tuple[Any, Callable[[], Catalog]]]:
        here = self.catalog()
        state = State("copy", dict(here.tables), {name: {} for name in here.tables}, revision=here.revision)
        yield MemoryMigration(state, self.clock), lambda: Catalog(dict(state.tables), state.revision)


class Steps(Migrator):
    """A chain of revisions that are functions on a shape."""

    def __init__(self, ups: Mapping[str, Step], hook: Callable[[str], None] = lambda _: None) -> None:
        self.ups, self.hook = ups, hook
        self.order = tuple(ups)

    def chain(self) -> tuple[str, ...]:
        return self.order

    def path(self, older: str | None, newer: str | None) -> tuple[str, ...]:
        return make_plan(self.order, older, newer, False, "the path").revisions

    def run(self, connection: Any, revision: str, down: bool) -> None:
        if connection._state.name != "copy":
            self.hook(revision)
        if not down:
            self.ups[revision](connection)
        before = self.order.index(revision) - 1
        self.stamp(connection, revision if not down else (self.order[before] if before >= 0 else None))

    def stamp(self, connection: Any, revision: str | None) -> None:
        connection.stamp(revision)

    def script(self, dialect: str, start: str | None, end: str | None, down: bool) -> str:
        return f"{dialect} {start} {end} {down}"


def put(table: Table) -> Step:
    """A revision that gives a table this shape."""
    return lambda on: on.put_table(table)


def fail(_: MemoryMigration) -> None:
    """A revision that raises."""
    raise Refused("no such table", code="revision-failed")


UPS: dict[str, Step] = {"0001": put(OLD), "0002": put(WIDE), "0003": put(NEW)}


class Kept:
    """The crossing of 0002, which keeps a column's values."""

    forward = Crossing(crossed("customer", losing={"vip": "keep"}))
    reverse = None


def twin(name: str, tables: Sequence[Table] = (), revision: str | None = None) -> Twin:
    """A database with dbsync installed; blue is live."""
    made = Twin(name, tables)
    made.install("blue")
    with made.migrating(Role.ACTIVE if name == "blue" else Role.IDLE, 1) as connection:
        connection.stamp(revision)
    return made


def go(target: Twin, other: Twin | None, ups: Mapping[str, Step] = UPS, **how: Any) -> Migrated:
    """Migrate as the command would."""
    hook = how.pop("hook", lambda _: None)
    role = Role.ACTIVE if target.name == "blue" else Role.IDLE
    options: dict[str, Any] = {"to": None, "down": False, "allow": frozenset(), "dry_run": False, "pairs": {}} | how
    return migrate(
        target,
        other,
        role,
        1,
        Steps(ups, hook),
        options["pairs"],
        options["to"],
        options["down"],
        options["allow"],
        options["dry_run"],
        FakeClock(),
        how.get("report", quiet),
    )


def shapes(database: Twin) -> set[str]:
    """The revisions whose shapes are stored."""
    with database.view() as view:
        return set(view.load_all("shape"))


def test_an_idle_database_goes_to_the_revision_and_every_shape_on_the_way_is_kept() -> None:
    blue, green = twin("blue", [OLD], "0001"), twin("green", [OLD], "0001")
    done = go(green, blue, to="0002")
    assert (done.from_, done.to, done.ran, done.findings) == ("0001", "0002", ("0002",), ())
    assert done.next_command == "dbsync sync"
    assert done.document()["ran"] == ["0002"]
    assert green.catalog().revision == "0002"
    assert shapes(green) == {"0001", "0002"}
    (fact,) = green.journal()
    assert (fact.kind, fact.data["revision"], fact.data["direction"]) == ("migrated", "0002", "up")


def test_a_revision_that_renames_a_column_without_a_crossing_is_refused_and_changes_nothing() -> None:
    blue, green = twin("blue", [OLD], "0001"), twin("green", [OLD], "0001")
    with pytest.raises(Refused) as refused:
        go(green, blue)
    assert (refused.value.code, refused.value.changed) == ("missing-crossing", False)
    assert [blocker.code for blocker in refused.value.blockers] == ["missing-crossing"]
    assert "0003" in refused.value.message
    assert green.catalog().revision == "0001"
    assert (green.journal(), shapes(green)) == ([], set())


def test_a_live_database_is_not_migrated_past_values_that_it_keeps_of_the_newer_shape() -> None:
    blue, green = twin("blue", [OLD], "0001"), twin("green", [WIDE], "0002")
    pairs = {"0002": Kept()}
    with blue.writing(Role.ACTIVE, 1) as tx:
        tx.keep("customer@0002", "another", [((1,), 2, 1)])
        tx.keep("customer@0001", "vip", [((1,), 2, 1)])
    go(blue, green, to="0002", pairs=pairs, dry_run=True)
    with blue.writing(Role.ACTIVE, 1) as tx:
        tx.keep("Customer@0002", "vip", [((1,), 2, 1)])
    with pytest.raises(Refused) as refused:
        go(blue, green, to="0002", pairs=pairs)
    assert (refused.value.code, refused.value.next_command) == ("kept-values", "dbsync cutover")
    assert "1 of Customer.vip" in refused.value.message
    assert blue.catalog().revision == "0001"
    assert go(blue, green, to="0002", pairs=pairs, allow=frozenset({"kept-values"})).to == "0002"


def test_a_finding_that_is_allowed_is_reported_and_does_not_refuse() -> None:
    blue, green = twin("blue", [OLD], "0001"), twin("green", [OLD], "0001")
    done = go(green, blue, allow=frozenset({"missing-crossing"}))
    assert [finding.rule for finding in done.findings] == ["missing-crossing"]
    assert done.ran == ("0002", "0003")


def test_an_unknown_finding_cannot_be_allowed() -> None:
    with pytest.raises(ConfigError) as error:
        go(twin("green"), twin("blue"), allow=frozenset({"mising-crossing"}))
    assert error.value.code == "unknown-rule"


def test_what_the_other_database_has_behind_it_needs_no_crossing() -> None:
    done = go(twin("green"), twin("blue", [NEW], "0003"))
    assert done.ran == ("0001", "0002", "0003")
    assert done.findings == ()


def test_a_dry_run_changes_nothing_and_says_what_would_run() -> None:
    blue, green = twin("blue", [OLD], "0001"), twin("green", [OLD], "0001")
    before = green.fingerprint()
    done = go(green, blue, to="0002", dry_run=True)
    assert (done.ran, done.to, done.dry_run) == (("0002",), "0002", True)
    assert done.next_command == "dbsync migrate --target green"
    assert (green.catalog().revision, green.fingerprint()) == ("0001", before)
    assert (green.journal(), shapes(green)) == ([], set())


def test_down_goes_one_step_and_is_never_refused_by_findings() -> None:
    green = twin("green", [NEW], "0003")
    done = go(green, twin("blue", [NEW], "0003"), down=True)
    assert (done.ran, done.from_, done.to, done.findings) == (("0003",), "0003", "0002", ())
    assert green.catalog().revision == "0002"
    assert go(green, None, down=True, to="base").to is None


def test_a_failing_revision_leaves_the_one_before_and_says_whether_anything_had_run() -> None:
    ups = {"0001": put(OLD), "0002": put(WIDE), "0003": fail}
    green = twin("green", [OLD], "0001")
    with pytest.raises(Refused) as refused:
        go(green, twin("blue", [OLD], "0001"), ups)
    assert (refused.value.code, refused.value.changed) == ("revision-failed", True)
    assert green.catalog().revision == "0002"
    assert [fact.kind for fact in green.journal()] == ["migrated", "revision-failed"]
    with pytest.raises(Refused) as refused:
        go(green, twin("blue", [OLD], "0001"), ups)
    assert refused.value.changed is False


def test_a_revision_that_does_not_run_on_an_empty_copy_is_a_warning_before_it_is_run() -> None:
    def needs_rows(on: MemoryMigration) -> None:
        if on._state.name == "copy":
            raise Refused("a row is needed", code="revision-failed")

    done = go(twin("green", [OLD], "0001"), twin("blue", [OLD], "0001"), {"0001": put(OLD), "0002": needs_rows})
    assert [(finding.rule, str(finding.severity)) for finding in done.findings] == [("not-rehearsed", "warning")]
    assert done.ran == ("0002",)


def test_an_empty_idle_side_that_the_revisions_cannot_fill_needs_the_schema() -> None:
    ups = {"0001": lambda _: None, "0002": fail}
    with pytest.raises(Refused) as refused:
        go(twin("green"), twin("blue", [OLD], "0001"), ups)
    assert refused.value.code == "schema-missing"
    assert "dbsync migrate --target green --stamp 0001" in refused.value.remedy


def test_what_another_migrator_has_done_meanwhile_is_not_done_again() -> None:
    green = twin("green", [OLD], "0001")

    def faster(_: str, done: int, __: int | None) -> None:
        if done == 0 and green.catalog().revision == "0001":
            with green.migrating(Role.IDLE, 1) as connection:
                connection.put_table(WIDE)
                connection.stamp("0002")

    assert go(green, None, report=faster, allow=frozenset({"missing-crossing"})).ran == ("0003",)


def test_one_migrator_at_a_time() -> None:
    green = twin("green", [OLD], "0001")
    with green.lock("migrate", 0), pytest.MonkeyPatch.context() as patch:
        patch.setattr("dbsync.migrate.run.LOCK_SECONDS", 0.0)
        with pytest.raises(Refused) as refused:
            go(green, None, to="0002")
    assert refused.value.code == "migrate-running"


def test_an_interruption_between_two_revisions_says_that_the_first_has_run() -> None:
    def stop(_: str, done: int, __: int | None) -> None:
        if done == 1:
            raise Interrupted

    green = twin("green", [OLD], "0001")
    with pytest.raises(Interrupted) as interrupted:
        go(green, None, report=stop, allow=frozenset({"missing-crossing"}))
    assert interrupted.value.changed
    assert green.catalog().revision == "0002"


def test_a_role_that_has_changed_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        migrate(twin("green"), None, Role.ACTIVE, 1, Steps(UPS), {}, "0001", False, frozenset(), False, FakeClock())
    assert refused.value.code == "role-changed"


def test_a_stamp_adopts_a_database_and_keeps_its_shape() -> None:
    blue = twin("blue", [OLD])
    done = stamp(blue, twin("green"), Role.ACTIVE, 1, Steps(UPS), "0001", FakeClock())
    assert (done.from_, done.to, done.ran) == (None, "0001", ())
    assert blue.catalog().revision == "0001"
    assert shapes(blue) == {"0001"}
    assert blue.journal()[-1].kind == "stamped"


def test_a_stamp_is_refused_where_another_shape_of_that_revision_is_known() -> None:
    blue, green = twin("blue", [OLD]), twin("green", [WIDE])
    stamp(blue, green, Role.ACTIVE, 1, Steps(UPS), "0001", FakeClock())
    with pytest.raises(Refused) as refused:
        stamp(green, blue, Role.IDLE, 1, Steps(UPS), "0001", FakeClock())
    assert refused.value.code == "catalog-differs"
    assert "customer.vip" in refused.value.message
    assert green.catalog().revision is None


def test_a_script_goes_from_base_to_head_and_down_from_head_by_one() -> None:
    assert script(Steps(UPS), "memory", None, None, False) == "memory None 0003 False"
    assert script(Steps(UPS), "memory", None, None, True) == "memory 0003 0002 True"
    assert script(Steps(UPS), "memory", "0003", "head", False) == ""
