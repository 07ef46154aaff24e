"""A caller that finds its server again: RpcClient."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from tachyon._errors import BusClosedError, PeerDeadError, TachyonTimeoutError
from tachyon._tachyon import RpcBus, RxGuard, call_and_wait, last_call, peer_is_gone

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Buffer

_LEAST_PAUSE = 0.01  # seconds before the second connection that brings no answer; doubled for each further one
_MOST_PAUSE = 1.0


def _end_of(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or a number of seconds that is not negative, not {timeout!r}")
    return time.monotonic() + min(timeout, threading.TIMEOUT_MAX)


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
    ) -> None:
        """Do nothing yet.

        connect_timeout: seconds of its own timeout that a call waits at most for a server to appear and let it in;
        None: as long as that one allows. uid, max_capacity: as RpcBus.connect.
        """
        self.path = os.fspath(socket_path)
        _end_of(connect_timeout)
        self._connect_timeout = connect_timeout
        self._options: dict[str, Any] = {"uid": uid, "max_capacity": max_capacity}
        self._bus: RpcBus | None = None
        self._former: RpcBus | None = None  # the one before, while answers of it may be asked for
        self._base = self._former_base = self._last = 0  # ids of a connection go on behind those of the one before
        self._pause = 0.0
        self._closed = False
        self._own()

    def _own(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()

    # ---- the connection ----

    @property
    def connected(self) -> bool:
        """Is there a server at the other end, as far as is known?"""
        bus = self._bus
        return bus is not None and self._pid == os.getpid() and not peer_is_gone(bus)

    def _connected(self, until: float | None) -> RpcBus:
        if self._pid != os.getpid():  # another thread of the parent may have held it
            self._own()
        if not self._lock.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
            raise TachyonTimeoutError(f"another thread is still connecting to {self.path!r}")
        try:
            self._check_open()
            if self._bus is not None and not peer_is_gone(self._bus):
                return self._bus
            self._retire()
            if self._connect_timeout is not None:
                latest = time.monotonic() + min(self._connect_timeout, threading.TIMEOUT_MAX)
                until = latest if until is None else min(until, latest)
            self._rest(until)
            self._pause = min(_MOST_PAUSE, max(_LEAST_PAUSE, 2 * self._pause))  # until an answer comes
            left = None if until is None else max(0.0, until - time.monotonic())
            self._bus = RpcBus.connect(self.path, timeout=left, **self._options)
            if self._closed:
                self._bus.close()
            return self._bus
        finally:
            self._lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise BusClosedError(f"this RpcClient ({self.path!r}) is closed; make a new one")

    def _retire(self) -> None:
        """Put a connection that is lost aside: what it was answered may still be asked for."""
        lost, self._bus = self._bus, None
        if lost is None:
            return
        if self._former is not None:
            self._former.close()
        self._former, self._former_base, self._base = lost, self._base, self._last
        if lost.closed or not (lost.stats()["in_flight"] or lost.stats()["set_aside"]):
            lost.close()

    def _rest(self, until: float | None) -> None:
        """Leave a server that ends again and again in peace for a while: after connections that brought no answer."""
        pause = self._pause * random.uniform(0.5, 1.0)
        if until is not None and time.monotonic() + pause > until:
            time.sleep(max(0.0, until - time.monotonic()))
            raise TachyonTimeoutError(
                f"not connected to {self.path!r} again within the timeout; the last connection was lost"
            )
        time.sleep(pause)

    # ---- calls ----

    def call(self, data: Buffer, msg_type: int, *, timeout: float | None = None) -> int:
        """Connect if necessary, send a request, and return its id, for wait(). `timeout` (seconds) is for both.

        Raises as RpcBus.connect and RpcBus.call. After a PeerClosedError of this method the request was not sent; after
        any other PeerDeadError that is not known.
        """
        until = _end_of(timeout)
        bus = self._connected(until)
        left = None if until is None else max(0.0, until - time.monotonic())
        self._last = self._base + bus.call(data, msg_type, timeout=left)
        return self._last

    def _find(self, correlation_id: int) -> tuple[RpcBus, int]:
        """Return the connection that a call was sent over, and its id there."""
        self._check_open()
        if correlation_id > self._base and self._bus is not None:
            return self._bus, correlation_id - self._base
        if 0 < correlation_id <= self._last:
            if correlation_id > self._former_base and self._former is not None and not self._former.closed:
                return self._former, correlation_id - self._former_base
            raise PeerDeadError(
                f"the connection to {self.path!r} that call {correlation_id} was sent over is lost; "
                "whether it was served is not known"
            )
        raise ValueError(f"there is no call {correlation_id}")

    def wait(self, correlation_id: int, *, timeout: float | None = None) -> RxGuard:
        """Wait for the reply to a call. As RpcBus.wait; the guard knows the id that the call has in its connection."""
        bus, number = self._find(correlation_id)
        guard = bus.wait(number, timeout=timeout)
        self._pause = 0.0
        return guard

    def cancel(self, correlation_id: int) -> bool:
        """Give up a call: its reply will be dropped when it comes. False if there is nothing to give up."""
        try:
            bus, number = self._find(correlation_id)
        except (PeerDeadError, ValueError):
            return False
        return bus.cancel(number)

    def _call_and_wait(
        self, data: Buffer, msg_type: int, timeout: float | None, on_response: Callable[[memoryview], Any] | None
    ) -> Any:
        """For RpcEndpoint.call."""
        until = _end_of(timeout)
        bus = self._connected(until)
        left = None if until is None else max(0.0, until - time.monotonic())
        try:
            answer = call_and_wait(bus, data, msg_type, left, on_response)
        finally:
            self._last = self._base + last_call(bus)
        self._pause = 0.0
        return answer

    # ---- the end ----

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._closed

    def close(self) -> None:
        """Close the connection, for good. Idempotent; allowed from any thread, and ends a wait with BusClosedError."""
        self._closed = True
        for bus in (self._bus, self._former):
            if bus is not None:
                bus.close()

    def __enter__(self) -> RpcClient:
        """Return the client. This does not connect."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; an exception aborts the connection, as with RpcBus."""
        self._closed = True
        for bus in (self._bus, self._former):
            if bus is not None:
                bus.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        """Name the path, and whether it is connected."""
        state = "closed" if self._closed else "connected" if self.connected else "not connected"
        return f"<tachyon.RpcClient {self.path!r} {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse."""
        raise TypeError("an RpcClient cannot be pickled or copied; make one with the same path in each process")
