"""SVG plots of results, by matplotlib: latency distribution, throughput by size and by capacity."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tachyon.cli.bench.results import Results

MISSING = "matplotlib is not installed, so there are no plots: pip install 'tachyon-ipc[bench]'"
LINES = ("-", "--", "-.", ":")


def have_matplotlib() -> bool:
    """Is it there?"""
    return find_spec("matplotlib") is not None


def draw(results: Results, folder: Path) -> list[Path]:
    """Write what the results have enough for; the files."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "tachyon", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for prefix, name in (("py:", "python"), ("", "cpp")):
        for make in (_latency, _by_size, _by_capacity):
            figure = make(results, prefix)
            if figure is None:
                continue
            path = folder / f"{make.__name__.strip('_').replace('_', '-')}-{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def _figure(title: str, x: str, y: str) -> tuple[Any, Any]:
    figure = import_module("matplotlib.figure").Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log")
    return figure, axes


def _caption(results: Results) -> str:
    return f"{results.machine.get('cpu', '')}, placement {results.placement()}"


def _mine(results: Results, prefix: str, measure: str) -> list[tuple[str, int, int]]:
    """Keys of one measure, of Python's or of C++'s."""
    return [key for key in results.measured() if key[0].startswith(f"{prefix}{measure}:")]


def _latency(results: Results, prefix: str) -> Any:
    keys = [key for key in _mine(results, prefix, "round_trip") if results.quantiles(*key)]
    if not keys:
        return None
    figure, axes = _figure(f"Round trips of 32 bytes\n{_caption(results)}", "share of round trips", "nanoseconds")
    for i, key in enumerate(keys):
        if key[1] != 32:
            continue
        points = [(1 / (1 - share), ns) for share, ns in results.quantiles(*key) if 0 < share < 1]
        axes.plot(*zip(*points, strict=True), LINES[i // 10 % 4], label=key[0].rpartition(":")[2])
    axes.set_xscale("log")
    shares = (0.5, 0.9, 0.99, 0.999, 0.9999)
    axes.set_xticks([1 / (1 - share) for share in shares], [f"{100 * share:g} %" for share in shares])
    axes.legend(ncols=2)
    return figure


def _by_size(results: Results, prefix: str) -> Any:
    keys = _mine(results, prefix, "one_way")
    sizes = {key[1] for key in keys}
    if len(sizes) < 3:
        return None
    figure, axes = _figure(f"One way, by size of message\n{_caption(results)}", "bytes of a message", "messages/s")
    for i, what in enumerate(dict.fromkeys(key[0] for key in keys)):
        points: dict[int, float] = {}  # the best capacity of each size
        for name, size, capacity in keys:
            spread = results.spread(name, size, capacity)
            if name == what and spread is not None:
                points[size] = max(points.get(size, 0.0), spread.median)
        if points:
            line = LINES[i // 10 % 4] + "o"
            axes.plot(*zip(*sorted(points.items()), strict=True), line, label=what.rpartition(":")[2], ms=3)
    axes.set_xscale("log", base=2)
    axes.legend(ncols=2)
    return figure


def _by_capacity(results: Results, prefix: str) -> Any:
    keys = _mine(results, prefix, "one_way")
    if len({key[2] for key in keys if key[1] == 32}) < 3:
        return None
    figure, axes = _figure(f"One way, 32 bytes, by capacity\n{_caption(results)}", "bytes of ring", "messages/s")
    for i, what in enumerate(dict.fromkeys(key[0] for key in keys)):
        points = []
        for name, size, capacity in keys:
            spread = results.spread(name, size, capacity)
            if name == what and size == 32 and spread is not None:
                points.append((capacity, spread.median))
        if len(points) > 1:
            axes.plot(*zip(*sorted(points), strict=True), LINES[i // 10 % 4] + "o", label=what.rpartition(":")[2], ms=3)
    axes.set_xscale("log", base=2)
    axes.legend(ncols=2)
    return figure
