"""The rigs of the Database socket: the same tests over the twin and over every real adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.contract.rig import Rig
from tests.contract.sqlite_file import File, Make


@pytest.fixture(params=["memory", "sqlite"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Blue and green with their tables, before `init`."""
    rig = Rig(request.param, tmp_path)
    yield rig
    rig.dispose()


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """Blue and green with dbsync installed; blue is live at epoch 1."""
    return bare.install()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Builds SQLite files out of statements; `name` other than `live` makes the idle side."""
    made: list[File] = []

    def build(*statements: str, name: str = "blue", live: str = "blue", exclude: Sequence[str] = ()) -> File:
        made.append(File(tmp_path / f"{name}{len(made)}.db", *statements, name=name, live=live, exclude=exclude))
        return made[-1]

    yield build
    for file in made:
        file.db.dispose()
