"""RPC whose handlers take and return objects."""

import json
import logging

import pytest
from dispatchers import echo

import tachyon
from tachyon import Codec, CodecError, RpcDispatcher, RpcEndpoint, RpcError, TypedEndpoint, tachyon_rpc

msgspec = pytest.importorskip("msgspec")

JSON = (json.dumps, json.loads)


class Add(msgspec.Struct):
    a: int
    b: int


class Sum(msgspec.Struct):
    value: int


@tachyon_rpc(msg_type=2, codec="msgpack")
def add(request: Add) -> Sum:
    """Add them."""
    return Sum(request.a + request.b)


@tachyon_rpc(msg_type=3, codec=JSON)
def double(values: "no type at all") -> 5:  # noqa: F722
    return [2 * value for value in values]


@tachyon_rpc(msg_type=4, allow_pickle=True)
def swap(pair):
    return pair[::-1]


def test_objects_are_called_with_and_come_back_from_another_process(path, spawn):
    child = spawn(
        """
        import msgspec
        class Add(msgspec.Struct):
            a: int
            b: int
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(2, codec="msgpack")
        def add(request: Add) -> dict: return {"value": request.a + request.b}
        with tachyon.RpcServer(path, dispatcher) as server:
            say("serving")
            server.serve_forever()
        """,
        path,
    )
    child.says("serving")
    with tachyon.RpcBus.connect(path, timeout=60) as bus:
        assert add.call(bus, Add(1, 2), timeout=60) == Sum(3)
        assert TypedEndpoint(2, codec="msgpack").call(bus, {"a": 1, "b": 2}, timeout=60) == {"value": 3}
        with pytest.raises(RpcError, match="Expected `int`, got `str`"):
            add.call(bus, Add(1, "2"), timeout=60)
        assert add.call(bus, Add(1, 2), lambda sum: sum.value, timeout=60) == 3


@pytest.mark.parametrize(
    ("endpoint", "request_", "result"), [(add, Add(1, 2), Sum(3)), (double, [1, 2], [2, 4]), (swap, (1, {2}), ({2}, 1))]
)
def test_each_codec_serves(served, endpoint, request_, result):
    caller = served(endpoint, echo)
    for _ in range(3):
        assert endpoint.call(caller, request_, timeout=30) == result
    assert endpoint(request_) == result  # here and now
    assert echo.call(caller, b"untyped", timeout=30) == b"untyped"


def test_a_typed_endpoint_is_the_function_it_was():
    assert (add.__name__, add.__doc__, add.msg_type) == ("add", "Add them.", 2)
    assert isinstance(add, RpcEndpoint)
    assert repr(add) == "<TypedEndpoint add msg_type=2>"
    stub = TypedEndpoint(msg_type=2)
    assert repr(stub) == "<TypedEndpoint msg_type=2>"
    with pytest.raises(TypeError, match="no handler here"):
        stub(Add(1, 2))
    with pytest.raises(TypeError, match="no handler"):
        RpcDispatcher().register(stub)


@pytest.mark.parametrize("details", [False, True])
def test_a_request_that_cannot_be_decoded_is_an_error_reply_that_says_why_and_the_loop_goes_on(served, caplog, details):
    caller = served(add, send_details=details)
    calls = {
        "written by codec 'json.dumps', and 'msgpack' reads here": TypedEndpoint(2, codec=JSON),
        "written with pickle, and codec 'msgpack' reads here": TypedEndpoint(2, allow_pickle=True),
        "missing required field `a`": TypedEndpoint(2),
    }
    with caplog.at_level(logging.ERROR, "tachyon"):
        for why, stub in calls.items():
            with pytest.raises(RpcError, match=why) as caught:
                stub.call(caller, {"b": 1}, timeout=30)
            assert caught.value.detail.startswith("CodecError: ")
        with pytest.raises(RpcError, match="no object"):
            RpcEndpoint(2).call(caller, b"raw", timeout=30)
        assert add.call(caller, Add(1, 2), timeout=30) == Sum(3)
    assert len(caplog.records) == 4


def test_a_codec_error_of_the_handler_itself_is_told_only_with_details(served):
    @tachyon_rpc(msg_type=5, codec="msgpack")
    def inner(request):
        tachyon.decode_obj(b"secret")

    with pytest.raises(RpcError) as caught:
        inner.call(served(inner), None, timeout=30)
    assert caught.value.detail is None


def test_a_result_that_cannot_be_decoded_is_an_error_that_names_both_codecs(served):
    caller = served(add, double)
    with pytest.raises(CodecError, match="no object"):
        add.call(served(tachyon_rpc(2)(lambda payload: b"raw")), Add(1, 2), timeout=30)
    strict = Codec(*JSON, name="json.dumps", for_type=lambda type: msgspec.json.Decoder(type).decode)
    with pytest.raises(CodecError, match="codec 'json.dumps' cannot decode it: ValidationError: Expected `object`"):
        TypedEndpoint(3, codec=strict, result=Sum).call(caller, [1], timeout=30)
    with pytest.raises(CodecError, match="written by codec 'json.dumps', and 'msgpack' reads here"):
        lying = Codec(lambda o: json.dumps(o), json.loads, name="json.dumps")
        TypedEndpoint(7).call(served(tachyon_rpc(7)(lambda _: tachyon.encode_obj(1, codec=lying))), 1, timeout=30)
    assert double.call(caller, [1], timeout=30) == [2]
    assert caller.stats()["in_flight"] == 0


def test_a_handler_may_return_none_and_fail_as_any_other(served, caplog):
    @tachyon_rpc(msg_type=5, codec="msgpack")
    def nothing(request: int) -> None:
        if request:
            raise KeyError(request)

    caller = served(nothing, send_details=True)
    assert nothing.call(caller, 0, timeout=30) is None
    with pytest.raises(RpcError, match="KeyError: 1"):
        nothing.call(caller, 1, timeout=30)


def test_a_result_that_cannot_be_encoded_is_an_error_reply(served, caplog):
    @tachyon_rpc(msg_type=5, codec="msgpack")
    def bad(request):
        return object()

    caller = served(bad, add, send_details=True)
    with pytest.raises(RpcError, match="TypeError: Encoding objects of type object is unsupported"):
        bad.call(caller, None, timeout=30)
    assert add.call(caller, Add(1, 2), timeout=30) == Sum(3)


def test_types_are_those_of_the_annotations_unless_told():
    def plain(request, more=None):
        return request

    def late(request: "NotYet") -> "NotYet":  # noqa: F821
        return request

    def named(request: list[int]) -> None:
        return None

    assert TypedEndpoint(named, 1).decode_request(tachyon.encode_obj([1])) == [1]
    with pytest.raises(CodecError, match="Expected `int`"):
        TypedEndpoint(named, 1).decode_request(tachyon.encode_obj(["1"]))
    with pytest.raises(CodecError, match="Expected `null`"):
        TypedEndpoint(named, 1).decode_result(tachyon.encode_obj(1))
    assert TypedEndpoint(named, 1, request=list, result=int).decode_request(tachyon.encode_obj(["1"])) == ["1"]
    assert TypedEndpoint(plain, 1).decode_request(tachyon.encode_obj({"a": 1})) == {"a": 1}
    assert TypedEndpoint(len, 1).decode_request(tachyon.encode_obj({"a": 1})) == {"a": 1}
    with pytest.raises(TypeError, match="'NotYet' is not defined.*pass request= and result="):
        TypedEndpoint(late, 1)
    assert TypedEndpoint(late, 1, request=int, result=int)(5) == 5
    assert TypedEndpoint(late, 1, codec=JSON)(5) == 5  # a codec without types asks for none
    for options in ({"codec": JSON}, {"allow_pickle": True}):
        with pytest.raises(TypeError, match="takes no type="):
            TypedEndpoint(plain, 1, request=int, **options)


def test_types_without_a_codec_are_refused():
    with pytest.raises(TypeError, match="need a codec"):
        tachyon_rpc(1, request=int)
    with pytest.raises(TypeError, match="need a codec"):
        RpcDispatcher().handler(1, result=int)(bytes)
    with pytest.raises(TypeError, match="needs a msg_type"):
        TypedEndpoint(bytes)
    with pytest.raises(ValueError, match="allow_pickle=True"):
        tachyon_rpc(1, codec="pickle")(bytes)


def test_a_pickled_request_is_not_unpickled_by_a_handler_that_did_not_ask(served, tmp_path):
    folder = tmp_path / "sprung"
    caller = served(add, tachyon_rpc(6, codec=JSON)(lambda o: o))

    class Trap:
        def __reduce__(self):
            import os

            return os.mkdir, (str(folder),)

    for msg_type in (2, 6):
        with pytest.raises(RpcError, match="pickle"):
            TypedEndpoint(msg_type, allow_pickle=True).call(caller, Trap(), timeout=30)
    assert not folder.exists()


def test_a_handler_may_be_async_for_who_awaits_it():
    import asyncio

    @tachyon_rpc(1, codec="msgpack")
    async def later(request: int) -> int:
        return request + 1

    payload = memoryview(later.encode(1))
    assert later.decode_result(asyncio.run(later.handler(payload))) == 2


def test_the_request_is_no_view_of_the_ring(served):
    kept = []

    @tachyon_rpc(5, codec="msgpack")
    def keep(request: memoryview) -> memoryview:
        kept.append(request)
        return request

    caller = served(keep)
    for data in (b"one", b"two", b"three"):
        assert bytes(keep.call(caller, data, timeout=30)) == data
    assert [bytes(each) for each in kept] == [b"one", b"two", b"three"]
