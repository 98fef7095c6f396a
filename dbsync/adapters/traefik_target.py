"""One configured router of the proxy: its file, its two services, and every replica's API and entry point."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.adapters.traefik_files import RouterFile, read
from dbsync.adapters.traefik_hold import OURS, Held
from dbsync.adapters.traefik_http import Api, Connection, bare, matching, qualified
from dbsync.errors import Unavailable
from dbsync.model import Route

POLL = 0.02
_HOSTS = re.compile(r"^Host\(`([^`]+)`\)(?: *&&|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A router as it was configured. `probes` are in the order of `apis`; there may be none."""

    file: Path
    router: str
    kind: str
    services: Mapping[str, str]
    apis: Sequence[Api]
    probes: Sequence[Connection]
    ignore: Sequence[str]

    @property
    def directory(self) -> Path:
        """The watched directory, as far as can be told from here."""
        return self.file.parent

    def read(self) -> RouterFile:
        """The router file as it is now. Raises ConfigError."""
        return read(self.file, self.kind, self.router)

    def environment_of(self, service: str | None) -> str | None:
        """The environment that a service as written stands for; None for any other."""
        return next((name for name, own in self.services.items() if bare(own) == bare(service)), None)

    def routes(self, api: Api) -> list[Route]:
        """What one replica says of this router. Raises Unavailable."""
        found = [self._route(api, entry) for entry in api.router(self.kind, self.router)]
        return found or [Route(self.router, None, None, api.shown, detail="the proxy knows no such router")]

    def _route(self, api: Api, entry: Mapping[str, Any]) -> Route:
        service = str(entry.get("service") or "")
        said = "; ".join([str(entry.get("status", "unknown")), *map(str, entry.get("error") or ())])
        return Route(
            self.router,
            service or None,
            self.environment_of(service) or "other",
            api.shown,
            str(entry.get("rule", "")),
            said,
        )

    def held(self, routers: Sequence[dict[str, Any]], listed: frozenset[str]) -> Held:
        """This router as it is to be held, out of one replica's list. Raises Unavailable when it is not there."""
        entries = matching(routers, self.router)
        if not entries:
            raise Unavailable(
                f"The proxy knows no router {self.router!r}.",
                code="hold-not-confirmed",
                remedy="Look at the proxy's log: a file that it cannot read keeps every change out.",
            )
        priority = max(int(entry.get("priority") or 0) for entry in entries)
        rivals = rivals_of(entries, routers, priority, listed)
        excluded = tuple(dict.fromkeys(str(rival["rule"]) for rival in rivals))
        return Held(self.router, self.read().router, priority, self.services, excluded)


def rivals_of(
    entries: Sequence[dict[str, Any]], routers: Sequence[dict[str, Any]], priority: int, listed: frozenset[str]
) -> list[dict[str, Any]]:
    """Routers that are not ours and could meet the same requests at the hold's priority, or at the router's own."""
    points = {point for entry in entries for point in entry.get("entryPoints") or ()}
    rules = {str(entry.get("rule")) for entry in entries}
    found = []
    for other in routers:
        name = bare(str(other.get("name")))
        ours = name in listed or name.startswith(OURS) or other in entries or other.get("parentRefs")
        shared = points & set(other.get("entryPoints") or ())
        if ours or not shared or int(other.get("priority") or 0) not in (priority, priority + 1):
            continue
        if not all(apart(rule, str(other.get("rule"))) for rule in rules):
            found.append(other)
    return found


def apart(one: str, other: str) -> bool:
    """Whether two rules plainly ask for different hosts."""
    first, second = _HOSTS.match(one), _HOSTS.match(other)
    if first is None or second is None or "||" in one + other:
        return False
    return first[1].casefold() != second[1].casefold()


def leading_to(service: str, services: Sequence[dict[str, Any]]) -> frozenset[str]:
    """Names of the services through which a request comes to this one, itself among them."""
    found = {qualified(service)}
    grown = True
    while grown:
        grown = False
        for item in services:
            name = str(item.get("name"))
            if name not in found and found & set(_parts(item)):
                found.add(name)
                grown = True
    return frozenset(found)


def _parts(item: Mapping[str, Any]) -> Iterator[str]:
    provider = str(item.get("provider") or "file")
    names: list[Any] = [part.get("name") for part in (item.get("weighted") or {}).get("services") or ()]
    names += [part.get("name") for part in (item.get("highestRandomWeight") or {}).get("services") or ()]
    names += [(item.get("mirroring") or {}).get("service")]
    names += [(item.get("failover") or {}).get(part) for part in ("service", "fallback")]
    for name in names:
        if name:
            yield name if "@" in name else f"{name}@{provider}"


def service_of(router: Mapping[str, Any]) -> str:
    """The service of a router with its provider, which is the router's own unless it says another."""
    service = str(router.get("service") or "")
    return service if "@" in service else f"{service}@{router.get('provider') or 'file'}"


def until(condition: Callable[[], str | None], wait: float, nudge: Callable[[], None] | None = None) -> str | None:
    """Ask until there is no complaint left; gives the last one when there still is after `wait` seconds.

    `nudge` is called once, half-way: the proxy may have missed the event of a file.
    """
    started = time.monotonic()
    while True:
        complaint = condition()
        if complaint is None:
            return None
        passed = time.monotonic() - started
        if passed >= wait:
            return complaint
        if nudge is not None and passed >= max(wait / 2, 3.0):
            nudge()
            nudge = None
        time.sleep(POLL)
