"""Capacity: a power of two within stated bounds, checked before anything else happens."""

import os

import pytest

import tachyon
from tachyon import MAX_CAPACITY, MIN_CAPACITY, Bus, CapacityError

BAD = [
    0,
    -1,
    1,
    2,
    3,
    32,
    63,
    65,
    100,
    4097,
    2**16 + 1,
    2**32 - 1,
    2**32 + 1,
    2**33,
    2**63,
    2**64,
    2**100,
    -(2**63),
    True,
]


def test_the_bounds_are_stated():
    assert (MIN_CAPACITY, MAX_CAPACITY) == (64, 1 << 32)


@pytest.mark.parametrize("bad", BAD)
def test_anything_else_is_a_capacity_error_that_names_the_value_and_the_bounds(path, bad):
    with pytest.raises(CapacityError) as caught:
        Bus.listen(path, bad, timeout=0)
    text = str(caught.value)
    assert str(int(bad)) in text
    assert "power of two" in text
    assert str(MIN_CAPACITY) in text
    assert str(MAX_CAPACITY) in text
    assert not os.path.exists(path)


@pytest.mark.parametrize("bad", ["x", "4096", b"4096", 2.0, 4096.0, None, [4096]])
def test_anything_but_an_int_is_a_type_error(path, bad):
    with pytest.raises(TypeError, match=f"capacity must be an int, not {type(bad).__name__}"):
        Bus.listen(path, bad, timeout=0)
    assert not os.path.exists(path)


def test_it_is_checked_before_anything_is_done_to_the_path(tmp_path):
    with pytest.raises(CapacityError):
        Bus.listen(tmp_path / "no" / "such" / "folder", 3)


def test_whatever_has_an_index_will_do(path):
    class Index:
        def __index__(self):
            return 4096

    with pytest.raises(tachyon.TachyonTimeoutError):
        Bus.listen(path, Index(), timeout=0)


@pytest.mark.parametrize("capacity", [64, 128, 256, 4096, 1 << 16, 1 << 20])
def test_both_sides_know_it(pair, capacity):
    producer, consumer = pair(capacity)
    for bus in (producer, consumer):
        assert bus.capacity == capacity
        assert bus.max_message_size == capacity - 16
        assert bus.stats()["capacity"] == capacity


@pytest.mark.parametrize("capacity", [64, 128, 256, 512, 4096])
def test_the_largest_message_goes_through_at_every_position(pair, capacity):
    producer, consumer = pair(capacity)
    largest = producer.max_message_size
    for lead in range(0, 2 * capacity, 64):
        # Move the ring on by one line, then send the largest possible.
        producer.send(b"lead %d" % lead)
        assert consumer.recv().data == b"lead %d" % lead
        payload = bytes((lead // 64 + i) % 256 for i in range(largest))
        sent = producer.try_send(payload, 5)
        if not sent:  # the padding before it has to be freed first
            assert consumer.try_recv() is None
            assert producer.try_send(payload, 5)
        assert consumer.recv() == tachyon.Message(5, largest, payload)


@pytest.mark.parametrize("capacity", [64, 128, 4096])
def test_one_byte_more_is_refused_with_both_numbers_where_nothing_larger_may_go(pair, capacity):
    producer, consumer = pair(capacity, max_large=0)
    assert producer.max_large_size == consumer.max_large_size == producer.max_message_size
    too_much = producer.max_message_size + 1
    for role in (None, "producer"):  # before the first message and after it
        assert producer.stats()["role"] == role
        for call in (
            lambda: producer.try_send(bytes(too_much)),
            lambda: producer.send(bytes(too_much)),
            lambda: producer.send(memoryview(bytes(2 * too_much))[::2]),
            lambda: producer.send_many([bytes(too_much)]),
            lambda: producer.send_zero_copy(too_much),
        ):
            with pytest.raises(tachyon.MessageTooLargeError) as caught:
                call()
            assert str(too_much) in str(caught.value)
            assert str(producer.max_message_size) in str(caught.value)
            assert "larger capacity" in str(caught.value)
        assert producer.stats()["role"] == role  # a message that cannot be sent decides nothing
        producer.send(b"still fine")
        assert consumer.recv().data == b"still fine"


def test_a_ring_of_one_message_makes_progress(pair):
    producer, consumer = pair(64)
    for i in range(1000):
        assert producer.try_send(b"%d" % i)
        assert not producer.try_send(b"no room")
        assert consumer.recv().data == b"%d" % i
        assert consumer.try_recv() is None


def test_a_ring_of_two_messages_makes_progress(pair):
    producer, consumer = pair(128)
    for i in range(1000):
        assert producer.try_send(b"%d" % i)
        assert producer.try_send(b"%d again" % i)
        assert not producer.try_send(b"no room")
        assert [consumer.recv().data, consumer.recv().data] == [b"%d" % i, b"%d again" % i]
        assert consumer.try_recv() is None
