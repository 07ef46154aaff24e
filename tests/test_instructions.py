"""How many instructions the hot calls take: a regression shows on any machine, however busy or slow it is.

Bounds are about half as much again, to twice, what was counted with GCC 12 and Python 3.11. callgrind counts; each loop
runs twice, and the difference of the two counts is its own. One that is red: look at what the call does now that it did
not do before.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from downstream import build, need_compiler

import tachyon

HERE = Path(__file__).parent
PACKAGE = Path(tachyon.__file__).parent
CXX = shlex.split(os.environ.get("CXX", "c++"))

if not shutil.which("valgrind"):
    pytest.skip("no valgrind to count with", allow_module_level=True)
if not shutil.which(CXX[0]):
    pytest.skip("no C++ compiler", allow_module_level=True)
if not Path("/usr/include/valgrind/callgrind.h").exists():
    pytest.skip("no callgrind.h", allow_module_level=True)
if "asan" in os.environ.get("LD_PRELOAD", "") or "-fsanitize" in os.environ.get("CFLAGS", ""):
    pytest.skip("sanitizers count themselves", allow_module_level=True)

MARK = """\
#include <valgrind/callgrind.h>
void mark(const char* name) { CALLGRIND_DUMP_STATS_AT(name); }
"""
METHODS = """\
# cython: language_level=3
from tachyon cimport OK, Bus, Frame

def send(Bus bus not None, int turns):
    cdef char[32] payload
    cdef int i, status
    with nogil:
        for i in range(turns):
            status = bus.send_bytes(payload, 32, 1, -1)
            if status != OK:
                break
    bus.raise_for_status(status)

def receive(Bus bus not None, int turns):
    cdef Frame frame
    cdef int i, status
    with nogil:
        for i in range(turns):
            status = bus.peek(&frame, -1)
            if status != OK:
                break
            bus.release(&frame)
    bus.raise_for_status(status)
"""
PROGRAM = """\
import ctypes, sys, threading
import tachyon, methods

mark = ctypes.CDLL("./mark.so").mark
ends = {}

def pair(kind, *capacities):
    thread = threading.Thread(target=lambda: ends.update(a=kind.listen("./bus", *capacities)))
    thread.start()
    ends["b"] = kind.connect("./bus", timeout=60)
    thread.join()
    return ends["a"], ends["b"]

def count(what, loop):
    for turns in (500, 2500):
        mark(b"between")
        loop(turns)
        mark(b"%s %d" % (what, turns))

payload = b"x" * 32
out, home = pair(tachyon.Bus, 1 << 20)

def empty(turns):
    for _ in range(turns):
        pass

def send(turns):
    for _ in range(turns):
        out.send(payload)

def iterate(turns):
    for _, _message in zip(range(turns), home):
        pass

def receive(turns):
    for _ in range(turns):
        home.recv()

def send_many(turns):
    out.send_many([payload] * turns)

count(b"py-loop", empty)
count(b"py-send", send)
count(b"py-iterate", iterate)
count(b"py-send-many", send_many)
count(b"py-recv", receive)
count(b"methods-send", lambda turns: methods.send(out, turns))
count(b"methods-receive", lambda turns: methods.receive(home, turns))

callee, caller = pair(tachyon.RpcBus, 1 << 16, 1 << 16)

def exchange(turns):
    for _ in range(turns):
        correlation_id = caller.call(payload, 1)
        with callee.serve() as request:
            callee.reply(correlation_id, request, 1)
        with caller.wait(correlation_id):
            pass

count(b"py-exchange", exchange)
"""


SEND = """
#include "tachyon/ring/ring.hpp"
extern "C" bool send_one(tachyon::Producer& producer, const void* data, std::uint32_t size) {
    return producer.try_send(data, size, 1);
}
"""


def counts(folder, *command, env=None):
    """{name of a loop: instructions of one turn}"""
    tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", "--quiet"]
    done = subprocess.run([*tool, *map(str, command)], cwd=folder, env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    totals = {}
    for dump in folder.glob("out.*"):
        text = dump.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (\S+) (\d+)$", text, re.MULTILINE)
        if name:
            total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
            totals.setdefault(name[1], {})[int(name[2])] = int(total[1])
    return {name: (found[max(found)] - found[min(found)]) / (max(found) - min(found)) for name, found in totals.items()}


@pytest.fixture(scope="module")
def in_cxx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cxx")
    library = [f"-L{PACKAGE / 'lib'}", "-ltachyon", "-pthread"]
    command = [*CXX, "-std=c++20", "-O3", "-DNDEBUG", f"-I{PACKAGE / 'include'}", HERE / "instructions.cpp"]
    subprocess.run([*command, "-o", folder / "program", *library], check=True, timeout=100)
    return counts(folder, folder / "program", folder / "bus")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the name of the instruction there")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump")
def test_the_compiler_keeps_the_fetches_of_a_send(tmp_path):
    """GCC drops calls of functions that do nothing but __builtin_prefetch: docs/adr/0008."""
    (tmp_path / "send.cpp").write_text(SEND)
    command = [*CXX, "-std=c++20", "-O3", f"-I{PACKAGE / 'include'}", "-c", "send.cpp"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    code = subprocess.run(
        ["objdump", "-d", "send.o"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    body = code.stdout.partition("<send_one>:")[2]
    # One for a message of a line, one for a claim.
    assert body.count("prefetcht0") >= 2 and "prefetchw" in body, body[:2000]


@pytest.fixture(scope="module")
def in_python(tmp_path_factory):
    need_compiler()
    folder = tmp_path_factory.mktemp("python")
    (folder / "mark.c").write_text(MARK)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "mark.c", "-o", "mark.so"], cwd=folder, check=True, timeout=60)
    build(folder, "methods", METHODS)
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(PACKAGE.parent), str(folder)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    return counts(folder, sys.executable, "-S", "program.py", env=environment)


@pytest.mark.parametrize(("call", "bound"), [("cxx-send", 100), ("cxx-receive", 150)])
def test_a_hot_call_in_cxx_takes_a_few_dozen_instructions(in_cxx, call, bound):
    assert 0 < in_cxx[call] <= bound


@pytest.mark.parametrize(
    ("call", "bound"),
    [
        ("py-send", 1100),
        ("py-iterate", 1100),
        ("py-recv", 1300),
        ("py-send-many", 500),
        ("methods-send", 240),
        ("methods-receive", 460),
        ("py-exchange", 13_000),
    ],
)
def test_a_hot_call_in_python_takes_no_more_instructions_than_it_did(in_python, call, bound):
    loop = in_python["py-loop"] if call in ("py-send", "py-iterate", "py-recv") else 0
    assert 0 < in_python[call] - loop <= bound
