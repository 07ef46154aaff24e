"""recv, try_recv, recv_into, iteration: copies of messages, theirs to keep."""

import array

import numpy as np
import pytest

import tachyon
from tachyon import BusClosedError, BusEmptyError, Message, MessageTooLargeError


def test_messages_arrive_in_order(pair):
    producer, consumer = pair(4096)
    for lap in range(50):
        for i in range(20):
            producer.send(b"%d %d" % (lap, i), i)
        for i in range(20):
            assert consumer.recv() == Message(i, len(b"%d %d" % (lap, i)), b"%d %d" % (lap, i))


def test_try_recv_says_none_when_there_is_nothing(pair):
    producer, consumer = pair()
    assert consumer.try_recv() is None
    producer.send(b"", 3)
    assert consumer.try_recv() == Message(3, 0, b"")
    assert consumer.try_recv() is None


def test_recv_waits(pair, run_thread, until):
    producer, consumer = pair()
    receiving = run_thread(consumer.recv)
    until(lambda: consumer.stats()["parks"] > 2)  # for longer than one sleep
    assert not receiving.done()
    producer.send(b"x", 5)
    assert receiving.result() == Message(5, 1, b"x")


def test_a_message_may_be_kept_for_ever(pair):
    producer, consumer = pair(256)
    kept = []
    for i in range(100):
        producer.send(b"%03d" % i * 10)
        kept.append(consumer.recv())
    assert [message.data for message in kept] == [b"%03d" % i * 10 for i in range(100)]


def test_a_bus_is_its_own_iterator(pair):
    producer, consumer = pair()
    assert iter(consumer) is consumer
    producer.send_many([b"a", b"b", b"c"])
    producer.close()
    assert next(consumer).data == b"a"
    assert [message.data for message in consumer] == [b"b", b"c"]
    assert list(consumer) == []


def test_iteration_waits_and_ends_with_the_producer(pair, run_thread, until):
    producer, consumer = pair()
    receiving = run_thread(lambda: [message.data for message in consumer])
    for i in range(3):
        parks = consumer.stats()["parks"]
        until(lambda before=parks: consumer.stats()["parks"] > before)
        producer.send(b"%d" % i)
    producer.close()
    assert receiving.result() == [b"0", b"1", b"2"]


def test_a_loop_can_be_left_and_entered_again(pair):
    producer, consumer = pair()
    producer.send_many([b"a", b"b"])
    for message in consumer:
        assert message.data == b"a"
        break
    for message in consumer:
        assert message.data == b"b"
        break


# ---- recv_into -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(16),
        memoryview(bytearray(16)),
        array.array("d", [0, 0]),
        np.zeros(4, dtype=np.int32),
        np.zeros((2, 2), dtype=np.int32),
        memoryview(bytearray(16)).cast("B", (4, 4)),
    ],
    ids=["bytearray", "view", "array", "numpy", "2-d numpy", "2-d view"],
)
def test_recv_into_fills_any_writable_buffer(pair, buffer):
    producer, consumer = pair()
    producer.send(b"0123456789abcdef", 7)
    assert consumer.recv_into(buffer) == (16, 7)
    assert memoryview(buffer).tobytes() == b"0123456789abcdef"


def test_recv_into_leaves_the_rest_alone(pair):
    producer, consumer = pair()
    buffer = bytearray(b"-" * 8)
    producer.send(b"abc", 1)
    producer.send(b"", 2)
    assert consumer.recv_into(buffer) == (3, 1)
    assert buffer == b"abc-----"
    assert consumer.recv_into(buffer) == (0, 2)
    assert buffer == b"abc-----"


def test_recv_into_takes_large_messages(pair):
    producer, consumer = pair(1 << 18)
    payload = bytes(range(256)) * 500
    producer.send(payload)
    buffer = bytearray(len(payload))
    assert consumer.recv_into(buffer) == (len(payload), 0)
    assert buffer == payload


def test_recv_into_frees_the_message(pair):
    producer, consumer = pair(64)  # room for one
    buffer = bytearray(16)
    for lap in range(10):
        assert producer.try_send(b"%d" % lap)
        assert not producer.try_send(b"no room")
        assert consumer.recv_into(buffer, timeout=30) == (1, 0)
        assert buffer[:1] == b"%d" % lap


def test_a_buffer_that_is_too_small_leaves_the_message(pair):
    producer, consumer = pair(256)
    for lap in range(10):  # over the end of the ring, too
        producer.send(b"%09d" % lap, 3)
        producer.send(b"next", 4)
        small = bytearray(8)
        for _ in range(3):
            with pytest.raises(MessageTooLargeError) as caught:
                consumer.recv_into(small)
            assert "9 bytes" in str(caught.value)
            assert "the buffer 8" in str(caught.value)
            assert "larger" in str(caught.value)
        assert small == bytes(8)
        large = bytearray(9)
        assert consumer.recv_into(large) == (9, 3)
        assert large == b"%09d" % lap
        assert consumer.recv() == Message(4, 4, b"next")


@pytest.mark.parametrize("bad", ["text", None, 7, [0]])
def test_recv_into_what_is_no_buffer_is_a_type_error(pair, bad):
    producer, consumer = pair()
    producer.send(b"x")
    with pytest.raises(TypeError):
        consumer.recv_into(bad)
    assert consumer.recv().data == b"x"


@pytest.mark.parametrize("bad", [b"read-only", memoryview(bytearray(8))[::2], np.asfortranarray(np.zeros((4, 4)))])
def test_recv_into_a_buffer_that_will_not_do_is_refused(pair, bad):
    producer, consumer = pair()
    producer.send(b"x")
    with pytest.raises((BufferError, ValueError)):
        consumer.recv_into(bad)
    assert consumer.recv().data == b"x"


def test_recv_into_lets_the_buffer_go(pair):
    producer, consumer = pair()
    buffer = bytearray(8)
    producer.send(b"x")
    consumer.recv_into(buffer)
    with pytest.raises(BusEmptyError):
        consumer.recv_into(buffer, timeout=0)
    buffer.clear()


# ---- closed ----------------------------------------------------------------------------------------------------------


def every_use(bus):
    return {
        "send": lambda: bus.send(b"x"),
        "try_send": lambda: bus.try_send(b"x"),
        "send strided": lambda: bus.send(memoryview(b"abcd")[::2]),
        "send_many": lambda: bus.send_many([b"x"]),
        "send_zero_copy": lambda: bus.send_zero_copy(1),
        "recv": bus.recv,
        "try_recv": bus.try_recv,
        "recv_into": lambda: bus.recv_into(bytearray(8)),
        "recv_zero_copy": bus.recv_zero_copy,
        "drain_batch": bus.drain_batch,
        "iter": lambda: iter(bus),
        "next": lambda: next(bus),
        "flush": bus.flush,
        "set_polling_mode": lambda: bus.set_polling_mode(True),
        "set_numa_node": lambda: bus.set_numa_node(0),
        "stats": bus.stats,
        "enter": bus.__enter__,
    }


@pytest.mark.parametrize("use", every_use(tachyon.Bus.__new__(tachyon.Bus)))
@pytest.mark.parametrize("side", [0, 1])
def test_every_use_of_a_closed_bus_is_refused(pair, use, side):
    pair_of_buses = pair()
    bus = pair_of_buses[side]
    pair_of_buses[0].send(b"unread")
    bus.close()
    with pytest.raises(BusClosedError, match=r"pair0.* is closed; open a new one"):
        every_use(bus)[use]()


@pytest.mark.parametrize("use", every_use(tachyon.Bus.__new__(tachyon.Bus)))
def test_a_bus_that_was_never_opened_is_a_closed_one(use):
    bus = tachyon.Bus.__new__(tachyon.Bus)
    assert bus.closed
    with pytest.raises(BusClosedError):
        every_use(bus)[use]()


def test_close_is_idempotent(pair):
    for bus in pair():
        assert not bus.closed
        for _ in range(3):
            assert bus.close() is None
            assert bus.closed


def test_a_closed_bus_still_tells_its_numbers(pair):
    producer, _ = pair(4096)
    pid = producer.peer_pid
    producer.close()
    assert (producer.capacity, producer.max_message_size, producer.peer_pid) == (4096, 4080, pid)


def test_a_send_many_of_nothing_to_a_closed_bus_is_nothing(pair):
    producer, _ = pair()
    producer.close()
    assert producer.send_many([]) == 0
