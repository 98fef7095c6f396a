"""The way there is broken: over the real command line and a real Traefik, a cutover is refused, or undone, or finished.

Never half-way: after each refusal the guards, the router file and the watched directory are what they were.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import standby
from tests.acceptance.rig import HERE, Answer, World, world
from tests.contract.traefik_rig import Traefik, backend, fetch, free_ports, traefik, traefik_binary, wait_for
from tests.standby import Process

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("route")]

ROOT = Path(__file__).parents[2]
BUSY_MS = 500.0
"""How late a request that was held may be answered on a machine that runs other tests; benchmarks ask for 50 ms."""
KEYS = {
    "from", "to", "epoch", "pause_ms", "predicted_pause_ms", "held", "steps", "route_confirmed", "next",
}  # fmt: skip


@dataclass
class Shop:
    """The world, its router file, and green applications, each a process of its own with its address."""

    world: World
    greens: list[tuple[Process, str]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """The router file."""
        return self.world.proxy.dynamic / "main-router.yml"

    def serve_green(self) -> None:
        """Start a green application of its own (one more stands ready each time)."""
        sides = [str(self.world.path(side)) for side in ("blue", "green")]
        line = [sys.executable, str(HERE / "served.py"), *sides]
        made = self.world.start(line, f"green-{len(self.greens)}")
        assert made.stdout is not None
        self.greens.append((made, f"http://127.0.0.1:{json.loads(made.stdout.readline())[1]}"))

    def lead_to_green(self) -> None:
        """Let the green service lead to the first green application that is left."""
        place, url = self.world.proxy.dynamic / "services.yml", self.greens[0][1]
        blue = next(line for line in place.read_text().splitlines(keepends=True) if "blue-service" in line)
        self.world.proxy.put(
            "services.yml",
            f'http:\n  services:\n{blue}    green-service: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}\n',
        )
        wait_for(lambda: self.leads("green-service") == [url], 10, "the green service does not lead there")

    def settled(self) -> bool:
        """Whether nothing of a handover is left to do."""
        made = self.world
        return made.live() == self.routed() and made.completed() and not made.holds() and made.custodian() is None

    def routed(self) -> str:
        """The side to which the router leads, by the proxy's word; empty where it knows none."""
        found = self.world.proxy.ask("/api/http/routers/main-router@file") or {}
        return str(found.get("service", "")).removesuffix("@file").removesuffix("-service")

    def side_of(self, path: str) -> str:
        """Which application answers a GET, by its own word."""
        status, _, headers = fetch(self.world.proxy.web_port, "GET", path)
        return headers.get("X-Side", "") if status == 200 else f"{status}"

    def leads(self, service: str) -> list[str]:
        """Where a service leads, by the proxy's word."""
        found = self.world.proxy.ask(f"/api/http/services/{service}@file") or {}
        return [server["url"] for server in found.get("loadBalancer", {}).get("servers", [])]

    def put(self, content: str | bytes) -> None:
        """Replace the router file as an operator does: another file in its place."""
        stage = self.world.folder / "stage"
        stage.write_bytes(content.encode() if isinstance(content, str) else content)
        stage.replace(self.file)

    @contextmanager
    def configured(self, *changes: tuple[str, str], more: str = "") -> Iterator[None]:
        """The configuration with some words exchanged, until the block ends."""
        before = self.world.config.read_text()
        text = before
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        self.world.config.write_text(text + more)
        try:
            yield
        finally:
            self.world.config.write_text(before)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Guards, router file and watched directory are the same afterwards, and nothing half-written lies about."""
        made = self.world
        before = made.guards(), self.file.read_bytes() if self.file.is_file() else None, made.holds()
        yield
        after = made.guards(), self.file.read_bytes() if self.file.is_file() else None, made.holds()
        assert after == before
        assert made.live() == "blue" and made.holds() == []
        assert list(made.folder.rglob(".dbsync-stage-*")) == []
        wait_for(lambda: made.custodian() is None, 10, "the custodian is still there")

    def refused(self, code: str, exit_code: int = 3, *words: str) -> Answer:
        """A cutover that is refused for one reason, and changed nothing."""
        done = self.world.here(*(words or ("cutover",)))
        assert (done.code, done.error) == (exit_code, code), done
        assert done.data["error"]["changed"] is False
        assert done.data["error"]["remedy"]
        assert "Traceback" not in done.told
        return done

    def blockers(self, done: Answer) -> set[str]:
        """The codes of everything that stood in the way."""
        return {one["code"] for one in done.data["error"]["blockers"]}

    def impatient(self, module: str, *words: str) -> Answer:
        """A command that believes after 2 s already that a replica does not follow."""
        made = self.world
        line = [sys.executable, "-m", "tests.acceptance.stall", f"dbsync.cutover.{module}:CONFIRM_SECONDS", "is", "2"]
        line += ["SIGCONT", *made.words(*words)]
        process = standby.start(line, ROOT, stdout=standby.PIPE, stderr=standby.PIPE)
        try:
            out, told = process.communicate(timeout=60)
        finally:
            process.kill()
        return Answer(process.wait(), json.loads(out), told)

    def goes(self, *words: str) -> dict[str, Any]:
        """A handover that must come to its end."""
        done = self.world.dbsync(*words)
        assert done.code == 0, done
        assert done.data.keys() >= KEYS
        assert self.world.holds() == []
        return done.data


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One world for all of this module, without load."""
    traefik_binary()
    with world(tmp_path_factory.mktemp("route"), traffic=False) as made:
        shop = Shop(made)
        shop.serve_green()
        shop.serve_green()
        shop.lead_to_green()
        yield shop


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    """The shop with blue live and the route leading there; what a test did is taken back by the road itself."""
    if not running.settled():
        running.goes("cutover", "--resume")
    if running.world.live() != "blue":
        running.goes("rollback")
    assert running.world.live() == "blue" and running.routed() == "blue"
    kept = running.file.read_bytes()
    yield running
    if running.world.live() == "blue" and running.file.read_bytes() != kept:
        running.put(kept)
        wait_for(lambda: running.routed() == "blue", 10)


@contextmanager
def replica(shop: Shop, dynamic: Path | None = None) -> Iterator[Traefik]:
    """A second Traefik with the same routers and both in the configuration; without `dynamic` it watches files of its
    own."""
    made = shop.world
    with traefik(made.folder / "second", dynamic, throttle="100ms", certificate=True) as other:
        for name in ("services.yml", "main-router.yml") if dynamic is None else ():
            other.put(name, (made.proxy.dynamic / name).read_text())
        wait_for(lambda: other.service_of("main-router") and other.get("/health")[0] == 200, 10)
        changes = (
            (f'["{made.proxy.api}"]', f'["{made.proxy.api}", "{other.api}"]'),
            (f'["{made.proxy.web}health"]', f'["{made.proxy.web}health", "{other.web}health"]'),
        )
        with shop.configured(*changes):
            yield other


# --- refused before anything happened ---------------------------------------------------------------


def test_a_replica_that_is_down_is_unavailable_and_the_road_is_open_once_it_is_back(shop: Shop) -> None:
    made, proxy = shop.world, shop.world.proxy
    with replica(shop, proxy.dynamic) as other:
        other.process.kill()
        other.process.wait(10)
        with shop.untouched():
            for words in (("cutover",), ("cutover", "--dry-run"), ("cutover", "--rehearse"), ("route", "show")):
                shop.refused("proxy-unreachable", 5, *words)
            told = made.good("status")
            assert (told["active"], told["route"]) == ("blue", None)
            found = made.here("doctor")
            assert found.code == 3
            assert [c["code"] for c in found.data["checks"] if c["severity"] == "blocker"] == ["proxy-unreachable"]
    with replica(shop, proxy.dynamic) as other:
        done = shop.goes("cutover", "--bake", "1500ms")
        assert (done["from"], done["to"]) == ("blue", "green")
        assert sorted(done["route_confirmed"]) == sorted([proxy.api, other.api])
        assert "rolled-back" not in done.get("warnings", [])
        assert (made.live(), shop.routed()) == ("green", "green")
        shown = made.good("route", "show")
        assert shown.keys() >= {"router", "service", "rules", "next"}
        assert (shown["router"], shown["service"]) == ("main-router", "green-service")
        assert [one["environment"] for one in shown["rules"]] == ["green", "green"]


def test_a_proxy_that_hangs_is_unavailable(shop: Shop) -> None:
    shop.world.proxy.process.send_signal(signal.SIGSTOP)
    try:
        with shop.untouched():
            shop.refused("proxy-unreachable", 5)
    finally:
        shop.world.proxy.process.send_signal(signal.SIGCONT)


def test_another_address_than_the_apis_is_unavailable(shop: Shop) -> None:
    (nobody,) = free_ports(1)
    with backend("a web page") as page, shop.untouched():
        for url in (f"http://127.0.0.1:{nobody}", page.url, shop.world.proxy.web.rstrip("/")):
            with shop.configured((shop.world.proxy.api, url)):
                shop.refused("proxy-unreachable", 5)
                shop.refused("proxy-unreachable", 5, "route", "show")


def gone(shop: Shop) -> None:
    shop.file.unlink()


def folder(shop: Shop) -> None:
    shop.file.unlink()
    shop.file.mkdir()


def writes(text: str) -> Callable[[Shop], None]:
    def write(shop: Shop) -> None:
        shop.put(text)

    return write


TEMPLATE = (
    '{{ $x := "blue-service" }}\nhttp:\n  routers:\n    main-router: {rule: PathPrefix(`/`), service: {{ $x }}}\n'
)


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        pytest.param(gone, "router-file-missing", id="missing"),
        pytest.param(folder, "router-file-unreadable", id="a folder"),
        pytest.param(writes("http: [routers: {"), "router-file-broken", id="not YAML"),
        pytest.param(writes("http: {routers: {other: {rule: R, service: s}}}\n"), "router-missing", id="no such name"),
        pytest.param(writes("http:\n  routers:\n"), "router-missing", id="no routers"),
        pytest.param(writes(TEMPLATE), "router-file-broken", id="a template"),
        pytest.param(writes("http: {routers: {main-router: {rule: R}}}\n"), "router-file-broken", id="no service"),
    ],
)
def test_a_router_file_that_cannot_be_used_is_bad_input(
    shop: Shop, break_it: Callable[[Shop], None], code: str
) -> None:
    kept = shop.file.read_bytes()
    break_it(shop)
    try:
        with shop.untouched():
            for words in (("cutover",), ("cutover", "--dry-run"), ("route", "show")):
                shop.refused(code, 2, *words)
            assert shop.world.good("status")["active"] == "blue"
            found = shop.world.here("doctor")
            assert found.code == 3 and code in {c["code"] for c in found.data["checks"] if c["severity"] == "blocker"}
    finally:
        if shop.file.is_dir():
            shutil.rmtree(shop.file)
        shop.put(kept)
        wait_for(lambda: shop.routed() == "blue", 10)


def test_a_file_that_is_not_yaml_by_its_name_is_bad_input(shop: Shop) -> None:
    with shop.configured(("main-router.yml", "main-router.toml")), shop.untouched():
        shop.refused("router-file-broken", 2)


def test_a_service_of_the_new_side_that_the_proxy_does_not_know_is_refused(shop: Shop) -> None:
    with shop.configured(('green = "green-service"', 'green = "gren-service"')), shop.untouched():
        done = shop.refused("service-missing")
        assert shop.blockers(done) == {"service-missing"}
        assert "gren-service" in done.data["error"]["blockers"][0]["found"]


def test_a_route_that_leads_elsewhere_than_the_guards_say_is_refused(shop: Shop) -> None:
    shop.put(shop.file.read_bytes().replace(b"blue-service", b"green-service"))
    wait_for(lambda: shop.routed() == "green", 10)
    with shop.untouched():
        shop.refused("route-disagrees")
        assert shop.world.good("status")["route"] == "green"


def test_without_a_probe_the_hold_is_unproven(shop: Shop) -> None:
    probe = f'probe    = ["{shop.world.proxy.web}health"]'
    with shop.configured((probe, "")), shop.untouched():
        done = shop.refused("hold-unproven")
        assert shop.blockers(done) == {"hold-unproven"}


def test_a_second_router_to_the_live_side_is_refused_until_it_is_ignored(shop: Shop) -> None:
    proxy = shop.world.proxy
    back = 'http: {routers: {back-office: {rule: "Host(`back`)", entryPoints: [web], service: blue-service}}}\n'
    place = proxy.put("back.yml", back)
    wait_for(lambda: proxy.service_of("back-office"), 10)
    try:
        with shop.untouched():
            done = shop.refused("router-unlisted")
            assert "back-office@file" in done.data["error"]["blockers"][0]["found"]
        ignored = (f'api      = ["{proxy.api}"]', f'api      = ["{proxy.api}"]\nignore = ["back-office"]')
        with shop.configured(ignored), shop.untouched():
            assert shop.world.good("cutover", "--dry-run")["dry_run"] is True
    finally:
        place.unlink()
        wait_for(lambda: proxy.service_of("back-office") is None, 10)


def test_a_refused_cutover_stands_in_the_journal_and_bad_input_does_not(shop: Shop) -> None:
    def entries() -> list[Any]:
        return [e for e in shop.world.good("history", "200")["entries"] if e["kind"] == "refused"]

    before = len(entries())
    with shop.configured(("main-router.yml", "other.yml")):
        shop.refused("router-file-missing", 2)
    assert len(entries()) == before
    with shop.configured(('green = "green-service"', 'green = "gren-service"')):
        shop.refused("service-missing")
    assert [e["data"]["code"] for e in entries()[before:]] == ["service-missing"]


# --- two replicas, of which one does not follow -------------------------------------------------------


def test_a_replica_that_does_not_follow_undoes_a_held_cutover_and_stops_an_unheld_one_with_the_way_on(
    shop: Shop,
) -> None:
    with replica(shop) as other:
        with shop.untouched():
            done = shop.impatient("run", "cutover")
            assert (done.code, done.error) == (5, "hold-not-confirmed"), done
            assert done.data["error"]["changed"] is False
        last = shop.world.good("history", "1")["entries"][-1]
        assert (last["kind"], last["data"]["why"]) == ("undone", "hold-not-confirmed")
        # Nothing is held: that one replica lags behind is seen when the new side is live already.
        with shop.configured(("[cutover]", '[cutover]\nhold = "off"')):
            done = shop.impatient("resolve", "cutover")
            assert (done.code, done.error) == (5, "route-not-confirmed"), done
            assert done.data["error"]["changed"] is True
            assert done.data["next"] == "dbsync cutover --resume"
            assert shop.world.guards()["green"][0] == "open"
            other.put("main-router.yml", shop.file.read_text())
            resumed = shop.goes("cutover", "--resume")
            assert resumed["active"] == "green" and shop.world.completed()
        other.put("main-router.yml", shop.file.read_text())
    assert shop.world.live() == "green" and shop.routed() == "green"


# --- somebody else writes the file meanwhile --------------------------------------------------------


@contextmanager
def meanwhile(shop: Shop, act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the proxy has taken the hold: what breaks a file before that undoes the handover."""
    over, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            found = shop.world.proxy.ask("/api/http/routers?search=dbsync") if shop.world.holds() else None
            if any(one["status"] == "enabled" and "main-router" in one["name"] for one in found or ()):
                act()
                done.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
    assert done.is_set(), "the hold was never seen"


OWN_WAYS = (
    "\ufeff# Ladentür – bitte nicht anfassen\r\nhttp:\r\n  routers:\r\n    main-router:\r\n"
    "      entryPoints: [web]   # nur dieser\r\n      service: 'blue-service'   # blue-service war zuerst da\r\n"
    "      rule: PathPrefix(`/`)\r\n\r\n# blue-service\r\n"
).encode()


def test_only_the_name_changes_there_and_back_and_what_somebody_else_writes_meanwhile_stays(shop: Shop) -> None:
    shop.put(OWN_WAYS)
    wait_for(lambda: shop.routed() == "blue", 10)
    edited = OWN_WAYS.replace(b"main-router:\r\n", b"main-router:   # edited by hand\r\n")
    with meanwhile(shop, lambda: shop.put(edited)):
        shop.goes("cutover")
    assert shop.file.read_bytes() == edited.replace(b"service: 'blue-service'", b"service: 'green-service'")
    assert shop.routed() == "green"
    shop.goes("rollback")
    assert shop.file.read_bytes() == edited


def test_a_router_file_that_somebody_breaks_meanwhile_is_said_with_the_way_on(shop: Shop) -> None:
    kept = shop.file.read_bytes()
    try:
        with meanwhile(shop, lambda: shop.put(b"http: [")):
            done = shop.world.dbsync("cutover")
        assert (done.code, done.error) == (5, "route-not-confirmed"), done
        assert "Traceback" not in done.told
        # Past the cede there is only forward, and the gate keeps sending everything there.
        assert done.data["error"]["changed"] is True
        assert done.data["next"] == "dbsync cutover --resume"
        assert shop.world.guards()["green"][0] == "open"
        assert shop.side_of("/health") == "green"
    finally:
        shop.put(kept)
    assert shop.goes("cutover", "--resume")["active"] == "green"
    assert shop.world.live() == "green" and shop.settled()
    assert shop.file.read_bytes() == kept.replace(b"blue-service", b"green-service")


# --- what a customer sees ------------------------------------------------------------------------------


@dataclass
class Customers:
    """Some who write and one who reads, all the time: in a pause of milliseconds one of them comes."""

    port: int
    name: str
    over: threading.Event = field(default_factory=threading.Event)
    taken: list[str] = field(default_factory=list)
    turned_away: list[tuple[int, str | None]] = field(default_factory=list)
    """Status and Retry-After of writes that were not taken."""
    reads: list[int] = field(default_factory=list)

    def write(self, writer: int) -> None:
        number = 0
        while not self.over.wait(0.003):
            number += 1
            token = f"{self.name}-{writer}-{number}"
            body = json.dumps({"token": token})
            status, headers = self._ask("POST", "/items", body)
            if status == 201:
                self.taken.append(token)
            else:
                self.turned_away.append((status, headers.get("Retry-After")))

    def read(self) -> None:
        while not self.over.wait(0.003):
            self.reads.append(self._ask("GET", "/items/seed-1")[0])

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()


@contextmanager
def customers(shop: Shop, name: str) -> Iterator[Customers]:
    made = Customers(shop.world.proxy.web_port, name)
    threads = [threading.Thread(target=made.write, args=(writer,)) for writer in range(3)]
    threads += [threading.Thread(target=made.read)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: made.taken and made.reads)
        yield made
        seen = len(made.taken)
        wait_for(lambda: len(made.taken) > seen + 5, 10, "no write is taken afterwards")
    finally:
        made.over.set()
        for thread in threads:
            thread.join(25)


def test_writes_that_are_not_to_wait_are_turned_away_and_nothing_else_fails(shop: Shop) -> None:
    for again in range(3):  # the pause is short: where the machine is busy no write may come while it lasts
        with shop.configured(("[cutover]", '[cutover]\nhold = "reject"')), customers(shop, f"reject-{again}") as seen:
            done = shop.goes("cutover")
        fails_nothing(shop, seen, "green")
        if seen.turned_away:
            break
        shop.goes("rollback")
    assert seen.turned_away, "no write came while they were turned away"
    assert all(after is not None and int(after) >= 1 for _, after in seen.turned_away)
    assert {"hold", "release"} <= {step["name"] for step in done["steps"]}
    with shop.configured(("[cutover]", '[cutover]\nhold = "off"')), customers(shop, "off") as seen:
        done = shop.goes("rollback")
    fails_nothing(shop, seen, "blue")
    # The application meets the closed side's own refusal until the route is swapped.
    assert all(after is None for _, after in seen.turned_away)
    assert not {"gate", "hold", "settle", "release", "ungate"} & {step["name"] for step in done["steps"]}


def fails_nothing(shop: Shop, seen: Customers, live: str) -> None:
    assert (shop.world.live(), shop.routed()) == (live, live)
    assert set(seen.reads) == {200}
    assert {status for status, _ in seen.turned_away} <= {503}
    there = {token for (token,) in shop.world.ask(live, "SELECT token FROM item")}
    assert set(seen.taken) <= there


def test_a_rehearsal_holds_and_fences_and_leaves_everything_as_it_was(shop: Shop) -> None:
    with shop.untouched(), customers(shop, "rehearsed") as seen:
        done = shop.goes("cutover", "--rehearse")
    assert done["rehearsed"] is True and done["from"] == "blue"
    assert 0 < done["pause_ms"] < 2000
    assert done["held"]["requests"] > 0 and done["held"]["longest_ms"] <= done["pause_ms"] + BUSY_MS
    assert done["next"] == "dbsync cutover"
    names = {step["name"] for step in done["steps"]}
    assert {"hold", "fence", "drain", "recheck"} <= names and not {"cede", "open"} & names
    assert (set(seen.reads), seen.turned_away) == ({200}, [])
    last = shop.world.good("history", "1")["entries"][-1]
    assert (last["kind"], last["data"]["why"]) == ("undone", "rehearsed")


def test_a_new_side_whose_application_dies_while_it_bakes_is_left_again(shop: Shop) -> None:
    made = shop.world
    line = [*made.program(), *made.words("cutover", "--bake", "20s")]
    baking = made.start(line, "baking")
    try:
        wait_for(lambda: made.live() == "green" and made.completed() and shop.routed() == "green", 30)
        made.end(shop.greens.pop(0)[0])
        out, _ = baking.communicate(timeout=40)
    finally:
        made.end(baking)
        shop.lead_to_green()
    done = json.loads(out)
    assert baking.returncode == 0, done
    assert (done["from"], done["to"]) == ("green", "blue")
    assert "rolled-back" in done["warnings"]
    made.check_whole()
    assert made.live() == "blue" and fetch(made.proxy.web_port, "GET", "/health")[0] == 200
