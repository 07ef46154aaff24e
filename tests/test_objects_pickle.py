"""Objects by pickle: only when asked for, with buffers that are copied once and lie on lines."""

import json
import os
import pickle

import pytest

import tachyon
from tachyon import BusFullError, Codec, CodecError, decode_obj, encode_obj

pytest.importorskip("msgspec")

JSON = (json.dumps, json.loads)


def test_arrays_are_pickled_into_the_ring_and_out_of_it(path, spawn):
    np = pytest.importorskip("numpy")
    child = spawn(
        """
        import numpy as np
        bus = tachyon.Bus.connect(path, timeout=60)
        for size in (0, 1, 1000, 100_000):
            a = np.arange(size, dtype=np.float64)
            f = np.asfortranarray(np.ones((3, size)))
            bus.send_obj({"a": a, "t": a[::-1].reshape(1, -1).T, "f": f}, allow_pickle=True)
            a[:] = -1  # what the receiver gets is not ours any more
        bus.close()
        """,
        path,
    )
    with tachyon.Bus.listen(path, 1 << 23, timeout=60) as bus:
        for size in (0, 1, 1000, 100_000):
            got = bus.recv_obj(allow_pickle=True, timeout=60)
            assert (got["a"] == np.arange(size)).all()
            assert (got["t"][:, 0] == np.arange(size)[::-1]).all()
            assert got["f"].flags.f_contiguous
            assert (got["f"] == 1).all()
            got["a"][...] = 7  # and ours to write to
        assert list(bus.objects(allow_pickle=True)) == []
    child.ends()


def test_a_pickle_with_buffers_waits_for_room_only_as_long_as_it_may(pair):
    producer, consumer = pair(1024)
    o = pickle.PickleBuffer(bytearray(500))
    assert producer.try_send_obj(o, allow_pickle=True) is True
    assert producer.try_send_obj(o, allow_pickle=True) is False
    with pytest.raises(BusFullError):
        producer.send_obj(o, allow_pickle=True, timeout=0.01)
    consumer.recv_obj(allow_pickle=True)
    producer.send_obj(o, allow_pickle=True, timeout=30)


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_is_unpickled_unless_the_receiver_asks_for_it(pair, tmp_path):
    producer, consumer = pair()
    folder = tmp_path / "sprung"
    for receive in (consumer.recv_obj, consumer.try_recv_obj, lambda: next(consumer.objects())):
        producer.send_obj(Trap(str(folder)), allow_pickle=True)
        with pytest.raises(CodecError, match="written with pickle, and codec 'msgpack' reads here.*allow_pickle=True"):
            receive()
    producer.send_obj(Trap(str(folder)), allow_pickle=True)
    with pytest.raises(CodecError, match="written with pickle"):
        consumer.recv_obj(codec=JSON)
    with pytest.raises(CodecError, match="written with pickle"):
        decode_obj(encode_obj(Trap(str(folder)), allow_pickle=True))
    assert not folder.exists()
    producer.send_obj(Trap(str(folder)), allow_pickle=True)
    consumer.recv_obj(allow_pickle=True)
    assert folder.exists()


def test_who_reads_pickles_reads_nothing_else(pair):
    producer, consumer = pair()
    producer.send_obj(1)
    with pytest.raises(CodecError, match="written by codec 'msgpack', and 'pickle' reads here"):
        consumer.recv_obj(allow_pickle=True)


def test_what_unpickling_raises_is_the_cause_and_the_stream_goes_on(pair):
    producer, consumer = pair()
    codec = Codec(lambda o: bytes(8) + o, bytes, name="pickle")
    producer.send_obj(b"\0" * 8 + b"no pickle", codec=codec)
    producer.send_obj(1, allow_pickle=True)
    with pytest.raises(CodecError) as caught:
        consumer.recv_obj(allow_pickle=True)
    assert caught.value.__cause__ is not None
    assert consumer.recv_obj(allow_pickle=True) == 1


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("size", [0, 1, 47, 48, 49, 63, 64, 65, 4096, 1 << 16, 1 << 17])
def test_buffers_lie_on_64_bytes_on_both_sides_and_keep_what_may_be_done_with_them(pair, size, readonly):
    np = pytest.importorskip("numpy")
    producer, consumer = pair(1 << 20)
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    buffers = [data.copy() for _ in range(3)]
    for each in buffers:
        each.flags.writeable = not readonly
    producer.send(b"x" * (size % 100))  # wherever the frame may lie
    consumer.recv()
    sent = ["head", *(pickle.PickleBuffer(each) for each in buffers)]
    producer.send_obj(sent, allow_pickle=True)
    with consumer.recv_zero_copy() as rx:
        raw = np.frombuffer(rx, np.uint8)
        at = [raw.ctypes.data + i for i in range(len(raw)) if bytes(raw[i : i + size]) == bytes(data)] if size else []
        assert sum(address % 64 == 0 for address in at) >= 3 * (size > 0)
        copy = raw.tobytes()
        del raw
    producer.send_obj(sent, allow_pickle=True)
    got = consumer.recv_obj(allow_pickle=True)
    assert got[0] == "head"
    for each in got[1:]:
        assert (each.readonly, bytes(each)) == (readonly, bytes(data))
        assert np.frombuffer(each, np.uint8).ctypes.data % 64 == 0 or size == 0
    for wrap in (bytes, bytearray):
        for each in decode_obj(wrap(copy), allow_pickle=True)[1:]:
            assert (each.readonly, bytes(each)) == (readonly, bytes(data))


def test_after_the_send_nothing_refers_to_the_senders_memory(pair):
    producer, consumer = pair(max_large=0)
    memory = bytearray(b"before" * 1000)
    owner = pickle.PickleBuffer(memory)
    producer.send_obj(owner, allow_pickle=True)
    encode_obj(owner, allow_pickle=True)
    memory[:] = b"after!" * 1000
    assert bytes(owner)[:6] == b"after!"  # which is the caller's, and still of use
    owner.release()
    memory.extend(b"x")  # a BufferError while there is a view of it
    assert bytes(consumer.recv_obj(allow_pickle=True)) == b"before" * 1000
    while producer.try_send_obj(pickle.PickleBuffer(bytearray(10_000)), allow_pickle=True):
        pass
    for full in (bytearray(10_000), bytearray(1 << 17)):  # no room now, and never
        with pytest.raises((BusFullError, tachyon.MessageTooLargeError)):
            producer.send_obj(pickle.PickleBuffer(full), allow_pickle=True, timeout=0)
        full.extend(b"x")


def test_an_object_larger_than_the_ring_arrives_too(pair):
    np = pytest.importorskip("numpy")
    producer, consumer = pair(4096)
    producer.send_obj(["x" * 100_000, b"y" * 100_000])
    assert consumer.recv_obj() == ["x" * 100_000, b"y" * 100_000]
    a = np.arange(100_000.0)
    assert producer.try_send_obj([a, a[1:]], allow_pickle=True)
    got = consumer.recv_obj(allow_pickle=True)
    assert (got[0] == a).all()
    assert (got[1] == a[1:]).all()
    assert got[0].ctypes.data % 64 == got[1].ctypes.data % 64 == 0


def test_what_is_between_the_buffers_is_zeros(pair):
    producer, consumer = pair(4096)
    for _ in range(8):
        producer.send(b"\xff" * 500)
        consumer.recv()
    producer.send_obj([pickle.PickleBuffer(b"\xee"), pickle.PickleBuffer(b"\xee")], allow_pickle=True)
    assert b"\xff" not in consumer.recv().data


def test_a_buffer_that_is_no_line_of_bytes_is_refused_and_the_bus_goes_on(pair):
    producer, consumer = pair()
    with pytest.raises((BufferError, pickle.PicklingError)):
        producer.send_obj(pickle.PickleBuffer(memoryview(bytearray(10))[::2]), allow_pickle=True)
    producer.send_obj(1)
    assert consumer.recv_obj() == 1
