"""The targets, as rows: which two figures, which way round, and what their ratio has to be."""

from __future__ import annotations

from dataclasses import dataclass

from tachyon.cli.bench.objects import SIZE
from tachyon.cli.bench.results import Key, Results

KI, MI = 1 << 10, 1 << 20
MET, NOT_MET, NOT_MEASURED = "met", "NOT MET", "not measured"


@dataclass(frozen=True)
class Row:
    """`top` ÷ `bottom`; or `top` alone, where there is no bottom."""

    number: str  # of the target; empty: told beside it, without a verdict
    text: str
    top: Key
    bottom: Key | None
    bound: str = ""  # "<=", ">=" or "±" (within so much of 1)
    target: float = 0
    far: float | None = None  # another target where the cores share no cache
    unit: str = ""
    invert: bool = False  # rates, where the row speaks of times, or the other way round
    scale: float = 1

    def needs(self) -> list[Key]:
        """What has to be measured for it."""
        return [self.top] if self.bottom is None else [self.top, self.bottom]


@dataclass(frozen=True)
class Outcome:
    """A row's value in one run, between what its extreme repetitions would give."""

    value: float
    least: float
    greatest: float
    target: float
    verdict: str
    detail: str


def evaluate(row: Row, results: Results) -> Outcome | None:
    """Return what the samples say; None where one is missing."""
    spreads = [results.spread(*key) for key in row.needs()]
    if any(spread is None for spread in spreads):
        return None
    top = spreads[0]
    if row.bottom is None:
        low, value, high = top.least, top.median, top.greatest
    else:
        bottom = spreads[1]
        low, high = top.least / bottom.greatest, top.greatest / bottom.least
        value = top.median / bottom.median
        if row.invert:
            low, value, high = 1 / high, 1 / value, 1 / low
    low, value, high = (row.scale * each for each in (low, value, high))
    target = row.target if row.far is None or results.placement() == "near" else row.far
    good = {"<=": value <= target, ">=": value >= target, "±": abs(value - 1) <= target, "": True}[row.bound]
    names = [f"{key[0]} {spread.median:.4g}" for key, spread in zip(row.needs(), spreads, strict=True)]
    verdict = "" if not row.number else MET if good else NOT_MET
    return Outcome(value, low, high, target, verdict, ", ".join(names) + f"; n = {min(s.count for s in spreads)}")


def trip(channel: str, size: int = 32, capacity: int = MI) -> Key:
    """Key of a C++ round trip."""
    return f"round_trip:{channel}", size, capacity


def way(channel: str, size: int = 32, capacity: int = MI) -> Key:
    """Key of a C++ one-way stream."""
    return f"one_way:{channel}", size, capacity


def py_way(channel: str, size: int = 32, capacity: int = MI) -> Key:
    """Key of a Python one-way stream."""
    return f"py:one_way:{channel}", size, capacity


def loop_trip(channel: str) -> Key:
    """Key of a round trip between two event loops, with a pause before each in which both fall asleep."""
    return f"py:loop_parked:{channel}", 32, MI


PY_TRIP: Key = ("py:round_trip:bus", 32, MI)
PY_WAY = py_way("bus")
LOOP: Key = ("py:loop", 32, 0)
FRAME, FRAME_RING = 6 * MI, 64 * MI
BY_OBJECT = py_way("bus-floats", SIZE), py_way("queue-floats", SIZE)
CAMERA, BY_HAND = ("camera:bus", 6_220_800, 32 * MI), ("camera:by-hand", 6_220_800, 31_104_000)

ROWS = [
    Row("1", "C++ round trip 32 B ÷ bare rotating lines", trip("ring"), trip("lines"), "<=", 1.10),
    Row("", "  row 1 through Bus", trip("bus"), trip("lines")),
    Row("2", "C++ one way 32 B ÷ Boost.Lockfree spsc_queue", way("ring"), way("boost"), ">=", 6, 1.5),
    Row("", "  row 2 through Bus", way("bus"), way("boost")),
    Row("3", "C++ one way 1 KiB ÷ Boost.Lockfree spsc_queue", way("ring", KI), way("boost", KI), ">=", 5, 1.5),
    Row("", "  row 3 through Bus", way("bus", KI), way("boost", KI)),
    Row(
        "4",
        "C++ one way 64 KiB, 8 MiB ring ÷ plain copies",
        way("bus", 64 * KI, 8 * MI),
        way("copy", 64 * KI, 8 * MI),
        ">=",
        1.0,
    ),
    Row("5", "parked round trip ÷ UNIX stream socket", trip("parked"), trip("unix"), "<=", 0.75),
    Row("", "  blocking calls, which spin before they park", trip("bus-blocking"), trip("unix")),
    Row("6", "Python round trip 32 B ÷ C++ round trip", PY_TRIP, trip("ring"), "<=", 2.2),
    Row("7", "Python one way 32 B ÷ multiprocessing.Pipe", PY_WAY, py_way("pipe"), ">=", 25),
    Row("7", "Python one way 32 B ÷ pyzmq PAIR ipc", PY_WAY, py_way("pyzmq"), ">=", 10),
    Row("8", "send_many + drain_batch ÷ single sends", py_way("bus-batches"), PY_WAY, ">=", 1.5),
    Row("9", "Python call + wait ÷ Python bus round trip", ("py:call", 32, MI), PY_TRIP, "<=", 1.5),
    Row("9", "Python echo.call ÷ Python bus round trip", ("py:endpoint", 32, MI), PY_TRIP, "<=", 3),
    Row("", "  C++ RPC round trip ÷ C++ Bus round trip", trip("rpc"), trip("bus")),
    Row("10", "Cython, ring inlined ÷ C++ ring", ("cy:inlined", 32, MI), way("ring"), ">=", 0.95),
    Row("10", "Cython, methods of Bus ÷ C++ ring", ("cy:methods", 32, MI), way("ring"), ">=", 0.4),
    Row("", "  written in place ÷ C++ ring", ("cy:methods-in-place", 32, MI), way("ring")),
    Row("", "  received in batches ÷ C++ ring", ("cy:methods-batches", 32, MI), way("ring")),
    Row(
        "11",
        "cost of 32 B, ring of 64 KiB ÷ 256 MiB",
        way("bus", 32, 64 * KI),
        way("bus", 32, 256 * MI),
        "±",
        0.25,
        invert=True,
    ),
    Row(
        "11",
        "cost of 32 B, 1 bus ÷ one of 256 in the process",
        ("buses:1:1", 32, 64 * KI),
        ("buses:256:1", 32, 64 * KI),
        "±",
        0.25,
        invert=True,
    ),
    Row(
        "",
        "  1 bus ÷ 256 in turn, a message each",
        ("buses:1:1", 32, 64 * KI),
        ("buses:256:256", 32, 64 * KI),
        invert=True,
    ),
    Row("12", "memory of a bus beyond its ring, KiB", ("memory", 0, 64 * KI), None, "<=", 64, scale=1 / KI),
    Row("12", "listen + connect at 64 KiB, ms", ("set_up", 0, 64 * KI), None, "<=", 1, scale=1e-6),
    Row("13", "CPU of a parked C++ receiver, % of a core", ("idle", 0, 64 * KI), None, "<=", 0.2, scale=100),
    Row("13", "CPU of a parked Python receiver, % of a core", ("py:idle", 0, 64 * KI), None, "<=", 0.2, scale=100),
    Row("14", "C++ one way 32 B through Bus ÷ the ring alone", way("bus"), way("ring"), ">=", 0.9),
    Row("15", "one way 32 B, 64 KiB ring ÷ 1 MiB ring", way("bus", 32, 64 * KI), way("bus"), ">=", 0.7),
    Row("15", "one way 1 KiB, 64 KiB ring ÷ 1 MiB ring", way("bus", KI, 64 * KI), way("bus", KI), ">=", 0.7),
    Row("17", "round trip, blocking calls ÷ spinning by hand", trip("bus-blocking"), trip("bus"), "<=", 1.1),
    Row("18", "Python one way 32 B ÷ a loop with one C call, times", LOOP, PY_WAY, "<=", 1.5),
    Row(
        "19",
        "Python arrays of 6 MiB ÷ plain copies",
        py_way("bus-arrays", FRAME, FRAME_RING),
        way("copy", FRAME, FRAME_RING),
        ">=",
        0.8,
    ),
    Row(
        "19",
        "  both copied, by recv_array ÷ in place",
        py_way("bus-array-copies", FRAME, FRAME_RING),
        py_way("bus-arrays", FRAME, FRAME_RING),
        ">=",
        0.5,
    ),
    Row(
        "",
        "  send and recv of 6 MiB of bytes ÷ plain copies",
        py_way("bus", FRAME, FRAME_RING),
        way("copy", FRAME, FRAME_RING),
    ),
    Row("20", "aio one way 32 B ÷ asyncio streams", py_way("aio"), py_way("asyncio-streams"), ">=", 10),
    Row("", "  one way ÷ zmq.asyncio", py_way("aio"), py_way("zmq-asyncio")),
    Row("", "  one way ÷ multiprocessing.Pipe in an executor", py_way("aio"), py_way("pipe-executor")),
    Row("20", "aio parked round trip ÷ asyncio streams", loop_trip("aio"), loop_trip("asyncio-streams"), "<=", 0.7),
    Row("", "  parked ÷ zmq.asyncio", loop_trip("aio"), loop_trip("zmq-asyncio")),
    Row("", "  parked ÷ multiprocessing.Pipe in an executor", loop_trip("aio"), loop_trip("pipe-executor")),
    Row(
        "",
        "  without a pause ÷ asyncio streams",
        ("py:loop_trip:aio", 32, MI),
        ("py:loop_trip:asyncio-streams", 32, MI),
    ),
    Row(
        "objects",
        "dict of 1,000 dataclasses ÷ multiprocessing.Queue",
        py_way("bus-records", SIZE),
        py_way("queue-records", SIZE),
        ">=",
        1.5,
    ),
    Row("objects", "dict of 1,000 floats ÷ multiprocessing.Queue", *BY_OBJECT, ">=", 1),
    Row(
        "release",
        "leaving a guard: 6 MB ÷ 6 kB, Python",
        ("py:leave", 6_000_000, 0),
        ("py:leave", 6_000, 0),
        "<=",
        1.25,
    ),
    Row(
        "release",
        "Bus::release: 6 MB ÷ 6 kB, C++",
        ("release", 6_000_000, 32 * MI),
        ("release", 6_000, 32 * MI),
        "<=",
        1.25,
    ),
    Row("camera", "6 MB frames in place ÷ by hand with semaphores", CAMERA, BY_HAND, ">=", 0.95),
]
