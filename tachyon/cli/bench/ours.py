"""What tachyon offers, as its documentation uses it."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

import tachyon
from tachyon.cli.bench.pairs import Channel, Send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 20.0  # seconds


class Plain(Channel):
    """`send`, and `for msg in bus`."""

    name = "bus"
    title = "tachyon: send, for msg in bus"

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """Nothing is shared but a path."""
        super().__init__(folder, size, capacity)
        self.bus: tachyon.Bus | None = None

    def listen(self) -> tachyon.Bus:
        """Open the sending side."""
        self.bus = tachyon.Bus.listen(self.folder / "bus", self.capacity, timeout=PATIENCE)
        return self.bus

    def connect(self) -> tachyon.Bus:
        """Open the receiving side."""
        self.bus = tachyon.Bus.connect(self.folder / "bus", timeout=PATIENCE)
        return self.bus

    def open_sender(self) -> Send:
        """`bus.send`."""
        return self.listen().send

    def open_receiver(self) -> Any:
        """The bus itself."""
        return self.connect()

    def finish(self) -> None:
        """Close; what has been sent is still received."""
        if self.bus is not None:
            self.bus.close()

    leave = finish

    @staticmethod
    def data(message: Any) -> bytes:
        """`msg.data`."""
        return message.data  # type: ignore[no-any-return]


class Batches(Plain):
    """`send_many` and `drain_batch`."""

    name = "bus-batches"
    title = "tachyon: send_many, drain_batch"
    MOST = 256

    def send_for(self, seconds: float, payload: bytes) -> int:
        """Send lists of messages."""
        send_many, batch, sent = self.listen().send_many, [payload] * self.MOST, 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(8):
                send_many(batch)
            sent += 8 * self.MOST
        self.finish()
        return sent

    def receive_all(self) -> float:
        """Take what is there."""
        bus = self.connect()
        bus.recv()
        start = time.perf_counter()
        try:
            while True:
                with bus.drain_batch(self.MOST):
                    pass
        except tachyon.PeerClosedError:
            pass
        return time.perf_counter() - start


class InPlace(Plain):
    """`send_zero_copy`, filled from a buffer, and `recv_zero_copy`, not copied out."""

    name = "bus-in-place"
    title = "tachyon: send_zero_copy, recv_zero_copy (not copied out)"
    data = staticmethod(Channel.data)

    def open_sender(self) -> Send:
        """Claim, fill, commit."""
        bus = self.listen()

        def send(payload: bytes) -> None:
            with bus.send_zero_copy(len(payload)) as frame, memoryview(frame) as room:
                room[:] = payload
                frame.actual_size = len(payload)

        return send

    def open_receiver(self) -> Iterator[Any]:
        """Nothing is copied out."""
        bus = self.connect()
        try:
            while True:
                with bus.recv_zero_copy() as frame, memoryview(frame) as data:
                    yield data
        except tachyon.PeerClosedError:
            return


class Into(Plain):
    """`send` and `recv_into` a buffer of the receiver's."""

    name = "bus-into"
    title = "tachyon: send, recv_into"
    data = staticmethod(Channel.data)

    def open_receiver(self) -> Iterator[Any]:
        """Copy into the same buffer again and again."""
        bus, buffer = self.connect(), bytearray(self.size)
        try:
            while True:
                bus.recv_into(buffer)
                yield buffer
        except tachyon.PeerClosedError:
            return


class Arrays(Plain):
    """`send_array` and `recv_array_zero_copy`."""

    name = "bus-arrays"
    title = "tachyon: send_array, recv_array_zero_copy"

    @staticmethod
    def absent() -> str:
        """Where there is no NumPy."""
        return "" if importlib.util.find_spec("numpy") else "numpy is not installed"

    def send_for(self, seconds: float, payload: bytes) -> int:
        """Send one array again and again."""
        import numpy as np

        send, array, sent = self.listen().send_array, np.frombuffer(payload, np.uint8), 0
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            send(array)
            sent += 1
        self.finish()
        return sent

    def open_receiver(self) -> Iterator[Any]:
        """Arrays in place."""
        bus = self.connect()
        try:
            while True:
                with bus.recv_array_zero_copy() as array:
                    yield array
        except tachyon.PeerClosedError:
            return


class ArrayCopies(Arrays):
    """`send_array` and `recv_array`."""

    name = "bus-array-copies"
    title = "tachyon: send_array, recv_array"

    def open_receiver(self) -> Iterator[Any]:
        """Arrays of one's own."""
        bus = self.connect()
        try:
            while True:
                yield bus.recv_array()
        except tachyon.PeerClosedError:
            return


OURS: list[type[Channel]] = [Plain, Batches, Into, InPlace, Arrays, ArrayCopies]
