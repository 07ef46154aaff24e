"""The machine that is measured: its two cores, whether they are free, and what a report has to say of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import tachyon

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = 0.15  # of a core, taken by others: beyond it a ratio says more about them
LOOK = 0.4  # seconds


def allowed() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def choose_cores() -> tuple[int, int] | None:
    """Two of them that are no siblings of one physical core, or None."""
    cores = allowed()
    for other in cores[1:]:
        if other not in _siblings(cores[0]):
            return cores[0], other
    return (cores[0], cores[1]) if len(cores) > 1 else None


def _siblings(core: int) -> set[int]:
    return _list(Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"))


def _list(path: Path) -> set[int]:
    """What a file such as `0-3,8` says, empty where there is none."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return set()
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def shared_cache(cores: tuple[int, int]) -> str:
    """Tell which cache both have, as the system says; a virtual machine's may say anything."""
    for index in Path(f"/sys/devices/system/cpu/cpu{cores[0]}/cache").glob("index*"):
        if cores[1] in _list(index / "shared_cpu_list"):
            return "L" + (index / "level").read_text(encoding="ascii").strip()
    return "none that the system tells of"


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Stay on one core for the length of the block."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- is it fit? ------------------------------------------------------------------------------------------------------


def unfit(cores: tuple[int, int] | None) -> list[str]:
    """Say why ratios taken now would mislead; an empty list: nothing is in the way."""
    if cores is None:
        return ["there is one core: two processes would take turns, and every figure would be that of the scheduler"]
    reasons = []
    for core, (busy, stolen) in _load(cores).items():
        if busy > BUSY:
            reasons.append(f"other processes take {busy:.0%} of core {core}")
        if stolen > BUSY / 3:
            reasons.append(f"the host takes {stolen:.0%} of core {core} for others")
    return reasons


def _load(cores: tuple[int, int]) -> dict[int, tuple[float, float]]:
    """Share of each core that was busy, and that was stolen, while this process slept."""
    before = _ticks(cores)
    time.sleep(LOOK)
    after = _ticks(cores)
    return {
        core: (
            (after[core][0] - before[core][0]) / max(1, after[core][2] - before[core][2]),
            (after[core][1] - before[core][1]) / max(1, after[core][2] - before[core][2]),
        )
        for core in before
    }


def _ticks(cores: tuple[int, int]) -> dict[int, tuple[int, int, int]]:
    """Busy, stolen and all ticks of each core since boot."""
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, *numbers = line.split()
        if name in [f"cpu{core}" for core in cores]:
            ticks = [int(number) for number in numbers[:8]]  # user nice system idle iowait irq softirq steal
            found[int(name[3:])] = (sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7], sum(ticks))
    return found


# ---- what a report says of it ----------------------------------------------------------------------------------------


def facts(cores: tuple[int, int] | None) -> dict[str, object]:
    """Return what has to stand beside any figure."""
    return {
        "cpu": cpu(),
        "cores": list(cores or ()),
        "cores_of_machine": os.cpu_count(),
        "shared_cache": shared_cache(cores) if cores else "",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "python_compiler": platform.python_compiler(),
        "version": tachyon.__version__,
        "build": build(),
        "commit": commit(),
        "load": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
    }


def cpu() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    except OSError:
        pass
    return platform.processor() or platform.machine()


def build() -> dict[str, str]:
    """Compiler, flags and commit of the compiled modules, where the one that knows has been built."""
    try:
        return import_module("tachyon._bench").__build__  # type: ignore[no-any-return]
    except ImportError:
        return {}


def commit() -> str:
    """The commit of the source tree that this package stands in, or was built from."""
    root = Path(tachyon.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return build().get("commit", "")
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
