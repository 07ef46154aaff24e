"""Builds the C++ core with CMake as a static library, then links the one extension module to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
HEADERS = Path("cxx/include/tachyon")
# Ours are errors (make and CI set it); a newer compiler's warning must not keep anybody from installing.
WERROR = os.environ.get("TACHYON_WERROR") == "1"


class BuildExt(build_ext):
    """Has CMake build the core before the extension is linked to it."""

    def run(self) -> None:
        """Build libtachyon.a, add it to the link, then build as usual."""
        library = self.build_core()
        for extension in self.extensions:
            extension.extra_objects = [str(library)]
            extension.depends = [str(library)]
            extension.define_macros = [("TACHYON_VERSION", f'"{self.distribution.get_version()}"')]
        super().run()

    def build_core(self) -> Path:
        """Configure and build in the build folder; returns the path of the library."""
        if not shutil.which("cmake"):
            sys.exit("tachyon-ipc needs CMake >= 3.25 to build from source: apt-get install cmake or pip install cmake")
        folder = Path(self.build_temp).resolve() / "core"
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DTACHYON_TESTS=OFF", "-DTACHYON_BENCH=OFF"]
        options += [f"-DTACHYON_WERROR={'ON' if WERROR else 'OFF'}"]
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", str(folder), "--target", "tachyon_core", "-j", jobs], check=True)
        return folder / "libtachyon.a"


class BuildPy(build_py):
    """Puts the C++ headers beside the Python package, where tachyon.get_include() finds them."""

    def run(self) -> None:
        """Copy as usual, then the headers, except where the source tree itself is the package."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "tachyon" / "include" / "tachyon"
        target.mkdir(parents=True, exist_ok=True)
        for header in sorted((ROOT / HEADERS).glob("*.hpp")):
            self.copy_file(str(header), str(target / header.name))


extension = Extension(
    "tachyon._tachyon",
    ["tachyon/_tachyon.pyx"],
    language="c++",
    include_dirs=["cxx/include"],
    extra_compile_args=["-std=c++20", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"] + ["-Werror"] * WERROR,
)

setup(
    ext_modules=cythonize(
        [extension],
        language_level=3,
        compiler_directives={
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "warn.unreachable": False,
        },
    ),
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
