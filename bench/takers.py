"""How each figure is taken: one repetition at a time, so that what is compared is measured in turns.

A key is (what, size, capacity). `py:` and `cy:` are Python and Cython; all others are commands of the C++ program.
"""

from __future__ import annotations

from collections.abc import Callable

import cython_loops

from tachyon.cli.bench import calls, loops, pairs, percentiles
from tachyon.cli.bench.native import Program as Cxx
from tachyon.cli.bench.objects import OBJECTS
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.bench.results import Key, Sample

SECONDS = 0.3  # of a Python measurement
MILLISECONDS = 30  # of a C++ one
CHANNELS = {each.name: each for each in [*OURS, *PEERS, *OBJECTS, *loops.LOOPS]}


def cxx_command(key: Key) -> list[object]:
    """Return the arguments that have this key measured once. Some commands give more keys than one."""
    what, size, capacity = key
    command, _, rest = what.partition(":")
    if what == "round_trip:rpc":
        return ["rpc", 1, MILLISECONDS]
    if command in ("one_way", "round_trip"):
        return [command, rest, size, capacity, 1, MILLISECONDS]
    if command == "buses":
        return ["buses", *rest.split(":"), 1, capacity]
    return {
        "camera": ["camera", 1],
        "release": ["release", 1],
        "set_up": ["set_up", 1, capacity],
        "memory": ["memory", 1, capacity],
        "idle": ["idle", 10],
    }[command]


def python_value(key: Key, cores: tuple[int, int]) -> tuple[float, list[list[float]]]:
    """Measure once in Python."""
    what, size, capacity = key
    _, measure, *name = what.split(":")
    if measure == "one_way":
        return pairs.one_way(CHANNELS[name[0]], cores, size, capacity, SECONDS), []
    if measure == "round_trip":
        mean, samples = pairs.round_trip(CHANNELS[name[0]], cores, size, capacity, SECONDS)
        return mean, [list(point) for point in percentiles.summarize(samples)[0]]
    if measure in ("loop_trip", "loop_parked"):
        parked = measure == "loop_parked"
        return loops.round_trip(loops.LOOPS_BY_NAME[name[0]], cores, size, parked, SECONDS * (1 + 2 * parked)), []
    simple: dict[str, Callable[[], float]] = {
        "call": lambda: calls.call_and_wait(cores, SECONDS),
        "endpoint": lambda: calls.endpoint_call(cores, SECONDS),
        "leave": lambda: calls.leave_guard(cores, size),
        "loop": lambda: calls.one_call_loop(SECONDS),
        "idle": lambda: calls.idle_cpu(cores, 10),
    }
    return simple[measure](), []


def absent(key: Key) -> str:
    """Say why a key cannot be measured here; empty: it can, or only trying tells."""
    what, _, _ = key
    if what.startswith("cy:"):
        return cython_loops.absent()
    kind, _, name = what.removeprefix("py:").partition(":")
    if what.startswith("py:") and kind in ("one_way", "round_trip", "loop_trip", "loop_parked"):
        return CHANNELS[name].absent()
    return ""


def take(key: Key, cxx: Cxx, cores: tuple[int, int]) -> list[Sample]:
    """Return one repetition of a key, and of those that come with it."""
    what, size, capacity = key
    if not what.startswith(("py:", "cy:")):
        return cxx.take(*cxx_command(key))
    before = cxx.placement()
    if what.startswith("cy:"):
        value, quantiles = cython_loops.one_way(what.removeprefix("cy:"), cores, capacity), []
    else:
        value, quantiles = pairs.bounded(lambda: python_value(key, cores), SECONDS)
    after = cxx.placement()
    return [Sample(what, size, capacity, value, before if before == after else "changed", quantiles)]
