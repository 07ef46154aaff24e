"""Round trips of calls: `call` and `wait` by hand, and an endpoint with a dispatcher; letting go of frames."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tachyon
from tachyon.cli.bench.ours import PATIENCE
from tachyon.cli.bench.pairs import Cores, _mean_trip, both

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = 1 << 20
PAYLOAD = b"x" * 32


@tachyon.tachyon_rpc(1)
def echo(request: memoryview) -> memoryview:
    """Send the request back."""
    return request


def _serve_by_hand(bus: tachyon.RpcBus) -> None:
    try:
        while True:
            with bus.serve() as request:
                bus.reply(request.correlation_id, request, 1)
    except tachyon.PeerClosedError:
        pass


def _serve_with_dispatcher(bus: tachyon.RpcBus) -> None:
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(echo)
    dispatcher.serve_forever(bus)


def _trips(cores: Cores, seconds: float, serve: Callable[[tachyon.RpcBus], None], endpoint: bool) -> float:
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        path = Path(folder, "calls")

        def there() -> None:
            with tachyon.RpcBus.listen(path, CAPACITY, CAPACITY, timeout=PATIENCE) as bus:
                serve(bus)

        def here() -> float:
            with tachyon.RpcBus.connect(path, timeout=PATIENCE) as bus:
                if endpoint:
                    return _mean_trip(seconds, lambda: echo.call(bus, PAYLOAD))
                call, wait = bus.call, bus.wait

                def trip() -> None:
                    with wait(call(PAYLOAD, 1)):
                        pass

                return _mean_trip(seconds, trip)

        value, _ = both(cores, here, there)
    return float(value)


def call_and_wait(cores: Cores, seconds: float) -> float:
    """Nanoseconds of a `call` and `wait` of 32 bytes; the answer is looked at in place."""
    return _trips(cores, seconds, _serve_by_hand, endpoint=False)


def endpoint_call(cores: Cores, seconds: float) -> float:
    """Nanoseconds of `echo.call` of 32 bytes."""
    return _trips(cores, seconds, _serve_with_dispatcher, endpoint=True)


def leave_guard(cores: Cores, size: int) -> float:
    """Nanoseconds that leaving an untouched guard of recv_zero_copy takes."""
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        path, count = Path(folder, "frames"), 100

        def there() -> None:
            with tachyon.Bus.listen(path, 32 << 20, timeout=PATIENCE) as bus:
                for _ in range(count):
                    with bus.send_zero_copy(size) as frame:
                        frame.actual_size = size

        def here() -> float:
            times = []
            with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:
                for _ in range(count):
                    frame = bus.recv_zero_copy()
                    start = time.perf_counter_ns()
                    frame.release()
                    times.append(time.perf_counter_ns() - start)
            return statistics.median(times)

        value, _ = both(cores, here, there)
    return float(value)


def one_call_loop(seconds: float) -> float:
    """Turns per second of an empty loop with one call of a C function that takes a message."""
    from collections import deque

    nowhere: deque[bytes] = deque(maxlen=0)
    call, turns, best = nowhere.append, 200_000, 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(turns):
            call(PAYLOAD)
        best = max(best, turns / (time.perf_counter() - start))
    return best


def idle_cpu(cores: Cores, seconds: float) -> float:
    """Share of a core that `for msg in bus` takes while nothing comes."""
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        path = Path(folder, "idle")

        def there() -> None:
            with tachyon.Bus.listen(path, 1 << 16, timeout=PATIENCE) as bus:
                bus.send(b"")  # the sender, from now on
                time.sleep(seconds)

        def here() -> float:
            with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:
                bus.recv()
                start, before = time.monotonic(), time.process_time()
                for _ in bus:
                    pass
                return (time.process_time() - before) / (time.monotonic() - start)

        value, _ = both(cores, here, there)
    return float(value)
