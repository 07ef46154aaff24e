"""Two-way ends for two processes, and the choice among many ends: pipe, PipeEnd, take."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from tachyon._errors import BusClosedError, BusEmptyError, BusFullError, TachyonTimeoutError
from tachyon._tachyon import Bus, BusEnd, Message, RpcEnd, RxGuard, TxGuard, pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Buffer


def pipe(capacity: int = 1 << 20, *, max_large: int = 1 << 30) -> tuple[PipeEnd, PipeEnd]:
    """Make two ends, each of which sends to the other: for two other processes, or for this one and another.

    capacity: bytes of ring for each way, reserved now. max_large: for each way. Both as Bus.listen. Raises as pair().
    """
    there, here = pair(capacity, max_large=max_large), pair(capacity, max_large=max_large)
    return PipeEnd((there[0], here[1]), 0), PipeEnd((there[1], here[0]), 1)


class PipeEnd:
    """One end of a pipe(): a Bus to send by and one to receive by. A context manager.

    Hand it over before its first use, as a BusEnd. The first call waits until the process that has the other end uses
    that one too; its timeout is for both. Then everything is as with Bus: one thread at a time sends, one receives,
    and close() may come from any. An end that nobody can come to any more raises HandshakeError.
    """

    def __init__(self, ends: tuple[BusEnd, BusEnd], sends: int) -> None:
        """Of the ends of two buses, in the order in which both sides open them; `sends`: which one is to send by."""
        self._ends = ends
        self._sends = sends
        self._buses: tuple[Bus, ...] = ()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    # ---- opening ----

    @property
    def tx(self) -> Bus | None:
        """The Bus to send by, once both sides are there."""
        return self._buses[self._sends] if len(self._buses) == 2 else None

    @property
    def rx(self) -> Bus | None:
        """The Bus to receive by, once both sides are there."""
        return self._buses[1 - self._sends] if len(self._buses) == 2 else None

    def open(self, *, timeout: float | None = None) -> PipeEnd:
        """Wait until the process that has the other end uses it too, as every other method does by itself.

        As BusEnd.open, and returns the end itself.
        """
        if len(self._buses) < 2:
            self._open(timeout)
        return self

    def _open(self, timeout: float | None) -> float | None:
        """Return what is left of the timeout."""
        until = None if timeout is None else time.monotonic() + max(0.0, timeout)
        if self._pid != os.getpid():  # another thread of the parent may have held it
            self._pid, self._lock = os.getpid(), threading.Lock()
        if not self._lock.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            raise TachyonTimeoutError("another thread is still waiting for the other end")
        try:
            while len(self._buses) < 2:
                bus = self._ends[len(self._buses)].open(timeout=timeout)
                self._buses += (bus,)
                timeout = None if until is None else max(0.0, until - time.monotonic())
        finally:
            self._lock.release()
        return timeout

    def _try_open(self) -> bool:
        if len(self._buses) == 2:
            return True
        try:
            self._open(0)
        except TachyonTimeoutError:
            return False
        return True

    def _sender(self, timeout: float | None) -> tuple[Bus, float | None]:
        if len(self._buses) < 2:
            try:
                timeout = self._open(timeout)
            except TachyonTimeoutError as error:
                raise BusFullError(str(error)) from None
        return self._buses[self._sends], timeout

    def _receiver(self, timeout: float | None) -> tuple[Bus, float | None]:
        if len(self._buses) < 2:
            try:
                timeout = self._open(timeout)
            except TachyonTimeoutError as error:
                raise BusEmptyError(str(error)) from None
        return self._buses[1 - self._sends], timeout

    def _take(self) -> bool:
        return all(end._take() for end in self._ends)

    def _forget(self) -> None:
        for end in self._ends:
            end._forget()

    # ---- sending ----

    def send(self, data: Buffer, type_id: int = 0, *, timeout: float | None = None) -> None:
        """As Bus.send."""
        bus, left = self._sender(timeout)
        bus.send(data, type_id, timeout=left)

    def try_send(self, data: Buffer, type_id: int = 0) -> bool:
        """Send if the other side is there and has room now. Otherwise as Bus.try_send."""
        return self._try_open() and self._buses[self._sends].try_send(data, type_id)

    def send_many(self, items: Iterable[Any], type_id: int = 0, *, timeout: float | None = None) -> int:
        """As Bus.send_many."""
        bus, left = self._sender(timeout)
        return bus.send_many(items, type_id, timeout=left)

    def send_zero_copy(self, size: int, type_id: int = 0, *, timeout: float | None = None) -> TxGuard:
        """As Bus.send_zero_copy."""
        bus, left = self._sender(timeout)
        return bus.send_zero_copy(size, type_id, timeout=left)

    def send_obj(self, o: object, type_id: int = 0, *, timeout: float | None = None, **how: Any) -> None:
        """As Bus.send_obj, with its codec= and allow_pickle=."""
        bus, left = self._sender(timeout)
        bus.send_obj(o, type_id, timeout=left, **how)

    def send_array(self, array: Any, type_id: int = 0, *, timeout: float | None = None) -> None:
        """As Bus.send_array."""
        bus, left = self._sender(timeout)
        bus.send_array(array, type_id, timeout=left)

    # ---- receiving ----

    def recv(self, *, timeout: float | None = None) -> Message:
        """As Bus.recv."""
        bus, left = self._receiver(timeout)
        return bus.recv(timeout=left)

    def try_recv(self) -> Message | None:
        """Return the next message if the other side is there and has sent one, else None. Otherwise as Bus.try_recv."""
        return self._buses[1 - self._sends].try_recv() if self._try_open() else None

    def recv_into(self, buffer: Buffer, *, timeout: float | None = None) -> tuple[int, int]:
        """As Bus.recv_into."""
        bus, left = self._receiver(timeout)
        return bus.recv_into(buffer, timeout=left)

    def recv_zero_copy(self, *, timeout: float | None = None) -> RxGuard:
        """As Bus.recv_zero_copy."""
        bus, left = self._receiver(timeout)
        return bus.recv_zero_copy(timeout=left)

    def recv_obj(self, *, timeout: float | None = None, **how: Any) -> Any:
        """As Bus.recv_obj, with its type=, codec= and allow_pickle=."""
        bus, left = self._receiver(timeout)
        return bus.recv_obj(timeout=left, **how)

    def recv_array(self, out: Any = None, *, timeout: float | None = None) -> Any:
        """As Bus.recv_array."""
        bus, left = self._receiver(timeout)
        return bus.recv_array(out, timeout=left)

    def __iter__(self) -> Iterator[Message]:
        """Return the end itself: its messages, until the other side closes."""
        return self

    def __next__(self) -> Message:
        """Wait for the next message."""
        return next(self._receiver(None)[0])

    # ---- the rest ----

    @property
    def peer_pid(self) -> int:
        """Process id of who has the other end; 0 while that is not known."""
        return self._buses[0].peer_pid if self._buses else 0

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child of who uses it."""
        return any(bus.closed for bus in self._buses) or any(end.closed for end in self._ends[len(self._buses) :])

    def close(self) -> None:
        """Close both ways; as BusEnd.close while it is not in use. Idempotent, never waits; allowed from any thread."""
        for end in self._ends:
            end.close()
        for bus in self._buses:
            bus.close()

    def abort(self) -> None:
        """Give up: as close(), but the other side gets PeerDeadError, whose `reason` is "aborted"."""
        for end in self._ends:
            end.close()
        for bus in self._buses:
            bus.abort()

    def __enter__(self) -> PipeEnd:
        """Return the end itself. This does not wait for the other side."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both ways; an exception aborts them, as with Bus."""
        for end in self._ends:
            end.close()
        for bus in self._buses:
            bus.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        """Say how far it is."""
        state = "closed" if self.closed else f"peer_pid={self.peer_pid}" if self._buses else "not in use yet"
        return f"<tachyon.PipeEnd {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle into a process that is being started, as a BusEnd."""
        self._ends[0]._check_spawning(type(self).__name__)
        return PipeEnd, (self._ends, self._sends)


AnyEnd = TypeVar("AnyEnd", BusEnd, RpcEnd, PipeEnd)


def take(ends: Iterable[AnyEnd]) -> AnyEnd:
    """Take the first of many ends that no process has taken yet, and let go of the copies of all others here.

    For processes that are all started with the same arguments, as by ProcessPoolExecutor(initargs=…). Does not wait.
    Raises BusClosedError if none is left.
    """
    offered = list(ends)
    taken: AnyEnd | None = None
    for end in offered:
        if taken is None and end._take():
            taken = end
        elif end is not taken:
            end._forget()
    if taken is None:
        raise BusClosedError(f"all {len(offered)} ends are taken or closed; make one for each process that is started")
    return taken
