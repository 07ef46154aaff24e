"""Ctrl-C at random instants, into every blocking call: it ends the call, no message is lost, and one can go on.

The worker is a fork of this process. It gets one SIGINT each time that it says that it is ready for one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable

from common import ACKNOWLEDGED, ARMED, COUNT, DONE, HANG, WRONG, Options, Report, Slots, Watchdog, held, number_of
from signals import feed
from sleepers import child, reap

import tachyon

PART = 100  # interrupts per connection
CALLS = [
    "recv",
    "into",
    "zero",
    "batch",
    "send",
    "many",
    "claim",
    "listen",
    "connect",
    "wait",
    "call",
    "dispatcher",
    "server",
]


def library_was_interrupted(error: BaseException) -> bool:
    """Or was it the code around it, which had an answer in hands already?"""
    trace = error.__traceback__
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return "tachyon" in os.path.basename(os.path.dirname(names[-1])) or names[-1].endswith((".pyx", ".pxi"))


def interrupted(slots: Slots, n: int, act: Callable[[], object]) -> BaseException | None:
    """Acts until the one SIGINT comes. The exception, or None if the call swallowed it and returned, as a server does."""
    caught: BaseException | None = None
    try:
        slots[ARMED] = n
        act()
    except KeyboardInterrupt as error:
        caught = error
    slots[ACKNOWLEDGED] = n
    return caught


def forever(step: Callable[[], object]) -> Callable[[], None]:
    def loop() -> None:
        while True:
            step()

    return loop


def be(how: str, path: str, slots: Slots, times: int) -> None:
    """The worker. AssertionError: something was lost, or left."""
    if how in ("listen", "connect"):
        before = held()
        act: Callable[[], object] = (
            (lambda: tachyon.Bus.listen(path, 4096))
            if how == "listen"
            else (lambda: tachyon.Bus.connect(path, timeout=None))
        )
        for n in range(1, times + 1):
            interrupted(slots, n, act)
            assert not os.path.exists(path), "left: the socket file"
        assert held() <= before, f"left: {held()} instead of {before}"
    elif how in ("wait", "call"):
        with tachyon.RpcBus.connect(path, timeout=HANG) as caller:
            endpoint = tachyon.tachyon_rpc(1)(bytes)
            for n in range(1, times + 1):
                ids: list[int] = []

                def wait(ids: list[int] = ids) -> None:
                    ids.append(caller.call(b"", 1))
                    with caller.wait(ids[-1]):
                        pass

                interrupted(slots, n, forever(wait if how == "wait" else lambda: endpoint.call(caller, b"x")))
                if how == "wait":
                    caller.cancel(ids[-1]) if ids else None
                assert endpoint.call(caller, b"x", timeout=HANG) == b"x"
            time.sleep(0.02)
            endpoint.call(caller, b"x", timeout=HANG)
            stats = caller.stats()
            # Of a raw call() whose id never got out of the interpreter nothing can be known.
            assert how == "wait" or stats["set_aside"] == 0, f"left: {stats['set_aside']} replies set aside"
    elif how == "dispatcher":
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        with tachyon.RpcBus.listen(path, 1024, 1024, timeout=HANG) as callee:
            for n in range(1, times + 1):
                if interrupted(slots, n, lambda: dispatcher.serve_forever(callee)) is not None:
                    slots[COUNT] += 1
            slots[DONE] = 1
            dispatcher.serve_forever(callee)
    elif how == "server":
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        with tachyon.RpcServer(path, dispatcher, 1024, 1024) as server:
            for n in range(1, times + 1):
                if interrupted(slots, n, server.serve_forever) is not None:
                    slots[COUNT] += 1
            server.stop()
            server.serve_forever()  # BusBusyError: it was left locked
            slots[DONE] = 1
        assert not os.path.exists(path), "left: the socket file"
    elif how in ("send", "many", "claim"):
        with tachyon.Bus.connect(path, timeout=HANG) as bus:

            def send() -> None:
                data = bus.stats()["messages"].to_bytes(8, "little")
                if how == "send":
                    bus.send(data)
                elif how == "many":
                    bus.send_many([data])
                else:
                    with bus.send_zero_copy(8) as tx, memoryview(tx) as view:
                        view[:] = data

            for n in range(1, times + 1):
                interrupted(slots, n, forever(send))
    else:
        read(how, path, slots, times)


def read(how: str, path: str, slots: Slots, times: int) -> None:
    with tachyon.Bus.listen(path, 1024, timeout=HANG) as bus:
        number = 0
        buffer = bytearray(bus.max_message_size)

        def take() -> None:
            nonlocal number
            if how == "recv":
                found = number_of(bus.recv().data)
                assert found == number, f"lost: {found} where {number} was due"
                number += 1
            elif how == "into":
                bus.recv_into(buffer)
                number += 1
            elif how == "zero":
                with bus.recv_zero_copy():
                    number += 1
            else:
                with bus.drain_batch() as batch:
                    number += len(batch)

        for n in range(1, times + 1):
            error = interrupted(slots, n, forever(take))
            freed = bus.stats()["messages"]
            inside = error is not None and library_was_interrupted(error)
            # Between the call's return and its use the interpreter may be interrupted: that message was delivered.
            assert freed == number or (freed == number + 1 and not inside) or how == "batch", f"lost: {freed}, {number}"
            number = freed
        slots[DONE] = 1
        for message in bus:
            assert number_of(message.data) == number, f"lost: {number_of(message.data)} where {number} was due"
            number += 1


def call_them(path: str, slots: Slots, reconnect: bool) -> None:
    """A caller of who gets interrupted. Whoever cuts it off has broken a promise."""
    echo = tachyon.tachyon_rpc(1)(bytes)
    while not slots[DONE]:
        try:
            with tachyon.RpcBus.connect(path, timeout=HANG) as caller:
                while not slots[DONE]:
                    with contextlib.suppress(tachyon.RpcError):  # Ctrl-C within the handler
                        assert echo.call(caller, b"x", timeout=HANG) == b"x"
        except tachyon.PeerDeadError:
            if not slots[DONE]:
                slots[WRONG] += 1
        except tachyon.HandshakeError:
            return
        if not reconnect:
            return


def answer_them(path: str) -> None:
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
    with tachyon.RpcBus.listen(path, 1024, 1024, timeout=HANG) as callee:
        dispatcher.serve_forever(callee)


def take_numbers(path: str) -> None:
    number = 0
    with tachyon.Bus.listen(path, 1024, timeout=HANG) as bus:
        for message in bus:
            found = int.from_bytes(message.data, "little")
            assert found == number, f"lost or twice: {found} where {number} was due"
            number += 1
            time.sleep(0.0003)


def other_side(how: str, path: str, slots: Slots, source: random.Random) -> int:
    """Who talks to the worker meanwhile; 0: nobody."""
    if how in ("listen", "connect"):
        return 0
    if how in ("dispatcher", "server"):
        return child(lambda: call_them(path, slots, how == "server"))
    if how in ("wait", "call"):
        return child(lambda: answer_them(path))
    if how in ("send", "many", "claim"):
        return child(lambda: take_numbers(path))
    seed = source.randrange(1 << 32)

    return child(lambda: feed(path, seed, False, HANG, lambda: bool(slots[DONE])))


def part(how: str, folder: str, times: int, source: random.Random, report: Report) -> None:
    path = f"{folder}/bus"
    slots = Slots(f"{folder}/slots")
    for slot in range(8):
        slots[slot] = 0
    worker = child(lambda: be(how, path, slots, times))
    other = other_side(how, path, slots, source)
    try:
        for n in range(1, times + 1):
            while slots[ARMED] != n:
                if os.waitpid(worker, os.WNOHANG)[0]:
                    worker = 0
                    raise AssertionError(f"the worker failed after {n - 1} interrupts; it said why above")
                time.sleep(0.00005)
            time.sleep(source.choice([0, source.random() * 0.0002, source.random() * 0.003]))
            os.kill(worker, signal.SIGINT)
            begin = time.monotonic()
            if not slots.await_value(ACKNOWLEDGED, n, HANG / 2):
                report.count("hangs")
                raise AssertionError(f"hang: Ctrl-C number {n} ended nothing")
            report.latency("Ctrl-C to the end of the call", time.monotonic() - begin)
            report.count("interrupts")
        if how in ("recv", "into", "zero", "batch", "dispatcher"):
            slots[DONE] = 1
        ended, worker = worker, 0
        reap(ended)
        if slots[COUNT]:
            report.count(f"KeyboardInterrupt came out of serve_forever or the line before ({how})", slots[COUNT])
        if slots[WRONG]:
            report.fail(f"{how}: callers cut off by Ctrl-C: {slots[WRONG]} of {times}")
    finally:
        for pid in filter(None, (worker, other)):
            if pid == worker:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            else:
                reap(pid)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def run(options: Options) -> Report:
    logging.getLogger("tachyon").addHandler(logging.NullHandler())
    logging.getLogger("tachyon").propagate = False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = Report("interrupts", options.seed)
    watchdog = Watchdog(options.state)
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    n, left = options.start, options.amount
    try:
        while left > 0 and time.monotonic() - begin < options.seconds and not report.hopeless:
            how, times = CALLS[n % len(CALLS)], min(left, PART)
            watchdog.round(f"part {n}: {how}", 60)
            try:
                part(how, folder, times, random.Random(f"{options.seed}/{n}"), report)
            except (AssertionError, tachyon.TachyonError, OSError) as error:
                report.fail(f"{how}: {type(error).__name__}: {error}; part {n} of seed {options.seed}")
            left -= times
            n += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    watchdog.over()
    report.seconds = time.monotonic() - begin
    return report
