"""What the evidence is bound to: each change after the receipt is refused with its own code (protocol, section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.protocol_rig import THIRD, Installation, installation

EMPTY = THIRD.split("def upgrade")[0] + "def upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def refused(site: Installation) -> list[str]:
    """The codes of the blockers of a cutover that must be refused, nothing changed."""
    done = site.run("cutover")
    assert done.code == 3, done
    error = done.data["error"]
    assert error["changed"] is False and error["remedy"].startswith("dbsync ")
    assert error["code"] == error["blockers"][0]["code"]
    assert site.guard("blue") == ("open", 1) and site.guard("green") == ("closed", 1)
    return [blocker["code"] for blocker in error["blockers"]]


def test_a_row_of_the_idle_side_changed_behind_its_back(site: Installation) -> None:
    """Protocol test 14: `idle-written`, through the program."""
    site.tamper("green", "UPDATE word SET text = 'evil' WHERE id = 2")
    assert refused(site) == ["idle-written"]
    done = site.run("verify")
    assert (done.code, done.data["equal"]) == (4, False)
    assert site.ok("verify", "--repair")["equal"]
    site.ok("verify")
    assert site.ok("status")["ready"]


def test_a_guard_that_was_dropped_and_put_back(site: Installation) -> None:
    """Protocol, section 6: `guard-changed`: what was written meanwhile cannot be known."""
    with site.application("green") as connection:
        name, sql = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name LIKE 'dbsync_guard%_u'"
        ).fetchone()
        connection.execute(f"DROP TRIGGER {name}")
        connection.execute(sql)
    assert refused(site) == ["guard-changed"]


def test_a_new_revision(site: Installation) -> None:
    """Protocol, section 6: `receipt-revision`, when the revision changes no table."""
    (site.folder / "migrations" / "versions" / "0003_third.py").write_text(EMPTY)
    site.ok("migrate", "--target", "idle")
    assert refused(site) == ["receipt-revision"]


def test_a_migration_of_the_idle_side_makes_it_unready_though_no_row_changed(site: Installation) -> None:
    """Protocol test 15: ALTER with DEFAULT leaves no change rows; `ready` is false until crossed and verified again."""
    (site.folder / "migrations" / "versions" / "0003_third.py").write_text(THIRD)
    assert site.ok("status")["ready"]
    site.ok("migrate", "--target", "idle")
    status = site.ok("status")
    assert not status["ready"] and not status["receipt"]["valid"]
    assert [blocker["code"] for blocker in status["blockers"]] == ["table-stale", "receipt-revision"]
    assert site.run("verify").refusal == "no-snapshot"
    assert "table-stale" in refused(site)
    site.ok("sync", "--once")
    assert refused(site) == ["receipt-revision"]
    site.ok("verify")
    assert site.ok("status")["ready"]


def test_a_changed_crossing(site: Installation) -> None:
    """Protocol, section 6: `receipt-crossing`; and the tables that it fills are put again first."""
    file = site.folder / "etl" / "0002_second.py"
    file.write_text(file.read_text().replace("|| ' ' ||", "|| '  ' ||"))
    assert refused(site) == ["table-stale", "receipt-crossing"]
    site.ok("sync", "--once")
    assert refused(site) == ["receipt-crossing"]


def test_an_old_receipt(site: Installation) -> None:
    """Protocol, section 6: `receipt-old`, by `receipt_max_age`."""
    with (site.folder / "dbsync.toml").open("a") as file:
        file.write('[verify]\nreceipt_max_age = "1ms"\n')
    assert refused(site) == ["receipt-old"]
