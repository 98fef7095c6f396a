"""Reading the crossings' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbsync.adapters.crossings import load_crossings
from dbsync.errors import ConfigError

GOOD = "from dbsync.etl import Crossing, table\nforward = Crossing(table('t', select='SELECT id FROM t'))\n"


def test_a_folder_that_does_not_exist_holds_no_crossings(tmp_path: Path) -> None:
    assert load_crossings(tmp_path / "nothing", ["a"]) == {}


def test_a_file_belongs_to_the_longest_revision_that_its_name_begins_with(tmp_path: Path) -> None:
    for name in ("0001.py", "0001_a_split.py", "0002_x.py", "0003x.py", "other.py", "0004.txt"):
        (tmp_path / name).write_text(GOOD)
    found = load_crossings(tmp_path, ["0001", "0001_a", "0002", "0003", "0004"])
    assert {revision: pair.path.name for revision, pair in found.items()} == {
        "0001": "0001.py",
        "0001_a": "0001_a_split.py",
        "0002": "0002_x.py",
    }
    assert found["0001"].forward.tables[0].name == "t" and found["0001"].reverse is None
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("forward = (", "line 1"),
        ("\nraise ValueError('no good')", "line 2: ValueError: no good"),
        ("raise SystemExit(3)", "SystemExit"),
        ("forward = 3", "forward is a int, not a Crossing"),
        ("x = 1", "neither forward nor reverse"),
        ("from dbsync.etl import table\ntable('t', cardinality='2')", "cardinality is one of"),
        ("import no_such_module_at_all", "No module named"),
        ("x = '\x00'", "null bytes"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_the_cause(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "0001_x.py").write_text(text)
    with pytest.raises(ConfigError, match="0001_x.py") as caught:
        load_crossings(tmp_path, ["0001"])
    assert found in caught.value.message and caught.value.code == "broken-crossing"


def test_two_files_for_one_revision_and_a_file_for_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0001.py").write_text(GOOD)
    (tmp_path / "0001_again.py").write_text(GOOD)
    with pytest.raises(ConfigError, match="another file"):
        load_crossings(tmp_path, ["0001"])
    with pytest.raises(ConfigError, match="not a folder"):
        load_crossings(tmp_path / "0001.py", ["0001"])


def test_a_crossing_may_use_a_dataclass_and_text_that_is_not_ascii(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    b: int = 1\n"
    )
    (tmp_path / "0001.py").write_text(text + GOOD.replace("'t'", "'größe'").split("\n", 1)[0] + "\n" + GOOD, "utf-8")
    assert load_crossings(tmp_path, ["0001"])["0001"].forward
