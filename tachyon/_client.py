"""A caller that finds its server again: RpcClient."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tachyon._errors import BusClosedError, PeerDeadError, TachyonTimeoutError
from tachyon._tachyon import RpcBus, RxGuard, call_and_wait, last_call, peer_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Buffer

_LEAST_PAUSE = 0.01  # seconds before the second connection that brings no answer; doubled for each further one
_MOST_PAUSE = 1.0


class _Caller(Protocol):
    def cancel(self, correlation_id: int) -> bool: ...
    def close(self) -> None: ...


Way = TypeVar("Way", bound=_Caller)


@dataclass(frozen=True)
class Link(Generic[Way]):
    """One connection."""

    way: Way  # what calls go by
    bus: RpcBus  # the same, or what it is made of
    base: int  # ids of a connection go on behind those of the one before


class Links(Generic[Way]):
    """The connection of a client and the one before, whose answers may still be asked for."""

    def __init__(self, path: Any) -> None:
        """None yet."""
        self.path = path
        self.closed = False
        self._now: Link[Way] | None = None
        self._former: Link[Way] | None = None
        self._base = 0
        self._pause = 0.0

    def get(self) -> Link[Way] | None:
        """Return the connection, if its server is there as far as is known."""
        self.check_open()
        return self._now if self._now is not None and not peer_is_gone(self._now.bus) else None

    def add(self, way: Way, bus: RpcBus) -> Link[Way]:
        """Have a new one, in the place of the one that retire() put aside."""
        self._now = Link(way, bus, self._base)
        self._pause = min(_MOST_PAUSE, max(_LEAST_PAUSE, 2 * self._pause))  # unless an answer comes
        if self.closed:
            way.close()
        return self._now

    def retire(self) -> float:
        """Put a connection that is lost aside. Returns for how many seconds to leave the next server in peace.

        0 if this one brought an answer: servers that end again and again are not to be kept busy by this.
        """
        if self._now is not None:
            if self._former is not None:
                self._former.way.close()
            # In this order: find() may look in another thread meanwhile.
            self._base += last_call(self._now.bus)
            self._former, self._now = self._now, None
            stats = {} if self._former.bus.closed else self._former.bus.stats()
            if not (stats.get("in_flight") or stats.get("set_aside")):
                self._former.way.close()
        return self._pause * random.uniform(0.5, 1.0)

    def answered(self) -> None:
        """Note that this server answers."""
        self._pause = 0.0

    def find(self, correlation_id: int) -> tuple[Way, int]:
        """Return what a call was sent by, and its id there."""
        self.check_open()
        now = self._now
        if now is not None and correlation_id > now.base:
            return now.way, correlation_id - now.base
        former = self._former
        if not 0 < correlation_id <= self._base:
            raise ValueError(f"there is no such call: {correlation_id} was never issued")
        if former is not None and correlation_id > former.base and not former.bus.closed:
            return former.way, correlation_id - former.base
        raise self.lost()

    def cancel(self, correlation_id: int) -> bool:
        """Give up a call. False if there is nothing to give up."""
        try:
            way, number = self.find(correlation_id)
        except (PeerDeadError, ValueError):
            return False
        return way.cancel(number)

    def lost(self) -> PeerDeadError:
        """Return what to say of a call whose connection has been closed, because others came after it."""
        self.check_open()
        return PeerDeadError(
            f"the connection to {self.path!r} that this call was made over is lost; whether it was served is not known"
        )

    def check_open(self) -> None:
        """Raise BusClosedError after close()."""
        if self.closed:
            raise BusClosedError(f"this RpcClient ({self.path!r}) is closed; make a new one")

    def close(self) -> list[Way]:
        """Have no more of them; returns those that there are, which are to be closed."""
        self.closed = True
        return [link.way for link in (self._now, self._former) if link is not None]


def end_of(timeout: float | None, most: float | None = None) -> float | None:
    """Return when it is over, on time.monotonic(); after `most` seconds at the latest. ValueError."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or a number of seconds that is not negative, not {timeout!r}")
    times = [each for each in (timeout, most) if each is not None]
    return time.monotonic() + min(*times, threading.TIMEOUT_MAX) if times else None


def left_until(end: float | None) -> float | None:
    """Return the timeout that is left."""
    return None if end is None else max(0.0, end - time.monotonic())


class RpcClient:
    """Calls whoever serves at a path, an RpcServer for instance, and connects again when that one has been restarted.

    Connects on first use. Before each call it looks whether the server is still there, and if not, connects to the next
    one. A call is sent once and never again. One that was in flight when its server went raises PeerDeadError
    (PeerClosedError: the server closed) unless its answer had come before; nobody knows whether it was served, and
    repeating it is up to the caller.

    A context manager. Threads: as RpcBus. A forked child gets a connection of its own. Not picklable.
    """

    def __init__(
        self,
        socket_path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        connect_timeout: float | None = 10.0,
        uid: int | None = None,
        max_capacity: int | None = 1 << 30,
        max_large: int = 1 << 30,
    ) -> None:
        """Do nothing yet.

        connect_timeout: seconds of its own timeout that a call waits at most for a server to appear and let it in;
        None: as long as that one allows. uid, max_capacity, max_large: as RpcBus.connect.
        """
        self.path = os.fspath(socket_path)
        end_of(connect_timeout)
        self._connect_timeout = connect_timeout
        self._options: dict[str, Any] = {"uid": uid, "max_capacity": max_capacity, "max_large": max_large}
        self._links: Links[RpcBus] = Links(self.path)
        self._own()

    def _own(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()

    # ---- the connection ----

    @property
    def connected(self) -> bool:
        """Is there a server at the other end, as far as is known?"""
        return not self.closed and self._pid == os.getpid() and self._links.get() is not None

    def _connected(self, end: float | None) -> Link[RpcBus]:
        if self._pid != os.getpid():  # another thread of the parent may have held it
            self._own()
        left = left_until(end)
        if not self._lock.acquire(timeout=-1 if left is None else left):
            raise TachyonTimeoutError(f"another thread is still connecting to {self.path!r}")
        try:
            link = self._links.get()
            if link is None:
                bus = self._connect(end_of(left_until(end), self._connect_timeout))
                link = self._links.add(bus, bus)
            return link
        finally:
            self._lock.release()

    def _connect(self, end: float | None) -> RpcBus:
        pause = self._links.retire()
        if end is not None and time.monotonic() + pause > end:
            time.sleep(max(0.0, end - time.monotonic()))
            raise TachyonTimeoutError(
                f"not connected to {self.path!r} again within the timeout; the last connection brought no answer"
            )
        time.sleep(pause)
        return RpcBus.connect(self.path, timeout=left_until(end), **self._options)

    # ---- calls ----

    def call(self, data: Buffer, msg_type: int, *, timeout: float | None = None) -> int:
        """Connect if necessary, send a request, and return its id, for wait(). `timeout` (seconds) is for both.

        Raises as RpcBus.connect and RpcBus.call. After a PeerClosedError of this method the request was not sent; after
        any other PeerDeadError that is not known.
        """
        end = end_of(timeout)
        link = self._connected(end)
        return link.base + link.way.call(data, msg_type, timeout=left_until(end))

    def wait(self, correlation_id: int, *, timeout: float | None = None) -> RxGuard:
        """Wait for the reply to a call. As RpcBus.wait; the guard knows the id that the call has in its connection."""
        bus, number = self._links.find(correlation_id)
        try:
            guard = bus.wait(number, timeout=timeout)
        except BusClosedError:
            raise self._links.lost() from None
        self._links.answered()
        return guard

    def cancel(self, correlation_id: int) -> bool:
        """Give up a call: its reply will be dropped when it comes. False if there is nothing to give up."""
        return self._links.cancel(correlation_id)

    def _call_and_wait(
        self, data: Buffer, msg_type: int, timeout: float | None, on_response: Callable[[memoryview], Any] | None
    ) -> Any:
        """For RpcEndpoint.call."""
        end = end_of(timeout)
        link = self._connected(end)
        answer = call_and_wait(link.way, data, msg_type, left_until(end), on_response)
        self._links.answered()
        return answer

    # ---- the end ----

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._links.closed

    def close(self) -> None:
        """Close the connection, for good. Idempotent; allowed from any thread, and ends a wait with BusClosedError."""
        for bus in self._links.close():
            bus.close()

    def __enter__(self) -> RpcClient:
        """Return the client. This does not connect."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; an exception aborts the connection, as with RpcBus."""
        for bus in self._links.close():
            bus.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        """Name the path, and whether it is connected."""
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return f"<tachyon.RpcClient {self.path!r} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse."""
        raise TypeError("an RpcClient cannot be pickled or copied; make one with the same path in each process")
