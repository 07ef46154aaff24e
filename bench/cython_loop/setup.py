"""Build the loops in place, in whatever folder this is run: python setup.py build_ext --inplace."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import tachyon

HERE = Path(__file__).parent
extension = Extension(
    "loops",
    [str(HERE / "loops.pyx")],
    language="c++",
    include_dirs=[tachyon.get_include()],
    extra_compile_args=["-std=c++20", "-O3"],
)
# An editable install stands where only an import hook finds it, hence the include_path.
setup(
    name="loops",
    packages=[],
    ext_modules=cythonize([extension], include_path=[str(Path(tachyon.__file__).parent.parent)], build_dir="build"),
)
