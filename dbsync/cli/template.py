"""The commented dbsync.toml that `init` writes where there is none."""

TEMPLATE = """\
# dbsync: two databases, one of them live. Relative paths are relative to this file.
# ${NAME} anywhere in a value is replaced from the environment.

[databases]
blue  = "sqlite:///blue.db"        # the two names are yours; any two
green = "sqlite:///green.db"

# [databases.options]
# exclude = ["audit_*"]            # tables neither synced nor verified

# Without a router a cutover moves the databases only, and says so. Several: [[router]]
# [router]
# provider = "traefik-file"
# file     = "traefik/dynamic/main-router.yml"
# router   = "main-router"
# kind     = "http"
# services = { blue = "blue-service@docker", green = "green-service@docker" }
# api      = ["http://127.0.0.1:8080"]     # every replica
# probe    = ["http://127.0.0.1:80/"]      # through the entry point of each replica, in the order of api
# probe_host = "docker.localhost"

[migrate]
path = "migrations"                # an Alembic script location

[etl]
path = "etl"                       # the crossings: <revision>_<slug>.py; jobs: jobs/<name>.py
# timezone = "UTC"                 # in which every schedule is read

# [etl.schedule]                   # `dbsync etl schedule` runs what is due
# sync = "*/5 * * * *"             # instead of a follower that runs all the time

[sync]
interval = "200ms"                 # how long an idle follower waits between windows

[verify]
receipt_max_age = "15m"

[cutover]
max_lag   = "5s"
max_pause = "10s"                  # the longest that writes may wait; then the cutover undoes itself
hold      = "hold"                 # hold | reject | off
bake      = "0s"
"""
