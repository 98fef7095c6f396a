"""The edge: a real Traefik before two applications, the real program, its custodian and gate (protocol, section 8)."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dbsync.adapters.traefik import TraefikRouter
from dbsync.errors import Refused
from tests.acceptance.protocol_rig import BUSY, CEDE, Installation, installation, state_of, until
from tests.contract.traefik_rig import HOST, Traefik, fetch
from tests.contract.traefik_rig import site as proxied
from tests.contract.traefik_rig import traefik as one_more

ROUTER = """[router]
provider = "traefik-file"
file = "{file}"
router = "main-router"
services = {{ blue = "blue-service", green = "green-service" }}
api = [{api}]
probe = [{probe}]
probe_host = "{host}"
"""


def router_of(*replicas: Traefik) -> str:
    return ROUTER.format(
        file=replicas[0].dynamic / "main-router.yml",
        api=", ".join(f'"{one.api}"' for one in replicas),
        probe=", ".join(f'"{one.web}"' for one in replicas),
        host=HOST,
    )


@contextmanager
def shop(folder: Path, pause: str) -> Iterator[tuple[Installation, Traefik]]:
    with (
        proxied(throttle="100ms", certificate=True) as (proxy, _blue, _green),
        installation(folder, pause, router_of(proxy)) as made,
    ):
        yield made, proxy


def post(proxy: Traefik, timeout: float = 30.0) -> tuple[int, str]:
    """Status and body of a POST through the proxy."""
    try:
        status, body, _ = fetch(proxy.web_port, "POST", "/", {"Host": HOST}, timeout)
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    return status, body.decode()


def taken(proxy: Traefik, by: str) -> bool:
    return post(proxy, 1.0) == (200, by)


@pytest.mark.kill
def test_a_killed_coordinator_leaves_no_write_waiting(tmp_path: Path) -> None:
    """Protocol test 8: killed while it holds: the custodian lets every write through to the side that is live."""
    with shop(tmp_path, "2s") as (site, proxy):
        site.killed("cutover", at=CEDE)
        until(lambda: taken(proxy, "blue"), 4.0 + BUSY, "POST does not work again")
        assert site.live() == ["blue"]
        until(lambda: not (site.folder / ".dbsync" / "handover.json").exists(), 20)
        assert not list(proxy.dynamic.glob("*dbsync*")), "the hold was left behind"


@pytest.mark.kill
def test_a_follower_takes_an_orphan_hold_away_when_the_whole_group_was_killed(tmp_path: Path) -> None:
    """Protocol test 8: coordinator, custodian and gate are gone; a follower that is started makes POST work again."""
    with shop(tmp_path, "2s") as (site, proxy):
        stalled = site.stopped("cutover", at=CEDE)
        custodian = site.custodian()
        gates = [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if (entry / "stat").exists() and _parent(entry) == custodian
        ]
        for pid in (custodian, *gates, stalled.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: state_of(custodian) in ("Z", ""))
        follower = site.start("sync")
        until(lambda: taken(proxy, "blue"), 20.0, "POST does not work again")
        until(lambda: not list(proxy.dynamic.glob("*dbsync*")), 20.0, "the hold was left behind")
        follower.send_signal(signal.SIGTERM)
        assert site.ended(follower).code == 0
        assert site.live() == ["blue"]


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_a_replica_that_does_not_take_the_hold_is_refused_and_undone(tmp_path: Path) -> None:
    """Protocol test 8: one of two replicas does not follow: nothing was changed, and everything passes again."""
    with (
        proxied(throttle="100ms", certificate=True) as (proxy, _blue, _green),
        one_more(tmp_path / "second", throttle="100ms") as other,
    ):
        for name in ("services.yml", "main-router.yml"):  # its own directory: no hold will ever lie there
            other.put(name, (proxy.dynamic / name).read_text())
        until(lambda: other.get()[0] == 200)
        with installation(tmp_path, "2s", router_of(proxy, other)) as site:
            patience = ("dbsync.cutover.run:CONFIRM_SECONDS", "is", "3", "SIGCONT")
            done = site.ended(site.start("cutover", stall=patience))
            assert (done.code, done.refusal) == (5, "hold-not-confirmed"), done
            assert not done.data["error"]["changed"]
            assert site.live() == ["blue"] and taken(proxy, "blue")
            assert not list(proxy.dynamic.glob("*dbsync*"))


@pytest.mark.kill
def test_an_abort_sends_every_held_write_to_the_old_side(tmp_path: Path) -> None:
    """Protocol test 9: 100 held POSTs, a coordinator that does not decide: 100 times 200 from blue."""
    with shop(tmp_path, "4s") as (site, proxy), ThreadPoolExecutor(100) as pool:
        site.stopped("cutover", at=CEDE)
        posts = [pool.submit(post, proxy) for _ in range(100)]
        answers = [future.result(30) for future in posts]
        assert answers == [(200, "blue")] * 100
        until(lambda: not (site.folder / ".dbsync" / "handover.json").exists(), 20)
        assert site.live() == ["blue"]


def test_a_reader_on_a_kept_connection_sees_the_new_side_and_a_late_operator_changes_nothing(tmp_path: Path) -> None:
    """Protocol test 25: a pooled reader within 5 s; a route write planned before the handover comes after it."""
    with shop(tmp_path, "4s") as (site, proxy):
        late = TraefikRouter(
            file=proxy.dynamic / "main-router.yml",
            router="main-router",
            services={"blue": "blue-service", "green": "green-service"},
            api=[proxy.api],
            state_dir=site.folder / ".dbsync",
            still_live=lambda name: site.guard(name)[0] == "open",
        )
        reader = http.client.HTTPConnection("127.0.0.1", proxy.web_port, timeout=10)
        assert read(reader) == "blue"
        done = site.ok("cutover")
        ended = time.monotonic()
        until(lambda: read(reader) == "green", 5.0)
        assert time.monotonic() - ended < 5.0 + BUSY
        reader.close()
        assert done["route_confirmed"] and done["held"]["requests"] == 0
        with pytest.raises(Refused) as refused:
            late.switch("blue", 1.0)
        late.close()
        assert refused.value.code == "route-stale"
        assert "service: green-service" in (proxy.dynamic / "main-router.yml").read_text()
        assert taken(proxy, "green")


def read(connection: http.client.HTTPConnection) -> str:
    """Which side answers a GET on this connection."""
    connection.request("GET", "/", headers={"Host": HOST})
    return connection.getresponse().read().decode()
