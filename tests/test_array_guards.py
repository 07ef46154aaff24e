"""ArrayGuard, and the arrays of other guards: what they tell, what they are to others, and when they are over."""

import gc

import numpy as np
import pytest
from test_array_views import NUMBERS, full

from tachyon import ArrayGuard, BusClosedError


@pytest.fixture
def one(pair):
    """A ring with room for one array, which is there."""
    producer, consumer = pair(128)
    producer.send_array(NUMBERS)
    return producer, consumer


def test_a_guard_tells_what_it_holds(one):
    producer, consumer = one
    guard = consumer.recv_array_zero_copy()
    assert (guard.shape, guard.dtype, guard.type_id, guard.correlation_id) == ((3, 4), np.dtype("f4"), 0, 0)
    assert repr(guard) == "<tachyon.ArrayGuard float32 (3, 4) open>"
    assert not guard.released
    guard.release()
    guard.release()
    assert guard.released
    assert "released" in repr(guard)
    for use in (guard.array, lambda: memoryview(guard), guard.__enter__, lambda: guard.__dlpack__(max_version=(1, 0))):
        with pytest.raises(BusClosedError, match="is over"):
            use()
    assert not full(producer)


def test_an_array_without_a_block_is_a_view_as_any(one):
    producer, consumer = one
    a = consumer.recv_zero_copy().array()  # nothing else keeps the guard
    assert a.tolist() == NUMBERS.tolist()
    assert full(producer)
    del a
    gc.collect()
    assert not full(producer)


def test_every_array_of_a_guard_goes_with_its_block(one):
    producer, consumer = one
    with consumer.recv_zero_copy() as rx:
        a, b = rx.array(), rx.array()
        assert (a == b).all()
    assert (a.size, b.size) == (0, 0)
    assert not full(producer)


@pytest.mark.parametrize("kept", [True, False])
def test_names_that_are_no_variables_do_not_pass_for_ones(one, kept):
    producer, consumer = one
    with pytest.raises(BufferError), consumer.recv_array_zero_copy() as a:
        names = locals()
        names["other"] = names["another"] = a  # as a debugger does
        if not kept:
            del names
        view = memoryview(a)
    assert full(producer)
    assert view.tolist() == NUMBERS.tolist()


def test_a_message_that_may_be_an_array_is_asked(one):
    producer, consumer = one
    with consumer.recv_zero_copy() as rx:
        a = rx.array()
        assert a.sum() == 66
    assert a.size == 0
    producer.send(b"no array")
    with consumer.recv_zero_copy() as rx:
        with pytest.raises(ValueError, match="8 bytes is no array"):
            rx.array()
        assert bytes(rx) == b"no array"


def test_a_guard_is_a_buffer_with_shape_and_format(one):
    producer, consumer = one
    guard = consumer.recv_array_zero_copy()
    with memoryview(guard) as view:
        assert (view.format, view.shape, view.strides, view.readonly) == ("f", (3, 4), (16, 4), True)
        assert view.tolist() == NUMBERS.tolist()
        assert bytes(guard) == NUMBERS.tobytes()
        with pytest.raises(BufferError, match=r"2 view\(s\)"):
            kept = np.asarray(guard)
            guard.release()
    assert kept.tolist() == NUMBERS.tolist()
    del kept
    assert not full(producer)


def test_a_guard_of_a_column_major_array_has_its_strides_and_no_other_form(pair):
    producer, consumer = pair(256)
    producer.send_array(np.asfortranarray(NUMBERS))
    with consumer.recv_array_zero_copy() as a:
        assert a.flags.f_contiguous
        assert a.strides == (4, 12)
    producer.send_array(np.asfortranarray(NUMBERS))
    guard = consumer.recv_array_zero_copy()
    with memoryview(guard) as view:
        assert view.strides == (4, 12)
        assert view.tolist() == NUMBERS.tolist()
    with pytest.raises(BufferError, match="not C-contiguous"):
        np.frombuffer(guard, "f4")
    guard.release()


def test_what_has_no_format_has_no_buffer_of_its_own(pair):
    producer, consumer = pair(1024)
    producer.send_array(np.zeros(3, "M8[s]"))
    guard = consumer.recv_array_zero_copy()
    with pytest.raises(BufferError, match="no format"):
        memoryview(guard)
    with guard as a:
        assert a.dtype == "M8[s]"
    producer.send_array(np.zeros(3, [("a", "i4"), ("b", "f8")]))
    guard = consumer.recv_array_zero_copy()
    with memoryview(guard) as view:
        assert view.format == "T{i:a:d:b:}" or "a" in view.format
    guard.release()


def test_a_guard_can_be_made_by_nobody_else_and_not_copied(one):
    import copy
    import pickle

    with pytest.raises(TypeError, match="made by the methods"):
        ArrayGuard()
    empty = ArrayGuard.__new__(ArrayGuard)
    with pytest.raises(BusClosedError):
        empty.array()
    with pytest.raises(BusClosedError):
        memoryview(empty)
    assert empty.released
    assert "released" in repr(empty)
    empty.release()
    guard = one[1].recv_array_zero_copy()
    for clone in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="window into shared memory"):
            clone(guard)


def test_a_guard_that_is_dropped_gives_the_frame_back(one):
    producer, consumer = one
    consumer.recv_array_zero_copy()
    assert not full(producer)
    consumer.recv()
    guard = producer.send_array_zero_copy(3, "u1")
    del guard
    producer.send(b"next")
