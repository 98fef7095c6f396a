"""dbsync, stopped or killed at a chosen point: `python -m tests.acceptance.stall WHERE WHEN NTH SIGNAL its words`.

WHERE is `module:attribute` or `module:Class.method`, WHEN `before` or `after` its NTH call. The signal goes to this
process alone, once. With `is` for WHEN nothing stops: the attribute, a time in seconds, is NTH.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from typing import Any


def arm(where: str, when: str, nth: int, number: signal.Signals) -> None:
    """Let the process send itself the signal at that point."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    if when == "is":
        setattr(owner, name, float(nth))
        return
    real = getattr(owner, name)
    calls = 0

    @functools.wraps(real)
    def armed(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        now = calls == nth
        if now and when == "before":
            os.kill(os.getpid(), number)
        given = real(*args, **named)
        if now and when == "after":
            os.kill(os.getpid(), number)
        return given

    setattr(owner, name, armed)


if __name__ == "__main__":
    spot, moment, count, word, *rest = sys.argv[1:]
    arm(spot, moment, int(count), signal.Signals[word])
    from dbsync.cli.main import main

    main(rest)
