"""The verbs, each with the module that holds it and one line of help, so that `--help` imports none of them."""

from __future__ import annotations

from typing import NamedTuple


class VerbEntry(NamedTuple):
    """Where a verb lives: module, name of the click command in it, its line of help, and whether it is listed."""

    module: str
    attribute: str
    help: str
    hidden: bool = False


VERBS: dict[str, VerbEntry] = {
    "init": VerbEntry("dbsync.cli.init", "init", "Write dbsync.toml; then prepare both databases."),
    "doctor": VerbEntry("dbsync.cli.doctor", "doctor", "Look at every precondition, and name the remedy of each."),
    "status": VerbEntry("dbsync.cli.status", "status", "Show where everything stands."),
    "migrate": VerbEntry("dbsync.cli.migrate", "migrate", "Change the shape of one database, up or down."),
    "sync": VerbEntry("dbsync.cli.sync", "sync", "Make the idle database follow the active one."),
    "verify": VerbEntry("dbsync.cli.verify", "verify", "Prove that the two databases say the same."),
    "cutover": VerbEntry("dbsync.cli.cutover", "cutover", "Make the idle database the active one."),
    "rollback": VerbEntry("dbsync.cli.cutover", "rollback", "Go back by the same road."),
    "route": VerbEntry("dbsync.cli.route", "route", "Show where requests go."),
    "etl": VerbEntry("dbsync.cli.etl", "etl", "Crossings and jobs: list, run, schedule, history."),
    "history": VerbEntry("dbsync.cli.history", "history", "Tell what has happened."),
    "demo": VerbEntry("dbsync.cli.demo", "demo", "Run the whole story on this machine."),
    "custodian": VerbEntry("dbsync.cli.custodian", "custodian", "Finish or undo a handover whose owner died.", True),
}
"""In the order in which they are used."""
