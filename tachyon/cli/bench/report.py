"""One screen: what was measured, the ratios in this run, and what was not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tachyon.cli.bench import percentiles
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.histogram import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tachyon.cli.bench.results import Results, Spread

TITLES = {each.name: each.title for each in [*OURS, *PEERS]}
SHARES = ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"), (1.0, "max"))


def rate(value: float) -> str:
    """Return e.g. `5.1 M`, `320 k`."""
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.3g}"


def ratio(top: Spread, bottom: Spread) -> str:
    """The medians' ratio, and how far single repetitions would have it."""
    return f"{top.median / bottom.median:.2f} ({top.least / bottom.greatest:.2f} … {top.greatest / bottom.least:.2f})"


def lines(results: Results) -> Iterator[str]:
    """Yield the lines of the report."""
    facts = results.machine
    yield f"{facts['cpu']}, {facts['kernel']}, Python {facts['python']}"
    yield f"tachyon-ipc {facts['version']} {facts['commit']}".rstrip()
    where = results.placement()
    yield f"cores {facts['cores']}, shared cache: {facts['shared_cache']}; placement {where}" + (
        " (this build has no compiled probe)" if where == "unknown" else ""
    )
    for reason in facts.get("unfit", []):
        yield f"NOT FIT: {reason}"
    yield ""
    yield from _throughput(results)
    yield ""
    yield from _latency(results)
    yield ""
    yield from _ratios(results)
    for name, why in results.absent.items():
        yield f"not measured: {name}: {why}"


def _names(results: Results, measure: str) -> list[str]:
    return list(dict.fromkeys(key[0] for key in results.measured() if key[0].startswith(f"py:{measure}:")))


def _title(what: str) -> str:
    return TITLES.get(what.rpartition(":")[2], what)


def _throughput(results: Results) -> Iterator[str]:
    columns = list(dict.fromkeys((key[1]) for key in results.measured() if key[0].startswith("py:one_way:")))
    heads = "".join(f"{f'{size:,} B':>13}" for size in columns)
    yield f"{'one way, messages/s':<58}{heads}"
    capacities = {key[1]: key[2] for key in reversed(results.measured())}
    for what in _names(results, "one_way"):
        cells = (results.spread(what, size, capacities[size]) for size in columns)
        yield f"{_title(what):<58}" + "".join(f"{rate(cell.median) if cell else '':>13}" for cell in cells)


def _latency(results: Results) -> Iterator[str]:
    heads = "".join(f"{name:>10}" for _, name in SHARES)
    yield f"{'there and back, 32 B':<48}{'mean':>10}{heads}"
    for key in [key for key in results.measured() if key[0].startswith("py:round_trip:")]:
        spread, points = results.spread(*key), results.quantiles(*key)
        if spread is not None and points:
            cells = "".join(f"{duration(percentiles.at(points, share)):>10}" for share, _ in SHARES)
            yield f"{_title(key[0]):<48}{duration(spread.median):>10}{cells}"


def _ratios(results: Results) -> Iterator[str]:
    yield "ratios in this run: medians (least … greatest repetition)"
    for measure, text in (("one_way", "one way 32 B, messages/s"), ("round_trip", "round trip 32 B, times faster")):
        keys = {
            key[0].rpartition(":")[2]: key
            for key in reversed(results.measured())
            if key[0].startswith(f"py:{measure}:") and key[1] == 32
        }
        ours = results.spread(*keys["bus"]) if "bus" in keys else None
        if ours is None:
            continue
        for peer in PEERS:
            theirs = results.spread(*keys[peer.name]) if peer.name in keys else None
            if theirs is not None:
                value = ratio(ours, theirs) if measure == "one_way" else ratio(theirs, ours)
                yield f"  {text}: bus ÷ {peer.title:<40} {value}"
