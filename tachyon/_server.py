"""Many callers at one path, served by one thread: RpcServer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from tachyon._dispatcher import STOP_INTERVAL, RpcDispatcher
from tachyon._errors import (
    BusClosedError,
    BusEmptyError,
    BusFullError,
    PeerClosedError,
    PeerDeadError,
    TachyonError,
)
from tachyon._outbox import Outbox
from tachyon._tachyon import _OWNER_ONLY, RpcBus, RpcListener, WaitSet, _Serving

if TYPE_CHECKING:
    import os

log = logging.getLogger("tachyon")

_MOST_AT_ONCE = 16  # new callers, before those who are there have their turn
_PAUSE = 1.0  # seconds without new callers after one could not be let in for lack of descriptors or memory


class RpcServer(_Serving):
    """Serves any number of callers at one path from one thread. A context manager.

    Each caller that connects, with RpcBus.connect, has a pair of rings of its own. They are served in turn, one call at
    a time, by the handlers of `dispatcher`; a handler that takes long keeps all of them waiting. A caller that closes,
    dies, or does not read its answers harms no other one: an answer without room is kept, and that caller's next calls
    wait until it has been taken.
    """

    def __init__(
        self,
        socket_path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        dispatcher: RpcDispatcher,
        cap_fwd: int = 1 << 20,
        cap_rev: int = 1 << 20,
        *,
        mode: int = _OWNER_ONLY,
        max_large: int = 1 << 30,
    ) -> None:
        """Listen at `socket_path`; callers may connect from now on, and are served by serve_forever().

        cap_fwd, cap_rev: bytes of ring for each caller's calls and its replies. mode, max_large: as Bus.listen.
        Raises CapacityError, MemoryError, HandshakeError.
        """
        if not isinstance(dispatcher, RpcDispatcher):
            raise TypeError(f"dispatcher must be an RpcDispatcher, not {type(dispatcher).__name__}")
        self.dispatcher = dispatcher
        self._waiting = WaitSet()
        self._listener = RpcListener(socket_path, cap_fwd, cap_rev, mode=mode, max_large=max_large)
        self._waiting.add(self._listener)
        self._listen_again: float | None = None  # time.monotonic(), while the listener is not a member
        self._callers: set[RpcBus] = set()
        self._outbox = Outbox()
        self._failed = 0
        self._accepted = 0

    def stats(self) -> dict[str, int]:
        """Return counters: callers now, callers ever, calls served, of those the failed ones."""
        return {
            "callers": len(self._callers),
            "accepted": self._accepted,
            "served": self._served,
            "failed": self._failed,
        }

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
        return self._closing or self._listener.closed

    def __enter__(self) -> RpcServer:
        """Return the server."""
        if self.closed:
            raise BusClosedError(f"this RpcServer ({self._listener.path!r}) is closed; make a new one")
        return self

    def __repr__(self) -> str:
        """Name the path and the number of callers."""
        state = "closed" if self.closed else f"{len(self._callers)} callers"
        return f"<tachyon.RpcServer {self._listener.path!r} {state}>"

    # ---- inside ----

    def _serve_until_stopped(self) -> None:
        if self._closing or self._listener.closed:
            raise BusClosedError(f"this RpcServer ({self._listener.path!r}) is closed; make a new one")
        while not self._stopping:
            member = self._waiting.wait(STOP_INTERVAL)
            if isinstance(member, RpcBus):
                self._attend(member)
            elif member is not None:
                self._accept()
            if self._listen_again is not None and time.monotonic() >= self._listen_again:
                self._waiting.remove(self._listener)  # a Ctrl-C may have come after the next line
                self._waiting.add(self._listener)
                self._listen_again = None
                self._accept()  # who has spoken already does not show as something to read

    def _accept(self) -> None:
        try:
            for _ in range(_MOST_AT_ONCE):  # the listener says so if there are more
                bus = self._listener.try_accept()
                if bus is None:
                    break
                try:
                    self._callers.add(bus)
                    self._accepted += 1
                    self._waiting.add(bus)
                except BaseException:
                    self._drop(bus)
                    raise
        except (TachyonError, MemoryError) as error:
            log.error("a caller could not be let in: %s", error)
            self._listen_again = time.monotonic() + _PAUSE
            self._waiting.remove(self._listener)

    def _attend(self, bus: RpcBus) -> None:
        """Serve one call of this caller, or bring it the answer that is waiting for room."""
        failure: BaseException | None = None
        try:
            if bus in self._outbox:
                self._outbox.deliver(bus, 0)
                self._waiting.await_message(bus)
            elif (left := self._answer(bus)) is not None:
                failure = self.dispatcher._finish(bus, left, self._keep)
        except (BusEmptyError, BusFullError):
            return
        except PeerClosedError:
            self._drop(bus)
        except PeerDeadError as error:
            log.warning("%s", error)
            self._drop(bus)
        except (BufferError, MemoryError) as error:  # a handler keeps a view of a request, or there is no room for it
            log.error("%s; its caller is cut off", error)
            self._drop(bus)
        except BaseException:  # Ctrl-C, not in a handler: what has been done of a step is not known
            self._drop(bus)  # rather no connection than a caller who waits for an answer that nobody owes it
            raise
        if failure is None:
            return
        self._failed += 1
        if isinstance(failure, (KeyboardInterrupt, SystemExit)):
            raise failure
        log.error("a call failed", exc_info=failure)

    def _keep(self, bus: RpcBus, correlation_id: int, answer: Any, msg_type: int) -> None:
        self._waiting.await_room(bus, self._outbox.keep(bus, correlation_id, answer, msg_type))

    def _close(self) -> None:
        for bus in list(self._callers):
            self._drop(bus)
        self._waiting.remove(self._listener)
        self._listener.close()
        self._waiting.close()
