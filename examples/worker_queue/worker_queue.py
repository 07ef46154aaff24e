"""A queue of NumPy batches for worker processes: one feeder, any number of workers, each batch to one of them.

The feeder has a bus to each worker and gives a batch to whichever has room, so a slow worker keeps nobody waiting, and
nothing is sent twice. There is no broker and no lock; a worker that dies is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import numpy.typing as npt

import tachyon

Batch = npt.NDArray[np.float32]


class Feeder:
    """The end that puts. A context manager: leaving it ends the workers' streams."""

    def __init__(self, path: str, workers: int, capacity: int, *, timeout: float | None = None) -> None:
        """Wait until so many workers have connected to `path`. capacity: bytes of ring for each, a power of two."""
        self._waiting = tachyon.WaitSet()
        self._buses: deque[tachyon.Bus] = deque()
        with tachyon.Listener(path, capacity) as listener:
            while len(self._buses) < workers:
                bus = listener.accept(timeout=timeout)
                self._waiting.add(bus)
                self._buses.append(bus)

    def put(self, batch: Batch) -> None:
        """Give a batch to a worker that has room; wait until one has. PeerDeadError if no worker is left."""
        while True:
            for bus in list(self._buses):
                try:
                    if bus.try_send_array(batch):
                        self._buses.rotate(-1)  # begin with the next one next time
                        return
                    self._waiting.await_room(bus, batch.nbytes + 48)  # with the array's header
                except tachyon.PeerDeadError:
                    self._drop(bus)
                    if not self._buses:
                        raise
                else:
                    self._buses.rotate(-1)
            self._waiting.wait()

    def _drop(self, bus: tachyon.Bus) -> None:
        self._waiting.remove(bus)
        self._buses.remove(bus)
        bus.close()

    def __enter__(self) -> Feeder:
        """Return the feeder."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the streams; by an exception the workers learn that it was not the whole."""
        self._waiting.close()
        for bus in self._buses:
            bus.__exit__(kind, error, None)


def batches(path: str, *, timeout: float = 10.0) -> Iterator[Batch]:
    """Yield a worker's batches where they lie, until the feeder ends. Each is valid until the next one is asked for.

    Keep no part of it (`batch.copy()` to keep it): leaving its place in the ring would raise BufferError.
    """
    with tachyon.Bus.connect(path, timeout=timeout) as bus:
        while True:
            try:
                received = bus.recv_array_zero_copy()
            except tachyon.PeerClosedError:
                return
            with received as batch:
                yield batch
