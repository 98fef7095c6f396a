"""The log on stderr, one line a record, without secrets."""

from __future__ import annotations

import logging

from dbsync.cli import render

CHATTY = ("httpx", "httpcore", "alembic", "sqlglot", "sqlalchemy")


class Lines(logging.Handler):
    """Writes each record's message as a line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        render.log(record.getMessage())


def to_stderr(verbose: int) -> None:
    """Send the log to stderr: warnings always, the rest by -v and -vv."""
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if not isinstance(one, Lines)] + [Lines()]
    root.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING if verbose < 2 else logging.DEBUG)
