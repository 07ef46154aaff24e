"""The package as C++ code of other people uses it: found with CMake, with pkg-config, or by hand; built, and run."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tachyon

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = Path(tachyon.__file__).parent
CXX = shlex.split(os.environ.get("CXX", "c++"))
HELLO = "type 7: hello from C++\n"

if not shutil.which(CXX[0]):
    pytest.skip("no C++ compiler", allow_module_level=True)
needs_cmake = pytest.mark.skipif(not shutil.which("cmake"), reason="no CMake")
needs_pkgconfig = pytest.mark.skipif(not shutil.which("pkg-config"), reason="no pkg-config")


def run(*command, code=0, **more):
    done = subprocess.run(
        [str(each) for each in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        **more,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def folder_of(option):
    """What `python -m tachyon --cmake-dir` and its like say."""
    return run(sys.executable, "-m", "tachyon", option, cwd="/").strip()


def build_with_cmake(build, cmake_dir, *more, code=0):
    return run("cmake", "-S", HERE / "consumer_cmake", "-B", build, f"-Dtachyon_DIR={cmake_dir}", *more, code=code) + (
        run("cmake", "--build", build) if code == 0 else ""
    )


def compile_with_pkgconfig(pkgconfig_dir, program):
    flags = run(
        "pkg-config", "--cflags", "--libs", "tachyon", env=os.environ | {"PKG_CONFIG_PATH": str(pkgconfig_dir)}
    ).split()
    run(*CXX, "-std=c++20", HERE / "consumer_pkgconfig" / "main.cpp", "-o", program, *flags)
    return flags


@needs_cmake
def test_a_cmake_project_finds_links_and_runs(tmp_path):
    build_with_cmake(tmp_path / "build", folder_of("--cmake-dir"))
    assert run(tmp_path / "build" / "consumer", tmp_path / "socket") == HELLO


@needs_pkgconfig
def test_pkgconfig_finds_it(tmp_path):
    flags = compile_with_pkgconfig(folder_of("--pkgconfig-dir"), tmp_path / "consumer")
    assert {"-ltachyon", "-pthread"} <= set(flags)  # older glibcs have threads in a library of their own
    assert run(tmp_path / "consumer", tmp_path / "socket") == HELLO


def test_python_knows_the_flags(tmp_path):
    flags = [f"-I{tachyon.get_include()}"]
    flags += [f"-L{each}" for each in tachyon.get_library_dirs()] + [f"-l{each}" for each in tachyon.get_libraries()]
    program = tmp_path / "consumer"
    run(*CXX, "-std=c++20", HERE / "consumer_cmake" / "main.cpp", "-o", program, *flags, "-pthread")
    assert run(program, tmp_path / "socket") == HELLO
    assert folder_of("--include-dir") == tachyon.get_include()


@needs_cmake
@needs_pkgconfig
def test_it_may_be_moved(tmp_path):
    moved = tmp_path / "moved here"
    for name in ("include", "lib"):
        shutil.copytree(PACKAGE / name, moved / name)
    build_with_cmake(tmp_path / "build", moved / "lib" / "cmake" / "tachyon")
    cache = (tmp_path / "build" / "CMakeCache.txt").read_text()
    assert str(PACKAGE) not in cache
    for path in (tmp_path / "build").rglob("*.make"):
        assert str(PACKAGE) not in path.read_text()
    shutil.move(moved, tmp_path / "moved")  # pkg-config would quote the blank, split() above would not understand
    flags = compile_with_pkgconfig(tmp_path / "moved" / "lib" / "pkgconfig", tmp_path / "consumer")
    assert not [flag for flag in flags if str(PACKAGE) in flag]


def programs_of_the_documentation():
    """By the name in their first line."""
    page = ROOT / "docs" / "cpp.md"
    return dict(re.findall(r"```cpp\n// (\w+)\.cpp\n(.*?)```", page.read_text(), re.DOTALL)) if page.is_file() else {}


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """Starts one of the programs of the documentation, which have been compiled."""
    folder = tmp_path_factory.mktemp("documented")
    running = []
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-I", tachyon.get_include()]
    libraries = ["-L", *tachyon.get_library_dirs(), "-ltachyon", "-pthread"]
    for name, code in programs_of_the_documentation().items():
        assert "/tmp/cpp.sock" in code
        source = folder / f"{name}.cpp"
        source.write_text(code.replace("/tmp/cpp.sock", str(folder / "socket")))
        run(*CXX, *flags, source, "-o", folder / name, *libraries)

    def start(name):
        running.append(subprocess.Popen([folder / name], stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.communicate()


@pytest.mark.skipif(not (ROOT / "docs" / "cpp.md").is_file(), reason="only in the source tree")
@pytest.mark.parametrize(
    ("listening", "connecting", "heard", "answered"),
    [
        ("consumer", "producer", "7: hello\n7: from\n7: C++\n", ""),
        ("consumer", "in_place", "1: !!!!!\n2: one\n2: two\n", ""),
        ("callee", "caller", "", "hello\n"),
        ("sums", "identity", "3 x 3: 3\n", ""),
    ],
)
def test_the_programs_of_the_documentation_work(documented, listening, connecting, heard, answered):
    listener, connector = documented(listening), documented(connecting)
    assert connector.communicate(timeout=60)[0] == answered
    assert listener.communicate(timeout=60)[0] == heard
    assert (connector.returncode, listener.returncode) == (0, 0)


@pytest.mark.skipif(not (ROOT / "docs" / "cpp.md").is_file(), reason="only in the source tree")
def test_every_program_of_the_documentation_is_run():
    page = (ROOT / "docs" / "cpp.md").read_text()
    assert set(programs_of_the_documentation()) == {
        "consumer", "producer", "in_place", "callee", "caller", "sums", "identity",
    }  # fmt: skip
    fragments = 1  # how an end of a pair is opened, which pair_end.tests has
    assert page.count("```cpp\n") == len(programs_of_the_documentation()) + fragments


def headers():
    folder = Path(tachyon.get_include())
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "tachyon").rglob("*.hpp"))


@pytest.mark.parametrize("header", headers())
def test_every_header_stands_alone(header, tmp_path):
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{tachyon.get_include()}"]
    run(*CXX, *flags, "-fsyntax-only", source)


def test_an_older_standard_is_refused_with_a_reason(tmp_path):
    source = tmp_path / "old.cpp"
    source.write_text('#include "tachyon/bus.hpp"\n')
    said = run(*CXX, "-std=c++17", f"-I{tachyon.get_include()}", "-fsyntax-only", source, code=1)
    assert "tachyon needs C++20" in said


@needs_cmake
@pytest.mark.parametrize("wanted", ["0.9", "2"])
def test_another_major_version_is_not_found(wanted, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(other LANGUAGES CXX)\nfind_package(tachyon {wanted} REQUIRED)\n"
    )
    said = run("cmake", "-S", project, "-B", tmp_path / "b", f"-Dtachyon_DIR={folder_of('--cmake-dir')}", code=1)
    assert f'compatible with requested version "{wanted}"' in " ".join(said.split())


@needs_cmake
def test_another_standard_library_is_refused_with_a_reason(tmp_path):
    # Stands for `clang++ -stdlib=libc++`, which few machines have: a <cstddef> that knows of no libstdc++.
    (tmp_path / "cstddef").write_text("#define _LIBCPP_VERSION 1\n")
    flags = f"-DCMAKE_CXX_FLAGS=-nostdinc++ -isystem {tmp_path}"
    said = " ".join(build_with_cmake(tmp_path / "build", folder_of("--cmake-dir"), flags, code=1).split())
    assert "libtachyon.a was compiled against GNU's libstdc++, which this compiler does not use" in said


@needs_cmake
def test_a_quiet_find_is_quiet_and_takes_nothing_from_the_checks_of_the_project(tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\n"
        "project(user CXX)\n"
        "set(CMAKE_REQUIRED_LIBRARIES not_built_yet)\n"
        "find_package(tachyon QUIET REQUIRED)\n"
        'message(STATUS "left: ${CMAKE_REQUIRED_LIBRARIES}")\n'
    )
    said = run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dtachyon_DIR={folder_of('--cmake-dir')}")
    assert "left: not_built_yet" in said
    assert "TACHYON" not in said


def test_build_tools_are_told_by_the_entry_point():
    told = [each for each in importlib.metadata.entry_points(group="cmake.root") if each.name == "tachyon"]
    assert told
    root = Path(told[0].load().__file__).parent
    assert (root / "lib" / "cmake" / "tachyon" / "tachyonConfig.cmake").is_file()


@needs_cmake
@pytest.mark.skipif(not (ROOT / "CMakeLists.txt").is_file(), reason="only in the source tree")
def test_cmake_install_gives_the_same_package(tmp_path):
    build, prefix = tmp_path / "build", tmp_path / "prefix"
    options = ("-DTACHYON_TESTS=OFF", "-DTACHYON_BENCH=OFF", "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "-S", ROOT, "-B", build, *options)
    (build / "libtachyon.a").write_bytes((PACKAGE / "lib" / "libtachyon.a").read_bytes())  # built already
    run("cmake", "--install", build, "--prefix", prefix)

    def files(folder):
        found = (path for name in ("include", "lib") for path in (folder / name).rglob("*") if path.is_file())
        return {path.relative_to(folder): path.read_bytes() for path in found}

    assert files(prefix) == files(PACKAGE)


def test_a_library_that_has_not_been_built_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tachyon, "__file__", str(tmp_path / "tachyon" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match=r"libtachyon\.a has not been built.*pip install -e"):
        tachyon.get_library_dirs()


def test_the_command_line_says_so_too(monkeypatch, capsys):
    from tachyon.cli import main

    def missing():
        raise FileNotFoundError("it has not been built")

    monkeypatch.setattr(main, "get_library_dirs", missing)
    with pytest.raises(SystemExit) as caught:
        main.main(["--cmake-dir"])
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "python -m tachyon: it has not been built\n")
