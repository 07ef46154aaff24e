"""What the children of the tests of pairs do. A module of its own, because spawn has to import it."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.util import Finalize
from pathlib import Path

import tachyon

PATIENCE = 60
REFUSED, UNDONE = 41, 42  # exit codes
taken = None


def watched() -> None:
    signal.alarm(100)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def produce(end, count: int) -> None:
    watched()
    with end.open(timeout=PATIENCE) as bus:
        for i in range(count):
            bus.send(b"%d" % i, i)


def consume(end, count: int) -> None:
    watched()
    with end.open(timeout=PATIENCE) as bus:
        assert [(msg.type_id, msg.data) for msg in bus] == [(i, b"%d" % i) for i in range(count)]


def echo(end) -> None:
    watched()
    with end:
        for msg in end:
            end.send(msg.data[::-1], msg.type_id)


def serve(end) -> None:
    watched()
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(tachyon.RpcEndpoint(lambda payload: bytes(payload)[::-1], 1))
    with end.open(timeout=PATIENCE) as bus:
        dispatcher.serve_forever(bus)


def call(end, text: bytes) -> None:
    watched()
    with end.open(timeout=PATIENCE) as bus:
        assert tachyon.RpcEndpoint(1).call(bus, text, timeout=PATIENCE) == text[::-1]


def end_at_once(*_ends) -> None:
    watched()


def wait_for_the_end(*_ends) -> None:
    watched()
    time.sleep(90)


def open_and_say(end, note: str, then: str = "close") -> None:
    """Writes what came of opening it to a file, and says by the exit code too."""
    watched()
    try:
        bus = end.open(timeout=PATIENCE)
    except tachyon.BusClosedError as error:
        tell(note, f"closed {error}")
        os._exit(REFUSED)
    except tachyon.HandshakeError as error:
        tell(note, f"undone {error}")
        os._exit(UNDONE)
    tell(note, f"open {bus.peer_pid}")
    if then == "stay":
        try:
            bus.recv(timeout=PATIENCE)
        except tachyon.PeerDeadError as error:
            tell(note, f"{error.reason} {error}")
    bus.close()


def tell(note: str, text: str) -> None:
    """All at once, so that nobody reads half of it."""
    Path(f"{note}.new").write_text(text)
    Path(f"{note}.new").rename(note)


def take_one(ends) -> None:
    global taken
    taken = tachyon.take(ends)


def use_it(count: int) -> int:
    """In a worker of a pool, which may be asked more than once."""
    global taken
    if taken is None:
        return 0
    end, taken = taken, None
    produce(end, count)
    return os.getpid()


def open_one(ends, closes: bool) -> None:
    """For a pool whose workers keep their bus."""
    global taken
    watched()
    taken = tachyon.take(ends).open(timeout=PATIENCE)
    if closes:
        Finalize(None, taken.close, exitpriority=1)


def send_by_it(data: bytes) -> None:
    taken.send(data)
