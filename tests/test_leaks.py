"""Nothing is left behind: no descriptor, no mapping, no reference, no memory, no file."""

import ctypes
import gc
import os
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import open_pair

import tachyon
from tachyon import Bus


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:tachyon" in line for line in maps)


@pytest.fixture(autouse=True)
def nothing_left():
    gc.collect()
    before = descriptors(), mappings()
    yield
    gc.collect()
    assert (descriptors(), mappings()) == before


def test_an_open_bus_costs_few_descriptors_and_one_mapping(path):
    before, mapped = len(descriptors()), mappings()
    producer, consumer = open_pair(path)
    assert len(descriptors()) - before <= 4  # a socket and a pidfd each
    assert mappings() - mapped == 2
    producer.close()
    assert mappings() - mapped == 1
    consumer.close()
    assert mappings() - mapped == 0
    assert len(descriptors()) == before


@pytest.mark.parametrize("end", ["close", "with", "drop", "peer first", "never used"])
def test_nothing_is_left_of_a_bus(path, end):
    for _ in range(5):
        producer, consumer = open_pair(path)
        if end != "never used":
            producer.send(b"x")
            consumer.recv()
        if end == "close":
            producer.close()
            consumer.close()
        elif end == "with":
            with producer, consumer:
                pass
        elif end == "peer first":
            producer.close()
            with pytest.raises(tachyon.PeerClosedError):
                consumer.recv()
        del producer, consumer
    assert os.listdir(os.path.dirname(path)) == []


def test_nothing_is_left_of_a_bus_that_fails_to_open(path, tmp_path):
    (tmp_path / "file").touch()
    for _ in range(5):
        for call in (
            lambda: Bus.listen(path, 4096, timeout=0),
            lambda: Bus.listen(path, 3),
            lambda: Bus.listen(tmp_path / "file", 4096),
            lambda: Bus.listen("x" * 200, 4096),
            lambda: Bus.connect(path),
            lambda: Bus.connect(path, timeout=0.001),
            lambda: Bus.connect(tmp_path / "file"),
        ):
            with pytest.raises(tachyon.TachyonError):
                call()


def test_nothing_is_left_of_a_bus_whose_view_outlived_it(path):
    producer, consumer = open_pair(path)
    producer.send(b"x")
    views = [memoryview(consumer.recv_zero_copy()), memoryview(producer.send_zero_copy(4))]
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1):
        views.append(np.from_dlpack(views[0].obj))
    producer.close()
    consumer.close()
    del producer, consumer
    views.clear()


def uses(producer, consumer):
    def zero_copy():
        with producer.send_zero_copy(8) as tx, memoryview(tx) as view:
            view[:] = b"12345678"
        with consumer.recv_zero_copy() as rx, memoryview(rx) as view:
            bytes(view)

    def arrays():
        with producer.send_zero_copy(8) as tx:
            array = np.frombuffer(tx, dtype=np.uint8)
            array[:] = 7
            del array
        with consumer.recv_zero_copy() as rx:
            np.frombuffer(rx, dtype=np.uint8).sum()

    def tensors():
        with producer.send_zero_copy(8) as tx:
            tx.__dlpack__()
            tx.__dlpack__(max_version=(1, 0))
        with consumer.recv_zero_copy() as rx:
            rx.__dlpack__(max_version=(1, 0))

    def batches():
        producer.send_many([b"a", (b"b", 2), memoryview(b"c_")[::2]])
        with consumer.drain_batch() as batch:
            for view in batch:
                bytes(view)
            list(reversed(batch))
            batch[0:2]

    def copies():
        producer.send(bytearray(b"abc"))
        consumer.recv()
        producer.send(b"abc")
        consumer.recv_into(bytearray(8))
        producer.try_send(b"abc")
        consumer.try_recv()
        producer.send(b"abc")
        next(consumer)

    def refusals():
        for call in (
            lambda: producer.send("text"),
            lambda: producer.send(b"x", 2**32),
            lambda: producer.send(bytes(1 << 18)),
            lambda: producer.send_zero_copy(-1),
            lambda: consumer.recv(timeout=0),
            lambda: consumer.recv_into(bytearray(1), timeout=0),
            lambda: consumer.recv_into(b"", timeout=0),
            lambda: consumer.send(b"x"),
            lambda: consumer.recv_zero_copy(timeout=0),
            lambda: consumer.drain_batch(timeout=0),
        ):
            try:
                call()
            except Exception as error:
                error.__traceback__ = None

    def late_views():
        producer.send(b"1234")
        try:
            with consumer.recv_zero_copy() as rx:
                view = memoryview(rx)
        except BufferError:
            view.release()
        try:
            with producer.send_zero_copy(8) as tx:
                view = memoryview(tx)
        except BufferError:
            view.release()

    def refused_views():
        producer.send(b"1234")
        with consumer.recv_zero_copy() as rx:
            for _ in range(3):
                try:
                    ctypes.c_char.from_buffer(rx)
                except (TypeError, BufferError) as error:
                    error.__traceback__ = None
        try:
            memoryview(rx)
        except tachyon.BusClosedError as error:
            error.__traceback__ = None

    def beyond_the_ring():
        data = bytes(1 << 16)
        producer.send(data)
        consumer.recv()
        producer.send_many([data, (memoryview(data * 2)[::2], 7)])
        with consumer.drain_batch() as batch:
            [bytes(view[:1]) for view in map(memoryview, batch)]
        with producer.send_zero_copy(len(data)) as tx, memoryview(tx) as view:
            view[0] = 1
        with consumer.recv_zero_copy() as rx:
            np.frombuffer(rx, dtype=np.uint8).max()
        try:
            with producer.send_zero_copy(len(data)):
                raise LookupError
        except LookupError as error:
            error.__traceback__ = None
        assert len(descriptors()) == there

    there = len(descriptors())
    return [zero_copy, arrays, tensors, batches, copies, refusals, late_views, refused_views, beyond_the_ring]


@pytest.mark.parametrize("number", range(9))
def test_no_reference_is_kept_and_no_memory_grows(path, number):
    producer, consumer = open_pair(path, max_large=1 << 17)
    producer.send(b"first")
    consumer.recv()
    use = uses(producer, consumer)[number]
    for _ in range(50):
        use()
    gc.collect()
    references = sys.getrefcount(producer), sys.getrefcount(consumer), sys.getrefcount(None)
    tracemalloc.start()
    try:
        for _ in range(50):
            use()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            use()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # 20 bytes per use would be more
    after = sys.getrefcount(producer), sys.getrefcount(consumer), sys.getrefcount(None)
    assert after[:2] == references[:2]
    assert abs(after[2] - references[2]) < 500
    producer.close()
    consumer.close()


def test_the_references_to_what_is_sent_are_given_back(pair):
    producer, consumer = pair(1 << 20)
    data = b"some bytes that are long enough not to be shared"
    kind = 123456789
    path = str(data)
    before = [sys.getrefcount(each) for each in (data, kind, path)]
    for _ in range(100):
        producer.send(data, kind)
        producer.try_send(data, kind)
        producer.send_many([data, (data, kind)], kind)
        producer.send(memoryview(data), kind)
    while consumer.try_recv() is not None:
        pass
    assert [sys.getrefcount(each) for each in (data, kind, path)] == before
    producer.close()
    consumer.close()


def test_a_message_lets_its_data_go(pair):
    producer, consumer = pair()
    producer.send(b"some bytes that are long enough not to be shared")
    message = consumer.recv()
    data = message.data
    assert sys.getrefcount(data) <= 4
    before = sys.getrefcount(data)
    del message
    assert sys.getrefcount(data) == before - 1
    producer.close()
    consumer.close()
