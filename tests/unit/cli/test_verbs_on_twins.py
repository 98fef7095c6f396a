"""init, doctor, status, history and route over two in-memory databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters.memory import MemoryDatabase
from dbsync.cli.doctor import examine
from dbsync.cli.history import history
from dbsync.cli.init import prepare, take_out
from dbsync.cli.session import Session
from dbsync.cli.standing import follower_of, look
from dbsync.cli.sync import sync
from dbsync.cli.verify import verify
from dbsync.cli.wiring import Context
from dbsync.config import parse
from dbsync.errors import ConfigError, OwnershipAmbiguous, Refused, Unavailable
from dbsync.model import Column, Table

TABLE = Table("t", (Column("id", "INTEGER", False, None, 1), Column("v")))
TEXT = '[databases]\nblue = "sqlite:///blue.db"\ngreen = "sqlite:///green.db"\n'


class Twins(Context):
    """A context over two databases in memory; `gone` names those that do not answer."""

    def __init__(self, folder: Path) -> None:
        (folder / "migrations" / "versions").mkdir(parents=True, exist_ok=True)
        super().__init__(parse(TEXT, folder / "dbsync.toml", {}))
        self.twins = {name: MemoryDatabase(name, [TABLE]) for name in self.names}
        self.gone: set[str] = set()

    def database(self, name: str) -> Any:
        if name in self.gone:
            raise Unavailable(f"{name}: there is no file", code="database-missing")
        return self.twins[name]

    def exists(self, name: str) -> bool:
        return name not in self.gone

    def create(self, name: str) -> bool:
        created = name in self.gone
        self.gone.discard(name)
        return created


@pytest.fixture
def context(tmp_path: Path) -> Twins:
    return Twins(tmp_path)


def test_init_needs_the_active_one_the_first_time(context: Twins) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(context, None)
    assert caught.value.code == "active-missing"
    assert context.twins["blue"].guard() is None


def test_init_twice_is_harmless_and_creates_nothing_the_second_time(context: Twins) -> None:
    first, second = prepare(context, "blue"), prepare(context, None)
    assert first.data["created"]
    assert second.data == {"active": "blue", "idle": "green", "created": []}
    assert second.next == "dbsync doctor"


def test_an_active_that_contradicts_the_record_is_refused(context: Twins) -> None:
    prepare(context, "blue")
    with pytest.raises(Refused) as caught:
        prepare(context, "green")
    assert caught.value.code == "active-contradicts"


def test_a_missing_idle_side_is_created_and_a_missing_active_one_is_not(context: Twins) -> None:
    context.gone = {"blue"}
    with pytest.raises(Unavailable):
        prepare(context, "blue")
    assert context.gone == {"blue"}
    assert context.twins["green"].guard() is None
    context.gone = {"green"}
    assert prepare(context, "blue").data["created"][0] == "sqlite:///green.db"


def test_an_init_that_died_half_way_is_finished(context: Twins) -> None:
    context.twins["green"].install("blue")
    assert prepare(context, None).data["active"] == "blue"
    assert context.roles().settled


def test_remove_leaves_nothing_behind(context: Twins) -> None:
    prepare(context, "blue")
    assert take_out(context).data["removed"]
    assert [twin.guard() for twin in context.twins.values()] == [None, None]
    assert take_out(context).data["removed"] == []


def test_status_before_init_is_refused(context: Twins) -> None:
    with pytest.raises(Refused) as caught:
        look(context)
    assert caught.value.code == "not-initialised"
    with pytest.raises(Refused):
        context.roles()


def test_status_has_every_key_of_the_contract(context: Twins) -> None:
    prepare(context, "blue")
    found = look(context)
    data = found.data()
    assert {
        "active",
        "idle",
        "phase",
        "epoch",
        "revisions",
        "lag",
        "receipt",
        "route",
        "follower",
        "ready",
        "blockers",
    } <= set(data)
    assert (data["active"], data["idle"], data["phase"], data["epoch"]) == ("blue", "green", "following", 1)
    assert data["ready"] is False
    assert data["lag"] is None
    assert found.next == "dbsync sync"
    assert found.warnings == ["no-router"]


def test_status_works_with_one_side_unreachable_and_says_so(context: Twins) -> None:
    prepare(context, "blue")
    for gone in ("green", "blue"):
        context.gone = {gone}
        data = look(context).data()
        assert data["unreachable"] == [gone]
        assert (data["active"], data["ready"]) == ("blue", False)
        assert data["revisions"] == {"blue": None, "green": None}


def test_status_with_both_sides_unreachable_is_unavailable(context: Twins) -> None:
    context.gone = {"blue", "green"}
    with pytest.raises(Unavailable) as caught:
        look(context)
    assert caught.value.exit_code == 5


def test_two_open_sides_are_ambiguous(context: Twins) -> None:
    for name in context.names:
        context.twins[name].install(name)
    with pytest.raises(OwnershipAmbiguous):
        look(context)
    assert "ownership-ambiguous" in {check.code for check in examine(context) if check.severity == "blocker"}


def test_doctor_names_what_blocks(context: Twins) -> None:
    codes = {check.code: check.severity for check in examine(context)}
    assert codes["not-initialised"] == "blocker"
    prepare(context, "blue")
    context.gone = {"green"}
    codes = {check.code: check.severity for check in examine(context)}
    assert codes["unreachable"] == "blocker"
    context.gone = {"green", "blue"}
    assert [c.code for c in examine(context)].count("unreachable") == 2


def test_doctor_warns_of_a_missing_router_and_a_side_that_never_followed(context: Twins) -> None:
    prepare(context, "blue")
    codes = {check.code: check.severity for check in examine(context)}
    assert codes["no-router"] == "warning"
    assert codes["roles"] == "ok"


def test_names_idle_and_active_stand_for_environments(context: Twins) -> None:
    prepare(context, "green")
    assert [context.resolve(word) for word in ("idle", "active", "blue")] == ["blue", "green", "blue"]
    with pytest.raises(ConfigError):
        context.resolve("gren")


def test_an_old_heartbeat_is_a_stopped_follower(context: Twins) -> None:
    now = context.clock.now()
    assert follower_of(None, now) == "stopped"
    assert follower_of({"at": now.isoformat()}, now) == "running"
    assert follower_of({"at": "2020-01-01T00:00:00+00:00"}, now) == "stopped"


def test_history_before_init_is_refused(context: Twins, tmp_path: Path) -> None:
    from dbsync.cli.options import Settings

    session = Session(Settings(json=True))
    session.__dict__["context"] = context
    with pytest.raises(Refused):
        history.callback.__wrapped__(session, 5)  # type: ignore[union-attr]


def session_over(context: Twins) -> Session:
    from dbsync.cli.options import Settings

    session = Session(Settings(json=True))
    session.__dict__.update(context=context, config=context.config)
    return session


def body(command: Any) -> Any:
    return command.callback.__wrapped__


def test_sync_once_copies_and_verify_gives_a_receipt(context: Twins) -> None:
    prepare(context, "blue")
    context.twins["blue"].application.execute_put("t", {"id": 1, "v": "a"})
    synced = body(sync)(session_over(context), once=True, snapshot=False, tables=None)
    assert synced.data["snapshot"] == {"tables": 1, "rows": 1}
    assert synced.data["lag"] == {"changes": 0, "seconds": 0.0}
    assert isinstance(synced.data["position"], str)
    assert synced.next == "dbsync verify"
    verified = body(verify)(session_over(context), tables=None, repair=False)
    assert verified.exit_code == 0
    assert verified.data["equal"] is True
    counts = {"rows", "missing", "extra", "different", "lossy", "losses"}
    assert verified.data["tables"][0].keys() == {"name", "keys"} | counts
    assert verified.data["receipt"].keys() == {"id", "taken_at", "age_seconds", "valid", "position", "tables"}
    assert look(context).data()["receipt"]["valid"] is True


def test_a_follower_that_was_told_to_stop_ends_with_success(context: Twins) -> None:
    prepare(context, "blue")
    session = session_over(context)
    session.stop.handle(15, None)
    found = body(sync)(session, once=False, snapshot=True, tables=None)
    assert found.exit_code == 0
    assert found.next == "dbsync status"


def test_verify_of_an_unknown_table_is_refused(context: Twins) -> None:
    prepare(context, "blue")
    body(sync)(session_over(context), once=True, snapshot=False, tables=None)
    with pytest.raises(ConfigError) as caught:
        body(verify)(session_over(context), tables=("nothing",), repair=False)
    assert caught.value.code == "unknown-table"
