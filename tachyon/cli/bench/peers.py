"""What Python programs use today, each as its own documentation says. What is not installed is named and left out."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tachyon.cli.bench.pairs import CONTEXT, Channel, Send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def _missing(module: str, package: str) -> str:
    return "" if find_spec(module) else f"not installed: pip install {package}"


class Pipe(Channel):
    """`multiprocessing.Pipe(duplex=False)`: a pipe."""

    name = "pipe"
    title = "multiprocessing.Pipe, one way (a pipe)"
    duplex = False

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """Both ends are inherited."""
        super().__init__(folder, size, capacity)
        self.reader, self.writer = CONTEXT.Pipe(duplex=self.duplex)

    def open_sender(self) -> Send:
        """`send_bytes`."""
        return self.writer.send_bytes

    def open_receiver(self) -> Iterable[Any]:
        """`recv_bytes` until an empty message."""
        return iter(self.reader.recv_bytes, b"")

    def finish(self) -> None:
        """Send the empty message."""
        self.writer.send_bytes(b"")


class Socket(Pipe):
    """`multiprocessing.Pipe()`: a pair of UNIX sockets."""

    name = "socket"
    title = "multiprocessing.Pipe (a UNIX socket)"
    duplex = True


class Queue(Channel):
    """`multiprocessing.Queue`."""

    name = "queue"
    title = "multiprocessing.Queue"

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """Room for as many messages as the ring of the same size has."""
        super().__init__(folder, size, capacity)
        self.queue: Any = CONTEXT.Queue(max(4, min(32_000, capacity // size)))

    def open_sender(self) -> Send:
        """`put`."""
        return self.queue.put  # type: ignore[no-any-return]

    def open_receiver(self) -> Iterable[Any]:
        """`get` until an empty message."""
        return iter(self.queue.get, b"")

    def finish(self) -> None:
        """Its thread has to have sent everything."""
        self.queue.put(b"")
        self.queue.close()
        self.queue.join_thread()


class ZeroMq(Channel):
    """pyzmq, PAIR sockets over ipc."""

    name = "pyzmq"
    title = "pyzmq, PAIR over ipc"

    @staticmethod
    def absent() -> str:
        """Where it is not installed."""
        return _missing("zmq", "pyzmq")

    def _socket(self) -> Any:
        zmq = import_module("zmq")
        self.context = zmq.Context()
        return self.context.socket(zmq.PAIR)

    def open_sender(self) -> Send:
        """`send`."""
        self.socket = self._socket()
        self.socket.bind(f"ipc://{self.folder}/zmq")
        return self.socket.send  # type: ignore[no-any-return]

    def open_receiver(self) -> Iterable[Any]:
        """`recv` until an empty message."""
        self.socket = self._socket()
        self.socket.connect(f"ipc://{self.folder}/zmq")
        return iter(self.socket.recv, b"")

    def finish(self) -> None:
        """Send the empty message, and stay until it has arrived.

        To linger is not enough: libzmq gives what is left to the kernel, and a receiver that has as many messages as it
        takes at a time looks no more at a connection that has been closed meanwhile.
        """
        self.socket.send(b"")
        self.socket.recv()
        self.context.destroy(linger=0)

    def leave(self) -> None:
        """Say that it has arrived, and let that go out."""
        self.socket.send(b"")
        self.context.destroy(linger=20_000)


class FasterFifo(Channel):
    """faster-fifo; it recommends get_many for speed."""

    name = "faster-fifo"
    title = "faster-fifo, put and get_many"

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """It is inherited."""
        super().__init__(folder, size, capacity)
        self.queue: Any = import_module("faster_fifo").Queue(max(capacity, 4 * size))

    @staticmethod
    def absent() -> str:
        """Where it is not installed."""
        return _missing("faster_fifo", "faster-fifo")

    def open_sender(self) -> Send:
        """`put`."""
        return self.queue.put  # type: ignore[no-any-return]

    def open_receiver(self) -> Iterator[Any]:
        """`get_many` until an empty message."""
        while True:
            for message in self.queue.get_many():
                if not message:
                    return
                yield message

    def finish(self) -> None:
        """Send the empty message."""
        self.queue.put(b"")


class Iceoryx2(Channel):
    """iceoryx2: publish-subscribe of a fixed structure, nothing dropped, polled."""

    name = "iceoryx2"
    title = "iceoryx2, send_copy and receive"

    @staticmethod
    def absent() -> str:
        """Where it is not installed."""
        return _missing("iceoryx2", "iceoryx2")

    def _service(self) -> Any:
        ctypes, iox2 = import_module("ctypes"), import_module("iceoryx2")
        iox2.set_log_level(iox2.LogLevel.Error)
        self.type: Any = type("Payload", (ctypes.Structure,), {"_fields_": [("bytes", ctypes.c_ubyte * self.size)]})
        self.node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
        builder = self.node.service_builder(iox2.ServiceName.new(f"tachyon-bench{self.folder}"))
        builder = builder.publish_subscribe(self.type).enable_safe_overflow(False)
        return builder.subscriber_max_buffer_size(max(4, min(256, self.capacity // self.size))).open_or_create()

    def open_sender(self) -> Send:
        """`send_copy`, as soon as the subscriber is there."""
        iox2, service = import_module("iceoryx2"), self._service()
        strategy = iox2.BackpressureStrategy.DiscardData  # and tried again here, where a signal can end it
        self.publisher = service.publisher_builder().backpressure_strategy(strategy).create()
        while not service.dynamic_config.number_of_subscribers:
            pass
        send, make = self.publisher.send_copy, self.type.from_buffer_copy
        last, value = b"", self.type()

        def send_bytes(payload: bytes) -> None:  # a structure that is sent again is not made again
            nonlocal last, value
            if payload is not last:
                last, value = payload, make(payload)
            while not send(value):
                pass

        return send_bytes

    def open_receiver(self) -> Iterator[Any]:
        """`receive` until a message begins with a zero; read in place. Subscribed at once, not when first iterated."""
        subscriber = self._service().subscriber_builder().create()
        return self._received(subscriber)

    @staticmethod
    def _received(subscriber: Any) -> Iterator[Any]:
        receive = subscriber.receive
        while True:
            sample = receive()
            if sample is None:
                continue
            value = sample.payload().contents
            if value.bytes[0] == 0:
                return
            yield value

    def finish(self) -> None:
        """Send one of zeros."""
        while not self.publisher.send_copy(self.type()):
            pass


PEERS: list[type[Channel]] = [Pipe, Socket, Queue, ZeroMq, FasterFifo, Iceoryx2]
