"""The loops of bench/cython_loop: compiled as a project elsewhere would, then measured."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import tachyon
from tachyon.cli.bench.pairs import both

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "cython_loop"
MESSAGES = 10_000_000
LOOPS = {  # what a producer runs, what a consumer runs
    "inlined": ("inlined_send", "inlined_receive"),
    "methods": ("methods_send", "methods_receive"),
    "methods-in-place": ("methods_claim", "methods_receive"),
    "methods-batches": ("methods_send", "methods_receive_batches"),
}
_why_absent: list[str] = []  # one, once it has been tried


def absent() -> str:
    """Build them at the first question; say why they are not there."""
    if not _why_absent:
        _why_absent.append(_build())
    return _why_absent[0]


def _build() -> str:
    if not importlib.util.find_spec("Cython"):
        return "Cython is not installed"
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "bench/cython_loop/setup.py"), "build_ext"]
    command += ["--build-lib", str(FOLDER), "--build-temp", str(FOLDER / "temp")]
    done = subprocess.run(command, cwd=FOLDER, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(done.stdout.decode(errors="replace"), file=sys.stderr)
        return "bench/cython_loop does not compile"
    sys.path.insert(0, str(FOLDER))
    return ""


def _loops() -> ModuleType:
    return importlib.import_module("loops")


def one_way(name: str, cores: tuple[int, int], capacity: int) -> float:
    """Messages of 32 bytes per second, from the first send to the end of the receiver."""
    send, receive = (getattr(_loops(), loop) for loop in LOOPS[name])
    with tempfile.TemporaryDirectory(prefix="tachyon-bench-") as folder:
        path = Path(folder, "bus")

        def here() -> int:
            with tachyon.Bus.listen(path, capacity, timeout=10) as bus:
                return int(send(bus, MESSAGES))

        def there() -> int:
            with tachyon.Bus.connect(path, timeout=10) as bus:
                return int(receive(bus, MESSAGES))

        start, end = both(cores, here, there)
    return MESSAGES * 1e9 / (end - start)
