"""A module compiled without our headers that calls every nogil method of Bus and RpcBus, and hands to drive it with."""

import re
from pathlib import Path

import pytest
from downstream import build, load

OK, EMPTY, FULL, INTERRUPTED, TOO_LARGE, WRONG_SIDE, CLAIM_OPEN, NO_CLAIM = range(8)
PEER_CLOSED, PEER_DEAD, CORRUPT, CLOSED, FORKED, UNKNOWN_CALL, BUSY, BAD_TYPE, PEER_ABORTED, NO_MEMORY = range(8, 18)
SECOND = 1_000_000_000

SOURCE = """\
# cython: language_level=3
from libc.string cimport memcpy
from posix.unistd cimport usleep

from tachyon cimport EMPTY, FULL, OK, Bus, Frame, RpcBus, Status


cdef class Hand:
    '''What nogil code holds of one bus.'''
    cdef Bus bus
    cdef unsigned char* payload
    cdef Frame[64] frames
    cdef size_t count

    def __init__(self, Bus bus not None):
        self.bus = bus

    def try_claim(self, size): return self.bus.try_claim(size, &self.payload)
    def commit(self, size, type_id): return self.bus.commit(size, type_id)
    def abort(self): return self.bus.abort()
    def try_send(self, bytes data, type_id): return self.bus.try_send_bytes(<char*>data, len(data), type_id)
    def try_peek(self): return self.bus.try_peek(&self.frames[0])
    def release(self, i=0): return self.bus.release(&self.frames[<size_t>i])
    def check(self): return self.bus.check()
    def close(self): self.bus.close()
    def stats(self): return self.bus.stats()
    def release_all(self, first=0, count=None):
        return self.bus.release_all(&self.frames[<size_t>first], self.count if count is None else count)
    def try_drain(self, most):
        status = self.bus.try_drain(self.frames, most, &self.count)
        return status, self.count

    def claim(self, unsigned long long size, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.claim(size, &self.payload, timeout)
        return status

    def send(self, bytes data, unsigned int type_id, long long timeout):
        cdef int status
        cdef char* start = data
        cdef size_t size = len(data)
        with nogil:
            status = self.bus.send_bytes(start, size, type_id, timeout)
        return status

    def peek(self, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.peek(&self.frames[0], timeout)
        return status

    def drain(self, size_t most, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.drain(self.frames, most, &self.count, timeout)
        return status, self.count

    def wait_readable(self, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.wait_readable(timeout)
        return status

    def wait_writable(self, unsigned long long size, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.wait_writable(size, timeout)
        return status

    def write(self, bytes data): memcpy(self.payload, <char*>data, len(data))
    def read(self, i=0):
        cdef Frame* frame = &self.frames[<size_t>i]
        return frame.type_id, frame.payload[:frame.size]

    def change(self, i, size, position):
        self.frames[<size_t>i].size += <int>size
        self.frames[<size_t>i].position += <long long>position


cdef class RpcHand:
    cdef RpcBus bus
    cdef unsigned char* payload
    cdef Frame frame
    cdef unsigned long long issued

    def __init__(self, RpcBus bus not None):
        self.bus = bus

    @property
    def id(self): return self.issued
    @property
    def frame_id(self): return self.frame.correlation_id
    def write(self, bytes data): memcpy(self.payload, <char*>data, len(data))
    def read(self): return self.frame.type_id, self.frame.payload[:self.frame.size]
    def change(self, correlation_id, size, position):
        self.frame.correlation_id += <long long>correlation_id
        self.frame.size += <int>size
        self.frame.position += <long long>position

    def try_call(self, bytes data, kind): return self.bus.try_call_bytes(<char*>data, len(data), kind, &self.issued)
    def call(self, bytes data, unsigned int kind, long long timeout):
        cdef int status
        cdef char* start = data
        cdef size_t size = len(data)
        with nogil:
            status = self.bus.call_bytes(start, size, kind, &self.issued, timeout)
        return status
    def try_claim_call(self, size): return self.bus.try_claim_call(size, &self.payload)
    def claim_call(self, unsigned long long size, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.claim_call(size, &self.payload, timeout)
        return status
    def commit_call(self, size, kind): return self.bus.commit_call(size, kind, &self.issued)
    def abort_call(self): return self.bus.abort_call()
    def try_peek_reply(self, wanted): return self.bus.try_peek_reply(wanted, &self.frame)
    def peek_reply(self, unsigned long long wanted, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.peek_reply(wanted, &self.frame, timeout)
        return status
    def release_reply(self): return self.bus.release_reply(&self.frame)
    def cancel_call(self, wanted): return self.bus.cancel_call(wanted)

    def try_peek_call(self): return self.bus.try_peek_call(&self.frame)
    def peek_call(self, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.peek_call(&self.frame, timeout)
        return status
    def release_call(self): return self.bus.release_call(&self.frame)
    def try_reply(self, wanted, bytes data, kind):
        return self.bus.try_reply_bytes(wanted, <char*>data, len(data), kind)
    def reply(self, unsigned long long wanted, bytes data, unsigned int kind, long long timeout):
        cdef int status
        cdef char* start = data
        cdef size_t size = len(data)
        with nogil:
            status = self.bus.reply_bytes(wanted, start, size, kind, timeout)
        return status
    def try_claim_reply(self, wanted, size): return self.bus.try_claim_reply(wanted, size, &self.payload)
    def claim_reply(self, unsigned long long wanted, unsigned long long size, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.claim_reply(wanted, size, &self.payload, timeout)
        return status
    def commit_reply(self, wanted, size, kind): return self.bus.commit_reply(wanted, size, kind)
    def abort_reply(self): return self.bus.abort_reply()
    def raise_for_status(self, status): self.bus.raise_for_status(status)


# ---- short waits beside somebody who keeps the GIL ----


cdef int started = 0, kept = 0, over = 0


def begin():
    global started, kept, over
    started = kept = over = 0

def has_started(): return started != 0

def short_waits(Bus bus not None):
    global started, over
    cdef Frame frame
    cdef int i
    with nogil:
        bus.peek(&frame, 1)
        started = 1
        while not kept:
            usleep(100)
        for i in range(20):
            bus.peek(&frame, 10_000)
        over = 1

def keep_the_gil():
    '''Until they are over, or for half a second. True: they are.'''
    global kept
    cdef int i
    kept = 1
    for i in range(5000):
        if over:
            return True
        usleep(100)
    return False


# ---- loops ----


def send_until_it_ends(Bus bus not None):
    '''Sends without a pause. (status, how many)'''
    cdef unsigned long long count = 0
    cdef int status = OK
    with nogil:
        while status == OK or status == FULL:
            status = bus.try_send_bytes(&count, sizeof(count), 0)
            count += status == OK
    return status, count


def claim_until_it_ends(Bus bus not None):
    '''Writes all of every claim.'''
    cdef unsigned char* payload = NULL
    cdef size_t k
    cdef int status = OK
    with nogil:
        while True:
            status = bus.try_claim(512, &payload)
            if status == FULL:
                continue
            if status != OK:
                break
            for k in range(512):
                payload[k] = k & 0xff
            status = bus.commit(512, 0)
            if status != OK:
                break
    return status


def read_until_it_ends(Bus bus not None):
    '''Reads all of every message.'''
    cdef Frame frame
    cdef size_t k
    cdef unsigned long long total = 0
    cdef int status = OK
    with nogil:
        while True:
            status = bus.try_peek(&frame)
            if status == EMPTY:
                continue
            if status != OK:
                break
            for k in range(frame.size):
                total += frame.payload[k]
            status = bus.release(&frame)
            if status != OK:
                break
    return status


def hold_until(Bus bus not None, flag):
    '''Peeks, then looks at the message over and over until `flag` is true, then releases it.'''
    cdef Frame frame
    cdef const volatile unsigned char* payload
    cdef int status
    cdef size_t k
    cdef unsigned long long total = 0
    status = bus.peek(&frame, -1)
    assert status == OK
    payload = frame.payload
    while not flag:
        with nogil:
            for k in range(frame.size):
                total += payload[k]
            usleep(100)
    return bus.release(&frame)


cdef volatile int step = 0

def step_is(): return step

def go_on(int to):
    global step
    step = to

def hold_a_whole_ring(Bus bus not None):
    '''1: it has begun. From 2 on: takes all, and waits for more in vain. 3: it has. From 4 on: lets go of all.'''
    global step
    cdef Frame[64] frames
    cdef Frame more
    cdef size_t count = 0
    cdef int status = OK
    with nogil:
        bus.peek(&more, 1000)  # looks at signals, which the next wait need not then
        step = 1
        while step < 2:
            usleep(100)
        bus.try_drain(frames, 64, &count)
        bus.peek(&more, 1_000_000)
        step = 3
        while step < 4:
            usleep(100)
        status = bus.release_all(frames, count)
    return status, count


def echo(RpcBus bus not None, int count):
    '''Serves that many calls; answers with the request, the last byte first, written in place.'''
    cdef Frame call
    cdef unsigned char* payload = NULL
    cdef int i, status = OK
    cdef size_t k
    with nogil:
        for i in range(count):
            status = bus.peek_call(&call, -1)
            if status != OK:
                break
            status = bus.claim_reply(call.correlation_id, call.size, &payload, -1)
            if status != OK:
                break
            for k in range(call.size):
                payload[k] = call.payload[call.size - 1 - k]
            status = bus.commit_reply(call.correlation_id, call.size, call.type_id + 1)
            if status != OK:
                break
            status = bus.release_call(&call)
            if status != OK:
                break
    bus.raise_for_status(status)


def ask(RpcBus bus not None, int count):
    '''That many calls, one after the other, each answer checked.'''
    cdef Frame reply
    cdef unsigned char[100] request
    cdef unsigned long long issued = 0
    cdef int i, wrong = 0, status = OK
    cdef size_t k
    with nogil:
        for i in range(count):
            for k in range(100):
                request[k] = (i + k) & 0xff
            status = bus.call_bytes(request, i % 100, i % 1000, &issued, -1)
            if status != OK:
                break
            status = bus.peek_reply(issued, &reply, -1)
            if status != OK:
                break
            wrong += reply.size != i % 100 or reply.type_id != i % 1000 + 1 or reply.correlation_id != issued
            for k in range(reply.size):
                wrong += reply.payload[k] != request[reply.size - 1 - k]
            status = bus.release_reply(&reply)
            if status != OK:
                break
    bus.raise_for_status(status)
    return wrong


def statuses():
    return {name: int(value) for name, value in (
        ("ok", Status.OK), ("empty", Status.EMPTY), ("full", Status.FULL), ("interrupted", Status.INTERRUPTED),
        ("too_large", Status.TOO_LARGE), ("wrong_side", Status.WRONG_SIDE), ("claim_open", Status.CLAIM_OPEN),
        ("no_claim", Status.NO_CLAIM), ("peer_closed", Status.PEER_CLOSED), ("peer_dead", Status.PEER_DEAD),
        ("corrupt", Status.CORRUPT), ("closed", Status.CLOSED), ("forked", Status.FORKED),
        ("unknown_call", Status.UNKNOWN_CALL), ("busy", Status.BUSY),
        ("bad_type", Status.BAD_TYPE), ("peer_aborted", Status.PEER_ABORTED),
        ("no_memory", Status.NO_MEMORY),
    )}
"""


@pytest.fixture(scope="session")
def nogil_folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nogil"), "nogil_user", SOURCE)


@pytest.fixture(scope="session")
def nogil(nogil_folder):
    return load(nogil_folder, "nogil_user")


@pytest.fixture
def hands(nogil, pair):
    """hands(capacity) → (producer's, consumer's)."""
    return lambda capacity=1 << 16: tuple(nogil.Hand(bus) for bus in pair(capacity))


def mappings():
    """How many rings this process has mapped."""
    return len(re.findall(r"memfd:tachyon|/memfd:", Path("/proc/self/maps").read_text()))


@pytest.fixture
def rpc_hands(nogil, rpc):
    return lambda *capacities, **options: tuple(nogil.RpcHand(bus) for bus in rpc(*capacities, **options))
