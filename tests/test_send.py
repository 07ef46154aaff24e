"""Sending: what can be sent, as which type, and who may."""

import array
import ctypes
import itertools
import mmap

import numpy as np
import pytest

import tachyon
from tachyon import BusBusyError, BusFullError, Message

WIDE = np.arange(24, dtype=np.float64)

BUFFERS = {
    "bytes": b"hello",
    "bytearray": bytearray(b"hello"),
    "memoryview": memoryview(b"hello"),
    "empty bytes": b"",
    "empty bytearray": bytearray(),
    "empty view": memoryview(b"hello")[2:2],
    "empty array": np.empty(0),
    "array of int": array.array("i", [1, -2, 3]),
    "array of double": array.array("d", [1.5, 2.5]),
    "ctypes": (ctypes.c_uint16 * 3)(1, 2, 3),
    "every second byte": memoryview(b"abcdefgh")[::2],
    "backwards": memoryview(b"abcdefgh")[::-1],
    "no second byte": memoryview(b"abcdefgh")[8::2],
    "numpy": WIDE,
    "numpy every third": WIDE[::3],
    "numpy backwards": WIDE[::-1],
    "numpy 2-d": WIDE.reshape(4, 6),
    "numpy F-order": np.asfortranarray(WIDE.reshape(4, 6)),
    "numpy transposed": WIDE.reshape(2, 3, 4).transpose(2, 0, 1),
    "numpy column": WIDE.reshape(4, 6)[:, 2],
    "numpy corner": WIDE.reshape(4, 6)[1:3, 2:5],
    "numpy broadcast": np.broadcast_to(np.float32(1.5), (3, 2)),
    "numpy scalar": np.array(2.5),
    "numpy read-only": np.frombuffer(b"12345678", dtype=np.int32),
    "numpy structured": np.array([(1, 2.0)], dtype=[("a", "<i2"), ("b", "<f8")]),
    "numpy bool": np.array([True, False]),
    "multi-dimensional view": memoryview(bytes(range(24))).cast("B", (2, 3, 4)),
}


def plain(data):
    """Its bytes in C order."""
    return data.tobytes() if hasattr(data, "tobytes") else bytes(data)


@pytest.mark.parametrize("name", BUFFERS)
def test_any_buffer_arrives_by_its_bytes(pair, name):
    producer, consumer = pair()
    data = BUFFERS[name]
    expected = plain(data)
    for _ in range(3):
        assert producer.send(data, 7) is None
        assert producer.try_send(data, 8) is True
        assert producer.send_many([data, (data, 9)]) == 2
        for kind in (7, 8, 0, 9):
            assert consumer.recv() == Message(kind, len(expected), expected)


@pytest.mark.parametrize(
    "size", [*range(70), 127, 128, 129, 2047, 2048, 2049, 65519, 65520, 65521, 65535, 65536, 65537, 1 << 19]
)
def test_every_size_arrives_whole(pair, size):
    producer, consumer = pair(1 << 21)
    payload = bytes(i * 7 % 251 for i in range(size))
    strided = memoryview(bytes(b for byte in payload for b in (byte, 0)))[::2]
    producer.send(payload)
    producer.send(bytearray(payload))
    producer.send(strided)
    for _ in range(3):
        assert consumer.recv() == Message(0, size, payload)


def test_an_mmap_can_be_sent(pair):
    producer, consumer = pair()
    with mmap.mmap(-1, 4096) as memory:
        memory[:5] = b"hello"
        producer.send(memory)
    assert consumer.recv().data == b"hello".ljust(4096, b"\0")


def test_the_buffer_is_free_again_after_the_send(pair):
    producer, consumer = pair()
    data = bytearray(b"hello")
    producer.send(data)
    producer.send(memoryview(data)[::2])
    data.clear()  # BufferError while anybody holds it
    assert [consumer.recv().data, consumer.recv().data] == [b"hello", b"hlo"]


def test_the_buffer_is_free_again_after_a_refusal(pair):
    producer, _ = pair(64, max_large=0)
    producer.send(b"x")
    data = bytearray(b"hello")
    with pytest.raises(BusFullError):
        producer.send(data, timeout=0)
    with pytest.raises(BusFullError):
        producer.send(memoryview(data)[::2], timeout=0)
    assert not producer.try_send(data)
    with pytest.raises(tachyon.MessageTooLargeError):
        producer.send(memoryview(data * 100))
    data.clear()


@pytest.mark.parametrize("send", ["send", "try_send", "send_many"])
@pytest.mark.parametrize("bad", ["text", None, 7, 1.5, ["x"], object()], ids=lambda each: type(each).__name__)
def test_what_is_no_buffer_is_a_type_error_that_names_it(pair, send, bad):
    producer, consumer = pair()
    with pytest.raises(TypeError, match=type(bad).__name__):
        getattr(producer, send)([bad] if send == "send_many" else bad)
    producer.send(b"fine")
    assert consumer.recv().data == b"fine"


@pytest.mark.parametrize("send", ["send", "try_send"])
def test_str_is_told_to_be_encoded(pair, send):
    producer, _ = pair()
    with pytest.raises(TypeError, match=r"not str; encode it first: text\.encode\(\)"):
        getattr(producer, send)("text")


@pytest.mark.parametrize("send", ["send", "try_send", "send_many", "send_zero_copy"])
def test_the_payload_is_needed(pair, send):
    producer, _ = pair()
    with pytest.raises(TypeError):
        getattr(producer, send)()


def test_a_released_view_is_refused(pair):
    producer, _ = pair()
    view = memoryview(b"x")
    view.release()
    with pytest.raises(ValueError):
        producer.send(view)


# ---- type_id ---------------------------------------------------------------------------------------------------------


def senders(bus):
    return {
        "send": lambda kind: bus.send(b"x", kind),
        "send by name": lambda kind: bus.send(b"x", type_id=kind),
        "try_send": lambda kind: bus.try_send(b"x", kind),
        "send_many": lambda kind: bus.send_many([b"x"], kind),
        "pair": lambda kind: bus.send_many([(b"x", kind)]),
        "send_zero_copy": lambda kind: bus.send_zero_copy(1, kind),
    }


SENDERS = pytest.mark.parametrize("sender", senders(None))


@SENDERS
@pytest.mark.parametrize("kind", [0, 1, 2**16, 2**31, 2**32 - 1, True, np.uint32(7)])
def test_every_type_id_arrives(pair, sender, kind):
    producer, consumer = pair()
    guard = senders(producer)[sender](kind)
    if sender == "send_zero_copy":
        with guard:
            pass
    assert consumer.recv().type_id == int(kind)


@SENDERS
@pytest.mark.parametrize("bad", [-1, 2**32, 2**32 + 1, 2**63, 2**64, -(2**63), 2**100])
def test_a_type_id_out_of_range_is_refused_never_truncated(pair, sender, bad):
    producer, consumer = pair()
    with pytest.raises(OverflowError, match=f"type_id must be between 0 and {2**32 - 1}, not {bad}"):
        senders(producer)[sender](bad)
    assert consumer.try_recv() is None
    producer.send(b"fine")
    assert consumer.recv() == Message(0, 4, b"fine")


@SENDERS
@pytest.mark.parametrize("bad", ["1", 1.0, None, b"1"])
def test_a_type_id_of_the_wrong_type_is_refused(pair, sender, bad):
    producer, consumer = pair()
    with pytest.raises(TypeError):
        senders(producer)[sender](bad)
    assert consumer.try_recv() is None


# ---- full ------------------------------------------------------------------------------------------------------------


def test_try_send_says_false_when_the_ring_is_full(pair):
    producer, consumer = pair(4096)
    count = sum(1 for _ in itertools.takewhile(lambda _: producer.try_send(b"x"), itertools.count()))
    assert count == 4096 // 64
    assert producer.try_send(memoryview(b"abcd")[::2]) is False
    for _ in range(count):
        assert consumer.recv().data == b"x"
    assert consumer.try_recv() is None
    assert producer.try_send(b"x") is True


def test_send_waits_for_room(pair, run_thread, until):
    producer, consumer = pair(64)
    producer.send(b"first")
    sending = run_thread(producer.send, b"second")
    until(lambda: producer.stats()["parks"] > 2)  # for longer than one sleep
    assert not sending.done()
    assert consumer.recv().data == b"first"
    sending.result()
    assert consumer.recv().data == b"second"


@pytest.mark.parametrize("data", [memoryview(bytes(range(200)))[::2], bytes(100_000)], ids=["strided", "large"])
def test_a_strided_or_large_buffer_waits_for_room_too(pair, run_thread, until, data):
    producer, consumer = pair(1 << 18)
    while producer.try_send(b""):
        pass
    sending = run_thread(producer.send, data, 7)
    until(lambda: producer.stats()["parks"] > 0)
    assert not sending.done()
    while (message := consumer.recv()).type_id == 0:
        pass
    sending.result()
    assert message == Message(7, len(bytes(data)), bytes(data))


# ---- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["listener", "connector"])
def test_the_first_send_decides_the_direction(pair, first):
    connector, listener = pair()
    producer, consumer = (connector, listener) if first == "connector" else (listener, connector)
    producer.send(b"mine")
    for call in (
        lambda: consumer.send(b"x"),
        lambda: consumer.try_send(b"x"),
        lambda: consumer.send_many([b"x"]),
        lambda: consumer.send_zero_copy(1),
        lambda: producer.recv(timeout=0),
        lambda: producer.try_recv(),
        lambda: producer.recv_into(bytearray(1), timeout=0),
        lambda: producer.recv_zero_copy(timeout=0),
        lambda: producer.drain_batch(timeout=0),
        lambda: next(producer),
    ):
        with pytest.raises(BusBusyError, match="open a second bus for the way back"):
            call()
    assert consumer.recv().data == b"mine"
    assert consumer.try_recv() is None
    assert (producer.stats()["role"], consumer.stats()["role"]) == ("producer", "consumer")


def test_a_receiver_that_waits_does_not_decide(pair):
    connector, listener = pair()
    for bus in (connector, listener):
        assert bus.try_recv() is None
        with pytest.raises(tachyon.BusEmptyError):
            bus.recv(timeout=0.01)
    listener.send(b"x")
    assert connector.recv().data == b"x"


def test_an_aborted_claim_has_decided(pair):
    connector, listener = pair()
    with pytest.raises(KeyError), listener.send_zero_copy(8):
        raise KeyError
    with pytest.raises(BusBusyError):
        connector.send(b"x")
    listener.send(b"x")
    assert connector.recv().data == b"x"


def test_when_two_processes_send_first_one_is_refused(path, spawn, run_thread):
    code = """
        bus = tachyon.Bus.{}
        hear()
        try:
            bus.send(b"mine"); say("sent")
        except tachyon.BusBusyError:
            say("refused", bus.recv(timeout=30).data.decode())
        hear()
    """
    for _ in range(10):
        children = [
            spawn(code.format(f"{call}"), path)
            for call in ("listen(path, 4096, timeout=60)", "connect(path, timeout=60)")
        ]
        for child in children:
            child.tell("go")
        assert sorted(child.line() for child in children) == ["refused mine", "sent"]
        for child in children:
            child.tell("end")
            child.ends()
