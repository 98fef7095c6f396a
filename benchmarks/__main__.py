"""python -m benchmarks [rows|memory|crossings|windows|pauses|sizes] …: run all of them, or those that are named."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

from benchmarks import crossings, pauses, rows
from benchmarks.figures import Figure, told

RUNS: dict[str, Callable[[], list[Figure]]] = {
    "rows": rows.ratios,
    "memory": rows.memory,
    "crossings": crossings.snapshots,
    "windows": crossings.windows,
    "pauses": pauses.default_throttle,
    "sizes": pauses.sizes,
}


def main(names: list[str]) -> int:
    """Run, print the table, and give 1 if a limit was missed."""
    unknown = set(names) - set(RUNS)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(RUNS)}", file=sys.stderr)
        return 2
    print(f"{platform.platform()}, Python {platform.python_version()}", flush=True)
    figures: list[Figure] = []
    for name in names or RUNS:
        print(f"… {name}", file=sys.stderr, flush=True)
        made = RUNS[name]()
        figures += made
        print(told(made), flush=True)
    return 0 if all(figure.good for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
