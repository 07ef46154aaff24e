"""RpcServer: many callers at one path, served in an event loop by functions and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

from tachyon._dispatcher import RpcDispatcher, clear_frames_of, describe, leave
from tachyon._errors import (
    BusBusyError,
    BusClosedError,
    BusFullError,
    PeerClosedError,
    PeerDeadError,
    RpcError,
    TachyonError,
)
from tachyon._rpc import MSG_TYPE_ERROR, _encode_error
from tachyon._tachyon import _OWNER_ONLY, Pass
from tachyon.aio._listener import RpcListener
from tachyon.aio._watch import running_loop

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tachyon._rpc import RpcEndpoint
    from tachyon._tachyon import RxGuard, _Path
    from tachyon.aio._rpc import RpcBus

log = logging.getLogger("tachyon")

_PAUSE = 1.0  # seconds without new callers after one could not be let in for lack of descriptors or memory
_LAST_WORDS = 1.0  # seconds for handlers that are cancelled to end, and their callers to be told


class Caller:
    """One who is connected."""

    def __init__(self, bus: RpcBus) -> None:
        """Owe it nothing yet."""
        self.bus = bus
        self.owed = 0  # answers on their way out
        self.paid = asyncio.Event()
        self.paid.set()


class Call:
    """One that has been taken."""

    def __init__(self, caller: Caller, guard: RxGuard, endpoint: RpcEndpoint | None) -> None:
        """Note which it is."""
        self.caller = caller
        self.id = guard.correlation_id
        self.msg_type = guard.type_id
        self.endpoint = endpoint
        self.started = asyncio.Event()


class RpcServer:
    """Serves any number of callers at one path: tachyon.RpcServer for an event loop. An async context manager.

    The handlers of `dispatcher` may be functions, which are called as there, with the request in place, or `async def`.
    Of those up to `max_concurrent` run at once, for all callers together; each gets a copy of its request, as a
    memoryview, which it may keep. While so many run, one more call of each caller is taken, and the rest wait in its
    ring. A caller that does not read its answers has no more calls taken, and harms no other one.
    """

    def __init__(
        self,
        socket_path: _Path,
        dispatcher: RpcDispatcher,
        cap_fwd: int = 1 << 20,
        cap_rev: int = 1 << 20,
        *,
        mode: int = _OWNER_ONLY,
        max_large: int = 1 << 30,
        max_concurrent: int = 64,
        grace: float | None = 10.0,
    ) -> None:
        """Listen at `socket_path`; callers may connect from now on, and are served by serve_forever().

        cap_fwd, cap_rev, mode, max_large: as tachyon.RpcServer. grace: seconds that close() gives to handlers that run;
        None: as long as they take. Raises CapacityError, MemoryError, HandshakeError.
        """
        if not isinstance(dispatcher, RpcDispatcher):
            raise TypeError(f"dispatcher must be an RpcDispatcher, not {type(dispatcher).__name__}")
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent must be at least 1, not {max_concurrent}")
        self.dispatcher = dispatcher
        self._grace = grace
        self._listener = RpcListener(socket_path, cap_fwd, cap_rev, mode=mode, max_large=max_large)
        self._slots = asyncio.Semaphore(max_concurrent)
        self._callers: dict[Caller, asyncio.Task[None] | None] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._handling = 0  # of those, not at the answer yet
        self._ended: asyncio.Event | None = None  # while it serves: a handler has ended
        self._loop: asyncio.AbstractEventLoop | None = None  # while it serves
        self._stopped: asyncio.Event | None = None
        self._stopping = False
        self._closing = False
        self._ending: BaseException | None = None  # what a handler ends the server with
        self._accepted = self._served = self._failed = 0

    # ---- its life ----

    async def serve_forever(self) -> None:
        """Serve until stop() or close(), or until it is cancelled.

        Failures of handlers are logged, with traceback, and their callers get an error reply. A handler's SystemExit
        or KeyboardInterrupt is raised once its caller has been answered. It returns once the handlers that run have
        ended and their answers are sent, for which callers that do not read have a second. Raises BusBusyError when
        another task serves already, BusClosedError after close().
        """
        if self._closing:
            raise BusClosedError(f"{self!r} is closed; make a new one")
        if self._loop is not None:
            raise BusBusyError(f"{self!r} is served by another task already")
        self._loop = asyncio.get_running_loop()
        self._stopped, self._ended = asyncio.Event(), asyncio.Event()
        if self._stopping:
            self._stopped.set()
        accepting = asyncio.ensure_future(self._accept())
        try:
            for caller in self._callers:
                self._attend(caller)
            await self._stopped.wait()
            await self._end_tasks(accepting)
            while self._handling and not self._closing:  # close() has its own patience
                self._ended.clear()
                await self._ended.wait()
            if self._running and not self._closing:  # answers; one whose caller does not read must not keep us
                await asyncio.wait(self._running, timeout=_LAST_WORDS)
        finally:
            await self._end_tasks(accepting)
            self._loop = None
            self._stopping = False
        if self._ending is not None:
            ending, self._ending = self._ending, None
            raise ending

    def stop(self) -> None:
        """Take no more calls; serve_forever() returns once the handlers that run have ended. From any thread.

        Whoever is connected stays so: serve_forever() may be called again.
        """
        self._stopping = True
        loop, stopped = self._loop, self._stopped
        if loop is None or stopped is None:
            return
        if running_loop() is loop:
            stopped.set()
        else:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(stopped.set)

    async def close(self, *, grace: float | None = None) -> None:
        """Stop, let no more callers in, wait for the handlers that run, then close every caller's bus. Idempotent.

        grace: seconds for that; by default what the server was made with. Then they are cancelled, and their callers
        get an error reply.
        """
        await self._close(self._grace if grace is None else grace)

    async def _close(self, grace: float | None) -> None:
        self._closing = True
        self.stop()
        self._listener.close()
        await self._end_tasks(None)
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_LAST_WORDS)
        if self._ended is not None:
            self._ended.set()
        for caller in list(self._callers):
            caller.bus.close()
        self._callers.clear()
        await Pass()

    async def _end_tasks(self, accepting: asyncio.Task[None] | None) -> None:
        """Take no more calls: whatever waits for one ends."""
        tasks = [task for task in (accepting, *self._callers.values()) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def closed(self) -> bool:
        """True after close(), and in a forked child."""
        return self._closing or self._listener.closed

    def stats(self) -> dict[str, int]:
        """Return counters: callers now, callers ever, handlers that run, calls served, of those the failed ones."""
        return {
            "callers": len(self._callers),
            "accepted": self._accepted,
            "running": len(self._running),
            "served": self._served,
            "failed": self._failed,
        }

    async def __aenter__(self) -> Self:
        """Return the server."""
        if self.closed:
            raise BusClosedError(f"{self!r} is closed; make a new one")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, with the grace that it was made with."""
        await self._close(self._grace)

    def __repr__(self) -> str:
        """Name the path and the number of callers."""
        state = "closed" if self.closed else f"{len(self._callers)} callers"
        return f"<tachyon.aio.RpcServer {self._listener.path!r} {state}>"

    # ---- callers ----

    async def _accept(self) -> None:
        while True:
            try:
                bus = await self._listener.accept()
            except BusClosedError:
                return
            except (TachyonError, MemoryError) as error:
                log.error("a caller could not be let in: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            self._accepted += 1
            self._attend(Caller(bus))

    def _attend(self, caller: Caller) -> None:
        self._callers[caller] = asyncio.ensure_future(self._serve(caller))

    async def _serve(self, caller: Caller) -> None:
        try:
            while True:
                await caller.paid.wait()
                guard = await caller.bus.serve()
                self._served += 1
                call = self._begin_call(caller, guard)
                if call is not None:
                    await call.started.wait()
        except (PeerClosedError, BusClosedError):
            pass
        except PeerDeadError as error:
            log.warning("%s", error)
        except (BufferError, MemoryError) as error:  # a handler keeps a view of a request, or there is no room for it
            log.error("%s; its caller is cut off", error)
        self._callers.pop(caller, None)
        caller.bus.close()

    # No await between a call's being taken and its being in the hands of a task, or answered.
    def _begin_call(self, caller: Caller, guard: RxGuard) -> Call | None:
        endpoint = self.dispatcher._endpoints.get(guard.type_id)
        call = Call(caller, guard, endpoint)
        if endpoint is not None and inspect.iscoroutinefunction(endpoint.handler):
            with guard, memoryview(guard) as view:
                request = bytes(view)
            self._handling += 1
            self._start(self._run(call, request))
            return call
        answer: Any = None
        failure: BaseException | None = None
        view = memoryview(guard)
        try:
            if endpoint is None or endpoint.handler is None:
                raise RpcError(f"there is no handler for msg_type {call.msg_type}", call.msg_type)
            answer = endpoint.handler(view)
            check_answer(endpoint, answer)
            caller.bus._check_open()
            if caller.bus._line:
                answer = bytes(memoryview(answer))
            else:
                try:
                    caller.bus.bus.reply(call.id, answer, call.msg_type, timeout=0)
                    return None
                except BusFullError:
                    answer = memoryview(answer).tobytes()
        except (PeerDeadError, BusClosedError):
            raise
        except BaseException as error:
            failure = error
        finally:
            if failure is not None:
                clear_frames_of(failure)
            with contextlib.suppress(BufferError):
                view.release()
            del view
            leave(guard)
        self._start(self._answer(call, answer, failure))
        return None

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, call: Call, request: bytes) -> None:
        answer: Any = None
        failure: BaseException | None = None
        endpoint = call.endpoint
        try:
            async with self._slots:
                call.started.set()
                if endpoint is not None and endpoint.handler is not None:
                    answer = await endpoint.handler(memoryview(request))
                    check_answer(endpoint, answer)
        except BaseException as error:  # a cancellation, too: its caller is not left waiting
            failure = error
        finally:
            call.started.set()
            self._handling -= 1
            if self._ended is not None:
                self._ended.set()
        await self._answer(call, answer, failure)

    async def _answer(self, call: Call, answer: Any, failure: BaseException | None) -> None:
        caller = call.caller
        caller.owed += 1
        caller.paid.clear()
        try:
            if failure is None:
                try:
                    await caller.bus.reply(call.id, answer, call.msg_type)
                    return
                except (PeerDeadError, BusClosedError):
                    raise
                except (Exception, asyncio.CancelledError) as error:  # not a buffer, or too large
                    failure = error
            self._failed += 1
            if isinstance(failure, (KeyboardInterrupt, SystemExit)):
                self._ending = failure
                self.stop()
            elif not isinstance(failure, asyncio.CancelledError):
                log.error("a call failed", exc_info=failure)
            detail = describe(failure) if self.dispatcher.send_details else None
            refusal = _encode_error(call.msg_type, detail, caller.bus.max_reply_size)
            await caller.bus.reply(call.id, refusal, MSG_TYPE_ERROR)
        except (PeerDeadError, BusClosedError):
            pass  # its reader says so
        finally:
            caller.owed -= 1
            if caller.owed == 0:
                caller.paid.set()


def check_answer(endpoint: RpcEndpoint, answer: Any) -> None:
    """TypeError for what is no buffer at first sight."""
    if answer is None or isinstance(answer, str) or inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{endpoint!r} must return a bytes-like object, not {type(answer).__name__}")
