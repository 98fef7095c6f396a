"""Traefik with its file provider: which environment its routers lead to, how to exchange it, how to hold."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dbsync.adapters import traefik_files as files
from dbsync.adapters.traefik_examine import examine
from dbsync.adapters.traefik_http import Api, Connection, bare, told
from dbsync.adapters.traefik_site import Site
from dbsync.adapters.traefik_target import Target, until
from dbsync.errors import ConfigError, DbsyncError, Refused, Unavailable
from dbsync.model import Check, Route
from dbsync.ports import Router

_NO_BACKEND = frozenset({502, 503, 504})
LOCK_WAIT = 5.0


class Routers(Router):
    """Several routers as one: all of them are held and swapped. Holds are put in once for each watched directory."""

    def __init__(self, routers: Sequence[TraefikRouter]) -> None:
        if not routers:
            raise ConfigError("No router is configured.", remedy="Add [router].")
        self._routers = tuple(routers)
        self._first = routers[0]
        by_directory: dict[Path, list[TraefikRouter]] = {}
        for router in routers:
            if router.target.kind == "http" and router.hold != "off":
                by_directory.setdefault(router.target.directory.resolve(), []).append(router)
        self._sites = [
            Site([router.target for router in group], group[0].gate_entrypoint, group[0].state_dir)
            for group in by_directory.values()
        ]

    def routes(self) -> list[Route]:
        """See Router."""
        return [route for router in self._routers for api in router.target.apis for route in router.target.routes(api)]

    def written(self) -> str | None:
        """See Router; None also where the files do not agree."""
        names = {router.written_one() for router in self._routers}
        return names.pop() if len(names) == 1 else None

    def examine(self, active: str) -> tuple[Check, ...]:
        """See Router."""
        first = self._first
        targets = [router.target for router in self._routers]
        return examine(targets, active, first.hold, first.gate_entrypoint, first.state_dir)

    def switch(self, environment: str, wait: float) -> list[Route]:
        """See Router. Raises Refused (`route-stale`) when the guard says that another side is live.

        A file that cannot be used is Unavailable (`route-not-confirmed`) too: mended, the same can be done again.
        """
        deadline = time.monotonic() + wait
        changed = False
        for router in self._routers:
            try:
                changed |= router.rewrite(environment)
            except ConfigError as exc:
                # It was good before the handover: somebody else has written it meanwhile.
                raise _not_written(environment, exc, changed) from exc
        for router in self._routers:
            router.confirm(environment, deadline, wait, changed)
        return self.routes()

    def install_hold(self, epoch: int, gate: str, secret: str, active: str, wait: float) -> None:  # noqa: ARG002
        """See Router. Does nothing for TCP routers, and with `hold = "off"`.

        Also raises Refused (`hold-unproven`, `proxy-too-old`, `route-epoch`), with nothing changed.
        """
        deadline = time.monotonic() + wait
        done: list[Site] = []
        for site in self._sites:
            try:
                site.install(epoch, gate, secret, max(deadline - time.monotonic(), 1.0))
            except DbsyncError:
                for other in done:
                    with suppress(DbsyncError):
                        other.remove(wait)
                raise
            done.append(site)

    def remove_hold(self, wait: float) -> None:
        """See Router. Raises Unavailable (`hold-not-removed`) when a replica may still ask the gate."""
        failed: DbsyncError | None = None
        for site in self._sites:
            try:
                site.remove(wait)
            except DbsyncError as exc:
                failed = exc
        if failed is not None:
            raise failed

    def healthy(self) -> bool:
        """See Router."""
        for router in self._routers:
            for probe in router.target.probes if router.target.kind == "http" else ():
                try:
                    if probe.probe({}, timeout=2.0).status >= 500:
                        return False
                except (OSError, http.client.HTTPException):
                    return False
        return True

    def hold_present(self) -> bool:
        """See Router."""
        return any(site.present() for site in self._sites)

    def writes_served(self) -> int | None:
        """See Router."""
        total = 0
        for site in self._sites:
            served = site.served()
            if served is None:
                return None
            total += served
        return total if self._sites else None

    def close(self) -> None:
        """Let go of every connection."""
        for router in self._routers:
            for api in router.target.apis:
                api.close()
            for probe in router.target.probes:
                probe.close()


class TraefikRouter(Routers):
    """One router of a file that Traefik watches.

    `api` and `probe` are every replica's API and entry point, in the same order. `state_dir` is a folder of dbsync's
    own outside the watched directory (lock, epoch). `still_live` is asked under the lock, before the file is
    written, whether an environment is the live one by the guards; a stalled operator who wakes late is refused then.
    """

    def __init__(
        self,
        *,
        file: Path,
        router: str,
        services: Mapping[str, str],
        api: Sequence[str],
        state_dir: Path,
        kind: str = "http",
        probe: Sequence[str] = (),
        probe_host: str | None = None,
        ignore: Sequence[str] = (),
        gate_entrypoint: str = "dbsync",
        hold: str = "hold",
        still_live: Callable[[str], bool] | None = None,
    ) -> None:
        # A probe asks whether the gate answers, not who the server is: entry points rarely have a certificate
        # for the address at which one replica is reached.
        probes = [Connection(url, host=probe_host, verify=False) for url in probe]
        self.target = Target(file, router, kind, dict(services), [Api(url) for url in api], probes, tuple(ignore))
        self.hold, self.gate_entrypoint, self.state_dir = hold, gate_entrypoint, state_dir
        self._still_live = still_live
        super().__init__([self])

    def written_one(self) -> str | None:
        """The environment that this router's file names, None for something else. Raises ConfigError."""
        return self.target.environment_of(self.target.read().service)

    def rewrite(self, environment: str) -> bool:
        """Make the file name an environment; gives whether it had to be changed. Raises ConfigError, Refused."""
        service = self.target.services.get(environment)
        if service is None:
            raise ConfigError(f"No service is configured for {environment!r}.", remedy="Correct router.services.")
        with files.locked(self.state_dir, LOCK_WAIT):
            if self._still_live is not None and not self._still_live(environment):
                raise Refused(
                    f"{environment} is not the live side any more; the route was left as it is.",
                    code="route-stale",
                    remedy="Run `dbsync status`.",
                )
            found = self.target.read()
            if bare(found.service) == bare(service):
                return False
            files.publish(self.target.file, found.with_service(service), (self.state_dir,))
            return True

    def confirm(self, environment: str, deadline: float, wait: float, changed: bool) -> None:
        """Wait until every replica leads to an environment. Raises Unavailable (`route-not-confirmed`)."""
        left = max(deadline - time.monotonic(), 0.0)
        complaint = until(lambda: self._disagreement(environment), left, self._nudge)
        if complaint is not None:
            raise Unavailable(
                f"The route to {environment} is written but not confirmed after {wait:g} s: {complaint}.",
                code="route-not-confirmed",
                remedy="Look at the proxy's log, then run `dbsync cutover --resume`.",
                changed=changed or self.written_one() == environment,
                next_command="dbsync cutover --resume",
            )

    def _disagreement(self, environment: str) -> str | None:
        try:
            for api in self.target.apis:
                for route in self.target.routes(api):
                    if route.environment != environment:
                        said = route.service or route.detail
                        return f"{api.shown} says {said} for {self.target.router}"
                    if route.detail.startswith("disabled"):
                        return f"{self.target.router} is {route.detail} at {api.shown}"
            return self._unanswered()
        except Unavailable as exc:
            return exc.message.rstrip(".")

    def _unanswered(self) -> str | None:
        for probe in self.target.probes if self.target.kind == "http" else ():
            try:
                status = probe.probe({}, timeout=2.0).status
            except (OSError, http.client.HTTPException) as exc:
                return f"the probe {probe.shown} does not answer ({told(exc)})"
            if status in _NO_BACKEND:
                return f"the probe {probe.shown} is answered {status}"
        return None

    def _nudge(self) -> None:
        with suppress(OSError):
            os.utime(self.target.file)


def _not_written(environment: str, why: ConfigError, changed: bool) -> Unavailable:
    return Unavailable(
        f"The route to {environment} could not be written. {why.message}",
        code="route-not-confirmed",
        remedy=f"{why.remedy} Then run `dbsync cutover --resume`.",
        changed=changed,
        next_command="dbsync cutover --resume",
    )
