"""make soak SOAK_ARGS=--prove: breaks the library in a copy, in one way at a time, and expects the soak to notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0  # seconds for one soak
RING, BUS = "cxx/include/tachyon/ring.hpp", "cxx/src/bus.cpp"

# name: (file, text that has to be there once, what replaces it, the campaign that has to notice, its arguments)
MUTANTS = {
    "no second look at the ring after a hang-up": (
        BUS,
        "if (status == Status::ok) status = consumer_.peek(frame);",
        "if (status == Status::ok) status = Status::empty;",
        ["--only", "kills", "--kills", "10000"],
    ),
    "release clears only the first line": (
        RING,
        "detail::clear_lines(line, line + bytes);",
        "detail::clear_lines(line, line + kLine);",
        ["--only", "kills", "--kills", "1000"],
    ),
    "commit does not clear what it cut off": (
        RING,
        "detail::clear_lines(start + frame, start + claimed_);",
        ";",
        ["--only", "kills", "--kills", "1000"],
    ),
    "publish wakes nobody": (
        RING,
        "if constexpr (kWake == Wake::now) wake_consumer();",
        "",
        ["--only", "sleepers", "--sleeps", "700"],
    ),
    "hand_back wakes nobody": (
        RING,
        "if (wake_if_parked(memory_.header->producer_parked, memory_.barrier, memory_.doorbell)) [[unlikely]]\n"
        "            ++wakes_;",
        "",
        ["--only", "sleepers", "--sleeps", "700"],
    ),
}
PARTS = ("CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "pyproject.toml", "setup.py")


def build(tree: Path) -> None:
    environment = {**os.environ, "TACHYON_WERROR": "0"}
    extension = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    configure = ["cmake", "--preset", "release", "-DTACHYON_WERROR=OFF"]
    victim = ["cmake", "--build", "--preset", "release", "--target", "soak_victim"]
    for command in (extension, configure, victim):
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")


def soak(tree: Path, arguments: list[str]) -> tuple[bool, str]:
    """Whether it failed, and the first complaint."""
    command = [sys.executable, str(tree / "tests/soak"), "--seed", "1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return True, "no end within the time"
    said = [line.strip()[:110] for line in done.stdout.splitlines() if "FAILED" in line]
    return done.returncode != 0, said[0] if said else done.stdout[-200:]


def main(only: list[str]) -> int:
    survived = 0
    with tempfile.TemporaryDirectory(prefix="soak-proof-") as folder:
        tree = Path(folder)
        for part in PARTS:
            shutil.copy(ROOT / part, tree / part)
        ignored = shutil.ignore_patterns("build", "__pycache__", "*.so", "_tachyon.cpp", "*.html")
        for part in ("cmake", "cxx", "tachyon", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        for name, (file, old, new, arguments) in MUTANTS.items():
            if only and not any(word in name for word in only):
                continue
            original = (tree / file).read_text()
            if original.count(old) != 1:
                sys.exit(f"“{name}” applies {original.count(old)} times to {file}, not once; adapt it to the new code")
            (tree / file).write_text(original.replace(old, new))
            build(tree)
            begin = time.monotonic()
            skip = ["--skip", "half a listener", "--skip", "without descriptors"]
            caught, why = soak(tree, arguments + skip)
            survived += not caught
            verdict = "caught" if caught else "SURVIVED"
            print(f"{verdict:8}  {name:45}  {time.monotonic() - begin:4.0f} s  {why}", flush=True)
            (tree / file).write_text(original)
    return 1 if survived else 0
