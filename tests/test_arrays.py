"""Arrays through a bus: whatever the type, shape and order, the same comes out, aligned."""

import array as stdlib
import ctypes

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tachyon import ArrayPayload, BusFullError, MessageTooLargeError, as_array

ALIGNMENT = 64
SCALARS = [
    *("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", "?"),
    *(">i2", ">i4", ">u8", ">f4", ">f8", ">c8", "M8[ns]", "m8[us]", ">M8[D]", "M8[25s]", "M8"),
    *("S3", "U2", ">U2", "V5", "g", "G"),
]
ML = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]


def raw(array):
    """Its items as bytes, in C order, padding included."""
    return array.view(np.dtype((np.void, array.dtype.itemsize))).tobytes() if array.size else b""


def aligned(array):
    return array.ctypes.data % ALIGNMENT == 0


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and raw(one) == raw(other)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    from conftest import open_pair

    consumer, producer = open_pair(str(tmp_path_factory.mktemp("arrays") / "bus"), 1 << 20)
    yield producer, consumer
    producer.close()
    consumer.close()


def check_round_trip(ends, sent):
    """By every way to send, and every way to receive."""
    producer, consumer = ends
    column_major = sent.flags.f_contiguous and not sent.flags.c_contiguous
    for send in (producer.send_array, producer.try_send_array, lambda a: producer.send(ArrayPayload(a))):
        send(sent)
        got = consumer.recv_array(timeout=30)
        assert same(sent, got)
        assert aligned(got)
        assert got.flags.writeable
        assert got.flags.f_contiguous if column_major else got.flags.c_contiguous
    producer.send_array(sent)
    out = np.zeros(sent.shape, sent.dtype)
    assert consumer.recv_array(out, timeout=30) is out
    assert out.tobytes() == np.array(sent).tobytes()
    producer.send_array(sent)
    with consumer.recv_array_zero_copy(timeout=30) as a:
        assert same(sent, a)
        assert aligned(a)
        assert not a.flags.writeable
        assert a.flags.f_contiguous if column_major else a.flags.c_contiguous
    with producer.send_array_zero_copy(sent.shape, sent.dtype) as a:
        assert (a.shape, a.dtype) == (sent.shape, sent.dtype)
        assert aligned(a)
        a[...] = sent
    assert consumer.recv_array(timeout=30).tobytes() == np.array(sent).tobytes()
    assert consumer.try_recv_array() is None


@pytest.mark.parametrize("kind", SCALARS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 0, 2), (4, 5), (2, 3, 4), (2, 1, 2, 1, 2, 1, 2, 3)])
def test_every_type_goes_through_in_every_shape(ends, kind, shape):
    items = int(np.prod(shape))
    dtype = np.dtype(kind)
    data = np.arange(items * dtype.itemsize, dtype="u1") % 100
    if dtype.kind == "U":
        data = np.zeros_like(data)
    check_round_trip(ends, np.frombuffer(data.tobytes() or b"\0" * 64, dtype, items).reshape(shape))


@pytest.mark.parametrize("name", ML)
def test_types_of_ml_dtypes_go_through(ends, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    sent = np.arange(12, dtype="f4").astype(getattr(ml_dtypes, name)).reshape(3, 4)
    check_round_trip(ends, sent)
    check_round_trip(ends, sent[:, ::2])
    check_round_trip(ends, np.zeros(3, [("n", "i4"), ("x", getattr(ml_dtypes, name))]))


@st.composite
def dtypes(draw):
    plain = hnp.scalar_dtypes() | hnp.byte_string_dtypes(min_len=1) | hnp.unicode_string_dtypes(min_len=1)
    dtype = draw(plain | hnp.array_dtypes(plain | hnp.array_dtypes(plain), max_size=4, allow_subarrays=True))
    # An array cannot be of a subarray: it has more dimensions instead.
    return dtype if dtype.subdtype is None else dtype.base


@st.composite
def arrays(draw):
    """Any type, shape, order and alignment: over bytes, so that nothing of them is a number that is no other's."""
    dtype = draw(dtypes())
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=4))
    items = int(np.prod(shape))
    if items * dtype.itemsize > 1 << 16:
        shape, items = (1,), 1
    offset = draw(st.integers(0, 9))
    memory = np.random.default_rng(items).integers(0, 100, items * dtype.itemsize + offset + 1, "u1")
    if not (dtype.kind in "biufcSVMm" and dtype.names is None):
        memory[:] = 0  # any bytes are no text
    array = np.frombuffer(memory, dtype, items, offset).reshape(shape, order=draw(st.sampled_from("CF")))
    if array.ndim:
        array = array.transpose(draw(st.permutations(range(array.ndim))))
        steps = st.sampled_from([slice(None), slice(None), slice(None, None, 2), slice(None, None, -1), slice(1, None)])
        array = array[tuple(draw(steps) for _ in range(array.ndim))]
        if draw(st.booleans()) and array.ndim < 8:
            array = np.broadcast_to(array, (2, *array.shape))
    return array


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(arrays())
def test_whatever_array_is_sent_comes_out(ends, sent):
    check_round_trip(ends, sent)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (3, 1, 2, 2, 2)])
def test_an_order_is_kept(ends, shape):
    array = np.arange(np.prod(shape), dtype="i2").reshape(shape)
    for each in (array, array.T, np.asfortranarray(array), array[::-1], np.asfortranarray(array)[:, ::2]):
        check_round_trip(ends, each)


def test_the_data_of_an_array_larger_than_the_ring_is_aligned_too(pair):
    producer, consumer = pair(4096)
    producer.send_array(np.ones(5000, "u1"))
    with consumer.recv_array_zero_copy(timeout=30) as a:
        assert a.ctypes.data % ALIGNMENT == 0
    with producer.send_array_zero_copy(5000, "u1") as a:
        assert a.ctypes.data % ALIGNMENT == 0
        a[:] = 7
    assert consumer.recv_array(timeout=30).tolist() == [7] * 5000


@pytest.mark.parametrize("position", range(0, 256, 64))
def test_the_data_of_every_received_array_is_aligned_wherever_in_the_ring_it_is(pair, position):
    producer, consumer = pair(512)
    for _ in range(position // 64):
        producer.send(b"")
        consumer.recv(timeout=30)
    for size in (1, 3, 64, 100, 200):
        for _ in range(5):
            producer.send_array(np.ones(size, "u1"))
            with consumer.recv_array_zero_copy(timeout=30) as a:
                assert a.ctypes.data % ALIGNMENT == 0
            producer.send_array(np.ones(size, "u1"))
            assert consumer.recv_array(timeout=30).ctypes.data % ALIGNMENT == 0
            with producer.send_array_zero_copy(size, "u1") as a:
                assert a.ctypes.data % ALIGNMENT == 0
            consumer.recv(timeout=30)
    producer.send_many([ArrayPayload(np.ones(i, "f8")) for i in range(1, 4)])
    with consumer.drain_batch() as batch:
        assert [as_array(each).ctypes.data % ALIGNMENT for each in batch] == [0, 0, 0]


# ---- what else is an array -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (b"abc", "u1", (3,)),
        (bytearray(b""), "u1", (0,)),
        (memoryview(b"abcdef")[::2], "u1", (3,)),
        (memoryview(bytes(24)).cast("i", (2, 3)), "i4", (2, 3)),
        (stdlib.array("d", [1.5, 2.5]), "f8", (2,)),
        ((ctypes.c_int16 * 3 * 2)(), "i2", (2, 3)),
        ((ctypes.c_bool * 2)(), "?", (2,)),
        (ctypes.c_double(2.5), "f8", ()),
        (np.float32(1.5), "f4", ()),
        (np.datetime64("2020-01-01", "s"), "M8[s]", ()),
        (np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), [("a", "i4"), ("b", "f8")], (1,)),
    ],
)
def test_any_buffer_is_an_array(ends, data, dtype, shape):
    producer, consumer = ends
    producer.send_array(data)
    got = consumer.recv_array(timeout=30)
    assert (got.dtype, got.shape) == (np.dtype(dtype), shape)
    assert got.tobytes() == (data.tobytes() if hasattr(data, "tobytes") else bytes(data))


def nested(depth):
    dtype = np.dtype("i4")
    for _ in range(depth):
        dtype = np.dtype([("a", dtype)])
    return dtype


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([1, 2], TypeError, "not list; try numpy.asarray"),
        ("text", TypeError, "not str"),
        (None, TypeError, "not NoneType"),
        (np.array([b"a", None], dtype=object), TypeError, "pointers"),
        (np.zeros(2, [("a", "i4"), ("b", "O")]), TypeError, "pointers"),
        (np.zeros(2, [("a", "M8[s]"), ("b", "O")]), TypeError, "objects in it"),
        ((ctypes.py_object * 2)(1, 2), TypeError, "pointers"),
        ((ctypes.c_void_p * 2)(), TypeError, "pointers"),
        (np.ma.masked_array([1, 2], [0, 1]), TypeError, r"masked .*filled"),
        (np.zeros((1,) * 9), ValueError, "9 dimensions .*at most 8"),
        (np.zeros(3, []), TypeError, "0 bytes"),
        ((ctypes.c_wchar * 3)(), TypeError, "items of this c_wchar_Array_3 cannot be sent: .*; make a NumPy array"),
        (np.zeros(1, nested(33)), TypeError, "more than 32 structures within each other cannot be sent"),
        (np.zeros(1, nested(500)), TypeError, "more than 32 structures within each other cannot be sent"),
    ],
)
def test_what_is_no_array_or_has_pointers_is_refused_and_nothing_is_sent(ends, rpc, data, error, text):
    producer, consumer = ends
    for use in (producer.send_array, producer.try_send_array, ArrayPayload):
        with pytest.raises(error, match=text):
            use(data)
    assert consumer.try_recv() is None
    caller, callee = rpc()
    with pytest.raises(error, match=text):
        caller.call_array(data, 1)
    cid = caller.call(b"", 1)
    callee.serve(timeout=30).release()
    with pytest.raises(error, match=text):
        callee.reply_array(cid, data)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "text"),
    [
        (1, nested(33), TypeError, "more than 32 structures"),
        (-1, "u1", ValueError, "-1 items"),
        ((1,) * 9, "u1", ValueError, "at most 8"),
        (1.5, "u1", TypeError, "float"),
        ("ab", "u1", TypeError, "str"),
        ((1 << 40, 0), "f8", MessageTooLargeError, "can never fit"),
        ((1 << 40,), "f8", MessageTooLargeError, "can never fit"),
        (1 << 28, "f8", MessageTooLargeError, "can never fit"),
        (2, "O", TypeError, "objects"),
        (2, "nonsense", TypeError, "nonsense"),
    ],
)
def test_no_room_is_claimed_for_what_is_no_array(ends, shape, dtype, error, text):
    producer, _ = ends
    with pytest.raises(error, match=text):
        producer.send_array_zero_copy(shape, dtype)
    assert producer.try_send_array(b"fine")
    ends[1].recv()


def test_an_array_waits_for_room_and_says_how_large_it_is(pair, run_thread):
    producer, consumer = pair(4096, max_large=0)
    producer.send_array(np.zeros(3000, "u1"))
    assert not producer.try_send_array(np.zeros(3000, "u1"))
    assert not producer.try_send_array(np.zeros(6000, "u1")[::2])
    with pytest.raises(BusFullError, match="no room for 3048 bytes"):
        producer.send_array(np.zeros(3000, "u1"), timeout=0.01)
    with pytest.raises(MessageTooLargeError, match="5048 bytes can never fit"):
        producer.send_array(np.zeros(5000, "u1"))
    with pytest.raises(MessageTooLargeError, match="5048 bytes can never fit"):
        producer.send_array(np.zeros(10000, "u1")[::2])
    consumer.recv_array(timeout=30)
    received = run_thread(consumer.recv_array, timeout=30)
    producer.send_array(np.zeros(4096 - 16 - 48, "u1"), timeout=30)  # all of the ring
    assert received.result(30).shape == (4032,)


def test_an_array_has_a_type_id_as_any_message(pair):
    producer, consumer = pair()
    producer.send_array(np.arange(3), 7)
    producer.try_send_array(np.arange(3), type_id=8)
    producer.send_array_zero_copy(3, "i8", 9).release()
    producer.send_many([ArrayPayload(np.arange(3)), (ArrayPayload(np.arange(3)), 11)], 10)
    assert [consumer.recv(timeout=30).type_id for _ in range(5)] == [7, 8, 9, 10, 11]
    with pytest.raises(OverflowError):
        producer.send_array(np.arange(3), 1 << 32)


def test_a_payload_can_be_sent_again_and_shows_its_bytes(pair):
    producer, consumer = pair()
    numbers = np.arange(6, dtype="i4").reshape(2, 3)
    payload = ArrayPayload(numbers)
    for _ in range(2):
        producer.send(payload)
        assert consumer.recv_array(timeout=30).tolist() == [[0, 1, 2], [3, 4, 5]]
    numbers[0, 0] = 9  # it is taken when it is sent
    assert len(payload) == 48 + 24 == len(bytes(payload))
    assert as_array(bytes(payload)).tolist() == [[9, 1, 2], [3, 4, 5]]
    assert as_array(bytes(ArrayPayload(numbers.T))).tolist() == numbers.T.tolist()
    with pytest.raises(TypeError, match="cannot be changed"):
        payload.__init__(numbers)
    with pytest.raises(TypeError, match="has no array"):
        producer.send(ArrayPayload.__new__(ArrayPayload))


def test_an_array_comes_from_another_process(spawn, path):
    from tachyon import Bus

    child = spawn(
        """
        import numpy as np
        with tachyon.Bus.connect(path, timeout=60) as bus:
            for i in range(200):
                bus.send_array(np.full((i, 3), i, "f4"), type_id=i)
                with bus.send_array_zero_copy((3, i), ">i2") as a:
                    a[:] = i
        """,
        path,
    )
    with Bus.listen(path, 1 << 14, timeout=60) as bus:
        for i in range(200):
            a = bus.recv_array(timeout=60)
            assert a.shape == (i, 3)
            assert (a == i).all()
            with bus.recv_array_zero_copy(timeout=60) as b:
                assert (b.shape, b.dtype) == ((3, i), np.dtype(">i2"))
                assert (b == i).all()
    child.ends()


# ---- into an array of one's own --------------------------------------------------------------------------------------


def test_an_out_with_ways_of_its_own_never_sees_the_ring(pair):
    class Curious(np.ndarray):
        def __array_function__(self, *arguments):
            seen.append(arguments)

    seen = []
    producer, consumer = pair()
    producer.send_array(np.arange(3.0))
    out = np.zeros(3).view(Curious)
    assert consumer.recv_array(out, timeout=30) is out
    assert out.tolist() == [0, 1, 2]
    assert not seen


def test_out_may_be_strided_or_in_another_order(pair):
    producer, consumer = pair()
    sent = np.arange(6, dtype="f4").reshape(2, 3)
    for out in (np.zeros((4, 6), "f4")[::2, ::2], np.zeros((2, 3), "f4", order="F"), np.zeros((3, 2), "f4").T):
        producer.send_array(sent)
        assert consumer.recv_array(out=out, timeout=30) is out
        assert (out == sent).all()


@pytest.mark.parametrize("items", [1, 2, 9])
@pytest.mark.filterwarnings("ignore:A builtin ctypes object")  # NumPy looks at the type, and says so
def test_structures_that_call_themselves_bytes_stay_structures(pair, items):
    class Packed(ctypes.Structure):
        _pack_ = 1
        _fields_ = (("kind", ctypes.c_uint8), ("values", ctypes.c_int32 * items))

    producer, consumer = pair()
    sent = (Packed * 2)()
    sent[1].kind, sent[1].values[0] = 7, -5
    producer.send_array(sent)
    got = consumer.recv_array(timeout=30)
    assert (got.shape, got.itemsize) == ((2,), ctypes.sizeof(Packed))
    assert (got[1]["kind"], got[1]["values"][0]) == (7, -5)


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (bytearray(12), TypeError, "NumPy array, not bytearray"),
        (np.zeros(3, "O"), TypeError, "pointers"),
        (np.broadcast_to(np.float32(0), (3,)), ValueError, "read-only"),
        (np.ma.zeros(3, "f4"), TypeError, "masked"),
    ],
)
def test_an_out_that_cannot_be_written_to_takes_no_message(pair, out, error, text):
    producer, consumer = pair()
    producer.send_array(np.arange(3, dtype="f4"))
    for use in (lambda: consumer.recv_array(out, timeout=30), lambda: consumer.try_recv_array(out)):
        with pytest.raises(error, match=text):
            use()
    assert consumer.recv_array(timeout=30).tolist() == [0, 1, 2]
