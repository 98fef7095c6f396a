"""Evidence in, blockers out: what a handover requires. Unknown is no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dbsync.errors import Blocker
from dbsync.etl.loss import Loss, refused, told, ways_out
from dbsync.model import Check, Lag, Severity


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator requires; times in seconds."""

    max_lag: float = 5.0
    receipt_max_age: float = 900.0
    max_pause: float = 10.0
    hold: str = "hold"
    accept_loss: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known before a handover from `active` to `idle`. None stands for what could not be learnt."""

    active: str
    idle: str
    epoch: int
    revisions: Mapping[str, str | None]
    identities: Mapping[str, str]
    fingerprints: Mapping[str, str]
    crossing: str
    receipt: Mapping[str, Any] | None = None
    receipt_age: float | None = None
    lag: Lag | None = None
    stale: tuple[str, ...] = ()
    foreign: int | None = None
    """Changes that the idle side recorded since the receipt and dbsync did not make; None: not known."""
    mismatches: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    """What is lost when the older side becomes live: values of rows that its shape cannot give back."""
    writer_waiting: bool = False
    """Whether an application transaction has held the active side's write lock for long."""
    irreversible: tuple[str, ...] = ()
    """Older tables whose way back is only assumed, when the older side is to become live."""
    checks: tuple[Check, ...] = ()
    """What the proxy and both databases say of themselves."""
    notes: tuple[str, ...] = field(default=())


def judge(evidence: Evidence, limits: Limits) -> tuple[Blocker, ...]:
    """What stands in the way, each with its remedy; empty when the gate is open."""
    found: list[Blocker] = []
    found += _following(evidence, limits)
    found += _proven(evidence, limits)
    found += _untouched(evidence)
    lost = refused(evidence.losses)
    if lost and not limits.accept_loss:
        found.append(Blocker("loss", f"{evidence.idle} cannot hold what rows hold now: {told(lost)}", ways_out(lost)))
    for table in evidence.irreversible:
        found.append(
            Blocker("missing-crossing", f"nothing says how {table} goes back", "declare `reverse` in the crossing")
        )
    if evidence.writer_waiting:
        found.append(
            Blocker(
                "long-transaction",
                f"a transaction on {evidence.active} has held the write lock for more than a second",
                "let it end, or end it, then run the command again",
            )
        )
    bad = [check for check in evidence.checks if check.severity is Severity.BLOCKER]
    return (*found, *(Blocker(check.code, check.found, check.remedy) for check in bad))


def _following(evidence: Evidence, limits: Limits) -> list[Blocker]:
    if evidence.stale:
        tables = ", ".join(evidence.stale)
        return [Blocker("table-stale", f"{tables}: not put again since its shape or crossing changed", "dbsync sync")]
    if evidence.lag is None:
        return [Blocker("lag-unknown", f"how far {evidence.idle} is behind cannot be told", "dbsync sync")]
    if evidence.lag.seconds > limits.max_lag:
        found = f"{evidence.idle} is {evidence.lag.seconds:.1f}s behind, more than {limits.max_lag:g}s"
        return [Blocker("lag-too-high", found, "dbsync sync")]
    return []


def _proven(evidence: Evidence, limits: Limits) -> list[Blocker]:
    receipt = evidence.receipt
    if receipt is None:
        return [Blocker("not-verified", "no receipt of a clean verify", "dbsync verify")]
    found = []
    if receipt.get("epoch") != evidence.epoch or receipt.get("active") != evidence.active:
        found.append(Blocker("not-verified", "the receipt is of another handover's time", "dbsync verify"))
    elif not receipt.get("derived") and (evidence.receipt_age is None or evidence.receipt_age > limits.receipt_max_age):
        age = "unknown" if evidence.receipt_age is None else f"{evidence.receipt_age:.0f}s"
        found.append(
            Blocker(
                "receipt-old", f"the receipt's age is {age}, more than {limits.receipt_max_age:g}s", "dbsync verify"
            )
        )
    bound = (
        (
            "receipt-revision",
            "revisions",
            evidence.revisions,
            "a database is at another revision than when verified",
        ),
        ("receipt-crossing", "crossing", evidence.crossing, "a crossing has changed since the verify"),
        ("receipt-identity", "identities", evidence.identities, "a database is not the one that was verified"),
        ("guard-changed", "fingerprints", evidence.fingerprints, "the schema or a guard was changed since the verify"),
    )
    for code, name, now, what in bound:
        if receipt.get(name) != now:
            found.append(Blocker(code, f"{what}{_sides(receipt.get(name), now)}", "dbsync verify"))
            break  # one change of the shape shows in all that follow
    if evidence.mismatches:
        keys = "; ".join(evidence.mismatches[:5])
        found.append(
            Blocker("not-verified", f"{len(evidence.mismatches)} keys differ: {keys}", "dbsync verify --repair")
        )
    return found


def _sides(then: Any, now: Any) -> str:
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return ""
    return f" ({', '.join(sorted(name for name in now if then.get(name) != now[name]))})"


def _untouched(evidence: Evidence) -> list[Blocker]:
    if evidence.foreign is None and evidence.receipt is not None:
        return [Blocker("idle-written", f"what was written to {evidence.idle} cannot be told", "dbsync verify")]
    if evidence.foreign:
        found = f"{evidence.foreign} rows of {evidence.idle} were changed behind dbsync's back since the verify"
        return [Blocker("idle-written", found, "dbsync verify")]
    return []
