"""The steps of a handover, as values: what is printed is what runs. Both directions are this one plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `undo` says how it is taken back; None once there is no way but forward."""

    name: str
    says: str
    undo: str | None = ""


def steps(old: str, new: str, hold: str | None) -> tuple[Step, ...]:
    """The road from `old` being live to `new` being live. `hold` is None where there is no router."""
    gated = hold in ("hold", "reject")
    waiting = {"hold": "hold writes at the gate", "reject": "answer writes with 503 at the gate"}.get(hold or "", "")
    road = [
        Step("catch-up", f"apply what {new} lacks of {old}, compare every key changed since the receipt"),
        Step("custodian", "start the process that finishes or undoes this if it dies", "it ends"),
    ]
    if gated:
        road += [
            Step("gate", "put the gate before the routers, passing, and prove it at every replica", "take it away"),
            Step("hold", waiting, f"let everything through to {old}"),
            Step("settle", "wait until no request let in before still writes"),
        ]
    road += [
        Step("fence", f"let no write into {old}; it opens again by itself", f"open {old} again"),
        Step("drain", f"apply the last window to {new}"),
        Step("recheck", "compare the last keys"),
        Step("cede", f"{old} gives up being live: the point of no return", None),
        Step("open", f"{new} begins to be live", None),
    ]
    if gated:
        road.append(Step("release", f"everything at the gate goes to {new}", None))
    if hold is not None:
        road.append(Step("route", f"make the routers name {new}, confirmed at every replica", None))
    if gated:
        road.append(Step("ungate", "take the gate away", None))
    road.append(Step("follow", f"{old} is closed and follows {new} from before its first write", None))
    return tuple(road)
