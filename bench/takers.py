"""How each figure is taken: one repetition at a time, so that what is compared is measured in turns.

A key is (what, size, capacity). `py:` and `cy:` are Python and Cython; all others are commands of the C++ program.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cython_loops

from tachyon.cli.bench import calls, loops, pairs, percentiles
from tachyon.cli.bench.ours import OURS
from tachyon.cli.bench.peers import PEERS
from tachyon.cli.bench.results import Key, Sample

WATCHDOG = 150  # seconds for one call of the C++ program
SECONDS = 0.3  # of a Python measurement
MILLISECONDS = 30  # of a C++ one
CHANNELS = {each.name: each for each in [*OURS, *PEERS, *loops.LOOPS]}


class Cxx:
    """The C++ program. Once near has not come twice it is told not to wait for it."""

    def __init__(self, program: Path, cores: tuple[int, int]) -> None:
        """Remember where it is, and where it shall run."""
        self.program = program
        self.cores = {"TACHYON_BENCH_CORE_0": str(cores[0]), "TACHYON_BENCH_CORE_1": str(cores[1])}
        self.in_vain = 0

    def run(self, *arguments: object) -> list[dict]:
        """Return the lines that it prints."""
        command = [str(self.program), *map(str, arguments)]
        environment = os.environ | self.cores | ({"TACHYON_BENCH_TRIES": "1"} if self.in_vain >= 2 else {})
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG, env=environment, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        found = [json.loads(line) for line in done.stdout.splitlines()]
        for line in found:
            if "placement" in line:
                self.in_vain = 0 if line["placement"] == "near" else self.in_vain + 1
        return found

    def take(self, *arguments: object) -> list[Sample]:
        """Return the samples of one command."""
        return [Sample(**line) for line in self.run(*arguments)]

    def placement(self) -> str:
        """Tell where the two cores are now."""
        return str(self.run("probe")[0]["placement"])


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
        value, quantiles = python_value(key, cores)
    after = cxx.placement()
    return [Sample(what, size, capacity, value, before if before == after else "changed", quantiles)]
