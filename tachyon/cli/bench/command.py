"""The command: measure in turns, then print one screen; or compare two files."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tachyon.cli.bench import machine, pairs, percentiles, placement, plots
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


def capacity_for(size: int) -> int:
    """Return a ring of 1 MiB, or of sixteen messages."""
    return max(1 << 20, 16 * size)


def channels(only: str | None) -> list[type[Channel]]:
    """Return those that are asked for; Failure for a name that there is not."""
    known = {each.name: each for each in [*OURS, *PEERS]}
    if only is None:
        return list(known.values())
    wanted = only.split(",")
    for name in wanted:
        if name not in known:
            raise Failure(ERROR, f"there is no {name!r} to measure; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


def run(options: argparse.Namespace) -> int:
    """Do what the command line says."""
    if options.compare:
        before, after = (Results.load(path) for path in options.compare)
        print("\n".join(compare(before, after)))
        return OK
    chosen = channels(options.only)
    cores = options.cores or machine.choose_cores()
    reasons = machine.unfit(cores)
    if reasons and not options.anyway:
        raise Failure(
            ERROR, "this machine is not fit for ratios now: " + "; ".join(reasons) + ". --anyway measures all the same"
        )
    results = Results(machine.facts(cores))
    results.machine["unfit"] = reasons
    measure_all(results, chosen, cores, options.repetitions, options.seconds)
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


Work = tuple[str, int, int, "Callable[[], Sample]"]


def plan(chosen: list[type[Channel]], cores: Cores, seconds: float) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Yield all measurements of one turn, with their names."""

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
                yield f"{kind.name} {size} B", one_way(kind, size, capacity_for(size))
    for capacity in CAPACITIES:
        for kind in chosen:
            if kind.name == "bus" and capacity != capacity_for(SMALL):
                yield f"{kind.name} ring of {capacity} B", one_way(kind, SMALL, capacity)
    for kind in chosen:
        if kind.name not in NO_LATENCY:
            yield f"{kind.name} round trips", round_trip(kind)


def measure_all(results: Results, chosen: list[type[Channel]], cores: Cores, repetitions: int, seconds: float) -> None:
    """Take every measurement once, then again: what is compared has been measured side by side."""
    there = []
    for kind in chosen:
        if why := kind.absent():
            results.absent[kind.name] = why
        else:
            there.append(kind)
    show, start = is_terminal(2), time.monotonic()
    before, _ = placement.probe(cores)
    work = list(plan(there, cores, seconds))
    for turn in range(repetitions):
        for i, (name, measure) in enumerate(work):
            if show:
                done = (turn * len(work) + i) / (repetitions * len(work))
                say(f"\r{done:4.0%} {time.monotonic() - start:4.0f} s  {name}\x1b[K", end="")
            try:
                sample = measure()
            except (RuntimeError, TimeoutError, OSError) as error:
                results.absent[name] = str(error).strip().splitlines()[-1]
                continue
            after, _ = placement.probe(cores)
            sample.placement = before if before == after else "changed"
            results.add(sample)
            before = after
    if show:
        say("\r\x1b[K", end="")
    sys.stderr.flush()
