"""RpcBus: calls and replies, in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tachyon import _tachyon
from tachyon._errors import BusBusyError, BusEmptyError, BusFullError, TachyonError
from tachyon._tachyon import _OWNER_ONLY, _Turn, take_replies
from tachyon.aio._open import open_in_thread
from tachyon.aio._watch import Opening, Place, Watched, deadline_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from tachyon._tachyon import Message, RxGuard, TxGuard, _Path

_REPLIES_AT_ONCE = 64  # between passes of the loop


class RpcBus(_Turn, Watched):
    """Calls and replies between two processes: tachyon.RpcBus for an event loop. An async context manager.

    Made by `await RpcBus.listen(…)` and `await RpcBus.connect(…)`, or around a tachyon.RpcBus: RpcBus(bus).

    Any number of tasks may call, wait and reply at once; one at a time serves. `await bus.request(…)`, or
    `await endpoint.acall(bus, …)`, is a call and its answer in one: cancelling it gives up that call and no other.
    """

    bus: _tachyon.RpcBus

    def __init__(self, bus: _tachyon.RpcBus) -> None:
        """Wrap a bus that is open. It is used by nobody else from now on, and closed by this."""
        self.bus = bus
        self._calls = bus.stats()["role"] == "caller"
        self._receiver: Place | None = None
        self._line: list[Place] = []
        self._wanted: dict[int, asyncio.Future[Message | None]] = {}  # id: who gets the reply itself
        self._watched: dict[int, asyncio.Future[Message | None]] = {}  # id: who is told that it is there
        self._looks = 0  # for replies, since the last one came; 0 also: nobody looks
        self._looking: asyncio.Handle | None = None

    @staticmethod
    async def listen(
        socket_path: _Path,
        cap_fwd: int = 1 << 20,
        cap_rev: int = 1 << 20,
        *,
        timeout: float | None = None,
        mode: int = _OWNER_ONLY,
        max_large: int = 1 << 30,
    ) -> RpcBus:
        """As tachyon.RpcBus.listen, in a thread of its own. Cancelled, it leaves nothing behind."""
        return RpcBus(
            await open_in_thread(
                _tachyon.RpcBus.listen, socket_path, cap_fwd, cap_rev, timeout=timeout, mode=mode, max_large=max_large
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
    ) -> RpcBus:
        """As tachyon.RpcBus.connect, in a thread of its own. Cancelled, it leaves nothing behind."""
        return RpcBus(
            await open_in_thread(
                _tachyon.RpcBus.connect,
                socket_path,
                timeout=timeout,
                uid=uid,
                max_capacity=max_capacity,
                max_large=max_large,
            )
        )

    # ---- the caller ----

    async def call(self, data: ReadableBuffer, msg_type: int, *, timeout: float | None = None) -> int:
        """As tachyon.RpcBus.call: send a request and return its id, for wait(). Cancelled, nothing has been sent."""

        def attempt() -> int | None:
            try:
                return self.bus.call(data, msg_type, timeout=0)
            except BusFullError:
                return None

        sent: int = await self._send(attempt, timeout)
        return sent

    def call_zero_copy(self, size: int, msg_type: int, *, timeout: float | None = None) -> Opening[TxGuard]:
        """As tachyon.RpcBus.call_zero_copy: `async with bus.call_zero_copy(size, 7) as guard`."""

        def attempt() -> TxGuard | None:
            try:
                return self.bus.call_zero_copy(size, msg_type, timeout=0)
            except BusFullError:
                return None

        return Opening(self._send(attempt, timeout))

    def wait(self, correlation_id: int, *, timeout: float | None = None) -> Opening[RxGuard]:
        """As tachyon.RpcBus.wait: `async with bus.wait(id) as reply`. Cancelled, the reply can still be waited for."""
        return Opening(self._wait_for(correlation_id, timeout))

    async def _wait_for(self, correlation_id: int, timeout: float | None) -> RxGuard:
        await self._rest()
        self._check_open()
        if (correlation_id in self._watched or correlation_id in self._wanted) and not self._forget_closed_loop():
            raise BusBusyError(f"another task waits for the reply to call {correlation_id}")
        try:
            return self.bus.wait(correlation_id, timeout=0)
        except BusEmptyError:
            if timeout is not None and timeout <= 0:
                raise
        await self._come(self._watched, correlation_id, timeout)
        return self.bus.wait(correlation_id, timeout=0)

    async def request(self, data: ReadableBuffer, msg_type: int, *, timeout: float | None = None) -> Message:
        """Call, and return the reply as a Message with its own bytes. `timeout` is for both.

        Its type_id is MSG_TYPE_ERROR where the callee says that it failed: endpoint.acall raises RpcError for that.
        Cancelled, or out of time, the call is given up: its reply will be dropped. Otherwise raises as call and wait.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        correlation_id = await self.call(data, msg_type, timeout=timeout)
        try:
            if deadline is not None:
                timeout = max(0.0, deadline - asyncio.get_running_loop().time())
            reply = await self._come(self._wanted, correlation_id, timeout)
            if reply is not None:
                return reply
            with self.bus.wait(correlation_id, timeout=0) as guard, memoryview(guard) as view:
                return _tachyon.Message(guard.type_id, None, bytes(view))
        except BaseException:
            self.cancel(correlation_id)
            raise

    def cancel(self, correlation_id: int) -> bool:
        """As tachyon.RpcBus.cancel: no coroutine."""
        return not self.closed and self.bus.cancel(correlation_id)

    async def _come(
        self, waiters: dict[int, asyncio.Future[Message | None]], correlation_id: int, timeout: float | None
    ) -> Message | None:
        """Wait until the reply has come, the time is over, or the bus has ended. Returns the reply, if wanted."""
        loop = self._enter()
        future: asyncio.Future[Message | None] = loop.create_future()
        deadline = deadline_of(loop, timeout)
        timer = None if deadline is None else loop.call_at(deadline, resolve, future)
        waiters[correlation_id] = future
        self._look_soon()
        try:
            return await future
        finally:
            if waiters.get(correlation_id) is future:
                del waiters[correlation_id]
            if timer is not None:
                timer.cancel()
            self._begin()
            if self._closing:
                self._check_open()

    def _forget_closed_loop(self) -> bool:
        forgotten = super()._forget_closed_loop()
        if forgotten:
            self._looking = None
            self._wanted.clear()
            self._watched.clear()
        return forgotten

    # One look at the replies in each pass of the loop, while they come; one more; then the callee is asked to ring.
    def _look_soon(self) -> None:
        self._looks = 0
        if self._looking is None and self._loop is not None:
            self._looking = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = None
        if self._closing or self._loop is None:
            return
        try:
            count = take_replies(self.bus, self._wanted, self._watched, _REPLIES_AT_ONCE)
            if not self._wanted and not self._watched and not self._line:
                return
            self._looks = 0 if count else self._looks + 1
            if self._looks > 1 and self.bus.arm():
                return
        except (TachyonError, MemoryError):  # the end, or no memory for a reply: each of them asks for itself
            self._wake_waiters()
            return
        self._looking = self._loop.call_soon(self._look)

    def _wake_waiters(self) -> None:
        for waiters in (self._wanted, self._watched):
            for future in waiters.values():
                resolve(future)

    def _wake(self) -> None:
        super()._wake()
        if self._closing:
            self._wake_waiters()
        elif self._wanted or self._watched or (self._calls and self._line):
            self._look_soon()

    def _arm_for_room(self) -> bool:
        if self._calls:
            self._look_soon()  # the callee may be waiting for room for its replies
        return super()._arm_for_room()

    # ---- the callee ----

    def serve(self, *, timeout: float | None = None) -> Opening[RxGuard]:
        """As tachyon.RpcBus.serve: `async with bus.serve() as call`. One task at a time."""
        return Opening(self._serve(timeout))

    async def _serve(self, timeout: float | None) -> RxGuard:
        def attempt() -> RxGuard | None:
            try:
                return self.bus.serve(timeout=0)
            except BusEmptyError:
                return None

        await self._rest()
        self._check_open()
        if self._receiver is not None and not self._forget_closed_loop():
            raise BusBusyError("another task waits for a call of this bus; one at a time may")
        guard = attempt()
        return guard if guard is not None else await self._receive(attempt, timeout)

    async def reply(
        self, correlation_id: int, data: ReadableBuffer, msg_type: int = 0, *, timeout: float | None = None
    ) -> None:
        """As tachyon.RpcBus.reply. Cancelled, nothing has been sent."""

        def attempt() -> bool | None:
            try:
                self.bus.reply(correlation_id, data, msg_type, timeout=0)
            except BusFullError:
                return None
            return True

        await self._send(attempt, timeout)

    def reply_zero_copy(
        self, correlation_id: int, size: int, msg_type: int = 0, *, timeout: float | None = None
    ) -> Opening[TxGuard]:
        """As tachyon.RpcBus.reply_zero_copy: `async with bus.reply_zero_copy(id, size) as guard`."""

        def attempt() -> TxGuard | None:
            try:
                return self.bus.reply_zero_copy(correlation_id, size, msg_type, timeout=0)
            except BusFullError:
                return None

        return Opening(self._send(attempt, timeout))

    async def _send(self, attempt: Any, timeout: float | None) -> Any:
        await self._rest()
        self._check_open()
        got = None if self._line else attempt()
        return got if got is not None else await self._stand_in_line(attempt, timeout, late)

    # ---- either ----

    def stats(self) -> dict[str, Any]:
        """As tachyon.RpcBus.stats."""
        return self.bus.stats()

    @property
    def max_request_size(self) -> int:
        """Largest request in bytes."""
        return self.bus.max_request_size

    @property
    def max_reply_size(self) -> int:
        """Largest reply in bytes."""
        return self.bus.max_reply_size


def resolve(future: asyncio.Future[Message | None]) -> None:
    """Let somebody look for itself."""
    if not future.done():
        future.set_result(None)


def late() -> BusFullError:
    """Say that there was no room in time."""
    return BusFullError("no room within the timeout; the other side is slow or stopped")
