"""The reference pages are generated, and fresh."""

from __future__ import annotations

from dbsync.cli import reference


def test_the_pages_are_as_the_code_would_write_them() -> None:
    assert reference.stale() == []


def test_every_key_of_the_file_has_a_line() -> None:
    page = reference.config_page()
    assert "| `max_pause` | `10s` |" in page
    assert "| `services` | required |" in page
    assert "[kafka]" in page or "`kafka`" in page


def test_every_class_of_error_has_its_exit_code() -> None:
    page = reference.errors_page()
    for line in ("| 2 | `ConfigError`", "| 3 | `Refused`", "| 130 | `Interrupted`"):
        assert line in page
    assert "| `unknown-key` | `ConfigError` |" in page
