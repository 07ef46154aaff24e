"""Bus: one direction, in an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from tachyon import _tachyon
from tachyon._errors import BusEmptyError, BusFullError, PeerClosedError, TachyonTimeoutError
from tachyon._objects import encode_obj
from tachyon._tachyon import _OWNER_ONLY, _AsyncBus
from tachyon.aio._open import open_in_thread
from tachyon.aio._watch import Opening, Watched

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer
    from numpy.typing import DTypeLike

    from tachyon._objects import AnyCodec
    from tachyon._tachyon import (
        ArrayGuard,
        Message,
        RxBatchGuard,
        RxGuard,
        TxGuard,
        _Array,
        _Item,
        _Path,
        _Shape,
        _Stats,
    )

T = TypeVar("T")
_CHUNK = 64  # items of send_many between passes of the loop


# asyncio looks for this where a coroutine is to become a task.
Coroutine.register(_tachyon._Sending)
Coroutine.register(_tachyon._Taking)


class Bus(_AsyncBus, Watched):
    """One direction between two processes: tachyon.Bus for an event loop. An async context manager.

    Made by `await Bus.listen(…)` and `await Bus.connect(…)`, or around a tachyon.Bus that was opened before, with or
    without a loop: Bus(bus). That one is then used by nobody else, and closed by this. It serves one loop, the first in
    which it waits.

    Whoever is cancelled while he waits has sent nothing and taken nothing. `timeout=` is in seconds, as ever; under
    asyncio.timeout and asyncio.wait_for it works as well. A call that need not wait does not give other tasks a turn,
    but after 64 of them, or some 100 µs, one does.
    """

    bus: _tachyon.Bus

    @staticmethod
    async def listen(
        socket_path: _Path,
        capacity: int,
        *,
        timeout: float | None = None,
        mode: int = _OWNER_ONLY,
        max_large: int = 1 << 30,
    ) -> Bus:
        """As tachyon.Bus.listen, in a thread of its own. Cancelled, it leaves nothing behind."""
        return Bus(
            await open_in_thread(
                _tachyon.Bus.listen, socket_path, capacity, timeout=timeout, mode=mode, max_large=max_large
            )
        )

    @staticmethod
    async def connect(
        socket_path: _Path,
        *,
        timeout: float | None = 0.0,
        uid: int | None = None,
        max_capacity: int | None = 1 << 30,
        max_large: int = 1 << 30,
    ) -> Bus:
        """As tachyon.Bus.connect, in a thread of its own. Cancelled, it leaves nothing behind."""
        return Bus(
            await open_in_thread(
                _tachyon.Bus.connect,
                socket_path,
                timeout=timeout,
                uid=uid,
                max_capacity=max_capacity,
                max_large=max_large,
            )
        )

    # ---- sending: send() is in _AsyncBus ----

    async def _send_slowly(self, data: ReadableBuffer, type_id: int, timeout: float | None) -> None:
        def attempt() -> bool | None:
            return self._sent(self.bus.try_send(data, type_id)) or None

        def late() -> BusFullError:
            return BusFullError("no room within the timeout; the consumer is slow or stopped")

        await self._stand_in_line(attempt, timeout, late)

    def try_send(self, data: ReadableBuffer, type_id: int = 0) -> bool:
        """As tachyon.Bus.try_send: no coroutine. False also while others wait for room."""
        self._check_open()
        if self._line and not self._forget_closed_loop():
            return False
        return self._sent(self.bus.try_send(data, type_id))

    def _sent(self, what: T) -> T:
        if self._receiver is not None:  # by this, it is the side that sends: who receives there learns it
            self._receiver.wake()
        return what

    async def send_many(self, items: Iterable[_Item], type_id: int = 0, *, timeout: float | None = None) -> int:
        """As tachyon.Bus.send_many, with a pass of the loop after 64 items.

        Cancelled, it has sent some of the items, each once and in order: stats()["messages"] tells how many.
        """
        chunks = Chunks(items)
        sent = 0

        def attempt() -> bool | None:
            nonlocal sent
            while chunk := chunks.next():
                try:
                    count = self.bus.send_many(chunk, type_id, timeout=0)
                except BusFullError as error:
                    sent += error.sent
                    chunks.taken(error.sent)
                    return None
                sent += self._sent(count)
                chunks.taken(count)
                if self._is_over():
                    return False
            return True

        def late() -> BusFullError:
            error = BusFullError(f"no room within the timeout, after {sent} items; the consumer is slow or stopped")
            error.sent = sent
            return error

        await self._rest()
        self._check_open()
        done = None if self._line else attempt()
        while done is not True:
            if done is None:
                done = await self._stand_in_line(attempt, timeout, late)
            else:
                await self._rest()
                self._check_open()
                done = None if self._line else attempt()
        return sent

    def send_zero_copy(self, size: int, type_id: int = 0, *, timeout: float | None = None) -> Opening[TxGuard]:
        """As tachyon.Bus.send_zero_copy: `async with bus.send_zero_copy(size) as guard`, or `with await …`."""
        return Opening(self._claim(size, type_id, timeout))

    async def _claim(self, size: int, type_id: int, timeout: float | None) -> TxGuard:
        def attempt() -> TxGuard | None:
            try:
                return self._sent(self.bus.send_zero_copy(size, type_id, timeout=0))
            except BusFullError:
                return None

        def late() -> BusFullError:
            return BusFullError(f"no room for {size} bytes within the timeout; the consumer is slow or stopped")

        return await self._once_there_is_room(attempt, timeout, late)

    def send_array(self, a: _Array, type_id: int = 0, *, timeout: float | None = None) -> Awaitable[None]:
        """As tachyon.Bus.send_array."""
        return self.send(_tachyon.ArrayPayload(a), type_id, timeout=timeout)

    def send_array_zero_copy(
        self, shape: _Shape, dtype: DTypeLike, type_id: int = 0, *, timeout: float | None = None
    ) -> Opening[ArrayGuard]:
        """As tachyon.Bus.send_array_zero_copy: `with await bus.send_array_zero_copy(shape, dtype) as array`."""

        def attempt() -> ArrayGuard | None:
            try:
                return self._sent(self.bus.send_array_zero_copy(shape, dtype, type_id, timeout=0))
            except BusFullError:
                return None

        def late() -> BusFullError:
            return BusFullError(f"no room for an array of {shape} within the timeout; the consumer is slow or stopped")

        return Opening(self._once_there_is_room(attempt, timeout, late))

    def send_obj(
        self,
        o: Any,
        type_id: int = 0,
        *,
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        timeout: float | None = None,
    ) -> Awaitable[None]:
        """As tachyon.Bus.send_obj; encoded at once, with a copy more of what a pickle keeps apart."""
        return self.send(encode_obj(o, codec=codec, allow_pickle=allow_pickle), type_id, timeout=timeout)

    async def _once_there_is_room(
        self, attempt: Callable[[], T | None], timeout: float | None, late: Callable[[], BusFullError]
    ) -> T:
        await self._rest()
        self._check_open()
        guard = None if self._line else attempt()
        return guard if guard is not None else await self._stand_in_line(attempt, timeout, late)

    async def wait_read(self, *, timeout: float | None = None) -> None:
        """As tachyon.Bus.wait_read."""
        await self._await_consumer(self.bus.wait_read, "read everything", timeout)

    async def finish(self, *, timeout: float | None = None) -> None:
        """As tachyon.Bus.finish: end the stream, wait until the consumer has read it and left, then close."""
        await self._await_consumer(self.bus.finish, "read everything and closed", timeout)
        self.close()

    async def _await_consumer(self, look: Callable[..., None], wanted: str, timeout: float | None) -> None:
        def attempt() -> bool | None:
            try:
                look(timeout=0)
            except TachyonTimeoutError:
                return None
            return True

        def late() -> TachyonTimeoutError:
            return TachyonTimeoutError(f"the consumer has not {wanted} within the timeout")

        await self._stand_in_line(attempt, timeout, late)

    # ---- receiving: recv() and iteration are in _AsyncBus ----

    async def _recv_slowly(self, timeout: float | None) -> Message:
        return await self._receive(self.bus.try_recv, timeout)

    async def _next_slowly(self) -> Message:
        try:
            return await self._receive(self.bus.try_recv, None)
        except PeerClosedError:
            raise StopAsyncIteration from None

    def try_recv(self) -> Message | None:
        """As tachyon.Bus.try_recv: no coroutine."""
        self._check_alone()
        return self.bus.try_recv()

    async def recv_into(self, buffer: WriteableBuffer, *, timeout: float | None = None) -> tuple[int, int]:
        """As tachyon.Bus.recv_into."""
        received: tuple[int, int] = await self._take(lambda: self.bus.recv_into(buffer, timeout=0), timeout)
        return received

    def recv_zero_copy(self, *, timeout: float | None = None) -> Opening[RxGuard]:
        """As tachyon.Bus.recv_zero_copy: `async with bus.recv_zero_copy() as guard`, or `with await …`."""
        return Opening(self._take(lambda: self.bus.recv_zero_copy(timeout=0), timeout))

    async def recv_array(self, out: Any = None, *, timeout: float | None = None) -> Any:
        """As tachyon.Bus.recv_array."""
        return await self._take(lambda: self.bus.recv_array(out, timeout=0), timeout)

    def recv_array_zero_copy(self, *, timeout: float | None = None) -> Opening[ArrayGuard]:
        """As tachyon.Bus.recv_array_zero_copy: `with await bus.recv_array_zero_copy() as array`."""
        return Opening(self._take(lambda: self.bus.recv_array_zero_copy(timeout=0), timeout))

    async def recv_obj(
        self,
        *,
        type: Any = None,
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """As tachyon.Bus.recv_obj."""

        def take() -> tuple[Any]:  # None is an object too
            return (self.bus.recv_obj(type=type, codec=codec, allow_pickle=allow_pickle, timeout=0),)

        return (await self._take(take, timeout))[0]

    def drain_batch(self, max_msgs: int = 1024, *, timeout: float | None = None) -> Opening[RxBatchGuard]:
        """As tachyon.Bus.drain_batch: `async with bus.drain_batch() as batch`, or `with await …`."""
        return Opening(self._take(lambda: self.bus.drain_batch(max_msgs, 0, timeout=0), timeout))

    def batches(self, max_msgs: int = 64) -> Batches:
        """`async for batch in bus.batches(64)`: what is there, up to so many messages at a time, in place.

        A batch is freed when the next one is asked for, or before by batch.release(). The end is as that of iteration.
        """
        return Batches(self, max_msgs)

    async def _take(self, take: Callable[[], Any], timeout: float | None) -> Any:
        def attempt() -> Any:
            try:
                return take()
            except BusEmptyError:
                return None

        self._check_alone()
        await self._rest()
        self._check_alone()
        got = attempt()
        return got if got is not None else await self._receive(attempt, timeout)

    # ---- the rest ----

    async def flush(self) -> None:
        """As tachyon.Bus.flush, and a pass of the loop."""
        self._check_open()
        self.bus.flush()
        await _tachyon.Pass()

    def stats(self) -> _Stats:
        """As tachyon.Bus.stats."""
        return self.bus.stats()

    @property
    def capacity(self) -> int:
        """Bytes of ring."""
        return self.bus.capacity

    @property
    def max_message_size(self) -> int:
        """Largest message in bytes that goes through the ring."""
        return self.bus.max_message_size

    @property
    def max_large_size(self) -> int:
        """Largest message in bytes at all, as tachyon.Bus.max_large_size."""
        return self.bus.max_large_size


class Chunks:
    """The items of send_many, some at a time."""

    def __init__(self, items: Iterable[_Item]) -> None:
        """Begin with the first."""
        self._rest: Iterator[_Item] | None = None
        self._items: list[_Item] | tuple[_Item, ...]
        if isinstance(items, (list, tuple)):
            self._items = items
        else:
            self._items, self._rest = [], iter(items)
        self._at = 0

    def next(self) -> list[_Item] | tuple[_Item, ...]:
        """Return some that have not been taken, or none."""
        if self._rest is not None and self._at >= len(self._items):
            # One by one, as they may take their time to come.
            self._items, self._at = list(next_of(self._rest)), 0
        return self._items[self._at : self._at + _CHUNK]

    def taken(self, count: int) -> None:
        """So many have been sent."""
        self._at += count


def next_of(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the next one, if there is one."""
    for item in items:
        yield item
        return


class Batches:
    """What Bus.batches returns."""

    def __init__(self, bus: Bus, most: int) -> None:
        """Begin with what is there."""
        self._bus = bus
        self._most = most
        self._batch: RxBatchGuard | None = None

    def __aiter__(self) -> Batches:
        """Return itself."""
        return self

    async def __anext__(self) -> RxBatchGuard:
        """Free the last batch, and wait for the next."""
        await self.aclose()
        try:
            self._batch = await self._bus.drain_batch(self._most)
        except PeerClosedError:
            raise StopAsyncIteration from None
        return self._batch

    async def aclose(self) -> None:
        """Free the last batch. BufferError if a view of it is alive."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.release()
