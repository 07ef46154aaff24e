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
import sys
import tempfile
import time
from collections.abc import Callable

from common import (
    ACKNOWLEDGED,
    ARMED,
    COUNT,
    DONE,
    HANG,
    WRONG,
    Fault,
    Finding,
    Options,
    Report,
    Slots,
    Watchdog,
    held,
    judge_exit,
    number_of,
)
from signals import feed
from sleepers import child, reap

import tachyon

PART = 100  # interrupts per connection, at most
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
    "beginning",
]


def require(condition: bool, fault: Fault, what: str) -> None:
    if not condition:
        raise Finding(fault, what)


def library_was_interrupted(error: BaseException) -> bool:
    """Or was it the code around it, which had an answer in hands already?"""
    trace = error.__traceback__
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return "tachyon" in os.path.basename(os.path.dirname(names[-1])) or names[-1].endswith((".pyx", ".pxi"))


def interrupted(slots: Slots, n: int, act: Callable[[], object]) -> BaseException | None:
    """Acts until the one SIGINT comes. The exception, or None if the call took it and returned, as a server does."""
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


def came_out_of_the_loop(error: BaseException | None) -> bool:
    """Or did it come before the loop had begun?"""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(("_loops.pxi", "_server.py", "_dispatcher.py")):
            return True
        trace = trace.tb_next
    return False


def begin(path: str, slots: Slots, times: int) -> None:
    """Ctrl-C at each of the first steps of serve_forever, forced: it can serve again, and close."""
    random_step = random.Random(path)
    dispatcher = tachyon.RpcDispatcher()
    server = tachyon.RpcServer(path, dispatcher, 1024, 1024)

    @dispatcher.handler(1)
    def once(payload: memoryview) -> memoryview:
        server.stop()
        return payload

    with server:
        for n in range(1, times + 1):
            left = random_step.randrange(80)

            def step(*_: object) -> None:
                nonlocal left
                left -= 1
                if left == -1:
                    sys.setprofile(None)
                    signal.raise_signal(signal.SIGINT)

            slots[ARMED] = n
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    sys.setprofile(step)
                    server.serve_forever()
                finally:
                    sys.setprofile(None)
            slots[COUNT] += left < 0
            ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            require(ours, "wrong", "serve_forever kept the handler of SIGINT")
            before = server.stats()["served"]
            server.serve_forever()  # BusBusyError: it was left locked
            if server.stats()["served"] == before:  # a stop() of the first time was left over
                server.serve_forever()
            require(server.stats()["served"] > before, "wrong", "it serves no more")
            slots[ACKNOWLEDGED] = n
        slots[DONE] = 1
    require(not os.path.exists(path), "leak", "the socket file")


def be(how: str, path: str, slots: Slots, times: int) -> None:  # noqa: PLR0912 - one branch for each kind of call
    """The worker. Finding: something was lost, or left."""
    if how == "beginning":
        begin(path, slots, times)
    elif how in ("listen", "connect"):
        before = held()
        act: Callable[[], object] = (
            (lambda: tachyon.Bus.listen(path, 4096))
            if how == "listen"
            else (lambda: tachyon.Bus.connect(path, timeout=None))
        )
        for n in range(1, times + 1):
            interrupted(slots, n, act)
            require(not os.path.exists(path), "leak", "the socket file")
        require(held() <= before, "leak", f"{held()} instead of {before}")
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
                require(endpoint.call(caller, b"x", timeout=HANG) == b"x", "torn", "another answer")
            time.sleep(0.02)
            endpoint.call(caller, b"x", timeout=HANG)
            stats = caller.stats()
            # Of a raw call() whose id never got out of the interpreter nothing can be known.
            require(how == "wait" or stats["set_aside"] == 0, "leak", f"{stats['set_aside']} replies set aside")
    elif how == "dispatcher":
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        with tachyon.RpcBus.listen(path, 1024, 1024, timeout=HANG) as callee:
            for n in range(1, times + 1):
                error = interrupted(slots, n, lambda: dispatcher.serve_forever(callee))
                slots[COUNT] += came_out_of_the_loop(error)
            slots[DONE] = 1
            dispatcher.serve_forever(callee)
    elif how == "server":
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        with tachyon.RpcServer(path, dispatcher, 1024, 1024) as server:
            for n in range(1, times + 1):
                slots[COUNT] += came_out_of_the_loop(interrupted(slots, n, server.serve_forever))
            server.stop()
            server.serve_forever()  # BusBusyError: it was left locked
            slots[DONE] = 1
        require(not os.path.exists(path), "leak", "the socket file")
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
                require(found == number, "lost", f"{found} where {number} was due")
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
            known = freed == number or (freed == number + 1 and not inside) or how == "batch"
            require(known, "lost", f"{freed} taken, {number} delivered")
            number = freed
        slots[DONE] = 1
        for message in bus:
            require(number_of(message.data) == number, "lost", f"{number_of(message.data)} where {number} was due")
            number += 1


def call_them(path: str, slots: Slots, reconnect: bool) -> None:
    """A caller of who gets interrupted. Whoever cuts it off has broken a promise."""
    echo = tachyon.tachyon_rpc(1)(bytes)
    while not slots[DONE]:
        try:
            with tachyon.RpcBus.connect(path, timeout=HANG) as caller:
                while not slots[DONE]:
                    with contextlib.suppress(tachyon.RpcError):  # Ctrl-C within the handler
                        require(echo.call(caller, b"x", timeout=HANG) == b"x", "torn", "another answer")
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
            require(found == number, "lost", f"{found} where {number} was due")
            number += 1
            time.sleep(0.0003)


def other_side(how: str, path: str, slots: Slots, source: random.Random) -> int:
    """Who talks to the worker meanwhile; 0: nobody."""
    if how in ("listen", "connect"):
        return 0
    if how in ("dispatcher", "server", "beginning"):
        return child(lambda: call_them(path, slots, how != "dispatcher"))
    if how in ("wait", "call"):
        return child(lambda: answer_them(path))
    if how in ("send", "many", "claim"):
        return child(lambda: take_numbers(path))
    seed = source.randrange(1 << 32)

    return child(lambda: feed(path, seed, False, HANG, lambda: bool(slots[DONE])))


class Worker:
    def __init__(self, body: Callable[[], None]) -> None:
        self.pid, self.running = child(body), True

    def check(self) -> None:
        gone, status = os.waitpid(self.pid, os.WNOHANG)
        if gone:
            self.running = False
            judge_exit(status, "the worker")
            raise Finding("wrong", "the worker was cut off: its peer was gone")

    def reap(self) -> None:
        self.running = False
        reap(self.pid)

    def kill(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def await_slot(self, slots: Slots, slot: int, n: int) -> None:
        end = time.monotonic() + HANG / 2
        while slots[slot] < n:  # who interrupts itself is ahead
            self.check()
            if time.monotonic() > end:
                raise Finding("hang", f"Ctrl-C number {n} ended nothing")
            time.sleep(0.00005)


def interrupt(how: str, worker: Worker, slots: Slots, times: int, source: random.Random, report: Report) -> None:
    for n in range(1, times + 1):
        worker.await_slot(slots, ARMED, n)
        if how != "beginning":  # which interrupts itself
            time.sleep(source.choice([0, source.random() * 0.0002, source.random() * 0.003]))
            os.kill(worker.pid, signal.SIGINT)
        since = time.monotonic()
        worker.await_slot(slots, ACKNOWLEDGED, n)
        if how != "beginning":
            report.latency("Ctrl-C to the end of the call", time.monotonic() - since)
        report.count("interrupts")


def part(how: str, folder: str, times: int, source: random.Random, report: Report) -> None:
    path = f"{folder}/bus"
    slots = Slots(f"{folder}/slots")
    for slot in range(8):
        slots[slot] = 0
    worker = Worker(lambda: be(how, path, slots, times))
    other = other_side(how, path, slots, source)
    try:
        interrupt(how, worker, slots, times, source, report)
        if how in ("recv", "into", "zero", "batch", "dispatcher"):
            slots[DONE] = 1
        worker.reap()
        if how == "beginning":
            report.count("forced in the first steps of serve_forever", slots[COUNT])
        elif slots[COUNT]:
            report.count(f"KeyboardInterrupt came out of serve_forever ({how})", slots[COUNT])
        if slots[WRONG]:
            report.fail("cut off", f"{how}: callers cut off by Ctrl-C: {slots[WRONG]} of {times}")
    finally:
        worker.kill()
        if other:
            reap(other)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def run(options: Options, report: Report) -> None:
    logging.getLogger("tachyon").addHandler(logging.NullHandler())
    logging.getLogger("tachyon").propagate = False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    watchdog = Watchdog(options.state)
    folder = tempfile.mkdtemp(prefix="soak-")
    begin = time.monotonic()
    n, left = options.start, options.amount
    most = max(1, min(PART, options.amount // len(CALLS)))  # each kind gets its turn
    try:
        while left > 0 and time.monotonic() - begin < options.seconds and not report.hopeless:
            how, times = CALLS[n % len(CALLS)], min(left, most)
            watchdog.round(f"part {n}: {how}", 60)
            try:
                part(how, folder, times, random.Random(f"{options.seed}/{n}"), report)
            except (Finding, tachyon.TachyonError) as error:
                report.caught(error, f"{how}, part {n} of seed {options.seed}")
            left -= times
            n += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        report.seconds = time.monotonic() - begin
    watchdog.over()
