"""The same in an event loop: tachyon.aio beside what asyncio programs use today."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from tachyon.cli.bench.ours import PATIENCE
from tachyon.cli.bench.pairs import CONTEXT, Channel, Cores, both
from tachyon.cli.bench.peers import ZeroMq

ASend = Callable[[bytes], Awaitable[object]]

LENGTH = struct.Struct("!I")
CAPACITY = 1 << 20
PAUSE = 0.002  # seconds


class LoopChannel(Channel):
    """One direction between two event loops."""

    async def open_out(self) -> ASend:
        """Return what sends one message."""
        raise NotImplementedError

    async def open_in(self) -> AsyncIterator[Any]:
        """Return what is iterated over, until end()."""
        raise NotImplementedError

    async def end(self) -> None:
        """End the stream, and let go, on the sending side."""

    async def end_in(self) -> None:
        """Let go, on the receiving side."""
        await self.end()

    def send_for(self, seconds: float, payload: bytes) -> int:
        """Send until the time is over; how many."""

        async def run() -> int:
            send = await self.open_out()
            clock, chunk, sent = time.perf_counter, max(1, min(1000, (1 << 22) // len(payload))), 0
            until = clock() + seconds
            while clock() < until:
                for _ in range(chunk):
                    await send(payload)
                sent += chunk
            await self.end()
            return sent

        return asyncio.run(run())

    def receive_all(self) -> float:
        """Receive until the end; seconds from the first message on."""

        async def run() -> float:
            messages = await self.open_in()
            await anext(messages)
            start = time.perf_counter()
            async for _ in messages:
                pass
            took = time.perf_counter() - start
            await self.end_in()
            return took

        return asyncio.run(run())


class Aio(LoopChannel):
    """`await bus.send`, `async for msg in bus`."""

    name = "aio"
    title = "tachyon.aio: await send, async for"

    async def open_out(self) -> ASend:
        """`bus.send`."""
        aio = import_module("tachyon.aio")
        self.bus = await aio.Bus.listen(self.folder / "bus", self.capacity, timeout=PATIENCE)
        return self.bus.send  # type: ignore[no-any-return]

    async def open_in(self) -> AsyncIterator[Any]:
        """The bus itself."""
        aio = import_module("tachyon.aio")
        self.bus = await aio.Bus.connect(self.folder / "bus", timeout=PATIENCE)
        return self.bus  # type: ignore[no-any-return]

    async def end(self) -> None:
        """Close."""
        self.bus.close()

    @staticmethod
    def data(message: Any) -> bytes:
        """`msg.data`."""
        return message.data  # type: ignore[no-any-return]


class Streams(LoopChannel):
    """asyncio's streams over a UNIX socket, each message behind its length."""

    name = "asyncio-streams"
    title = "asyncio streams over a UNIX socket"

    async def open_out(self) -> ASend:
        """`write` and `drain`."""
        arrived: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        path = self.folder / "socket"
        self.server = await asyncio.start_unix_server(lambda _, writer: arrived.set_result(writer), path)
        self.writer = writer = await arrived

        async def send(payload: bytes) -> None:
            writer.write(LENGTH.pack(len(payload)) + payload)
            await writer.drain()

        return send

    async def open_in(self) -> AsyncIterator[Any]:
        """`readexactly`, twice."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                reader, self.writer = await asyncio.open_unix_connection(self.folder / "socket")
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.01)
        return self._messages(reader)

    @staticmethod
    async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        try:
            while True:
                (size,) = LENGTH.unpack(await reader.readexactly(4))
                yield await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            return

    async def end(self) -> None:
        """Close, once everything has gone out."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class AsyncZeroMq(LoopChannel):
    """zmq.asyncio, PAIR sockets over ipc."""

    name = "zmq-asyncio"
    title = "zmq.asyncio, PAIR over ipc"

    @staticmethod
    def absent() -> str:
        """Where it is not installed."""
        return ZeroMq.absent()

    def _socket(self) -> Any:
        self.context = import_module("zmq.asyncio").Context()
        return self.context.socket(import_module("zmq").PAIR)

    async def open_out(self) -> ASend:
        """`send`."""
        self.socket = self._socket()
        self.socket.bind(f"ipc://{self.folder}/zmq")
        return self.socket.send  # type: ignore[no-any-return]

    async def open_in(self) -> AsyncIterator[Any]:
        """`recv` until an empty message."""
        self.socket = self._socket()
        self.socket.connect(f"ipc://{self.folder}/zmq")
        return self._messages(self.socket)

    @staticmethod
    async def _messages(socket: Any) -> AsyncIterator[bytes]:
        while message := await socket.recv():
            yield message

    async def end(self) -> None:
        """Send the empty message, and stay until it has arrived: why, ZeroMq.finish says."""
        await self.socket.send(b"")
        await self.socket.recv()
        self.context.destroy(linger=0)

    async def end_in(self) -> None:
        """Say that it has arrived, and let that go out."""
        await self.socket.send(b"")
        self.context.destroy(linger=20_000)


class ExecutorPipe(LoopChannel):
    """`multiprocessing.Pipe` in an executor: what a blocking call costs a loop."""

    name = "pipe-executor"
    title = "multiprocessing.Pipe in an executor"

    def __init__(self, folder: Path, size: int, capacity: int) -> None:
        """Both ends are inherited."""
        super().__init__(folder, size, capacity)
        self.reader, self.writer = CONTEXT.Pipe(duplex=False)

    async def open_out(self) -> ASend:
        """`send_bytes`."""
        loop, self.executor = asyncio.get_running_loop(), ThreadPoolExecutor(1)
        return lambda payload: loop.run_in_executor(self.executor, self.writer.send_bytes, payload)

    async def open_in(self) -> AsyncIterator[Any]:
        """`recv_bytes` until an empty message."""
        self.executor = ThreadPoolExecutor(1)
        return self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while message := await loop.run_in_executor(self.executor, self.reader.recv_bytes):
            yield message

    async def end(self) -> None:
        """Send the empty message."""
        self.writer.send_bytes(b"")
        self.executor.shutdown()

    async def end_in(self) -> None:
        """Let the thread go."""
        self.executor.shutdown()


LOOPS: list[type[LoopChannel]] = [Aio, Streams, AsyncZeroMq, ExecutorPipe]
LOOPS_BY_NAME = {each.name: each for each in LOOPS}


def round_trip(kind: type[LoopChannel], cores: Cores, size: int, parked: bool, seconds: float) -> float:
    """Return the median of the nanoseconds there and back, from loop to loop.

    parked: with a pause before each, in which both processes fall asleep.
    """
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        there, back = Path(folder, "there"), Path(folder, "back")
        there.mkdir()
        back.mkdir()
        out, home = kind(there, size, CAPACITY), kind(back, size, CAPACITY)

        async def echo() -> None:
            messages = await out.open_in()
            send, data = await home.open_out(), home.data
            async for message in messages:
                await send(data(message))
            await out.end_in()
            await home.end()

        async def ping() -> float:
            send = await out.open_out()
            messages = await home.open_in()
            payload, samples, clock = b"x" * size, [], time.perf_counter_ns
            until = clock() + int(seconds * 1e9)
            while (before := clock()) < until:
                await send(payload)
                await anext(messages)
                samples.append(clock() - before)
                if parked:
                    await asyncio.sleep(PAUSE)
            await out.end()
            async for _ in messages:
                pass
            await home.end_in()
            return float(sorted(samples)[len(samples) // 2])

        result, _ = both(cores, lambda: asyncio.run(ping()), lambda: asyncio.run(echo()))
    return float(result)
