# cython: language_level=3
# distutils: language = c++
"""What `python -m tachyon bench` measures in C++: the commands of cxx/bench, without peers that are not here."""

from libcpp.string cimport string
from libcpp.vector cimport vector

cdef extern from "programs.hpp" namespace "bench" nogil:
    int c_run "bench::run"(const vector[string]& arguments)


cdef extern from "tachyon_build.hpp":  # written by setup.py
    """
    #ifdef __clang__
    #define TACHYON_BUILD_COMPILER __VERSION__
    #else
    #define TACHYON_BUILD_COMPILER "GCC " __VERSION__
    #endif
    """
    const char* TACHYON_BUILD_COMPILER
    const char* TACHYON_BUILD_FLAGS
    const char* TACHYON_BUILD_COMMIT

__build__ = {
    "compiler": TACHYON_BUILD_COMPILER.decode(),
    "flags": TACHYON_BUILD_FLAGS.decode(),
    "commit": TACHYON_BUILD_COMMIT.decode(),
}


def run(arguments):
    """Do one command, which prints lines of JSON to descriptor 1. It may end the process: for a child to call."""
    cdef vector[string] words = [str(argument).encode() for argument in arguments]
    return c_run(words)
