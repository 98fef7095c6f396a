"""Both releases of the shop answer alike over HTTP, whatever shape lies below."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.unit.shop.conftest import Start

PERSON = {"first_name": "Mary Ann", "last_name": "Berg", "email": "mary@x.example", "street": "S 1", "city": "Bergen"}
ORDER = {"token": "t1", "customer_id": 3, "lines": [{"product_id": 5, "qty": 2}, {"product_id": 5, "qty": 1}]}


class Client:
    """One kept connection."""

    def __init__(self, server: Any) -> None:
        self.connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)

    def ask(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
        self.connection.request(method, path, raw if body is None else json.dumps(body))
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture(params=[1, 2])
def release(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def client(release: int, databases: dict[int, Path], serve: Start) -> Iterator[Client]:
    found = Client(serve(release, databases[release]))
    yield found
    found.connection.close()


def test_both_releases_answer_the_same_requests_with_the_same_objects(databases: dict[int, Path], serve: Start) -> None:
    requests = [
        ("GET", "/customers/7", None),
        ("GET", "/orders/9", None),
        ("POST", "/customers", PERSON),
        ("GET", "/customers/41", None),
        ("PUT", "/customers/41/email", {"email": "m.berg@x.example"}),
        ("GET", "/customers/41", None),
        ("PUT", "/customers/999/email", {"email": "nobody@x.example"}),
        ("POST", "/orders", ORDER),
        ("POST", "/orders", {**ORDER, "token": "t2", "customer_id": 999}),
        ("POST", "/orders", {**ORDER, "token": "t3", "lines": [{"product_id": 9999, "qty": 1}]}),
        ("POST", "/customers", {**PERSON, "email": "customer1.0@shop.example"}),
        ("GET", "/orders/999", None),
        ("GET", "/nothing", None),
        ("POST", "/orders", {"token": "t4"}),
    ]
    given: dict[int, list[tuple[int, Any]]] = {}
    for release, path in databases.items():
        client = Client(serve(release, path))
        given[release] = [client.ask(method, where, body) for method, where, body in requests]
        client.connection.close()
    first, second = given[1], given[2]
    assert first[2] == (201, {"id": 41, "release": 1}) and second[2] == (201, {"id": 41, "release": 2})
    assert [status for status, _ in first] == [200, 200, 201, 200, 200, 200, 404, 201, 409, 409, 409, 404, 404, 400]
    assert first[:2] + first[3:] == second[:2] + second[3:]
    assert first[5][1]["name"] == "Mary Ann Berg"


def test_an_order_is_there_as_soon_as_it_is_acknowledged(client: Client) -> None:
    status, made = client.ask("POST", "/orders", ORDER)
    assert status == 201
    status, order = client.ask("GET", f"/orders/{made['id']}")
    assert status == 200
    assert (order["token"], order["lines"]) == (ORDER["token"], ORDER["lines"])
    assert order["total_cents"] == made["total_cents"] > 0


def test_a_token_sent_twice_makes_one_order(client: Client) -> None:
    assert client.ask("POST", "/orders", ORDER) == client.ask("POST", "/orders", ORDER)


@pytest.mark.parametrize("sort", ["ROLLBACK", "ABORT", "FAIL"])
def test_a_write_that_dbsync_refuses_is_a_503_and_leaves_no_transaction_open(
    release: int, databases: dict[int, Path], serve: Start, sort: str
) -> None:
    with closing(sqlite3.connect(databases[release])) as db:
        refusal = f"SELECT RAISE({sort}, 'dbsync: not the active one')"
        db.execute(f"CREATE TRIGGER closed BEFORE INSERT ON orders BEGIN {refusal}; END")
        client = Client(serve(release, databases[release]))
        status, told = client.ask("POST", "/orders", ORDER)
        assert status == 503 and told["error"].startswith("dbsync:")
        # The write lock is free again at once, and reads go on.
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
        assert client.ask("GET", "/orders/1")[0] == 200
        client.connection.close()


def test_a_body_that_is_no_json_is_a_400(client: Client) -> None:
    assert client.ask("POST", "/orders", raw=b"{")[0] == 400
    assert client.ask("POST", "/orders", raw=b"[1]")[0] == 400


def test_the_health_names_the_side_and_is_503_until_the_database_has_the_release_s_shape(
    release: int, databases: dict[int, Path], serve: Start, tmp_path: Path, scripts: tuple[str, str, str]
) -> None:
    path = tmp_path / "late.db"
    client = Client(serve(release, path))
    assert client.ask("GET", "/health")[0] == 503
    assert not path.exists()
    with closing(sqlite3.connect(path)) as db:
        assert client.ask("GET", "/health")[0] == 503
        assert client.ask("GET", "/orders/1")[0] == 503
        for script in scripts[:release]:
            db.executescript(script)
        client.connection.request("GET", "/health")
        response = client.connection.getresponse()
        assert response.getheader("X-Shop-Side") == {1: "blue", 2: "green"}[release]
        assert json.loads(response.read())["ready"] is True
    client.connection.close()
