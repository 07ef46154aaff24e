"""Percentiles of latencies: through HdrHistogram where that is installed, exactly from the samples where it is not."""

from __future__ import annotations

import math
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SHARES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0)
MISSING_HDR = "hdrhistogram is not installed: percentiles are taken from the samples themselves"


def have_hdr() -> bool:
    """Is HdrHistogram there?"""
    return find_spec("hdrh") is not None


def summarize(samples: Sequence[int]) -> tuple[list[tuple[float, float]], str]:
    """Return (share, nanoseconds) of each of SHARES, and the encoded histogram, or nothing in its place.

    The encoded form is HdrHistogram's own: other tools read it, and two of them can be added.
    """
    if not have_hdr():
        ordered = sorted(samples)
        return [(share, float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])) for share in SHARES], ""
    histogram = import_module("hdrh.histogram").HdrHistogram(1, 60_000_000_000, 3)
    for sample in samples:
        histogram.record_value(max(1, sample))
    least, most = float(min(samples)), float(max(samples))
    points = [(share, float(histogram.get_value_at_percentile(100 * share))) for share in SHARES[1:-1]]
    return [(0.0, least), *points, (1.0, most)], histogram.encode().decode("ascii")


def at(points: Sequence[Sequence[float]], share: float) -> float:
    """Return the nanoseconds at a share, the nearest that is there."""
    return float(min(points, key=lambda point: abs(point[0] - share))[1])
