"""A latency histogram in plain text."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 40
STEPS = 4  # bars per doubling
EIGHTHS = " ▏▎▍▌▋▊▉"
PLAIN = str.maketrans("█µ" + EIGHTHS[1:], "#u" + "." * 7)  # for terminals that are told to be ASCII


def duration(ns: float) -> str:
    """Return e.g. `850 ns`, `1.24 µs`, `3.1 ms`."""
    for unit in ("ns", "µs", "ms"):
        if ns < 1000:
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
    """Bars over logarithmic steps of time, from the least sample to p99.9; one line counts the rest.

    `ordered` is nanoseconds, sorted, not empty.
    """
    first = math.floor(STEPS * math.log2(max(1, ordered[0])))
    last = max(first, math.floor(STEPS * math.log2(max(1, quantile(ordered, 0.999)))))
    edges = [2 ** (step / STEPS) for step in range(first, last + 2)]
    marks = [0, *(bisect_left(ordered, edge) for edge in edges[1:])]
    counts = [after - before for before, after in pairwise(marks)]
    highest = max(counts)
    rows = [(f"{duration(edge):>8}", count) for edge, count in zip(edges, counts, strict=False)]
    lines = [f"{label} {_bar(count / highest):<{WIDTH}} {100 * count / len(ordered):5.1f}%" for label, count in rows]
    beyond = len(ordered) - marks[-1]
    if beyond:
        lines.append(f"{duration(edges[-1]):>8} and more: {beyond:,} of {len(ordered):,}")
    return lines


def _bar(share: float) -> str:
    eighths = round(share * WIDTH * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
