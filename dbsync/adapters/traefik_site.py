"""The hold at one watched directory: put in, proven at every replica, taken away."""

from __future__ import annotations

import http.client
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dbsync.adapters import traefik_files as files
from dbsync.adapters.traefik_hold import (
    GATE_FILE,
    GATE_PATH,
    GATE_ROUTER,
    HOLD_FILE,
    MARK_HEADER,
    PARENTS_SINCE,
    ROOT,
    STATUS_RETRY_SINCE,
    Held,
    gate_document,
    hold_document,
    loopback,
)
from dbsync.adapters.traefik_http import Api, Connection, matching, told
from dbsync.adapters.traefik_target import Target, until
from dbsync.errors import Refused, Unavailable

LINGER = 1.0
"""Seconds that the gate and the way to it stay after the hold has left the API: requests under way still ask."""


class Site:
    """Every held router of one watched directory, and the replicas that read it."""

    def __init__(
        self, targets: Sequence[Target], gate_entrypoint: str, state_dir: Path, lock_wait: float = 5.0
    ) -> None:
        self._targets = tuple(targets)
        self._directory = targets[0].directory
        self._hold, self._gate = self._directory / HOLD_FILE, self._directory / GATE_FILE
        self._entry_point = gate_entrypoint
        self._state_dir, self._lock_wait = state_dir, lock_wait
        self._apis: dict[str, Api] = {api.shown: api for target in targets for api in target.apis}
        self._listed = frozenset(target.router for target in targets)
        self._names: tuple[str, frozenset[str]] | None = None

    # --- in -----------------------------------------------------------------------------------

    def install(self, epoch: int, gate: str, mark: str, wait: float) -> None:
        """Put the gate before every router and prove it; takes it away again when it cannot be proven.

        Raises Unavailable (`hold-not-confirmed`; `hold-not-removed`: the gate must stay), Refused
        (`hold-unproven`, `proxy-too-old`, `route-epoch`).
        """
        deadline = time.monotonic() + wait
        self._refuse_unprovable()
        tag = f"{epoch}x{secrets.token_hex(3)}"
        try:
            held, version = self._held()
            self._claim(epoch, tag, held)
            address = self._lead_to_gate(tag, gate, version, deadline)
            self._publish(tag, self._hold, hold_document(held, tag, address, version))
            complaint = until(lambda: self._unproven(held, tag, mark), deadline - time.monotonic(), self._nudge)
            if complaint is not None:
                raise _unconfirmed(f"{complaint}, {wait:g} s after it was put in")
        except Refused:
            raise
        except Unavailable as exc:
            # When it may still be there, that is what must be said: the gate has to stay.
            self.remove(max(wait, 2.0))
            if exc.code == "hold-not-confirmed":
                raise
            raise _unconfirmed(exc.message.rstrip(".")) from exc

    def _refuse_unprovable(self) -> None:
        for target in self._targets:
            if len(target.probes) < len(target.apis):
                raise Refused(
                    f"The hold of {target.router!r} cannot be proven: {len(target.probes)} of {len(target.apis)} "
                    "replicas can be probed.",
                    code="hold-unproven",
                    remedy='Give router.probe one address for each of router.api, or set cutover.hold = "off".',
                )

    def _held(self) -> tuple[list[Held], tuple[int, ...]]:
        version = min(api.version() for api in self._apis.values())
        if version < PARENTS_SINCE:
            raise Refused(
                f"The proxy is version {'.'.join(map(str, version))}, and the hold needs 3.6.0.",
                code="proxy-too-old",
                remedy='Upgrade it, or set cutover.hold = "off".',
            )
        held: list[Held] = []
        lists = {shown: api.all("http", "routers") for shown, api in self._apis.items()}
        for target in self._targets:
            seen = [target.held(lists[api.shown], self._listed) for api in target.apis]
            held.append(max(seen, key=lambda one: one.priority))
        return held, version

    def _lead_to_gate(self, tag: str, gate: str, version: tuple[int, ...], deadline: float) -> str:
        """The address that the proxy asks; by way of its own loopback entry point where there is one."""
        own = {loopback(api.entry_points().get(self._entry_point)) for api in self._apis.values()}
        point = next(iter(own)) if len(own) == 1 else None
        if point is None or version < STATUS_RETRY_SINCE:
            with files.locked(self._state_dir, self._lock_wait):
                files.remove(self._gate)
            return gate.rstrip("/") + "/"
        path = GATE_PATH + secrets.token_hex(16)
        self._publish(tag, self._gate, gate_document(self._entry_point, path, gate))
        # Alone first: the entry points are switched one after the other, and a hold without it would fail requests.
        rule = f"Path(`/{path}`)"
        complaint = until(lambda: self._without_way(rule), deadline - time.monotonic(), self._nudge)
        if complaint is not None:
            raise _unconfirmed(complaint)
        return f"http://{point}/{path}"

    def _without_way(self, rule: str) -> str | None:
        for api in self._apis.values():
            found = api.router("http", GATE_ROUTER)
            if not any(entry.get("rule") == rule and entry.get("status") == "enabled" for entry in found):
                return f"the way to the gate is not at {api.shown}"
        return None

    def _unproven(self, held: Sequence[Held], tag: str, mark: str) -> str | None:
        for api in self._apis.values():
            listed = api.all("http", "routers", tag)
            for one in held:
                for name in (one.root(tag), *one.children(tag)):
                    entries = matching(listed, name)
                    if not entries:
                        return f"the hold is not at {api.shown}"
                    bad = next((entry for entry in entries if entry.get("status") != "enabled"), None)
                    if bad is not None:
                        return f"{name} is {bad.get('status')} at {api.shown}: {'; '.join(bad.get('error') or ())}"
        for target in self._targets:
            for probe in target.probes:
                complaint = _unmarked(probe, mark)
                if complaint is not None:
                    return complaint
        return None

    # --- out ----------------------------------------------------------------------------------

    def remove(self, wait: float) -> None:
        """Take the gate away, harmless when it is not there or the proxy is down. Afterwards the gate may end.

        Raises Unavailable (`hold-not-removed`) when a replica may still ask the gate; then the way to it stays.
        """
        with files.locked(self._state_dir, self._lock_wait):
            asked = files.remove(self._hold) or self._gate.exists()
            state = files.load_state(self._state_dir)
            if state.get("holds", {}).pop(str(self._directory), None) is not None:
                files.save_state(self._state_dir, state)
        complaint = until(self._still_held, wait, self._nudge)
        if complaint is not None:
            raise Unavailable(
                f"The hold was taken out of {self._directory}, but {complaint} after {wait:g} s.",
                code="hold-not-removed",
                remedy="Look at the proxy's log for a file that it cannot read, mend it, and run "
                "`dbsync cutover --resume`. Until then the gate must run.",
                changed=True,
                next_command="dbsync cutover --resume",
            )
        if asked:
            time.sleep(LINGER)
            with files.locked(self._state_dir, self._lock_wait):
                # Somebody may have begun anew meanwhile; then it is theirs.
                if not self._hold.exists() and not self._claimed():
                    files.remove(self._gate)

    def _still_held(self) -> str | None:
        for api in self._apis.values():
            try:
                left = [entry for entry in api.all("http", "routers", ROOT) if entry.get("status") != "disabled"]
            except Unavailable as exc:
                if isinstance(exc.__cause__, ConnectionRefusedError):
                    continue  # it is down; when it starts it reads the directory anew
                return f"{api.shown} does not say whether it is gone"
            if any(ROOT in str(entry.get("name")) and entry.get("provider") == "file" for entry in left):
                return f"{api.shown} still asks the gate"
        return None

    def present(self) -> bool:
        """Whether files of the hold lie in the directory."""
        return self._hold.exists() or self._gate.exists()

    def served(self) -> int | None:
        """Writes that came back through the held routers, over all replicas; None when it cannot be told."""
        state = files.load_state(self._state_dir).get("holds", {}).get(str(self._directory))
        if not state:
            return None
        names = {f"{name}@file" for name in state["counted"]}
        total = 0
        for api in self._apis.values():
            try:
                found = api.served()
            except Unavailable:
                return None
            if found is None:
                return None
            total += sum(count for name, count in found.items() if name in names)
        return total

    # --- files --------------------------------------------------------------------------------

    def _claim(self, epoch: int, tag: str, held: Sequence[Held]) -> None:
        with files.locked(self._state_dir, self._lock_wait):
            state = files.load_state(self._state_dir)
            holds = state.setdefault("holds", {})
            there = holds.get(str(self._directory), {})
            if self._hold.exists() and int(there.get("epoch", 0)) > epoch:
                raise Refused(
                    f"A hold of epoch {there['epoch']} is in place, and this one is of epoch {epoch}.",
                    code="route-epoch",
                    remedy="Run `dbsync status`: another handover has begun.",
                )
            counted = [name for one in held for name in one.children(tag)]
            holds[str(self._directory)] = {"epoch": epoch, "tag": tag, "counted": counted}
            files.save_state(self._state_dir, state)

    def _claimed(self) -> str:
        return str(files.load_state(self._state_dir).get("holds", {}).get(str(self._directory), {}).get("tag", ""))

    def _publish(self, tag: str, path: Path, content: bytes) -> None:
        with files.locked(self._state_dir, self._lock_wait):
            # A coordinator that slept while its hold was taken away must not put it back: its gate is gone.
            if self._claimed() != tag:
                raise _unconfirmed("it was taken away meanwhile")
            files.publish(path, content, (self._state_dir,), like=self._targets[0].file)

    def _nudge(self) -> None:
        with suppress(OSError):
            os.utime(self._targets[0].file)

    def close(self) -> None:
        """Let go of every connection."""
        for api in self._apis.values():
            api.close()


def _unmarked(probe: Connection, mark: str) -> str | None:
    try:
        answer = probe.probe({MARK_HEADER: mark}, timeout=2.0)
    except (OSError, http.client.HTTPException) as exc:
        return f"the probe {probe.shown} does not answer ({told(exc)})"
    if answer.status == 418 and answer.body == b"dbsync-gate":
        return None
    return f"the probe {probe.shown} was answered {answer.status}, and not by the gate"


def _unconfirmed(why: str) -> Unavailable:
    return Unavailable(
        f"The hold is not confirmed: {why}. It was taken away again.",
        code="hold-not-confirmed",
        remedy="See `dbsync doctor`, and the proxy's log: one file that it cannot read keeps every change out.",
    )
