"""Who may use whom: each part knows only those to its left, never those to its right."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*["<](?:tachyon/)?(?:\w+/)?(\w+)\.hpp[">]', re.MULTILINE)
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?(c?import)\s+(.+)$", re.MULTILINE)
EXTERN = re.compile(r'cdef extern from "tachyon/(?:\w+/)?(\w+)\.hpp"')

# Left is used by right, never back. Of the package, those of one set do not use each other.
CORE = [
    *("error", "layout", "access", "hello", "futex", "wait"),
    *("frame", "copy", "producer", "consumer", "ring", "early_releases", "waiting", "outlet", "inlet", "array"),
    *("descriptor", "event_queue", "memory", "sockets", "segment", "parcel", "ring_segment", "stats"),
    *("fork", "socket_file", "arrangement", "inbox", "handshake", "listener", "meeting", "pair_end"),
    *("parcels", "bus", "batch", "rpc", "wait_set", "gate", "bus_handle", "rpc_handle"),
]
# Headers that stand beside the sources, each a part of one in front of them.
PRIVATE = {"greeting": "handshake", "offer": "handshake", "clients": "listener"}
PARTS_OF_THE_HANDSHAKE = {"connection", "connector", "greeting", "offer"}
SYSTEMS = {"events": "event_queue", "memory": "memory", "peer": "sockets", "sockets": "sockets"}
PART = PRIVATE | dict.fromkeys(PARTS_OF_THE_HANDSHAKE, "handshake") | {"bus_parcels": "bus", "bus_wait": "bus"}
PART |= {f"{subject}_{system}": part for subject, part in SYSTEMS.items() for system in ("linux", "macos")}
PACKAGE = [
    {"_errors", "_ids", "_dtypes"},
    {"_core", "_dlpack", "_objects"},
    {"_tachyon", "_bench"},
    {"_client"},
    {"_rpc", "_outbox", "_pipe"},
    {"_dispatcher"},
    {"_server"},
    {"aio"},
    {"__init__", "libtachyon"},
    {"bridge"},
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
    part = PART.get(source.stem, source.stem)
    used = {PRIVATE.get(each, each) for each in includes(source) - {"macos"}}
    assert part in CORE, "a new part: say where it stands"
    assert part in used
    assert used <= set(CORE[: CORE.index(part) + 1])
    assert "Python.h" not in source.read_text()


@needs_sources
def test_the_ring_never_sees_a_socket_and_the_handshake_never_a_frame():
    for header in (ROOT / "cxx" / "include" / "tachyon" / "ring").glob("*.hpp"):
        assert not re.search(r"#\s*include\s*<(sys/socket|sys/un|poll)\.h>", header.read_text())
    link = [*(ROOT / "cxx" / "include" / "tachyon" / "link").iterdir(), *(ROOT / "cxx" / "src" / "link").iterdir()]
    for path in link:
        assert not re.search(r"\b(Producer|Consumer|Frame)\b", path.read_text()), path.name


@needs_sources
def test_a_segment_knows_nothing_of_what_stands_in_it_and_of_the_handshake_one_source_does():
    shm = [*(ROOT / "cxx" / "include" / "tachyon" / "shm").iterdir(), *(ROOT / "cxx" / "src" / "shm").iterdir()]
    for path in [*shm, *(ROOT / "cxx" / "src" / "platform").iterdir()]:
        assert not includes(path) & {"layout", "ring", "ring_segment", "arrangement"}, path.name
    knowing = {path.name for path in (ROOT / "cxx" / "src" / "link").iterdir() if "ring_segment" in includes(path)}
    assert knowing == {"arrangement.cpp"}


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
# _tachyon.pyx in the order of its includes: each part knows those before it.
PARTS = [
    *("status", "arguments", "message", "waiting", "handle", "arrays", "guards", "sending", "receiving"),
    *("calls", "array_guard", "array_ends", "open", "bell", "objects", "bus", "rpc", "ends", "exchange", "loops"),
    *("listener", "wait_set", "async", "packing"),
]


def part_of(path):
    return path.stem[1:]


def code_of_part(part):
    """A part without its comments, docstrings and texts."""
    text = (ROOT / "tachyon" / f"_{part}.pxi").read_text()
    text = re.sub(
        r'""".*?"""', lambda found: found.group() if "tachyon::" in found.group() else "", text, flags=re.DOTALL
    )
    text = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)
    return re.sub(r"(?:#(?!include)|//).*", "", text)


def defined_in_part(part):
    code = code_of_part(part)
    names = set(
        re.findall(r"^cdef (?:inline )?(?:class|struct|enum) (\w+)|^class (\w+)|^def (\w+)", code, re.MULTILINE)
    )
    names = {name for found in names for name in found if name}
    names |= set(re.findall(r"^cdef [^(=\n]*?(\w+)\(", code, re.MULTILINE))
    names |= set(re.findall(r"\bcdef cppclass (\w+)", code)) | set(
        re.findall(r"\b(tachyon_\w+)\(", code.split("\n\n\n")[0])
    )
    return names | set(re.findall(r"^(_[A-Z]\w+) =", code, re.MULTILINE))


def test_the_parts_are_included_in_their_order():
    included = re.findall(r'^include "_(\w+)\.pxi"$', (ROOT / "tachyon" / "_tachyon.pyx").read_text(), re.MULTILINE)
    assert included == PARTS


@pytest.mark.parametrize("part", PARTS)
def test_a_part_uses_only_those_before_it(part):
    used = set(re.findall(r"(?<![.:\w])([A-Za-z_]\w*)", code_of_part(part)))
    # The classes of the public pxd are declared before all parts.
    used -= set(re.findall(r"^cdef class (\w+)", (ROOT / "tachyon" / "_tachyon.pxd").read_text(), re.MULTILINE))
    assert defined_in_part(part), "nothing found: has the way of writing changed?"
    for later in PARTS[PARTS.index(part) + 1 :]:
        assert not used & (defined_in_part(later) - defined_in_part(part)), f"_{part}.pxi uses _{later}.pxi"


def test_no_private_function_takes_more_than_five_arguments():
    """Of the Cython layer. What the public pxd declares is what it is."""
    public = (ROOT / "tachyon" / "_tachyon.pxd").read_text()
    for part in PARTS:
        for name, arguments in re.findall(r"^ *cdef [^(=\n]*?(\w+)\(([^)]*)\)", code_of_part(part), re.MULTILINE):
            if f" {name}(" not in public and "cdef extern" not in arguments:
                count = len([each for each in arguments.split(",") if each.strip() and each.strip() != "self"])
                assert count <= 5, f"_{part}.pxi: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_to_its_left(path):
    inner = path.relative_to(ROOT / "tachyon")
    part = inner.suffix == ".pxi"
    module = "_tachyon" if part else inner.parts[0] if len(inner.parts) > 1 else inner.stem
    used = imports_of_python(path) if path.suffix in (".py", ".pyi") else imports_of_cython(path)
    if part:
        assert part_of(inner) in PARTS, "a new part: say where it stands"
    for other in used - {module}:
        assert rank(other) < rank(module), f"{inner} uses {other}"


@needs_sources
@pytest.mark.parametrize("name", ["_errors", "_ids", "_dtypes"])
def test_errors_ids_and_dtypes_import_nothing_of_ours(name):
    assert imports_of_python(ROOT / "tachyon" / f"{name}.py") == set()


def test_the_measurements_in_cxx_are_for_the_command_that_prints_them():
    users = {path for path in MODULES if "_bench" in re.findall(r"tachyon\.(_bench)\b", path.read_text())}
    assert {path.parent for path in users} == {ROOT / "tachyon" / "cli" / "bench"}
    code = "import sys, tachyon; sys.exit('tachyon._bench' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


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
