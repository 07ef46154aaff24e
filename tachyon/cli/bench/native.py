"""What is measured in C++: by the commands of cxx/bench, from a program or from the module of this package."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from importlib import import_module
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING

from tachyon.cli.bench.pairs import CONTEXT
from tachyon.cli.bench.results import Sample

if TYPE_CHECKING:
    from pathlib import Path

WATCHDOG = 150.0  # seconds for one command; it ends itself after 120
MODULE = "tachyon._bench"


def absent() -> str:
    """Say why this package has no measurements in C++; empty: it has."""
    return "" if find_spec(MODULE) else "this build of tachyon has no tachyon._bench"


class Native:
    """Runs commands of the module, each in a process of its own. Once near has not come twice, none waits for it."""

    def __init__(self, cores: tuple[int, int] | None) -> None:
        """Remember where they shall run."""
        first, second = cores or (0, 1)
        self.cores = {"TACHYON_BENCH_CORE_0": str(first), "TACHYON_BENCH_CORE_1": str(second)}
        self.in_vain = 0

    def run(self, *arguments: object) -> list[dict]:  # type: ignore[type-arg]
        """Return the lines that one prints. RuntimeError, TimeoutError."""
        words = [str(argument) for argument in arguments]
        environment = self.cores | ({"TACHYON_BENCH_TRIES": "1"} if self.in_vain >= 2 else {})
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self.start(words, environment, out, err)
            out.seek(0)
            err.seek(0)
            if code != 0:
                said = err.read().decode(errors="replace").strip()
                raise RuntimeError(f"{' '.join(words)}: {said or f'exit code {code}'}")
            found = [json.loads(line) for line in out.read().splitlines()]
        for line in found:
            if "placement" in line:
                self.in_vain = 0 if line["placement"] == "near" else self.in_vain + 1
        return found

    def start(self, words: list[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> int | None:
        """Run one; its exit code. By a fork: an interpreter takes longer to start than most take to run."""

        def child() -> None:
            os.environ.update(environment)
            for file, descriptor in ((out, 1), (err, 2)):
                os.dup2(file.fileno(), descriptor)
            os._exit(import_module(MODULE).run(words))

        process = CONTEXT.Process(target=child, daemon=True)
        process.start()
        process.join(WATCHDOG)
        if process.is_alive():
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(words)}: given up after {WATCHDOG:g} s")
        return process.exitcode

    def take(self, *arguments: object) -> list[Sample]:
        """Return the samples of one command."""
        return [Sample(**line) for line in self.run(*arguments)]

    def placement(self) -> str:
        """Tell where the two cores are now."""
        return str(self.run("probe")[0]["placement"])


class Program(Native):
    """The same, by a program."""

    def __init__(self, program: Path, cores: tuple[int, int]) -> None:
        """Remember where it is."""
        super().__init__(cores)
        self.program = program

    def start(self, words: list[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> int | None:
        """Run one; its exit code."""
        command = [str(self.program), *words]
        try:
            done = subprocess.run(
                command, stdout=out, stderr=err, timeout=WATCHDOG, env=os.environ | environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{' '.join(words)}: given up after {WATCHDOG:g} s") from None
        return done.returncode
