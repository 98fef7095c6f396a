"""What must be true of the proxy before a handover. Looks, changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.adapters import traefik_files as files
from dbsync.adapters.traefik_files import option
from dbsync.adapters.traefik_hold import GATE_FILE, HOLD_FILE, PARENTS_SINCE, ROOT, loopback
from dbsync.adapters.traefik_http import Api, bare, matching, qualified
from dbsync.adapters.traefik_target import Target, leading_to, rivals_of, service_of
from dbsync.errors import ConfigError, Unavailable
from dbsync.model import Check, Severity

_LONG_THROTTLE = 0.5
_DURATION = re.compile(r"([\d.]+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class _Replica:
    """What one replica says, asked once."""

    api: Api
    version: tuple[int, ...]
    routers: Mapping[str, list[dict[str, Any]]]
    services: Mapping[str, list[dict[str, Any]]]
    static: Mapping[str, Any]


def examine(
    targets: Sequence[Target], active: str, hold: str, gate_entrypoint: str, state_dir: Path
) -> tuple[Check, ...]:
    """Every check for these routers, given the side that is live by the guards."""
    checks: list[Check] = []
    replicas: dict[str, _Replica] = {}
    kinds = {target.kind for target in targets}
    for api in {api.shown: api for target in targets for api in target.apis}.values():
        try:
            replicas[api.shown] = _ask(api, kinds)
        except Unavailable as exc:
            checks.append(_blocker(exc.code, exc.message, exc.remedy))
    held = hold != "off" and "http" in kinds
    for replica in replicas.values():
        checks += _of_replica(replica, targets, held, gate_entrypoint)
    checks += _left_over(targets, replicas)
    for target in targets:
        checks += _of_file(target, active, state_dir)
        checks += _of_probes(target, hold)
        for api in target.apis:
            if api.shown in replicas:
                checks += _of_target(target, replicas[api.shown], active, targets, hold)
    return tuple(dict.fromkeys(checks))


def _ask(api: Api, kinds: set[str]) -> _Replica:
    version = api.version()
    routers = {kind: api.all(kind, "routers") for kind in kinds}
    services = {kind: api.all(kind, "services") for kind in kinds}
    return _Replica(api, version, routers, services, api.static())


def _ok(code: str, found: str, remedy: str = "") -> Check:
    return Check(code, Severity.OK, found, remedy)


def _warning(code: str, found: str, remedy: str) -> Check:
    return Check(code, Severity.WARNING, found, remedy)


def _blocker(code: str, found: str, remedy: str) -> Check:
    return Check(code, Severity.BLOCKER, found, remedy)


# --- one replica -----------------------------------------------------------------------------------


def _of_replica(replica: _Replica, targets: Sequence[Target], held: bool, gate_entrypoint: str) -> Iterator[Check]:
    where, version = replica.api.shown, ".".join(map(str, replica.version))
    if held and replica.version < PARENTS_SINCE:
        yield _blocker(
            "proxy-too-old",
            f"The proxy at {where} is {version}. The hold needs 3.6.0; the way for 3.0 to 3.5 is not built.",
            'Upgrade the proxy, or set cutover.hold = "off".',
        )
    else:
        yield _ok("proxy", f"The proxy at {where} is {version}.")
    yield from _of_provider(replica, targets, held)
    if held:
        yield from _of_gate(replica, gate_entrypoint)


def _of_provider(replica: _Replica, targets: Sequence[Target], held: bool) -> Iterator[Check]:
    providers = replica.static.get("providers") or {}
    file, where = providers.get("file"), replica.api.shown
    if not isinstance(file, dict):
        return  # it does not show its static configuration (before 3.3)
    if file.get("filename") and held:
        yield _blocker(
            "hold-needs-directory",
            f"The proxy at {where} watches the single file {file['filename']}, and the hold is files of its own.",
            'Use providers.file.directory, or set cutover.hold = "off".',
        )
    if not file.get("watch"):
        yield _blocker(
            "proxy-does-not-watch",
            f"The proxy at {where} does not watch its files.",
            "Set providers.file.watch = true.",
        )
    for target in targets:
        if _not_watched(str(file.get("directory") or ""), target.directory):
            yield _blocker(
                "router-file-not-watched",
                f"{target.file} lies in a folder below {file['directory']}, which the proxy reads but does not watch.",
                "Move the file into the watched directory itself.",
            )
    throttle = str(providers.get("providersThrottleDuration") or "0s")
    if _seconds(throttle) > _LONG_THROTTLE:
        yield _ok(
            "proxy-throttle",
            f"The proxy at {where} reads its files at most every {throttle}: a handover lasts longer, no pause does.",
            "providers.providersThrottleDuration = 100ms, and a default certificate, make it quicker.",
        )


def _not_watched(directory: str, ours: Path) -> bool:
    # In a container the name means another folder: only one that is here, and above ours, tells anything.
    if not directory.startswith("/"):
        return False
    watched = Path(directory)
    return watched.is_dir() and not watched.samefile(ours) and ours.resolve().is_relative_to(watched.resolve())


def _seconds(duration: str) -> float:
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def _of_gate(replica: _Replica, name: str) -> Iterator[Check]:
    where = replica.api.shown
    prometheus = (replica.static.get("metrics") or {}).get("prometheus") or {}
    if prometheus.get("addRoutersLabels"):
        yield _ok("proxy-metrics", f"Writes in flight can be counted at {where}.")
    else:
        yield _ok(
            "proxy-metrics",
            f"Writes in flight cannot be counted at {where}; the database's open transactions are looked at instead.",
            "Set metrics.prometheus.addRoutersLabels = true.",
        )
    point = replica.api.entry_points().get(name)
    if point is None:
        yield _ok(
            "gate-entrypoint",
            f"No entry point {name!r} at {where}: should the gate's worker die, what it holds fails.",
            f"An entry point {name!r} at 127.0.0.1 that trusts 127.0.0.1 for forwardedHeaders survives that.",
        )
    elif name == "traefik" or loopback(point) is None:
        yield _warning(
            "gate-entrypoint-unfit",
            f"The entry point {name!r} at {where} cannot carry the gate and is not used.",
            "Bind it to 127.0.0.1, without TLS, middlewares and redirection, and let it trust 127.0.0.1/32 "
            "(forwardedHeaders.trustedIPs).",
        )
    else:
        yield _ok("gate-entrypoint", f"The entry point {name!r} at {where} survives a death of the gate's worker.")


def _left_over(targets: Sequence[Target], replicas: Mapping[str, _Replica]) -> Iterator[Check]:
    remedy = "Run `dbsync cutover --resume` or `--abort`, which takes it away."
    for directory in {target.directory for target in targets}:
        for name in (HOLD_FILE, GATE_FILE):
            if (directory / name).exists():
                yield _blocker("hold-left-over", f"{directory / name} is left over from a handover.", remedy)
    for replica in replicas.values():
        for entry in replica.routers.get("http", []):
            if ROOT in str(entry.get("name")) and entry.get("provider") == "file":
                yield _blocker("hold-left-over", f"{replica.api.shown} still has {entry['name']}.", remedy)
                break


# --- one router --------------------------------------------------------------------------------------


def _of_file(target: Target, active: str, state_dir: Path) -> Iterator[Check]:
    try:
        found = target.read()
    except ConfigError as exc:
        yield _blocker(exc.code, exc.message, exc.remedy)
        return
    if files.staging(target.directory, (state_dir,)) is None:
        yield _blocker(
            "router-file-unwritable",
            f"No writable folder outside {target.directory} is on its file system, so its files cannot be replaced "
            "in one step.",
            "Let dbsync write to the folder above it.",
        )
    if option(found.router, "parentRefs"):
        yield _blocker(
            "router-nested",
            f"The router {target.router!r} is a child of another one, so its rule is not the whole of it.",
            "List the parent's file, or make it a router of its own.",
        )
    elif option(found.router, "rule") is None:
        yield _blocker("router-file-broken", f"The router {target.router!r} has no rule.", "Give it one.")
    said = target.environment_of(found.service)
    if said == active:
        yield _ok("router-file", f"{target.file} leads {target.router} to {active}.")
    else:
        yield _disagrees(target, f"{target.file} says {found.service}", active)


def _disagrees(target: Target, found: str, active: str) -> Check:
    return _blocker(
        "route-disagrees",
        f"{found} for {target.router}, and {active} is live ({target.services.get(active)}).",
        "Let the router lead to the live side, or correct router.services; after a handover that was cut short: "
        "`dbsync cutover --resume`.",
    )


def _of_probes(target: Target, hold: str) -> Iterator[Check]:
    probes, apis = len(target.probes), len(target.apis)
    if probes > apis or 1 < probes < apis:
        yield _blocker(
            "api-count",
            f"router.api has {apis} addresses and router.probe {probes}.",
            "Give one probe for each API, in the same order.",
        )
    if hold == "off" or target.kind != "http":
        return
    if probes < apis:
        yield _blocker(
            "hold-unproven",
            f"{apis - probes} of {apis} replicas have no probe, so it cannot be seen that they hold.",
            'Give router.probe one address for each of router.api, or set cutover.hold = "off".',
        )


def _of_target(target: Target, replica: _Replica, active: str, targets: Sequence[Target], hold: str) -> Iterator[Check]:
    where = replica.api.shown
    routers = replica.routers[target.kind]
    entries = matching(routers, target.router)
    if not entries:
        yield _blocker(
            "router-missing",
            f"The proxy at {where} knows no router {target.router!r} of its file provider.",
            "Look at its log: one file that it cannot read keeps every change out.",
        )
    for entry in entries:
        if entry.get("status") == "disabled":
            why = "; ".join(map(str, entry.get("error") or ())) or "no reason given"
            yield _blocker(
                "router-disabled", f"{entry['name']} is disabled at {where}: {why}.", "Mend its configuration."
            )
        elif target.environment_of(str(entry.get("service"))) != active:
            yield _disagrees(target, f"{where} says {entry.get('service')}", active)
        else:
            yield _ok("route", f"{where} leads {target.router} to {active}.")
    for environment, service in target.services.items():
        yield _of_service(target, replica, environment, service)
    yield from _unlisted(target, replica, active, targets)
    if hold != "off" and target.kind == "http" and entries:
        yield from _of_priority(target, replica, entries, targets)


def _of_service(target: Target, replica: _Replica, environment: str, service: str) -> Check:
    where, name = replica.api.shown, qualified(service)
    found = next((item for item in replica.services[target.kind] if item.get("name") == name), None)
    if found is None:
        return _blocker(
            "service-missing",
            f"The proxy at {where} knows no service {name} ({environment}): its side would be a 404.",
            "Start the application of that side, or correct router.services.",
        )
    if found.get("status") == "disabled":
        why = "; ".join(map(str, found.get("error") or ())) or "no reason given"
        return _blocker("service-down", f"{name} is disabled at {where}: {why}.", "Mend its configuration.")
    servers = found.get("serverStatus")
    if isinstance(servers, dict) and servers and "UP" not in servers.values():
        return _blocker("service-down", f"No server of {name} is up at {where}.", "Start the application of that side.")
    balancer = found.get("loadBalancer")
    if isinstance(balancer, dict) and not balancer.get("servers"):
        return _blocker("service-down", f"{name} has no server at {where}.", "Start the application of that side.")
    if servers is None:
        return _ok(
            "service",
            f"{name} is there at {where}; no router leads to it, so the proxy does not say whether its servers are up.",
        )
    return _ok("service", f"{name} is up at {where}.")


def _unlisted(target: Target, replica: _Replica, active: str, targets: Sequence[Target]) -> Iterator[Check]:
    service = target.services.get(active)
    if service is None:
        return
    routers = replica.routers[target.kind]
    leading = leading_to(service, replica.services[target.kind])
    known = {str(e["name"]) for t in targets if t.kind == target.kind for e in matching(routers, t.router)}
    ignored = {bare(name) for t in targets for name in t.ignore}
    for entry in routers:
        name = str(entry.get("name"))
        if name in known or bare(name) in ignored or name in ignored or "dbsync-" in name:
            continue
        if entry.get("status") != "disabled" and service_of(entry) in leading:
            yield _blocker(
                "router-unlisted",
                f"The router {name} at {replica.api.shown} leads to {active} too ({entry.get('service')}) and would "
                "go past the hold and the swap.",
                "List it under [[router]], or name it in router.ignore.",
            )


def _of_priority(
    target: Target, replica: _Replica, entries: Sequence[dict[str, Any]], targets: Sequence[Target]
) -> Iterator[Check]:
    routers, listed = replica.routers["http"], frozenset(t.router for t in targets)
    priority = max(int(entry.get("priority") or 0) for entry in entries)
    rules = {str(entry.get("rule")) for entry in entries}
    for other in rivals_of(entries, routers, priority, listed):
        if int(other.get("priority") or 0) == priority and other.get("rule") in rules:
            yield _blocker(
                "router-tie",
                f"{other['name']} has the rule and the priority of {target.router}: which one answers is chance.",
                "Give one of them another priority.",
            )
        elif other.get("ruleSyntax") not in (None, "", "default", "v3") or not other.get("rule"):
            yield _blocker(
                "router-priority-taken",
                f"{other['name']} has the priority {other.get('priority')} that the hold of {target.router} needs.",
                "Give it another priority, one apart at least.",
            )
