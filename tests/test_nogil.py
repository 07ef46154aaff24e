"""Every nogil method of Bus and RpcBus, driven from here through a module that was compiled without our headers."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from downstream import build, load, need_compiler

import tachyon

need_compiler()

OK, EMPTY, FULL, INTERRUPTED, TOO_LARGE, WRONG_SIDE, CLAIM_OPEN, NO_CLAIM = range(8)
PEER_CLOSED, PEER_DEAD, CORRUPT, CLOSED, FORKED, UNKNOWN_CALL, BUSY, BAD_TYPE, PEER_ABORTED = range(8, 17)
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
    )}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nogil"), "nogil_user", SOURCE)


@pytest.fixture(scope="module")
def user(folder):
    return load(folder, "nogil_user")


@pytest.fixture
def hands(user, pair):
    """hands(capacity) → (producer's, consumer's)."""
    return lambda capacity=1 << 16: tuple(user.Hand(bus) for bus in pair(capacity))


def mappings():
    """How many rings this process has mapped."""
    return len(re.findall(r"memfd:tachyon|/memfd:", Path("/proc/self/maps").read_text()))


# ---- one message after the other -------------------------------------------------------------------------------------


def test_claim_write_commit_peek_release(hands):
    producer, consumer = hands()
    assert producer.claim(100, -1) == OK
    producer.write(b"hello")
    assert producer.commit(5, 7) == OK
    assert consumer.peek(-1) == OK
    assert consumer.read() == (7, b"hello")
    assert consumer.release() == OK
    assert producer.claim(100, 0) == OK
    assert producer.abort() == OK
    assert consumer.try_peek() == EMPTY


def test_send_bytes_copies(hands):
    producer, consumer = hands(256)
    for i in range(100):
        assert producer.send(bytes(range(i)), i, -1) == OK
        assert consumer.peek(-1) == OK
        assert consumer.read() == (i, bytes(range(i)))
        assert consumer.release() == OK


def test_a_batch_is_drained_and_released_whole(hands):
    producer, consumer = hands()
    for i in range(10):
        assert producer.try_send(bytes([i]) * i, i) == OK
    assert consumer.try_drain(4) == (OK, 4)
    assert [consumer.read(i) for i in range(4)] == [(i, bytes([i]) * i) for i in range(4)]
    assert consumer.release_all() == OK
    assert consumer.drain(64, -1) == (OK, 6)
    assert consumer.read(5) == (9, bytes([9]) * 9)
    assert consumer.release(0) == OK  # or one by one
    assert consumer.release_all(1, 5) == OK
    assert consumer.try_drain(4) == (EMPTY, 0)
    assert consumer.drain(4, 1000) == (EMPTY, 0)


def test_a_released_batch_makes_room_at_once(hands):
    producer, consumer = hands(4096)
    while producer.try_send(b"x", 0) == OK:
        pass
    assert consumer.try_drain(2) == (OK, 2)
    assert producer.try_send(b"y", 0) == FULL
    assert consumer.release_all() == OK
    assert producer.try_send(b"y", 0) == OK


def test_a_wait_that_finds_nothing_says_so_when_its_time_is_over(hands):
    producer, consumer = hands(64)
    assert consumer.peek(0) == EMPTY
    assert consumer.peek(SECOND // 5) == EMPTY
    assert producer.send(b"all the room", 0, 0) == OK
    assert producer.claim(8, 0) == FULL
    assert producer.claim(8, SECOND // 5) == FULL
    assert producer.send(b"", 0, SECOND // 5) == FULL
    assert producer.wait_writable(8, 1) == FULL


def test_a_timeout_is_waited_out(hands):
    _, consumer = hands()
    start = time.monotonic()
    assert consumer.peek(SECOND // 5) == EMPTY  # four slices
    assert time.monotonic() - start >= 0.199


@pytest.mark.parametrize("way", ["readable", "writable"])
def test_a_single_wait_has_its_timeout(hands, way):
    producer, consumer = hands(64)
    if way == "readable":
        assert consumer.wait_readable(-1) == EMPTY  # a slice of 50 ms; 3000 of them are more than the watchdog allows
        assert [consumer.wait_readable(1000) for _ in range(3000)] == [EMPTY] * 3000
    else:
        assert producer.send(b"all the room", 0, 0) == OK
        assert producer.wait_writable(8, -1) == FULL
        assert [producer.wait_writable(8, 1000) for _ in range(3000)] == [FULL] * 3000


def test_any_negative_timeout_is_none(hands, run_thread, until):
    for timeout in (-2, -SECOND, -(1 << 63)):
        producer, consumer = hands(64)
        assert producer.send(b"x", 0, timeout) == OK
        assert consumer.peek(timeout) == OK
        assert consumer.release() == OK
        receiving = run_thread(consumer.peek, timeout)
        until(lambda consumer=consumer: consumer.stats()["parks"] > 0)
        assert producer.send(b"y", 0, timeout) == OK
        assert receiving.result(60) == OK


def test_a_message_that_never_fits_is_told_from_a_full_ring(hands, user, pair):
    sender, _ = pair(64)
    producer = user.Hand(sender)
    assert producer.claim(49, -1) == TOO_LARGE
    assert producer.send(bytes(49), 0, -1) == TOO_LARGE
    assert producer.claim(48, -1) == OK
    assert producer.commit(49, 0) == TOO_LARGE
    with pytest.raises(tachyon.BusBusyError, match="nogil"):  # the claim is still open
        sender.send(b"")
    assert producer.commit(48, 0) == OK


def test_no_more_is_sent_than_was_claimed(hands):
    producer, consumer = hands()
    assert producer.try_claim(10) == OK
    producer.write(b"0123456789")
    for more in (11, 48, 49):  # what fits into the line as well
        assert producer.commit(more, 0) == TOO_LARGE
    assert producer.commit(10, 7) == OK
    assert consumer.try_peek() == OK
    assert consumer.read() == (7, b"0123456789")
    assert consumer.release() == OK


def test_the_numbers_are_those_of_the_core(user):
    header = Path(tachyon.get_include(), "tachyon", "error.hpp").read_text()
    body = re.search(r"enum class Status : int \{(.*?)\};", header, re.DOTALL).group(1)
    assert user.statuses() == {name: int(number) for name, number in re.findall(r"(\w+) = (\d+),", body)}


# ---- misuse ----------------------------------------------------------------------------------------------------------


def test_frames_are_released_oldest_first_and_unchanged(user, pair):
    sender, receiver = pair(4096)
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    for i in range(3):
        producer.try_send(bytes(100 * (i + 1)), i)
    assert consumer.try_drain(3) == (OK, 3)
    assert consumer.release(1) == NO_CLAIM
    for size, position in ((1, 0), (-1, 0), (1 << 30, 0), (0, 64), (0, -64), (0, 1 << 40), (0, 4096)):
        consumer.change(0, size, position)
        assert consumer.release(0) == NO_CLAIM
        consumer.change(0, -size, -position)
    assert consumer.release(0) == OK
    assert consumer.release(0) == NO_CLAIM
    assert consumer.release_all(2, 1) == NO_CLAIM
    with pytest.raises(tachyon.BusBusyError, match="nogil"):  # two are still held
        receiver.recv(timeout=0)
    assert consumer.release_all(1, 2) == OK
    assert consumer.release_all(1, 2) == NO_CLAIM
    assert producer.try_send(b"and on it goes", 9) == OK
    assert consumer.try_peek() == OK
    assert consumer.read() == (9, b"and on it goes")


def test_frames_on_both_sides_of_the_end_of_the_ring_are_released_in_order(hands):
    producer, consumer = hands(1024)
    for _ in range(50):
        assert producer.try_send(bytes(300), 1) == OK  # 320 bytes of ring
        assert producer.try_send(bytes(200), 2) == OK  # 256; padding comes between the two, sooner or later
        assert consumer.drain(64, -1) == (OK, 2)
        assert consumer.release(1) == NO_CLAIM
        assert consumer.release(0) == OK
        assert consumer.release(1) == OK


def test_python_is_refused_while_nogil_code_holds_something(hands, user, pair):
    sender, receiver = pair()
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    assert producer.try_claim(8) == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        sender.send(b"x")
    assert producer.commit(8, 0) == OK
    assert producer.try_claim(8) == OK
    assert producer.abort() == OK
    sender.send(b"x")
    assert consumer.try_peek() == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        receiver.recv()
    assert consumer.release() == OK
    assert receiver.recv().data == b"x"


def test_a_batch_is_held_until_all_of_it_is_released(user, pair):
    sender, receiver = pair()
    consumer = user.Hand(receiver)
    sender.send_many([b"one", b"two", b"three"])
    assert consumer.try_drain(2) == (OK, 2)
    assert consumer.release(0) == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        receiver.recv(timeout=0)
    assert consumer.release(1) == OK
    assert receiver.recv().data == b"three"


def test_what_could_not_be_released_is_still_held(user, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    mine, other = user.Hand(receiver), user.Hand(receiver)
    assert mine.try_peek() == OK
    answer = None
    while answer != BUSY:  # a wait is a slice of 50 ms, and may be over by now
        parks = receiver.stats()["parks"]
        waiting = run_thread(other.wait_readable, -1)
        until(lambda parks=parks, waiting=waiting: receiver.stats()["parks"] > parks or waiting.done())
        answer = mine.release()
        if answer == OK:
            sender.send(b"x")
            waiting.result(60)
            assert mine.try_peek() == OK
    waiting.result(60)
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        receiver.recv(timeout=0)
    assert mine.release() == OK
    with pytest.raises(tachyon.BusEmptyError):
        receiver.recv(timeout=0)


def test_what_finds_the_peer_gone_leaves_nothing_open(user, pair):
    for end in ("commit", "abort"):
        sender, receiver = pair()
        producer = user.Hand(sender)
        assert producer.try_claim(8) == OK
        receiver.close()
        if end == "commit":
            assert producer.commit(8, 0) == PEER_CLOSED
        else:
            assert producer.abort() == OK
        assert producer.try_send(b"x", 0) == PEER_CLOSED
        # Nothing is held any more: there is nothing to count down either.
        assert [producer.commit(8, 0), producer.abort(), producer.release(), producer.release_all(0, 2)] == [
            PEER_CLOSED
        ] * 4
        with pytest.raises(tachyon.PeerClosedError):
            sender.send(b"y")


def test_nogil_code_is_refused_while_a_guard_is_open(user, pair):
    sender, receiver = pair()
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    sender.send_many([b"one", b"two"])
    assert consumer.try_drain(2) == (OK, 2)  # the count of which must not be taken for that of a refusal
    assert consumer.release_all() == OK
    with sender.send_zero_copy(8):
        assert producer.try_claim(8) == CLAIM_OPEN
        assert producer.commit(8, 0) == CLAIM_OPEN
        assert producer.abort() == CLAIM_OPEN
        assert producer.try_send(b"x", 0) == CLAIM_OPEN
        assert producer.claim(8, -1) == CLAIM_OPEN
    with receiver.recv_zero_copy():
        assert consumer.try_peek() == CLAIM_OPEN
        assert consumer.peek(-1) == CLAIM_OPEN
        assert consumer.release() == CLAIM_OPEN
        assert consumer.try_drain(3) == (CLAIM_OPEN, 0)
        assert consumer.check() == CLAIM_OPEN
    assert producer.try_send(b"x", 0) == OK
    assert consumer.try_peek() == OK


def test_two_threads_are_told_apart_where_one_waits(user, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    consumer = user.Hand(receiver)
    waiting = run_thread(receiver.recv)
    until(lambda: receiver.stats()["parks"] > 0)
    assert consumer.try_peek() == BUSY
    assert consumer.check() == BUSY
    sender.send(b"for Python")
    assert waiting.result().data == b"for Python"
    parks = receiver.stats()["parks"]
    waiting = run_thread(consumer.peek, -1)
    until(lambda: receiver.stats()["parks"] > parks)

    def refused():  # between two slices of its wait nobody is inside
        try:
            receiver.try_recv()
        except tachyon.BusBusyError:
            return True
        return False

    until(refused)
    sender.send(b"for C")
    assert waiting.result() == OK
    assert consumer.read() == (0, b"for C")


def test_a_bus_of_the_parent_is_refused_in_a_forked_child(hands):
    producer, consumer = hands()
    assert producer.try_send(b"x", 0) == OK
    assert producer.try_send(b"y", 0) == OK
    assert consumer.try_peek() == OK
    assert producer.try_claim(8) == OK
    pid = os.fork()
    if pid == 0:
        try:
            seen = [producer.commit(1, 0), producer.try_send(b"", 0), producer.try_claim(1), producer.check()]
            seen += [consumer.release(), consumer.try_peek(), consumer.check(), consumer.peek(-1)]
            os._exit(0 if seen == [FORKED] * 8 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert producer.commit(8, 0) == OK
    assert consumer.release() == OK


def test_that_comes_before_the_guard_which_is_open_in_the_parent(user, pair):
    sender, _ = pair()
    producer = user.Hand(sender)
    with sender.send_zero_copy(8):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if producer.try_claim(1) == producer.commit(1, 0) == producer.check() == FORKED else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert producer.try_claim(1) == CLAIM_OPEN


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_everything_says_closed_afterwards(hands, user, pair):
    producer, consumer = (user.Hand(bus) for bus in pair())
    never = user.Hand(tachyon.Bus.__new__(tachyon.Bus))
    assert producer.try_send(b"x", 0) == OK
    assert consumer.try_peek() == OK
    for hand in (producer, consumer):
        hand.close()
    for hand in (producer, consumer, never):
        assert hand.try_claim(1) == CLOSED
        assert hand.commit(1, 1) == CLOSED
        assert hand.abort() == CLOSED
        assert hand.try_send(b"", 0) == CLOSED
        assert hand.claim(1, -1) == CLOSED
        assert hand.send(b"", 0, -1) == CLOSED
        assert hand.try_peek() == CLOSED
        assert hand.peek(-1) == CLOSED
        assert hand.release() == CLOSED
        assert hand.try_drain(2) == (CLOSED, 0)
        assert hand.drain(2, -1) == (CLOSED, 0)
        assert hand.release_all() == CLOSED
        assert hand.wait_readable(-1) == CLOSED
        assert hand.wait_writable(1, -1) == CLOSED
        assert hand.check() == CLOSED


@pytest.mark.parametrize("loop", ["send_until_it_ends", "claim_until_it_ends", "read_until_it_ends"])
def test_closing_under_a_running_loop_ends_it(user, run_thread, pair, loop):
    """What the loop touches must not go away under it. 150 times, at whatever moment it happens to be."""
    for turn in range(150):
        sender, receiver = pair(4096)
        sender.send(b"x" * 50)
        started = threading.Event()

        def run(bus, started=started):
            started.set()
            return getattr(user, loop)(bus)

        mine, other = (receiver, sender) if loop == "read_until_it_ends" else (sender, receiver)
        running = run_thread(run, mine)
        drive = run_thread(user.send_until_it_ends if mine is receiver else user.read_until_it_ends, other)
        started.wait(60)
        for _ in range(turn * 100):
            pass
        mine.close()
        result = running.result(60)
        assert (result[0] if isinstance(result, tuple) else result) == CLOSED
        drive = drive.result(60)
        assert (drive[0] if isinstance(drive, tuple) else drive) == PEER_CLOSED
        other.close()


def test_what_nogil_code_holds_stays_mapped_after_a_close(user, run_thread, pair):
    sender, receiver = pair(1 << 20)
    sender.send(bytes(1 << 19))
    flag = []
    before = mappings()
    holding = run_thread(user.hold_until, receiver, flag)
    while True:
        try:
            receiver.try_recv()
        except tachyon.BusBusyError:
            break
    receiver.close()
    assert mappings() == before
    flag.append(True)
    assert holding.result(60) == CLOSED
    assert user.Hand(receiver).release() == CLOSED  # which is no reason to count down
    receiver.close()  # nothing is held any more
    assert mappings() == before - 1


def test_a_claim_stays_writable_after_a_close(user, pair):
    sender, _ = pair()
    producer = user.Hand(sender)
    assert producer.try_claim(1000) == OK
    before = mappings()
    sender.close()
    producer.write(b"x" * 1000)
    assert producer.commit(1000, 0) == CLOSED
    assert mappings() == before
    sender.close()
    assert mappings() == before - 1


def test_after_nogil_use_close_unmaps_at_once(user, pair):
    sender, receiver = pair()
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    assert producer.try_send(b"x", 0) == OK
    assert consumer.try_peek() == OK
    assert consumer.release() == OK
    before = mappings()
    sender.close()
    receiver.close()
    assert mappings() == before - 2


def test_a_waiting_loop_ends_with_the_close_of_another_thread(user, run_thread, pair, until):
    sender, receiver = pair(64)
    sender.send(b"full")
    sending = run_thread(user.Hand(sender).claim, 8, -1)
    until(lambda: sender.stats()["parks"] > 0)
    sender.close()
    assert sending.result(60) == CLOSED
    assert receiver.recv().data == b"full"
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    receiving = run_thread(user.Hand(receiver).drain, 4, -1)
    until(lambda: receiver.stats()["parks"] > 0)
    receiver.close()
    assert receiving.result(60) == (CLOSED, 0)
    assert receiver.closed


def test_the_peer_hears_of_a_close_that_a_single_wait_was_left_with(user, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    hand, seen = user.Hand(receiver), 0
    for _ in range(20):  # a wait is a slice of 50 ms: the close comes in the midst of one, or after them all
        waiting = run_thread(hand.wait_readable, -1)
        until(lambda seen=seen, waiting=waiting: receiver.stats()["parks"] > seen or waiting.done())
        if not waiting.done():
            break
        seen = receiver.stats()["parks"]
    receiver.close()
    assert waiting.result(60) in (CLOSED, EMPTY)
    with pytest.raises(tachyon.PeerClosedError):
        sender.send(b"y")


def test_the_end_of_the_peer(hands, spawn, path, user):
    producer, consumer = hands()
    assert producer.try_send(b"last", 0) == OK
    producer.close()
    assert consumer.check() == OK  # something is left to read
    assert consumer.peek(-1) == OK
    assert consumer.release() == OK
    assert consumer.check() == PEER_CLOSED
    assert consumer.peek(-1) == PEER_CLOSED
    assert consumer.drain(4, -1) == (PEER_CLOSED, 0)
    for code, verb in (("bus.send(b'x')", "peek"), ("bus.recv()", "claim")):
        child = spawn(f"bus = tachyon.Bus.connect(path, timeout=60); {code}; say('ready'); hear()", path)
        bus = tachyon.Bus.listen(path, 64, timeout=60)
        hand = user.Hand(bus)
        if verb == "peek":
            assert hand.peek(-1) == OK
            assert hand.release() == OK
        else:
            assert hand.send(b"x", 0, -1) == OK
        child.says("ready")
        if verb == "claim":
            assert hand.send(b"fills it", 0, -1) == OK
        child.kill()
        assert (hand.peek(-1) if verb == "peek" else hand.claim(1, -1)) == PEER_DEAD
        assert hand.check() == PEER_DEAD
        bus.close()


@pytest.mark.parametrize("way", ["send", "claim"])
def test_a_sender_hears_of_a_death_within_eight_messages(spawn, path, user, way):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=60); bus.recv(); say('ready'); hear()", path)
    with tachyon.Bus.listen(path, 1 << 16, timeout=60) as bus:
        hand = user.Hand(bus)
        assert hand.send(b"x", 0, -1) == OK
        child.says("ready")
        child.kill()
        said = []
        while not said or said[-1] == OK:
            if way == "send":
                said.append(hand.try_send(b"x", 0))
            else:
                assert hand.try_claim(8) == OK
                said.append(hand.commit(8, 0))
            time.sleep(0.001)
        assert said[-1] == PEER_DEAD
        assert len(said) <= 8
        assert hand.check() == PEER_DEAD


@pytest.mark.parametrize("code", ["send", "recv"])
def test_a_single_wait_tells_of_the_end_of_the_peer(spawn, path, user, code):
    call = "send(b'x')" if code == "send" else "recv()"
    for ending, status in (("close", PEER_CLOSED), ("kill", PEER_DEAD)):
        child = spawn(
            f"bus = tachyon.Bus.connect(path, timeout=60); bus.{call}; say('ready'); hear(); bus.close()", path
        )
        with tachyon.Bus.listen(path, 64, timeout=60) as bus:
            hand = user.Hand(bus)
            if code == "send":
                assert hand.peek(-1) == OK
                assert hand.release() == OK
            else:
                assert hand.send(b"x", 0, -1) == OK
            child.says("ready")
            if code == "recv":
                assert hand.send(b"fills it", 0, -1) == OK
            child.kill() if ending == "kill" else child.tell("close")
            said = OK
            while said in (OK, EMPTY, FULL):
                said = hand.wait_readable(-1) if code == "send" else hand.wait_writable(8, -1)
            assert said == status


def test_short_waits_leave_the_gil_alone(user, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    receiver.recv()
    kept = False
    for _ in range(20):  # every 50 ms one has to take it, to look for signals: a slow machine may come that far
        user.begin()
        waiting = run_thread(user.short_waits, receiver)
        until(user.has_started)
        kept = user.keep_the_gil()
        waiting.result(60)
        if kept:
            break
    assert kept


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", ["peek(-1)", "drain(4, -1)", "claim(1, -1)", "send(b'x', 0, -1)"], ids=lambda call: call.partition("(")[0]
)
def test_ctrl_c_ends_a_blocking_method(folder, spawn, path, call):
    producing = call[0] in "cs"
    child = spawn(
        f"""
        sys.path.insert(0, {str(folder)!r})
        import nogil_user
        bus = tachyon.Bus.connect(path, timeout=60)
        hand = nogil_user.Hand(bus)
        bus.send(b"fills it") if {producing} else bus.recv()
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
        say("ready")
        try:
            hand.{call}
        except KeyboardInterrupt:
            say("interrupted")
        """,
        path,
    )
    bus = tachyon.Bus.listen(path, 64, timeout=60)
    if not producing:
        bus.send(b"x")
    child.says("ready")
    child.falls_asleep()
    child.send_signal(signal.SIGUSR1)
    child.says("handled")
    child.falls_asleep()  # the wait goes on
    child.send_signal(signal.SIGINT)
    child.says("interrupted")
    child.ends()
    bus.close()


@pytest.mark.parametrize("way", ["readable", "writable"])
def test_a_single_wait_tells_of_a_signal(hands, way):
    producer, consumer = hands(64)
    assert producer.send(b"all the room", 0, 0) == OK
    if way == "readable":
        assert consumer.peek(0) == OK
        assert consumer.release() == OK
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        status = EMPTY
        while status in (EMPTY, FULL):  # it may have come before the wait
            status = consumer.wait_readable(-1) if way == "readable" else producer.wait_writable(8, -1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert status == INTERRUPTED


def test_a_signal_that_another_thread_got_ends_a_blocking_method(hands, run_thread):
    class Asked(Exception):
        pass

    def handler(*_):
        raise Asked

    _, consumer = hands()
    leave = threading.Event()
    other = run_thread(leave.wait)  # lets the signal in
    before = signal.signal(signal.SIGALRM, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(Asked):
            consumer.peek(-1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, before)
        leave.set()
    assert other.result(60)


@pytest.mark.parametrize("way", ["peek", "claim"])
def test_a_handler_may_close_the_bus_that_is_waited_for(user, pair, way):
    sender, receiver = pair(64)
    sender.send(b"all the room")
    if way == "peek":
        assert receiver.recv()
    bus = receiver if way == "peek" else sender
    hand = user.Hand(bus)
    before = signal.signal(signal.SIGALRM, lambda *_: bus.close())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        assert (hand.peek(-1) if way == "peek" else hand.claim(8, -1)) == CLOSED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert bus.closed


# ---- RPC -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rpc_hands(user, rpc):
    return lambda *capacities: tuple(user.RpcHand(bus) for bus in rpc(*capacities))


def test_calls_and_replies_by_copy(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_call(b"one", 1) == OK
    first = caller.id
    assert caller.call(b"two", 2, -1) == OK
    second = caller.id
    assert first != second
    assert callee.peek_call(-1) == OK
    assert (callee.frame_id, callee.read()) == (first, (1, b"one"))
    assert callee.release_call() == OK
    assert callee.try_peek_call() == OK
    assert callee.read() == (2, b"two")
    assert callee.reply(second, b"TWO", 3, -1) == OK  # before the call is released, and not in order
    assert callee.release_call() == OK
    assert callee.try_reply(first, b"ONE", 4) == OK
    assert caller.peek_reply(first, -1) == OK
    assert caller.read() == (4, b"ONE")
    assert caller.try_peek_reply(second) == CLAIM_OPEN
    assert caller.release_reply() == OK
    assert caller.release_reply() == NO_CLAIM
    assert caller.try_peek_reply(second) == OK  # which was set aside
    assert caller.read() == (3, b"TWO")
    assert caller.release_reply() == OK
    assert caller.try_peek_reply(second) == UNKNOWN_CALL
    assert callee.try_reply(first, b"again", 4) == UNKNOWN_CALL
    assert callee.try_peek_call() == EMPTY
    assert callee.peek_call(1000) == EMPTY


def test_calls_and_replies_in_place(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_claim_call(100) == OK
    assert caller.try_claim_call(100) == CLAIM_OPEN
    assert caller.abort_call() == OK
    assert caller.commit_call(3, 9) == NO_CLAIM
    assert caller.claim_call(100, -1) == OK
    caller.write(b"abc")
    assert caller.commit_call(3, 9) == OK
    assert callee.peek_call(-1) == OK
    assert callee.read() == (9, b"abc")
    assert callee.try_claim_reply(77, 1) == UNKNOWN_CALL
    assert callee.try_claim_reply(callee.frame_id, 10) == OK
    assert callee.abort_reply() == OK
    assert callee.claim_reply(callee.frame_id, 10, -1) == OK
    callee.write(b"cba")
    assert callee.commit_reply(77, 3, 1) == UNKNOWN_CALL
    assert callee.commit_reply(callee.frame_id, 3, 10) == OK
    assert callee.try_claim_reply(callee.frame_id, 1) == UNKNOWN_CALL  # answered
    assert callee.release_call() == OK
    assert caller.peek_reply(caller.id, -1) == OK
    assert caller.read() == (10, b"cba")
    assert caller.release_reply() == OK


def test_each_method_of_rpc_is_for_one_side(rpc_hands):
    caller, callee = rpc_hands()
    assert [
        callee.try_call(b"", 1), callee.try_claim_call(1), callee.commit_call(1, 1), callee.abort_call(),
        callee.try_peek_reply(1), callee.release_reply(), callee.cancel_call(1), callee.call(b"", 1, -1),
    ] == [WRONG_SIDE] * 8  # fmt: skip
    assert [
        caller.try_peek_call(), caller.release_call(), caller.try_reply(1, b"", 0), caller.try_claim_reply(1, 1),
        caller.commit_reply(1, 1, 1), caller.abort_reply(), caller.peek_call(-1), caller.reply(1, b"", 0, -1),
    ] == [WRONG_SIDE] * 8  # fmt: skip


def test_a_call_that_was_not_sent_has_no_reply(rpc_hands):
    caller, _ = rpc_hands()
    assert caller.try_claim_call(8) == OK
    assert caller.commit_call(1000, 1) == TOO_LARGE
    assert caller.try_peek_reply(caller.id) == UNKNOWN_CALL
    assert caller.cancel_call(caller.id) == UNKNOWN_CALL


def test_a_reply_that_the_parent_holds_is_not_released_by_a_forked_child(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_call(b"x", 1) == OK
    assert callee.try_peek_call() == OK
    assert callee.try_reply(callee.frame_id, b"y", 2) == OK
    assert callee.release_call() == OK
    assert caller.try_peek_reply(caller.id) == OK
    pid = os.fork()
    if pid == 0:
        os._exit(0 if caller.release_reply() == FORKED else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert caller.read() == (2, b"y")
    assert caller.release_reply() == OK


def test_a_msg_type_out_of_bounds_is_refused(rpc_hands):
    caller, callee = rpc_hands()
    for wrong in (65535, 65536, 1 << 31):  # the first says that a call has failed
        assert caller.try_call(b"x", wrong) == BAD_TYPE
        assert caller.call(b"x", wrong, -1) == BAD_TYPE
        assert caller.try_claim_call(8) == OK
        assert caller.commit_call(8, wrong) == BAD_TYPE
        assert caller.abort_call() == OK  # the claim was still open
    with pytest.raises(ValueError, match="msg_type is out of bounds"):
        caller.raise_for_status(BAD_TYPE)
    assert callee.try_peek_call() == EMPTY
    assert caller.try_call(b"x", 65534) == OK
    assert callee.try_peek_call() == OK
    number = callee.frame_id
    assert callee.release_call() == OK
    for wrong in (65536, 1 << 31):
        assert callee.try_reply(number, b"x", wrong) == BAD_TYPE
        assert callee.reply(number, b"x", wrong, -1) == BAD_TYPE
        assert callee.try_claim_reply(number, 8) == OK
        assert callee.commit_reply(number, 8, wrong) == BAD_TYPE
        assert callee.abort_reply() == OK
    assert callee.try_reply(number, b"no", 65535) == OK


def test_a_cancelled_call_is_unknown(rpc_hands):
    caller, _ = rpc_hands()
    assert caller.try_call(b"x", 1) == OK
    assert caller.cancel_call(caller.id) == OK
    assert caller.cancel_call(caller.id) == UNKNOWN_CALL
    assert caller.try_peek_reply(caller.id) == UNKNOWN_CALL


def test_rpc_with_python_at_the_other_end(rpc, user):
    caller, callee = rpc()
    hand = user.RpcHand(callee)
    number = caller.call(b"from Python", 5)
    assert hand.peek_call(-1) == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        callee.serve()
    assert hand.reply(number, b"from C", 6, -1) == OK
    assert hand.release_call() == OK
    with caller.wait(number) as reply:
        assert (reply.type_id, bytes(reply)) == (6, b"from C")
        assert user.RpcHand(caller).try_peek_reply(number) == CLAIM_OPEN
    assert caller.call(b"and on it goes", 5) > number


def test_what_no_room_and_no_message_are_called_in_rpc(rpc_hands):
    caller, callee = rpc_hands(64, 64)
    assert caller.try_call(bytes(49), 1) == caller.call(bytes(49), 1, -1) == caller.claim_call(49, -1) == TOO_LARGE
    assert caller.call(b"first", 1, SECOND) == OK
    first = caller.id
    assert caller.try_call(b"", 1) == caller.try_claim_call(0) == FULL
    for timeout in (0, SECOND // 10):  # two slices
        assert caller.call(b"", 1, timeout) == caller.claim_call(0, timeout) == FULL
        assert caller.peek_reply(first, timeout) == EMPTY
    assert caller.try_peek_reply(first) == EMPTY
    assert callee.peek_call(SECOND) == OK
    assert callee.release_call() == OK
    assert caller.claim_call(6, SECOND) == OK
    caller.write(b"second")
    assert caller.commit_call(6, 1) == OK
    assert callee.peek_call(SECOND) == OK
    assert callee.release_call() == OK
    second = callee.frame_id
    assert callee.try_reply(first, bytes(49), 1) == callee.reply(first, bytes(49), 1, -1) == TOO_LARGE
    assert callee.try_claim_reply(first, 49) == callee.claim_reply(first, 49, -1) == TOO_LARGE
    assert callee.reply(first, b"one", 1, SECOND) == OK
    assert callee.try_reply(second, b"", 1) == callee.try_claim_reply(second, 0) == FULL
    for timeout in (0, SECOND // 10):
        assert callee.reply(second, b"", 1, timeout) == callee.claim_reply(second, 0, timeout) == FULL
        assert callee.peek_call(timeout) == EMPTY
    assert caller.peek_reply(first, SECOND) == OK
    assert caller.read() == (1, b"one")
    assert caller.release_reply() == OK
    assert callee.claim_reply(second, 3, SECOND) == OK
    callee.write(b"two")
    assert callee.commit_reply(second, 4000, 1) == TOO_LARGE  # and still open
    assert callee.commit_reply(second, 3, 1) == OK
    assert caller.peek_reply(second, SECOND) == OK
    assert caller.read() == (1, b"two")


def test_python_is_refused_while_nogil_code_holds_something_of_rpc(rpc, user):
    caller, callee = rpc()
    asking, answering = user.RpcHand(caller), user.RpcHand(callee)

    def refused(call):
        with pytest.raises(tachyon.BusBusyError, match="nogil"):
            call()

    assert asking.try_claim_call(8) == OK
    refused(lambda: caller.call(b"x", 1))
    assert asking.commit_call(1 << 20, 1) == TOO_LARGE
    refused(lambda: caller.call(b"x", 1))
    assert asking.commit_call(8, 1) == OK
    number = asking.id
    assert caller.call(b"x", 1) > number
    assert answering.try_peek_call() == OK
    refused(lambda: callee.serve(timeout=0))
    assert answering.release_call() == OK
    assert answering.try_claim_reply(number, 8) == OK
    refused(lambda: callee.reply(number, b"x"))
    assert answering.commit_reply(number, 1 << 20, 1) == TOO_LARGE
    refused(lambda: callee.reply(number, b"x"))
    assert answering.commit_reply(number, 8, 1) == OK
    with callee.serve() as call:
        callee.reply(call.correlation_id, b"y")
    assert asking.try_peek_reply(number) == OK
    refused(lambda: caller.wait(number + 1, timeout=0))
    assert asking.release_reply() == OK
    with caller.wait(number + 1) as reply:
        assert bytes(reply) == b"y"


def test_a_reply_is_released_as_it_was_whatever_its_frame_says_by_now(rpc_hands):
    caller, callee = rpc_hands()
    numbers = []
    for answer in (b"one", b"two"):
        assert caller.try_call(b"x", 1) == OK
        numbers.append(caller.id)
        assert callee.try_peek_call() == OK
        assert callee.try_reply(callee.frame_id, answer, 1) == OK
        assert callee.release_call() == OK
    assert caller.try_peek_reply(numbers[0]) == OK
    caller.change(1, 0, 0)
    assert caller.release_reply() == NO_CLAIM  # of another call
    caller.change(-1, 64, 64)  # into the next reply, which must not be cleared
    assert caller.release_reply() == OK
    assert caller.try_peek_reply(numbers[1]) == OK
    assert caller.read() == (1, b"two")
    assert caller.release_reply() == OK


def test_another_thread_inside_of_either_ring_is_busy(run_thread, rpc, user, until):
    caller, callee = rpc()
    number = caller.call(b"x", 1)
    waiting = run_thread(user.RpcHand(caller).peek_reply, number, -1)
    asking, answering = user.RpcHand(caller), user.RpcHand(callee)
    until(lambda: caller.stats()["replies"]["parks"] > 0)  # two that come in together might both be refused
    until(lambda: asking.cancel_call(77) == BUSY)  # between two slices of that wait it is UNKNOWN_CALL
    assert answering.try_peek_call() == OK
    assert answering.release_call() == OK
    assert answering.try_reply(number, b"y", 1) == OK
    assert waiting.result(60) == OK
    waiting = run_thread(answering.peek_call, -1)
    until(lambda: callee.stats()["calls"]["parks"] > 0)
    until(lambda: user.RpcHand(callee).try_claim_reply(77, 1) == BUSY)
    caller.close()
    assert waiting.result(60) == PEER_CLOSED


def test_what_finds_the_other_side_gone_leaves_nothing_open_in_rpc(rpc, user):
    for held in (True, False):
        caller, callee = rpc()
        asking = user.RpcHand(caller)
        if held:
            assert asking.try_claim_call(8) == OK
        callee.close()
        if held:
            assert asking.commit_call(8, 1) == PEER_CLOSED
        assert asking.try_call(b"x", 1) == PEER_CLOSED
        assert asking.commit_call(8, 1) == PEER_CLOSED
        with pytest.raises(tachyon.PeerClosedError):
            caller.call(b"x", 1)
        caller, callee = rpc()
        number = caller.call(b"x", 1)
        answering = user.RpcHand(callee)
        assert answering.try_peek_call() == OK
        assert answering.release_call() == OK
        if held:
            assert answering.try_claim_reply(number, 8) == OK
        caller.close()
        if held:
            assert answering.commit_reply(number, 8, 1) == PEER_CLOSED
        assert answering.try_reply(number, b"y", 1) == PEER_CLOSED
        assert answering.commit_reply(number, 8, 1) == PEER_CLOSED
        with pytest.raises(tachyon.PeerClosedError):
            callee.reply(number, b"x")


@pytest.mark.parametrize(
    "end",
    [
        "commit_call(8, 1)",
        "abort_call()",
        "release_reply()",
        "release_call()",
        "commit_reply(number, 8, 1)",
        "abort_reply()",
    ],
    ids=lambda end: end.partition("(")[0],
)
def test_what_nogil_code_holds_of_rpc_stays_mapped_after_a_close(rpc, user, end):
    caller, callee = rpc()
    calls = end.endswith("call(8, 1)") or end in ("abort_call()", "release_reply()")
    bus = caller if calls else callee
    hand = user.RpcHand(bus)
    number = caller.call(b"x", 1)
    if end == "release_reply()":
        with callee.serve():
            callee.reply(number, b"y")
        assert hand.try_peek_reply(number) == OK
    elif calls:
        assert hand.try_claim_call(8) == OK
    elif end == "release_call()":
        assert hand.try_peek_call() == OK
    else:
        with callee.serve():
            pass
        assert hand.try_claim_reply(number, 8) == OK
    before = mappings()
    bus.close()
    assert mappings() == before - 1  # the other ring's
    if "release" in end:
        assert hand.read()[1] == (b"y" if calls else b"x")
    else:
        hand.write(b"x" * 8)
    for _ in range(2):  # the second time nothing is held, and nothing is counted
        assert eval(f"hand.{end}", {"hand": hand, "number": number}) == CLOSED
    bus.close()
    assert mappings() == before - 2


def test_rpc_after_a_close(rpc, user):
    for each in (*rpc(), tachyon.RpcBus.__new__(tachyon.RpcBus)):
        hand = user.RpcHand(each)
        each.close()
        codes = [hand.try_call(b"", 1), hand.try_claim_call(1), hand.commit_call(1, 1), hand.abort_call()]
        codes += [hand.try_peek_reply(1), hand.release_reply(), hand.cancel_call(1), hand.try_peek_call()]
        codes += [hand.release_call(), hand.try_reply(1, b"", 1), hand.try_claim_reply(1, 1), hand.peek_call(-1)]
        codes += [hand.commit_reply(1, 1, 1), hand.abort_reply(), hand.reply(1, b"", 1, -1), hand.claim_reply(1, 1, -1)]
        codes += [hand.call(b"", 1, -1), hand.claim_call(1, -1), hand.peek_reply(1, -1)]
        assert set(codes) <= {CLOSED, WRONG_SIDE}
        assert CLOSED in codes
        with pytest.raises(tachyon.BusClosedError):
            hand.raise_for_status(CLOSED)


def test_rpc_waits_end_with_a_close(run_thread, rpc, user, until):
    caller, callee = rpc()
    number = caller.call(b"x", 1)
    waiting = run_thread(user.RpcHand(caller).peek_reply, number, -1)
    until(lambda: caller.stats()["replies"]["parks"] > 0)
    serving = user.RpcHand(callee)
    assert serving.peek_call(-1) == OK
    assert serving.release_call() == OK
    running = run_thread(serving.peek_call, -1)
    until(lambda: callee.stats()["calls"]["parks"] > 0)
    caller.close()
    assert waiting.result(60) == CLOSED
    assert running.result(60) == PEER_CLOSED


def test_calls_and_replies_wait_for_room(run_thread, rpc, user, until):
    caller, callee = rpc(64, 64)
    asking, answering = user.RpcHand(caller), user.RpcHand(callee)
    numbers = [caller.call(b"first", 1)]
    waiting = run_thread(asking.claim_call, 8, -1)
    until(lambda: caller.stats()["calls"]["parks"] > 0)
    assert answering.peek_call(-1) == OK
    assert answering.release_call() == OK
    assert waiting.result(60) == OK
    asking.write(b"s")
    assert asking.commit_call(1, 1) == OK
    numbers.append(asking.id)
    assert answering.peek_call(-1) == OK
    assert answering.release_call() == OK
    assert answering.reply(numbers[0], b"one", 1, -1) == OK
    waiting = run_thread(answering.reply, numbers[1], b"two", 2, -1)
    until(lambda: callee.stats()["replies"]["parks"] > 0)
    for number, answer in zip(numbers, [(1, b"one"), (2, b"two")], strict=True):
        assert asking.peek_reply(number, -1) == OK
        assert asking.read() == answer
        assert asking.release_reply() == OK
    assert waiting.result(60) == OK


def test_a_full_ring_of_calls_does_not_lock_up_with_a_full_ring_of_replies(run_thread, rpc, user):
    """The callee waits for room for a reply, the caller for room for a call: the caller must take replies meanwhile."""
    caller, callee = rpc(64, 64)
    serving = run_thread(user.echo, callee, 50)
    hand = user.RpcHand(caller)
    ids = []
    for i in range(50):
        assert hand.call(bytes([i]), 1, 60 * SECOND) == OK
        ids.append(hand.id)
    for i, number in enumerate(ids):
        assert hand.peek_reply(number, 60 * SECOND) == OK
        assert hand.read() == (2, bytes([i]))
        assert hand.release_reply() == OK
    serving.result(60)


def test_calls_between_two_processes_without_the_gil(folder, spawn, path):
    start = f"sys.path.insert(0, {str(folder)!r}); import nogil_user; bus = tachyon.RpcBus."
    callee = spawn(start + "listen(path, 4096, 4096, timeout=60); nogil_user.echo(bus, 50_000); say('served')", path)
    caller = spawn(
        start + "connect(path, timeout=60); say(nogil_user.ask(bus, 50_000)); hear()",
        path,
    )
    caller.says("0")
    callee.says("served")
    caller.tell("end")
    caller.ends()
    callee.ends()
