"""One screen: what was measured, the ratios in this run, and what was not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tachyon.cli.bench import percentiles
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.histogram import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tachyon.cli.bench.results import Key, Results, Spread

TITLES = {each.name: each.title for each in [*OURS, *PEERS]}
CXX_TITLES = {
    "lines": "bare cache lines (the limit)",
    "copy": "plain copies (the limit for large ones)",
    "ring": "tachyon: the ring alone",
    "bus": "tachyon: Bus, spinning",
    "bus-blocking": "tachyon: Bus, calls that wait",
    "parked": "tachyon: asleep before each message",
    "index": "a ring with an index, textbook form",
    "index32": "the same, 32 messages visible at once",
    "unix": "UNIX socket",
}
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
    for language, prefix in (("Python", "py:"), ("C++", "")):
        if any(key[0].startswith(f"{prefix}one_way:") for key in results.measured()):
            yield from _throughput(results, language, prefix)
            yield ""
            yield from _latency(results, language, prefix)
            yield ""
    yield from _ratios(results)
    yield from _cxx_ratios(results)
    for name, why in results.absent.items():
        yield f"not measured: {name}: {why}"


def _keys(results: Results, prefix: str, measure: str) -> list[Key]:
    return [key for key in results.measured() if key[0].startswith(f"{prefix}{measure}:")]


def _title(key: Key) -> str:
    name = key[0].rpartition(":")[2]
    return (TITLES if key[0].startswith("py:") else CXX_TITLES).get(name, name)


def _throughput(results: Results, language: str, prefix: str) -> Iterator[str]:
    keys = _keys(results, prefix, "one_way")
    columns = list(dict.fromkeys(key[1] for key in keys))
    heads = "".join(f"{f'{size:,} B':>13}" for size in columns)
    yield f"{f'{language}, one way, messages/s':<58}{heads}"
    capacities = {key[1]: key[2] for key in reversed(keys)}
    for what, title in {key[0]: _title(key) for key in keys}.items():
        cells = (results.spread(what, size, capacities[size]) for size in columns)
        yield f"{title:<58}" + "".join(f"{rate(cell.median) if cell else '':>13}" for cell in cells)


def _latency(results: Results, language: str, prefix: str) -> Iterator[str]:
    heads = "".join(f"{name:>10}" for _, name in SHARES)
    yield f"{f'{language}, there and back, 32 B':<48}{'mean':>10}{heads}"
    for key in _keys(results, prefix, "round_trip"):
        spread, points = results.spread(*key), results.quantiles(*key)
        if spread is not None and points:
            cells = "".join(f"{duration(percentiles.at(points, share)):>10}" for share, _ in SHARES)
            yield f"{_title(key):<48}{duration(spread.median):>10}{cells}"


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


MI = 1 << 20
CXX_RATIOS: tuple[tuple[str, Key, Key], ...] = (
    ("C++ one way 32 B: Bus ÷ a ring with an index", ("one_way:bus", 32, MI), ("one_way:index", 32, MI)),
    ("C++ one way 1 KiB: Bus ÷ a ring with an index", ("one_way:bus", 1024, MI), ("one_way:index", 1024, MI)),
    ("C++ one way 64 KiB: Bus ÷ plain copies", ("one_way:bus", 65536, MI), ("one_way:copy", 65536, MI)),
    ("C++ round trip: bare lines ÷ Bus", ("round_trip:lines", 32, MI), ("round_trip:bus", 32, MI)),
    ("C++ round trip: UNIX socket ÷ Bus, blocking", ("round_trip:unix", 32, MI), ("round_trip:bus-blocking", 32, MI)),
    (
        "C++ frames of 6 MB: Bus ÷ by hand",
        ("camera:bus", 6_220_800, 32 * MI),
        ("camera:by-hand", 6_220_800, 31_104_000),
    ),
    ("round trip: C++ ÷ Python", ("round_trip:bus", 32, MI), ("py:round_trip:bus", 32, MI)),
)


def _cxx_ratios(results: Results) -> Iterator[str]:
    for text, top, bottom in CXX_RATIOS:
        ours, theirs = results.spread(*top), results.spread(*bottom)
        if ours is not None and theirs is not None:
            yield f"  {text:<68} {ratio(ours, theirs)}"
