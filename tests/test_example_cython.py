"""examples/cython_hot_loop, built and run as its README says, with few ticks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from downstream import need_compiler

need_compiler()

EXAMPLE = Path(__file__).parent.parent / "examples" / "cython_hot_loop"
FILES = ["README.md", "book.pxd", "inlined.pyx", "methods.pyx", "plain.py", "run.py", "setup.py"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hot_loop")
    for name in FILES:
        shutil.copy(EXAMPLE / name, folder)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = os.environ | {"CFLAGS": "-Werror"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_three_ways_agree(folder):
    command = [sys.executable, "run.py", "compare", "50000"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["plain", "methods", "inlined"]
    assert len({line.partition("VWAP")[2] for line in done.stdout.splitlines()}) == 1


def test_the_commands_of_the_readme_are_those_of_the_program(folder):
    text = (folder / "README.md").read_text()
    for command in ("compare", "consumer /tmp/market.sock inlined", "producer /tmp/market.sock inlined"):
        assert f"python run.py {command}" in text
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "compare" in done.stderr
