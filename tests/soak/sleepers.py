"""Whoever sleeps for a message, or for room, is woken by it, not only by the end of the 50 ms that a sleep may take.

No single wake has to be quick, since a machine may be busy; but where half of them are as late as the end of a slice
comes to whoever is somewhere in it, nobody woke them.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import HANG, Options, Report, Watchdog, die_with_parent, exit_with, judge_exit

import tachyon

ENOUGH = 20  # samples, before anything is concluded
LATE = 0.015  # seconds: half of those that nobody woke, who are anywhere in their slices of 50 ms, come later than this
NOW = struct.Struct("<d")
MARKED = 1


def pause(source: random.Random) -> None:
    """Until the other side is asleep: beyond the longest spin, well before the end of the slice."""
    time.sleep(0.002 + source.random() * 0.006)


def pause_for_reader(bus: Any, source: random.Random) -> None:
    """The same, once it has read what came before: else it would still be asleep over that."""
    bus.wait_read(timeout=HANG)
    pause(source)


# Each: sleeper(bus, n) → when it had been woken for the n-th time, waker(bus, source) → when it did what wakes.


def read(bus: Any) -> float:
    sent = NOW.unpack_from(bus.recv(timeout=HANG).data)[0]
    return time.monotonic() - float(sent)


def send_now(bus: Any, source: random.Random) -> None:
    pause_for_reader(bus, source)
    bus.send(NOW.pack(time.monotonic()))


def send_claimed(bus: Any, source: random.Random) -> None:
    pause_for_reader(bus, source)
    with bus.send_zero_copy(100) as tx, memoryview(tx) as view:
        NOW.pack_into(view, 0, time.monotonic())


def send_batch(bus: Any, source: random.Random) -> None:
    pause_for_reader(bus, source)
    bus.send_many([NOW.pack(time.monotonic())])


def send_large(bus: Any, source: random.Random) -> None:
    """More than half of the ring: padding goes before it, by itself."""
    pause_for_reader(bus, source)
    bus.send(NOW.pack(time.monotonic()) + bytes(bus.max_message_size * 2 // 3))


def answer(bus: Any, source: random.Random) -> None:
    with bus.serve(timeout=HANG) as rx:
        correlation_id = rx.correlation_id
    pause(source)
    bus.reply(correlation_id, NOW.pack(time.monotonic()))


def ask(bus: Any) -> float:
    with bus.wait(bus.call(b"", 1), timeout=HANG) as rx:
        sent = NOW.unpack_from(bytes(rx))[0]
    return time.monotonic() - float(sent)


def fill(bus: Any) -> float:
    """Sleeps for room. The message that had to wait is marked, by its type_id."""
    payload = bytes(bus.max_message_size // 2 - 64)
    while bus.try_send(payload):
        pass
    bus.send(payload, MARKED, timeout=HANG)
    return time.monotonic()


CASES: dict[str, tuple[Callable[[Any], float], Callable[[Any, random.Random], None], bool]] = {
    "a message": (read, send_now, False),
    "a claimed message": (read, send_claimed, False),
    "a batch": (read, send_batch, False),
    "a large message": (read, send_large, False),
    "a reply": (ask, answer, True),
}


def child(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        die_with_parent()
        body()
    except tachyon.PeerDeadError as error:
        if error.reason == "corrupt":
            exit_with(error)
    except BaseException as error:
        exit_with(error)
    os._exit(0)


def reap(pid: int) -> None:
    judge_exit(os.waitpid(pid, 0)[1], "the other side")


def sleep_for_messages(case: str, path: str, times: int, source: random.Random) -> list[float]:
    sleep, wake, rpc = CASES[case]
    kind: Any = tachyon.RpcBus if rpc else tachyon.Bus

    def other() -> None:
        with kind.listen(path, *[1024] * (1 + rpc), timeout=HANG) as bus:
            while True:
                wake(bus, source)

    pid = child(other)
    with kind.connect(path, timeout=HANG) as bus:
        late = [sleep(bus) for _ in range(times)]
    reap(pid)
    return late


def sleep_for_room(path: str, times: int, source: random.Random) -> list[float]:
    """The reader tells by a second bus when it took something."""

    def other() -> None:
        with (
            tachyon.Bus.listen(path, 256, timeout=HANG) as bus,
            tachyon.Bus.connect(f"{path}2", timeout=HANG) as times_of,
        ):
            while True:
                pause(source)
                now = NOW.pack(time.monotonic())
                while bus.recv(timeout=HANG).type_id != MARKED:
                    pass
                times_of.send(now)

    pid = child(other)
    late = []
    with (
        tachyon.Bus.connect(path, timeout=HANG) as bus,
        tachyon.Bus.listen(f"{path}2", 4096, timeout=HANG) as times_of,
    ):
        for _ in range(times):
            woken = fill(bus)
            late.append(woken - NOW.unpack(times_of.recv(timeout=HANG).data)[0])
    reap(pid)
    return late


def sleep_in_a_server(path: str, times: int, source: random.Random) -> list[float]:
    """A server sleeps for all of its callers; their calls wake it."""

    @tachyon.tachyon_rpc(1)
    def delay(payload: memoryview) -> bytes:
        return NOW.pack(time.monotonic() - NOW.unpack(payload)[0])

    def other() -> None:
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(delay)
        with tachyon.RpcServer(path, dispatcher, 1024, 1024) as server:
            server.serve_forever()

    pid = child(other)
    late = []
    with tachyon.RpcBus.connect(path, timeout=HANG) as bus:
        for _ in range(times):
            pause(source)
            late.append(NOW.unpack(delay.call(bus, NOW.pack(time.monotonic()), timeout=HANG))[0])
    os.kill(pid, 2)
    reap(pid)
    return late


def run(options: Options, report: Report) -> None:
    watchdog = Watchdog(options.state)
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    source = random.Random(options.seed)
    cases = [*CASES, "room", "a call"]
    times = max(ENOUGH, options.amount // len(cases))
    try:
        for i, case in enumerate(cases):
            left = times
            while left > 0 and time.monotonic() - begin < options.seconds:
                part = min(left, 100)
                left -= part
                watchdog.round(f"{part} sleeps for {case}", 60)
                path = f"{folder}/{i}"
                if case == "room":
                    late = sleep_for_room(path, part, source)
                elif case == "a call":
                    late = sleep_in_a_server(path, part, source)
                else:
                    late = sleep_for_messages(case, path, part, source)
                for each in late:
                    report.latency(f"woken by {case}", each)
                report.count("sleeps", len(late))
            values = sorted(report.latencies.get(f"woken by {case}", [0.0]))
            median = values[len(values) // 2]
            if median > LATE * 1000:
                report.count("left to the end of a slice", sum(value > LATE * 1000 for value in values))
                report.fail("late", f"nobody wakes who sleeps for {case}: half slept {median:.0f} ms or more")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.monotonic() - begin
    watchdog.over()
