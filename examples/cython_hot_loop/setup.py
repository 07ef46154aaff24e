"""python setup.py build_ext --inplace"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import tachyon

methods = Extension("methods", ["methods.pyx"], extra_compile_args=["-O3"])
inlined = Extension(
    "inlined", ["inlined.pyx"], include_dirs=[tachyon.get_include()], extra_compile_args=["-std=c++20", "-O3"]
)
# The include_path is needed only where tachyon is an editable install, which Cython does not find by itself.
setup(
    name="hot-loop",
    py_modules=[],
    ext_modules=cythonize([methods, inlined], include_path=[str(Path(tachyon.__file__).parent.parent)]),
)
