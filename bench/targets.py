"""Measure what the project promises, as ratios within one run, and print them.

    python bench/targets.py [--repetitions N] [--bench PATH] [--json FILE]

C++ figures come from build/release/cxx/bench/tachyon_bench; the Python ones from two processes of this interpreter,
pinned to different cores. What is compared is measured side by side, in turns. Each repetition is bracketed by a raw
ping-pong that tells where the two virtual cores were (near: one cache; far: not), and only repetitions of one placement
are compared.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import tachyon

ROOT = Path(__file__).parent.parent
PAYLOAD = b"x" * 32
RING = 1 << 20
WATCHDOG = 120  # seconds for one measurement

# ---- the Cython loops ------------------------------------------------------------------------------------------------

CYTHON_MESSAGES = 10_000_000
CYTHON_FOLDER = ROOT / "build" / "cython_loop"


def build_cython_loops() -> bool:
    """Compile bench/cython_loop, as a project elsewhere would. False where there is no Cython or no compiler."""
    if not importlib.util.find_spec("Cython"):
        return False
    CYTHON_FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "bench/cython_loop/setup.py"), "build_ext"]
    command += ["--build-lib", str(CYTHON_FOLDER), "--build-temp", str(CYTHON_FOLDER / "temp")]
    done = subprocess.run(command, cwd=CYTHON_FOLDER, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(done.stdout.decode(errors="replace"), file=sys.stderr)
    return done.returncode == 0


def cython_loops() -> ModuleType:
    """What build_cython_loops has made."""
    if str(CYTHON_FOLDER) not in sys.path:
        sys.path.insert(0, str(CYTHON_FOLDER))
    return importlib.import_module("loops")


# ---- the second process of each Python measurement ------------------------------------------------------------------


def pin(core: int) -> None:
    """Stay on one core, if there are two."""
    if (os.cpu_count() or 1) > 1:  # not what is allowed now: a child inherits its parent's one core
        os.sched_setaffinity(0, {core})


def child_echo(folder: str) -> None:
    """Send everything back."""
    with tachyon.Bus.connect(f"{folder}/there", timeout=10) as inbound:
        outbound = tachyon.Bus.connect(f"{folder}/back", timeout=10)
        send = outbound.send
        for message in inbound:
            send(message.data)
        outbound.close()


def child_sink(folder: str) -> None:
    """Receive, and tell how long it took since the first message."""
    with tachyon.Bus.connect(f"{folder}/there", timeout=10) as bus:
        next(bus)
        start, count = time.perf_counter(), 0
        for _ in bus:
            count += 1
        print((time.perf_counter() - start) / count)


def child_sink_batches(folder: str) -> None:
    """Receive in batches."""
    with tachyon.Bus.connect(f"{folder}/there", timeout=10) as bus:
        bus.recv()
        start, count = time.perf_counter(), 0
        while True:
            try:
                with bus.drain_batch(256) as batch:
                    count += len(batch)
            except tachyon.PeerClosedError:
                break
        print((time.perf_counter() - start) / count)


def cython_sink(folder: str, loop: str) -> None:
    """Receive in a nogil loop, and tell when it ended."""
    with tachyon.Bus.connect(f"{folder}/there", timeout=10) as bus:
        print(getattr(cython_loops(), loop)(bus, CYTHON_MESSAGES))


def child_cython_inlined(folder: str) -> None:
    """Receive from the inlined ring."""
    cython_sink(folder, "inlined_receive")


def child_cython_methods(folder: str) -> None:
    """Receive one by one with the methods of Bus."""
    cython_sink(folder, "methods_receive")


def child_cython_batches(folder: str) -> None:
    """Receive in batches with the methods of Bus."""
    cython_sink(folder, "methods_receive_batches")


def child_sink_zmq(folder: str) -> None:
    """Receive from a PAIR socket until an empty message."""
    import zmq

    socket = zmq.Context().socket(zmq.PAIR)
    socket.connect(f"ipc://{folder}/zmq")
    socket.recv()
    start, count = time.perf_counter(), 0
    receive = socket.recv
    while receive():
        count += 1
    print((time.perf_counter() - start) / count)


def sink_pipe(pipe, result) -> None:  # type: ignore[no-untyped-def]
    """Receive from a multiprocessing.Pipe until an empty message."""
    pin(1)
    receive = pipe.recv_bytes
    receive()
    start, count = time.perf_counter(), 0
    while receive():
        count += 1
    result.send((time.perf_counter() - start) / count)


# ---- the measurements: nanoseconds ----------------------------------------------------------------------------------


def with_child(role: str, run: Callable[[str], float | None]) -> float:
    """Run one side here and the other, by its role, in a second process; the figure comes from either."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--role", role, "--folder", folder]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            here = run(folder)
            there, _ = child.communicate(timeout=WATCHDOG)
        finally:
            child.kill()
        return here if here is not None else float(there) * 1e9


def python_round_trip() -> float:
    """`send` + `for msg in bus`, 32 B, both ways."""

    def run(folder: str) -> float:
        trips = 100_000
        outbound = tachyon.Bus.listen(f"{folder}/there", RING, timeout=10)
        inbound = tachyon.Bus.listen(f"{folder}/back", RING, timeout=10)
        send, chunks = outbound.send, []
        for _ in range(5):
            count = 0
            start = time.perf_counter()
            send(PAYLOAD)
            for _message in inbound:
                count += 1
                if count == trips:
                    break
                send(PAYLOAD)
            chunks.append((time.perf_counter() - start) / trips * 1e9)
        outbound.close()
        inbound.close()
        return statistics.median(chunks)

    return with_child("echo", run)


@tachyon.tachyon_rpc(1)
def echo(request: memoryview) -> memoryview:
    """Send the request back."""
    return request


def child_serve(folder: str) -> None:
    """Answer calls by hand, at /calls; then, at /endpoint, with the dispatcher."""
    with tachyon.RpcBus.listen(f"{folder}/calls", RING, RING, timeout=10) as bus:
        try:
            while True:
                with bus.serve() as request:
                    bus.reply(request.correlation_id, request, 1)
        except tachyon.PeerClosedError:
            pass
    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(echo)
    with tachyon.RpcBus.listen(f"{folder}/endpoint", RING, RING, timeout=10) as bus:
        dispatcher.serve_forever(bus)


def python_rpc() -> float:
    """`call` + `wait` of 32 B; the answer is read in place."""

    def run(folder: str) -> float:
        with tachyon.RpcBus.connect(f"{folder}/calls", timeout=10) as bus:
            call, wait = bus.call, bus.wait

            def trip() -> None:
                with wait(call(PAYLOAD, 1)):
                    pass

            value = median_trip(trip)
        tachyon.RpcBus.connect(f"{folder}/endpoint", timeout=10).close()
        return value

    return with_child("serve", run)


def python_rpc_endpoint() -> float:
    """`echo.call` and `serve_forever`, 32 B."""

    def run(folder: str) -> float:
        tachyon.RpcBus.connect(f"{folder}/calls", timeout=10).close()
        with tachyon.RpcBus.connect(f"{folder}/endpoint", timeout=10) as bus:
            return median_trip(lambda: echo.call(bus, PAYLOAD))

    return with_child("serve", run)


def median_trip(trip: Callable[[], object]) -> float:
    """Nanoseconds a call of trip() takes."""
    chunks = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(20_000):
            trip()
        chunks.append((time.perf_counter() - start) / 20_000 * 1e9)
    return statistics.median(chunks)


def python_one_way() -> float:
    """`send` + `for msg in bus`, 32 B."""

    def run(folder: str) -> None:
        with tachyon.Bus.listen(f"{folder}/there", RING, timeout=10) as bus:
            send = bus.send
            for _ in range(2_000_000):
                send(PAYLOAD)

    return with_child("sink", run)


def python_one_way_batches() -> float:
    """`send_many` + `drain_batch`, 32 B."""

    def run(folder: str) -> None:
        with tachyon.Bus.listen(f"{folder}/there", RING, timeout=10) as bus:
            bus.send(PAYLOAD)
            batch = [PAYLOAD] * 256
            for _ in range(2_000_000 // 256):
                bus.send_many(batch)

    return with_child("sink_batches", run)


def cython_one_way(send: str, role: str) -> float:
    """Messages per second of two nogil loops: as cxx/bench measures, from the first send to the end of the receiver."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--role", role, "--folder", folder]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            with tachyon.Bus.listen(f"{folder}/there", RING, timeout=10) as bus:
                start = getattr(cython_loops(), send)(bus, CYTHON_MESSAGES)
                end, _ = child.communicate(timeout=WATCHDOG)
        finally:
            child.kill()
    return CYTHON_MESSAGES * 1e9 / (int(end) - start)


def cython_inlined() -> float:
    """Tier 2: Producer and Consumer, inlined."""
    return cython_one_way("inlined_send", "cython_inlined")


def cython_methods() -> float:
    """Tier 1: Bus.send_bytes, Bus.peek and release."""
    return cython_one_way("methods_send", "cython_methods")


def cython_methods_in_place() -> float:
    """Tier 1: Bus.claim and commit, Bus.peek and release."""
    return cython_one_way("methods_claim", "cython_methods")


def cython_methods_batches() -> float:
    """Tier 1: Bus.send_bytes, Bus.drain and release_all."""
    return cython_one_way("methods_send", "cython_batches")


def zmq_one_way() -> float:
    """Pyzmq PAIR over ipc, 32 B."""
    import zmq

    def run(folder: str) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PAIR)
        socket.bind(f"ipc://{folder}/zmq")
        send = socket.send
        for _ in range(400_000):
            send(PAYLOAD)
        send(b"")
        context.destroy(linger=-1)

    return with_child("sink_zmq", run)


def pipe_one_way() -> float:
    """multiprocessing.Pipe with send_bytes and recv_bytes, 32 B."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    result, result_sender = context.Pipe(duplex=False)
    child = context.Process(target=sink_pipe, args=(receiver, result_sender))
    child.start()
    try:
        send = sender.send_bytes
        for _ in range(200_000):
            send(PAYLOAD)
        send(b"")
        if not result.poll(WATCHDOG):
            raise TimeoutError("the receiving side of the pipe is gone")
        return float(result.recv()) * 1e9
    finally:
        child.kill()
        child.join()


# ---- running them ----------------------------------------------------------------------------------------------------


class Runner:
    """Calls measurements by name and keeps (placement, value) of each."""

    def __init__(self, bench: Path) -> None:
        """Remember where the C++ program is."""
        self.bench = bench
        self.samples: dict[str, list[tuple[str, float]]] = {}

    def cpp(self, what: str) -> None:
        """One repetition in C++."""
        command = [str(self.bench), what, "1"]
        line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=WATCHDOG).stdout)
        self.samples.setdefault(what, []).append((line["placement"], line["value"]))

    def placement(self) -> str:
        """Where the two cores are now."""
        command = [str(self.bench), "probe", "1"]
        return str(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["placement"])

    def python(self, measure: Callable[[], float]) -> None:
        """One repetition in Python, between two probes."""
        before = self.placement()
        pin(0)
        value = measure()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        after = self.placement()
        placement = before if before == after else "changed"
        self.samples.setdefault(measure.__name__, []).append((placement, value))

    def median(self, name: str, placement: str) -> tuple[float, int]:
        """Median over the repetitions of one placement, and how many there were."""
        values = [value for where, value in self.samples.get(name, []) if where == placement]
        return (statistics.median(values), len(values)) if values else (float("nan"), 0)


def main() -> int:
    """Measure in turns, then print a line per target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--bench", type=Path, default=ROOT / "build/release/cxx/bench/tachyon_bench")
    parser.add_argument("--only", help="measure only these, separated by commas; ratios of others are nan")
    parser.add_argument("--json", type=Path, help="also write every sample to this file")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        pin(1)
        globals()[f"child_{options.role}"](options.folder)
        return 0
    if not options.bench.exists():
        print(f"{options.bench} is missing; build it with: cmake --preset release && cmake --build --preset release")
        return 1
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed to measure two processes")
        return 1

    runner = Runner(options.bench)
    only = set(options.only.split(",")) if options.only else None
    listed = subprocess.run([str(options.bench)], check=False, capture_output=True, text=True).stderr.split()
    cpp = [
        "line",
        "rtt",
        "bus_rtt",
        "oneway32",
        "boost32",
        "bus_oneway32",
        "parked",
        "unix",
        "bus_blocking_rtt",
        "rpc_rtt",
    ]
    python: list[Callable[[], float]] = [
        python_round_trip,
        python_rpc,
        python_rpc_endpoint,
        python_one_way,
        python_one_way_batches,
        pipe_one_way,
    ]
    if importlib.util.find_spec("zmq"):
        python.append(zmq_one_way)
    cython: list[Callable[[], float]] = [
        cython_inlined,
        cython_methods,
        cython_methods_in_place,
        cython_methods_batches,
    ]
    if (only is None or any(each.__name__ in only for each in cython)) and build_cython_loops():
        python += cython
    for turn in range(options.repetitions):
        print(f"\rrepetition {turn + 1} of {options.repetitions}", end="", file=sys.stderr, flush=True)
        for what in cpp:
            if what in listed and (only is None or what in only):
                runner.cpp(what)
        for measure in python:
            if only is None or measure.__name__ in only:
                runner.python(measure)
    print(file=sys.stderr)

    counts = Counter(where for samples in runner.samples.values() for where, _ in samples)
    placement = "near" if counts["near"] >= sum(counts.values()) / 2 else counts.most_common(1)[0][0]

    def ratio(target: str, text: str, above: str, below: str, *, invert: bool = False) -> None:
        (top, n), (bottom, m) = runner.median(above, placement), runner.median(below, placement)
        value = bottom / top if invert else top / bottom
        print(f"{target:>3}  {text:<76} {value:8.2f}   ({above} {top:.4g}, {below} {bottom:.4g}; n = {n}, {m})")

    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = model[0].partition(": ")[2] if model else platform.machine()
    print(f"{cpu}, Python {platform.python_version()}, placement {placement}")
    print(f"repetitions by placement: {dict(counts)}")
    print("round trips and Python figures in ns (less is better)")
    print("C++ and Cython one-way figures in messages/s (more is better)")
    ratio("1", "C++ round trip 32 B / bare rotating lines                    target <= 1.10", "rtt", "line")
    ratio("", "  the same through Bus, liveness checks included", "bus_rtt", "line")
    ratio("2", "C++ one way 32 B / Boost.Lockfree spsc_queue                 target >= 6", "oneway32", "boost32")
    ratio("", "  the same through Bus, liveness checks included", "bus_oneway32", "boost32")
    ratio("5", "parked round trip / UNIX stream socket                       target <= 0.75", "parked", "unix")
    ratio("", "  blocking calls of Bus as they are, spinning before they park", "bus_blocking_rtt", "unix")
    ratio("6", "Python round trip 32 B / C++ round trip                      target <= 2.2", "python_round_trip", "rtt")
    ratio(
        "7",
        "Python one way 32 B / multiprocessing.Pipe, as rates         target >= 25",
        "python_one_way",
        "pipe_one_way",
        invert=True,
    )
    ratio(
        "7",
        "Python one way 32 B / pyzmq PAIR ipc, as rates               target >= 10",
        "python_one_way",
        "zmq_one_way",
        invert=True,
    )
    ratio(
        "8",
        "send_many + drain_batch / single sends, as rates             target >= 1.5",
        "python_one_way_batches",
        "python_one_way",
        invert=True,
    )
    ratio("9", "C++ RPC round trip / C++ Bus round trip                      target <= 1.15", "rpc_rtt", "bus_rtt")
    text = "Python call + wait / Python bus round trip                   target <= 1.5"
    ratio("9", text, "python_rpc", "python_round_trip")
    text = "Python echo.call / the same                                  target <= 3"
    ratio("9", text, "python_rpc_endpoint", "python_round_trip")
    text = "Cython one way 32 B, ring inlined / C++ ring                 target >= 0.95"
    ratio("10", text, "cython_inlined", "oneway32")
    text = "Cython one way 32 B, methods of Bus / C++ ring               target >= 0.4"
    ratio("10", text, "cython_methods", "oneway32")
    ratio("", "  the same, written in place, / C++ ring", "cython_methods_in_place", "oneway32")
    ratio("", "  the same, received in batches, / C++ ring", "cython_methods_batches", "oneway32")
    ratio("", "  methods of Bus / C++ Bus, which looks after the peer too", "cython_methods", "bus_oneway32")
    if options.json:
        options.json.write_text(
            json.dumps({"cpu": model[:1], "placement": placement, "samples": runner.samples}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
