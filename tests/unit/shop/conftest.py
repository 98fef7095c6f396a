"""The shop's modules by their plain names, and its databases in both shapes."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SHOP = ROOT / "examples" / "shop"

Start = Callable[[int, Path], Any]


@pytest.fixture(autouse=True, scope="session")
def shop_modules() -> Iterator[None]:
    """The shop's programs are run by path, so its modules import each other by plain names."""
    sys.path.insert(0, str(SHOP))
    yield
    sys.path.remove(str(SHOP))


@pytest.fixture(scope="session")
def scripts() -> tuple[str, str, str]:
    """The SQL from nothing to 0001, from 0001 to 0002, and back to 0001."""
    from dbsync.adapters.alembic import AlembicScripts

    shop = AlembicScripts(ROOT / "migrations")
    first, second = shop.script("sqlite", None, "0001", False), shop.script("sqlite", "0001", "0002", False)
    return first, second, shop.script("sqlite", "0002", "0001", True)


@pytest.fixture
def databases(tmp_path: Path, scripts: tuple[str, str, str]) -> dict[int, Path]:
    """The same few rows in release 1's shape and, migrated, in release 2's."""
    import seed

    paths = {1: tmp_path / "blue.db", 2: tmp_path / "green.db"}
    for release, path in paths.items():
        with closing(sqlite3.connect(path)) as db:
            db.executescript(scripts[0])
            with db:
                seed.seed(db, customers=40, orders=30)
            if release == 2:
                db.executescript(scripts[1])
    return paths


@pytest.fixture
def serve() -> Iterator[Start]:
    """`serve(release, database)`: a shop that is serving; gives its server."""
    import app

    with ExitStack() as stack:

        def start(release: int, database: Path) -> Any:
            server = app.make_server(release, database, {1: "blue", 2: "green"}[release])
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start
