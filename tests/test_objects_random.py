"""Objects of any shape, and messages of any content where objects are expected."""

import pickle

import pytest

import tachyon
from tachyon import CodecError, decode_obj, encode_obj

pytest.importorskip("msgspec")
hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

# The bus of a test is one for all its examples: what an example leaves behind would show in the next.
settings = hypothesis.settings(
    max_examples=200,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
    max_leaves=30,
)
BUFFERS = st.lists(st.tuples(st.binary(max_size=300), st.booleans(), st.integers(0, 70)), max_size=6)
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.fixture
def bus(pair):
    return pair(1 << 16)


@settings
@hypothesis.given(PLAIN, st.integers(0, 2**32 - 1))
def test_what_is_sent_is_received(bus, value, type_id):
    producer, consumer = bus
    producer.send_obj(value, type_id)
    message = consumer.recv()
    assert (decode_obj(message), message.type_id) == (value, type_id)
    producer.send_obj(value, type_id, allow_pickle=True)
    assert consumer.recv_obj(allow_pickle=True) == value


def owned(buffers):
    """(PickleBuffers that begin anywhere, what has to come)"""
    owners, expected = [], []
    for data, readonly, offset in buffers:
        memory = bytearray(offset) + data
        view = memoryview(bytes(memory) if readonly else memory)[offset:]
        owners.append(pickle.PickleBuffer(view))
        expected.append((data, readonly))
    return owners, expected


@settings
@hypothesis.given(PLAIN, BUFFERS)
def test_buffers_of_any_size_and_alignment_arrive(bus, value, buffers):
    producer, consumer = bus
    owners, expected = owned(buffers)
    producer.send_obj([value, *owners], allow_pickle=True)
    got = consumer.recv_obj(allow_pickle=True)
    assert got[0] == value
    assert [(bytes(each), each.readonly) for each in got[1:]] == expected


@settings
@hypothesis.given(st.binary(max_size=200), st.booleans())
def test_a_message_of_anything_is_an_object_or_a_codec_error_and_the_next_one_arrives(bus, data, named):
    producer, consumer = bus
    producer.send(b"\xb7o\1\0\x10\0\7msgpack\0\0" + data if named else data)
    producer.send_obj("next")
    try:
        consumer.recv_obj()
    except CodecError as error:
        assert error.message.data.endswith(data)
    assert consumer.recv_obj() == "next"


@settings
@hypothesis.given(BUFFERS, CHANGES, st.data())
def test_a_damaged_pickle_header_is_a_codec_error_and_nothing_beyond_the_message_is_read(bus, buffers, changes, cut):
    producer, consumer = bus
    owners, _ = owned(buffers)
    whole = encode_obj(["x", *owners], allow_pickle=True)
    table = 16 + 16 + 8 * len(owners)  # the pickle itself is left alone: what it does is up to who wrote it
    damaged = bytearray(whole)
    for at, value in changes:
        damaged[at % table] = value
    del damaged[cut.draw(st.integers(table, len(whole))) :]
    producer.send(damaged)
    producer.send_obj("next")
    try:
        got = consumer.recv_obj(allow_pickle=True)
    except CodecError as error:
        assert error.message.data == damaged
    else:
        assert sum(len(bytes(each)) for each in got[1:]) <= len(damaged)
    assert consumer.recv_obj() == "next"
    assert producer.stats()["messages"] == consumer.stats()["messages"]


@pytest.mark.parametrize("size", [*range(80), 200])
def test_a_message_that_ends_anywhere_is_a_codec_error(size):
    whole = encode_obj([pickle.PickleBuffer(b"x" * 100), pickle.PickleBuffer(b"")], allow_pickle=True)
    assert size < len(whole)
    with pytest.raises(CodecError):
        decode_obj(whole[:size], allow_pickle=True)
    with pytest.raises(CodecError):
        decode_obj(encode_obj({"a": ["b" * 100] * 3})[:size])


def test_counts_that_no_message_can_hold_need_no_memory():
    whole = bytearray(encode_obj(1, allow_pickle=True))
    for at, width in ((16, 8), (24, 8)):
        damaged = bytearray(whole)
        damaged[at : at + width] = b"\xff" * width
        with pytest.raises(CodecError, match="damaged pickle header"):
            tachyon.decode_obj(damaged, allow_pickle=True)
