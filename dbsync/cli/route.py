"""`dbsync route`: where requests go."""

from __future__ import annotations

from typing import Any

import click

from dbsync.cli.options import VerbGroup
from dbsync.cli.render import Outcome, Paper
from dbsync.cli.session import Session, verb
from dbsync.model import Route


@click.group("route", cls=VerbGroup)
def route() -> None:
    """Show where requests go."""


@verb("show")
def show(session: Session) -> Outcome:
    """Show what every replica of the proxy says about every router.

    Example: dbsync route show
    """
    router = session.context.router
    if router is None:
        nothing: dict[str, Any] = {"router": None, "service": None, "environment": None, "written": None, "rules": []}
        note = f"There is no [router] in {session.config.path.name}: a cutover moves the databases only."
        return Outcome(nothing, warnings=["no-router"], notes=[note], text=lambda _: None)
    # The file first: one that is missing is the configuration's fault, whatever the proxy says.
    written = router.written()
    routes = router.routes()
    first = routes[0] if routes else None
    data = {
        "router": first.router if first else None,
        "service": first.service if first else None,
        "environment": environment_of(routes),
        "written": written,
        "rules": [
            {
                "router": one.router,
                "service": one.service,
                "environment": one.environment,
                "replica": one.replica,
                "rule": one.rule,
                "detail": one.detail,
            }
            for one in routes
        ],
    }

    def text(paper: Paper) -> None:
        paper.table(
            ("router", "service", "environment", "replica", "rule"),
            [(r.router, r.service or "–", r.environment or "unknown", r.replica, r.rule) for r in routes],
        )

    return Outcome(data, text=text)


def environment_of(routes: list[Route]) -> str | None:
    """The environment that all of these routes lead to; None when one is unknown, "other" when they disagree."""
    named = {one.environment for one in routes}
    if not named or None in named:
        return None
    return str(named.pop()) if len(named) == 1 else "other"


route.add_command(show)
