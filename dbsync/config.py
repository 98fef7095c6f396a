"""The configuration: text in, frozen values out. Refuses what it does not know; opens nothing."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from dbsync import reading
from dbsync.errors import ConfigError
from dbsync.reading import duration, nearest, not_built

__all__ = ["Config", "duration", "nearest", "parse"]

T = TypeVar("T")

HOLD_LIMIT = 25.0
"""Seconds: the proxy gives up on a held request at 30 s, so a hold must be over well before."""

RESERVED_NAMES = ("active", "idle", "other", "options")
"""Words that commands or the file use for something else, so no environment may be called so."""

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _key(doc: str, read: reading.Reader, default: Any = dataclasses.MISSING, shown: str = "") -> Any:
    meta = {"doc": doc, "read": read, "shown": shown}
    if default is dataclasses.MISSING:
        return field(metadata=meta)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=meta)
    return field(default=default, metadata=meta)


# --- the values --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Environment:
    """One database: its name, its URL ready to use, and the URL as it may be printed."""

    name: str
    url: str
    dialect: str
    shown: str
    path: Path


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for both databases."""

    exclude: tuple[str, ...] = _key(
        "tables neither synced nor verified (patterns with * and ?); said in `status`", reading.texts, (), "[]"
    )


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """One router at the proxy. Without any a cutover moves the databases only, and says so."""

    file: Path = _key("the dynamic configuration file that holds the router", reading.path)  # noqa: RUF009
    router: str = _key("its name, under http.routers or tcp.routers", reading.text)
    services: Mapping[str, str] = _key("for each database, the service of the application that uses it", reading.pairs)
    api: tuple[str, ...] = _key("the API address of every replica of the proxy", reading.urls)
    provider: str = _key("who routes", reading.one_of("traefik-file"), "traefik-file", "traefik-file")
    kind: str = _key("http, or tcp (no hold)", reading.one_of("http", "tcp"), "http", "http")
    probe: tuple[str, ...] = _key(
        "an address through the entry point of each replica, in the order of `api`; the hold is proven there",
        reading.urls,
        (),
        "[]",
    )
    probe_host: str = _key("Host header of the probe", reading.text_or_empty, "", "")
    ignore: tuple[str, ...] = _key(
        "routers that lead to the active service and are left alone on purpose", reading.texts, (), "[]"
    )


@dataclass(frozen=True, slots=True)
class MigrateSettings:
    """Where the revisions are."""

    path: Path = _key(  # noqa: RUF009
        "an Alembic script location (versions/ inside); no env.py needed",
        reading.path,
        Path("migrations"),
        "migrations",
    )


@dataclass(frozen=True, slots=True)
class EtlSettings:
    """Where the crossings and jobs are, and when the jobs run."""

    path: Path = _key(  # noqa: RUF009
        "the folder of the crossings, <revision>_<slug>.py, and of jobs/<name>.py", reading.path, Path("etl"), "etl"
    )
    timezone: str = _key("the time zone in which every schedule is read", reading.zone, "UTC", "UTC")
    schedule: Mapping[str, str] = _key(
        '[etl.schedule]: NAME = a cron expression, for `sync` or a job; it goes before the job\'s own, and "" switches'
        " that off",
        reading.schedules,
        {},
        "{}",
    )


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How the idle database follows."""

    capture: str = _key(
        "how changes are seen: auto or triggers",
        reading.one_of("auto", "triggers", later=("change-tracking", "debezium")),
        "auto",
        "auto",
    )
    transport: str = _key(
        "how they travel: direct (capture and apply in one process)",
        reading.one_of("direct", later=("kafka",)),
        "direct",
        "direct",
    )
    interval: float = _key("how long an idle follower waits between windows", reading.seconds, 0.2, "200ms")


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """How long evidence counts."""

    receipt_max_age: float = _key("the oldest receipt that a cutover accepts", reading.seconds, 900.0, "15m")


@dataclass(frozen=True, slots=True)
class CutoverSettings:
    """The handover."""

    max_lag: float = _key("a lag above this refuses a cutover", reading.seconds, 5.0, "5s")
    max_pause: float = _key(
        "the longest that writes may wait; then the cutover undoes itself (at most 25s with hold)",
        reading.seconds,
        10.0,
        "10s",
    )
    hold: str = _key(
        "what a write meets meanwhile: hold (it waits), reject (503 and Retry-After) or off",
        reading.one_of("hold", "reject", "off"),
        "hold",
        "hold",
    )
    gate: str = _key("where the gate listens while it holds", reading.listen, "127.0.0.1:0", "127.0.0.1:0")
    gate_url: str = _key(
        "the gate as the proxy reaches it, where that differs; default: http:// and `gate`",
        reading.text_or_empty,
        "",
        "",
    )
    gate_entrypoint: str = _key(
        "a loopback entry point of the proxy's that survives a death of the gate's worker, used when it exists",
        reading.text,
        "dbsync",
        "dbsync",
    )
    fence: str = _key(
        "how the active database is closed: guard", reading.one_of("guard", later=("read-only",)), "guard", "guard"
    )
    bake: float = _key(
        "how long the cutover watches afterwards, following back, ready to go back", reading.seconds, 0.0, "0s"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. `secrets` is what came out of `${NAME}`: see `mask`."""

    databases: tuple[Environment, Environment]
    options: Options = Options()
    routers: tuple[RouterSettings, ...] = ()
    migrate: MigrateSettings = MigrateSettings()
    etl: EtlSettings = EtlSettings()
    sync: SyncSettings = SyncSettings()
    verify: VerifySettings = VerifySettings()
    cutover: CutoverSettings = CutoverSettings()
    path: Path = Path("dbsync.toml")
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, str]:
        """The environments' names, in the order of the file."""
        return self.databases[0].name, self.databases[1].name

    def environment(self, name: str) -> Environment:
        """The environment of that name. Raises ConfigError (`unknown-database`)."""
        for one in self.databases:
            if one.name == name:
                return one
        raise ConfigError(
            f"There is no database {name!r} in {self.path.name}.",
            code="unknown-database",
            remedy=nearest(name, self.names),
        )

    def other(self, name: str) -> str:
        """The name of the other environment."""
        first, second = self.names
        return second if self.environment(name).name == first else first

    def mask(self, text: str) -> str:
        """The text with everything that came out of `${NAME}` written as `${NAME}` again.

        An environment's bare name is left alone: it cannot have come out of a substitution.
        """
        return text if text in self.names else mask(text, self.secrets)


def mask(text: str, secrets: Mapping[str, str]) -> str:
    """The text with each secret's value replaced by `${NAME}`.

    A value shorter than four characters is replaced only where it stands alone, or every text
    that happens to contain the letter would be spoilt.
    """
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if len(value) >= 4:
            text = text.replace(value, f"${{{name}}}")
        elif value:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", lambda _: f"${{{name}}}", text)  # noqa: B023
    return text


SECTIONS: Mapping[str, type[Any]] = {
    "databases.options": Options,
    "router": RouterSettings,
    "migrate": MigrateSettings,
    "etl": EtlSettings,
    "sync": SyncSettings,
    "verify": VerifySettings,
    "cutover": CutoverSettings,
}
"""The tables of the file beside [databases], and what each becomes."""

LATER: Mapping[str, str] = {
    "kafka": "Remove the table; changes travel directly.",
    "databases.options.app_principals": "Remove it; it matters on servers with logins only.",
}
"""What the contract names and this version does not have, each with what to do instead."""


# --- reading -----------------------------------------------------------------------------------


def parse(text: str, path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration that `text` says, `path` being the file it came from. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(
            f"{path.name} is not valid TOML: {exc}.", code="config-syntax", remedy="Correct the line it names."
        ) from exc
    secrets: dict[str, str] = {}
    plain = _substitute(document, "", environ, secrets)
    folder = path.parent
    _known(plain, ["databases", *(s for s in SECTIONS if "." not in s), "kafka"], "", path)
    try:
        config = Config(
            databases=_environments(plain.get("databases"), document, folder, path),
            options=_section(Options, _options_of(plain), "databases.options", folder, path),
            routers=_routers(plain.get("router", []), folder, path),
            path=path,
            secrets=secrets,
            **{
                name: _section(SECTIONS[name], plain.get(name, {}), name, folder, path)
                for name in ("migrate", "etl", "sync", "verify", "cutover")
            },
        )
        _check(config)
    except ConfigError as exc:
        raise _masked(exc, secrets) from None
    return config


def _masked(exc: ConfigError, secrets: Mapping[str, str]) -> ConfigError:
    return ConfigError(mask(exc.message, secrets), code=exc.code, remedy=mask(exc.remedy, secrets))


def _substitute(value: Any, where: str, environ: Mapping[str, str], secrets: dict[str, str]) -> Any:
    """The value with `${NAME}` replaced in every text inside it; what was put in is noted in `secrets`."""
    if isinstance(value, dict):
        return {k: _substitute(v, f"{where}.{k}" if where else k, environ, secrets) for k, v in value.items()}
    if isinstance(value, list):
        return [_substitute(item, where, environ, secrets) for item in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        name = found[1]
        if name not in environ:
            raise ConfigError(
                f"{where} uses ${{{name}}}, and {name} is not set in the environment.",
                code="unset-variable",
                remedy=f"Set {name} and run the command again.",
            )
        secrets[name] = environ[name]
        return environ[name]

    return _PLACEHOLDER.sub(put, value)


def _known(table: Mapping[str, Any], known: Sequence[str], where: str, path: Path) -> None:
    for key in table:
        full = f"{where}.{key}" if where else key
        if full in LATER:
            raise not_built(f"[{full}]" if isinstance(table[key], dict) else full, LATER[full])
        if key not in known:
            raise ConfigError(
                f"{path.name} has the unknown key {full!r}.",
                code="unknown-key",
                remedy=nearest(key, [k for k in known if k != "kafka"]),
            )


def _section(cls: type[T], table: Any, where: str, folder: Path, path: Path) -> T:
    """One table of the file as its frozen value."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is {table!r}, which is not a table.", remedy=f"Write it as [{where}].")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _known(table, list(fields), where, path)
    values: dict[str, Any] = {}
    for name, one in fields.items():
        place = reading.Place(f"{where}.{name}", folder)
        if name in table:
            values[name] = one.metadata["read"](table[name], place)
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place.name} is missing.", code="missing-key", remedy=f"Add {name} to [{where}].")
        elif isinstance(one.default, Path):
            values[name] = folder / one.default
    return cls(**values)


def _options_of(plain: Mapping[str, Any]) -> Any:
    databases = plain.get("databases")
    return databases.get("options", {}) if isinstance(databases, dict) else {}


def _environments(table: Any, document: Mapping[str, Any], folder: Path, path: Path) -> tuple[Environment, Environment]:
    if not isinstance(table, dict):
        raise ConfigError(
            f"{path.name} has no [databases].", code="missing-key", remedy="Name two databases and their URLs there."
        )
    names = [name for name in table if name != "options"]
    if len(names) != 2:
        raise ConfigError(
            f"[databases] names {len(names)} databases{': ' + ', '.join(names) if names else ''}.",
            code="two-databases",
            remedy="Name exactly two, each with its URL.",
        )
    first, second = (_environment(n, table[n], document["databases"][n], folder) for n in names)
    if first.path == second.path:
        raise ConfigError(
            f"{first.name} and {second.name} are the same database: {second.shown}.",
            code="same-database",
            remedy="Give each name a database of its own.",
        )
    return first, second


def _environment(name: str, url: Any, raw: Any, folder: Path) -> Environment:
    if name in RESERVED_NAMES or not re.fullmatch(r"[^\W][\w.-]*", name):
        raise ConfigError(
            f"A database cannot be called {name!r}.",
            code="bad-name",
            remedy=f"Use letters, digits, '_', '.' or '-', and none of {', '.join(RESERVED_NAMES)}.",
        )
    place = reading.Place(f"databases.{name}", folder)
    # The URL as written, never as substituted, stands in every message: it may hold a password.
    if not isinstance(url, str) or "://" not in url:
        raise place.wrong(raw, 'a database URL, for example "sqlite:///blue.db"')
    scheme, _, rest = url.partition("://")
    dialect = scheme.partition("+")[0].casefold()
    if dialect == "mssql":
        raise not_built(f"{place.name}: SQL Server (mssql)", "Use a sqlite:/// URL; only SQLite is built.")
    if scheme.casefold() not in ("sqlite", "sqlite+pysqlite"):
        known = scheme if _PLACEHOLDER.search(str(raw)) is None else str(raw).partition("://")[0]
        raise ConfigError(
            f"{place.name} has the dialect {known!r}, which is not supported.",
            code="unsupported-dialect",
            remedy="Supported in this version: sqlite.",
        )
    file = rest.removeprefix("/")
    if not rest.startswith("/") or file in ("", ":memory:") or "?" in file:
        raise place.wrong(raw, 'the URL of a file without options, for example "sqlite:///blue.db"')
    resolved = Path(posixpath.normpath(posixpath.join(folder.absolute().as_posix(), file)))
    return Environment(name, f"sqlite:///{resolved}", dialect, str(raw), resolved)


def _routers(value: Any, folder: Path, path: Path) -> tuple[RouterSettings, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(_section(RouterSettings, table, "router", folder, path) for table in tables)


# --- what no single key can say ----------------------------------------------------------------


def _check(config: Config) -> None:
    seen: set[tuple[str, str]] = set()
    for router in config.routers:
        _check_router(router, config.names)
        if (router.kind, router.router) in seen:
            raise ConfigError(
                f"The {router.kind} router {router.router!r} is listed twice.", remedy="List each router once."
            )
        seen.add((router.kind, router.router))
    pause = config.cutover.max_pause
    if pause <= 0:
        raise ConfigError("cutover.max_pause is 0.", remedy='Give the longest pause that you accept, such as "10s".')
    if config.cutover.hold == "hold" and pause > HOLD_LIMIT:
        raise ConfigError(
            f'cutover.max_pause is {pause:g}s, and with hold = "hold" it cannot be above {HOLD_LIMIT:g}s: '
            "the proxy gives up on a held request at 30s.",
            code="pause-too-long",
            remedy='Lower max_pause, or set hold = "reject" or "off".',
        )
    if config.sync.interval <= 0:
        raise ConfigError("sync.interval is 0.", remedy='Give a time such as "200ms".')


def _check_router(router: RouterSettings, names: tuple[str, str]) -> None:
    services = router.services
    for name in services:
        if name not in names:
            raise ConfigError(
                f"router.services names {name!r}, which is no database here.",
                code="unknown-key",
                remedy=nearest(name, names),
            )
    for name in names:
        if name not in services:
            raise ConfigError(
                f"router.services says no service for {name}.",
                code="missing-key",
                remedy=f'Add {name} = "…" to services.',
            )
    if services[names[0]] == services[names[1]]:
        raise ConfigError(
            f"router.services gives both databases the service {services[names[0]]!r}.",
            remedy="Each needs a service of its own.",
        )
    if not router.api:
        raise ConfigError("router.api is empty.", remedy="Give the API address of every replica.")
    if router.probe and len(router.probe) not in (1, len(router.api)):
        raise ConfigError(
            f"router.probe has {len(router.probe)} addresses and router.api {len(router.api)}.",
            code="probe-count",
            remedy="Give one probe for each replica, in the order of api, or a single one.",
        )
