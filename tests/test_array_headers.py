"""What a peer puts before an array's data: a clear error, the message is not lost, and the next one comes."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_corrupt_peer import overwrite

from tachyon import ArrayError, ArrayPayload, Message, RpcError, as_array

GOOD = bytes(ArrayPayload(np.arange(6, dtype="f4").reshape(2, 3)))
DESCRIBED = bytes(ArrayPayload(np.zeros(2, [("a", "i4"), ("b", "M8[s]")])))


def described(text, item_bytes=4, items=1):
    """An array whose items are described so."""
    lines = 1 + -(-len(text) // 64)
    head = struct.pack("<IBBBBHHHH4q", *struct.unpack_from("<IB", GOOD), 1, 255, 0, 1, 0, lines, 0, items, 0, 0, 0)
    more = struct.pack("<4qQI20x", 0, 0, 0, 0, item_bytes, len(text))
    return head + more + text.ljust((lines - 1) * 64, b"\0") + bytes(item_bytes * items)


def changed(message, offset, value):
    return message[:offset] + bytes([value]) + message[offset + 1 :]


BAD = {
    "nothing": b"",
    "bytes": b"hello",
    "zeros": bytes(48),
    "another version": changed(GOOD, 4, 2),
    "nine dimensions": changed(GOOD, 5, 9),
    "a pointer": changed(GOOD, 6, 3),
    "too short": GOOD[:-1],
    "too long": GOOD + b"\0",
    "too many items": changed(GOOD, 16, 200),
    "a negative dimension": changed(GOOD, 23, 0xFF),
    "more lines than there are": changed(DESCRIBED, 13, 0xFF),
    "a text that is no JSON": described(b"<f4"),
    "a text that is not ASCII": described(b'"\xff\xfe"'),
    "objects": described(b'"|O"', 8),
    "objects as NumPy calls them": described(b'"|O8"', 8),
    "objects in a structure": described(b'{"names":["a"],"formats":["|O"],"offsets":[0],"itemsize":8}', 8),
    "another size": described(b'"<f8"', 4),
    "a subarray": described(b'["<f4",[1]]', 4),
    "a type that is none": described(b'"<f5"', 5),
    "a code of NumPy's for several": described(b'"i2,i2"'),
    "fields beyond the item": described(b'{"names":["a"],"formats":["<f4"],"offsets":[8],"itemsize":4}'),
    "a negative offset": described(b'{"names":["a"],"formats":["<f4"],"offsets":[-4],"itemsize":4}'),
    "an offset that is no number": described(b'{"names":["a"],"formats":["<f4"],"offsets":[true],"itemsize":4}'),
    "names twice": described(b'{"names":["a","a"],"formats":["<i2","<i2"],"offsets":[0,2],"itemsize":4}'),
    "names that are none": described(b'{"names":[1],"formats":["<f4"],"offsets":[0],"itemsize":4}'),
    "no fields": described(b"{}"),
    "null": described(b"null"),
    "a number": described(b"4"),
    "a huge subarray": described(
        b'{"names":["a"],"formats":[["<f4",[2147483647,2147483647]]],"offsets":[0],"itemsize":4}'
    ),
    "lists without end": described(b"[" * 20000),
    "lists within each other": described(b"[" * 40 + b'"<f4"' + b",[1]]" * 40),
    "a structure of an unknown library": described(b'"ml_dtypes.bfloat16"', 2),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_a_message_that_is_no_array_is_an_error_that_holds_it(pair, message):
    producer, consumer = pair(1 << 17)
    for receive in (
        lambda: consumer.recv_array(timeout=30),
        consumer.try_recv_array,
        lambda: consumer.recv_array(np.zeros((2, 3), "f4"), timeout=30),
        lambda: consumer.recv_array_zero_copy(timeout=30),
    ):
        producer.send(message, 7)
        with pytest.raises(ArrayError, match="array|type") as caught:
            receive()
        assert caught.value.message == Message(7, len(message), message)
        assert isinstance(caught.value, ValueError)
        producer.send_array(np.arange(3))  # it is out of the way
        assert consumer.recv_array(timeout=30).tolist() == [0, 1, 2]
    with pytest.raises(ArrayError) as caught:
        as_array(message)
    assert caught.value.message is None


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_a_reply_that_is_no_array_is_an_error_that_holds_it(rpc, message):
    caller, callee = rpc(1 << 17, 1 << 17)
    cid = caller.call_array(np.arange(3), 1)
    with callee.serve(timeout=30) as call:
        assert call.array().tolist() == [0, 1, 2]
    callee.reply(cid, message, 9)
    with pytest.raises(ArrayError) as caught:
        caller.wait_array(cid, timeout=30)
    assert caught.value.message == Message(9, len(message), message)
    with pytest.raises(ValueError, match="answered already"):
        caller.wait_array(cid, timeout=30)


@pytest.mark.parametrize(
    "out", [np.zeros((3, 2), "f4"), np.zeros(6, "f4"), np.zeros((2, 3), "f8"), np.zeros((2, 3), ">f4")]
)
def test_an_array_that_does_not_fit_out_is_an_error_that_holds_it(pair, out):
    producer, consumer = pair()
    producer.send(GOOD, 3)
    with pytest.raises(ArrayError, match=r"the array is float32 \(2, 3\), and out") as caught:
        consumer.recv_array(out, timeout=30)
    assert as_array(caught.value.message.data).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not out.any()


def test_a_failed_call_is_no_array_but_an_error_of_its_own(rpc):
    caller, callee = rpc()
    cid = caller.call_array(np.arange(3), 5)
    callee.serve(timeout=30).release()
    callee.reply(cid, b"\0\5ValueError: no", 0xFFFF)
    with pytest.raises(RpcError, match="failed on msg_type 5: ValueError: no") as caught:
        caller.wait_array(cid, timeout=30)
    assert (caught.value.msg_type, caught.value.detail) == (5, "ValueError: no")


SEEDS = st.sampled_from([
    GOOD,
    DESCRIBED,
    bytes(ArrayPayload(np.zeros((1, 2, 1, 2, 1, 2), ">i2"))),
    bytes(ArrayPayload(np.zeros((0, 3), "?"))),
    bytes(ArrayPayload(np.array(["ab", "c"]))),
])  # fmt: skip


@st.composite
def messages(draw):
    message = bytearray(draw(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        value = st.integers(0, 255) | st.sampled_from(list(b'0123456789"[]{}<>|OVUSMmf'))
        message[draw(st.integers(0, len(message) - 1))] = draw(value)
    return bytes(message[: draw(st.integers(0, len(message)))] if draw(st.integers(0, 9)) == 0 else message)


@settings(
    max_examples=1000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(messages())
def test_whatever_a_message_holds_it_is_an_array_within_it_or_an_error(message):
    try:
        array = as_array(message)
    except ArrayError:
        return
    assert array.nbytes <= len(message)
    assert not array.dtype.hasobject
    array.tobytes()
    try:
        repr(array)
    except (ValueError, SystemError):  # NumPy's, of characters that are none
        assert "U" in str(array.dtype)


def test_a_header_that_changes_under_the_reader_is_read_once(pair):
    """The guard's array is that of the header as it was checked."""
    producer, consumer = pair()
    producer.send(GOOD)
    guard = consumer.recv_array_zero_copy(timeout=30)
    overwrite(0, 4096 + 16 + 16, (1 << 40).to_bytes(8, "little"))
    assert guard.shape == (2, 3)
    with guard as a:
        assert a.shape == (2, 3)
        with memoryview(guard) as view:
            assert view.shape == (2, 3)
