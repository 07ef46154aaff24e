"""What is done with a bus until its peer is gone: (how many messages, the error that told). Finding: it lied."""

from __future__ import annotations

import random
import time
from collections import deque
from typing import Any

from common import NOTICE, Finding, Payloads, check, number_of

import tachyon

READS = ["recv", "poll", "try", "into", "zero", "batch", "iterate", "hold", "hold"]
SENDS = ["send", "try", "many", "zero", "wait_read"]
ANSWERS = ["serve", "dispatch"]

Ended = tuple[int, Exception | None]


class Patience:
    """A timeout for calls that do not wait. Asked every time, it looks at the clock now and then."""

    def __init__(self) -> None:
        self.asked, self.end = 0, time.monotonic() + NOTICE

    def check(self) -> None:
        self.asked += 1
        if self.asked % 256 == 0 and time.monotonic() > self.end:
            raise Finding("hang", "nobody told that the peer is gone")


class Window:
    """Several received messages held at a time, let go in any order, and looked at again before that."""

    def __init__(self, source: random.Random) -> None:
        self.source, self.most = source, source.randrange(2, 12)
        self.held: list[tuple[Any, int]] = []
        self.next = 0

    def take(self, bus: Any, timeout: float | None) -> bool:
        """One more, if there is one; who holds all that fits and waits would wait for itself."""
        try:
            guard = bus.recv_zero_copy(timeout=0.001 if self.held else timeout)
        except tachyon.BusEmptyError:
            if not self.held:
                raise
            self.let_go()
            return False
        self.held.append((guard, self.next))
        self.look(guard, self.next)
        self.next += 1
        while len(self.held) >= self.most:
            self.let_go()
        return True

    def let_go(self) -> None:
        guard, number = self.held.pop(self.source.randrange(len(self.held)))
        self.look(guard, number)
        guard.release()

    def let_all_go(self) -> None:
        while self.held:
            self.let_go()

    def look(self, guard: Any, number: int) -> None:
        with memoryview(guard) as view:
            check(view, number)


def read_held(bus: Any, source: random.Random, timeout: float | None) -> Ended:
    window = Window(source)
    try:
        while True:
            window.take(bus, timeout)
    except tachyon.PeerDeadError as error:
        window.let_all_go()  # what was received stays readable after the death
        return window.next, error


def read_all(  # noqa: PLR0912 - one branch for each way to receive
    bus: Any, way: str, source: random.Random, timeout: float | None
) -> Ended:
    if way == "hold":
        return read_held(bus, source, timeout)
    number, patience = 0, Patience()
    buffer = bytearray(bus.max_message_size)
    try:
        while True:
            if way == "poll":
                try:
                    data = bus.recv(timeout=1e-6).data
                except tachyon.BusEmptyError:
                    patience.check()
                    continue
                check(data, number)
            elif way == "try":
                message = bus.try_recv()
                if message is None:
                    patience.check()
                    continue
                check(message.data, number)
            elif way == "into":
                size, _ = bus.recv_into(buffer, timeout=timeout)
                check(memoryview(buffer)[:size], number)
            elif way == "zero":
                with bus.recv_zero_copy(timeout=timeout) as rx, memoryview(rx) as view:
                    check(view, number)
            elif way == "batch":
                with bus.drain_batch(source.randrange(1, 20), timeout=timeout) as batch:
                    for each in batch:
                        with memoryview(each) as view:
                            check(view, number)
                        number += 1
                number -= 1
            elif way == "iterate":
                for each in bus:
                    check(each.data, number)
                    number += 1
                bus.recv(timeout=0)  # says that it was a close
            else:
                check(bus.recv(timeout=timeout).data, number)
            number += 1
    except tachyon.PeerDeadError as error:
        return number, error


def send_all(bus: Any, way: str, payloads: Payloads, source: random.Random, timeout: float | None) -> Ended:
    number, patience = 0, Patience()
    try:
        while True:
            payload = payloads.make(number)
            if way == "try":
                if not bus.try_send(payload):
                    patience.check()
                    continue
            elif way == "many":
                bus.send_many([payload], timeout=timeout)
            elif way == "zero":
                room = min(bus.max_message_size, len(payload) + source.choice([0, 100]))
                with bus.send_zero_copy(room, timeout=timeout) as tx, memoryview(tx) as view:
                    view[:] = (payload * (room // len(payload) + 1))[:room]
                    tx.actual_size = len(payload)
            else:
                bus.send(payload, timeout=timeout)
            number += 1
            if way == "wait_read" and source.random() < 0.3:
                bus.wait_read(timeout=timeout)
    except tachyon.PeerDeadError as error:
        return number, error


def call_all(
    bus: Any, payloads: Payloads, source: random.Random, timeout: float | None
) -> tuple[int, Exception | None, int]:
    """Calls with several in flight, waited for in any order; afterwards all committed answers have to be there.

    The third number: 1 if it was a call that told of the end. It has no id, so its answer, should there be one, is
    nobody's.
    """
    depth, number, answered = source.randrange(1, 8), 0, 0
    waiting = deque[tuple[int, int]]()
    ended: Exception | None = None
    calling = False
    try:
        while True:
            calling = True
            while len(waiting) < depth:
                waiting.append((bus.call(payloads.make(number), 1, timeout=timeout), number))
                number += 1
            calling = False
            at = source.randrange(len(waiting))
            correlation_id, expected = waiting[at]
            with bus.wait(correlation_id, timeout=timeout) as rx, memoryview(rx) as view:
                del waiting[at]
                check(view, expected)
            answered += 1
    except tachyon.PeerDeadError as error:
        ended = error
    unheard = int(calling)
    for correlation_id, expected in waiting:
        try:
            with bus.wait(correlation_id, timeout=timeout) as rx, memoryview(rx) as view:
                check(view, expected)
            answered += 1
        except tachyon.PeerDeadError as error:
            ended = error
    return answered, ended, unheard


def answer_all(bus: Any, way: str, source: random.Random, timeout: float | None) -> Ended:
    number = 0
    if way == "dispatch":
        numbers: list[int] = []

        def echo(payload: memoryview) -> memoryview:
            numbers.append(number_of(payload))
            return payload

        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(echo))
        dispatcher.serve_forever(bus)
        if numbers != list(range(len(numbers))):
            raise Finding("lost", "calls are missing or out of order")
        return len(numbers), None
    try:
        while True:
            with bus.serve(timeout=timeout) as rx:
                with memoryview(rx) as view:
                    check(view, number)
                    data = bytes(view)
                correlation_id = rx.correlation_id
            number += 1
            try:
                bus.reply(correlation_id, data, 2, timeout=timeout)
            except tachyon.PeerDeadError:  # nobody wants it; but there may be more calls
                continue
    except tachyon.PeerDeadError as error:
        return number, error
