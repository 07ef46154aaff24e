"""The caller's and the handler's side of an RPC in one object: RpcEndpoint, made by @tachyon_rpc."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from tachyon._errors import RpcError
from tachyon._tachyon import call_and_wait

if TYPE_CHECKING:
    from tachyon._tachyon import Message, RpcBus

MSG_TYPE_ERROR = 0xFFFF
"""msg_type of a reply that says that the call failed: its payload begins with the call's own, two bytes, big-endian."""

Handler = Callable[[memoryview], Any]
T = TypeVar("T")


def _encode_error(msg_type: int, detail: str | None, limit: int) -> bytes:
    payload = struct.pack("!H", msg_type & 0xFFFF)  # a peer may put any 32 bits there
    return (payload + detail.encode("utf-8", "replace"))[:limit] if detail else payload


def _decode_error(payload: bytes | memoryview) -> int | None:
    """Return the msg_type that an error reply is about, or None if the payload is too short to be one."""
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None


def _decode_detail(payload: bytes | memoryview) -> str | None:
    return bytes(payload[2:]).decode("utf-8", "replace") if len(payload) > 2 else None


class AsyncRpcBus(Protocol):
    """What acall needs of a tachyon.aio.RpcBus."""

    async def request(self, data: Any, msg_type: int, *, timeout: float | None = None) -> Message:
        """Call, and return the reply."""
        ...


class RpcEndpoint:
    """A handler bound to a msg_type.

    Calling the endpoint calls the handler, here and now: for unit tests. `call` calls it over an RpcBus. Without a
    handler, RpcEndpoint(msg_type), it is a client's stub: `call` is all it does.
    """

    @overload
    def __init__(self, handler: Handler, msg_type: int) -> None: ...

    @overload
    def __init__(self, msg_type: int, /) -> None: ...

    @overload
    def __init__(self, *, msg_type: int) -> None: ...

    def __init__(self, handler: Any = None, msg_type: Any = None) -> None:
        """Bind `handler`, which takes a read-only memoryview and returns a buffer, to `msg_type`, 0 … 65534."""
        if msg_type is None:
            handler, msg_type = None, handler
            if callable(msg_type) or msg_type is None:
                raise TypeError(
                    "RpcEndpoint needs a msg_type: RpcEndpoint(handler, msg_type), or RpcEndpoint(msg_type)"
                )
        if handler is not None and not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        number = index(msg_type)
        if not 0 <= number <= 0xFFFF:
            raise OverflowError(f"msg_type must be between 0 and 65534, not {number}")
        if number == MSG_TYPE_ERROR:
            raise ValueError("msg_type 65535 means a failed call; choose another")
        if handler is not None:
            functools.update_wrapper(self, handler)  # first: it copies the handler's own attributes over ours
        self.handler: Handler | None = handler
        self.msg_type = number

    def __call__(self, payload: Any) -> Any:
        """Call the handler locally."""
        if self.handler is None:
            raise TypeError(f"{self!r} has no handler here; .call(bus, payload) calls the other side's")
        return self.handler(payload)

    def __repr__(self) -> str:
        """Name the handler and its msg_type."""
        if self.handler is None:
            return f"<RpcEndpoint msg_type={self.msg_type}>"
        return f"<RpcEndpoint {getattr(self.handler, '__qualname__', self.handler)!s} msg_type={self.msg_type}>"

    @overload
    def call(self, bus: RpcBus, payload: Any, on_response: None = None, *, timeout: float | None = None) -> bytes: ...

    @overload
    def call(
        self, bus: RpcBus, payload: Any, on_response: Callable[[memoryview], T], *, timeout: float | None = None
    ) -> T: ...

    def call(
        self,
        bus: RpcBus,
        payload: Any,
        on_response: Callable[[memoryview], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes | T:
        """Call the other side's handler of this msg_type with the bytes of any buffer, and return its answer.

        on_response: gets the answer in place, as a memoryview that is valid until it returns; its result is returned.
        Without it the answer is returned as bytes.
        timeout: seconds for all of it; None waits as long as the callee lives. When it runs out the call is cancelled.
        Raises RpcError if the handler failed or there is none; BusFullError, BusEmptyError, PeerDeadError and so on as
        RpcBus.call and RpcBus.wait. One thread at a time, as the bus.
        """
        answer = call_and_wait(bus, payload, self.msg_type, timeout, on_response)
        if isinstance(answer, tuple):
            result: T = answer[0]
            return result
        if answer.type_id == MSG_TYPE_ERROR:
            raise self._failure(answer.data)
        return answer.data

    @overload
    async def acall(
        self, bus: AsyncRpcBus, payload: Any, on_response: None = None, *, timeout: float | None = None
    ) -> bytes: ...

    @overload
    async def acall(
        self, bus: AsyncRpcBus, payload: Any, on_response: Callable[[memoryview], T], *, timeout: float | None = None
    ) -> T: ...

    async def acall(
        self,
        bus: AsyncRpcBus,
        payload: Any,
        on_response: Callable[[memoryview], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes | T:
        """As call, over a tachyon.aio.RpcBus: any number of them may be in flight at once.

        on_response gets the bytes of the answer as a memoryview. Cancelled, or out of time, the call is given up.
        """
        answer = await bus.request(payload, self.msg_type, timeout=timeout)
        if answer.type_id == MSG_TYPE_ERROR:
            raise self._failure(answer.data)
        return answer.data if on_response is None else on_response(memoryview(answer.data))

    def _failure(self, answer: bytes | memoryview) -> RpcError:
        detail = _decode_detail(answer)
        text = f"the callee failed on msg_type {self.msg_type}" + (f": {detail}" if detail else "")
        return RpcError(text, self.msg_type, detail)


def tachyon_rpc(msg_type: int) -> Callable[[Handler], RpcEndpoint]:
    """Decorate a `memoryview -> buffer` function into an RpcEndpoint for `msg_type`, 0 … 65534."""

    def decorate(handler: Handler) -> RpcEndpoint:
        return RpcEndpoint(handler, msg_type)

    return decorate
