"""Wiring of a handover: what the cutover room works with, out of a session."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbsync.adapters.custodian import (
    CustodianProcess,
    RecordedGate,
    new_owner,
    own_command,
    owner_lives,
    read_record,
)
from dbsync.cutover.world import World
from dbsync.errors import DbsyncError, Refused
from dbsync.ports import Gate

if TYPE_CHECKING:
    from dbsync.cli.session import Session
    from dbsync.config import Config
    from dbsync.cutover.resolve import Resolved

log = logging.getLogger("dbsync.heal")


__all__ = ["coordinator_world", "make_world", "new_owner", "owner_lives", "read_record", "resolver_world"]


def state_folder(config: Config) -> Path:
    """Where the traces of a handover under way are kept: beside the configuration."""
    return config.path.parent / ".dbsync"


def record_path(config: Config) -> Path:
    """Where the custodian of a handover under way tells how its gate is reached."""
    return state_folder(config) / "handover.json"


def make_world(session: Session, owner: str, gate: Gate | None, accept_loss: bool = False) -> World:
    """The world of one handover; what its gate holds open is let go of with the session."""
    context = session.context
    if gate is not None:
        context.closing.append(gate.close)
    return replace(context.world(gate, accept_loss, owner_lives), owner=owner)


def coordinator_world(session: Session, owner: str, accept_loss: bool) -> World:
    """The world of a coordinator: it starts a custodian."""
    gate = CustodianProcess(own_command(session.file), record_path(session.config))
    return make_world(session, owner, gate, accept_loss)


def resolver_world(session: Session, owner: str) -> World:
    """The world of a resolver: it uses the gate that still runs, if one does."""
    record = read_record(record_path(session.config))
    gate = RecordedGate(record) if record is not None and record.get("port") else None
    return make_world(session, owner, gate)


def heal(session: Session, thorough: bool) -> Resolved | None:
    """Finish or undo a handover of which no process is left, coordinator and custodian; None when there is none.

    `thorough` also asks the journals; otherwise only what costs next to nothing is looked at.
    """
    from dbsync.cutover.resolve import resolve, unrecorded, unsettled

    context = session.context
    if read_record(record_path(session.config)) is not None:
        return None
    try:
        _, found = context.read_roles()
        held = context.router is not None and context.router.hold_present()
        if found.settled and not (held or thorough):
            return None
        with ExitStack() as locks:
            for name, lock in ((context.names[0], "resolve"), *((name, "cutover") for name in context.names)):
                locks.enter_context(context.database(name).lock(lock, 0.0))
            world = resolver_world(session, new_owner())
            # A hold that the journals know nothing of is another installation's.
            if found.settled and not (unsettled(world, found) or unrecorded(world, found)):
                return None
            done = resolve(world, "either")
        log.warning("a handover was left behind: %s, %s is live", done.outcome, done.active)
        return done
    except Refused as refused:
        if not refused.code.endswith("-running"):
            log.warning("a handover was left behind, and stays: %s", refused.message)
    except DbsyncError as error:
        log.warning("a handover that may have been left behind was not looked at: %s", error.message)
    return None
