"""`python -m tests.mutants [--quick] [RULE …]`: mutants on copies, each with its test; exit 1 if one survived."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.rules import MUTANTS, Mutant, problem

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("dbsync", "tests", "examples", "migrations", "etl", "pyproject.toml")
LIMIT = 120.0
"""Seconds for the test of one mutant: a test that hangs has noticed."""
LIMIT_OF_ALL = 900.0
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a mutant's test said."""

    mutant: Mutant
    word: str
    """`killed`, `SURVIVED`, or `BROKEN` with the reason."""
    seconds: float = 0.0


def copied(place: Path) -> Path:
    """A copy of the project, without what has been compiled."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, place / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, place / part)
    return place


def environment(copy: Path) -> dict[str, str]:
    """An environment in which every Python that is started takes the copy, the programs that the tests start too."""
    return {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": ""}


def tested(copy: Path, limit: float, *nodes: str) -> tuple[int, str]:
    """The exit code of pytest over these tests in a copy, and what it said; ended with its group past `limit`."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nodes]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words, cwd=copy, env=environment(copy), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as run:
        try:
            said, more = run.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            return 1, "1 failed: it took too long"
    return run.returncode, said + more


def uses(copy: Path) -> None:
    """The copy is what a child of a child imports; an editable installation must not win."""
    asked = "import dbsync, tests; print(dbsync.__file__); print(tests.__file__)"
    words = [sys.executable, "-c", asked]
    with tempfile.TemporaryDirectory() as elsewhere:
        said = subprocess.run(
            words, cwd=elsewhere, env=environment(copy), capture_output=True, text=True, check=True
        ).stdout.split("\n")
    assert all(Path(line).is_relative_to(copy) for line in said if line), said


def judged(mutant: Mutant, copy: Path) -> Verdict:
    """Apply a mutant, run its test, and take it back."""
    began = time.monotonic()
    texts = {change.file: (copy / change.file).read_text() for change in mutant.changes}
    trouble = problem(mutant, texts)
    if trouble is not None:
        return Verdict(mutant, f"BROKEN: {trouble}")
    try:
        for name, text in texts.items():
            for change in mutant.changes:
                if change.file == name:
                    text = text.replace(change.old, change.new)
            (copy / name).write_text(text)
        code, said = tested(copy, LIMIT, "-x", mutant.test)
    finally:
        for name, text in texts.items():
            (copy / name).write_text(text)
    return Verdict(mutant, _word(code, said), time.monotonic() - began)


def _word(code: int, said: str) -> str:
    if code == 0:
        skipped = re.search(r"\b\d+ skipped", said) is not None and " passed" not in said
        return "BROKEN: its test was skipped" if skipped else "SURVIVED"
    # An error of a fixture, or of the collection, is no answer of the test's.
    if code == 1 and re.search(r"\b\d+ failed", said):
        return "killed"
    return f"BROKEN: {said.strip().splitlines()[-1] if said.strip() else code}"


def main(words: list[str]) -> int:
    """Run the mutants of these rules (all of them without). Gives the exit code.

    With `--quick` the tests are not run first without a mutant: then a test that always fails kills everything.
    """
    quick, rules = "--quick" in words, [word for word in words if word != "--quick"]
    chosen = [
        mutant for mutant in MUTANTS if not rules or mutant.rule in rules or any(rule in mutant.test for rule in rules)
    ]
    with tempfile.TemporaryDirectory(prefix="dbsync-mutants-") as name:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(WORKERS):
            copies.put(copied(Path(name) / str(number)))
        uses(Path(name) / "0")
        if not quick:
            nodes = dict.fromkeys(mutant.test for mutant in chosen)
            code, said = tested(Path(name) / "0", LIMIT_OF_ALL, "-n", str(WORKERS), *nodes)
            if code != 0:
                sys.stdout.write(f"{said}\nWithout a mutant these tests must pass.\n")
                return 1

        def one(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                verdict = judged(mutant, copy)
            finally:
                copies.put(copy)
            sys.stdout.write(
                f"{verdict.mutant.rule:>4}  {verdict.mutant.out:<92} {verdict.word} ({verdict.seconds:.0f} s)\n"
            )
            sys.stdout.flush()
            return verdict

        with ThreadPoolExecutor(WORKERS) as pool:
            verdicts = list(pool.map(one, chosen))
    left = [verdict for verdict in verdicts if verdict.word != "killed"]
    sys.stdout.write(f"{len(verdicts)} mutants, {len(verdicts) - len(left)} killed, {len(left)} not\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
