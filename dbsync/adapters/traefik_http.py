"""One kept connection to one HTTP server: requests in a few hundred microseconds, and what the proxy's API says."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import socket
import ssl
import tarfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dbsync.errors import ConfigError, DbsyncError, Unavailable

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that do not write; every other one does, as far as the gate is concerned."""

_SERVED = re.compile(rb"^traefik_router_requests_total\{([^}]*)\} ([0-9.e+]+)", re.MULTILINE)
_LABEL = re.compile(rb'(method|router)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and body of one response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Tls(http.client.HTTPSConnection):
    """HTTPS to one address, asking for the certificate of another name (an entry point is probed by address)."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._wrap, self._name = context, name

    def connect(self) -> None:
        """Connect, and shake hands under the other name."""
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._wrap.wrap_socket(plain, server_hostname=self._name)


class Connection:
    """A kept connection; safe to use from several threads (one request at a time).

    Asks the server directly: a proxy of the environment (HTTP_PROXY) would be another replica's eyes.
    """

    def __init__(self, url: str, *, timeout: float = 3.0, host: str | None = None, verify: bool = True) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ConfigError(
                f"{parts.scheme}://{parts.hostname or ''} is not an address of a proxy.",
                code="bad-url",
                remedy="Write it as http://HOST:PORT.",
            )
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, port
        self.base = parts.path.rstrip("/")
        self._exact = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.shown = f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{self.base}"
        """The address without what may be secret in it."""
        self._timeout, self._verify = timeout, verify
        self._headers = {"Accept-Encoding": "identity"}
        if host:
            self._headers["Host"] = host
        self._name = (host or parts.hostname).partition(":")[0]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self._open: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Answer:
        """One request; `path` is under the address's own path. Raises OSError or http.client.HTTPException."""
        with self._lock:
            kept = self._open is not None
            try:
                return self._once(method, path, headers or {}, timeout or self._timeout)
            except (http.client.HTTPException, ConnectionError):
                self.close()
                if not kept:
                    raise
            # The server let go of an idle connection: that says nothing about the server.
            return self._once(method, path, headers or {}, timeout or self._timeout)

    def probe(self, headers: Mapping[str, str], timeout: float | None = None) -> Answer:
        """A GET of exactly the address itself. Raises as `request`."""
        return self.request("GET", "", headers, timeout)

    def _once(self, method: str, path: str, headers: Mapping[str, str], timeout: float) -> Answer:
        open_ = self._open or self._connect(timeout)
        self._open = None
        try:
            if open_.sock is not None:
                open_.sock.settimeout(timeout)
            open_.request(method, self.base + path if path else self._exact, headers={**self._headers, **headers})
            found = open_.getresponse()
            body = found.read()
        except BaseException:
            open_.close()
            raise
        self._open = open_
        return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, body)

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port or 80, timeout=timeout)
        context = ssl.create_default_context()
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return _Tls(self._host, self._port or 443, timeout, context, self._name)

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None


class Api:
    """The API of one replica of the proxy. Everything raises Unavailable when it does not answer as it should."""

    def __init__(self, url: str, timeout: float = 3.0) -> None:
        self._connection = Connection(url, timeout=timeout)
        self.shown = self._connection.shown
        self._static: dict[str, Any] | None = None

    def get(self, path: str) -> Answer:
        """The answer to a GET, of any status. Raises Unavailable (`proxy-unreachable`)."""
        try:
            return self._connection.request("GET", path)
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(
                f"The proxy's API at {self.shown} does not answer: {told(exc)}.",
                code="proxy-unreachable",
                remedy="Start the proxy, or correct router.api.",
            ) from exc

    def ask(self, path: str) -> Any | None:
        """A JSON document, None where there is none (404). Raises Unavailable (`proxy-unreachable`)."""
        answer = self.get(path)
        try:
            found = json.loads(answer.body)
        except ValueError:
            raise self._odd(path, answer) from None
        if answer.status == 200:
            return found
        if answer.status == 404 and isinstance(found, dict) and "message" in found:
            return None
        raise self._odd(path, answer)

    def _odd(self, path: str, answer: Answer) -> DbsyncError:
        what = f"{answer.status}" if answer.status != 200 else "200, but no JSON"
        return Unavailable(
            f"{self.shown}{path.partition('?')[0]} is not the proxy's API: it answers {what}.",
            code="proxy-unreachable",
            remedy="Let router.api name the proxy's API (static configuration: api), with a password if it asks.",
        )

    def all(self, kind: str, what: str, search: str = "") -> list[dict[str, Any]]:
        """Every router or service (`what`) of a kind, page by page; `search` is any part of the name."""
        found: list[dict[str, Any]] = []
        page = "1"
        seen = set()
        while page not in seen:
            seen.add(page)
            path = f"/api/{kind}/{what}?per_page=100&page={page}" + (f"&search={quote(search)}" if search else "")
            answer = self.get(path)
            try:
                part = json.loads(answer.body) if answer.status == 200 else None
            except ValueError:
                part = None
            if not isinstance(part, list) or not all(isinstance(item, dict) for item in part):
                raise self._odd(path, answer)
            found += part
            page = answer.headers.get("x-next-page", "1")
        return found

    def router(self, kind: str, name: str) -> list[dict[str, Any]]:
        """What the proxy made of a router of the file provider: one entry, or several by entry point, or none."""
        # Never by its own name alone: where some entry points have settings of their own, an entry of that name
        # stands beside those with a prefix, and speaks for the other entry points only.
        return matching(self.all(kind, "routers", name), name)

    def service(self, kind: str, name: str) -> dict[str, Any] | None:
        """What the proxy says of a service as the router file names it, None where it knows none of that name."""
        found = self.ask(f"/api/{kind}/services/{quote(qualified(name), safe='@')}")
        return found if isinstance(found, dict) else None

    def version(self) -> tuple[int, ...]:
        """The proxy's version; a build without a number counts as the newest."""
        said = self.ask("/api/version")
        text = str(said.get("Version", "")) if isinstance(said, dict) else ""
        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
        return tuple(int(part) for part in found.groups()) if found else (99, 0, 0)

    def entry_points(self) -> dict[str, dict[str, Any]]:
        """The entry points by name."""
        said = self.ask("/api/entrypoints?per_page=1000") or []
        return {str(item.get("name")): item for item in said if isinstance(item, dict)}

    def static(self) -> dict[str, Any]:
        """The static configuration as far as the proxy shows it (from 3.3); empty where it does not."""
        if self._static is None:
            answer = self.get("/api/support-dump")
            self._static = _static_of(answer.body) if answer.status == 200 else {}
        return self._static

    def served(self) -> dict[str, int] | None:
        """Writes that have been answered, by router; None where the metrics do not say (no router labels)."""
        answer = self.get("/metrics")
        if answer.status != 200 or b"traefik_" not in answer.body:
            return None
        found: dict[str, int] = {}
        for match in _SERVED.finditer(answer.body):
            labels = {name: value.decode() for name, value in _LABEL.findall(match[1])}
            if labels.get(b"method") not in SAFE_METHODS:
                router = labels.get(b"router", "")
                found[router] = found.get(router, 0) + int(float(match[2]))
        if not found and b"traefik_router_requests_total" not in answer.body:
            labelled = self.static().get("metrics", {}).get("prometheus", {}).get("addRoutersLabels")
            return {} if labelled else None
        return found

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def told(error: BaseException) -> str:
    """An error of the network in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return str(error) or type(error).__name__


def qualified(name: str) -> str:
    """A name as the API knows it: of the file provider unless it says another."""
    return name if "@" in name else f"{name}@file"


def bare(name: str | None) -> str:
    """A name as the file knows it: without the file provider's own suffix."""
    return (name or "").removesuffix("@file")


def matching(routers: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Those entries that stand for this router of the file provider.

    For an entry point with settings of its own the proxy makes a router of its own, and puts the entry point's name
    before the router's; a prefix that is no entry point of that router's is another router's name.
    """
    found = []
    for item in routers:
        known = str(item.get("name", ""))
        points = item.get("entryPoints") or ()
        if known == f"{name}@file" or any(known == f"{point}-{name}@file" for point in points):
            found.append(item)
    return found


def _static_of(dump: bytes) -> dict[str, Any]:
    try:
        with tarfile.open(fileobj=io.BytesIO(dump)) as archive:
            member = archive.extractfile("static-config.json")
            found = json.loads(member.read()) if member else {}
    except (tarfile.TarError, KeyError, ValueError, OSError):
        return {}
    return found if isinstance(found, dict) else {}
