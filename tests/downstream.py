"""Compiles Cython modules as a project elsewhere would, for the tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import tachyon

BUILD = """\
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
name, include, folder = sys.argv[-3:]
del sys.argv[-3:]
extension = Extension(name, [name + ".pyx"])
if include:  # tier 2
    extension.language = "c++"
    extension.include_dirs = [include]
    extension.extra_compile_args = ["-std=c++20", "-Wall", "-Wextra"]
setup(name=name, py_modules=[], ext_modules=cythonize([extension], include_path=[folder] if folder else []))
"""


def need_compiler() -> None:
    """Skip the test module where nothing can be compiled."""
    pytest.importorskip("Cython")
    if not shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]):
        pytest.skip("no compiler", allow_module_level=True)


def build(folder: Path, name: str, source: str, *, include: str = "") -> Path:
    """Compile `source` in `folder`: as C without any header, or as C++20 with those of the folder `include`."""
    (folder / f"{name}.pyx").write_text(source)
    (folder / "setup.py").write_text(BUILD)
    # An ordinary install is found by itself; an editable one stands where only an import hook finds it.
    parent = str(Path(tachyon.__file__).parent.parent)
    installed = parent in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace", name, include, "" if installed else parent],
        cwd=folder,
        env=os.environ | {"CFLAGS": "-O1 -Werror"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return folder


def load(folder: Path, name: str) -> ModuleType:
    """Import what build made."""
    spec = importlib.util.spec_from_file_location(name, next(folder.glob(f"{name}.*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
