"""The router file: read it, exchange the service's name and nothing else, publish it in one rename."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbsync.errors import ConfigError, Unavailable

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./@-]*")
STAGED = ".dbsync-stage-"
"""What names of half-written files begin with; they lie outside the watched directory."""


@dataclass(frozen=True)
class RouterFile:
    """The router file as it is now: its bytes, and one router's definition in it."""

    path: Path
    raw: bytes
    service: str
    start: int
    """Where the service's name stands in the decoded text, quotes included; `end` is the place behind it."""
    end: int
    router: Mapping[str, Any]
    """The router's definition, as plain values."""

    def with_service(self, service: str) -> bytes:
        """The same bytes with another service's name. Raises ConfigError (`router-file-broken`)."""
        text = self.raw.decode()
        for written in _spellings(text[self.start], service):
            changed = text[: self.start] + written + text[self.end :]
            with suppress(ConfigError):
                if _same_but_for(text, changed, self.service, service):
                    return changed.encode()
        raise broken(self.path, "the service's name is written in a way that cannot be exchanged on its own")


def read(path: Path, kind: str, router: str) -> RouterFile:
    """The router's definition in a file. Raises ConfigError (`router-file-missing`, `-broken`, `router-missing`)."""
    text, raw = _text(path)
    document = _parsed(path, text)
    definition = _lookup(_lookup(document, kind), "routers")
    definition = definition.get(router) if isinstance(definition, Mapping) else None
    if not isinstance(definition, Mapping):
        raise ConfigError(
            f"{path} has no router {router!r} under {kind}.routers.",
            code="router-missing",
            remedy="Correct router.router or router.file.",
        )
    service = _lookup(definition, "service")
    if not isinstance(service, str) or not service:
        raise broken(path, f"the router {router!r} names no service")
    node = _service_node(path, text, kind, router)
    start, end = node.start_mark.index, node.end_mark.index
    return RouterFile(path, raw, service, start, end, dict(definition))


def broken(path: Path, why: str) -> ConfigError:
    """The refusal for a file that cannot be read as a router file, or not changed safely."""
    return ConfigError(
        f"The router file {path} cannot be used: {why}.",
        code="router-file-broken",
        remedy="Write the router as plain YAML: `service: NAME`, without templates, anchors or merges.",
    )


def _text(path: Path) -> tuple[str, bytes]:
    if path.suffix.lower() not in (".yml", ".yaml"):
        raise broken(path, f"{path.suffix or 'a file without a suffix'} is not YAML, and only YAML is supported")
    _refuse_odd_link(path)
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except UnicodeDecodeError:
        raise broken(path, "it is not UTF-8") from None
    except OSError as exc:
        raise ConfigError(
            f"The router file {path} cannot be read: {exc.strerror}.",
            code="router-file-missing" if isinstance(exc, FileNotFoundError) else "router-file-unreadable",
            remedy="Correct router.file, or its permissions.",
        ) from exc
    if "{{" in text:
        raise broken(path, "it is a template ({{), and a template cannot be read back")
    return text, raw


def _refuse_odd_link(path: Path) -> None:
    # The proxy sees only the first replacement behind a link that leads out of the directory (ConfigMap style too).
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise broken(path, "it is a link to a file outside its directory, where the proxy does not see a change")


def _parsed(path: Path, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise broken(path, f"it does not parse{where} ({getattr(exc, 'problem', None) or 'not YAML'})") from None


def _service_node(path: Path, text: str, kind: str, router: str) -> Any:
    from ruamel.yaml import YAML

    node = YAML(typ="safe", pure=True).compose(text)
    for name in (kind, "routers", router, "service"):
        pairs = node.value if isinstance(getattr(node, "value", None), list) else []
        exact = name == router
        node = next((v for k, v in pairs if k.value == name or (not exact and _folded(k.value) == name)), None)
        if node is None:
            raise broken(path, f"the service of {router!r} comes from a merge, not from a line of its own")
    written = text[node.start_mark.index : node.end_mark.index]
    plain = node.style in (None, "") and written == node.value
    quoted = node.style in ("'", '"') and written[:1] == node.style
    if not (plain or quoted) or "\n" in written:
        raise broken(path, f"the service of {router!r} carries an anchor, an alias or a tag")
    return node


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _lookup(mapping: Any, name: str) -> Any:
    # The proxy compares the names of its own options without regard to case.
    if not isinstance(mapping, Mapping):
        return None
    return next((value for key, value in mapping.items() if _folded(key) == name), None)


def option(definition: Mapping[str, Any], name: str) -> Any:
    """An option of a router's definition, under any case of its name; None where it is not written."""
    return _lookup(definition, name.casefold())


def _spellings(before: str, service: str) -> Sequence[str]:
    single, double = "'" + service.replace("'", "''") + "'", json.dumps(service, ensure_ascii=False)
    if before == "'":
        return (single, double)
    if before == '"':
        return (double,)
    return (service, double) if _PLAIN.fullmatch(service) else (double,)


def _same_but_for(old: str, new: str, was: str, now: str) -> bool:
    """Whether the only difference between two documents is one value that was `was` and is `now`."""
    changes: list[tuple[Any, Any]] = []

    def walk(a: Any, b: Any) -> None:
        if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
            for key in a:
                walk(a[key], b[key])
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            for x, y in zip(a, b, strict=True):
                walk(x, y)
        elif type(a) is not type(b) or a != b:
            changes.append((a, b))

    walk(_parsed(Path(), old), _parsed(Path(), new))
    return changes == [(was, now)]


# --- publishing ----------------------------------------------------------------------------------


def staging(directory: Path, others: Sequence[Path] = ()) -> Path | None:
    """A writable folder outside the watched directory, on its file system; None where there is none.

    A half-written file inside would be an event of its own, and cost the proxy's whole throttle.
    """
    try:
        device = directory.stat().st_dev
    except OSError:
        return None
    inside = directory.resolve()
    for folder in (directory.resolve().parent, *others):
        with suppress(OSError):
            outside = not folder.resolve().is_relative_to(inside)
            if outside and folder.stat().st_dev == device and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def publish(path: Path, content: bytes, others: Sequence[Path] = (), like: Path | None = None) -> None:
    """Make a file of the watched directory hold this, in one rename; mode and owner stay (or are those of `like`).

    Raises Unavailable (`router-file-unwritable`), with nothing changed.
    """
    target = path.resolve() if path.is_symlink() else path
    stage = staging(target.parent, others)
    if stage is None:
        raise _unwritable(path, f"no writable folder on its file system outside {target.parent}")
    _replace(target, content, stage, like or target)


def _replace(target: Path, content: bytes, stage: Path, like: Path) -> None:
    staged = stage / f"{STAGED}{secrets.token_hex(6)}"
    try:
        _write(staged, content, like)
        staged.replace(target)
        _sync_folder(target.parent)
    except OSError as exc:
        with suppress(OSError):
            staged.unlink()
        raise _unwritable(target, exc.strerror or str(exc)) from exc


def _unwritable(path: Path, why: str) -> Unavailable:
    return Unavailable(
        f"{path} cannot be replaced: {why}.",
        code="router-file-unwritable",
        remedy="Let dbsync write to the watched directory and to the folder above it.",
    )


def _write(staged: Path, content: bytes, like: Path) -> None:
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with suppress(FileNotFoundError):
            original = like.stat()
            _keep_owner(fd, original)
            os.fchmod(fd, original.st_mode & 0o7777)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _keep_owner(fd: int, original: os.stat_result) -> None:
    if (os.geteuid(), os.getegid()) == (original.st_uid, original.st_gid):
        return
    with suppress(PermissionError):  # only root may give a file away; the proxy can still read what it could
        os.fchown(fd, original.st_uid, original.st_gid)


def remove(path: Path) -> bool:
    """Delete a file of dbsync's own, durably; gives whether it was there. Raises Unavailable."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise _unwritable(path, exc.strerror or str(exc)) from exc
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- state of dbsync's own -------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """Only one process at a time writes routes. Dies with the process. Raises Unavailable (`route-locked`)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "route.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise _unwritable(folder / "route.lock", exc.strerror or str(exc)) from exc
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Unavailable(
                        f"Another process has been writing the route for {wait:g} s.",
                        code="route-locked",
                        remedy="Wait for it, or end it, and run again.",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def load_state(folder: Path) -> dict[str, Any]:
    """The record of dbsync's own beside the lock; empty where there is none or it is damaged."""
    try:
        found = json.loads((folder / "route.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace that record, durably. Raises Unavailable."""
    path = folder / "route.json"
    _replace(path, json.dumps(state).encode(), folder, path)
