"""Who may use whom: each part knows only those to its left, never those to its right."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*["<](?:tachyon/)?(?:\w+/)?(\w+)\.hpp[">]', re.MULTILINE)
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?(c?import)\s+(.+)$", re.MULTILINE)
EXTERN = re.compile(r'cdef extern from "tachyon/(?:\w+/)?(\w+)\.hpp"')

# Left is used by right, never back. Of the package, those of one set do not use each other.
CORE = [
    *("error", "layout", "futex", "wait", "frame", "copy", "producer", "consumer", "ring"),
    *("descriptor", "event_queue", "platform", "segment"),
    *("fork", "socket_file", "handshake", "bus", "rpc", "wait_set"),
]
# The handshake is one header and several sources, which share a header of their own; the platform one source a system.
PARTS_OF_THE_HANDSHAKE = {"connection", "connector", "hello", "listener"}
PART = dict.fromkeys(PARTS_OF_THE_HANDSHAKE, "handshake") | {"platform_linux": "platform", "platform_macos": "platform"}
PACKAGE = [
    {"_errors", "_ids"},
    {"_core", "_dlpack"},
    {"_tachyon"},
    {"_rpc"},
    {"_dispatcher", "aio"},
    {"_server"},
    {"__init__", "libtachyon"},
    {"cli"},
    {"__main__"},
]

needs_sources = pytest.mark.skipif(not (ROOT / "cxx" / "include").is_dir(), reason="only in the source tree")


def includes(path):
    return set(INCLUDE.findall(path.read_text()))


def headers():
    return sorted((ROOT / "cxx" / "include" / "tachyon").rglob("*.hpp"))


@needs_sources
@pytest.mark.parametrize("header", headers(), ids=lambda path: path.name)
def test_a_header_includes_only_what_stands_to_its_left(header):
    assert header.stem in CORE, "a new header: say where it stands"
    known = set(CORE[: CORE.index(header.stem)])
    assert includes(header) <= known
    assert not re.search(r"Python\.h|pybind|cpython", header.read_text())


@needs_sources
@pytest.mark.parametrize("source", sorted((ROOT / "cxx" / "src").rglob("*.cpp")), ids=lambda path: path.name)
def test_a_source_includes_its_own_header_and_what_stands_to_its_left(source):
    used = includes(source) - {"hello"}
    part = PART.get(source.stem, source.stem)
    assert part in CORE, "a new part: say where it stands"
    assert part in used or source.stem == "hello"
    assert used <= set(CORE[: CORE.index(part) + 1])
    assert "Python.h" not in source.read_text()


@needs_sources
def test_the_ring_never_sees_a_socket_and_the_handshake_never_a_frame():
    for header in (ROOT / "cxx" / "include" / "tachyon" / "ring").glob("*.hpp"):
        assert not re.search(r"#\s*include\s*<(sys/socket|sys/un|poll)\.h>", header.read_text())
    parts = [f"src/link/{part}.cpp" for part in ("socket_file", *PARTS_OF_THE_HANDSHAKE)]
    for name in ("include/tachyon/link/handshake.hpp", "src/link/hello.hpp", *parts):
        text = (ROOT / "cxx" / name).read_text()
        assert not re.search(r"\b(Producer|Consumer|Frame)\b", text), name


# ---- the package -----------------------------------------------------------------------------------------------------


def rank(module):
    for i, modules in enumerate(PACKAGE):
        if module in modules:
            return i
    raise AssertionError(f"tachyon.{module} is new: say where it stands")


def ours(module):
    """tachyon.a.b → a; tachyon → __init__; anything else → None."""
    first, _, rest = module.partition(".")
    return None if first != "tachyon" else rest.split(".")[0] or "__init__"


def imports_of_python(path):
    package = path.parent.relative_to(ROOT)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {ours(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.parts[: len(package.parts) - node.level + 1]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            if module == "tachyon":
                known = set().union(*PACKAGE)
                found |= {alias.name if alias.name in known else "__init__" for alias in node.names}
            else:
                found.add(ours(module))
    return found - {None}


def imports_of_cython(path):
    found = set()
    for source, _, names in CIMPORT.findall(path.read_text()):
        if source == "tachyon":
            known = set().union(*PACKAGE)
            for name in names.split(","):
                found.add(name.split()[0] if name.split()[0] in known else "__init__")
        elif source:
            found.add(ours(source))
        else:
            found |= {ours(name.split()[0]) for name in names.split(",")}
    return found - {None}


MODULES = [
    path for suffix in ("py", "pyx", "pxd", "pxi", "pyi") for path in sorted((ROOT / "tachyon").rglob(f"*.{suffix}"))
]
PARTS = {
    f"_{part}.pxi": "_tachyon"
    for part in (
        "exchange",
        "guards",
        "in_use",
        "listener",
        "loops",
        "nogil",
        "open",
        "receiving",
        "sending",
        "support",
    )
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_to_its_left(path):
    inner = path.relative_to(ROOT / "tachyon")
    module = PARTS.get(inner.name) or (inner.parts[0] if len(inner.parts) > 1 else inner.stem)
    used = imports_of_python(path) if path.suffix in (".py", ".pyi") else imports_of_cython(path)
    if path.suffix == ".pxi":
        assert inner.name in PARTS or inner.name.startswith("_rpc"), "a new part: say of what"
    for other in used - {module}:
        assert rank(other) < rank(module), f"{inner} uses {other}"


@needs_sources
@pytest.mark.parametrize("name", ["_errors", "_ids"])
def test_errors_and_ids_import_nothing_of_ours(name):
    assert imports_of_python(ROOT / "tachyon" / f"{name}.py") == set()


@needs_sources
def test_what_python_sees_of_the_core_is_declared_once():
    seen = {}
    for path in MODULES:
        if path.suffix in (".pyx", ".pxd", ".pxi"):
            for header in EXTERN.findall(path.read_text()):
                seen.setdefault(header, []).append(path.name)
    assert set(seen) <= set(CORE)
    for header, files in seen.items():
        others = [name for name in files if name != "libtachyon.pxd"]
        assert set(others) <= {"_core.pxd"}, header


def test_the_python_layer_never_touches_memory():
    for path in MODULES:
        if path.suffix == ".py":
            imported = {
                alias.name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            assert not imported & {"ctypes", "mmap", "socket"}, path.name
