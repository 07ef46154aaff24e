"""A downstream Cython module, compiled here without our headers: cimports Bus and Frame, sends without the GIL."""

import re
import signal
from pathlib import Path

import pytest
from conftest import open_pair
from downstream import build, load, need_compiler

import tachyon

need_compiler()

SOURCE = """\
# cython: language_level=3
cimport tachyon
from libc.signal cimport SIGUSR1, raise_
from tachyon cimport EMPTY, FULL, INTERRUPTED, OK, Bus, Frame


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
                status = bus.wait_writable(size, -1)
                if status == INTERRUPTED:
                    with gil:
                        bus.raise_for_status(status)  # runs the handlers
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
                status = bus.wait_readable(-1)
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


def raise_for_interrupted(Bus bus):
    '''What comes out of it if a signal has come meanwhile.'''
    raise_(SIGUSR1)
    try:
        bus.raise_for_status(INTERRUPTED)
    except LookupError as error:
        return error


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("downstream"), "downstream", SOURCE)


@pytest.fixture
def module(folder):
    return load(folder, "downstream")


def test_no_header_of_ours_is_needed(folder):
    made = next(path for path in folder.glob("downstream.c*") if path.suffix in (".c", ".cpp"))
    assert not re.search(r'#include "tachyon', made.read_text())


def test_messages_move_between_two_processes_without_the_gil(folder, spawn, path):
    code = f"sys.path.insert(0, {str(folder)!r}); import downstream; bus = tachyon.Bus."
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
    producer, consumer = pair(64, max_large=0)
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
    bus, other = open_pair(path, 4096, max_large=0)
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
        13: ValueError,
        14: tachyon.BusBusyError,
        17: MemoryError,
        99: tachyon.TachyonError,
    }.items():
        with pytest.raises((tachyon.TachyonError, ValueError, MemoryError)) as caught:
            module.raise_for(bus, status)
        assert type(caught.value) is error
    assert module.raise_for(bus, 0) is None
    assert module.raise_for(bus, 3) is None  # no signal is pending
    with pytest.raises(tachyon.MessageTooLargeError, match="at most 4080") as caught:
        module.raise_for(bus, 4)
    assert "of 0 bytes" not in str(caught.value)  # it does not know how large
    bus.close()
    other.close()


def test_an_interrupted_wait_runs_the_handlers(module, pair):
    def handler(*_):
        raise LookupError("from the handler")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert str(module.raise_for_interrupted(pair()[0])) == "from the handler"
    finally:
        signal.signal(signal.SIGUSR1, before)


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


def test_the_size_of_a_frame(module):
    assert module.sizes() == (32, 8)


def test_a_module_compiled_before_the_last_methods_were_appended_works_without_a_warning(tmp_path, pair):
    (tmp_path / "tachyon").mkdir()
    package = Path(tachyon.__file__).parent
    text = (package / "_tachyon.pxd").read_text()
    for last in (
        "    cdef int take_back(self) except -1\n",
        "    cdef int raise_for_status(self, int status) except -1\n",
    ):
        before, _, after = text.rpartition(last)
        text = before + after
    (tmp_path / "tachyon" / "_tachyon.pxd").write_text(text)
    (tmp_path / "tachyon" / "__init__.pxd").write_text((package / "__init__.pxd").read_text())
    source = """\
# cython: language_level=3
from tachyon cimport OK, Bus, Frame, RpcBus

def send(Bus bus not None): return bus.try_send_bytes(b"x", 1, 7)

def receive(Bus bus not None):
    cdef Frame frame
    if bus.try_peek(&frame) != OK or bus.release(&frame) != OK: return None
    return frame.type_id

def rpc(RpcBus bus): pass
"""
    module = load(build(tmp_path, "before", source), "before")  # Python's warnings are errors here
    made = (tmp_path / "before.c").read_text()
    assert "(*check)" in made
    assert "(*take_back)" not in made
    sender, receiver = pair()
    assert module.send(sender) == 0
    assert module.receive(receiver) == 7
