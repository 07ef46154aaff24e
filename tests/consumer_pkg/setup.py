"""Two modules: one on the methods of Bus, in C; one with the ring inlined, in C++20."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import tachyon

methods = Extension(
    "tachyon_consumer.methods", ["src/tachyon_consumer/methods.pyx"], extra_compile_args=["-Wall", "-Werror"]
)
inlined = Extension(
    "tachyon_consumer.inlined",
    ["src/tachyon_consumer/inlined.pyx"],
    language="c++",
    include_dirs=[tachyon.get_include()],
    extra_compile_args=["-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror"],
)
setup(ext_modules=cythonize([methods, inlined]))
