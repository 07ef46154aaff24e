"""DLPack: the bytes of a guard as a tensor, read-only where they are."""

import gc

import numpy as np
import pytest

from tachyon import BusClosedError

NEW_NUMPY = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)
needs_new_numpy = pytest.mark.skipif(not NEW_NUMPY, reason="this numpy does not know read-only tensors")


@pytest.fixture
def received(pair):
    producer, consumer = pair()
    producer.send(b"1234")
    return consumer.recv_zero_copy()


def test_the_device_is_the_cpu(pair, received):
    assert received.__dlpack_device__() == (1, 0)
    producer, consumer = pair()
    producer.send(b"x")
    with consumer.drain_batch() as batch:
        assert batch[0].__dlpack_device__() == (1, 0)


@needs_new_numpy
def test_numpy_takes_a_received_frame_read_only(received):
    with received:
        array = np.from_dlpack(received)
        assert (array.dtype, array.shape, array.tobytes()) == (np.uint8, (4,), b"1234")
        assert not array.flags.writeable
        del array


@needs_new_numpy
def test_numpy_takes_a_view_of_a_batch_read_only(pair):
    producer, consumer = pair()
    producer.send_many([b"12", b"345"])
    with consumer.drain_batch() as batch:
        arrays = [np.from_dlpack(view) for view in batch]
        assert [array.tobytes() for array in arrays] == [b"12", b"345"]
        assert not any(array.flags.writeable for array in arrays)
        arrays.clear()


def test_numpy_writes_into_a_claim(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(4) as tx:
        array = np.from_dlpack(tx)
        if NEW_NUMPY:
            assert array.flags.writeable
            array[:] = [1, 2, 3, 4]
        del array
    assert consumer.recv().size == 4


@needs_new_numpy
def test_it_is_the_same_memory(pair):
    producer, consumer = pair()
    with producer.send_zero_copy(4) as tx:
        array, view = np.from_dlpack(tx), np.frombuffer(tx, dtype=np.uint8)
        assert np.shares_memory(array, view)
        array[:] = [5, 6, 7, 8]
        del array, view
    assert consumer.recv().data == b"\5\6\7\10"


@pytest.mark.parametrize(
    "version, name", [((1, 0), "dltensor_versioned"), ((1, 5), "dltensor_versioned"), ((2, 0), "dltensor_versioned")]
)
def test_a_consumer_of_version_1_gets_the_versioned_form(received, version, name):
    with received:
        capsule = received.__dlpack__(max_version=version)
        assert f'"{name}"' in repr(capsule)
        del capsule


@pytest.mark.parametrize("version", [None, (0, 8)])
def test_a_claim_has_the_old_form_too(pair, version):
    producer, _ = pair()
    with producer.send_zero_copy(4) as tx:
        capsule = tx.__dlpack__(max_version=version)
        assert '"dltensor"' in repr(capsule)
        del capsule


@pytest.mark.parametrize("version", [None, (0, 8)])
def test_a_received_frame_has_no_old_form_which_could_not_say_read_only(received, version):
    with received, pytest.raises(BufferError, match="read-only"):
        received.__dlpack__(max_version=version)


@pytest.mark.parametrize(
    "options, text",
    [({"stream": 1}, "stream=None"), ({"dl_device": (2, 0)}, r"\(2, 0\)"), ({"copy": True}, "no copy")],
)
def test_what_cannot_be_done_is_a_buffer_error(received, options, text):
    with received, pytest.raises(BufferError, match=text):
        received.__dlpack__(max_version=(1, 0), **options)


def test_what_can_be_done_is_done(received):
    with received:
        received.__dlpack__(max_version=(1, 0), stream=None, dl_device=(1, 0), copy=False)


def test_a_capsule_that_nobody_took_is_a_view_until_it_is_dropped(received, pair):
    with pytest.raises(BufferError, match=r"1 view\(s\)"):
        with received:
            capsule = received.__dlpack__(max_version=(1, 0))
    del capsule
    gc.collect()


def test_a_guard_that_is_over_gives_no_tensor(received):
    with received:
        pass
    with pytest.raises(BusClosedError):
        received.__dlpack__(max_version=(1, 0))


@needs_new_numpy
def test_a_tensor_keeps_guard_bus_and_memory(pair):
    producer, consumer = pair()
    producer.send(b"kept")
    rx = consumer.recv_zero_copy()
    array = np.from_dlpack(rx)
    producer.close()
    consumer.close()
    del rx, producer, consumer
    gc.collect()
    assert array.tobytes() == b"kept"
