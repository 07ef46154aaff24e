"""What a ring holds as one sample, and back, as the bridge does it."""

import struct
import zlib

import pytest

import tachyon
from tachyon._tachyon import pack, unpack

HEAD = b"h" * 28


def checked(number):
    """A message of 8 to 300 bytes that can be checked."""
    body = struct.pack("<I", number) + bytes([number % 251]) * (number * 7919 % 293)
    return body + struct.pack("<I", zlib.crc32(body))


def check(message, number):
    assert message.data == checked(number)
    assert message.type_id == number % 1000


def test_what_a_ring_holds_becomes_one_sample_and_messages_again(pair):
    producer, consumer = pair()
    again, far = pair()
    for number in range(100):
        producer.send(checked(number), number % 1000)
    sample, count = pack(consumer, HEAD, 1 << 18, 0)
    assert count == 100
    assert sample[:28] == HEAD
    assert sample[28:32] == struct.pack("<I", 100)
    assert unpack(again, sample, 32, count, 0) == (len(sample), 0)
    for number in range(100):
        check(far.try_recv(), number)
    assert far.try_recv() is None


def test_a_batch_is_cut_at_its_limit_and_never_waited_for(pair):
    producer, consumer = pair(1 << 20)
    for _ in range(1000):
        producer.send(bytes(1000))
    sizes = []
    while (batch := pack(consumer, HEAD, 1 << 16, 0)) is not None:
        sizes.append(len(batch[0]))
    assert len(sizes) == 16
    assert all((1 << 16) <= size < (1 << 16) + 1100 for size in sizes[:-1])
    producer.send(b"x")
    assert pack(consumer, HEAD, 1 << 16, 60)[1] == 1
    producer.send(bytes(100_000))
    assert pack(consumer, HEAD, 1 << 16, 60)[1] == 1


def test_empty_messages_go_too_and_many_of_them(pair):
    producer, consumer = pair(1 << 22)
    again, far = pair(1 << 22)
    for number in range(20_000):
        producer.send(b"", number)
    total = 0
    while (batch := pack(consumer, HEAD, 1 << 18, 0)) is not None:
        total += batch[1]
        assert unpack(again, batch[0], 32, batch[1], 0) == (len(batch[0]), 0)
    assert total == 20_000
    for number in range(20_000):
        assert far.try_recv() == tachyon.Message(number, 0, b"")


def test_a_full_ring_is_gone_on_with_where_it_stopped(pair):
    producer, consumer = pair(1 << 16)
    again, far = pair(4096)
    for number in range(100):
        producer.send(checked(number), number % 1000)
    sample, left = pack(consumer, HEAD, 1 << 18, 0)
    offset, received = 32, 0
    while left:
        before = offset
        offset, left = unpack(again, sample, offset, left, 0)
        assert offset > before
        while (message := far.try_recv()) is not None:
            check(message, received)
            received += 1
    assert received == 100


def test_unpacking_waits_for_room(pair, run_thread):
    again, far = pair(4096)
    producer, consumer = pair(1 << 16)
    for number in range(100):
        producer.send(checked(number), number % 1000)
    sample, count = pack(consumer, HEAD, 1 << 18, 0)
    unpacking = run_thread(unpack, again, sample, 32, count, 60)
    for number in range(100):
        check(far.recv(timeout=60), number)
    assert unpacking.result(60) == (len(sample), 0)


@pytest.mark.parametrize("damage", [-1, -5, -9, 1])
def test_records_that_do_not_fill_their_sample_are_refused(pair, damage):
    producer, consumer = pair()
    again, far = pair()
    producer.send(b"abcd", 1)
    producer.send(b"abcd", 2)
    sample, _ = pack(consumer, HEAD, 1 << 18, 0)
    sample = sample[:damage] if damage < 0 else sample + b"x"
    with pytest.raises(ValueError, match="does not hold the 2 messages"):
        unpack(again, sample, 32, 2, 0)
    assert far.try_recv().type_id == 1


@pytest.mark.parametrize("count", [0, 1, 3, 1 << 32])
def test_a_count_of_records_that_is_wrong_is_refused(pair, count):
    producer, consumer = pair()
    again, _ = pair()
    producer.send(b"abcd", 1)
    producer.send(b"abcd", 2)
    sample, _ = pack(consumer, HEAD, 1 << 18, 0)
    with pytest.raises(ValueError, match=f"does not hold the {count} messages"):
        unpack(again, sample, 32, count, 0)


def test_a_message_without_memory_of_its_own_is_sent_once_there_is_some(pair, no_descriptors):
    producer, consumer = pair(1 << 16)
    again, far = pair(4096)
    producer.send(b"small")
    producer.send(bytes(10_000))
    sample, _ = pack(consumer, HEAD, 1 << 18, 0)
    with no_descriptors, pytest.raises(MemoryError, match="10000 bytes is larger than the ring"):
        unpack(again, sample, 32, 2, 0)
    assert far.try_recv().data == b"small"
    assert far.try_recv() is None
    assert unpack(again, sample, 32 + 8 + 5, 1, 0) == (len(sample), 0)
    assert far.try_recv().data == bytes(10_000)


@pytest.mark.parametrize("offset", [-1, 1000])
def test_an_offset_outside_is_refused(pair, offset):
    with pytest.raises(ValueError, match="offset"):
        unpack(pair()[0], bytes(40), offset, 1, 0)


def test_packing_tells_how_the_producer_ended_after_the_last_message(pair):
    producer, consumer = pair()
    producer.send(b"last")
    producer.abort()
    assert pack(consumer, HEAD, 1 << 18, 0)[1] == 1
    with pytest.raises(tachyon.PeerDeadError) as caught:
        pack(consumer, HEAD, 1 << 18, 0)
    assert caught.value.reason == "aborted"


def test_ids_of_calls_go_through_both_rings(rpc):
    caller, callee = rpc()
    far_caller, far_callee = rpc()
    ids = [caller.call(b"question", 7) for _ in range(3)]
    sample, count = pack(callee, HEAD, 1 << 18, 0)
    assert count == 3
    assert unpack(far_caller, sample, 32, 3, 0) == (len(sample), 0)
    for expected in ids:
        with far_callee.serve(timeout=0) as request:
            assert (request.correlation_id, request.type_id, bytes(request)) == (expected, 7, b"question")
    for each in reversed(ids):
        far_callee.reply(each, str(each).encode(), 9)
    sample, count = pack(far_caller, HEAD, 1 << 18, 0)
    assert count == 3
    unpack(callee, sample, 32, 3, 0)
    for each in ids:
        with caller.wait(each, timeout=0) as answer:
            assert (bytes(answer), answer.type_id) == (str(each).encode(), 9)
