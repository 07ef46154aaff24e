"""The nogil methods of Bus, driven from here through a module that was compiled without our headers."""

import os
import re
import time
from pathlib import Path

import pytest
from downstream import need_compiler
from nogil_hands import BUSY, CLAIM_OPEN, EMPTY, FORKED, FULL, NO_CLAIM, OK, PEER_CLOSED, SECOND, TOO_LARGE

import tachyon
from tachyon import BusBusyError

need_compiler()


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


def test_a_message_that_never_fits_is_told_from_a_full_ring(hands, nogil, pair):
    sender, _ = pair(64, max_large=0)
    producer = nogil.Hand(sender)
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


def test_the_numbers_are_those_of_the_core(nogil):
    header = Path(tachyon.get_include(), "tachyon", "error.hpp").read_text()
    body = re.search(r"enum class Status : int \{(.*?)\};", header, re.DOTALL).group(1)
    assert nogil.statuses() == {name: int(number) for name, number in re.findall(r"(\w+) = (\d+),", body)}


# ---- misuse ----------------------------------------------------------------------------------------------------------


def test_frames_are_released_oldest_first_and_unchanged(nogil, pair):
    sender, receiver = pair(4096)
    producer, consumer = nogil.Hand(sender), nogil.Hand(receiver)
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


def test_python_is_refused_while_nogil_code_holds_something(hands, nogil, pair):
    sender, receiver = pair()
    producer, consumer = nogil.Hand(sender), nogil.Hand(receiver)
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


def test_a_batch_is_held_until_all_of_it_is_released(nogil, pair):
    sender, receiver = pair()
    consumer = nogil.Hand(receiver)
    sender.send_many([b"one", b"two", b"three"])
    assert consumer.try_drain(2) == (OK, 2)
    assert consumer.release(0) == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        receiver.recv(timeout=0)
    assert consumer.release(1) == OK
    assert receiver.recv().data == b"three"


def test_what_could_not_be_released_is_still_held(nogil, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    mine, other = nogil.Hand(receiver), nogil.Hand(receiver)
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


def test_what_finds_the_peer_gone_leaves_nothing_open(nogil, pair):
    for end in ("commit", "abort"):
        sender, receiver = pair()
        producer = nogil.Hand(sender)
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


def test_nogil_code_is_refused_while_a_guard_is_open(nogil, pair):
    sender, receiver = pair()
    producer, consumer = nogil.Hand(sender), nogil.Hand(receiver)
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


def test_two_threads_are_told_apart_where_one_waits(nogil, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    consumer = nogil.Hand(receiver)
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


def test_that_comes_before_the_guard_which_is_open_in_the_parent(nogil, pair):
    sender, _ = pair()
    producer = nogil.Hand(sender)
    with sender.send_zero_copy(8):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if producer.try_claim(1) == producer.commit(1, 0) == producer.check() == FORKED else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert producer.try_claim(1) == CLAIM_OPEN


def test_who_is_refused_a_guard_touches_nothing_of_nogil_code(nogil, pair, run_thread, until):
    """What was wrong with that only a thread sanitizer saw."""
    producer, consumer = pair(4096)
    producer.send(b"decides who sends")
    consumer.recv()
    nogil.go_on(0)
    holding = run_thread(nogil.hold_a_whole_ring, consumer)
    until(lambda: nogil.step_is() == 1)
    producer.send_many([bytes(48)] * 64)
    nogil.go_on(2)
    until(lambda: nogil.step_is() == 3)
    for ask in (consumer.recv_zero_copy, consumer.drain_batch):
        with pytest.raises(BusBusyError):
            ask(timeout=0)
    nogil.go_on(4)
    assert holding.result() == (OK, 64)
