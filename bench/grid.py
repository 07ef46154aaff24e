"""Row 16: every size and capacity, spinning and blocking, against the best of the peers in the same run."""

from __future__ import annotations

from collections.abc import Iterator

from takers import MILLISECONDS, Cxx

from tachyon.cli.bench.results import Results, Spread

SIZES = (8, 32, 64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20)
CAPACITIES = (4 << 10, 64 << 10, 1 << 20, 8 << 20, 256 << 20)
OURS = {"spinning": "bus", "blocking": "bus-blocking"}
SHARED = ("index", "index32", "boost")  # in shared memory of the same capacity
KERNEL = ("boost-mq-try", "boost-mq", "pipe", "unix", "zmq", "nng")  # whose memory is not ours to choose
LATENCY = ("lines", "ring", "bus", "bus-blocking", "parked", "index", "index32", "boost", *KERNEL)


def fits(size: int, capacity: int) -> bool:
    """At least four messages in the ring, as the C++ program has it."""
    return 4 * size <= capacity


def kernel_capacity(size: int) -> int:
    """Return the one capacity at which the others are measured."""
    return 256 << 20 if size * 4 > 8 << 20 else 8 << 20


def take(results: Results, cxx: Cxx, repetitions: int, say) -> None:  # type: ignore[no-untyped-def]
    """Measure all cells, each channel in turn."""
    ours_and_shared = ",".join((*OURS.values(), "ring", *SHARED, "copy"))
    for size in SIZES:
        for capacity in CAPACITIES:
            if fits(size, capacity):
                say(f"grid: {size} B, ring of {capacity} B")
                for sample in cxx.take("one_way", ours_and_shared, size, capacity, repetitions, MILLISECONDS):
                    results.add(sample)
        say(f"grid: {size} B, kernel")
        for sample in cxx.take("one_way", ",".join(KERNEL), size, kernel_capacity(size), repetitions, MILLISECONDS):
            results.add(sample)
    say("grid: latencies")
    for sample in cxx.take("round_trip", ",".join(LATENCY), 32, 1 << 20, repetitions, MILLISECONDS):
        results.add(sample)


def best_peer(results: Results, size: int, capacity: int) -> tuple[str, Spread] | None:
    """Return the one with the greatest median in this cell."""
    found = []
    for names, where in ((SHARED, capacity), (KERNEL, kernel_capacity(size))):
        for name in names:
            spread = results.spread(f"one_way:{name}", size, where)
            if spread is not None:
                found.append((name, spread))
    return max(found, key=lambda each: each[1].median, default=None)


def cell(results: Results, way: str, size: int, capacity: int) -> tuple[float, str, bool] | None:
    """Return ratio to the best peer, its name, and whether a peer is not faster by more than the repetitions differ."""
    ours, peer = results.spread(f"one_way:{OURS[way]}", size, capacity), best_peer(results, size, capacity)
    if ours is None or peer is None:
        return None
    name, theirs = peer
    return ours.median / theirs.median, name, ours.median >= theirs.median or ours.greatest >= theirs.least


def short(size: int) -> str:
    """Return e.g. `64 Ki`."""
    for unit, shift in (("Mi", 20), ("Ki", 10)):
        if size >> shift:
            return f"{size >> shift} {unit}"
    return str(size)


def cells(results: Results, way: str) -> Iterator[tuple[int, int, tuple[float, str, bool]]]:
    """Yield all cells that were measured."""
    for size in SIZES:
        for capacity in CAPACITIES:
            found = cell(results, way, size, capacity) if fits(size, capacity) else None
            if found is not None:
                yield size, capacity, found


def table(results: Results, way: str) -> Iterator[str]:
    """Yield lines of Markdown: ratio, and the peer that it is to; bold where that peer is faster beyond noise."""
    found = {(size, capacity): value for size, capacity, value in cells(results, way)}
    yield f"| {way}: message ÷ ring | " + " | ".join(short(capacity) for capacity in CAPACITIES) + " |"
    yield "|---" * (len(CAPACITIES) + 1) + "|"
    for size in SIZES:
        texts = []
        for capacity in CAPACITIES:
            value = found.get((size, capacity))
            if value is None:
                texts.append("–")
                continue
            ratio, name, good = value
            text = f"{ratio:.2f} {name}"
            texts.append(text if good else f"**{text}**")
        yield f"| {short(size)} | " + " | ".join(texts) + " |"
