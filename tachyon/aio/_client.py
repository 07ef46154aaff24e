"""RpcClient: a caller that finds its server again, in an event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from tachyon._client import Links, end_of, left_until
from tachyon._errors import BusClosedError, TachyonTimeoutError
from tachyon.aio._rpc import RpcBus
from tachyon.aio._watch import Opening

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed import ReadableBuffer

    from tachyon._client import Link
    from tachyon._tachyon import Message, RxGuard, _Path


class RpcClient:
    """Calls whoever serves at a path, and connects again when that one has been restarted: tachyon.RpcClient.

    Any number of tasks of one loop may call and wait at once; they share one connection, and one attempt to connect.
    `await endpoint.acall(client, …)` works as with an RpcBus. An async context manager.
    """

    def __init__(
        self,
        socket_path: _Path,
        *,
        connect_timeout: float | None = 10.0,
        uid: int | None = None,
        max_capacity: int | None = 1 << 30,
        max_large: int = 1 << 30,
    ) -> None:
        """Do nothing yet. As tachyon.RpcClient."""
        self.path = os.fspath(socket_path)
        end_of(connect_timeout)
        self._connect_timeout = connect_timeout
        self._options: dict[str, Any] = {"uid": uid, "max_capacity": max_capacity, "max_large": max_large}
        self._links: Links[RpcBus] = Links(self.path)
        self._connecting: asyncio.Task[Link[RpcBus]] | None = None

    # ---- the connection ----

    @property
    def connected(self) -> bool:
        """Is there a server at the other end, as far as is known?"""
        return not self.closed and self._links.get() is not None

    async def _connected(self, end: float | None) -> Link[RpcBus]:
        link = self._links.get()
        if link is not None:
            return link
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
            self._connecting.add_done_callback(self._done_connecting)
        connecting = self._connecting
        await asyncio.wait([connecting], timeout=left_until(end))  # who is cancelled leaves it to the others
        if not connecting.done():
            raise TachyonTimeoutError(f"not connected to {self.path!r} within the timeout")
        if connecting.cancelled():
            raise BusClosedError(f"this RpcClient ({self.path!r}) is closed; make a new one")
        return connecting.result()

    async def _connect(self) -> Link[RpcBus]:
        end = end_of(None, self._connect_timeout)
        await asyncio.sleep(self._links.retire())
        bus = await RpcBus.connect(self.path, timeout=left_until(end), **self._options)
        return self._links.add(bus, bus.bus)

    def _done_connecting(self, task: asyncio.Task[Link[RpcBus]]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # nobody may be there any more to ask for it

    # ---- calls ----

    async def call(self, data: ReadableBuffer, msg_type: int, *, timeout: float | None = None) -> int:
        """As tachyon.RpcClient.call: connect if necessary, send a request, return its id. Cancelled, none was sent."""
        end = end_of(timeout)
        link = await self._connected(end)
        try:
            return link.base + await link.way.call(data, msg_type, timeout=left_until(end))
        except BusClosedError:
            raise self._links.lost() from None

    def wait(self, correlation_id: int, *, timeout: float | None = None) -> Opening[RxGuard]:
        """As tachyon.RpcClient.wait: `async with client.wait(id) as reply`. Cancelled, it can still be waited for."""
        return Opening(self._wait_for(correlation_id, timeout))

    async def _wait_for(self, correlation_id: int, timeout: float | None) -> RxGuard:
        bus, number = self._links.find(correlation_id)
        try:
            guard = await bus.wait(number, timeout=timeout)
        except BusClosedError:
            raise self._links.lost() from None
        self._links.answered()
        return guard

    async def request(self, data: ReadableBuffer, msg_type: int, *, timeout: float | None = None) -> Message:
        """As RpcBus.request, connecting first where necessary."""
        end = end_of(timeout)
        link = await self._connected(end)
        try:
            answer = await link.way.request(data, msg_type, timeout=left_until(end))
        except BusClosedError:
            raise self._links.lost() from None
        self._links.answered()
        return answer

    def cancel(self, correlation_id: int) -> bool:
        """Give up a call: no coroutine. False if there is nothing to give up."""
        return self._links.cancel(correlation_id)

    # ---- the end ----

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._links.closed

    def close(self) -> None:
        """Close the connection, for good: no coroutine. Who waits gets BusClosedError. Idempotent."""
        if self._connecting is not None:
            self._connecting.cancel()
        for bus in self._links.close():
            bus.close()

    async def __aenter__(self) -> RpcClient:
        """Return the client. This does not connect."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; an exception aborts the connection, as with RpcBus."""
        if self._connecting is not None:
            self._connecting.cancel()
        for bus in self._links.close():
            await bus.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        """Name the path, and whether it is connected."""
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return f"<tachyon.aio.RpcClient {self.path!r} {state}>"
