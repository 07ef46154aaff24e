"""The library under attack: does what it is told over a bus, with timeouts, and says how it went to hostile_peer.py."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import logging
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import die_with_parent, held

import tachyon

EACH = 0.03  # seconds: the timeout of a call
MOST_RESIDENT = 512 << 20
BEYOND = 5.0  # seconds beyond its timeout that a call may take on a busy machine
MOST_WORK = 0.7  # seconds of processor beyond its timeout that a call may take, however busy the machine


def peak() -> int:
    """The most bytes that were resident since the order came."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def operations(bus: Any, source: random.Random) -> list[Callable[[], object]]:
    ids = [1]

    def drop(guard: Any) -> None:
        with guard, memoryview(guard) as view:
            bytes(view[:100])

    def drain() -> None:
        with bus.drain_batch(source.randrange(1, 2000), timeout=EACH) as batch:
            for each in batch:
                with memoryview(each) as view:
                    bytes(view[:100])

    def claim() -> None:
        with bus.send_zero_copy(source.randrange(bus.max_message_size + 1), timeout=EACH) as tx:
            tx.actual_size = source.randrange(tx.actual_size + 1)

    def call() -> None:
        ids.append(bus.call(bytes(source.randrange(300)), 1, timeout=EACH))

    def serve() -> None:
        with bus.serve(timeout=EACH) as rx:
            ids.append(rx.correlation_id)

    if isinstance(bus, tachyon.RpcBus):
        if source.random() < 0.3:
            dispatcher = tachyon.RpcDispatcher()
            dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
            return [lambda: dispatcher.serve_once(bus, timeout=EACH)]
        return [
            call,
            lambda: drop(bus.wait(source.choice(ids[-9:]), timeout=EACH)),
            lambda: bus.cancel(source.choice(ids)),
            serve,
            lambda: bus.reply(source.choice(ids[-9:]), bytes(source.randrange(300)), timeout=EACH),
        ]
    receives = [
        lambda: bus.recv(timeout=EACH),
        bus.try_recv,
        lambda: bus.recv_into(bytearray(bus.max_message_size), timeout=EACH),
        lambda: drop(bus.recv_zero_copy(timeout=EACH)),
        drain,
    ]
    sends = [
        lambda: bus.send(bytes(source.randrange(bus.max_message_size + 1)), timeout=EACH),
        lambda: bus.try_send(b"x"),
        lambda: bus.send_many([b"x"] * 9, timeout=EACH),
        claim,
    ]
    return source.choice([receives, sends, receives + sends])


def use(bus: Any, source: random.Random, seconds: float, told: dict[str, Any]) -> None:
    end = time.monotonic() + seconds
    choice = operations(bus, source)
    while time.monotonic() < end:
        begin, work = time.monotonic(), time.thread_time()
        try:
            source.choice(choice)()
        except (tachyon.PeerDeadError, tachyon.BusClosedError) as error:
            told["ended"] = type(error).__name__
            break
        except (tachyon.TachyonError, ValueError):  # full, empty, the wrong side; an id that is none
            pass
        finally:
            told["longest"] = max(told["longest"], time.monotonic() - begin)
            told["work"] = max(told["work"], time.thread_time() - work - EACH)
    bus.stats()


def wait_in_vain(bus: tachyon.RpcBus, told: dict[str, Any]) -> None:
    """For an answer that is not among those that come."""
    number = bus.call(b"", 1, timeout=EACH)
    for _ in range(3):
        begin = time.thread_time()
        with contextlib.suppress(tachyon.BusEmptyError):
            bus.wait(number, timeout=0.3)
        told["work"] = max(told["work"], time.thread_time() - begin - 0.3)


def serve(server: tachyon.RpcServer, seconds: float) -> None:
    def enough(*_: object) -> None:
        server.stop()

    signal.signal(signal.SIGALRM, enough)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    server.serve_forever()
    signal.setitimer(signal.ITIMER_REAL, 0)


def let_go(listeners: dict[str, Any]) -> None:
    """A listener hears that clients have gone while it is asked for the next one, and not before."""
    for name in ("bus", "rpc"):
        with contextlib.suppress(tachyon.TachyonTimeoutError):
            while True:
                listeners[name].accept(timeout=0.2).close()


def obey(order: dict[str, Any], listeners: dict[str, Any], told: dict[str, Any]) -> None:
    source = random.Random(order["seed"])
    rpc, path, seconds = order["rpc"], order["path"], order["seconds"]
    kind: Any = tachyon.RpcBus if rpc else tachyon.Bus
    capacities = [order["capacity"]] * (2 if rpc else 1)
    what = order["do"]
    if what == "server":
        serve(listeners["server"], seconds)
        return
    if what == "accept":
        bus = listeners["rpc" if rpc else "bus"].accept(timeout=seconds)
    elif what == "listen":
        bus = kind.listen(path, *capacities, timeout=seconds)
    else:
        bus = kind.connect(path, timeout=seconds)
    with bus:
        if what == "wait":
            wait_in_vain(bus, told)
        use(bus, source, seconds, told)


def main() -> None:
    die_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    logging.getLogger("tachyon").addHandler(logging.NullHandler())
    logging.getLogger("tachyon").propagate = False
    folder = sys.argv[1]
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))

    class Odd(BaseException):
        pass

    @dispatcher.handler(2)
    def fail(payload: memoryview) -> bytes:
        raise [asyncio.CancelledError, GeneratorExit, Odd][len(payload) % 3]

    listeners = {
        "bus": tachyon.Listener(f"{folder}/bus", 4096),
        "rpc": tachyon.RpcListener(f"{folder}/rpc", 4096, 4096),
        "server": tachyon.RpcServer(f"{folder}/server", dispatcher, 4096, 4096),
    }
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        told: dict[str, Any] = {"ended": "", "longest": 0.0, "work": 0.0}
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        try:
            obey(order, listeners, told)
        except tachyon.TachyonError as error:
            told["ended"] = type(error).__name__
        except MemoryError:
            told["ended"] = "MemoryError"
        except BaseException as error:
            told |= {"fault": "wrong", "wrong": f"an error that is not ours: {error!r}"}
        if told["longest"] > BEYOND:
            told |= {"fault": "hang", "wrong": f"a call took {told['longest']:.1f} s, its timeout was {EACH} s"}
        if told["work"] > MOST_WORK:
            told |= {"fault": "hang", "wrong": f"a call worked for {told['work']:.1f} s beyond its timeout"}
        if order["do"] == "connect" and peak() > MOST_RESIDENT:
            told |= {"fault": "leak", "wrong": f"{peak() >> 20} MiB resident, by what a listener chose"}
        if order["count"]:
            let_go(listeners)
            told["held"] = held()
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
