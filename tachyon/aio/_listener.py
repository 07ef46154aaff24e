"""Listener, RpcListener: many peers at one path, in an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tachyon import _tachyon
from tachyon._errors import BusBusyError, BusClosedError, TachyonTimeoutError
from tachyon._tachyon import _OWNER_ONLY, Pass
from tachyon.aio._bus import Bus
from tachyon.aio._open import open_in_thread
from tachyon.aio._rpc import RpcBus
from tachyon.aio._watch import Place, deadline_of

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tachyon._tachyon import _Path

B = TypeVar("B", Bus, RpcBus)
_QUICK = 4 << 20  # bytes of memory that may be reserved for a client without a thread: a millisecond or two


class _Listener(Generic[B]):
    """What both have in common. One task at a time accepts."""

    def __init__(self, listener: Any, wrap: type[B], reserves: int) -> None:
        """Listen from now on."""
        self.listener = listener
        self._wrap: type[B] = wrap
        self._slow = reserves > _QUICK
        self._place: Place | None = None
        self._accepting: asyncio.Task[Any] | None = None
        self._closing = False

    async def accept(self, *, timeout: float | None = None) -> B:
        """Wait for the next peer. Cancelled, no peer is lost: the next accept() gets it."""
        self._check()
        if self._place is not None:
            raise BusBusyError("another task accepts with this listener; one at a time may")
        loop = asyncio.get_running_loop()
        deadline = deadline_of(loop, timeout)
        self._place = Place()
        in_time = timeout is None or timeout > 0
        try:
            while True:
                bus = await self._try_in_thread() if self._slow else self.listener.try_accept()
                if bus is not None:
                    return self._wrap(bus)
                if not in_time:
                    raise TachyonTimeoutError(f"nobody connected to {self.path!r} within the timeout")
                if self.listener.arm():
                    in_time = await self._wait(loop, self._place, deadline)
                else:
                    await Pass()
                self._check()
        finally:
            self._place = None

    async def _wait(self, loop: asyncio.AbstractEventLoop, place: Place, deadline: float | None) -> bool:
        descriptor = self.listener.fileno()
        place.future = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, place.wake, False)
        loop.add_reader(descriptor, place.wake)
        try:
            return await place.future
        finally:
            if not loop.is_closed():
                loop.remove_reader(descriptor)
            place.future = None
            if timer is not None:
                timer.cancel()

    # To reserve a large ring takes up to a second. Whoever is cancelled meanwhile leaves what comes of it to the next.
    async def _try_in_thread(self) -> Any:
        accepting = self._accepting
        if accepting is None or ended_with_its_loop(accepting):
            accepting = self._accepting = asyncio.ensure_future(open_in_thread(self._try))
        if not accepting.done():
            await asyncio.wait([accepting])
        self._accepting = None
        return accepting.result().bus

    def _try(self) -> Accepted:
        return Accepted(self.listener.try_accept())

    def try_accept(self) -> B | None:
        """Return the next peer if one is there now, else None: no coroutine. A large ring is reserved on the spot."""
        self._check()
        accepting = self._accepting
        if self._place is not None or (accepting is not None and not accepting.done()):
            return None
        self._accepting = None
        bus = None
        if accepting is not None and not accepting.cancelled():  # of an accept() that was cancelled
            bus = accepting.result().bus
        if bus is None:
            bus = self.listener.try_accept()
        return None if bus is None else self._wrap(bus)

    def _check(self) -> None:
        if self._closing:
            raise BusClosedError(f"this listener ({self.path!r}) is closed; make a new one")

    def __aiter__(self) -> Self:
        """Return itself."""
        self._check()
        return self

    async def __anext__(self) -> B:
        """Accept."""
        return await self.accept()

    @property
    def path(self) -> _Path:
        """The socket path, as given."""
        path: _Path = self.listener.path
        return path

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
        return self._closing or bool(self.listener.closed)

    def close(self) -> None:
        """Stop listening and remove the socket file; a pass of the loop later, if a task accepts, which gets
        BusClosedError. In the loop's thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        accepting = self._accepting
        if accepting is not None and accepting.done():
            drop(accepting)
        elif accepting is not None and not accepting.get_loop().is_closed():
            accepting.add_done_callback(drop)
        if self._place is not None and self._place.future is not None:
            loop = self._place.future.get_loop()
            self._place.wake()
            loop.remove_reader(self.listener.fileno())
            loop.call_soon(self.listener.close)
        else:
            self.listener.close()

    async def __aenter__(self) -> Self:
        """Return the listener."""
        self._check()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
        await Pass()

    def __repr__(self) -> str:
        """Name the listener beneath."""
        return repr(self.listener).replace("<tachyon.", "<tachyon.aio.", 1)


class Accepted:
    """What a thread has accepted: a bus, or nobody."""

    def __init__(self, bus: Any) -> None:
        """Hold it."""
        self.bus = bus

    def close(self) -> None:
        """Drop it."""
        if self.bus is not None:
            self.bus.close()


def ended_with_its_loop(accepting: asyncio.Task[Any]) -> bool:
    """Will it bring nothing, because the loop that it ran in has ended?"""
    return accepting.cancelled() or (not accepting.done() and accepting.get_loop().is_closed())


def drop(accepting: asyncio.Task[Any]) -> None:
    """Nobody will ask for it."""
    if not accepting.cancelled() and accepting.exception() is None:
        accepting.result().close()


class Listener(_Listener[Bus]):
    """Many buses at one path: tachyon.Listener for an event loop. `async for bus in listener`, or accept()."""

    def __init__(self, socket_path: _Path, capacity: int, *, mode: int = _OWNER_ONLY, max_large: int = 1 << 30) -> None:
        """Reserve the memory for the first peer, and listen: at once, not in a coroutine."""
        super().__init__(_tachyon.Listener(socket_path, capacity, mode=mode, max_large=max_large), Bus, capacity)


class RpcListener(_Listener[RpcBus]):
    """Many callers at one path: tachyon.RpcListener for an event loop. RpcServer serves them."""

    def __init__(
        self,
        socket_path: _Path,
        cap_fwd: int = 1 << 20,
        cap_rev: int = 1 << 20,
        *,
        mode: int = _OWNER_ONLY,
        max_large: int = 1 << 30,
    ) -> None:
        """Reserve the memory for the first caller, and listen: at once, not in a coroutine."""
        super().__init__(
            _tachyon.RpcListener(socket_path, cap_fwd, cap_rev, mode=mode, max_large=max_large),
            RpcBus,
            cap_fwd + cap_rev,
        )
