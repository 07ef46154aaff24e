"""A storm of signals, ten thousand a second, during every blocking call: it goes on, and no message is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import HANG, Finding, Options, Payloads, Report, Watchdog, check
from sleepers import child, reap

import tachyon

PERIOD = 0.0001  # seconds between signals
RECEIVES = ["recv", "into", "zero", "batch", "iterate"]
SENDS = ["send", "many", "claim"]
CALLS = ["listen", "connect", *RECEIVES, *SENDS, "call", "serve"]


def feed(path: str, seed: int, rpc: bool, seconds: float, enough: Callable[[], bool] = bool) -> None:
    """The calm side of what receives: sends for so long, resting now and then, and closes."""
    source = random.Random(seed)
    payloads, number, end = Payloads(source, 200), 0, time.monotonic() + seconds
    kind: Any = tachyon.RpcBus if rpc else tachyon.Bus
    with kind.connect(path, timeout=HANG) as bus:
        while time.monotonic() < end and not enough():
            if rpc:
                with bus.wait(bus.call(payloads.make(number), 1, timeout=HANG), timeout=HANG) as rx:
                    check(bytes(rx), number)
            else:
                bus.send(payloads.make(number), timeout=HANG)
            number += 1
            if source.random() < 0.2:
                time.sleep(source.random() * 0.002)


def take(path: str, seed: int, rpc: bool) -> None:
    """The calm side of what sends: takes until the end, and looks at each."""
    source = random.Random(seed)
    number = 0
    kind: Any = tachyon.RpcBus if rpc else tachyon.Bus
    with kind.connect(path, timeout=HANG) if not rpc else kind.listen(path, 1024, 1024, timeout=HANG) as bus:
        while True:
            try:
                if rpc:
                    with bus.serve(timeout=HANG) as rx:
                        data, correlation_id = bytes(rx), rx.correlation_id
                    bus.reply(correlation_id, data)
                else:
                    data = bus.recv(timeout=HANG).data
            except tachyon.PeerClosedError:
                return
            check(data, number)
            number += 1
            if source.random() < 0.2:
                time.sleep(source.random() * 0.002)


def receive(bus: Any, how: str) -> int:
    number = 0
    buffer = bytearray(bus.max_message_size)
    try:
        while True:
            if how == "iterate":
                for message in bus:
                    check(message.data, number)
                    number += 1
                return number
            if how == "into":
                size, _ = bus.recv_into(buffer)
                check(memoryview(buffer)[:size], number)
            elif how == "zero":
                with bus.recv_zero_copy() as rx, memoryview(rx) as view:
                    check(view, number)
            elif how == "batch":
                with bus.drain_batch() as batch:
                    for each in batch:
                        with memoryview(each) as view:
                            check(view, number)
                        number += 1
                number -= 1
            else:
                check(bus.recv().data, number)
            number += 1
    except tachyon.PeerClosedError:
        return number


def send(bus: Any, how: str, source: random.Random, seconds: float) -> int:
    payloads, number, end = Payloads(source, 200), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        payload = payloads.make(number)
        if how == "call":
            with bus.wait(bus.call(payload, 1)) as rx:
                check(bytes(rx), number)
        elif how == "many":
            bus.send_many([payload])
        elif how == "claim":
            with bus.send_zero_copy(len(payload)) as tx, memoryview(tx) as view:
                view[:] = payload
        else:
            bus.send(payload)
        number += 1
    return number


def storm(how: str, path: str, seconds: float, source: random.Random) -> int:
    """One call in the storm; how many messages went through."""
    seed = source.randrange(1 << 32)
    if how in ("listen", "connect"):
        times, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            opens: Any = tachyon.Bus.connect if how == "listen" else tachyon.Bus.listen
            pid = child(lambda opens=opens: late(path, opens))  # type: ignore[misc]
            ours = tachyon.Bus.listen(path, 4096) if how == "listen" else tachyon.Bus.connect(path, timeout=None)
            ours.close()
            reap(pid)
            times += 1
        return times
    if how == "serve":
        pid = child(lambda: feed(path, seed, True, seconds))
        numbers = 0
        with tachyon.RpcBus.listen(path, 1024, 1024) as callee:
            try:
                while True:
                    with callee.serve() as rx:
                        data, correlation_id = bytes(rx), rx.correlation_id
                    check(data, numbers)
                    callee.reply(correlation_id, data)
                    numbers += 1
            except tachyon.PeerClosedError:
                pass
    elif how == "call":
        pid = child(lambda: take(path, seed, True))
        with tachyon.RpcBus.connect(path, timeout=None) as caller:
            numbers = send(caller, how, source, seconds)
    elif how in SENDS:
        pid = child(lambda: take(path, seed, False))
        with tachyon.Bus.listen(path, 1024) as bus:
            numbers = send(bus, how, source, seconds)
    else:
        pid = child(lambda: feed(path, seed, False, seconds))
        with tachyon.Bus.listen(path, 1024) as bus:
            numbers = receive(bus, how)
    reap(pid)
    return numbers


def late(path: str, opens: Any) -> None:
    time.sleep(0.005)
    (opens(path, timeout=HANG) if opens is tachyon.Bus.connect else opens(path, 4096, timeout=HANG)).close()


def run(options: Options, report: Report) -> None:
    watchdog = Watchdog(options.state)
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    source = random.Random(options.seed)
    handled = [0]

    def handler(*_: object) -> None:
        handled[0] += 1

    signal.signal(signal.SIGALRM, handler)
    seconds = options.amount / len(CALLS)
    try:
        for how in CALLS:
            watchdog.round(f"{how} in a storm of signals", seconds + 2 * HANG)
            handled[0] = 0
            signal.setitimer(signal.ITIMER_REAL, PERIOD, PERIOD)
            try:
                numbers = storm(how, f"{folder}/bus", seconds, source)
                report.count("messages", numbers)
                if numbers == 0 or handled[0] == 0:
                    report.fail("harness", f"{how}: {numbers} messages, {handled[0]} signals: nothing was tried")
            except (Finding, tachyon.TachyonError) as error:
                report.caught(error, how)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            report.count("signals", handled[0])
            if os.path.exists(f"{folder}/bus"):
                report.fail("leak", f"{how}: left the socket file")
                os.unlink(f"{folder}/bus")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.monotonic() - begin
    watchdog.over()
