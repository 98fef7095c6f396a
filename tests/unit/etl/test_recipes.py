"""The chapter of recipes, run as it stands: every recipe a revision of one path, rows there and back."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.etl.project import Project

CHAPTER = Path(__file__).resolve().parents[3] / "docs" / "crossings.md"
RECIPE = re.compile(r"^## ([^\n]+)\n\n```sql\n(.*?)```\n\n```python\n(.*?)```", re.MULTILINE | re.DOTALL)

ROWS = {
    "Rename": "INSERT INTO thing VALUES (1, 'cup', 3), (2, 'pot', NULL)",
    "Split": "INSERT INTO customer VALUES (1, 'Ann', 'A 1', 'Oslo'), (2, 'Bo', NULL, NULL), (3, 'Cy', NULL, 'Bern')",
    "Merge": "INSERT INTO person VALUES (1, 'ann'), (2, 'bo'); INSERT INTO profile VALUES (1, 'reads')",
    "Move a column": (
        "INSERT INTO account VALUES (1, 'ann', 'a@x'), (2, 'bo', NULL), (3, 'cy', 'c@x');"
        " INSERT INTO login VALUES (1, 'ann1'), (2, 'bo2')"
    ),
    "Text becomes a lookup table": "INSERT INTO shipment VALUES (1, 'NO'), (2, 'CH'), (3, 'NO'), (4, NULL)",
    "Change a type, and keep what the older one cannot hold": "INSERT INTO reading VALUES (1, 20), (2, -3)",
    "A new column that must have a value": "INSERT INTO member VALUES (1, 5), (2, 100)",
    "Drop a column or a table": "INSERT INTO desk VALUES (1, 'A', '11'); INSERT INTO legacy VALUES (1, 'x')",
    "One row becomes several": (
        "INSERT INTO contact VALUES (1, 'Ann', '1', '2'), (2, 'Bo', NULL, '3'), (3, 'Cy', NULL, NULL)"
    ),
}
GREEN = {
    "SELECT * FROM article ORDER BY id": [(1, "cup", 3), (2, "pot", None)],
    "SELECT * FROM address ORDER BY 1": [(1, "A 1", "Oslo"), (3, None, "Bern")],
    "SELECT * FROM person ORDER BY id": [(1, "ann", "reads"), (2, "bo", None)],
    "SELECT * FROM login ORDER BY 1": [(1, "ann1", "a@x"), (2, "bo2", None)],
    "SELECT code FROM land ORDER BY 1": [("CH",), ("NO",)],
    "SELECT degrees, typeof(degrees) FROM reading ORDER BY id": [(20.0, "real"), (-3.0, "real")],
    "SELECT level FROM member ORDER BY id": [("basic",), ("gold",)],
    "SELECT * FROM desk": [(1, "A")],
    "SELECT * FROM phone ORDER BY 1, 2": [(1, "home", "1"), (1, "mobile", "2"), (2, "mobile", "3")],
}
ON_BLUE = """
UPDATE customer SET street = 'B 2' WHERE id = 2; UPDATE customer SET city = NULL WHERE id = 3;
UPDATE shipment SET land = 'SE' WHERE id = 2; DELETE FROM profile; UPDATE contact SET home = NULL WHERE id = 1;
"""
ON_GREEN = """
UPDATE address SET city = 'Rome' WHERE customer_id = 1; DELETE FROM address WHERE customer_id = 2;
INSERT INTO land VALUES ('IT', 'south'); UPDATE shipment SET land_code = 'IT' WHERE id = 1;
UPDATE reading SET degrees = 20.5 WHERE id = 1; UPDATE member SET level = 'black' WHERE id = 2;
UPDATE person SET bio = 'writes' WHERE id = 2; UPDATE login SET email = 'b@x' WHERE account_id = 2;
INSERT INTO phone VALUES (3, 'home', '9'); DELETE FROM phone WHERE contact_id = 2; UPDATE desk SET room = 'B';
"""
BLUE = {
    "SELECT * FROM customer ORDER BY id": [(1, "Ann", "A 1", "Rome"), (2, "Bo", None, None), (3, "Cy", None, None)],
    "SELECT * FROM profile": [(2, "writes")],
    "SELECT email FROM account ORDER BY id": [("a@x",), ("b@x",), ("c@x",)],
    "SELECT land FROM shipment ORDER BY id": [("IT",), ("SE",), ("NO",), (None,)],
    "SELECT degrees FROM reading ORDER BY id": [(20,), (-3,)],
    "SELECT * FROM desk": [(1, "B", "11")],
    "SELECT * FROM legacy": [(1, "x")],
    "SELECT home, mobile FROM contact ORDER BY id": [(None, "2"), (None, None), ("9", None)],
}


def recipes() -> dict[str, tuple[str, str, str]]:
    """(shape before, shape after, file) of each recipe."""
    found = {}
    for title, shapes, python in RECIPE.findall(CHAPTER.read_text(encoding="utf-8")):
        before, after = shapes.split("-- becomes\n")
        found[title] = before, after, python
    return found


def project(folder: Path) -> Project:
    revisions = {"0001": "".join(before for before, _, _ in recipes().values())}
    crossings = {}
    for number, (before, after, python) in enumerate(recipes().values(), 2):
        drops = "".join(f"DROP TABLE {name};\n" for name in re.findall(r"CREATE TABLE (\w+)", before))
        revisions[f"{number:04}"] = drops + after
        crossings[f"{number:04}_recipe.py"] = python
    return Project(folder, revisions, crossings)


def test_every_recipe_of_the_chapter_is_found_and_has_rows() -> None:
    assert list(recipes()) == list(ROWS)


def test_the_recipes_pass_the_check_carry_rows_there_and_back_and_lose_nothing(tmp_path: Path) -> None:
    shop = project(tmp_path)
    assert shop("etl", "check")["findings"] == []
    shop.begin(";\n".join(ROWS.values()))
    shop("sync", "--once")
    assert shop("verify")["equal"]
    for sql, rows in GREEN.items():
        assert shop.rows("green", sql) == rows, sql
    shop.sql("blue", ON_BLUE)
    shop("sync", "--once")
    assert shop("verify")["equal"]
    assert shop.rows("green", "SELECT code FROM land ORDER BY 1") == [("NO",), ("SE",)]
    assert "crossing-scans" not in {one["code"] for one in shop("doctor")["checks"]}
    shop("cutover", "--yes")
    shop.sql("green", ON_GREEN)
    shop("sync", "--once")
    assert shop("verify")["equal"]
    for sql, rows in BLUE.items():
        assert shop.rows("blue", sql) == rows, sql
    shop("rollback", "--yes")
    shop("sync", "--once")
    shop("verify")
    assert shop.rows("green", "SELECT degrees FROM reading ORDER BY id") == [(20.5,), (-3.0,)]
    assert shop.rows("green", "SELECT level FROM member ORDER BY id") == [("basic",), ("black",)]
