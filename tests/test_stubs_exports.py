"""What is exported, what the stubs say, and that the two agree. mypy.stubtest compares more; this needs no mypy."""

import ast
import inspect
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tachyon
from tachyon import _tachyon

STUB = Path(tachyon.__file__).parent / "_tachyon.pyi"
CLASSES = ["ArrayGuard", "ArrayPayload", "Bus", "Message", "RxBatchGuard", "RxGuard", "RxView", "TxGuard"]


def declared(body):
    """Names that a stub's statements declare."""
    names = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return names


TREE = ast.parse(STUB.read_text())
STUBS = {node.name: node for node in TREE.body if isinstance(node, ast.ClassDef)}


def stub_of(name):
    names = declared(STUBS[name].body)
    for base in STUBS[name].bases:
        if base.id in STUBS:  # not what only type checkers see
            names |= stub_of(base.id)
    return names


def test_everything_promised_is_there_and_nothing_twice():
    assert len(set(tachyon.__all__)) == len(tachyon.__all__)
    for name in tachyon.__all__:
        assert hasattr(tachyon, name), name
    space = {}
    exec("from tachyon import *", space)
    assert set(tachyon.__all__) <= set(space)


def test_the_published_names_are_there():
    published = {"Bus", "TxGuard", "RxGuard", "RxBatchGuard", "Message", "TachyonError", "PeerDeadError"}
    assert published | {"make_type_id", "route_id", "msg_type"} <= set(tachyon.__all__)


def test_nothing_public_is_forgotten():
    modules = {"annotations", "Path"}
    public = {name for name, value in vars(tachyon).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public - modules == {name for name in tachyon.__all__ if name != "__version__"}


def test_the_stub_declares_what_the_module_has():
    public = {name for name in vars(_tachyon) if not name.startswith("_")}
    ours = {
        name
        for name in public
        if getattr(getattr(_tachyon, name), "__module__", "tachyon._tachyon") == "tachyon._tachyon"
        and not inspect.ismodule(getattr(_tachyon, name))
    }
    assert {name for name in declared(TREE.body) if not name.startswith("_")} == ours


@pytest.mark.parametrize("name", CLASSES)
def test_the_stub_of_a_class_declares_what_the_class_has(name):
    kind = getattr(_tachyon, name)
    real = {each for each in dir(kind) if not each.startswith("_")}
    assert {each for each in stub_of(name) if not each.startswith("_")} == real


@pytest.mark.parametrize("name", CLASSES)
def test_the_parameters_of_every_method_are_those_of_the_stub(name):
    for node in STUBS[name].body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        real = inspect.getattr_static(getattr(_tachyon, name), node.name)
        if inspect.isdatadescriptor(real):
            assert any(getattr(each, "id", "") == "property" for each in node.decorator_list), node.name
            continue
        signature = inspect.signature(getattr(getattr(_tachyon, name), node.name))
        arguments = node.args
        stated = [each.arg for each in arguments.posonlyargs + arguments.args if each.arg != "self"]
        found = [
            each.name
            for each in signature.parameters.values()
            if each.kind is not each.KEYWORD_ONLY and each.name != "self"
        ]
        assert stated == found, node.name
        stated = [each.arg for each in arguments.kwonlyargs]
        found = [each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
        assert stated == found, node.name


@pytest.mark.parametrize("name", CLASSES)
def test_everything_public_says_what_it_does(name):
    kind = getattr(tachyon, name)
    assert inspect.getdoc(kind)
    for member in dir(kind):
        if not member.startswith("_") and f"{name}.{member}" not in ("Message.type_id", "Message.data"):
            assert inspect.getdoc(inspect.getattr_static(kind, member)), f"{name}.{member}"


@pytest.mark.parametrize("name", ["Bus", "RpcBus", "RxGuard", "TxGuard", "Listener", "WaitSet"])
def test_the_stub_says_of_everything_public_what_the_extension_says(name):
    kind = getattr(_tachyon, name)
    said = {name: (ast.get_docstring(STUBS[name]), kind)}
    for node in STUBS[name].body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            said[node.name] = (ast.get_docstring(node), inspect.getattr_static(kind, node.name))
    for each, (stub, real) in said.items():
        first = " ".join((real.__doc__ or "").strip().split("\n\n")[0].split())
        assert " ".join((stub or "").split()) == first, f"{each}: run `make format`"


@pytest.mark.parametrize(
    "callee",
    [tachyon.Bus.listen, tachyon.RpcBus.listen, tachyon.RpcServer],
    ids=["Bus", "RpcBus", "RpcServer"],
)
def test_help_shows_a_mode_as_one_writes_it(callee):
    text = pydoc.plain(pydoc.render_doc(callee))
    assert re.search(r"mode(: '?int'?)? ?= ?0o600", text), text
    assert "384" not in text


def test_every_error_says_what_it_is():
    for name in tachyon.__all__:
        value = getattr(tachyon, name)
        if isinstance(value, type) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), name


def test_the_version_is_a_version_and_that_of_the_installed_package():
    from importlib.metadata import version

    assert re.fullmatch(r"\d+\.\d+\.\d+(\.?(dev|rc|a|b)\d+)?", tachyon.__version__)
    assert version("tachyon-ipc") == tachyon.__version__


def test_the_include_folder_holds_the_headers():
    folder = Path(tachyon.get_include())
    for header in ("ring/ring.hpp", "ring/layout.hpp", "wait/wait.hpp", "error.hpp", "bus.hpp"):
        assert (folder / "tachyon" / header).is_file()


def test_the_package_says_that_it_is_typed():
    assert (Path(tachyon.__file__).parent / "py.typed").is_file()


# ---- what a type checker makes of it ---------------------------------------------------------------------------------

USES = """\
import numpy as np

import tachyon


def receive(bus: tachyon.Bus) -> float:
    with bus.recv_zero_copy() as rx:
        with memoryview(rx) as view:
            print(view[0], bytes(rx), bytearray(rx), np.from_dlpack(rx))
        return float(np.frombuffer(rx, dtype=np.float32).sum())


def receive_batch(bus: tachyon.Bus) -> None:
    with bus.drain_batch() as batch:
        for each in batch:
            print(memoryview(each).nbytes, bytes(each), np.frombuffer(each, dtype=np.uint8), np.from_dlpack(each))


def send(bus: tachyon.Bus, payload: tachyon.RxGuard) -> None:
    with bus.send_zero_copy(size=8) as tx:
        np.frombuffer(tx, dtype=np.uint8)[:] = 7
        memoryview(tx)[:2] = b"ab"
    bus.send(payload)
"""
MISUSES = ["rx[0]", "rx.read()", "rx.size()", "list(rx)", "rx.tobytes()", "1 in rx", "rx.actual_size.upper()"]


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    pytest.importorskip("mypy")
    cache = tmp_path_factory.mktemp("cache")

    def check(source, version):
        folder = tmp_path_factory.mktemp("uses")
        (folder / "uses.py").write_text(source)
        (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n")
        parent = str(STUB.parent.parent)
        options = ["--python-version", version, "--cache-dir", cache, "--no-error-summary", "uses.py"]
        return subprocess.run(
            [sys.executable, "-m", "mypy", *options],
            cwd=folder,
            env=os.environ | ({} if "site-packages" in parent else {"MYPYPATH": parent}),
            capture_output=True,
            text=True,
            timeout=110,
        )

    return check


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.14"])
def test_a_guard_is_a_buffer_for_mypy_and_nothing_more(mypy, version):
    if sys.version_info < (3, 11) and version != "3.10":
        pytest.skip("the stubs of this NumPy are too old for that")
    start = USES.count("\n") + 4
    wrong = "".join(f"        {each}\n" for each in MISUSES)
    done = mypy(
        f"{USES}\n\ndef wrong(bus: tachyon.Bus) -> None:\n    with bus.recv_zero_copy() as rx:\n{wrong}", version
    )
    assert done.stderr == ""
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    assert found == set(range(start + 1, start + 1 + len(MISUSES))), done.stdout
