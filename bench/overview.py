"""The README's plot: throughput by size of message, and round trips, beside the peers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import grid
from rows import MI, trip, way

from tachyon.cli.bench.results import Results

WAYS = {
    "bus": "tachyon",
    "index": "ring with an index",
    "boost": "Boost.Lockfree",
    "unix": "UNIX socket",
    "zmq": "ZeroMQ",
}
TRIPS = WAYS | {"bus-blocking": "tachyon, calls that wait", "pipe": "pipe", "nng": "nng"}


def draw(results: Results, path: Path) -> Path:
    """Write it."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tachyon", "svg.fonttype": "none", "font.size": 8})
    figure = import_module("matplotlib.figure").Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(title="C++, one way, rings of 8 MiB", xlabel="bytes of a message", ylabel="messages/s", yscale="log")
    left.set_xscale("log", base=2)
    for name, title in WAYS.items():
        points = [(size, results.spread(*way(name, size, 8 * MI))) for size in grid.SIZES]
        found = [(size, spread.median) for size, spread in points if spread is not None]
        if found:
            left.plot(*zip(*found, strict=True), "o-", label=title, ms=3, lw=2 if name == "bus" else 1)
    left.grid(alpha=0.3)
    left.legend(fontsize=7)
    right.set(title="C++, there and back, 32 B", xlabel="nanoseconds, median of means", xscale="log")
    spreads = {title: results.spread(*trip(name)) for name, title in TRIPS.items()}
    values = {title: spread.median for title, spread in spreads.items() if spread is not None}
    names = sorted(values, key=lambda title: -values[title])
    colours = ["C0" if name.startswith("tachyon") else "C7" for name in names]
    bars = right.barh(names, [values[name] for name in names], color=colours)
    right.bar_label(bars, fmt="%.3g", padding=2)
    right.set_xlim(right=3 * max(values.values(), default=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return path
