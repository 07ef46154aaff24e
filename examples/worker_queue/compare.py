"""The same batches to the same workers, four ways, with rates.

python compare.py [--workers N] [--count N] [--rows N]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import shared_memory
from typing import Any

import numpy as np

import worker_queue
from worker_queue import Batch

COLUMNS = 1024  # float32: 4 KiB a row
SLOTS = 4  # batches under way to each worker, in every way
PATIENCE = 60.0  # seconds
spawn = multiprocessing.get_context("spawn")


class Way:
    """How batches get to workers. Made by the feeder, pickled to each worker."""

    name = ""

    def __init__(self, workers: int, rows: int, folder: str) -> None:
        """Make what both sides share."""
        self.workers, self.rows, self.folder = workers, rows, folder

    def feed(self, given: Iterator[Batch], begin: Callable[[], None]) -> None:
        """Open, call begin() once the workers are there, hand out all batches, end."""
        raise NotImplementedError

    def take(self) -> Iterator[Batch]:
        """Yield this worker's batches."""
        raise NotImplementedError

    def end(self) -> None:
        """Let go, when all is over."""


class Tachyon(Way):
    """A bus to each worker."""

    name = "tachyon"

    def feed(self, given: Iterator[Batch], begin: Callable[[], None]) -> None:
        """Whoever has room gets it."""
        capacity = 1 << (SLOTS * self.rows * COLUMNS * 4 + 4096).bit_length()
        with worker_queue.Feeder(f"{self.folder}/queue", self.workers, capacity, timeout=PATIENCE) as feeder:
            begin()
            for batch in given:
                feeder.put(batch)

    def take(self) -> Iterator[Batch]:
        """In place."""
        return worker_queue.batches(f"{self.folder}/queue", timeout=PATIENCE)


class Queue(Way):
    """`multiprocessing.Queue`, which pickles into a pipe."""

    name = "multiprocessing.Queue"

    def __init__(self, workers: int, rows: int, folder: str) -> None:
        """One queue, a barrier."""
        super().__init__(workers, rows, folder)
        self.queue: Any = spawn.Queue(SLOTS * workers)
        self.barrier = spawn.Barrier(workers + 1)

    def feed(self, given: Iterator[Batch], begin: Callable[[], None]) -> None:
        """Ends with None for each worker."""
        self.barrier.wait(PATIENCE)
        begin()
        for batch in given:
            self.queue.put(batch)
        for _ in range(self.workers):
            self.queue.put(None)

    def take(self) -> Iterator[Batch]:
        """Each a new array."""
        self.barrier.wait(PATIENCE)
        while (batch := self.queue.get()) is not None:
            yield batch


class ZeroMq(Way):
    """pyzmq, PUSH and PULL over ipc, sent and received without a copy of Python's."""

    name = "pyzmq"

    def __init__(self, workers: int, rows: int, folder: str) -> None:
        """What PUSH and PULL do not have: an end, before which nothing may be closed, or batches are lost."""
        super().__init__(workers, rows, folder)
        self.put, self.taken = spawn.Value("q", -1), spawn.Value("q", 0)
        self.barrier = spawn.Barrier(workers + 1)

    def _socket(self, kind: int) -> Any:
        import zmq

        socket = zmq.Context.instance().socket(kind)
        socket.sndhwm = socket.rcvhwm = SLOTS
        return socket

    def feed(self, given: Iterator[Batch], begin: Callable[[], None]) -> None:
        """By turns, those with room."""
        import zmq

        socket = self._socket(zmq.PUSH)
        socket.bind(f"ipc://{self.folder}/zmq")
        self.barrier.wait(PATIENCE)
        begin()
        count = 0
        for batch in given:
            socket.send(batch, copy=False)
            count += 1
        self.put.value = count
        while self.taken.value < count:
            time.sleep(0.01)
        socket.close()

    def take(self) -> Iterator[Batch]:
        """Views of the frames."""
        import zmq

        socket = self._socket(zmq.PULL)
        socket.connect(f"ipc://{self.folder}/zmq")
        self.barrier.wait(PATIENCE)
        while True:
            if socket.poll(50):
                yield np.frombuffer(socket.recv(copy=False), np.float32).reshape(-1, COLUMNS)
                with self.taken.get_lock():
                    self.taken.value += 1
            elif self.taken.value == self.put.value:
                socket.close()
                return


class ByHand(Way):
    """`shared_memory`: slots, and two queues of their numbers."""

    name = "shared_memory by hand"

    def __init__(self, workers: int, rows: int, folder: str) -> None:
        """All slots are free."""
        super().__init__(workers, rows, folder)
        self.slots = SLOTS * workers
        self.memory = shared_memory.SharedMemory(create=True, size=self.slots * rows * COLUMNS * 4)
        self.free: Any = spawn.SimpleQueue()
        self.full: Any = spawn.SimpleQueue()
        self.barrier = spawn.Barrier(workers + 1)

    def _arrays(self) -> Any:
        return np.ndarray((self.slots, self.rows, COLUMNS), np.float32, self.memory.buf)

    def feed(self, given: Iterator[Batch], begin: Callable[[], None]) -> None:
        """Copy into a free slot."""
        arrays = self._arrays()
        self.barrier.wait(PATIENCE)
        for slot in range(self.slots):
            self.free.put(slot)
        begin()
        for batch in given:
            slot = self.free.get()
            arrays[slot] = batch
            self.full.put(slot)
        for _ in range(self.workers):
            self.full.put(None)

    def take(self) -> Iterator[Batch]:
        """In place."""
        arrays = self._arrays()
        self.barrier.wait(PATIENCE)
        for slot in iter(self.full.get, None):
            yield arrays[slot]
            self.free.put(slot)

    def end(self) -> None:
        """Somebody has to."""
        self.memory.close()
        self.memory.unlink()


WAYS: list[type[Way]] = [Tachyon, ByHand, ZeroMq, Queue]


def work(way: Way, results: Any) -> None:
    """A worker: adds up what it gets, and tells how many those were and when the last one was done."""
    count, total, last = 0, 0.0, time.monotonic()
    for batch in way.take():
        count += 1
        total += float(batch[:, 0].sum())
        last = time.monotonic()
    results.put((count, total, last))
    results.close()
    results.join_thread()
    os._exit(0)  # what a library still holds is of no interest


def measure(kind: type[Way], workers: int, count: int, rows: int) -> float:
    """Return batches per second. ValueError if the workers did not get them all."""
    made = [np.full((rows, COLUMNS), i, np.float32) for i in range(4)]
    with tempfile.TemporaryDirectory(prefix="queue-") as folder:
        way = kind(workers, rows, folder)
        results: Any = spawn.Queue()
        children = [spawn.Process(target=work, args=(way, results), daemon=True) for _ in range(workers)]
        for child in children:
            child.start()
        started: list[float] = []
        way.feed((made[i % 4] for i in range(count)), lambda: started.append(time.monotonic()))
        ends = [results.get(timeout=PATIENCE) for _ in children]
        for child in children:
            child.join(PATIENCE)
        way.end()
    if sum(each[0] for each in ends) != count or sum(each[1] for each in ends) != rows * sum(
        i % 4 for i in range(count)
    ):
        raise ValueError(f"{kind.name}: {count} batches were put, and something else arrived: {ends}")
    return count / (max(each[2] for each in ends) - started[0])


def main() -> None:
    """Measure each way and print a table."""
    parser = argparse.ArgumentParser(description="Batches to workers, four ways.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count", type=int, default=2000, help="batches (default 2,000)")
    parser.add_argument("--rows", type=int, default=256, help="of 4 KiB in each (default 256: 1 MiB)")
    arguments = parser.parse_args()
    if min(arguments.workers, arguments.count, arguments.rows) < 1:
        parser.error("--workers, --count and --rows must be 1 at least")
    size = arguments.rows * COLUMNS * 4
    print(f"{arguments.count:,} batches of {size:,} bytes to {arguments.workers} workers", flush=True)
    first = 0.0
    for kind in WAYS:
        if kind is ZeroMq and not find_spec("zmq"):
            print(f"{kind.name:<24}not installed: pip install pyzmq")
            continue
        rate = measure(kind, arguments.workers, arguments.count, arguments.rows)
        first = first or rate
        print(
            f"{kind.name:<24}{rate:>10,.0f} batches/s {rate * size / 1e6:>10,.0f} MB/s {rate / first:>8.2f}", flush=True
        )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("compare: interrupted")
