"""Which revisions run, from where a database stands to where it should."""

from __future__ import annotations

import pytest

from dbsync.errors import ConfigError, Refused
from dbsync.migrate.plan import make_plan, resolve, still_to_run

CHAIN = ("a1", "b1", "b2", "c1")


def test_up_goes_to_head_unless_told_otherwise() -> None:
    assert make_plan(CHAIN, "a1", None, False, "green").revisions == ("b1", "b2", "c1")
    assert make_plan(CHAIN, None, "b1", False, "green").revisions == ("a1", "b1")


def test_down_goes_one_step_unless_told_otherwise() -> None:
    one = make_plan(CHAIN, "c1", None, True, "green")
    assert (one.revisions, one.goal) == (("c1",), "b2")
    everything = make_plan(CHAIN, "c1", "base", True, "green")
    assert (everything.revisions, everything.goal) == (("c1", "b2", "b1", "a1"), None)


def test_down_at_base_and_up_at_head_have_nothing_to_do() -> None:
    assert make_plan(CHAIN, None, None, True, "green").revisions == ()
    assert make_plan(CHAIN, "c1", None, False, "green").revisions == ()
    assert make_plan(CHAIN, "b1", "b1", False, "green").revisions == ()


def test_where_the_database_stands_after_each_revision_is_known() -> None:
    up, down = make_plan(CHAIN, None, "b2", False, "green"), make_plan(CHAIN, "c1", "base", True, "green")
    assert [up.after(each) for each in up.revisions] == ["a1", "b1", "b2"]
    assert [down.after(each) for each in down.revisions] == ["b2", "b1", "a1", None]


@pytest.mark.parametrize(("at", "to", "down"), [("b2", "a1", False), ("a1", "b2", True), ("a1", "base", False)])
def test_the_wrong_direction_is_refused_with_the_option_that_is_meant(at: str, to: str, down: bool) -> None:
    with pytest.raises(Refused) as refused:
        make_plan(CHAIN, at, to, down, "green")
    assert refused.value.code == "wrong-direction"
    assert "--down" in refused.value.remedy


def test_a_name_is_an_id_or_its_unique_beginning_or_head_or_base() -> None:
    assert [resolve(CHAIN, name) for name in ("a1", "c", "head", "base", None)] == ["a1", "c1", "c1", None, None]


@pytest.mark.parametrize("name", ["x", "b", ""])
def test_an_unknown_or_ambiguous_name_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(CHAIN, name)
    assert error.value.code == "unknown-revision"


def test_a_database_at_a_revision_that_has_no_file_is_a_config_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="green stands at revision zz") as error:
        make_plan(CHAIN, "zz", None, False, "green")
    assert error.value.code == "unknown-revision"


def test_what_a_faster_migrator_has_done_is_not_run_again() -> None:
    plan = make_plan(CHAIN, "a1", None, False, "green")
    assert still_to_run(plan, CHAIN, "a1", "green") == ("b1", "b2", "c1")
    assert still_to_run(plan, CHAIN, "b2", "green") == ("c1",)
    assert still_to_run(plan, CHAIN, "c1", "green") == ()
    down = make_plan(CHAIN, "c1", "base", True, "green")
    assert still_to_run(down, CHAIN, "b1", "green") == ("b1", "a1")
    assert still_to_run(down, CHAIN, None, "green") == ()


def test_a_database_that_was_taken_off_the_way_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        still_to_run(make_plan(CHAIN, "b1", None, False, "green"), CHAIN, "a1", "green")
    assert refused.value.code == "revision-moved"
