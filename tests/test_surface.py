"""What modules elsewhere are compiled against: the sizes, the order and the signatures in our pxd files.

tests/surface.txt holds them. When this is red:

- something was appended, at the end of a class's methods or of Status: run `python tests/test_surface.py`, which
  writes surface.txt anew, look at the difference, commit it, and tell of it in CHANGELOG.md;
- a field was added to Bus or RpcBus: put it into what `_handle` points to, BusHandle or RpcHandle, which nobody else
  sees. The size has to stay: where it has grown, the import of every module that was compiled before warns of a binary
  incompatibility;
- something was changed, moved or removed, or a size is another one: every module that cimports tachyon would have to be
  compiled again, and would read the wrong memory until it is. Do not; add a new method instead. If it has to be, it is
  for a new major version, and docs/cython.md has to say so;
- Producer, Consumer or Frame of ring.hpp: ring_layout() follows by itself, and borrowing refuses modules of before. If
  the meaning of a field has changed and not its place, count kRingRevision up.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import tachyon
from tachyon import _tachyon

PINNED = Path(__file__).parent / "surface.txt"
PACKAGE = Path(tachyon.__file__).parent
PUBLIC = ["__init__.pxd", "_tachyon.pxd", "libtachyon.pxd"]
ADVICE = "; read the docstring of tests/test_surface.py before you go on"


def plain(name):
    """A pxd without comments, its signatures on one line each."""
    text = re.sub(r" *#.*", "", (PACKAGE / name).read_text())
    text = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", text))
    while (joined := re.sub(r"(\([^()]*),\n\s+", r"\1, ", text)) != text:
        text = joined
    return text


def block(text, head):
    """The lines under `head:`, in their order."""
    body = re.search(rf"^{re.escape(head)}(?:\(\w+\))?:\n((?: +.*\n|\n)*)", text, re.MULTILINE).group(1)
    return [line.strip() for line in body.splitlines() if line.strip()]


def described():
    """The surface as text: what surface.txt holds."""
    text, lines = plain("_tachyon.pxd"), []
    for head in ("cdef struct Frame", "cdef class Bus", "cdef class RpcBus"):
        lines += [head, *(f"    {line}" for line in block(text, head))]
    for name in ("Bus", "RpcBus"):
        size = getattr(_tachyon, name).__basicsize__ - object.__basicsize__
        lines.append(f"{name}: {size} bytes and a PyObject")
    lines += ["cdef enum Status", *(f"    {line}" for line in block(plain("__init__.pxd"), "cdef enum Status"))]
    return "\n".join(lines) + "\n"


def sections(text):
    """{heading: lines under it}"""
    found = {}
    lines = []
    for line in text.splitlines():
        if line.startswith(" "):
            lines.append(line.strip())
        else:
            lines = found[line] = []
    return found


def test_nothing_that_others_are_compiled_against_has_changed():
    pinned, now = sections(PINNED.read_text()), sections(described())
    assert list(now) == list(pinned), "a size has changed, or a class" + ADVICE
    for heading, lines in pinned.items():
        assert now[heading][: len(lines)] == lines, f"{heading}: changed, moved or removed" + ADVICE


def test_what_was_appended_is_pinned_too():
    assert described() == PINNED.read_text(), "something was appended" + ADVICE


def test_fields_come_before_methods_and_are_all_private_in_name():
    text = plain("_tachyon.pxd")
    for name in ("Bus", "RpcBus"):
        members = [line for line in block(text, f"cdef class {name}") if line.startswith("cdef ")]
        fields = [line for line in members if "(" not in line]
        assert members[: len(fields)] == fields
        assert all(field.split()[-1].startswith("_") for field in fields)
        assert not any(re.search(r"\b_\w+\(", line) for line in members)


def test_the_compiled_layout_is_the_declared_one(tmp_path):
    """The structs that Cython makes of the pxd in a module elsewhere: the same names in the same order."""
    pytest.importorskip("Cython")
    (tmp_path / "user.pyx").write_text("from tachyon cimport Bus, RpcBus\ndef use(Bus bus, RpcBus rpc): pass\n")
    parent = str(PACKAGE.parent)
    subprocess.run([sys.executable, "-m", "cython", "-I", parent, "user.pyx"], cwd=tmp_path, check=True, timeout=60)
    made = (tmp_path / "user.c").read_text()
    pinned = sections(PINNED.read_text())
    for name in ("Bus", "RpcBus"):
        lines = [line for line in pinned[f"cdef class {name}"] if line.startswith("cdef ")]
        vtable = re.search(rf"struct __pyx_vtabstruct_\w+_{name} {{\n(.*?)}};", made, re.DOTALL).group(1)
        assert re.findall(r"\(\*(\w+)\)", vtable) == [
            re.search(r"(\w+)\(", line).group(1) for line in lines if "(" in line
        ]
        fields = re.search(rf"struct __pyx_obj_\w+_{name} {{\n(.*?)}};", made, re.DOTALL).group(1)
        named = [each for each in re.findall(r"(\w+)(?:\[\d+\])?;", fields) if not each.startswith("__pyx_")]
        assert named == [line.split()[-1] for line in lines if "(" not in line]


def test_the_pxd_files_expose_what_is_documented_and_nothing_else():
    exposed = {}
    for name in PUBLIC:
        text = plain(name)
        names = set(re.findall(r"^cdef (?:class|struct|enum) (\w+)", text, re.MULTILINE))
        names |= set(re.findall(r"^cdef inline .*?(\w+)\(", text, re.MULTILINE))
        names |= set(re.findall(r"^    cdef (?:cppclass|enum class|struct) (\w+)", text, re.MULTILINE))
        names |= set(re.findall(r"^    (?:unsigned long long|void|bint) (\w+)\(", text, re.MULTILINE))
        for brought in re.findall(r"^from [\w.]+ cimport (.*)$", text, re.MULTILINE):
            names |= {each.strip() for each in brought.split(",")}
        assert not re.search(r"^c?import ", text, re.MULTILINE), name
        exposed[name] = names
    bus = set(block(plain("_tachyon.pxd"), "cdef class Bus"))
    assert bus
    assert exposed == {
        "__init__.pxd": {"Bus", "Frame", "RpcBus", "Status"},
        "_tachyon.pxd": {"Bus", "Frame", "RpcBus", "_Abortable", "_BusArrays", "_BusBell", "_BusObjects", "_RpcArrays"},
        "libtachyon.pxd": {
            "Bus", "Consumer", "Frame", "Producer", "Status", "borrow_consumer", "borrow_producer", "cpu_relax",
            "give_back", "now_ns", "ring_layout",
        },
    }  # fmt: skip


def test_the_names_of_the_core_cannot_be_had(tmp_path):
    pytest.importorskip("Cython")
    for name in ("core", "Producer", "BusHandle", "handle_of"):
        (tmp_path / "user.pyx").write_text(f"from tachyon cimport {name}\n")
        command = [sys.executable, "-m", "cython", "-I", str(PACKAGE.parent), "user.pyx"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0, name
        assert "not found" in done.stderr or "cannot" in done.stderr or "not declared" in done.stderr


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.pxd")), ids=lambda path: path.name)
def test_a_pxd_says_which_language_it_is_in(path):
    assert path.read_text().startswith("# cython: language_level=3\n")


def test_the_sizes_are_those_of_a_64_bit_machine():
    assert sysconfig.get_config_var("SIZEOF_VOID_P") == 8


if __name__ == "__main__":
    PINNED.write_text(described())
