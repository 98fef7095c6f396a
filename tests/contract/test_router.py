"""The Router socket over a real Traefik: the file, the swap, the hold and its proof, and what is refused before."""

from __future__ import annotations

import http.client
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dbsync.adapters import traefik_files as files
from dbsync.adapters import traefik_site
from dbsync.adapters.gate import Control, Supervisor, listen, prepare
from dbsync.adapters.traefik import Routers, TraefikRouter
from dbsync.adapters.traefik_target import apart, leading_to
from dbsync.errors import ConfigError, Refused, Unavailable
from dbsync.model import Check, Severity
from tests.contract.traefik_rig import HOST, Backend, Traefik, fetch, main_router, site, traefik, wait_for

Site = tuple[Traefik, Backend, Backend]
SERVICES = {"blue": "blue-service", "green": "green-service"}
HOLD_FILES = {"00-dbsync-hold.yml", "01-dbsync-gate.yml"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    with site(certificate=True) as made:
        yield made


@pytest.fixture
def shop(shared: Site) -> Iterator[Site]:
    """The shared Traefik, as it was at the beginning: only the two files, leading to blue, no hold."""
    proxy, blue, green = shared
    wanted = main_router(blue.url, green.url)

    def restore() -> None:
        for path in proxy.dynamic.iterdir():
            if path.name not in wanted and path.name != "tls.yml":
                path.unlink()
        for name, text in wanted.items():
            if not (proxy.dynamic / name).exists() or (proxy.dynamic / name).read_text() != text:
                proxy.put(name, text)
        wait_for(lambda: plain(proxy))

    restore()
    yield shared
    restore()


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Requests under way are few where there is no load, and end at once."""
    if "under_load" not in request.node.name:
        monkeypatch.setattr(traefik_site, "LINGER", 0.02)


def plain(proxy: Traefik) -> bool:
    names = {item["name"] for item in proxy.ask("/api/http/routers?per_page=200") if item["provider"] == "file"}
    return names == {"main-router@file"} and proxy.service_of("main-router") == "blue-service"


@pytest.fixture
def made() -> Iterator[list[Routers]]:
    """Routers to close at the end."""
    routers: list[Routers] = []
    yield routers
    for router in routers:
        router.close()


def router_of(proxy: Traefik, made: list[Routers], **changes: Any) -> TraefikRouter:
    values: dict[str, Any] = {
        "file": proxy.dynamic / "main-router.yml",
        "router": "main-router",
        "services": SERVICES,
        "api": [proxy.api],
        "probe": [proxy.web],
        "probe_host": HOST,
        "state_dir": proxy.folder / "state",
        "gate_entrypoint": "",
    }
    router = TraefikRouter(**(values | changes))
    made.append(router)
    return router


def blockers(checks: tuple[Check, ...]) -> set[str]:
    return {check.code for check in checks if check.severity is Severity.BLOCKER}


@contextmanager
def gate(folder: Path, live: str = "blue") -> Iterator[tuple[str, str, Control, Supervisor]]:
    """A gate with its supervisor: URL, mark, control, supervisor."""
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    state = folder / "state" / f"gate-{secrets.token_hex(4)}.json"
    known = prepare(state, live)
    supervisor, control = Supervisor(sock, state), Control("127.0.0.1", port, known.control)
    supervisor.start()
    try:
        yield f"http://127.0.0.1:{port}", known.mark, control, supervisor
    finally:
        control.close()
        supervisor.stop()


@contextmanager
def held(proxy: Traefik, router: Routers) -> Iterator[tuple[Control, Supervisor]]:
    """A gate in front of the router, proven."""
    with gate(proxy.folder) as (url, mark, control, supervisor):
        router.install_hold(1, url, mark, "blue", 10)
        try:
            yield control, supervisor
        finally:
            router.remove_hold(10)


def post(proxy: Traefik, method: str = "POST", **headers: str) -> tuple[int, str]:
    status, body, _ = fetch(proxy.web_port, method, "/", {"Host": HOST} | headers)
    return status, body.decode()


@contextmanager
def load(proxy: Traefik, clients: int) -> Iterator[list[tuple[str, int, str]]]:
    """Clients on kept connections, a third of whose requests write; method, status and side of each answer."""
    done = threading.Event()
    answers: list[tuple[str, int, str]] = []

    def client(turn: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.web_port, timeout=20)
        while not done.wait(0.002):
            turn += 1
            method = "GET" if turn % 3 else "POST"
            connection.request(method, "/", headers={"Host": HOST})
            answer = connection.getresponse()
            answers.append((method, answer.status, answer.read().decode()))
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client, turn) for turn in range(clients)]
        try:
            yield answers
        finally:
            done.set()
        for future in futures:
            future.result()


# --- the file ----------------------------------------------------------------------------------------


FILES = {
    "comments": b"# a\nhttp:\n  routers:\n    main-router: # here\n      rule: x\n      service: blue-service # live\n",
    "crlf": b"http:\r\n  routers:\r\n    main-router:\r\n      service: blue-service\r\n      rule: x\r\n# end\r\n",
    "bom": b"\xef\xbb\xbfhttp:\n  routers:\n    main-router:\n      service: blue-service\n      rule: x",
    "flow": b"http: {routers: {main-router: {rule: x, service: blue-service}, o: {rule: y, service: blue-service}}}",
    "double quotes": b'http:\n  routers:\n    main-router:\n      rule: x\n      service: "blue-service"   \n',
    "single quotes": b"http:\n  routers:\n    'main-router':\n      rule: x\n      'service': 'blue-service'\n",
    "json": b'{"http": {"routers": {"main-router": {"rule": "x", "service": "blue-service"}}}}',
    "any case": b"HTTP:\n  Routers:\n    main-router:\n      Rule: x\n      Service: blue-service\n",
    "letters": "# Größe 日本\nhttp:\n  routers:\n    main-router: {service: blue-service, rule: 'ž'}\n".encode(),
    "provider": b"http:\n  routers:\n    main-router:\n      service: blue-service@file\n      rule: x\n",
}


@pytest.mark.parametrize("name", FILES)
def test_only_the_characters_of_the_service_are_exchanged(name: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(FILES[name])
    found = files.read(path, "http", "main-router")
    was = b"blue-service@file" if name == "provider" else b"blue-service"
    assert found.service == was.decode()
    changed = found.with_service("green-service@docker")
    assert changed == FILES[name].replace(was, b"green-service@docker", 1)
    path.write_bytes(changed)
    back = files.read(path, "http", "main-router").with_service(was.decode())
    assert back == FILES[name], "there and back again is not the same file"


def test_a_name_that_cannot_stand_plain_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(FILES["flow"])
    for service in ("a, b", "true", "12", "it's: #1", "@odd"):
        path.write_bytes(files.read(path, "http", "main-router").with_service(service))
        assert files.read(path, "http", "main-router").service == service


BROKEN = {
    "router-missing": [
        b"",
        b"http: {}",
        b"http:\n  routers:\n    other: {service: x}\n",
        b"tcp: {routers: {}}",
        b"[1]",
    ],
    "router-file-broken": [
        b"http: [",
        b"http:\n  routers:\n    main-router: {service: a}\n    main-router: {service: b}\n",
        b"http:\n  routers:\n    main-router: {service: '{{ env \"X\" }}'}\n",
        b"# {{ x }}\nhttp: {routers: {main-router: {service: a}}}\n",
        b"x: &s blue\nhttp:\n  routers:\n    main-router:\n      service: *s\n",
        b"http:\n  routers:\n    main-router:\n      service: &s blue\n    o: {service: *s}\n",
        b"x: &m {service: blue}\nhttp:\n  routers:\n    main-router:\n      <<: *m\n      rule: x\n",
        b"http:\n  routers:\n    main-router:\n      service: >-\n        blue\n",
        b"http:\n  routers:\n    main-router:\n      service: !!str blue\n",
        b"http:\n  routers:\n    main-router: {rule: x}\n",
        b"http: \xff",
        b"--- 1\n--- 2\n",
    ],
}


@pytest.mark.parametrize(("code", "content"), [(code, content) for code, many in BROKEN.items() for content in many])
def test_a_file_that_cannot_be_changed_safely_is_refused_by_name(code: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        files.read(path, "http", "main-router").with_service("green")
    assert raised.value.code == code
    assert path.read_bytes() == content


def test_missing_foreign_and_linked_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        files.read(tmp_path / "none.yml", "http", "main-router")
    assert raised.value.code == "router-file-missing"
    (tmp_path / "r.toml").write_text("[http]")
    with pytest.raises(ConfigError, match=r"\.toml is not YAML"):
        files.read(tmp_path / "r.toml", "http", "main-router")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "r.yml").write_bytes(FILES["flow"])
    (tmp_path / "link.yml").symlink_to(tmp_path / "elsewhere" / "r.yml")
    with pytest.raises(ConfigError, match="link to a file outside"):
        files.read(tmp_path / "link.yml", "http", "main-router")


def test_publishing_keeps_the_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    watched = tmp_path / "dynamic"
    watched.mkdir()
    path = watched / "r.yml"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.publish(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(watched.iterdir()) == [path] and list(tmp_path.iterdir()) == [watched]


def test_a_link_within_the_directory_stays_a_link(tmp_path: Path) -> None:
    watched = tmp_path / "dynamic"
    watched.mkdir()
    (watched / "real.yml").write_bytes(FILES["flow"])
    (watched / "r.yml").symlink_to("real.yml")
    files.publish(watched / "r.yml", b"new")
    assert (watched / "r.yml").is_symlink() and (watched / "real.yml").read_bytes() == b"new"


def test_only_one_process_writes_routes_at_a_time(tmp_path: Path) -> None:
    with files.locked(tmp_path, 1):
        with pytest.raises(Unavailable) as raised, files.locked(tmp_path, 0.05):
            pass
        assert raised.value.code == "route-locked"
    with files.locked(tmp_path, 0.05):
        pass


def test_hosts_that_differ_are_apart_and_anything_else_may_meet() -> None:
    assert apart("Host(`a.x`)", "Host(`b.x`) && Path(`/`)")
    assert not apart("Host(`a.x`)", "Host(`A.x`) && Path(`/`)")
    assert not apart("Host(`a.x`) || Path(`/`)", "Host(`b.x`)")
    assert not apart("Host(`a.x`)", "PathPrefix(`/`)")


def test_a_service_is_reached_through_weights_mirrors_and_failovers() -> None:
    services: list[Mapping[str, Any]] = [
        {"name": "w@file", "provider": "file", "weighted": {"services": [{"name": "m", "weight": 1}]}},
        {"name": "m@file", "provider": "file", "mirroring": {"service": "blue-service@docker"}},
        {"name": "other@file", "provider": "file", "failover": {"service": "x", "fallback": "y"}},
    ]
    assert leading_to("blue-service@docker", [dict(s) for s in services]) == {"blue-service@docker", "m@file", "w@file"}


# --- the swap -----------------------------------------------------------------------------------------


def test_the_route_is_read_from_the_proxy_and_from_the_file(shop: Site, made: list[Routers]) -> None:
    router = router_of(shop[0], made)
    (route,) = router.routes()
    assert (route.environment, route.service, route.replica) == ("blue", "blue-service", shop[0].api)
    assert router.written() == "blue"
    assert blockers(router.examine("blue")) == set()
    assert blockers(router.examine("green")) == {"route-disagrees"}


def test_a_swap_under_load_fails_no_request_and_changes_one_word(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made)
    before = (proxy.dynamic / "main-router.yml").read_bytes()
    with load(proxy, 4) as answers:
        for environment in ("green", "blue", "green"):
            assert {route.environment for route in router.switch(environment, 10)} == {environment}
            assert proxy.get() == (200, environment)
    assert {status for _, status, _ in answers} == {200}
    after = (proxy.dynamic / "main-router.yml").read_bytes()
    assert after == before.replace(b"blue-service", b"green-service")
    inode = (proxy.dynamic / "main-router.yml").stat().st_ino
    router.switch("green", 5)
    assert (proxy.dynamic / "main-router.yml").stat().st_ino == inode, "a swap to where it is wrote the file"


def test_a_swap_that_no_proxy_sees_is_written_and_not_confirmed(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made)
    (proxy.dynamic / "zz-broken.yml").write_text("http: [")
    with pytest.raises(Unavailable) as raised:
        router.switch("green", 0.5)
    assert raised.value.code == "route-not-confirmed" and raised.value.changed
    assert router.written() == "green" and router.routes()[0].environment == "blue"
    (proxy.dynamic / "zz-broken.yml").unlink()
    assert router.switch("green", 10)[0].environment == "green"


def test_a_stalled_operator_who_wakes_late_changes_nothing(shop: Site, made: list[Routers]) -> None:
    """protocol.md §8, number 25."""
    router = router_of(shop[0], made, still_live=lambda environment: environment == "blue")
    with pytest.raises(Refused) as raised:
        router.switch("green", 5)
    assert raised.value.code == "route-stale"
    assert router.written() == "blue"


def test_a_router_whose_name_only_ends_alike_is_another_one(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    proxy.put("two.yml", "http:\n  routers:\n    other-main-router: {rule: Path(`/o`), service: green-service}\n")
    wait_for(lambda: proxy.service_of("other-main-router"))
    assert [route.service for route in router_of(proxy, made).routes()] == ["blue-service"]
    (missing,) = router_of(proxy, made, router="router").routes()
    assert missing.environment is None and missing.service is None


# --- the hold -------------------------------------------------------------------------------------------


def test_held_writes_go_to_the_side_that_is_decided_and_reads_flow(shop: Site, made: list[Routers]) -> None:
    """protocol.md §8, number 9: abort with 100 held POSTs gives 100 × 200 from blue; then the same to green."""
    proxy = shop[0]
    router = router_of(proxy, made, gate_entrypoint="dbsync")
    with held(proxy, router) as (control, _), ThreadPoolExecutor(100) as pool:
        assert router.hold_present()
        assert {path.name for path in proxy.dynamic.iterdir()} >= HOLD_FILES
        for side in ("blue", "green"):
            control.hold(10)
            before = control.stats()["held"]
            posts = [pool.submit(post, proxy) for _ in range(100)]
            wait_for(lambda: control.stats()["waiting"] == 100)
            assert proxy.get() == (200, "blue")
            assert post(proxy, "HEAD")[0] == post(proxy, "OPTIONS")[0] == 200
            assert not any(future.done() for future in posts)
            stats = control.decide(side)
            assert stats["held"] - before == 100 and stats["waiting"] == 0 and stats["longest_ms"] > 0
            assert {future.result() for future in posts} == {(200, side)}
        assert control.stats()["passed"] == 200
        wait_for(lambda: router.writes_served() == 200)
        router.switch("green", 10)
    assert not router.hold_present() and not HOLD_FILES & {path.name for path in proxy.dynamic.iterdir()}
    assert proxy.get() == post(proxy) == (200, "green")


@pytest.mark.parametrize("entry_point", ["dbsync", ""])
def test_a_whole_handover_under_load_fails_no_request(entry_point: str, shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made, gate_entrypoint=entry_point)
    with load(proxy, 12) as answers, gate(proxy.folder) as (url, mark, control, _):
        router.install_hold(1, url, mark, "blue", 20)
        control.hold(10)
        wait_for(lambda: control.stats()["passed"] == router.writes_served(), told="writes do not drain")
        waiting = len(answers)
        wait_for(lambda: control.stats()["waiting"] >= 12)
        assert {side for method, _, side in answers[waiting:]} <= {"blue"}
        control.decide("green")
        decided = len(answers)
        router.switch("green", 20)
        router.remove_hold(20)
        wait_for(lambda: len(answers) > decided + 100)
    assert {status for _, status, _ in answers} == {200}
    # Reads that were under way at the decision may still say blue; nothing that began later does.
    assert {side for _, _, side in answers[decided + 24 :]} == {"green"}


def test_a_client_cannot_choose_its_side_and_no_header_of_ours_reaches_it(shop: Site, made: list[Routers]) -> None:
    proxy, blue, _ = shop
    with held(proxy, router_of(proxy, made)) as (control, _):
        for name in ("X-Dbsync-Side", "x-dbsync-side", "X-DBSYNC-SIDE"):
            assert post(proxy, **{name: "green"}) == (200, "blue")
            assert post(proxy, **{name: "green", "Connection": name}) == (200, "blue")
        assert proxy.get("/", **{"X-Dbsync-Mark": "guessed"}) == (200, "blue")
        assert not [name for name in blue.seen[-1][2] if name.startswith("x-dbsync")]
        control.hold(5)
        # It cannot pass for a read either.
        with ThreadPoolExecutor(1) as pool:
            forged = pool.submit(post, proxy, **{"X-Forwarded-Method": "GET"})
            wait_for(lambda: control.stats()["waiting"] == 1)
            control.decide("green")
            assert forged.result() == (200, "green")


def test_a_websocket_opened_in_the_hold_waits_and_lands_on_the_new_side(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    asked = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}

    def opened() -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.web_port, timeout=10)
        connection.request("GET", "/", headers={"Host": HOST} | asked)
        answer = connection.getresponse()
        assert answer.status == 101
        connection.close()
        return answer.headers["X-Backend"]

    with held(proxy, router_of(proxy, made)) as (control, _), ThreadPoolExecutor(1) as pool:
        control.hold(5)
        future = pool.submit(opened)
        wait_for(lambda: control.stats()["waiting"] == 1)
        assert control.decide("green")["passed"] == 0, "a websocket is not counted among the writes"
        assert future.result() == "green"


def test_no_request_fails_when_the_gates_worker_is_killed_in_the_hold(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made, gate_entrypoint="dbsync")
    with held(proxy, router) as (control, supervisor), ThreadPoolExecutor(60) as pool:
        control.hold(20)
        posts = [pool.submit(post, proxy) for _ in range(50)]
        wait_for(lambda: control.stats()["waiting"] == 50)
        os.kill(supervisor.pid or 0, 9)
        reads = [pool.submit(proxy.get) for _ in range(10)]
        wait_for(lambda: supervisor.poll() and supervisor.restarts == 1)
        wait_for(lambda: control.stats()["waiting"] == 50)
        assert {future.result() for future in reads} == {(200, "blue")}
        assert control.decide("green")["passed"] == -1, "how many passed is unknown after a restart, and must be said"
        assert {future.result() for future in posts} == {(200, "green")}


def test_writes_are_refused_with_retry_after_where_they_are_not_to_wait(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    with held(proxy, router_of(proxy, made, hold="reject")) as (control, _):
        control.reject()
        status, _, headers = fetch(proxy.web_port, "POST", "/", {"Host": HOST}, timeout=3)
        assert status == 503 and headers["Retry-After"] == "1"
        assert proxy.get() == (200, "blue")
        control.decide("blue")
        assert post(proxy) == (200, "blue")


def test_a_write_on_its_way_shows_between_passed_and_served(shop: Site, made: list[Routers]) -> None:
    proxy, blue, _ = shop
    router = router_of(proxy, made)
    blue.release.clear()
    with held(proxy, router) as (control, _), ThreadPoolExecutor(1) as pool:
        assert (control.stats()["passed"], router.writes_served()) == (0, 0)
        slow = pool.submit(fetch, proxy.web_port, "POST", "/slow", {"Host": HOST})
        wait_for(lambda: control.stats()["passed"] == 1)
        assert router.writes_served() == 0
        blue.release.set()
        assert slow.result()[0] == 200
        wait_for(lambda: router.writes_served() == 1)


def test_a_hold_behind_a_broken_file_is_not_confirmed_and_nothing_stays(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made)
    (proxy.dynamic / "zz-broken.yml").write_text("http: {routers: {x: {ruler: y}}}")
    with gate(proxy.folder) as (url, mark, control, _):
        with pytest.raises(Unavailable) as raised:
            router.install_hold(1, url, mark, "blue", 1)
        assert raised.value.code == "hold-not-confirmed"
        assert not router.hold_present() and post(proxy) == (200, "blue")
        assert control.stats()["passed"] == 0


def test_a_replica_without_the_hold_is_refused_and_the_other_is_let_go(shop: Site, made: list[Routers]) -> None:
    """protocol.md §8, number 8: one replica without the hold."""
    proxy, blue, green = shop
    with traefik(proxy.folder / "second") as deaf:
        for name, text in main_router(blue.url, green.url).items():
            deaf.put(name, text)
        wait_for(lambda: deaf.service_of("main-router"))
        router = router_of(proxy, made, api=[proxy.api, deaf.api], probe=[proxy.web, deaf.web])
        with gate(proxy.folder) as (url, mark, _, _), pytest.raises(Unavailable) as raised:
            router.install_hold(1, url, mark, "blue", 1)
        assert raised.value.code == "hold-not-confirmed" and deaf.api in raised.value.message
        assert not router.hold_present() and plain(proxy)
        with pytest.raises(Unavailable) as raised:
            router.switch("green", 1.5)
        assert raised.value.code == "route-not-confirmed" and deaf.api in raised.value.message


def test_a_gate_that_does_not_answer_for_itself_is_no_proof(shop: Site, made: list[Routers]) -> None:
    proxy, blue, _ = shop
    router = router_of(proxy, made)
    with pytest.raises(Unavailable) as raised:
        router.install_hold(1, blue.url, "mark", "blue", 1)
    assert raised.value.code == "hold-not-confirmed"
    assert not router.hold_present() and plain(proxy)


def test_the_hold_leaves_to_other_routers_what_is_theirs(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    # Its priority, the length of its rule, is one more than the main router's: exactly what the hold takes.
    rule = "PathPrefix(`/theirs0`)"
    rule = rule + " " * (22 + 1 - len(rule))
    proxy.put(
        "theirs.yml", f'http:\n  routers:\n    theirs: {{rule: "{rule}", priority: 23, service: green-service}}\n'
    )
    wait_for(lambda: proxy.service_of("theirs"))
    router = router_of(proxy, made)
    assert blockers(router.examine("blue")) == set()
    with held(proxy, router) as (control, _):
        control.hold(5)
        assert fetch(proxy.web_port, "POST", "/theirs0", {"Host": HOST}, timeout=3)[1] == b"green"
        control.decide("blue")


def test_the_users_own_middlewares_run_behind_the_gate(shop: Site, made: list[Routers]) -> None:
    proxy, blue, _ = shop
    text = (proxy.dynamic / "main-router.yml").read_text()
    proxy.put(
        "main-router.yml",
        text + "      middlewares: [own]\n  middlewares:\n    own: {headers: {customRequestHeaders: {X-Own: 'yes'}}}\n",
    )
    wait_for(lambda: (proxy.ask("/api/http/routers/main-router@file") or {}).get("middlewares"))
    with held(proxy, router_of(proxy, made)):
        assert post(proxy) == (200, "blue")
        assert blue.seen[-1][2]["x-own"] == "yes"


def test_removing_a_hold_that_is_not_there_is_harmless_even_with_the_proxy_down(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "main-router.yml").write_bytes(FILES["flow"])
    (tmp_path / "d" / "00-dbsync-hold.yml").write_text("{}")
    sock = listen("127.0.0.1", 0)
    api = f"http://127.0.0.1:{sock.getsockname()[1]}"
    sock.close()
    router = TraefikRouter(
        file=tmp_path / "d" / "main-router.yml",
        router="main-router",
        services=SERVICES,
        api=[api],
        state_dir=tmp_path / "s",
    )
    assert router.hold_present()
    router.remove_hold(1)
    router.remove_hold(1)
    assert not router.hold_present()
    with pytest.raises(Unavailable) as raised:
        router.routes()
    assert raised.value.code == "proxy-unreachable" and api in raised.value.message
    assert "proxy-unreachable" in blockers(router.examine("blue"))


def test_a_replica_that_cannot_say_whether_the_hold_is_gone_keeps_the_way_to_the_gate(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "main-router.yml").write_bytes(FILES["flow"])
    for name in HOLD_FILES:
        (tmp_path / "d" / name).write_text("{}")
    with listen("127.0.0.1", 0) as silent:
        # It takes connections and hangs up on each: not down, and no answer.
        done = threading.Event()

        def hang_up() -> None:
            silent.settimeout(0.05)
            while not done.is_set():
                with suppress(TimeoutError):
                    silent.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        router = TraefikRouter(
            file=tmp_path / "d" / "main-router.yml",
            router="main-router",
            services=SERVICES,
            api=[f"http://127.0.0.1:{silent.getsockname()[1]}"],
            state_dir=tmp_path / "s",
        )
        try:
            with pytest.raises(Unavailable) as raised:
                router.remove_hold(0.2)
        finally:
            done.set()
            thread.join()
    assert raised.value.code == "hold-not-removed" and raised.value.changed
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"main-router.yml", "01-dbsync-gate.yml"}


def test_an_older_epoch_does_not_replace_the_hold_of_a_newer_one(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made)
    with gate(proxy.folder) as (url, mark, _, _):
        router.install_hold(5, url, mark, "blue", 10)
        try:
            with pytest.raises(Refused) as raised:
                router.install_hold(4, url, mark, "blue", 10)
            assert raised.value.code == "route-epoch" and router.hold_present()
        finally:
            router.remove_hold(10)


# --- refused before anything happens -----------------------------------------------------------------------


def test_what_would_go_past_the_hold_or_lead_nowhere_is_named(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    proxy.put(
        "more.yml",
        "http:\n  routers:\n    past: {rule: Host(`past.x`), service: both}\n"
        "    twin: {rule: Host(`shop.localhost`), entryPoints: [web], service: green-service}\n"
        "  services:\n    both: {weighted: {services: [{name: blue-service, weight: 1}]}}\n"
        "    empty: {loadBalancer: {servers: []}}\n",
    )
    wait_for(lambda: proxy.service_of("past") and proxy.service_of("twin"))
    router = router_of(proxy, made)
    assert blockers(router.examine("blue")) == {"router-unlisted", "router-tie"}
    listed = router_of(proxy, made, ignore=["past"], hold="off")
    assert blockers(listed.examine("blue")) == set()
    nowhere = router_of(proxy, made, services={"blue": "blue-service", "green": "nothing"}, hold="off", ignore=["past"])
    assert blockers(nowhere.examine("blue")) == {"service-missing"}
    empty = router_of(proxy, made, services={"blue": "blue-service", "green": "empty"}, hold="off", ignore=["past"])
    assert blockers(empty.examine("blue")) == {"service-down"}
    (proxy.dynamic / "00-dbsync-hold.yml").write_text("{}")
    assert "hold-left-over" in blockers(listed.examine("blue"))


def test_a_hold_that_cannot_be_proven_at_every_replica_is_refused(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    router = router_of(proxy, made, probe=[])
    assert blockers(router.examine("blue")) == {"hold-unproven"}
    assert blockers(router_of(proxy, made, probe=[], hold="off").examine("blue")) == set()
    with pytest.raises(Refused) as raised:
        router.install_hold(1, "http://127.0.0.1:1", "mark", "blue", 1)
    assert raised.value.code == "hold-unproven" and not router.hold_present()


def test_something_else_than_the_api_is_named_as_such(shop: Site, made: list[Routers]) -> None:
    proxy, blue, _ = shop
    for url in (blue.url, f"{proxy.api}/dashboard"):
        with pytest.raises(Unavailable, match="is not the proxy's API"):
            router_of(proxy, made, api=[url]).routes()
    with pytest.raises(ConfigError):
        router_of(proxy, made, api=["ftp://x"])


def test_two_routers_of_one_directory_are_held_and_swapped_as_one(shop: Site, made: list[Routers]) -> None:
    proxy = shop[0]
    proxy.put(
        "admin.yml",
        "http:\n  routers:\n    admin: {rule: Host(`admin.x`), entryPoints: [web], service: blue-service}\n",
    )
    wait_for(lambda: proxy.service_of("admin"))
    main = router_of(proxy, made)
    assert blockers(main.examine("blue")) == {"router-unlisted"}
    admin = router_of(proxy, made, file=proxy.dynamic / "admin.yml", router="admin", probe_host="admin.x")
    both = Routers([main, admin])
    assert blockers(both.examine("blue")) == set() and both.written() == "blue"
    with held(proxy, both) as (control, _), ThreadPoolExecutor(2) as pool:
        control.hold(5)
        posts = [pool.submit(fetch, proxy.web_port, "POST", "/", {"Host": host}) for host in (HOST, "admin.x")]
        wait_for(lambda: control.stats()["waiting"] == 2)
        control.decide("green")
        assert {future.result()[1] for future in posts} == {b"green"}
        assert {route.environment for route in both.switch("green", 10)} == {"green"}
    assert both.written() == "green"


def test_a_router_that_the_proxy_splits_by_entry_point_is_held_and_swapped_whole(made: list[Routers]) -> None:
    with site(web_more="http: {encodedCharacters: {allowEncodedSlash: true}}") as (proxy, _, _):
        text = (proxy.dynamic / "main-router.yml").read_text().replace("[web]", "[web, tcp]")
        proxy.put("main-router.yml", text)
        router = router_of(proxy, made)
        wait_for(lambda: len(router.routes()) == 2)
        names = {item["name"] for item in proxy.ask("/api/http/routers") if item["provider"] == "file"}
        assert names == {"main-router@file", "web-main-router@file"}, "the proxy has not split it: nothing is shown"
        assert blockers(router.examine("blue")) == set()
        with held(proxy, router) as (control, _), ThreadPoolExecutor(2) as pool:
            control.hold(5)
            ports = (proxy.web_port, proxy.tcp_port)
            posts = [pool.submit(fetch, port, "POST", "/", {"Host": HOST}) for port in ports]
            wait_for(lambda: control.stats()["waiting"] == 2)
            control.decide("green")
            assert {future.result()[1] for future in posts} == {b"green"}
            wait_for(lambda: router.writes_served() == 2)
            assert {route.environment for route in router.switch("green", 10)} == {"green"}


def test_single_file_mode_and_metrics_without_labels_are_named(tmp_path: Path, made: list[Routers]) -> None:
    file = tmp_path / "dynamic" / "all.yml"
    file.parent.mkdir()
    file.write_text(
        "http:\n  routers:\n    main-router: {rule: Host(`shop.localhost`), service: blue-service}\n"
        "  services:\n    blue-service: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}\n"
        "    green-service: {loadBalancer: {servers: [{url: 'http://127.0.0.1:1'}]}}\n"
        "tcp:\n  routers:\n    sql: {rule: HostSNI(`*`), entryPoints: [tcp], service: blue-sql}\n"
        "  services:\n    blue-sql: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}\n"
        "    green-sql: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}\n"
    )
    with traefik(
        tmp_path / "t", file.parent, single_file=file, labels=False, gate_entrypoint=None, throttle="2s"
    ) as proxy:
        wait_for(lambda: proxy.ask("/api/http/services/blue-service@file"))
        router = router_of(proxy, made, file=file)
        assert blockers(router.examine("blue")) == {"hold-needs-directory"}
        assert blockers(router_of(proxy, made, file=file, hold="off").examine("blue")) == set()
        found = {check.code: check.found for check in router.examine("blue")}
        assert "cannot be counted" in found["proxy-metrics"] and "every 2s" in found["proxy-throttle"]
        sql = {"blue": "blue-sql", "green": "green-sql"}
        tcp = router_of(proxy, made, file=file, router="sql", kind="tcp", services=sql, probe=[])
        assert blockers(tcp.examine("blue")) == set()
        tcp.install_hold(1, "http://127.0.0.1:1", "mark", "blue", 1)
        assert not tcp.hold_present() and tcp.writes_served() is None
        assert tcp.switch("green", 10)[0].environment == "green" and tcp.written() == "green"
