"""The gate's worker as a real process on a real socket: what it answers, what it keeps, and that it comes back."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from dbsync.adapters import gate_worker
from dbsync.adapters.gate import Control, Secrets, Supervisor, listen, prepare, supervise
from dbsync.errors import Unavailable
from tests.contract.traefik_rig import wait_for


@dataclass
class Rig:
    port: int
    state: Path
    known: Secrets
    control: Control
    supervisor: Supervisor

    def ask(self, method: str | None, **headers: str) -> tuple[int, str | None]:
        """Status and side of a question of the proxy's, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            forwarded = {"X-Forwarded-Method": method} if method else {}
            connection.request("GET", "/", headers=forwarded | headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers.get("X-Dbsync-Side")
        finally:
            connection.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Rig]:
    sock = listen("127.0.0.1", 0)
    state = tmp_path / "gate.json"
    known = prepare(state, "blue")
    port = sock.getsockname()[1]
    rig = Rig(port, state, known, Control("127.0.0.1", port, known.control), Supervisor(sock, state))
    rig.supervisor.start()
    yield rig
    rig.control.close()
    rig.supervisor.stop()


def test_everything_passes_to_the_live_side_and_writes_are_counted(gate: Rig) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "PROPFIND", None):
        assert gate.ask(method) == (204, "blue")
    stats = gate.control.stats()
    assert (stats["mode"], stats["live"], stats["passed"], stats["held"]) == ("pass", "blue", 6, 0)


def test_only_the_mark_itself_is_answered_by_the_gate(gate: Rig) -> None:
    assert gate.ask("GET", **{"X-Dbsync-Mark": gate.known.mark})[0] == 418
    assert gate.ask("GET", **{"X-Dbsync-Mark": gate.known.mark[:-1]}) == (204, "blue")
    gate.control.hold(1)
    assert gate.ask("GET", **{"X-Dbsync-Mark": gate.known.mark})[0] == 418


def test_writes_wait_and_reads_pass_until_it_is_decided(gate: Rig) -> None:
    assert gate.control.hold(5)["mode"] == "hold"
    with ThreadPoolExecutor(40) as pool:
        writes = [pool.submit(gate.ask, "POST") for _ in range(38)]
        unknown = pool.submit(gate.ask, None)
        upgrade = pool.submit(gate.ask, "GET", **{"Sec-WebSocket-Key": "x"})
        wait_for(lambda: gate.control.stats()["waiting"] == 40)
        assert gate.ask("GET") == gate.ask("HEAD") == (204, "blue")
        stats = gate.control.decide("green")
        assert {future.result() for future in (*writes, unknown, upgrade)} == {(204, "green")}
    assert stats["passed"] == 39 and stats["held"] == 40 and 0 < stats["longest_ms"] < 10_000
    assert gate.ask("POST") == (204, "green")


def test_a_client_that_leaves_while_it_waits_is_not_counted_as_passed(gate: Rig) -> None:
    gate.control.hold(5)
    with socket.create_connection(("127.0.0.1", gate.port)) as gone:
        gone.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Method: POST\r\n\r\n")
        wait_for(lambda: gate.control.stats()["waiting"] == 1)
    wait_for(lambda: gate.control.stats()["waiting"] == 0)
    assert gate.control.decide("blue")["passed"] == 0


def test_requests_in_pieces_and_in_one_piece_are_answered_in_order(gate: Rig) -> None:
    read = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Method: GET\r\n\r\n"
    write = b"POST / HTTP/1.1\r\nX-Forwarded-Method: POST\r\ncontent-length: 4\r\n\r\nbody"
    gate.control.hold(5)
    with socket.create_connection(("127.0.0.1", gate.port), timeout=5) as sock:
        for piece in (read[:9], read[9:40], read[40:] + read + write + read):
            sock.sendall(piece)
        wait_for(lambda: gate.control.stats()["waiting"] == 1)
        gate.control.decide("green")
        got = b""
        while got.count(b"\r\n\r\n") < 4:
            got += sock.recv(4096)
    assert [line[15:] for line in got.split(b"\r\n") if line.startswith(b"X-Dbsync-Side")] == [
        b"blue", b"blue", b"green", b"green",
    ]  # fmt: skip


def test_refused_writes_are_told_when_to_come_back(gate: Rig) -> None:
    gate.control.reject()
    assert gate.ask("POST")[0] == 503 and gate.ask("GET") == (204, "blue")
    assert gate.control.stats()["refused"] == 1


def test_what_was_decided_and_that_writes_wait_survives_a_kill(gate: Rig) -> None:
    gate.control.decide("green")
    gate.control.hold(5)
    os.kill(gate.supervisor.pid or 0, 9)
    wait_for(lambda: gate.supervisor.poll() and gate.supervisor.restarts)
    stats = gate.control.stats()
    assert (stats["mode"], stats["live"], stats["passed"]) == ("hold", "green", -1)
    with ThreadPoolExecutor(1) as pool:
        write = pool.submit(gate.ask, "POST")
        wait_for(lambda: gate.control.stats()["waiting"] == 1)
        gate.control.decide("blue")
        assert write.result() == (204, "blue")


def test_an_order_given_while_the_worker_is_dead_is_carried_out_by_the_next_one(gate: Rig) -> None:
    gate.control.hold(5)
    os.kill(gate.supervisor.pid or 0, 9)
    with ThreadPoolExecutor(1) as pool:
        decided = pool.submit(gate.control.decide, "green")
        wait_for(lambda: gate.supervisor.poll() and gate.supervisor.restarts)
        assert decided.result()["live"] == "green"


def test_a_decision_is_on_disk_before_it_is_answered(gate: Rig) -> None:
    gate.control.decide("green")
    assert json.loads(gate.state.read_bytes())["live"] == "green"
    assert stat.S_IMODE(gate.state.stat().st_mode) == 0o600


def test_secrets_stand_in_no_process_list(gate: Rig) -> None:
    gate.control.stats()
    said = Path(f"/proc/{gate.supervisor.pid}/cmdline").read_bytes()
    assert gate.known.mark.encode() not in said and gate.known.control.encode() not in said


def test_orders_need_the_secret(gate: Rig) -> None:
    stranger = Control("127.0.0.1", gate.port, "guessed", timeout=0.3)
    with pytest.raises(Unavailable) as raised:
        stranger.decide("green")
    assert raised.value.code == "gate-unreachable"
    stranger.close()
    assert gate.control.stats()["live"] == "blue"


def test_it_ends_when_told_and_is_not_started_again(gate: Rig) -> None:
    gate.control.stop()
    wait_for(lambda: not gate.supervisor.poll())
    assert gate.supervisor.ended and gate.supervisor.restarts == 0
    gate.control.stop()


def test_the_worker_ends_with_its_supervisor(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dbsync.adapters.gate import *\n"
        "sock = listen('127.0.0.1', 0); path = Path(sys.argv[1]); known = prepare(path, 'blue')\n"
        "s = Supervisor(sock, path); s.start()\n"
        "print(s.pid, sock.getsockname()[1], known.control, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "g.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, port, secret = process.stdout.readline().split()
        control = Control("127.0.0.1", int(port), secret)
        assert control.stats()["pid"] == int(pid)
        process.kill()
    control.close()

    def gone() -> bool:
        with suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    wait_for(gone)


def test_supervise_runs_until_the_gate_is_told_to_stop(tmp_path: Path) -> None:
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    known = prepare(tmp_path / "g.json", "blue")
    thread = threading.Thread(target=supervise, args=(sock, tmp_path / "g.json", lambda: False))
    thread.start()
    control = Control("127.0.0.1", port, known.control)
    os.kill(control.stats()["pid"], 9)
    assert control.stats()["live"] == "blue"
    control.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as sock, pytest.raises(Unavailable) as raised:
        listen("127.0.0.1", sock.getsockname()[1])
    assert raised.value.code == "gate-failed"


def test_six_hundred_held_at_once_are_all_answered(gate: Rig) -> None:
    gate.control.hold(20)
    sockets = [socket.create_connection(("127.0.0.1", gate.port), timeout=10) for _ in range(600)]
    try:
        for sock in sockets:
            sock.sendall(b"GET / HTTP/1.1\r\nX-Forwarded-Method: POST\r\n\r\n")
        wait_for(lambda: gate.control.stats()["waiting"] == 600)
        gate.control.decide("green")
        assert {sock.recv(200) for sock in sockets} == {b"HTTP/1.1 204 No Content\r\nX-Dbsync-Side: green\r\n\r\n"}
    finally:
        for sock in sockets:
            sock.close()


class _Waiting:
    """A connection that keeps what it is answered."""

    def __init__(self) -> None:
        self.write = False
        self.answers: list[bytes] = []

    def reply(self, answer: bytes) -> None:
        self.answers.append(answer)


def test_a_write_is_refused_before_the_proxy_gives_up_and_so_is_one_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "g.json"
    prepare(state, "blue")
    worker = gate_worker.Worker(state)
    worker.mode = "hold"
    head = b"GET / HTTP/1.1\r\nX-Forwarded-Method: POST"
    old, new = _Waiting(), _Waiting()
    assert worker.ask(old, head) is None and worker.ask(new, head) is None  # type: ignore[arg-type]
    worker.waiting[old] -= gate_worker.HOLD_LIMIT  # type: ignore[index]
    worker.sweep()
    assert len(old.answers) == 1 and b"503" in old.answers[0] and b"Retry-After: 1" in old.answers[0]
    assert not new.answers and list(worker.waiting) == [new]
    monkeypatch.setattr(gate_worker, "HELD_LIMIT", 1)
    refused = worker.ask(_Waiting(), head)  # type: ignore[arg-type]
    assert refused is not None and b"503" in refused
