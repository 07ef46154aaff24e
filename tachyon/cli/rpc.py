"""`serve` and `call`: an RpcServer for a dispatcher that a module holds, and one call to one."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tachyon import MSG_TYPE_ERROR, RpcBus, RpcDispatcher, RpcServer, TachyonTimeoutError
from tachyon.cli.exits import ERROR, OK, SIGNALLED, Failure
from tachyon.cli.meter import say, waiting
from tachyon.cli.opening import Opening

if TYPE_CHECKING:
    from types import FrameType


def serve(target: str, path: str, calls: int, replies: int, quiet: bool) -> int:
    """Serve the dispatcher that `target`, MODULE:NAME, names, until a signal ends it. Returns the exit code."""
    dispatcher = _load(target)
    if not quiet:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    ended_by: signal.Signals | None = None
    with RpcServer(path, dispatcher, calls, replies) as server:

        def stop(signum: int, _frame: FrameType | None) -> None:
            nonlocal ended_by
            if ended_by is not None:  # asked twice: the handler that is running does not come back
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            ended_by = signal.Signals(signum)
            server.stop()  # the call that is being served is answered first

        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, stop)
        if not quiet:
            say(f"serving {target} at {path}; Ctrl-C ends it")
        server.serve_forever()
        served = server.stats()["served"]
    if not quiet:
        say(f"served {served} calls")
    return SIGNALLED + (ended_by or signal.SIGINT)  # a handler may have raised KeyboardInterrupt itself


def call(path: str, msg_type: int, payload: str | None, timeout: float, quiet: bool = False) -> int:
    """Make one call and write its answer to stdout. Returns the exit code."""
    # Read it first: whoever types it may take longer than the server is patient, and than the timeout.
    request = b"" if payload is None else sys.stdin.buffer.read() if payload == "-" else os.fsencode(payload)
    deadline = time.monotonic() + timeout
    with Opening() as opening:
        with waiting(f"a server at {path}", quiet):
            bus = opening.take(RpcBus.connect, path, timeout=timeout)
        with bus:
            correlation_id = bus.call(request, msg_type, timeout=max(0.0, deadline - time.monotonic()))
            try:
                with waiting(f"the answer from {path}", quiet):
                    guard = bus.wait(correlation_id, timeout=max(0.0, deadline - time.monotonic()))
            except TachyonTimeoutError:
                raise TachyonTimeoutError(f"no answer from {path} within {timeout:g} seconds") from None
            with guard, memoryview(guard) as answer:
                if guard.type_id == MSG_TYPE_ERROR:
                    detail = bytes(answer[2:]).decode("utf-8", "replace")
                    raise Failure(ERROR, f"the call of msg_type {msg_type} failed" + (f": {detail}" if detail else ""))
                sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return OK


def _load(target: str) -> RpcDispatcher:
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise Failure(ERROR, f"{target!r} is not MODULE:DISPATCHER, e.g. shop.orders:dispatcher")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # it is there, and something that it imports is not
        raise Failure(ERROR, f"there is no module {error.name!r}; it is looked for here and in PYTHONPATH") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise Failure(ERROR, f"{module_name} has no {name}")
        found = getattr(found, part)
    if not isinstance(found, RpcDispatcher):
        raise Failure(ERROR, f"{target} is no RpcDispatcher but {type(found).__name__}")
    return found
