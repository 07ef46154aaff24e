"""What holds addresses is not sent: they mean nothing elsewhere. And addresses are not written over."""

import ctypes

import numpy as np
import pytest

from tachyon import RpcDispatcher, RpcError, tachyon_rpc


class Pair(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("O", ctypes.c_void_p))


class Named(ctypes.Structure):
    _fields_ = (("O", ctypes.c_int), ("P", ctypes.c_double), ("z", ctypes.c_char * 4))


class Outer(ctypes.Structure):
    _fields_ = (("P", ctypes.c_int), ("inner", Pair * 2))


POINTERS = {
    "objects": np.array([b"a", [1]] * 4, dtype=object),
    "objects, every second": np.array([b"a", [1]] * 4, dtype=object)[::2],
    "objects, 2-d": np.array([[1, 2], [3, 4]], dtype=object).T,
    "a view of objects": memoryview(np.array([b"a"], dtype=object)),
    "a field": np.zeros(2, dtype=[("number", "i4"), ("thing", "O")]),
    "a field of a field": np.zeros(2, dtype=[("P", "i4"), ("inner", [("x", "f4", (2, 3)), ("thing", "O")])]),
    "a packed field": np.zeros(2, dtype=np.dtype([("b", "i1"), ("thing", "O")])),
    "py_object": (ctypes.py_object * 2)(1, 2),
    "c_void_p": (ctypes.c_void_p * 2)(),
    "POINTER": (ctypes.POINTER(ctypes.c_int) * 2)(),
    "POINTER to a structure": (ctypes.POINTER(Named) * 2)(),
    "function pointer": (ctypes.CFUNCTYPE(None, ctypes.c_int) * 2)(),
    "c_char_p": (ctypes.c_char_p * 2)(b"a", b"b"),
    "c_wchar_p": (ctypes.c_wchar_p * 2)("a", "b"),
    "structure": Pair(),
    "structures": (Pair * 2)(),
    "structure in a structure": Outer(),
}

PLAIN = {
    "fields of such names": np.array([(1, 2.0)], dtype=[("O", "i4"), ("P", "f8")]),
    "nested fields of such names": np.array([((1,), 2)], dtype=[("X", [("O", "i1")]), ("z", "i2")]),
    "ctypes fields of such names": (Named * 2)(Named(1, 2.5, b"abc"), Named(3, 4.5, b"def")),
    "addresses as numbers": np.arange(3, dtype="P"),
    "complex": np.array([1 + 2j, 3]),
    "complex, single": np.array([1 + 2j, 3], dtype="c8"),
    "complex, long": np.array([1 + 2j, 3], dtype="clongdouble"),
    "text": np.array(["abc"]),
    "bytes": np.array([b"OPXZz&"]),
    "void": np.zeros(2, dtype="V3"),
    "wchar": (ctypes.c_wchar * 3)("a", "b", "c"),
}

REMEDY = "format has pointers.*serialize"


@pytest.mark.parametrize("data", POINTERS.values(), ids=POINTERS)
def test_pointers_are_not_sent(pair, rpc, data):
    producer, consumer = pair()
    for use in (
        lambda: producer.send(data),
        lambda: producer.try_send(data),
        lambda: producer.send_many([data]),
        lambda: producer.send_many([(data, 1)]),
    ):
        with pytest.raises(TypeError, match=REMEDY):
            use()
    producer.send(b"fine")
    assert consumer.recv(timeout=30).data == b"fine"
    caller, callee = rpc()
    with pytest.raises(TypeError, match=REMEDY):
        caller.call(data, 1)
    cid = caller.call(b"", 1)
    with callee.serve(timeout=30):
        pass
    with pytest.raises(TypeError, match=REMEDY):
        callee.reply(cid, data)
    callee.reply(cid, b"fine")
    with caller.wait(cid, timeout=30) as rx:
        assert bytes(rx) == b"fine"


def test_the_error_names_the_format(pair):
    with pytest.raises(TypeError, match=r"send takes .*\('T\{i:number:xxxxO:thing:\}'\)"):
        pair()[0].send(np.zeros(1, dtype=np.dtype([("number", "i4"), ("thing", "O")], align=True)))


def test_an_answer_of_pointers_is_a_failed_call(rpc, run_thread):
    caller, callee = rpc()
    dispatcher = RpcDispatcher(send_details=True)
    secret = dispatcher.register(tachyon_rpc(1)(lambda payload: POINTERS["objects"]))
    once = run_thread(dispatcher.serve_once, callee)
    with pytest.raises(RpcError, match="TypeError.*pointers"):
        secret.call(caller, b"", timeout=30)
    with pytest.raises(TypeError, match=REMEDY):
        once.result(30)


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_what_only_looks_like_pointers_is_sent_and_received(pair, data):
    producer, consumer = pair()
    expected = memoryview(data).tobytes()
    producer.send(data)
    assert consumer.recv(timeout=30).data == expected
    producer.send(data)
    target = np.zeros_like(data) if isinstance(data, np.ndarray) else type(data)()
    assert consumer.recv_into(target, timeout=30) == (len(expected), 0)
    assert memoryview(target).tobytes() == expected


@pytest.mark.parametrize(
    "target",
    [
        np.array([b"a", [1]], dtype=object),
        np.zeros(2, dtype=[("number", "i4"), ("thing", "O")]),
        np.zeros(2, dtype=[("when", "M8[s]"), ("thing", "O")]),  # NumPy has no format for this one
        (ctypes.py_object * 2)(1, 2),
        (ctypes.c_void_p * 2)(),
        (Pair * 2)(),
    ],
    ids=["objects", "field", "field beside a date", "py_object", "c_void_p", "structures"],
)
def test_pointers_are_not_written_over_and_the_message_waits(pair, target):
    producer, consumer = pair()
    producer.send(b"\1" * 8)
    before = bytes(memoryview(target).cast("B")) if isinstance(target, ctypes.Array) else repr(target)
    with pytest.raises(TypeError, match="recv_into takes .*pointers"):
        consumer.recv_into(target, timeout=30)
    assert before == (bytes(memoryview(target).cast("B")) if isinstance(target, ctypes.Array) else repr(target))
    assert consumer.recv(timeout=30).data == b"\1" * 8


def test_what_has_no_format_can_be_received_into(pair):
    producer, consumer = pair()
    dates = np.zeros(2, dtype="M8[s]")
    producer.send(np.array([1, 2], dtype="i8"))
    assert consumer.recv_into(dates, timeout=30) == (16, 0)
    assert dates.astype("i8").tolist() == [1, 2]
    dates.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        consumer.recv_into(dates, timeout=0)
