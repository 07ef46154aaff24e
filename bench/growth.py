"""What grows with what: capacities from 4 KiB to 1 GiB, from 1 to 1,000 buses in a process."""

from __future__ import annotations

from collections.abc import Iterator

from grid import short
from rows import Row, evaluate, way
from takers import MILLISECONDS, Cxx

from tachyon.cli.bench.results import Results

CAPACITIES = [4 << 10 << 2 * i for i in range(10)]  # … 1 GiB
COUNTS = (1, 4, 16, 64, 256, 1000)
RING = 64 << 10


def take(results: Results, cxx: Cxx, repetitions: int, say) -> None:  # type: ignore[no-untyped-def]
    """Measure; never more than one large ring at a time."""
    for capacity in CAPACITIES:
        say(f"growth: ring of {capacity} B")
        times = repetitions if capacity < 1 << 30 else 1
        for sample in cxx.take("one_way", "bus", 32, capacity, times, MILLISECONDS):
            results.add(sample)
    for count in COUNTS:
        for used in sorted({1, count}):
            say(f"growth: {used} of {count} buses")
            for sample in cxx.take("buses", count, used, repetitions, RING):
                results.add(sample)
    for capacity in (RING, 16 << 20):
        say(f"growth: listen and connect, {capacity} B")
        for sample in cxx.take("set_up", repetitions, capacity):
            results.add(sample)


def table(results: Results) -> Iterator[str]:
    """Yield lines of Markdown: ns a message, by capacity and by number of buses."""
    yield "| ring | ns for 32 B |"
    yield "|---|---|"
    for capacity in CAPACITIES:
        spread = results.spread(*way("bus", 32, capacity))
        if spread is not None:
            yield f"| {short(capacity)} | {1e9 / spread.median:.1f} |"
    yield ""
    yield "| buses in a process | ns for 32 B over one of them | over all in turn |"
    yield "|---|---|---|"
    for count in COUNTS:
        one, all_ = (results.spread(f"buses:{count}:{used}", 32, RING) for used in (1, count))
        if one is not None and all_ is not None:
            yield f"| {count} | {1e9 / one.median:.1f} | {1e9 / all_.median:.1f} |"
    yield ""
    for capacity in (RING, 16 << 20):
        outcome = evaluate(Row("", "", ("set_up", 0, capacity), None, scale=1e-6), results)
        if outcome is not None:
            yield f"`listen` + `connect` with {short(capacity)}B: {outcome.value:.2f} ms."
