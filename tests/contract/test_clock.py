"""The Clock socket, over the twin and over the machine's own; the twins of router and gate."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

import pytest

from dbsync.adapters.clock import SystemClock
from dbsync.adapters.memory import FakeClock, MemoryGate, MemoryRouter
from dbsync.errors import Interrupted, Unavailable


@pytest.fixture(params=[FakeClock, SystemClock])
def clock(request: pytest.FixtureRequest) -> FakeClock | SystemClock:
    made: FakeClock | SystemClock = request.param()
    return made


def test_now_is_aware_and_in_utc(clock: FakeClock | SystemClock) -> None:
    assert clock.now().utcoffset() == timedelta(0)


def test_sleeping_takes_its_time_and_the_monotonic_clock_never_goes_back(clock: FakeClock | SystemClock) -> None:
    start = clock.monotonic()
    clock.sleep(0.02)
    clock.sleep(-1.0)
    assert clock.monotonic() - start >= 0.019


def test_an_interrupt_ends_every_sleep_from_then_on(clock: FakeClock | SystemClock) -> None:
    before = clock.stopped
    clock.interrupt()
    assert (before, clock.stopped) == (False, True)
    for _ in range(3):
        with pytest.raises(Interrupted):
            clock.sleep(600.0)


def test_an_interrupt_wakes_every_sleeper_of_the_system_clock() -> None:
    clock = SystemClock()
    woken: list[str] = []

    def doze() -> None:
        try:
            clock.sleep(600.0)
        except Interrupted:
            woken.append("yes")

    sleepers = [threading.Thread(target=doze) for _ in range(3)]
    for sleeper in sleepers:
        sleeper.start()
    clock.interrupt()
    for sleeper in sleepers:
        sleeper.join(5.0)
    assert woken == ["yes"] * 3


def test_a_signal_handler_may_interrupt_the_thread_that_sleeps() -> None:
    clock = SystemClock()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: clock.interrupt())
    try:
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(Interrupted):
            clock.sleep(600.0)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_routers_twin_follows_its_file_at_every_replica_that_listens() -> None:
    router = MemoryRouter("blue", {"blue": "b@file", "green": "g@file"}, ("one", "two"))
    assert {route.environment for route in router.switch("green", 1.0)} == {"green"}
    assert router.written() == "green"
    router.deaf.add("two")
    with pytest.raises(Unavailable) as unavailable:
        router.switch("blue", 1.0)
    assert (unavailable.value.code, unavailable.value.changed) == ("route-not-confirmed", True)
    assert {route.replica: route.environment for route in router.routes()} == {"one": "blue", "two": "green"}
    with pytest.raises(Unavailable):
        router.install_hold(2, "gate", "mark", "blue", 1.0)
    assert not router.hold_present()


def test_the_gates_twin_holds_writes_until_the_decision_and_lets_reads_pass() -> None:
    clock = FakeClock()
    gate = MemoryGate(clock)
    gate.start(2, "blue", "me")
    assert gate.request(write=True) == "blue"
    gate.hold(5.0)
    assert gate.request(write=False) == "blue"
    assert gate.request(write=True) is None
    clock.advance(0.25)
    gate.decide("green")
    assert gate.held() == (1, 250.0)
    assert gate.passed_writes() == 2
    assert gate.request(write=True) == "green"
