"""Builds the C++ core with CMake as a static library, then links the extension module to it, and that of the bench."""

from __future__ import annotations

import os
import re
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
LINUX = sys.platform.startswith("linux")

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
        self.parallel = self.parallel or len(self.extensions)
        super().run()
        for old in ("include", "lib"):
            shutil.rmtree(package / old, ignore_errors=True)
        if PREFIX:
            shutil.copytree(PREFIX, package, dirs_exist_ok=True)
        else:
            subprocess.run(["cmake", "--install", str(core), "--prefix", str(package)], check=True)

    def build_extensions(self) -> None:
        """Tell the bench with what all is built: in a header of its own, so that a commit makes nothing else anew."""
        words = [*getattr(self.compiler, "compiler_so_cxx", self.compiler.compiler_so), *ARGUMENTS]
        flags = " ".join(word for word in words if re.fullmatch(r"-(?!I)[^/]+", word))  # no folders of this machine
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tachyon_build.hpp").write_text(
            f'#define TACHYON_BUILD_FLAGS "{flags}"\n#define TACHYON_BUILD_COMMIT "{commit()}"\n', encoding="utf-8"
        )
        for extension in self.extensions:
            extension.include_dirs.append(str(folder))
        super().build_extensions()

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


def commit() -> str:
    """What is built: of this repository, or what scripts/wheels says of its source distribution."""
    if not (ROOT / ".git").exists():
        return os.environ.get("TACHYON_COMMIT", "")
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


ARGUMENTS = ["-std=c++20", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"] + ["-Werror"] * WERROR
HOW = {
    "language": "c++",
    "extra_compile_args": ARGUMENTS,
    "extra_link_args": ["-Wl,--version-script=tachyon/modules.map"] * LINUX,
}
# What is measured in C++ by `python -m tachyon bench`. It does without where it cannot be built.
MEASURED = [f"cxx/bench/{name}.cpp" for name in ("commands", "channels", "boost", "frames", "growth")]
extensions = [Extension("tachyon._tachyon", ["tachyon/_tachyon.pyx"], include_dirs=["cxx/include"], **HOW)]
if LINUX and os.environ.get("TACHYON_BENCH") != "0":
    folders = ["cxx/include", "cxx/bench"]
    sources = ["tachyon/_bench.pyx", *MEASURED]
    extensions += [Extension("tachyon._bench", sources, include_dirs=folders, optional=not WERROR, **HOW)]

setup(
    ext_modules=cythonize(
        extensions,
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
