"""A latency histogram in plain text."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 40
ROWS = 16  # about; beyond them a coarser division is taken
FINENESS = (4, 2, 1, 0.5)  # bars per doubling
EIGHTHS = " ▏▎▍▌▋▊▉"
PLAIN = str.maketrans("█µ" + EIGHTHS[1:], "#u" + "." * 7)  # for terminals that are told to be ASCII


def duration(ns: float) -> str:
    """Return e.g. `850 ns`, `1.24 µs`, `3.1 ms`."""
    for unit in ("ns", "µs", "ms"):
        if ns < 999.5:  # what rounds up is 1 of the next
            return f"{ns:.3g} {unit}" if unit != "ns" else f"{ns:.0f} ns"
        ns /= 1000
    return f"{ns:.3g} s"


def quantile(ordered: Sequence[int], share: float) -> int:
    """Return the smallest sample that at least `share` of all do not exceed: always a value that was measured."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantiles(ordered: Sequence[int]) -> str:
    """One line: the usual quantiles, the worst, and of how many."""
    named = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
    parts = [f"{name} {duration(quantile(ordered, share))}" for share, name in named]
    return "  ".join([*parts, f"max {duration(ordered[-1])}", f"n {len(ordered):,}"])


def histogram(ordered: Sequence[int]) -> list[str]:
    """Bars over logarithmic steps of time, from the least sample to p99; one line counts the rest.

    `ordered` is nanoseconds, sorted, not empty.
    """
    least, most = (math.log2(max(1, each)) for each in (ordered[0], quantile(ordered, 0.99)))
    steps = next(each for each in FINENESS if (most - least) * each < ROWS or each == FINENESS[-1])
    edges = [2 ** (step / steps) for step in range(math.floor(steps * least), math.floor(steps * most) + 2)]
    marks = [0, *(bisect_left(ordered, edge) for edge in edges[1:])]
    counts = [after - before for before, after in pairwise(marks)]
    highest = max(counts)
    lines = [
        f"{duration(edge):>8} {_bar(count / highest):<{WIDTH}} {100 * count / len(ordered):5.1f}%"
        for edge, count in zip(edges, counts, strict=False)
    ]
    beyond = len(ordered) - marks[-1]
    if beyond:
        lines.append(f"{duration(edges[-1]):>8} and more: {beyond:,} of {len(ordered):,}")
    return lines


def _bar(share: float) -> str:
    eighths = round(share * WIDTH * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
