"""A downstream Cython module, compiled here without our headers: cimports Bus and Frame, sends without the GIL."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import open_pair

import tachyon

pytest.importorskip("Cython")
if not shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]):
    pytest.skip("no compiler", allow_module_level=True)

SOURCE = """\
# cython: language_level=3
cimport tachyon
from tachyon cimport Bus, Frame

cdef unsigned long long NEVER = 0xffffffffffffffff

cdef enum:
    OK, EMPTY, FULL, INTERRUPTED


def produce(tachyon.Bus bus, unsigned int count, unsigned int size):
    cdef unsigned char* payload = NULL
    cdef unsigned int i, k
    cdef int status = OK
    with nogil:
        for i in range(count):
            while True:
                status = bus.try_claim(size, &payload)
                if status != FULL:
                    break
                status = bus.wait_writable(size, NEVER)
                if status == INTERRUPTED:
                    with gil:
                        pass  # runs the handlers
                elif status != OK and status != FULL:
                    break
            if status != OK:
                break
            if i % 7 == 3:  # given up, and claimed again
                status = bus.abort()
                if status == OK:
                    status = bus.try_claim(size, &payload)
                if status != OK:
                    break
            for k in range(size):
                payload[k] = (i + k) & 0xff
            status = bus.commit(size - i % 2, i)
            if status != OK:
                break
    bus.raise_for_status(status)


def consume(Bus bus, unsigned int count):
    cdef Frame frame
    cdef unsigned int i = 0, k, wrong = 0
    cdef int status = OK
    with nogil:
        while i < count:
            status = bus.try_peek(&frame)
            if status == EMPTY:
                status = bus.wait_readable(NEVER)
                if status == OK or status == EMPTY or status == INTERRUPTED:
                    continue
            if status != OK:
                break
            if frame.type_id != i or frame.correlation_id != 0:
                wrong += 1
            for k in range(frame.size):
                if frame.payload[k] != ((i + k) & 0xff):
                    wrong += 1
            status = bus.release(&frame)
            if status != OK:
                break
            i += 1
    if wrong:
        raise AssertionError(f"{wrong} wrong")
    bus.raise_for_status(status)
    return i


def sizes():
    return sizeof(Frame), sizeof(Frame().payload)


def statuses(Bus bus, unsigned long long size):
    '''What each call says, one after the other.'''
    cdef unsigned char* payload = NULL
    cdef Frame frame
    return (
        bus.try_claim(size, &payload), bus.commit(0, 0), bus.abort(), bus.wait_writable(size, 1),
        bus.try_peek(&frame), bus.release(&frame), bus.wait_readable(1),
    )


def claim_twice(Bus bus):
    cdef unsigned char* payload = NULL
    return bus.try_claim(1, &payload), bus.try_claim(1, &payload), bus.commit(100, 0), bus.abort(), bus.abort()


def raise_for(Bus bus, int status):
    bus.raise_for_status(status)


def fill(guard, unsigned char value):
    cdef unsigned char[::1] view = guard
    view[:] = value


def total(guard):
    cdef const unsigned char[::1] view = guard
    cdef unsigned long long sum = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(view.shape[0]):
            sum += view[i]
    return sum
"""

BUILD = """\
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
folders = [each for each in [sys.argv.pop()] if each]
extension = Extension("downstream", ["downstream.pyx"])
setup(name="downstream", ext_modules=cythonize([extension], include_path=folders))
"""


@pytest.fixture(scope="module")
def downstream(tmp_path_factory):
    """The folder of the compiled module."""
    folder = tmp_path_factory.mktemp("downstream")
    (folder / "downstream.pyx").write_text(SOURCE)
    (folder / "setup.py").write_text(BUILD)
    # An ordinary install is found by itself; an editable one stands where only an import hook finds it.
    parent = str(Path(tachyon.__file__).parent.parent)
    installed = parent in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace", "" if installed else parent],
        cwd=folder,
        env=os.environ | {"CFLAGS": "-O1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def module(downstream):
    name = next(downstream.glob("downstream.*.so"))
    spec = importlib.util.spec_from_file_location("downstream", name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_header_of_ours_is_needed(downstream):
    made = next(path for path in downstream.glob("downstream.c*") if path.suffix in (".c", ".cpp"))
    assert not re.search(r'#include "tachyon', made.read_text())


def test_messages_move_between_two_processes_without_the_gil(downstream, spawn, path):
    code = f"sys.path.insert(0, {str(downstream)!r}); import downstream; bus = tachyon.Bus."
    consumer = spawn(code + "listen(path, 4096, timeout=60); say(downstream.consume(bus, 200_000))", path)
    producer = spawn(
        code + "connect(path, timeout=60); downstream.produce(bus, 200_000, 100); say('sent'); hear()", path
    )
    producer.says("sent")
    consumer.says("200000")
    producer.tell("end")
    producer.ends()
    consumer.ends()


def test_what_it_sends_python_receives_and_back(module, pair):
    producer, consumer = pair()
    module.produce(producer, 4, 10)
    assert [consumer.recv().data for _ in range(4)] == [
        bytes((i + k) & 0xFF for k in range(10 - i % 2)) for i in range(4)
    ]
    producer, consumer = pair()
    for i in range(5):
        producer.send(bytes(range(i, i + 9)), i)
    assert module.consume(consumer, 5) == 5


def test_a_wait_ends_with_the_peer(module, pair, run_thread, until):
    producer, consumer = pair()
    producer.send(b"\0", 0)
    consuming = run_thread(module.consume, consumer, 2)
    until(lambda: consumer.stats()["messages"] == 1)
    producer.close()
    with pytest.raises(tachyon.PeerClosedError):
        consuming.result()


def test_the_statuses(module, pair):
    producer, consumer = pair(64)
    assert module.claim_twice(producer) == (0, 6, 4, 0, 7)
    producer.send(b"full")
    assert module.statuses(producer, 8)[:4] == (2, 7, 7, 2)
    assert module.statuses(producer, 100)[0] == 4
    assert module.statuses(producer, 8)[4:] == (5, 5, 5)
    assert consumer.recv().data == b"full"
    assert module.statuses(consumer, 8) == (5, 5, 5, 5, 1, 7, 1)
    producer.close()
    assert module.statuses(consumer, 8)[4] == 8
    for bus in (producer, consumer):
        bus.close()
        assert module.statuses(bus, 8) == (11,) * 7
    assert module.statuses(tachyon.Bus.__new__(tachyon.Bus), 8) == (11,) * 7


def test_the_errors_of_the_statuses(module, path):
    bus, other = open_pair(path, 4096)
    for status, error in {
        1: tachyon.BusEmptyError,
        2: tachyon.BusFullError,
        4: tachyon.MessageTooLargeError,
        5: tachyon.BusBusyError,
        6: tachyon.BusBusyError,
        7: tachyon.BusBusyError,
        8: tachyon.PeerClosedError,
        9: tachyon.PeerDeadError,
        10: tachyon.PeerDeadError,
        11: tachyon.BusClosedError,
        12: tachyon.BusClosedError,
        99: tachyon.TachyonError,
    }.items():
        with pytest.raises(tachyon.TachyonError) as caught:
            module.raise_for(bus, status)
        assert type(caught.value) is error
    assert module.raise_for(bus, 0) is None
    with pytest.raises(tachyon.MessageTooLargeError, match="at most 4080") as caught:
        module.raise_for(bus, 4)
    assert "of 0 bytes" not in str(caught.value)  # it does not know how large
    bus.close()
    other.close()


def test_typed_memoryviews_over_guards(module, pair):
    producer, consumer = pair()
    with producer.send_zero_copy(100) as tx:
        module.fill(tx, 3)
    with consumer.recv_zero_copy() as rx:
        assert module.total(rx) == 300
        with pytest.raises((BufferError, ValueError)):
            module.fill(rx, 4)
    producer.send_many([b"\1\2", b"\3"])
    with consumer.drain_batch() as batch:
        assert [module.total(view) for view in batch] == [3, 3]


def test_none_is_no_bus(module):
    for call in (lambda: module.produce(object(), 1, 1), lambda: module.consume("x", 1)):
        with pytest.raises(TypeError):
            call()


# Downstream modules are compiled against this. Append only; what is changed or moved here breaks them without a word.
FIELDS = [
    "void* _core",
    "object _path",
    "unsigned long long _capacity",
    "int _peer_pid",
    "int _in_use",
    "int _guards",
    "bint _closing",
    "object __weakref__",
]
METHODS = [
    "int try_claim(self, unsigned long long size, unsigned char** payload) noexcept nogil",
    "int commit(self, unsigned int size, unsigned int type_id) noexcept nogil",
    "int abort(self) noexcept nogil",
    "int wait_writable(self, unsigned long long size, unsigned long long until_ns) noexcept nogil",
    "int try_peek(self, Frame* frame) noexcept nogil",
    "int release(self, const Frame* frame) noexcept nogil",
    "int wait_readable(self, unsigned long long until_ns) noexcept nogil",
    "int raise_for_status(self, int status) except -1",
]
FRAME = [
    "const unsigned char* payload",
    "unsigned long long position",
    "unsigned long long correlation_id",
    "unsigned int size",
    "unsigned int type_id",
]


def test_the_public_declarations_have_only_been_appended_to():
    text = (Path(tachyon.__file__).parent / "_tachyon.pxd").read_text()
    frame = re.search(r"^cdef struct Frame:\n((?: +.*\n|\n)*)", text, re.MULTILINE).group(1)
    assert [line.strip() for line in frame.splitlines() if line.strip()] == FRAME
    bus = re.search(r"^cdef class Bus:\n((?: +.*\n|\n)*)", text, re.MULTILINE).group(1)
    declared = [line.strip()[len("cdef ") :] for line in bus.splitlines() if line.strip().startswith("cdef ")]
    methods = [each for each in declared if "(" in each]
    assert methods[: len(METHODS)] == METHODS
    assert [each for each in declared if "(" not in each] == FIELDS


def test_the_size_of_a_frame(module):
    assert module.sizes() == (32, 8)
