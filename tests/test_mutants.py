"""Every mutant still applies, every numbered rule has one, and every one names a test that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.rules import MUTANTS, Mutant, problem

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"4", "16", "19", "23"}
"""These need a SQL Server or Kafka."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule} {mutant.out}")
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    read = {change.file: (ROOT / change.file).read_text() for change in mutant.changes}
    assert problem(mutant, read) is None
    changed = dict(read)
    for change in mutant.changes:
        changed[change.file] = changed[change.file].replace(change.old, change.new)
    for text in changed.values():
        ast.parse(text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule} {mutant.out}")
def test_the_test_of_a_mutant_is_there_and_says_its_number(mutant: Mutant) -> None:
    file, _, node = mutant.test.partition("::")
    functions = [n for n in ast.parse((ROOT / file).read_text()).body if isinstance(n, ast.FunctionDef)]
    (found,) = [function for function in functions if function.name == node.partition("[")[0]]
    said = ast.get_docstring(found) or ""
    wanted = f"Protocol test {mutant.rule}:" if mutant.rule.isdecimal() else "Protocol, section"
    assert said.startswith(wanted)


def test_every_numbered_rule_has_a_mutant() -> None:
    numbers = {str(number) for number in range(1, 26)} - ELSEWHERE
    assert {mutant.rule for mutant in MUTANTS if mutant.rule.isdecimal()} == numbers
