"""The hold as documents of the proxy's file provider: a gate before every router, and the way to it. Values only."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dbsync.adapters.traefik_files import option

GATE_FILE = "01-dbsync-gate.yml"
"""The way to the gate: first in, last out (both in one file gave 404s on removal)."""
HOLD_FILE = "00-dbsync-hold.yml"
GATE_PATH = "dbsync-gate-"
GATE_ROUTER = "dbsync-gate-in"
ROOT = "dbsync-hold-"
SIDE_HEADER = "X-Dbsync-Side"
MARK_HEADER = "X-Dbsync-Mark"
OURS = "dbsync-"
"""What every name of dbsync's own at the proxy begins with."""

FORWARD_LIMIT_SINCE = (3, 6, 9)
"""An unknown field blocks the whole directory, so maxResponseBodySize is left out before this version."""
PARENTS_SINCE = (3, 6, 0)
STATUS_RETRY_SINCE = (3, 7, 0)


@dataclass(frozen=True)
class Held:
    """One router of the user's, as it is to be held."""

    router: str
    definition: Mapping[str, Any]
    """As the router file has it."""
    priority: int
    """The effective one, from the API."""
    services: Mapping[str, str]
    excluded: tuple[str, ...] = ()
    """Rules of other routers at the hold's priority: their requests stay theirs."""

    @property
    def rule(self) -> str:
        """What the hold's root asks for: the router's own rule, less what others would have had before it."""
        own = str(option(self.definition, "rule"))
        if not self.excluded:
            return own
        return " && ".join([f"({own})", *(f"!({rule})" for rule in self.excluded)])

    def root(self, tag: str) -> str:
        """The name of the router that asks the gate."""
        return f"{ROOT}{_slug(self.router)}-{tag}"

    def child(self, environment: str, tag: str) -> str:
        """The name of the router that follows the gate's answer to one side."""
        # The dot keeps `a-b` to `c` and `a` to `b-c` apart; a slug has none.
        return f"{OURS}{_slug(self.router)}.{_slug(environment)}-{tag}"

    def children(self, tag: str) -> tuple[str, ...]:
        """Both of them."""
        return tuple(self.child(environment, tag) for environment in self.services)


def hold_document(held: Sequence[Held], tag: str, address: str, version: tuple[int, ...]) -> bytes:
    """The file that puts the gate at `address` before these routers (JSON, which is YAML)."""
    routers: dict[str, Any] = {}
    for one in held:
        root: dict[str, Any] = {
            "rule": one.rule,
            # One more than the user's own and not "very high": that would take other routers' traffic.
            "priority": one.priority + 1,
            "middlewares": ["dbsync-gate"],
        }
        for name in ("entryPoints", "tls", "ruleSyntax"):
            written = option(one.definition, name)
            if written is not None:
                root[name] = written
        routers[one.root(tag)] = root
        for environment, service in one.services.items():
            routers[one.child(environment, tag)] = {
                "parentRefs": [one.root(tag)],
                "rule": f"Header(`{SIDE_HEADER}`, `{environment}`)",
                "middlewares": ["dbsync-strip", *(option(one.definition, "middlewares") or ())],
                "service": service,
            }
    auth: dict[str, Any] = {
        "address": address,
        "trustForwardHeader": False,
        "authResponseHeaders": [SIDE_HEADER],
    }
    if version >= FORWARD_LIMIT_SINCE:
        auth["maxResponseBodySize"] = 1024
    middlewares = {
        "dbsync-gate": {"forwardAuth": auth},
        "dbsync-strip": {"headers": {"customRequestHeaders": {SIDE_HEADER: "", MARK_HEADER: ""}}},
    }
    return _text({"http": {"routers": routers, "middlewares": middlewares}})


def gate_document(entry_point: str, path: str, gate: str) -> bytes:
    """The file that leads from a loopback entry point to the gate, and asks again while its worker comes back."""
    retry = {
        "attempts": 40,
        "initialInterval": "100ms",
        # Not 503: that is the gate's own answer to a write that it refuses, and must reach the client.
        "status": ["502", "504"],
        "retryNonIdempotentMethod": True,
        # The default allocates 2 MB for each request.
        "maxRequestBodyBytes": 64,
    }
    router = {
        "rule": f"Path(`/{path}`)",
        "priority": 1_000_000_000,
        "entryPoints": [entry_point],
        "middlewares": ["dbsync-gate-retry"],
        "service": "dbsync-gates",
    }
    return _text(
        {
            "http": {
                "routers": {GATE_ROUTER: router},
                "services": {"dbsync-gates": {"loadBalancer": {"servers": [{"url": gate}]}}},
                "middlewares": {"dbsync-gate-retry": {"retry": retry}},
            }
        }
    )


def loopback(entry: Mapping[str, Any] | None) -> str | None:
    """The host and port of an entry point that only this machine reaches, fit to carry the gate; else None.

    One with TLS, middlewares or a redirection would answer for the gate, and one that does not trust
    this machine's X-Forwarded headers would drop the method, so that reads would wait like writes.
    """
    if entry is None:
        return None
    host, _, port = str(entry.get("address", "")).partition("/")[0].rpartition(":")
    settings = entry.get("http") or {}
    forwarded = entry.get("forwardedHeaders") or {}
    trusts = forwarded.get("insecure") or any(
        str(ip).startswith(("127.", "::1")) for ip in forwarded.get("trustedIPs") or ()
    )
    shaped = any(settings.get(name) for name in ("tls", "middlewares", "redirections"))
    if host in ("127.0.0.1", "localhost", "[::1]") and port.isdigit() and trusts and not shaped:
        return f"{host}:{port}"
    return None


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return slug if slug == name else f"{slug}-{zlib.crc32(name.encode()):08x}"


def _text(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
