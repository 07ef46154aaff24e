"""Copies of the project in which one promise at a time is broken, built, and tested."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from table import ROOT, Mutant, units

WATCHDOG = 15  # seconds a Python test may take before pytest ends it; unbroken, each takes less than 2
PATIENCE = 10  # seconds that a Python test waits for another process or thread
TIME_LIMIT = 150  # seconds a test program, or a run of pytest, may take; only for hangs that no watchdog can end
FILE_SIZE = 1 << 30  # bytes; a mutant without its checks must not take the machine's memory
CONFIGURATIONS = {
    "cxx": ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"],
    "tsan": ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g", "-DTACHYON_SANITIZE=thread"],
}


class NoBuildError(Exception):
    """What the compiler said."""


class Tree:
    """A copy of the project, at most one mutation at a time, and whatever has been built of it."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder = folder
        self.jobs = jobs
        self.pristine: dict[Path, bytes] = {}  # what was built for Python
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment |= {"TACHYON_TEST_PATIENCE": str(PATIENCE), "TSAN_OPTIONS": "halt_on_error=1"}
        for part in (
            ".gitignore",
            "CMakeLists.txt",
            "LICENSE",
            "MANIFEST.in",
            "README.md",
            "pyproject.toml",
            "setup.py",
        ):
            shutil.copy(ROOT / part, folder / part)
        rest = shutil.ignore_patterns("build", "__pycache__", "*.so", "_bench.cpp", "_tachyon.cpp", "*.html")
        for part in ("cmake", "cxx", "tachyon", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=rest)

    def apply(self, mutant: Mutant) -> dict[Path, str]:
        """Returns the originals."""
        originals: dict[Path, str] = {}
        for edit in mutant.edits():
            path = self.folder / edit.file
            text = path.read_text()
            originals.setdefault(path, text)
            path.write_text(edit.apply(text))
        return originals

    def restore(self, originals: dict[Path, str]) -> None:
        for path, text in originals.items():
            path.write_text(text)

    # ---- C++ ---------------------------------------------------------------------------------------------------------

    def run_cxx(self, test: str) -> str | None:
        """None if its programs pass, else how one failed."""
        preset = test.partition("/")[0]
        build = self.folder / f"build-{preset}"
        if not build.exists():
            options = ["-DTACHYON_TESTS=ON", "-DTACHYON_BENCH=OFF", "-DTACHYON_INSTALL=OFF", *CONFIGURATIONS[preset]]
            self.call("cmake", "-S", self.folder, "-B", build, *options)
        for unit in units(test, self.folder):
            self.call("cmake", "--build", build, f"-j{self.jobs}", "--target", f"{unit}.tests")
            code, output = self.watched([build / "cxx/tests" / f"{unit}.tests", "--abort"])
            if code != 0:
                return f"{unit}: {reason(output, code)}"
        return None

    # ---- Python ------------------------------------------------------------------------------------------------------

    def build_python(self) -> None:
        """In place and quickly; anew after each change of what is compiled."""
        if not self.pristine:
            setup = self.folder / "setup.py"
            text = setup.read_text()
            for old, new in (("-O3", "-O0"), ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_BUILD_TYPE=Debug")):
                assert text.count(f'"{old}"') == 1, f"setup.py has changed: {old}"
                text = text.replace(f'"{old}"', f'"{new}"')
            setup.write_text(text)
            for command in (("init", "-q"), ("add", "-A")):  # the tests of packaging ask what git knows
                self.call("git", *command)
        self.call(sys.executable, "setup.py", "-q", "build_ext", "--inplace")
        if not self.pristine:
            self.pristine = {path: path.read_bytes() for path in self.built()}
            code = "import pathlib, tachyon; print(pathlib.Path(tachyon.__file__).parents[1])"
            found = self.watched([sys.executable, "-c", code])[1].strip()
            if Path(found).resolve() != self.folder.resolve():
                raise NoBuildError(f"the tests would use {found}, not the copy in {self.folder}")

    def built(self) -> list[Path]:
        patterns = ("_tachyon.*.so", "include/**/*", "lib/**/*")
        return [path for each in patterns for path in self.folder.glob(f"tachyon/{each}") if path.is_file()]

    def forget_python(self) -> None:
        """Back to what the unmutated tree was built to."""
        for path in self.built():
            path.unlink()  # not over it: a process may still have it mapped
        for path, data in self.pristine.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o755)

    def run_python(self, test: str) -> str | None:
        """None if it passes, else how it failed. A hang counts where pytest's watchdog ended it."""
        command = [sys.executable, "-m", "pytest", "-v", "-x", "--tb=line", "-p", "no:cacheprovider"]
        code, output = self.watched([*command, f"--timeout={WATCHDOG}", f"tests/{test}"])
        if code in (4, 5) or "no tests ran" in output:
            raise NoBuildError(f"pytest finds no such test: {test}\n{output}")
        if code == 0:
            if re.search(r"\d+ skipped", output) and not re.search(r"\d+ passed", output):
                raise NoBuildError(f"{test} is skipped here")
            return None
        if "+ Timeout +" in output:
            return "hangs; the watchdog ended it"
        failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", output, re.MULTILINE)
        return failed[1] if failed else reason(output, code)

    # ---- both --------------------------------------------------------------------------------------------------------

    def run(self, test: str) -> str | None:
        return self.run_cxx(test) if test.startswith(("cxx/", "tsan/")) else self.run_python(test)

    def call(self, *command: object) -> None:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env={**os.environ, "TACHYON_WERROR": "0", "TACHYON_BENCH": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NoBuildError(done.stdout)

    def watched(self, command: list[object]) -> tuple[int, str]:
        """Its exit code, or that of a hang, and its output. In a session of its own, so that nothing of it is left."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=limit,
        )
        hung = False
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            hung = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if hung:
            return 124, process.communicate()[0]
        return process.returncode, output


def reason(output: str, code: int) -> str:
    """The name of the first test that failed, or what else the output says."""
    if code == 124:
        return "hangs, and no watchdog ended it"
    catch2 = r"^-{20,}\n((?:(?!-{20}).+\n)+)-{20,}\n\S+:\d+\n\.{20}"
    for pattern in (r"watchdog: (this test hangs: .*)", r"(WARNING: ThreadSanitizer.*)", catch2):
        if found := re.search(pattern, output, re.MULTILINE):
            return " ".join(found[1].split())
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}: {output[-300:]}"
