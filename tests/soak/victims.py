"""What the processes do that get killed. Each counts in shared memory what it has done: that stays when it is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import deque
from pathlib import Path
from typing import Any

from common import CODE, DONE, FAULTS, FINISHING, HEAD, KILLED_AT, PHASE, ROUND, WRONG, Finding, Payloads, Slots, check
from survivors import Window

import tachyon

PATIENCE = 30.0  # seconds; the survivor's watchdog is shorter
Plan = dict[str, Any]


def open_bus(plan: Plan) -> Any:
    kind = tachyon.RpcBus if plan["rpc"] else tachyon.Bus
    if plan["listens"]:
        capacities = [plan["capacity"]] * (2 if plan["rpc"] else 1)
        return kind.listen(plan["path"], *capacities, timeout=PATIENCE)
    return kind.connect(plan["path"], timeout=PATIENCE)


def wait_for_the_next_round(slots: Slots) -> None:
    """What an heir does: holds all that it inherited, and does not outlive the harness."""
    mine = slots[ROUND]
    end = time.monotonic() + PATIENCE
    while slots[ROUND] == mine and time.monotonic() < end:
        time.sleep(0.01)
    os._exit(0)


def leave_an_heir(kind: str, slots: Slots) -> None:
    if kind == "fork" and os.fork() == 0:
        wait_for_the_next_round(slots)
    if kind == "multiprocessing":
        multiprocessing.get_context("fork").Process(target=wait_for_the_next_round, args=(slots,)).start()


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it has."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "T" and time.monotonic() < end:
        pass


class GaveUp(Exception):
    pass


class Last:
    """When it is time to go, and how: by its own hand right after a commit, or as `ending` says."""

    def __init__(self, plan: Plan, slots: Slots) -> None:
        self.after, self.survivor, self.ending = plan["last"], plan["blink"], plan["ending"]
        self.slots = slots

    def before(self, number: int) -> None:
        """Stop the survivor wherever it is: it will find the last message and the death at once."""
        if number + 1 == self.after and self.survivor:
            stop(self.survivor)

    def over(self, number: int, bus: Any) -> bool:
        if not self.after or number < self.after:
            return False
        if self.ending == "finish":
            self.slots[PHASE] = FINISHING
            bus.finish(timeout=PATIENCE)  # killed meanwhile, most of the time
            return True
        self.slots[KILLED_AT] = time.monotonic_ns()
        if self.ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.ending == "close":
            bus.close()
        elif self.ending == "abort":
            bus.abort()
        else:
            with contextlib.suppress(GaveUp), bus:
                raise GaveUp
        return True


def send_somehow(bus: Any, payload: bytes, number: int, way: str, source: random.Random) -> None:
    tag = number % 1000
    if way == "try":
        while not bus.try_send(payload, tag):
            pass
    elif way == "many":
        bus.send_many([(payload, tag)])
    elif way == "zero":  # claimed larger than needed, filled, and cut down
        room = min(bus.max_message_size, len(payload) + source.choice([0, 0, 64, 1000]))
        with bus.send_zero_copy(room, tag) as tx, memoryview(tx) as view:
            view[:] = (payload * (room // len(payload) + 1))[:room]
            tx.actual_size = len(payload)
    elif way == "abort":
        try:
            with bus.send_zero_copy(bus.max_message_size) as tx:
                with memoryview(tx) as view:
                    view[:] = (payload * (len(view) // len(payload) + 1))[: len(view)]
                raise KeyError
        except KeyError:
            bus.send(payload, tag)
    else:
        bus.send(payload, tag)


def produce(bus: Any, plan: Plan, slots: Slots, source: random.Random) -> None:
    payloads, last = Payloads(source, plan["most"]), Last(plan, slots)
    number = 0
    while not last.over(number, bus):
        payload = payloads.make(number)
        last.before(number)
        send_somehow(bus, payload, number, source.choice(plan["ways"]), source)
        number += 1
        slots[DONE] = number
        if source.random() < plan["rests"]:  # so that the other side falls asleep now and then
            time.sleep(source.random() * 0.003)


def hold(bus: Any, plan: Plan, slots: Slots, source: random.Random) -> None:
    """A consumer that is killed while it holds several messages, which it lets go in any order."""
    last, window, number = Last(plan, slots), Window(source), 0
    while not last.over(number, bus):
        if window.take(bus, None):
            number += 1
        slots[DONE] = number
        if source.random() < plan["rests"]:
            time.sleep(source.random() * 0.003)


def consume(bus: Any, plan: Plan, slots: Slots, source: random.Random) -> None:
    if plan["holds"]:
        hold(bus, plan, slots, source)
        return
    last = Last(plan, slots)
    buffer = bytearray(bus.max_message_size)
    number = 0
    while not last.over(number, bus):
        way = source.choice(plan["ways"])
        if way == "zero":
            with bus.recv_zero_copy() as rx, memoryview(rx) as view:
                check(view, number)
            number += 1
        elif way == "many":
            with bus.drain_batch(source.randrange(1, 20)) as batch:
                for each in batch:
                    with memoryview(each) as view:
                        check(view, number)
                    number += 1
        elif way == "try":
            size, _ = bus.recv_into(buffer)
            check(memoryview(buffer)[:size], number)
            number += 1
        else:
            check(bus.recv().data, number)
            number += 1
        slots[DONE] = number
        if source.random() < plan["rests"]:
            time.sleep(source.random() * 0.003)


def call(bus: Any, plan: Plan, slots: Slots, source: random.Random) -> None:
    payloads, last = Payloads(source, plan["most"]), Last(plan, slots)
    depth, number, ids = source.randrange(1, 5), 0, deque[tuple[int, int]]()
    while not last.over(number, bus):
        payload = payloads.make(number)
        last.before(number)
        ids.append((bus.call(payload, 1), number))
        number += 1
        slots[DONE] = number
        if len(ids) >= depth:
            at = source.randrange(len(ids))
            correlation_id, expected = ids[at]
            del ids[at]
            with bus.wait(correlation_id) as rx, memoryview(rx) as view:
                check(view, expected)


def answer(bus: Any, plan: Plan, slots: Slots, source: random.Random) -> None:
    last = Last(plan, slots)
    number = 0
    while not last.over(number, bus):
        with bus.serve() as rx:
            with memoryview(rx) as view:
                check(view, number)
                data = bytes(view)
            correlation_id = rx.correlation_id
        last.before(number)
        if source.random() < 0.5:
            bus.reply(correlation_id, data, 2)
        else:
            with bus.reply_zero_copy(correlation_id, len(data), 2) as tx, memoryview(tx) as view:
                view[:] = data
        number += 1
        slots[DONE] = number


ROLES = {"produce": produce, "consume": consume, "call": call, "answer": answer}


def be(plan: Plan, slots: Slots) -> None:
    source = random.Random(plan["seed"])
    bus = open_bus(plan)
    leave_an_heir(plan["heir"], slots)
    slots[PHASE] = 1
    try:
        ROLES[plan["role"]](bus, plan, slots, source)
    except Finding as error:
        slots[WRONG] = CODE + FAULTS.index(error.fault)
        raise
    except (tachyon.PeerDeadError, tachyon.HandshakeError):
        if slots[ROUND] == plan["round"]:  # else the survivor is through with us
            raise


assert HEAD.size == 12  # victim.cpp has it too
