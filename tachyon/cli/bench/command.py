"""The command: measure in turns, then print what came of it; or compare two files."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tachyon.cli.bench import machine, native, pairs, percentiles, plots
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.bench.report import lines
from tachyon.cli.bench.results import Results, Sample, compare
from tachyon.cli.exits import ERROR, OK, Failure
from tachyon.cli.meter import is_terminal, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from tachyon.cli.bench.pairs import Channel, Cores

SMALL = 32
SIZES = (SMALL, 1 << 10, 64 << 10, 1 << 20)
CAPACITIES = (64 << 10, 1 << 20, 16 << 20)  # for small messages
NO_LATENCY = {"bus-batches", "bus-into", "bus-in-place", "bus-arrays", "bus-array-copies"}
NO_SMALL = {"bus-arrays", "bus-array-copies"}
CXX = "c++"  # beside the names of channels
CXX_WAYS = "ring,bus,bus-blocking,index,index32,copy"
CXX_TRIPS = "lines,ring,bus,bus-blocking,parked,index,unix"
CXX_MILLISECONDS = 30
UNKNOWN = "unknown"  # placement, where nothing compiled can tell


def capacity_for(size: int) -> int:
    """Return a ring of 1 MiB, or of sixteen messages."""
    return max(1 << 20, 16 * size)


def channels(only: str | None) -> tuple[list[type[Channel]], bool]:
    """Return those that are asked for, and whether C++ is; Failure for a name that there is not."""
    known = {each.name: each for each in [*OURS, *PEERS]}
    if only is None:
        return list(known.values()), True
    wanted = only.split(",")
    for name in wanted:
        if name not in known and name != CXX:
            raise Failure(ERROR, f"there is no {name!r} to measure; there are: {', '.join([*known, CXX])}")
    return [known[name] for name in wanted if name != CXX], CXX in wanted


def run(options: argparse.Namespace) -> int:
    """Do what the command line says."""
    if options.compare:
        before, after = (Results.load(path) for path in options.compare)
        print("\n".join(compare(before, after)))
        return OK
    chosen, cxx = channels(options.only)
    cores = options.cores or machine.choose_cores()
    reasons = machine.unfit(cores)
    if reasons and not options.anyway:
        raise Failure(
            ERROR, "this machine is not fit for ratios now: " + "; ".join(reasons) + ". --anyway measures all the same"
        )
    results = Results(machine.facts(cores))
    results.machine["unfit"] = reasons
    measure_all(results, chosen, cores, options.repetitions, options.seconds, cxx=cxx)
    print("\n".join(lines(results)))
    if not percentiles.have_hdr():
        say(percentiles.MISSING_HDR)
    if options.json:
        results.save(options.json)
    if options.plots:
        if not plots.have_matplotlib():
            raise Failure(ERROR, plots.MISSING)
        for path in plots.draw(results, options.plots):
            print(f"wrote {path}")
    return OK


def plan(chosen: list[type[Channel]], cores: Cores, seconds: float) -> Iterator[tuple[str, str, Callable[[], Sample]]]:
    """Yield all measurements of one turn in Python: the channel, what it does, and how."""

    def one_way(kind: type[Channel], size: int, capacity: int) -> Callable[[], Sample]:
        def measure() -> Sample:
            value = pairs.one_way(kind, cores, size, capacity, seconds)
            return Sample(f"py:one_way:{kind.name}", size, capacity, value, "")

        return measure

    def round_trip(kind: type[Channel]) -> Callable[[], Sample]:
        def measure() -> Sample:
            capacity = capacity_for(SMALL)
            mean, samples = pairs.round_trip(kind, cores, SMALL, capacity, seconds)
            points, hdr = percentiles.summarize(samples)
            found = [list(point) for point in points]
            return Sample(f"py:round_trip:{kind.name}", SMALL, capacity, mean, "", found, hdr)

        return measure

    for size in SIZES:
        for kind in chosen:
            if size != SMALL or kind.name not in NO_SMALL:
                yield kind.name, f"{size} B", one_way(kind, size, capacity_for(size))
    for capacity in CAPACITIES:
        for kind in chosen:
            if kind.name == "bus" and capacity != capacity_for(SMALL):
                yield kind.name, f"ring of {capacity} B", one_way(kind, SMALL, capacity)
    for kind in chosen:
        if kind.name not in NO_LATENCY:
            yield kind.name, "round trips", round_trip(kind)


def plan_cxx() -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield all commands of one turn in C++: what is done, and the command."""
    for size in SIZES:
        yield f"{size} B", ("one_way", CXX_WAYS, size, capacity_for(size), 1, CXX_MILLISECONDS)
    for capacity in CAPACITIES:
        if capacity != capacity_for(SMALL):
            yield f"ring of {capacity} B", ("one_way", CXX_WAYS, SMALL, capacity, 1, CXX_MILLISECONDS)
    yield "round trips", ("round_trip", CXX_TRIPS, SMALL, capacity_for(SMALL), 1, CXX_MILLISECONDS)
    yield "frames of 6 MB", ("camera", 1)


def measure_all(
    results: Results, chosen: list[type[Channel]], cores: Cores, repetitions: int, seconds: float, *, cxx: bool = False
) -> None:
    """Take every measurement once, then again: what is compared has been measured side by side."""
    for kind in chosen:
        if why := kind.absent():
            results.absent[kind.name] = why
    why = native.absent()
    if why and cxx:
        results.absent[CXX] = why
    programs = native.Native(cores)

    def place() -> str:
        return UNKNOWN if why or cores is None else programs.placement()

    def in_python(measure: Callable[[], Sample]) -> Callable[[], list[Sample]]:
        def take() -> list[Sample]:
            before = place()
            sample = pairs.bounded(measure, seconds)
            sample.placement = before if before == place() else "changed"
            return [sample]

        return take

    def in_cxx(command: tuple[object, ...]) -> Callable[[], list[Sample]]:
        return lambda: programs.take(*command)

    work = [(CXX, what, in_cxx(command)) for what, command in plan_cxx()] if cxx and cores else []
    work += [(name, what, in_python(measure)) for name, what, measure in plan(chosen, cores, seconds)]
    show, start = is_terminal(2), time.monotonic()
    for turn in range(repetitions):
        for i, (name, what, take) in enumerate(work):
            if name in results.absent:
                continue
            if show:
                done = (turn * len(work) + i) / (repetitions * len(work))
                say(f"\r{done:4.0%} {time.monotonic() - start:4.0f} s  {name} {what}\x1b[K", end="")
            try:
                for sample in take():
                    results.add(sample)
            except TimeoutError as error:  # not once more
                results.absent[name] = f"{what}: {error}"
            except (RuntimeError, OSError) as error:
                results.absent[f"{name} {what}"] = str(error).strip().splitlines()[-1]
    if show:
        say("\r\x1b[K", end="")
    sys.stderr.flush()
