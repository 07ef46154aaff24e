"""A bus in an event loop: its descriptor, who waits for it, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tachyon._errors import BusBusyError, BusClosedError, BusEmptyError, TachyonError, TachyonTimeoutError
from tachyon._tachyon import Pass

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

T = TypeVar("T")


class Place:
    """Somebody who waits, as often as it takes."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        """Not waiting yet."""
        self.future: asyncio.Future[bool] | None = None

    def wake(self, in_time: bool = True) -> None:
        """End the wait, if there is one now, and its loop has not been closed."""
        if self.future is not None and not self.future.done() and not self.future.get_loop().is_closed():
            self.future.set_result(in_time)


class Waitable(Protocol):
    """What a Bus and an RpcBus have in common."""

    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...
    def arm(self, for_writing: object = False) -> bool: ...
    def disarm(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def __exit__(self, exc_type: Any, exc: Any, traceback: Any) -> None: ...


class Watched:
    """A bus whose descriptor the loop watches, from the first wait until its end.

    One thread: that of the loop; close() and abort() may come from any.
    """

    bus: Any
    _closing: bool
    _receiver: Place | None
    _line: list[Place]
    _loop: asyncio.AbstractEventLoop | None = None
    _descriptor = -1
    _watching = False

    def _begin(self) -> None:
        raise NotImplementedError  # that of _Turn comes first

    # ---- in the loop ----

    def _enter(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise BusBusyError(f"{self!r} belongs to another event loop; open one for each loop")
            self._forget_closed_loop()
            self._descriptor = self.bus.fileno()
            # Weakly: a bus that nobody has any more is not kept by the loop.
            loop.add_reader(self._descriptor, _ring, weakref.ref(self))
            self._loop, self._watching = loop, True
        return loop

    def _forget_closed_loop(self) -> bool:
        """Have nobody wait any more who waits in a loop that has been closed: those tasks never go on."""
        if self._loop is None or not self._loop.is_closed():
            return False
        self._receiver = None
        self._line.clear()
        return True

    def _leave(self) -> None:
        if self._watching and self._loop is not None:
            self._watching = False
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)

    def _on_ring(self) -> None:
        try:
            there: bool = self.bus.disarm()
        except TachyonError:  # whoever waits finds out
            there = False
        if not there:
            self._leave()  # it would ring for ever, and there is nothing more to hear
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None:
            self._receiver.wake()
        if self._line:
            self._line[0].wake()

    async def _wait(self, place: Place, deadline: float | None) -> bool:
        """Wait until somebody wakes this place. False: by the clock."""
        loop = asyncio.get_running_loop()
        place.future = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, place.wake, False)
        try:
            return await place.future
        finally:
            place.future = None
            if timer is not None:
                timer.cancel()
            self._begin()

    def _check_open(self) -> None:
        if self._closing:
            raise BusClosedError(f"{self!r} is closed; open a new one")

    # ---- waiting ----

    async def _receive(self, attempt: Callable[[], T | None], timeout: float | None) -> T:
        """Try until there is something; alone. What was taken is returned without another await."""
        self._check_open()
        loop = self._enter()
        if self._receiver is not None:
            raise BusBusyError("another task waits for a message of this bus; one at a time may")
        deadline = deadline_of(loop, timeout)
        place = self._receiver = Place()
        in_time = timeout is None or timeout > 0
        try:
            if in_time:
                await Pass()  # under load there is something by then, and nobody has to ring
            while True:
                self._check_open()
                got = attempt()
                if got is not None:
                    return got
                if not in_time:
                    raise BusEmptyError("no message within the timeout")
                if self.bus.arm():
                    in_time = await self._wait(place, deadline)
                else:
                    await Pass()
        finally:
            if self._receiver is place:
                self._receiver = None
            self._begin()

    async def _stand_in_line(
        self, attempt: Callable[[], T | None], timeout: float | None, late: Callable[[], TachyonTimeoutError]
    ) -> T:
        """Try until it is done, in the order in which tasks came. What was done is returned without another await."""
        self._check_open()
        loop = self._enter()
        deadline = deadline_of(loop, timeout)
        in_time = timeout is None or timeout > 0
        place = Place()
        self._line.append(place)
        try:
            if in_time and self._line[0] is place:
                await Pass()
            while True:
                self._check_open()
                first = self._line[0] is place
                got = attempt() if first else None
                if got is not None:
                    return got
                if not in_time:
                    raise late()
                if not first or self._arm_for_room():
                    in_time = await self._wait(place, deadline)
                else:
                    await Pass()
        finally:
            if place in self._line:  # not if its loop has been closed
                self._line.remove(place)
                if self._line:
                    self._line[0].wake()
            self._begin()

    def _arm_for_room(self) -> bool:
        armed: bool = self.bus.arm(True)
        return armed

    # ---- the end ----

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
        return self._closing or bool(self.bus.closed)

    @property
    def peer_pid(self) -> int:
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
        pid: int = self.bus.peer_pid
        return pid

    def close(self) -> None:
        """Tell the peer that nothing more will come, and let go, a pass of the loop later. Idempotent; from any thread.

        Whoever waits gets BusClosedError.
        """
        self._end(self.bus.close)

    def abort(self) -> None:
        """Give up: as close(), but the peer gets PeerDeadError, whose `reason` is "aborted"."""
        self._end(self.bus.abort)

    def _end(self, how: Callable[[], None]) -> None:
        loop = self._loop
        if loop is None or not loop.is_running():
            self._end_in_loop(None, how)
        elif running_loop() is loop:
            self._end_in_loop(loop, how)
        else:
            with contextlib.suppress(RuntimeError):  # it has been closed just now
                loop.call_soon_threadsafe(self._end_in_loop, loop, how)

    def _end_in_loop(self, loop: asyncio.AbstractEventLoop | None, how: Callable[[], None]) -> None:
        if self._closing:
            if loop is None:  # the loop has been stopped before its next pass
                how()
            return
        self._closing = True
        self._leave()
        if loop is None:
            how()
        else:
            loop.call_soon(how)  # not before the loop has forgotten the descriptor
        if self._loop is not None and not self._loop.is_closed():
            self._wake()

    async def __aenter__(self) -> Self:
        """Return the bus."""
        if self.closed:
            raise BusClosedError(f"{self!r} is closed; open a new one")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; abort if an exception ends the block, and a cancellation is one."""
        self._end(functools.partial(self.bus.__exit__, exc_type, exc, None))
        await Pass()

    def __del__(self) -> None:
        """Take a forgotten bus out of its loop, and close it."""
        bus = getattr(self, "bus", None)  # none if it was never made
        if self._closing or bus is None or bus.closed:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        loop = self._loop
        if not self._watching or loop is None or loop.is_closed():
            bus.close()
        elif running_loop() is loop or not loop.is_running():
            loop.remove_reader(self._descriptor)
            loop.call_soon(self.bus.close)
        else:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_let_go, loop, self._descriptor, self.bus)

    def __repr__(self) -> str:
        """Name the bus beneath."""
        return repr(self.bus).replace("<tachyon.", "<tachyon.aio.", 1)


def _ring(watched: weakref.ref[Watched]) -> None:
    if (bus := watched()) is not None:
        bus._on_ring()


def _let_go(loop: asyncio.AbstractEventLoop, descriptor: int, bus: Waitable) -> None:
    loop.remove_reader(descriptor)
    loop.call_soon(bus.close)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def deadline_of(loop: asyncio.AbstractEventLoop, timeout: float | None) -> float | None:
    """Return when a timeout in seconds is over, on the clock of the loop."""
    return None if timeout is None else loop.time() + float(timeout)


class Guard(Protocol):
    """What is left by a `with` block."""

    def __enter__(self) -> Any: ...
    def __exit__(self, exc_type: Any, exc: Any, traceback: Any) -> None: ...


G = TypeVar("G", bound=Guard)


class Opening(Coroutine[Any, Any, G], Generic[G]):
    """A guard to come: `async with bus.recv_zero_copy() as guard`, or `with await bus.recv_zero_copy() as guard`."""

    __slots__ = ("_coroutine", "_guard")

    def __init__(self, coroutine: Coroutine[Any, Any, G]) -> None:
        """Wrap the coroutine that returns it."""
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, G]:
        """Wait for it."""
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """As every coroutine has it."""
        return self._coroutine.send(value)

    def throw(self, *raised: Any) -> Any:
        """As every coroutine has it."""
        return self._coroutine.throw(*raised)

    def close(self) -> None:
        """As every coroutine has it."""
        self._coroutine.close()

    async def __aenter__(self) -> G:
        """Wait for the guard, and enter its block."""
        self._guard = await self._coroutine
        self._guard.__enter__()
        return self._guard

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave its block."""
        self._guard.__exit__(exc_type, exc, traceback)
