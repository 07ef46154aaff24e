"""The callee's loop: calls in, answers out, whatever the handlers do."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

from tachyon._errors import BusClosedError, BusEmptyError, BusFullError, CodecError, PeerClosedError, PeerDeadError
from tachyon._outbox import Outbox
from tachyon._rpc import MSG_TYPE_ERROR, A, Handler, R, RpcEndpoint, TypedEndpoint, _encode_error, tachyon_rpc
from tachyon._tachyon import _Dispatching, answer_one

if TYPE_CHECKING:
    from tachyon._objects import AnyCodec
    from tachyon._tachyon import RpcBus, RxGuard, Unfinished

log = logging.getLogger("tachyon")

Keep = Callable[["RpcBus", int, Any, int], object]

STOP_INTERVAL = 0.1  # seconds between looks at stop() while no call comes


class RpcDispatcher(_Dispatching):
    """Hands each call to the handler of its msg_type and sends the answer back. The caller always gets one.

    send_details: put the type and text of a handler's exception behind the two bytes of an error reply, where
    RpcError.detail shows them. Off by default: a caller need not learn what went wrong inside. Why its own request
    could not be decoded (CodecError) it learns always.
    """

    def __init__(self, *, send_details: bool = False) -> None:
        """Start without handlers."""
        self.send_details = send_details
        self._endpoints: dict[int, RpcEndpoint] = {}
        self._outbox = Outbox()

    def register(self, endpoint: RpcEndpoint) -> RpcEndpoint:
        """Serve this endpoint. TypeError if it is none; ValueError if its msg_type is taken by another."""
        if not isinstance(endpoint, RpcEndpoint):
            raise TypeError(f"register takes what @tachyon_rpc returns, not {type(endpoint).__name__}")
        if endpoint.handler is None:
            raise TypeError(f"{endpoint!r} has no handler to serve with: it is a client's stub")
        taken = self._endpoints.setdefault(endpoint.msg_type, endpoint)
        if taken is not endpoint:
            raise ValueError(f"msg_type {endpoint.msg_type} is served by {taken!r} already")
        return endpoint

    @overload
    def handler(self, msg_type: int) -> Callable[[Handler], RpcEndpoint]: ...

    @overload
    def handler(
        self, msg_type: int, *, codec: AnyCodec, request: Any = ..., result: Any = ...
    ) -> Callable[[Callable[[A], R]], TypedEndpoint[A, R]]: ...

    @overload
    def handler(
        self, msg_type: int, *, allow_pickle: Literal[True]
    ) -> Callable[[Callable[[A], R]], TypedEndpoint[A, R]]: ...

    def handler(self, msg_type: int, **options: Any) -> Any:
        """Decorate a function into an endpoint for `msg_type`, and register it. Options as tachyon_rpc."""

        make: Callable[[Any], RpcEndpoint] = tachyon_rpc(msg_type, **options)
        return lambda function: self.register(make(function))

    def serve_once(self, bus: RpcBus, *, timeout: float | None = None) -> None:
        """Wait for one call, for at most `timeout` seconds, and answer it.

        If there is no handler, or it fails, the caller gets an error reply first; then RpcError, or the handler's own
        exception, is raised here. A handler gets a read-only memoryview that is valid until it returns, and returns a
        buffer, the request itself included; None and str are failures. Otherwise raises as RpcBus.serve and reply.
        """
        failure = self._serve(bus, timeout)
        if failure is not None:
            raise failure

    def _serve_until_stopped(self, bus: RpcBus) -> None:
        while not self._stopping:
            try:
                self._outbox.deliver(bus, STOP_INTERVAL)
                failure = self._serve(bus, STOP_INTERVAL, self._outbox.keep)
            except (BusEmptyError, BusFullError):
                continue
            except PeerClosedError:
                return
            except PeerDeadError as error:
                log.warning("%s", error)
                return
            except KeyboardInterrupt:
                return
            if isinstance(failure, KeyboardInterrupt):
                return
            if isinstance(failure, SystemExit):
                raise failure
            if failure is not None:
                log.error("a call failed", exc_info=failure)

    def _serve(self, bus: RpcBus, timeout: float | None, keep: Keep | None = None) -> BaseException | None:
        """Answer one call. Returns what its handler raised; raises what is wrong with the bus.

        keep: takes an answer that has no room now; without it room is waited for.
        """
        left = answer_one(bus, self._endpoints, timeout, keep is None)
        return None if left is None else self._finish(bus, left, keep)

    def _finish(self, bus: RpcBus, left: Unfinished, keep: Keep | None) -> BaseException | None:
        guard, request, failure = left.guard, left.request, left.failure
        try:
            if failure is not None and left.answered:  # by the handler
                clear_frames_of(failure)
            elif failure is not None:
                self._answer_failure(bus, guard, failure, keep)
            elif not left.answered and keep is not None:
                try:
                    keep(bus, guard.correlation_id, left.answer, guard.type_id)
                except Exception as error:  # no memory for it, or a buffer that is none any more
                    failure = error
                    self._answer_failure(bus, guard, failure, keep)
        finally:
            del left
            try:
                request.release()
            except BufferError:  # there are views of this view: they show below
                del request
            leave(guard)
        return failure

    def _answer_failure(self, bus: RpcBus, guard: RxGuard, failure: BaseException, keep: Keep | None) -> None:
        told = self.send_details or (isinstance(failure, CodecError) and failure.in_request)
        detail = describe(failure) if told else None
        answer = _encode_error(guard.type_id, detail, bus.max_reply_size)
        try:
            bus.reply(guard.correlation_id, answer, MSG_TYPE_ERROR, timeout=None if keep is None else 0)
        except BusFullError:
            if keep is None:
                raise
            keep(bus, guard.correlation_id, answer, MSG_TYPE_ERROR)
        except (PeerDeadError, BusClosedError):
            pass  # the next look at the bus says so; what failed, a Ctrl-C perhaps, must not be lost over it
        finally:
            # The locals of the handler's frames may be views of the request, which has to be freed now.
            clear_frames_of(failure)


def describe(failure: BaseException) -> str:
    """Type and text of an exception, whose __str__ may be broken."""
    try:
        return f"{type(failure).__name__}: {failure}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return type(failure).__name__


def clear_frames_of(failure: BaseException) -> None:
    """Clear the frames of an exception and of all that it came from."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [failure]
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        todo += [error.__cause__, error.__context__, *members_of(error)]


def members_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group; of any other exception, whatever it may call `exceptions`, none."""
    try:
        members = error.exceptions  # type: ignore[attr-defined]
    except Exception:
        return []
    return [each for each in members if isinstance(each, BaseException)] if isinstance(members, (list, tuple)) else []


def leave(guard: RxGuard) -> None:
    """Leave a guard's block, though a handler's frames may still hold views of it."""
    try:
        guard.__exit__(None, None, None)
    except BufferError:
        gc.collect()  # views in a reference cycle, such as that of an exception and its frames, are not kept on purpose
        if not guard.released:
            raise
