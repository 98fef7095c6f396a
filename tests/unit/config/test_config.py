"""The configuration: what it takes, what it refuses, and how it hides secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbsync.cli.template import TEMPLATE
from dbsync.config import Config, duration, parse
from dbsync.errors import ConfigError

DATABASES = '[databases]\nblue = "sqlite:///blue.db"\ngreen = "sqlite:///green.db"\n'
ROUTER = """[router]
file = "traefik/main.yml"
router = "main"
services = { blue = "b@file", green = "g@file" }
api = ["http://127.0.0.1:8080"]
"""
PATH = Path("/srv/app/dbsync.toml")


def read(text: str, **environ: str) -> Config:
    return parse(text, PATH, environ)


def refused(text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return caught.value


def test_two_databases_are_enough_and_the_rest_has_defaults() -> None:
    config = read(DATABASES)
    assert config.names == ("blue", "green")
    assert config.migrate.path == Path("/srv/app/migrations")
    assert config.etl.path == Path("/srv/app/etl")
    assert (config.cutover.max_pause, config.cutover.hold, config.sync.interval) == (10.0, "hold", 0.2)
    assert config.routers == ()
    assert config.other("blue") == "green"


def test_relative_paths_are_relative_to_the_file_sqlite_urls_too() -> None:
    config = read(DATABASES + ROUTER)
    assert config.environment("blue").url == "sqlite:////srv/app/blue.db"
    assert config.environment("blue").shown == "sqlite:///blue.db"
    assert config.routers[0].file == Path("/srv/app/traefik/main.yml")


def test_the_template_that_init_writes_is_a_valid_file() -> None:
    assert read(TEMPLATE).names == ("blue", "green")
    commented = "\n".join(line.removeprefix("# ") for line in TEMPLATE.splitlines() if "= " in line or "[" in line)
    commented = "\n".join(line for line in commented.splitlines() if not line.startswith(("dbsync:", "${", "Without")))
    assert read(commented).routers[0].router == "main-router"


def test_several_routers_are_kept_in_order() -> None:
    several = ROUTER.replace("[router]", "[[router]]")
    config = read(DATABASES + several + several.replace('"main"', '"sql"') + 'kind = "tcp"\nignore = ["x"]\n')
    assert [(r.router, r.kind) for r in config.routers] == [("main", "http"), ("sql", "tcp")]


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("[databases", "config-syntax", "not valid TOML"),
        ("", "missing-key", "[databases]"),
        (DATABASES + "[cutovr]\n", "unknown-key", "'cutover'"),
        (DATABASES + '[cutover]\nmax_puase = "1s"\n', "unknown-key", "'max_pause'"),
        (DATABASES + '[databases.options]\nexclud = ["a"]\n', "unknown-key", "'exclude'"),
        ('[databases]\nblue = "sqlite:///a.db"\n', "two-databases", "1 databases"),
        (DATABASES + 'red = "sqlite:///c.db"\n', "two-databases", "blue, green, red"),
        (DATABASES.replace("green.db", "./x/../blue.db"), "same-database", "same database"),
        (DATABASES.replace("green =", "idle ="), "bad-name", "'idle'"),
        (DATABASES.replace("sqlite:///green.db", "mysql://h/db"), "unsupported-dialect", "'mysql'"),
        (DATABASES.replace("sqlite:///green.db", "mssql+pyodbc://h/db"), "not-built", "not built yet in this version"),
        (DATABASES.replace("sqlite:///green.db", "sqlite://"), "config", "the URL of a file"),
        (DATABASES.replace("sqlite:///green.db", "green.db"), "config", "a database URL"),
        (DATABASES + '[cutover]\nmax_lag = "soon"\n', "bad-duration", "not a duration"),
        (DATABASES + "[cutover]\nmax_lag = 5\n", "bad-duration", "not a duration"),
        (DATABASES + '[cutover]\nmax_pause = "26s"\n', "pause-too-long", "25s"),
        (DATABASES + '[cutover]\nmax_pause = "0s"\n', "config", "max_pause is 0"),
        (DATABASES + '[cutover]\nhold = "maybe"\n', "config", "hold, reject, off"),
        (DATABASES + '[cutover]\ngate = "nowhere"\n', "config", "an address and a port"),
        (DATABASES + '[cutover]\nfence = "read-only"\n', "not-built", "cutover.fence"),
        (DATABASES + '[sync]\ntransport = "kafka"\n', "not-built", "sync.transport"),
        (DATABASES + '[sync]\ncapture = "change-tracking"\n', "not-built", "sync.capture"),
        (DATABASES + '[sync]\ncapture = "debezium"\n', "not-built", "sync.capture"),
        (DATABASES + '[kafka]\nbootstrap_servers = "h:9092"\n', "not-built", "[kafka]"),
        (DATABASES + '[etl.schedule]\nsync = "*/5 * * *"\n', "bad-schedule", "etl.schedule.sync is '*/5 * * *'"),
        (DATABASES + '[etl.schedule]\nnightly = "0 0 31 2 *"\n', "bad-schedule", "etl.schedule.nightly"),
        (DATABASES + "[etl.schedule]\nsync = 5\n", "config", "a table of cron expressions"),
        (DATABASES + '[etl]\ntimezone = "Europe/Berln"\n', "bad-timezone", "'Europe/Berlin'"),
        (DATABASES + '[databases.options]\napp_principals = ["x"]\n', "not-built", "app_principals"),
        (DATABASES + "sync = 1\n", "two-databases", "sync"),
        ("sync = 1\n" + DATABASES, "config", "not a table"),
        (DATABASES + "[migrate]\npath = 3\n", "config", "migrate.path"),
        (DATABASES + ROUTER.replace("green =", "gren ="), "unknown-key", "'green'"),
        (DATABASES + ROUTER.replace(', green = "g@file"', ""), "missing-key", "no service for green"),
        (DATABASES + ROUTER.replace("g@file", "b@file"), "config", "a service of its own"),
        (DATABASES + ROUTER.replace('["http://127.0.0.1:8080"]', "[]"), "config", "api is empty"),
        (DATABASES + ROUTER.replace("http://127.0.0.1:8080", "127.0.0.1"), "config", "http:// or https://"),
        (DATABASES + ROUTER + 'probe = ["http://a/", "http://b/"]\n', "probe-count", "2 addresses"),
        (DATABASES + ROUTER + 'provider = "nginx"\n', "config", "traefik-file"),
        (DATABASES + ROUTER + 'kind = "udp"\n', "config", "http, tcp"),
        (DATABASES + ROUTER.replace("[router]", "[[router]]") * 2, "config", "listed twice"),
        (DATABASES + "[router]\n", "missing-key", "router.file"),
    ],
)
def test_what_is_wrong_is_named_and_refused(text: str, code: str, hint: str) -> None:
    error = refused(text)
    assert (error.code, error.exit_code) == (code, 2)
    assert hint in f"{error.message} {error.remedy}"
    assert error.remedy


def test_one_probe_may_stand_as_a_text() -> None:
    assert read(DATABASES + ROUTER + 'probe = "http://a/"\n').routers[0].probe == ("http://a/",)


def test_a_long_pause_is_allowed_where_nothing_is_held() -> None:
    assert read(DATABASES + '[cutover]\nmax_pause = "26s"\nhold = "off"\n').cutover.max_pause == 26.0


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("5s", 5), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


def test_names_are_replaced_from_the_environment_and_masked_again() -> None:
    config = read(DATABASES.replace("blue.db", "${DIR}/${FILE}"), DIR="/data/s3cret", FILE="b.db")
    assert config.environment("blue").url == "sqlite:////data/s3cret/b.db"
    assert config.environment("blue").shown == "sqlite:///${DIR}/${FILE}"
    assert config.mask("cannot open /data/s3cret/b.db") == "cannot open ${DIR}/${FILE}"
    assert "s3cret" not in repr(config.secrets.keys())


def test_an_unset_name_is_refused_by_name() -> None:
    error = refused(DATABASES.replace("blue.db", "${NOWHERE}"))
    assert error.code == "unset-variable"
    assert "NOWHERE" in error.message
    assert "NOWHERE" in error.remedy


def test_a_secret_in_a_bad_url_is_not_printed() -> None:
    text = DATABASES.replace("sqlite:///green.db", "mysql://u:${PASSWORD}@h/db")
    error = refused(text, PASSWORD="hunter22")
    assert "hunter22" not in error.message + error.remedy


def test_a_secret_in_any_bad_value_is_not_printed() -> None:
    error = refused(DATABASES + '[cutover]\nmax_lag = "${LAG}"\n', LAG="hunter22")
    assert "hunter22" not in error.message + error.remedy
    assert "${LAG}" in error.message


def test_a_short_secret_spoils_no_words_and_no_environment() -> None:
    config = read(DATABASES.replace("blue.db", "${A}.db").replace("green.db", "x/${B}.db"), A="blue", B="e")
    assert config.mask("blue") == "blue"
    assert config.mask("the idle side: e") == "the idle side: ${B}"


def test_an_unknown_database_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        read(DATABASES).environment("gren")
    assert caught.value.code == "unknown-database"
    assert "green" in caught.value.remedy
