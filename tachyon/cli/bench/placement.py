"""Where the two cores were: near (one cache), far, or not known.

Virtual CPUs float over a host's cores; a figure can be off by five times when they share one or sit in different
caches. A probe takes compiled loops: `tachyon._bench`, or `loops` where `make bench` has built bench/cython_loop.
Without them what the system says of caches is all there is.
"""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import tachyon
from tachyon.cli.bench.pairs import Cores, both

SAME_CORE, NEAR = 90.0, 230.0  # ns of a round trip over the ring: below the first, below the second
TRIPS = 3000
UNKNOWN = "unknown"


def compiled_loops() -> Any:
    """Return the module with loops in C++, or None."""
    for name in ("tachyon._bench", "loops"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        if hasattr(module, "ping"):
            return module
    return None


def classify(round_trip_ns: float) -> str:
    """Tell which placement shows such a round trip."""
    return "same core" if round_trip_ns < SAME_CORE else "near" if round_trip_ns < NEAR else "far"


def probe(cores: Cores) -> tuple[str, float]:
    """Return the placement and the nanoseconds that told it, or UNKNOWN and 0."""
    loops = compiled_loops()
    if loops is None or cores is None:
        return UNKNOWN, 0.0
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        there, back = Path(folder, "there"), Path(folder, "back")

        def ping() -> float:
            with tachyon.Bus.listen(there, 1 << 16) as out, tachyon.Bus.listen(back, 1 << 16) as home:
                return float(loops.ping(out, home, TRIPS))

        def pong() -> None:
            with tachyon.Bus.connect(there, timeout=10) as out, tachyon.Bus.connect(back, timeout=10) as home:
                loops.pong(out, home, TRIPS)

        value, _ = both(cores, ping, pong)
    return classify(value), float(value)
