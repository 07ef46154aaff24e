"""send_zero_copy and recv_zero_copy: messages written and read in place."""

import ctypes

import numpy as np
import pytest

import tachyon
from tachyon import BusFullError, Message, RxGuard, TxGuard


def address_of(buffer):
    return np.frombuffer(buffer, dtype=np.uint8).__array_interface__["data"][0]


# ---- sending ---------------------------------------------------------------------------------------------------------


def test_the_published_example(pair):
    producer, consumer = pair()
    payload = b"payload"
    with producer.send_zero_copy(size=64, type_id=7) as tx:
        with memoryview(tx) as m:
            m[: len(payload)] = payload
        tx.actual_size = len(payload)
    with consumer.recv_zero_copy() as rx:
        with memoryview(rx) as m:
            snapshot = m.tobytes()
        assert (rx.actual_size, rx.type_id) == (7, 7)
    assert snapshot == payload


def test_its_buffer_is_writable_bytes_of_the_size_asked_for(pair):
    producer, _ = pair()
    with producer.send_zero_copy(100) as tx:
        assert type(tx) is TxGuard
        assert len(tx) == 100
        with memoryview(tx) as view:
            assert (view.nbytes, view.format, view.itemsize, view.ndim, view.shape, view.strides) == (
                100,
                "B",
                1,
                1,
                (100,),
                (1,),
            )
            assert not view.readonly
            assert view.c_contiguous


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 49, 100, 4080])
def test_every_size_can_be_claimed_and_is_aligned(pair, size):
    producer, consumer = pair(4096)
    for _ in range(70):  # over the end of the ring
        with producer.send_zero_copy(size, 3) as tx, memoryview(tx) as view:
            assert size == 0 or address_of(view) % 16 == 0
            view[:] = bytes(i % 251 for i in range(size))
        with consumer.recv_zero_copy() as rx, memoryview(rx) as view:
            assert size == 0 or address_of(view) % 16 == 0
            assert view.tobytes() == bytes(i % 251 for i in range(size))
            assert (rx.actual_size, rx.type_id, len(rx)) == (size, 3, size)


def test_actual_size_starts_at_the_size_and_cuts_the_message(pair):
    producer, consumer = pair(4096)
    for actual in (0, 1, 47, 48, 49, 100):
        with producer.send_zero_copy(100) as tx:
            assert tx.actual_size == 100
            with memoryview(tx) as view:
                view[:] = bytes(range(100))
            tx.actual_size = actual
            assert tx.actual_size == actual
        assert consumer.recv().data == bytes(range(actual))


def claim(producer, consumer, size):
    """A claim that nobody waits for: the padding before it may have to be freed first."""
    try:
        return producer.send_zero_copy(size, timeout=0)
    except BusFullError:
        assert consumer.try_recv() is None
        return producer.send_zero_copy(size, timeout=0)


def test_the_lines_cut_off_or_given_back_never_look_like_a_message(pair):
    producer, consumer = pair(256)
    fake = (2**32 + 5).to_bytes(8, "little")  # would be a commit word: 4 bytes of type 1
    for i in range(100):
        with claim(producer, consumer, 160) as tx:
            with memoryview(tx) as view:
                view[:] = fake * 20
            tx.actual_size = 1 + i % 40
        assert consumer.recv().data == (fake * 20)[: 1 + i % 40]
        assert consumer.try_recv() is None
        with pytest.raises(KeyError), claim(producer, consumer, 160) as tx:
            with memoryview(tx) as view:
                view[:] = fake * 20
            raise KeyError
        assert consumer.try_recv() is None
        producer.send(b"next")  # what comes behind it was given back
        assert consumer.recv().data == b"next"
        assert consumer.try_recv() is None


@pytest.mark.parametrize("bad", [-1, 101, 2**31, 2**32 + 1, 2**64, -(2**64)])
def test_an_actual_size_out_of_range_is_refused_with_both_numbers(pair, bad):
    producer, consumer = pair()
    with producer.send_zero_copy(100) as tx:
        with pytest.raises(ValueError, match=f"between 0 and the 100 bytes claimed, not {bad}"):
            tx.actual_size = bad
        assert tx.actual_size == 100
    assert consumer.recv().size == 100


@pytest.mark.parametrize("bad", ["1", 1.0, None])
def test_an_actual_size_of_the_wrong_type_is_refused(pair, bad):
    producer, _ = pair()
    with producer.send_zero_copy(100) as tx:
        with pytest.raises(TypeError):
            tx.actual_size = bad


def test_the_type_id_may_be_set_in_the_block(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(0, 1) as tx:
        assert tx.type_id == 1
        tx.type_id = 2**32 - 1
        assert tx.type_id == 2**32 - 1
        for bad in (-1, 2**32):
            with pytest.raises(OverflowError, match=f"not {bad}"):
                tx.type_id = bad
        with pytest.raises(TypeError):
            tx.type_id = "x"
    assert consumer.recv() == Message(2**32 - 1, 0, b"")


@pytest.mark.parametrize("bad", ["1", 1.0, None, b"x"])
def test_a_size_of_the_wrong_type_is_refused(pair, bad):
    producer, _ = pair()
    with pytest.raises(TypeError, match=f"size must be an int, not {type(bad).__name__}"):
        producer.send_zero_copy(bad)


@pytest.mark.parametrize("bad", [-1, -(2**64)])
def test_a_negative_size_is_refused(pair, bad):
    producer, _ = pair()
    with pytest.raises(ValueError, match=f"size must not be negative: {bad}"):
        producer.send_zero_copy(bad)


@pytest.mark.parametrize("bad", [2**32 - 1, 2**32, 2**32 + 8, 2**63, 2**64 + 8])
def test_a_size_beyond_every_ring_is_too_large(pair, bad):
    producer, consumer = pair()
    with pytest.raises(tachyon.MessageTooLargeError, match=str(bad)):
        producer.send_zero_copy(bad)
    producer.send(b"fine")
    assert consumer.recv().data == b"fine"


def test_nothing_is_seen_before_the_block_is_left(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(4) as tx:
        with memoryview(tx) as view:
            view[:] = b"1234"
        assert consumer.try_recv() is None
    assert consumer.recv().data == b"1234"


def test_leaving_the_block_wakes_a_sleeper(pair, run_thread, until):
    producer, consumer = pair()
    for _ in range(50):  # it may be awake just then, but not every time
        receiving = run_thread(consumer.recv)
        parks = consumer.stats()["parks"]
        until(lambda before=parks: consumer.stats()["parks"] > before)
        before = producer.stats()["wakes"]
        with producer.send_zero_copy(1) as tx, memoryview(tx) as view:
            view[0] = 7
        assert receiving.result().data == b"\7"
        if producer.stats()["wakes"] > before:
            return
    pytest.fail("it woke nobody")


def test_an_exception_gives_the_frame_back(pair):
    producer, consumer = pair(64)
    for i in range(10):
        with pytest.raises(ZeroDivisionError):
            with producer.send_zero_copy(48) as tx:
                with memoryview(tx) as view:
                    view[:] = b"\xff" * 48
                1 / 0
        assert consumer.try_recv() is None
        producer.send(b"%d" % i, timeout=0)  # there is room: it was given back
        assert consumer.recv().data == b"%d" % i
    assert consumer.try_recv() is None


def test_a_guard_that_is_dropped_without_a_block_gives_the_frame_back(pair):
    producer, consumer = pair(64)
    guard = producer.send_zero_copy(8)
    del guard
    producer.send(b"x", timeout=0)
    assert consumer.recv().data == b"x"


def test_a_claim_waits_for_room(pair, run_thread, until):
    producer, consumer = pair(64)
    producer.send(b"first")

    def claim():
        with producer.send_zero_copy(6) as tx, memoryview(tx) as view:
            view[:] = b"second"

    claiming = run_thread(claim)
    until(lambda: producer.stats()["parks"] > 0)
    assert consumer.recv().data == b"first"
    claiming.result()
    assert consumer.recv().data == b"second"


def test_a_claim_that_found_no_room_leaves_nothing_open(pair):
    producer, consumer = pair(64)
    producer.send(b"first")
    with pytest.raises(BusFullError, match="no room for 6 bytes"):
        producer.send_zero_copy(6, timeout=0.01)
    assert consumer.recv().data == b"first"
    assert consumer.try_recv() is None
    producer.send(b"second", timeout=0)


# ---- receiving -------------------------------------------------------------------------------------------------------


def test_a_received_frame_is_read_only(pair):
    producer, consumer = pair()
    producer.send(b"1234")
    with consumer.recv_zero_copy() as rx:
        assert type(rx) is RxGuard
        with memoryview(rx) as view:
            assert view.readonly
            assert (view.nbytes, view.format, view.ndim) == (4, "B", 1)
            with pytest.raises(TypeError):
                view[0] = 1
        with pytest.raises((BufferError, TypeError)):
            (ctypes.c_char * 4).from_buffer(rx)
        array = np.frombuffer(rx, dtype=np.uint8)
        assert not array.flags.writeable
        with pytest.raises(AttributeError):
            rx.actual_size = 1
        with pytest.raises(AttributeError):
            rx.type_id = 1
        del array


def test_leaving_the_block_frees_the_frame(pair):
    producer, consumer = pair(64)
    producer.send(b"first")
    with consumer.recv_zero_copy() as rx:
        assert bytes(rx) == b"first"
        assert not producer.try_send(b"second")
    assert producer.try_send(b"second")
    assert consumer.recv().data == b"second"


def test_a_frame_is_freed_by_an_exception_and_by_being_dropped(pair):
    producer, consumer = pair(64)
    producer.send(b"1")
    with pytest.raises(ZeroDivisionError), consumer.recv_zero_copy():
        1 / 0
    producer.send(b"2", timeout=0)
    guard = consumer.recv_zero_copy()
    assert bytes(guard) == b"2"
    del guard
    producer.send(b"3", timeout=0)
    assert consumer.recv().data == b"3"


def test_empty_messages_have_empty_buffers(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(0, 9) as tx:
        assert bytes(tx) == b""
    with consumer.recv_zero_copy() as rx:
        assert (bytes(rx), len(rx), rx.actual_size, rx.type_id) == (b"", 0, 0, 9)
