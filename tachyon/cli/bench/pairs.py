"""Two processes, each on its own core: one sends, the other receives; there and back.

A channel is made before the fork and opened by each side after it. The second process is a fork: what is inherited,
such as the ends of a pipe, all peers inherit alike.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tachyon.cli.bench.machine import pinned

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

WATCHDOG = 60.0  # seconds that a measurement may take beyond those it is asked to
MOST = 600  # seconds that any process lives
CONTEXT = multiprocessing.get_context("fork")

Cores = tuple[int, int] | None
Send = Callable[[bytes], object]


class Channel:
    """One direction between the two processes. Subclasses are what is measured."""

    name = ""  # in files
    title = ""  # for people

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """Make what both sides share, before the fork."""
        self.folder = folder
        self.size = size
        self.capacity = capacity

    @staticmethod
    def absent() -> str:
        """Say why it cannot be measured here; empty: it can."""
        return ""

    def open_sender(self) -> Send:
        """Return what sends one message."""
        raise NotImplementedError

    def open_receiver(self) -> Iterable[Any]:
        """Return what is iterated over: one item for each message, until finish()."""
        raise NotImplementedError

    def finish(self) -> None:
        """End the stream, on the sending side."""

    def leave(self) -> None:
        """Let go of what was opened, on the receiving side."""

    @staticmethod
    def data(message: Any) -> bytes:
        """Return the bytes of what the receiver got."""
        return bytes(message)

    def send_for(self, seconds: float, payload: bytes) -> int:
        """Send until the time is over; how many."""
        send = self.open_sender()
        clock, chunk, sent = time.perf_counter, max(1, min(1000, (1 << 22) // len(payload))), 0
        until = clock() + seconds
        while clock() < until:
            for _ in range(chunk):
                send(payload)
            sent += chunk
        self.finish()
        return sent

    def receive_all(self) -> float:
        """Receive until the end; seconds from the first message on."""
        messages = iter(self.open_receiver())
        next(messages)
        start = time.perf_counter()
        for _ in messages:
            pass
        return time.perf_counter() - start


class _SecondFailedError(Exception):
    """Raised out of whatever the first process waits in."""


@contextmanager
def _told_of_failure(second: Any) -> Iterator[None]:
    """End what the block waits for when the second process fails: nobody would come to read, or to answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def look(_signum: int, _frame: object) -> None:
        if second.exitcode not in (None, 0):
            raise _SecondFailedError

    before = signal.signal(signal.SIGCHLD, look)
    try:
        look(0, None)
        yield
    except _SecondFailedError:
        pass
    finally:
        signal.signal(signal.SIGCHLD, before)


def _work(result: Connection, work: Callable[[], object]) -> None:
    """Be a child: do it, say what came of it, end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MOST)  # whatever becomes of the parent
    code = 0
    try:
        result.send(("done", work()))
    except BaseException as error:  # whatever it is, the parent has to hear of it
        result.send(("failed", "".join(traceback.format_exception(error))))
        code = 1
    sys.stdout.flush()
    os._exit(code)  # threads of a library must not keep us


def _second(core: int | None, result: Connection, work: Callable[[], object]) -> None:
    with pinned(core):
        _work(result, work)


def _outcome(result: Connection, process: Any) -> Any:
    """Return what a child has sent, or raise what kept it from doing so."""
    try:
        kind, outcome = result.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process ended with {process.exitcode}") from None
    if kind != "done":
        raise RuntimeError(f"the process failed:\n{outcome}")
    return outcome


def bounded(work: Callable[[], Any], seconds: float) -> Any:
    """Do it in a process of its own; TimeoutError, and all its processes gone, where it hangs, be it in C.

    Some things that are measured do hang at times, and no signal gets them out.
    """
    limit = WATCHDOG + 4 * seconds
    mine, its = CONTEXT.Pipe(duplex=False)

    def lead() -> None:
        os.setsid()
        _work(its, work)

    sys.stdout.flush()
    first = CONTEXT.Process(target=lead)
    first.start()
    its.close()
    try:
        if not mine.poll(limit):
            raise TimeoutError(f"given up after {limit:g} s")
        return _outcome(mine, first)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(first.pid, signal.SIGKILL)  # type: ignore[arg-type]
        first.kill()
        first.join()
        mine.close()


def both(cores: Cores, here: Callable[[], Any], there: Callable[[], Any]) -> tuple[Any, Any]:
    """Run `here` in this process and `there` in a second one; what each returned."""
    near, far = cores or (None, None)
    mine, its = CONTEXT.Pipe(duplex=False)
    second = CONTEXT.Process(target=_second, args=(far, its, there), daemon=True)
    sys.stdout.flush()
    second.start()
    its.close()
    try:
        value = None
        with pinned(near), _told_of_failure(second):
            value = here()
        if not mine.poll(WATCHDOG):
            raise TimeoutError("the second process does not end")
        return value, _outcome(mine, second)
    finally:
        second.kill()
        second.join()
        mine.close()


def one_way(kind: type[Channel], cores: Cores, size: int, capacity: int, seconds: float) -> float:
    """Return messages per second."""
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        channel = kind(Path(folder), size, capacity)

        def receive() -> float:
            took = channel.receive_all()
            channel.leave()
            return took

        sent, took = both(cores, lambda: channel.send_for(seconds, b"x" * size), receive)
    return float((sent - 1) / took)


def round_trip(kind: type[Channel], cores: Cores, size: int, capacity: int, seconds: float) -> tuple[float, list[int]]:
    """Return mean nanoseconds there and back, and the nanoseconds of each of many trips."""
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        there.mkdir()
        back.mkdir()
        out, home = kind(there, size, capacity), kind(back, size, capacity)

        def echo() -> None:
            messages = out.open_receiver()
            send, data = home.open_sender(), home.data
            for message in messages:
                send(data(message))
            out.leave()
            home.finish()

        def ping() -> tuple[float, list[int]]:
            send = out.open_sender()
            messages = iter(home.open_receiver())
            payload = b"x" * size
            mean = _mean_trip(seconds, lambda: (send(payload), next(messages)))
            samples = _each_trip(seconds, send, payload, messages)
            out.finish()
            for _ in messages:
                pass
            home.leave()
            return mean, samples

        result, _ = both(cores, ping, echo)
    return result  # type: ignore[no-any-return]


def _mean_trip(seconds: float, trip: Callable[[], object]) -> float:
    """The median of the means of 15 chunks, after one that does not count."""
    clock, chunks = time.perf_counter, []
    for _ in range(16):
        start, trips = clock(), 0
        while (now := clock()) - start < seconds / 16:
            for _ in range(50):
                trip()
            trips += 50
        chunks.append((now - start) / max(1, trips) * 1e9)
    return sorted(chunks[1:])[7]


def _each_trip(seconds: float, send: Send, payload: bytes, messages: Any) -> list[int]:
    clock = time.perf_counter_ns
    samples: list[int] = []
    keep, take = samples.append, messages.__next__
    before = clock()
    until = before + int(seconds * 1e9)
    while before < until:
        send(payload)
        take()
        after = clock()
        keep(after - before)
        before = after
    return samples
