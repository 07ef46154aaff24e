"""Objects through a bus: codecs, types, pickle, and what a receiver does about anything else."""

import dataclasses
import json
import subprocess
import sys
from types import NoneType

import pytest

import tachyon
from tachyon import BusFullError, Codec, CodecError, Message, PeerClosedError, decode_obj, encode_obj

msgspec = pytest.importorskip("msgspec")

JSON = (json.dumps, json.loads)


class Order(msgspec.Struct):
    symbol: str
    price: float


@dataclasses.dataclass
class Point:
    x: int
    y: int


VALUES = [None, True, 0, -(2**63), 1.5, "", "å", b"", b"\0" * 100, [], {}, {"a": [1, {"b": None}]}, list(range(1000))]


# ---- between two processes -------------------------------------------------------------------------------------------


def test_objects_go_to_another_process_and_come_back_as_they_were(path, spawn):
    child = spawn(
        """
        there = tachyon.Bus.listen(path, 1 << 16, timeout=60)
        back = tachyon.Bus.connect(path + "back", timeout=60)
        for o in there.objects(): back.send_obj(o)
        back.close()
        """,
        path,
    )
    with tachyon.Bus.connect(path, timeout=60) as there:
        back = tachyon.Bus.listen(path + "back", 1 << 16, timeout=60)
        for value in VALUES:
            there.send_obj(value)
            assert back.recv_obj(timeout=60) == value
    with pytest.raises(PeerClosedError):
        back.recv_obj(timeout=60)
    back.close()
    child.ends()


# ---- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_equal(pair, value):
    producer, consumer = pair()
    producer.send_obj(value, 7)
    assert consumer.recv_obj(timeout=30) == value


def test_the_message_names_its_codec_in_a_header_of_whole_words(pair):
    producer, consumer = pair()
    producer.send_obj([1], 7)
    producer.send_obj([1], codec=Codec(json.dumps, json.loads, name="json"))
    assert consumer.recv() == Message(7, 18, b"\xb7o\1\0\x10\0\7msgpack\0\0\x91\1")
    assert consumer.recv() == Message(0, 19, b"\xb7o\1\0\x10\0\4json\0\0\0\0\0[1]")


@pytest.mark.parametrize(
    ("codec", "name"),
    [(JSON, "json.dumps"), (Codec(*JSON), "json.dumps"), (Codec(*JSON, name="å" * 127), "å" * 127), (None, "msgpack")],
)
def test_any_codec_does(pair, codec, name):
    producer, consumer = pair()
    producer.send_obj({"a": [1, 2]}, codec=codec)
    producer.close()
    with pytest.raises(CodecError) as caught:
        consumer.recv_obj(codec=Codec(*JSON, name="other"))
    assert (caught.value.codec, caught.value.found) == ("other", name)
    assert name in str(caught.value)
    assert "'other'" in str(caught.value)
    assert decode_obj(caught.value.message, codec=codec) == {"a": [1, 2]}
    with pytest.raises(PeerClosedError):
        consumer.recv_obj()


def test_what_encode_returns_may_be_any_of_the_usual(pair):
    producer, consumer = pair()
    for made in (b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab"):
        codec = Codec(lambda o, made=made: made, bytes, name="x")
        producer.send_obj(None, codec=codec)
        assert consumer.recv_obj(codec=codec) == b"ab"
    for made in (None, 5, ["ab"]):
        with pytest.raises(TypeError, match="must return bytes, not"):
            producer.send_obj(None, codec=(lambda o, made=made: made, bytes))
    assert consumer.try_recv() is None


def test_what_cannot_be_encoded_raises_here_and_sends_nothing(pair):
    producer, consumer = pair()
    with pytest.raises(TypeError, match="unsupported"):
        producer.send_obj(object())
    with pytest.raises(TypeError, match="pickle"):
        producer.send_obj(sys._getframe(), allow_pickle=True)
    producer.send_obj(1)
    assert consumer.recv_obj() == 1


@pytest.mark.parametrize(
    ("codec", "error"),
    [("pickle", ValueError), ("json", TypeError), (5, TypeError), (json, TypeError), ((json.dumps,), TypeError)],
)
def test_a_codec_that_is_none_is_refused(pair, codec, error):
    producer, consumer = pair()
    for use in (lambda: producer.send_obj(1, codec=codec), lambda: consumer.recv_obj(codec=codec, timeout=0)):
        with pytest.raises(error):
            use()


def test_a_codecs_functions_and_its_name_are_checked():
    for bad, name in (((5, bytes), None), ((bytes, None), None), ((bytes, bytes), 5)):
        with pytest.raises(TypeError):
            Codec(*bad, name=name)
    for name in ("", "x" * 256, "å" * 128):
        with pytest.raises(ValueError, match="255 bytes"):
            Codec(bytes, bytes, name=name)
    assert repr(Codec(*JSON)) == "<tachyon.Codec 'json.dumps'>"


def test_sending_waits_for_room_only_as_long_as_it_may(pair):
    for options in ({}, {"allow_pickle": True}):
        producer, _ = pair(256)
        with pytest.raises(BusFullError):
            for _ in range(100):
                producer.send_obj([1] * 20, timeout=0.01, **options)
        assert producer.try_send_obj([1] * 20, **options) is False


def test_arguments_are_checked_before_anything_is_sent_or_taken(pair):
    producer, consumer = pair()
    for options in ({}, {"allow_pickle": True}):
        with pytest.raises(OverflowError):
            producer.send_obj(1, 2**32, **options)
        with pytest.raises(TypeError):
            producer.send_obj(1, timeout="1", **options)
    producer.send_obj(1)
    with pytest.raises(TypeError, match="takes no type="):
        consumer.recv_obj(type=int, codec=JSON)
    with pytest.raises(TypeError, match="takes no type="):
        consumer.recv_obj(type=int, allow_pickle=True)
    with pytest.raises(TypeError, match="one of the two"):
        consumer.recv_obj(codec=JSON, allow_pickle=True)
    assert consumer.recv_obj() == 1


# ---- what is received ------------------------------------------------------------------------------------------------


def test_an_object_is_of_the_type_that_was_asked_for(pair):
    producer, consumer = pair()
    for value, type in ((Order("A", 1.5), Order), (Point(1, 2), Point), ([1, 2], list[int]), (None, NoneType)):
        producer.send_obj(value)
        assert consumer.recv_obj(type=type) == value
    producer.send_obj([1, 2])
    assert consumer.recv_obj(type=tuple[int, int]) == (1, 2)


def test_an_object_of_another_type_is_an_error_that_carries_the_message(pair):
    producer, consumer = pair()
    producer.send_obj({"symbol": "A", "price": "dear"}, 7)
    producer.send_obj(2)
    with pytest.raises(CodecError, match=r"Expected `float`, got `str` - at `\$.price`") as caught:
        consumer.recv_obj(type=Order)
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)
    assert caught.value.message.type_id == 7
    assert decode_obj(caught.value.message) == {"symbol": "A", "price": "dear"}
    assert consumer.recv_obj() == 2


def test_a_codec_of_ones_own_may_know_types(pair):
    producer, consumer = pair()
    made = []

    def for_type(type):
        made.append(type)
        return lambda data: type(json.loads(data))

    codec = Codec(*JSON, for_type=for_type)
    for _ in range(3):
        producer.send_obj([1, 1], codec=codec)
        assert consumer.recv_obj(type=set, codec=codec) == {1}
    producer.send_obj([1, 1], codec=codec)
    assert consumer.recv_obj(codec=codec) == [1, 1]
    assert made == [set]


def test_trying_tells_nothing_from_none(pair):
    producer, consumer = pair()
    nothing = object()
    for options in ({}, {"allow_pickle": True}):
        assert consumer.try_recv_obj(**options) is None
        assert consumer.try_recv_obj(nothing, **options) is nothing
        producer.send_obj(None, **options)
        assert consumer.try_recv_obj(nothing, **options) is None


def test_iteration_ends_with_the_stream_and_goes_on_after_an_error(pair):
    producer, consumer = pair()
    producer.send_obj(1)
    producer.send(b"raw", 9)
    producer.send_obj(2)
    producer.close()
    objects = consumer.objects(type=int)
    assert next(objects) == 1
    with pytest.raises(CodecError, match=r"3 bytes is no object: it was not sent by send_obj; recv\(\)") as caught:
        next(objects)
    assert caught.value.message == Message(9, 3, b"raw")
    assert caught.value.found is None
    assert list(objects) == [2]
    consumer.close()
    with pytest.raises(tachyon.BusClosedError):
        consumer.objects()


def test_a_header_of_a_later_version_may_have_more_fields_and_one_of_another_kind_is_refused(pair):
    producer, consumer = pair()
    producer.send(b"\xb7o\1\0\x18\0\7msgpack" + b"\xff" * 10 + b"\5")
    assert consumer.recv_obj() == 5
    for head in (b"\xb7o\2\0", b"\xb7o\1\1", b"\xb7o\0\0"):
        producer.send(head + b"\x10\0\7msgpack\0\0\5")
        with pytest.raises(CodecError, match=rf"version {head[2]}, flags {head[3]}; version 1 is read here"):
            consumer.recv_obj()


@pytest.mark.parametrize("size", [0, 7, 13, 19, 0xFFFF])
def test_a_header_that_ends_within_the_name_or_beyond_the_message_is_refused(pair, size):
    producer, consumer = pair()
    producer.send(b"\xb7o\1\0" + size.to_bytes(2, "little") + b"\7msgpack\0\0\5\5")
    with pytest.raises(CodecError, match=f"damaged object header: 7 bytes of name in {size} bytes of header"):
        consumer.recv_obj()


def test_encoded_objects_go_any_other_way(pair, rpc):
    producer, consumer = pair()
    producer.send_many([encode_obj(i) for i in range(10)])
    with consumer.drain_batch(timeout=30) as batch:
        assert [decode_obj(each) for each in batch] == list(range(10))
    producer.send_obj(5, 3)
    with consumer.recv_zero_copy() as rx:
        assert (rx.type_id, decode_obj(rx, type=int)) == (3, 5)
    for wrap in (bytes, bytearray, memoryview):
        assert decode_obj(wrap(encode_obj([b"x"], allow_pickle=True)), allow_pickle=True) == [b"x"]


@pytest.mark.parametrize("data", [5, [1, 2], None, "text"])
def test_what_is_no_buffer_is_no_message(data):
    with pytest.raises(TypeError, match="bytes-like"):
        decode_obj(data)


class Greedy:
    def __reduce__(self):
        return run_out, ()


def run_out(*_):
    raise MemoryError


def test_a_lack_of_memory_is_no_fault_of_the_message_and_does_not_lose_it(pair):
    codec = Codec(bytes, run_out)
    with pytest.raises(MemoryError) as caught:
        decode_obj(encode_obj(b"", codec=codec), codec=codec)
    assert caught.value.__cause__ is None
    producer, consumer = pair()
    for sent, how in ((b"abc", {"codec": codec}), (Greedy(), {"allow_pickle": True})):
        producer.send_obj(sent, 7, **how)
        with pytest.raises(MemoryError) as caught:
            consumer.recv_obj(**how)
        assert caught.value.message == Message(7, len(encode_obj(sent, **how)), encode_obj(sent, **how))
        assert consumer.try_recv() is None


def test_without_msgspec_the_error_says_how_to_get_it_and_other_codecs_work():
    code = """if True:
        import sys
        sys.modules["msgspec"] = None
        import json, tachyon
        try: tachyon.encode_obj(1)
        except ImportError as error: assert "pip install 'tachyon-ipc[objects]'" in str(error), error
        else: raise AssertionError
        data = tachyon.encode_obj([1], codec=(json.dumps, json.loads))
        assert tachyon.decode_obj(data, codec=(json.dumps, json.loads)) == [1]
        assert tachyon.decode_obj(tachyon.encode_obj({1}, allow_pickle=True), allow_pickle=True) == {1}
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
