"""make soak SOAK_ARGS=--prove: breaks the library in a copy, in one way at a time, and expects the soak to notice.

The copy is run unbroken first, with the arguments of each mutant, and has to pass. A mutant is caught when a promise
was broken, not when the harness was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hostile_peer import ROUNDS

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0  # seconds for one soak

PROMISES = {"lost", "torn", "hang", "late"}
FLOODS_ONLY = [word for kind in ROUNDS if kind != "flood" for word in ("--skip", kind)]

# name: (text that is once in the core, what replaces it, the campaign that has to notice, and its arguments)
MUTANTS: dict[str, tuple[str, str, list[str]]] = {
    "no second look at the ring after a hang-up": (
        "if (status == Status::ok) status = consumer_.peek(frame);\n    if (status == Status::corrupt)",
        "if (status == Status::ok) status = Status::empty;\n    if (status == Status::corrupt)",
        ["--only", "kills", "--kills", "1500"],
    ),
    "release clears only the first line": (
        "(bytes < memory_.bulk ? bytes : kLine)",
        "kLine",
        ["--only", "kills", "--kills", "1500"],
    ),
    "commit does not clear what it cut off": (
        "            leave_unused(write_position_ + frame, write_position_ + claimed_);\n",
        "            claimed_ = 0;\n",
        ["--only", "kills", "--kills", "1500"],
    ),
    "publish wakes nobody": (
        "if constexpr (kWake == Wake::now) wake_consumer();",
        "",
        ["--only", "sleepers", "--sleeps", "700"],
    ),
    "hand_back wakes nobody": (
        "if (wake_if_parked(memory_.header->producer_parked, memory_.barrier, memory_.doorbell)) [[unlikely]]\n"
        "            ++wakes_;",
        "",
        ["--only", "sleepers", "--sleeps", "700"],
    ),
    "a look at the replies has no end": (
        "for (std::uint64_t i = 0; i < kMostRepliesPerLook && passed_ - before < kMostBytesPerLook; ++i) {",
        "for ((void)before;;) {",
        ["--only", "hostile_peer", "--hostile-minutes", "0.5", "--jobs", "1", *FLOODS_ONLY],
    ),
}
PARTS = ("CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "pyproject.toml", "setup.py")


def build(tree: Path) -> None:
    environment = {**os.environ, "TACHYON_WERROR": "0", "TACHYON_BENCH": "0"}
    extension = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    configure = ["cmake", "--preset", "release", "-DTACHYON_WERROR=OFF"]
    victim = ["cmake", "--build", "--preset", "release", "--target", "soak_victim"]
    for command in (extension, configure, victim):
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")


def find(tree: Path, name: str, text: str) -> tuple[Path, str]:
    """The one file that has it, and all that is in it."""
    core = [path for path in sorted((tree / "cxx").rglob("*.[hc]pp")) if "tests" not in path.parts]
    found = [(path, whole) for path in core if (whole := path.read_text()).count(text)]
    if len(found) != 1 or found[0][1].count(text) != 1:
        sys.exit(f"“{name}” does not apply once; adapt it to the new code: {[str(path) for path, _ in found]}")
    return found[0]


def soak(tree: Path, arguments: list[str]) -> tuple[bool, list[tuple[str, str]], float]:
    """Whether it passed, what it found, and the seconds it took."""
    result = tree / "soak.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, str(tree / "tests/soak"), "--seed", "1", "--json", str(result), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return False, [("harness", "no end within the time")], LIMIT
    found: list[tuple[str, str]] = []
    if result.exists():
        found = [
            (fault, what) for each in json.loads(result.read_text())["campaigns"] for fault, what in each["failures"]
        ]
    elif done.returncode != 0:
        found = [("harness", done.stderr[-300:])]
    return done.returncode == 0, found, time.monotonic() - begin


def prove(tree: Path, names: list[str]) -> bool:
    """Whether the tree as it is passes everything, and each mutant breaks a promise."""
    build(tree)
    good = True
    passed: list[list[str]] = []
    for name in names:
        arguments = MUTANTS[name][2]
        if arguments in passed:
            continue
        passed.append(arguments)
        ok, found, seconds = soak(tree, arguments)
        good &= ok
        print(
            f"{'passes' if ok else 'FAILS':8}  {'unbroken: ' + ' '.join(arguments):45}  {seconds:4.0f} s  {found[:1]}",
            flush=True,
        )
    for name in names:
        old, new, arguments = MUTANTS[name]
        file, original = find(tree, name, old)
        file.write_text(original.replace(old, new))
        build(tree)
        _, found, seconds = soak(tree, arguments)
        real = [(fault, what) for fault, what in found if fault in PROMISES]
        good &= bool(real)
        first = "; ".join(f"{fault}: {what[:100]}" for fault, what in (real or found)[:1])
        print(f"{'caught' if real else 'SURVIVED':8}  {name:45}  {seconds:4.0f} s  {first}", flush=True)
        file.write_text(original)
    return good


def main(only: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="soak-proof-") as folder:
        tree = Path(folder)
        for part in PARTS:
            shutil.copy(ROOT / part, tree / part)
        ignored = shutil.ignore_patterns("build", "__pycache__", "*.so", "_bench.cpp", "_tachyon.cpp", "*.html")
        for part in ("cmake", "cxx", "tachyon", "tests"):
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        names = [name for name in MUTANTS if not only or any(word in name for word in only)]
        return 0 if names and prove(tree, names) else 1
