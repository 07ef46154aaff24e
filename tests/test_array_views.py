"""An array in place goes with its block; what else of it is alive then holds the frame, and is a BufferError."""

import contextlib
import gc

import numpy as np
import pytest

from tachyon import as_array

NUMBERS = np.arange(12, dtype="f4").reshape(3, 4)


@pytest.fixture
def one(pair):
    """A ring with room for one array, which is there."""
    producer, consumer = pair(128)
    producer.send_array(NUMBERS)
    return producer, consumer


def full(producer):
    return not producer.try_send(bytes(100))


def test_the_block_gets_an_array_and_the_array_goes_with_the_block(one):
    producer, consumer = one
    with consumer.recv_array_zero_copy() as a:
        assert type(a) is np.ndarray
        assert a.sum() == 66
        with pytest.raises(ValueError, match="read-only"):
            a[0, 0] = 1
    assert not full(producer)
    assert consumer.recv().size == 100
    assert "the block of this array has been left" in repr(a)
    assert a.size == 0
    with pytest.raises(TypeError):
        a.sum()
    with pytest.raises(TypeError):
        a + 1
    with pytest.raises(IndexError):
        a[0]


def test_many_blocks_after_each_other_need_no_del(pair):
    producer, consumer = pair(256)
    for i in range(50):
        with producer.send_array_zero_copy((3, 4), "f4") as a:
            a[:] = i
        with consumer.recv_array_zero_copy(timeout=30) as a:
            assert (a == i).all()


def test_a_block_at_the_top_of_a_module_or_class_needs_no_del(one):
    producer, consumer = one
    space = {"consumer": consumer}
    exec("with consumer.recv_array_zero_copy() as a:\n    total = a.sum()", space)
    assert space["total"] == 66
    assert space["a"].size == 0
    producer.send_array(NUMBERS)

    class Body:
        with consumer.recv_array_zero_copy() as a:
            total = a.sum()

    assert Body.total == 66
    assert Body.a.size == 0
    assert not full(producer)


def test_a_block_in_a_closure_or_a_generator_needs_no_del(one):
    producer, consumer = one

    def closure():
        with consumer.recv_array_zero_copy() as a:
            look = lambda: a.size  # noqa: E731
            assert look() == 12
        return look

    assert closure()() == 0

    def generator():
        with consumer.recv_array_zero_copy() as a:
            yield a.sum()

    producer.send_array(NUMBERS)
    assert list(generator()) == [66]
    assert not full(producer)


def test_a_loop_over_a_generator_needs_no_del(pair):
    producer, consumer = pair(256)

    def arrays():
        for _ in range(20):
            with consumer.recv_array_zero_copy(timeout=30) as a:
                yield a

    @contextlib.contextmanager
    def received():
        with consumer.recv_array_zero_copy(timeout=30) as a:
            yield a

    numbers = np.arange(3)  # of which two fit
    producer.send_array(numbers)
    left = 19
    for a in arrays():
        assert a.tolist() == [0, 1, 2]
        if left:
            left -= 1
            producer.send_array(numbers, timeout=30)
    assert a.size == 0
    producer.send_array(NUMBERS)
    with received() as a:
        assert a.sum() == 66
    assert a.size == 0
    producer.send_array(NUMBERS)
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(consumer.recv_array_zero_copy())
        assert a.sum() == 66
    assert a.size == 0


def test_a_variable_of_two_functions_counts_once(one):
    """Or a view that took the array's place in one of them would be missed."""
    producer, consumer = one
    a = kept = None

    def inner():
        nonlocal a, kept
        with consumer.recv_array_zero_copy() as a:
            kept = memoryview(a)

    with pytest.raises(BufferError):
        inner()
    assert kept.tolist() == NUMBERS.tolist()
    a = None
    assert full(producer)
    kept.release()
    assert not full(producer)


def test_a_variable_of_two_frames_of_one_module_counts_once(one):
    producer, consumer = one
    space = {"consumer": consumer}
    inner = "with consumer.recv_array_zero_copy() as a:\n    kept = [a]\n"
    space["inner"] = inner
    with pytest.raises(BufferError):
        exec("exec(inner, globals())", space)
    assert space["a"].tolist() == NUMBERS.tolist()
    assert full(producer)
    space.clear()
    assert not full(producer)


KEEPERS = {
    "slice": lambda a: a[1:],
    "transpose": lambda a: a.T,
    "view": lambda a: a.view("i4"),
    "reshape": lambda a: a.reshape(-1),
    "subclass": lambda a: a.view(np.recarray),
    "memoryview": memoryview,
    "in a list": lambda a: [a],
    "iterator": lambda a: a.flat,
    "method": lambda a: a.sum,
    "buffer": lambda a: np.frombuffer(a, "u1"),
    "dlpack": lambda a: a.__dlpack__(max_version=(1, 0)),
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
@pytest.mark.parametrize("forget", [False, True])
def test_what_else_is_alive_of_it_holds_the_frame(one, keep, forget):
    if keep is KEEPERS["dlpack"] and tuple(map(int, np.__version__.split(".")[:2])) < (2, 1):
        pytest.skip("this numpy does not know read-only tensors")
    producer, consumer = one
    with pytest.raises(BufferError, match=r"1 view\(s\) of this RxGuard outlive its block"):
        with consumer.recv_array_zero_copy() as a:
            kept = keep(a)
            if forget:  # the one that is left refers to the array as a variable would
                a = None
    assert full(producer)
    assert consumer.try_recv() is None
    a = None
    assert full(producer)
    del kept
    gc.collect()
    assert not full(producer)


def test_the_name_of_the_array_may_become_that_of_what_was_made_of_it(one):
    """Then the one reference that is left is not the caller's variable."""
    producer, consumer = one
    with pytest.raises(BufferError):
        with consumer.recv_array_zero_copy() as a:
            a = memoryview(a)
    assert a.tolist() == NUMBERS.tolist()
    assert full(producer)
    assert a.tolist() == NUMBERS.tolist()
    a.release()
    assert not full(producer)


def test_an_attribute_is_no_variable_of_the_block(one):
    producer, consumer = one

    class Owner:
        pass

    owner = Owner()
    with pytest.raises(BufferError):
        with consumer.recv_array_zero_copy() as owner.array:
            pass
    assert owner.array.tolist() == NUMBERS.tolist()
    del owner.array
    assert not full(producer)


def test_a_dict_of_the_variables_is_left_alone(one):
    producer, consumer = one
    with consumer.recv_array_zero_copy() as a:
        variables = locals()
        assert a.size == 12
    assert variables["producer"] is producer
    assert a.size == 0
    assert not full(producer)


def test_an_exception_in_the_block_is_the_one_that_is_seen(one):
    producer, consumer = one
    with pytest.raises(ZeroDivisionError):
        with consumer.recv_array_zero_copy() as a:
            kept = a[1:]
            1 / 0
    assert full(producer)
    del kept
    a = None
    assert not full(producer)


def test_copies_and_scalars_do_not_hold_it(one):
    producer, consumer = one
    with consumer.recv_array_zero_copy() as a:
        copy, number, total = a.copy(), a[1, 2], a + 1
    assert not full(producer)
    assert (copy == NUMBERS).all()
    assert number == 6
    assert (total == NUMBERS + 1).all()


def test_a_record_of_a_structured_array_holds_it(pair):
    producer, consumer = pair(1024)
    producer.send_array(np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]))
    with pytest.raises(BufferError):
        with consumer.recv_array_zero_copy() as a:
            record = a[0]
    assert record["b"] == 2.0
    del record, a
    producer.send(bytes(100))


# ---- of a claim ------------------------------------------------------------------------------------------------------


def test_a_claim_is_sent_when_its_block_is_left_and_cannot_be_written_to_any_more(pair):
    producer, consumer = pair(256)
    with producer.send_array_zero_copy((2, 3), "f4", 5) as a:
        assert a.flags.writeable
        a[:] = 7
    assert a.size == 0
    message = consumer.recv()
    assert message.type_id == 5
    assert as_array(message.data).tolist() == [[7] * 3] * 2


def test_a_view_of_a_claim_holds_it_and_then_it_is_given_back_unsent(pair):
    producer, consumer = pair(256)
    with pytest.raises(BufferError, match="given back unsent"):
        with producer.send_array_zero_copy((2, 3), "f4") as a:
            row = a[0]
    row[:] = 1
    assert consumer.try_recv() is None
    del row, a
    producer.send(b"next")
    assert consumer.recv().data == b"next"


def test_an_exception_gives_the_room_back(pair):
    producer, consumer = pair(256)
    with contextlib.suppress(ZeroDivisionError):
        with producer.send_array_zero_copy((2, 3), "f4") as a:
            a[:] = 1 / 0
    producer.send(b"next")
    assert consumer.recv().data == b"next"
