"""listen and connect: blocking calls in a thread of their own, which can be asked to give up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from tachyon._tachyon import GivingUp


class Closable(Protocol):
    """What comes of them."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


async def open_in_thread(call: Callable[..., C], *args: Any, **kwargs: Any) -> C:
    """Return call(*args, **kwargs). Who is cancelled waits until it has been given up, some 50 ms at most.

    Not the loop's executor: its threads are few, others need them, and this may wait for ever.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[C] = loop.create_future()
    giving_up = GivingUp()

    def run() -> None:
        result: C | None = None
        error: BaseException | None = None
        try:
            result = giving_up.run(call, args, kwargs)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, opened, result, error)
        except RuntimeError:  # the loop is closed: nobody will ask any more
            if result is not None:
                result.close()

    threading.Thread(target=run, name="tachyon.aio", daemon=True).start()
    try:
        return await asyncio.shield(opened)
    except asyncio.CancelledError:
        giving_up.ask()
        while not opened.done():
            with contextlib.suppress(asyncio.CancelledError):  # it comes out below
                await asyncio.wait([opened])
        if opened.exception() is None:
            opened.result().close()
        raise


def settle(opened: asyncio.Future[C], result: C | None, error: BaseException | None) -> None:
    """Pass on what came of it."""
    if error is not None:
        opened.set_exception(error)
    elif result is not None:
        opened.set_result(result)
