"""Answers that have no room in their caller's ring yet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tachyon._tachyon import ArrayPayload

if TYPE_CHECKING:
    from tachyon._tachyon import RpcBus


class Outbox:
    """At most one answer for each caller, whose next calls wait until it has been sent.

    A loop that is stopped before that leaves it here for the next one.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._unsent: WeakKeyDictionary[RpcBus, tuple[int, bytes, int]] = WeakKeyDictionary()

    def keep(self, bus: RpcBus, correlation_id: int, answer: Any, msg_type: int) -> int:
        """Keep a copy of an answer's bytes. Returns how many they are."""
        if isinstance(answer, ArrayPayload):
            data = bytes(answer)
        else:
            with memoryview(answer) as view:  # what its buffer holds, as when there is room
                data = view.tobytes()
        self._unsent[bus] = correlation_id, data, msg_type
        return len(data)

    def __contains__(self, bus: RpcBus) -> bool:
        """Is there an answer for this caller?"""
        return bus in self._unsent

    def __len__(self) -> int:
        """How many callers' answers wait."""
        return len(self._unsent)

    def deliver(self, bus: RpcBus, timeout: float) -> None:
        """Send what is kept for this caller, if anything. BusFullError when `timeout` seconds bring no room."""
        if (unsent := self._unsent.get(bus)) is not None:
            with contextlib.suppress(ValueError):  # a Ctrl-C came between its sending and the next line
                bus.reply(*unsent, timeout=timeout)
            del self._unsent[bus]
