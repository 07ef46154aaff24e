"""Builds the C++ core with CMake as a static library, then links the one extension module to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
# Ours are errors (make and CI set it); a newer compiler's warning must not keep anybody from installing.
WERROR = os.environ.get("TACHYON_WERROR") == "1"
# Made beforehand by scripts/wheels: what the extension links to, and what is installed for C++ users. docs/adr/0004
LIBRARY, PREFIX = os.environ.get("TACHYON_LIBRARY"), os.environ.get("TACHYON_PREFIX")

if sysconfig.get_config_var("Py_GIL_DISABLED") and os.environ.get("TACHYON_FREE_THREADED") != "1":
    sys.exit(
        "tachyon-ipc has not been tested on free-threaded Python, and relies on the GIL: use an ordinary one, "
        "or set TACHYON_FREE_THREADED=1 to build at your own risk"
    )


class BuildExt(build_ext):
    """Has CMake build the core before the extension is linked to it, and install it beside the extension."""

    def run(self) -> None:
        """Build libtachyon.a, add it to the link, build as usual, and put what C++ users need into the package."""
        # An editable install is its source tree: there it goes to the same place, tachyon/include and tachyon/lib.
        package = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "tachyon"
        core = Path(self.build_temp).resolve() / "core"
        if not (LIBRARY and PREFIX):
            self.build_core(core)
        library = LIBRARY or str(core / "libtachyon.a")
        for extension in self.extensions:
            extension.extra_objects = [library]
            extension.depends = [library]
            extension.define_macros = [("TACHYON_VERSION", f'"{self.distribution.get_version()}"')]
        super().run()
        for old in ("include", "lib"):
            shutil.rmtree(package / old, ignore_errors=True)
        if PREFIX:
            shutil.copytree(PREFIX, package, dirs_exist_ok=True)
        else:
            subprocess.run(["cmake", "--install", str(core), "--prefix", str(package)], check=True)

    def build_core(self, folder: Path) -> None:
        """Configure and build there."""
        if not shutil.which("cmake"):
            sys.exit("tachyon-ipc needs CMake >= 3.25 to build from source: apt-get install cmake or pip install cmake")
        options = ["-DCMAKE_BUILD_TYPE=Release", "-DTACHYON_TESTS=OFF", "-DTACHYON_BENCH=OFF", "-DTACHYON_INSTALL=ON"]
        options += [f"-DTACHYON_WERROR={'ON' if WERROR else 'OFF'}"]
        options += ["-DCMAKE_INSTALL_LIBDIR=lib", "-DCMAKE_INSTALL_INCLUDEDIR=include"]
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(["cmake", "--build", str(folder), "--target", "tachyon_core", "-j", jobs], check=True)


extension = Extension(
    "tachyon._tachyon",
    ["tachyon/_tachyon.pyx"],
    language="c++",
    include_dirs=["cxx/include"],
    extra_compile_args=["-std=c++20", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"] + ["-Werror"] * WERROR,
    extra_link_args=["-Wl,--version-script=tachyon/_tachyon.map"] * sys.platform.startswith("linux"),
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
    cmdclass={"build_ext": BuildExt},
)
