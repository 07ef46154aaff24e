"""RpcServer's answers: those without room, those that cannot be, and handlers that fail."""

import asyncio

import pytest
from servers import connect, echo, keep, kept

import tachyon
from tachyon import (
    PeerClosedError,
    RpcBus,
    RpcError,
    tachyon_rpc,
)


def test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting(serve, until):
    server = serve(reverse=4096)
    with connect(server) as lazy, connect(server) as other:
        ids = [lazy.call(bytes([n]) * 1000, 1, timeout=30) for n in range(30)]
        for n in range(200):
            assert echo.call(other, b"%d" % n, timeout=30) == b"%d" % n
        until(lambda: len(server._outbox))
        assert server.stats()["served"] < 230
        for n, cid in enumerate(ids):
            with lazy.wait(cid, timeout=30) as rx:
                assert bytes(rx) == bytes([n]) * 1000
        assert echo.call(lazy, b"again", timeout=30) == b"again"


def test_an_answer_that_is_kept_is_what_its_buffer_holds_and_one_that_cannot_be_kept_an_error(serve, until):
    class Odd(bytes):
        def __bytes__(self):
            raise ZeroDivisionError

    @tachyon_rpc(msg_type=5)
    def odd(payload):
        return Odd(payload)

    @tachyon_rpc(msg_type=6)
    def huge(payload):
        return bytes(4000)

    server = serve(echo, odd, huge, reverse=4096, send_details=True)
    keep_it = server._keep

    def keep_small(bus, correlation_id, answer, msg_type):
        if len(answer) == 4000:
            raise MemoryError("no room for it")
        keep_it(bus, correlation_id, answer, msg_type)

    server._keep = keep_small
    with connect(server) as caller:
        first, second = caller.call(b"1" * 3000, 5, timeout=30), caller.call(b"2" * 3000, 5, timeout=30)
        until(lambda: len(server._outbox))
        for cid, answer in ((first, b"1" * 3000), (second, b"2" * 3000)):
            with caller.wait(cid, timeout=30) as rx:
                assert bytes(rx) == answer
        third, fourth = caller.call(b"3" * 3000, 5, timeout=30), caller.call(b"", 6, timeout=30)
        until(lambda: server.stats()["failed"])
        with caller.wait(third, timeout=30) as rx:
            assert bytes(rx) == b"3" * 3000
        with caller.wait(fourth, timeout=30) as rx:
            assert rx.type_id == tachyon.MSG_TYPE_ERROR
            assert bytes(rx)[2:] == b"MemoryError: no room for it"
        assert echo.call(caller, b"x", timeout=30) == b"x"


def test_an_answer_that_had_no_room_comes_though_no_more_calls_do_and_then_the_server_sleeps(spawn, path):
    child = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        with tachyon.RpcServer(path, dispatcher, 1 << 16, 4096) as server:
            say("ready")
            server.serve_forever()
        """,
        path,
    )
    child.says("ready")
    with RpcBus.connect(path, timeout=30) as caller:
        for _ in range(2):
            calls = [caller.call(bytes([n]) * 1000, 1, timeout=30) for n in range(5)]  # four answers fit
            child.falls_asleep()
            for n, cid in enumerate(calls):
                with caller.wait(cid, timeout=30) as rx:
                    assert bytes(rx) == bytes([n]) * 1000
            child.falls_asleep()


def test_an_error_reply_that_had_no_room_comes_as_one(serve, until):
    server = serve(reverse=64)
    with connect(server) as caller:
        first, second = caller.call(b"fits", 1), caller.call(b"luck", 2)
        until(lambda: len(server._outbox))
        with caller.wait(first, timeout=30) as rx:
            assert bytes(rx) == b"fits"
        with caller.wait(second, timeout=30) as rx:
            assert (rx.type_id, bytes(rx)) == (tachyon.MSG_TYPE_ERROR, b"\0\2")
    assert server.stats()["failed"] == 1


def test_a_handler_that_keeps_its_request_costs_its_caller_the_connection_and_nobody_else(serve, caplog, until):
    server = serve()
    with connect(server) as caller, connect(server) as other:
        keep.call(caller, b"precious", timeout=30)
        until(lambda: server.stats()["callers"] == 1)
        with pytest.raises(PeerClosedError):
            echo.call(caller, b"x", timeout=30)
        assert bytes(kept[0]) == b"precious"
        assert echo.call(other, b"y", timeout=30) == b"y"
    kept.clear()
    assert "cut off" in caplog.text


def test_too_large_answers_and_bad_answers_are_error_replies(serve, caplog):
    @tachyon_rpc(msg_type=5)
    def large(payload):
        return bytes(1 << 20)

    @tachyon_rpc(msg_type=6)
    def nothing(payload):
        return None

    server = serve(echo, large, nothing, send_details=True)
    with connect(server, max_large=0) as caller:
        with pytest.raises(RpcError, match="MessageTooLargeError"):
            large.call(caller, b"", timeout=30)
        with pytest.raises(RpcError, match="TypeError"):
            nothing.call(caller, b"", timeout=30)
        assert echo.call(caller, b"", timeout=30) == b""


def test_a_handler_that_raises_anything_costs_its_call_and_nobody_else(serve, caplog):
    class Own(BaseException):
        def __str__(self):
            raise GeneratorExit

    errors = [asyncio.CancelledError, GeneratorExit, Own, BaseException]

    @tachyon_rpc(msg_type=5)
    def anything(payload):
        raise errors[payload[0]]

    server = serve(echo, anything, send_details=True)
    with connect(server) as caller, connect(server) as other:
        for n, error in enumerate(errors):
            with pytest.raises(RpcError, match=error.__name__):
                anything.call(caller, bytes([n]), timeout=30)
            assert echo.call(other, b"x", timeout=30) == b"x"
            assert echo.call(caller, b"x", timeout=30) == b"x"
    assert [record.exc_info[0] for record in caplog.records] == errors
