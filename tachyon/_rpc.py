"""The caller's and the handler's side of an RPC in one object: RpcEndpoint or TypedEndpoint, made by @tachyon_rpc."""

from __future__ import annotations

import functools
import inspect
import struct
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, get_type_hints, overload

from tachyon._errors import CodecError, RpcError
from tachyon._objects import codec_of
from tachyon._tachyon import RpcBus, call_and_wait

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tachyon._client import RpcClient
    from tachyon._objects import AnyCodec
    from tachyon._tachyon import Message

MSG_TYPE_ERROR = 0xFFFF
"""msg_type of a reply that says that the call failed: its payload begins with the call's own, two bytes, big-endian."""

Handler = Callable[[memoryview], Any]
T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

_ANNOTATED: Any = object()  # a type that has not been told


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

    Calling the endpoint calls the handler, here and now: for unit tests. `call` calls it over an RpcBus or RpcClient.
    Without a handler, RpcEndpoint(msg_type), it is a client's stub: `call` is all it does.
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
            return f"<{type(self).__name__} msg_type={self.msg_type}>"
        function = getattr(self, "__wrapped__", self.handler)
        return f"<{type(self).__name__} {getattr(function, '__qualname__', function)!s} msg_type={self.msg_type}>"

    @overload
    def call(
        self, bus: RpcBus | RpcClient, payload: Any, on_response: None = None, *, timeout: float | None = None
    ) -> bytes: ...

    @overload
    def call(
        self,
        bus: RpcBus | RpcClient,
        payload: Any,
        on_response: Callable[[memoryview], T],
        *,
        timeout: float | None = None,
    ) -> T: ...

    def call(
        self,
        bus: RpcBus | RpcClient,
        payload: Any,
        on_response: Callable[[memoryview], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes | T:
        """Call the other side's handler of this msg_type with the bytes of any buffer, and return its answer.

        on_response: gets the answer in place, as a memoryview that is valid until it returns; its result is returned.
        Without it the answer is returned as bytes.
        timeout: seconds for all of it; None waits as long as the callee lives. When it runs out the call is cancelled.
        bus: an RpcBus, or an RpcClient, which connects first where it has to.
        Raises RpcError if the handler failed or there is none; BusFullError, BusEmptyError, PeerDeadError and so on as
        RpcBus.call and RpcBus.wait. One thread at a time, as the bus.
        """
        answer = self._ask(bus, payload, on_response, timeout)
        if isinstance(answer, tuple):
            result: T = answer[0]
            return result
        if answer.type_id == MSG_TYPE_ERROR:
            raise self._failure(answer.data)
        data: bytes = answer.data
        return data

    # A Message, or a tuple of what on_response returned.
    def _ask(
        self,
        bus: RpcBus | RpcClient,
        payload: Any,
        on_response: Callable[[memoryview], Any] | None,
        timeout: float | None,
    ) -> Any:
        if isinstance(bus, RpcBus):
            return call_and_wait(bus, payload, self.msg_type, timeout, on_response)
        return bus._call_and_wait(payload, self.msg_type, timeout, on_response)

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


class TypedEndpoint(RpcEndpoint, Generic[A, R]):
    """An RpcEndpoint whose handler takes an object and returns one.

    A request or a result that cannot be decoded, or that another codec wrote, is a CodecError: where the handler should
    run an error reply comes of it, whose RpcError.detail says why, where the result was wanted it is raised.
    """

    def __init__(
        self,
        handler: Callable[[A], R] | None = None,
        msg_type: Any = None,
        *,
        codec: AnyCodec | None = None,
        allow_pickle: bool = False,
        request: Any = _ANNOTATED,
        result: Any = _ANNOTATED,
    ) -> None:
        """Bind `handler` to `msg_type`, 0 … 65534; without it, TypedEndpoint(msg_type=1, …), it is a client's stub.

        codec, allow_pickle: as Bus.send_obj, for both ways. request, result: the types that the two are decoded to, by
        codecs that know types; taken from the handler's annotations unless told; None, or no annotation: anything.
        """
        super().__init__(handler, msg_type)  # type: ignore[arg-type]
        self.codec = codec_of(codec, allow_pickle)
        function = self.handler
        hints: tuple[Any, Any] = (Any, Any)  # for a codec that knows no types annotations are for people alone
        if self.codec.typed and function is not None and (request is _ANNOTATED or result is _ANNOTATED):
            hints = _annotations(function)
        self._decode_request = self.codec.decoder(hints[0] if request is _ANNOTATED else request)
        self._decode_result = self.codec.decoder(hints[1] if result is _ANNOTATED else result)
        self.handler = None if function is None else self._handle

    def __call__(self, request: A) -> R:
        """Call the handler locally, with an object."""
        if self.handler is None:
            return super().__call__(request)  # type: ignore[no-any-return]
        return self.__wrapped__(request)  # type: ignore[attr-defined,no-any-return]

    def encode(self, o: Any) -> bytes:
        """Return a request or a result as bytes."""
        return self.codec.pack_whole(o)

    def decode_request(self, data: bytes | memoryview) -> A:
        """Return a request from its bytes, which are copied first. Raises CodecError."""
        return self.codec.unpack(bytes(data), self._decode_request)  # type: ignore[no-any-return]

    def decode_result(self, data: bytes | memoryview) -> R:
        """Return a result from its bytes, which are copied first. Raises CodecError."""
        return self.codec.unpack(bytes(data), self._decode_result)  # type: ignore[no-any-return]

    def _handle(self, payload: memoryview) -> bytes | Awaitable[bytes]:
        """What a dispatcher calls."""
        try:
            request = self.decode_request(payload)
        except CodecError as error:
            error.in_request = True
            raise
        result: Any = self(request)
        return self._encode_later(result) if inspect.isawaitable(result) else self.encode(result)

    async def _encode_later(self, result: Awaitable[Any]) -> bytes:
        return self.encode(await result)

    def call(  # type: ignore[override]
        self,
        bus: RpcBus | RpcClient,
        payload: A,
        on_response: Callable[[R], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> R | T:
        """Call the other side's handler with an object, and return the one that it returned.

        on_response: gets that, and its result is returned. Raises CodecError for an answer that cannot be decoded;
        otherwise as RpcEndpoint.call.
        """
        return self._object_in(self._ask(bus, self.encode(payload), None, timeout), on_response)

    async def acall(  # type: ignore[override]
        self,
        bus: AsyncRpcBus,
        payload: A,
        on_response: Callable[[R], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> R | T:
        """As call, over a tachyon.aio.RpcBus: any number of them may be in flight at once."""
        answer = await bus.request(self.encode(payload), self.msg_type, timeout=timeout)
        return self._object_in(answer, on_response)

    def _object_in(self, answer: Message, on_response: Callable[[R], T] | None) -> R | T:
        if answer.type_id == MSG_TYPE_ERROR:
            raise self._failure(answer.data)
        result = self.decode_result(answer.data)
        return result if on_response is None else on_response(result)


def _annotations(handler: Handler) -> tuple[Any, Any]:
    """Return what a handler's annotations say of its argument and its result."""
    try:
        hints = get_type_hints(handler, include_extras=True)
        names = list(inspect.signature(handler).parameters)
    except NameError as error:
        raise TypeError(
            f"an annotation of {handler!r} cannot be resolved ({error}); pass request= and result="
        ) from error
    except (TypeError, ValueError):  # nothing written in Python
        return Any, Any
    return hints.get(names[0], Any) if names else Any, hints.get("return", Any)


@overload
def tachyon_rpc(
    msg_type: int, *, codec: None = None, allow_pickle: Literal[False] = False
) -> Callable[[Handler], RpcEndpoint]: ...


@overload
def tachyon_rpc(
    msg_type: int, *, codec: AnyCodec, allow_pickle: Literal[False] = False, request: Any = ..., result: Any = ...
) -> Callable[[Callable[[A], R]], TypedEndpoint[A, R]]: ...


@overload
def tachyon_rpc(
    msg_type: int, *, codec: None = None, allow_pickle: Literal[True]
) -> Callable[[Callable[[A], R]], TypedEndpoint[A, R]]: ...


def tachyon_rpc(
    msg_type: int,
    *,
    codec: AnyCodec | None = None,
    allow_pickle: bool = False,
    request: Any = _ANNOTATED,
    result: Any = _ANNOTATED,
) -> Any:
    """Decorate a `memoryview -> buffer` function into an RpcEndpoint for `msg_type`, 0 … 65534.

    With a codec ("msgpack", a Codec, a pair), or allow_pickle, the function takes an object and returns one, and what
    becomes of it is a TypedEndpoint; its annotations, or request= and result=, say what types they have.
    """
    if codec is None and not allow_pickle:
        if request is not _ANNOTATED or result is not _ANNOTATED:
            raise TypeError('request= and result= are for objects, which need a codec: codec="msgpack"')
        return functools.partial(RpcEndpoint, msg_type=msg_type)
    return functools.partial(
        TypedEndpoint, msg_type=msg_type, codec=codec, allow_pickle=allow_pickle, request=request, result=result
    )
