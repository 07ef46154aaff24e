"""What the campaigns share: checked messages, numbers in shared memory, the watchdog, and how a campaign is told."""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import gc
import mmap
import os
import random
import signal
import struct
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import tachyon

HEAD = struct.Struct("<QI")  # number, crc of the rest: what a message begins with
HANG = 20.0  # seconds that a round may take before it counts as hung; everything in it is done within one or two
NOTICE = 8.0  # the timeout of calls that ought to end by a death
MOST_FAILURES = 5  # of a campaign, before it gives up

# ---- findings --------------------------------------------------------------------------------------------------------

# lost: a message missing, twice, or out of its place. torn: other bytes than were sent. late: nobody woke who slept.
# cut off: a caller lost its server by another's Ctrl-C. wrong: another error than promised, or at another time.
# harness: an exception of the soak's own, which says nothing about the library until somebody has looked.
Fault = Literal["lost", "torn", "hang", "late", "leak", "crash", "cut off", "wrong", "harness"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
CODE = 10  # exit status of a process that found something: this, and which


class Finding(Exception):
    """A promise that was broken."""

    def __init__(self, fault: Fault, what: str) -> None:
        super().__init__(what)
        self.fault = fault


def fault_of(error: BaseException) -> Fault:
    if isinstance(error, Finding):
        return error.fault
    if isinstance(error, (tachyon.PeerDeadError, tachyon.HandshakeError)):
        return "torn" if getattr(error, "reason", "") == "corrupt" else "wrong"
    if isinstance(error, tachyon.TachyonTimeoutError):  # all that is timed is done long before
        return "hang"
    return "wrong" if isinstance(error, tachyon.TachyonError) else "harness"


def exit_with(error: BaseException) -> NoReturn:
    """Ends a child, so that whoever reaps it knows what was found."""
    traceback.print_exception(error)
    os._exit(CODE + FAULTS.index(fault_of(error)))


def judge_exit(status: int, who: str) -> None:
    """Finding if a child that was reaped had one, or crashed."""
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return
    if code < 0:
        raise Finding("crash", f"{who} ended by signal {-code}")
    known = CODE <= code < CODE + len(FAULTS)
    raise Finding(FAULTS[code - CODE] if known else "harness", f"{who} ended with {code}; it said above why")


# ---- messages --------------------------------------------------------------------------------------------------------


class Payloads:
    """Numbered, checksummed messages of random sizes: one line, around half of the ring, and as much as it takes."""

    def __init__(self, source: random.Random, most: int) -> None:
        self.source = source
        self.most = most
        # Bytes that look like the header of a small message, so that a stale line taken for one is a wrong message.
        words = [source.randrange(1, 64) | source.randrange(1 << 16) << 32 for _ in range(most // 8 + 8)]
        self.block = struct.pack(f"<{len(words)}Q", *words)

    def size(self) -> int:
        most = self.most - HEAD.size
        kind = self.source.randrange(10)
        if kind == 0:
            return most
        if kind == 1:
            return max(0, min(most, most // 2 + self.source.randrange(-64, 65)))
        return self.source.randrange(min(most, most if kind < 4 else 300) + 1)

    def make(self, number: int) -> bytes:
        begin = 8 * self.source.randrange(8)
        rest = self.block[begin : begin + self.size()]
        return HEAD.pack(number, zlib.crc32(rest)) + rest


def number_of(data: bytes | bytearray | memoryview) -> int:
    """The number of a message; a Finding if it is damaged."""
    if len(data) < HEAD.size:
        raise Finding("torn", f"only {len(data)} bytes")
    number, crc = HEAD.unpack_from(data)
    if zlib.crc32(memoryview(data)[HEAD.size :]) != crc:
        raise Finding("torn", f"message {number} has another checksum")
    return int(number)


def check(data: bytes | bytearray | memoryview, expected: int) -> None:
    number = number_of(data)
    if number != expected:
        raise Finding("lost", f"message {number} where {expected} was due")


# ---- numbers that outlive whoever wrote them -------------------------------------------------------------------------

ROUND, PHASE, DONE, KILLED_AT, WRONG, ARMED, ACKNOWLEDGED, COUNT = range(8)
FINISHING = 3  # a PHASE: everything has been sent, and finish() comes next


class Slots:
    """Eight 64-bit numbers in a file that processes share. Each is stored at once."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not os.path.exists(self.path):
            Path(self.path).write_bytes(bytes(64))
        with open(self.path, "r+b") as file:
            self._memory = memoryview(mmap.mmap(file.fileno(), 64)).cast("Q")

    def __getitem__(self, index: int) -> int:
        return int(self._memory[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._memory[index] = value

    def await_value(self, index: int, value: int, seconds: float = HANG, *, spin: bool = False) -> bool:
        end = time.monotonic() + seconds
        while self[index] != value:
            if time.monotonic() > end:
                return False
            if not spin:
                time.sleep(0.0002)
        return True


# ---- watchdogs -------------------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Watchdog:
    """Ends this process, with a traceback, when a round takes too long; says beforehand what it is about to do."""

    def __init__(self, state: str | None) -> None:
        self._state = state

    def round(self, what: object, seconds: float = HANG) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True)
        if self._state is not None:
            Path(self._state).write_text(str(what))

    def over(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._state is not None:
            Path(self._state).write_text("")


# ---- what is still open ----------------------------------------------------------------------------------------------


def held() -> tuple[int, int]:
    """How many descriptors, and mappings of segments, this process has."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    return len(os.listdir("/proc/self/fd")), maps.count("/memfd:tachyon")


def settle(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


# ---- telling ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Options:
    """Of one campaign, or of one worker's share of it."""

    seed: str
    amount: int  # kills, interrupts; seconds for the campaigns that go by time
    seconds: float  # after which it stops, done or not
    start: int = 0  # the first round, to repeat one
    victim: str | None = None  # the C++ victim
    state: str | None = None  # a file that says what is being done
    skip: tuple[str, ...] | list[str] = ()  # kinds of rounds


@dataclasses.dataclass
class Report:
    name: str
    seed: str
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    failures: list[tuple[Fault, str]] = dataclasses.field(default_factory=list)
    latencies: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # ms
    seconds: float = 0.0

    def count(self, what: str, by: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + by

    def latency(self, what: str, seconds: float) -> None:
        self.latencies.setdefault(what, []).append(seconds * 1000)

    def fail(self, fault: Fault, what: str) -> None:
        self.failures.append((fault, what))

    def caught(self, error: Exception, where: str) -> None:
        fault = fault_of(error)
        if fault == "harness":
            traceback.print_exception(error)
        self.fail(fault, f"{error if isinstance(error, Finding) else repr(error)}; {where}")

    @property
    def hopeless(self) -> bool:
        return len(self.failures) >= MOST_FAILURES

    def merge(self, other: dict[str, Any]) -> None:
        for key, value in other["counts"].items():
            self.count(key, value)
        for key, values in other["latencies"].items():
            self.latencies.setdefault(key, []).extend(values)
        self.failures += [(fault, what) for fault, what in other["failures"]]
        self.seconds = max(self.seconds, other["seconds"])


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 99th percentile, greatest."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], ordered[-1]
