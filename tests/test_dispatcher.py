"""Decorators and the dispatcher: the caller always gets an answer, whatever the handler does."""

import logging
import os
import pickle
import struct
import time

import pytest
from dispatchers import echo, endpoint

import tachyon
from tachyon import (
    MSG_TYPE_ERROR,
    BusEmptyError,
    MessageTooLargeError,
    RpcBus,
    RpcDispatcher,
    RpcEndpoint,
    RpcError,
    _decode_error,
    tachyon_rpc,
)

kept = []


# ---- endpoints -------------------------------------------------------------------------------------------------------


def test_an_endpoint_is_called_locally_like_the_function_it_is():
    assert echo(memoryview(b"x")) == b"x"
    assert (echo.__name__, echo.__doc__, echo.msg_type) == ("echo", "Say it again.", 1)
    assert echo.__wrapped__ is echo.handler
    assert "msg_type=1" in repr(echo)


def test_a_call_returns_bytes_or_what_on_response_makes_of_the_view(served):
    caller = served(echo)
    assert echo.call(caller, b"hello") == b"hello"
    assert echo.call(caller, bytearray(b"")) == b""
    seen = []

    def look(view):
        seen.append((type(view), view.readonly))
        return view[0]

    assert echo.call(caller, b"hello", look) == ord("h")
    assert echo.call(caller, b"hello", on_response=len, timeout=30) == 5
    assert seen == [(memoryview, True)]


@pytest.mark.parametrize(
    ("msg_type", "error"), [(-1, OverflowError), (65536, OverflowError), (65535, ValueError), ("1", TypeError)]
)
def test_a_msg_type_out_of_range_is_refused_when_the_endpoint_is_made(msg_type, error):
    with pytest.raises(error):
        tachyon_rpc(msg_type)(bytes)


def test_a_handler_has_to_be_callable():
    with pytest.raises(TypeError, match="callable"):
        RpcEndpoint(b"", 1)


def test_register_takes_endpoints_and_each_msg_type_once():
    dispatcher = RpcDispatcher()
    assert dispatcher.register(echo) is echo
    assert dispatcher.register(echo) is echo
    with pytest.raises(ValueError, match="msg_type 1 "):
        dispatcher.register(tachyon_rpc(1)(bytes))
    with pytest.raises(TypeError, match="tachyon_rpc"):
        dispatcher.register(bytes)


def test_handler_makes_and_registers_an_endpoint(served, rpc, run_thread):
    dispatcher = RpcDispatcher()

    @dispatcher.handler(5)
    def double(payload):
        return bytes(payload) * 2

    assert isinstance(double, RpcEndpoint)
    caller, callee = rpc()
    once = run_thread(dispatcher.serve_once, callee)
    assert double.call(caller, b"ab", timeout=30) == b"abab"
    once.result(30)


# ---- what a handler may do -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda p: p, b"abc"),
        (lambda p: p[1:], b"bc"),
        (lambda p: p[::-1], b"cba"),
        (lambda p: b"", b""),
        (lambda p: bytearray(b"xy"), b"xy"),
        (lambda p: memoryview(b"x_y_")[::2], b"xy"),
    ],
)
def test_any_buffer_is_an_answer_the_request_itself_too(served, function, expected):
    caller = served(endpoint(function))
    for _ in range(3):
        assert endpoint(function).call(caller, b"abc", timeout=30) == expected


def boom(payload):
    raise ValueError("boom")


def boom_with_views(payload):
    part = payload[1:]
    loop = [part]
    loop.append(loop)
    raise KeyError(part.tobytes())


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (boom, "ValueError"),
        (boom_with_views, "KeyError"),
        (lambda p: None, "TypeError"),
        (lambda p: "text", "TypeError"),
        (lambda p: 5, "TypeError"),
        (lambda p: bytes(1 << 17), "MessageTooLargeError"),
    ],
)
@pytest.mark.parametrize("details", [False, True])
def test_a_failed_handler_answers_logs_and_goes_on(served, caplog, function, name, details):
    caller = served(endpoint(function), echo, max_large=0, send_details=details)
    with caplog.at_level(logging.ERROR, "tachyon"):
        for _ in range(2):
            with pytest.raises(RpcError) as caught:
                endpoint(function).call(caller, b"abc", timeout=30)
            assert caught.value.msg_type == 9
            if details:
                assert caught.value.detail.startswith(name)
            else:
                assert caught.value.detail is None
        assert echo.call(caller, b"on", timeout=30) == b"on"
    assert len(caplog.records) == 2
    assert caplog.records[0].name == "tachyon"
    assert caplog.records[0].exc_info[0].__name__ == name
    assert "Traceback" in caplog.text


def test_the_error_reply_is_the_two_bytes_of_the_published_readme(served):
    caller = served(endpoint(boom))
    with caller.wait(caller.call(b"x", 9), timeout=30) as rx:
        assert rx.type_id == MSG_TYPE_ERROR == 0xFFFF
        assert bytes(rx) == struct.pack("!H", 9)
        assert _decode_error(bytes(rx)) == 9
    assert _decode_error(b"") is None


def test_details_are_cut_to_what_fits(served):
    def long(payload):
        raise ValueError("x" * 1000)

    caller = served(endpoint(long), reverse=64, send_details=True)
    with pytest.raises(RpcError) as caught:
        endpoint(long).call(caller, b"", timeout=30)
    assert len(caught.value.detail) == 46


def test_an_unknown_msg_type_is_answered_and_then_raised_here(rpc, run_thread):
    caller, callee = rpc()
    once = run_thread(RpcDispatcher().serve_once, callee)
    with pytest.raises(RpcError) as caught:
        echo.call(caller, b"x", timeout=30)
    assert caught.value.msg_type == 1
    with pytest.raises(RpcError, match="no handler for msg_type 1"):
        once.result(30)


def interrupt(payload):
    raise KeyboardInterrupt


def leave(payload):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda p: None, TypeError),
        (lambda p: "text", TypeError),
        (lambda p: 5, TypeError),
        (lambda p: bytes(1 << 17), MessageTooLargeError),
        (boom, ValueError),
        (interrupt, KeyboardInterrupt),
        (leave, SystemExit),
    ],
)
def test_serve_once_answers_and_then_raises_what_went_wrong(rpc, run_thread, function, error):
    caller, callee = rpc(max_large=0)
    dispatcher = RpcDispatcher()
    dispatcher.register(endpoint(function))
    once = run_thread(dispatcher.serve_once, callee)
    with pytest.raises(RpcError):
        endpoint(function).call(caller, b"x", timeout=30)
    with pytest.raises(error) as caught:
        once.result(30)
    assert type(caught.value) is error


def test_serve_once_with_a_kept_view_answers_and_raises_a_buffer_error(rpc, run_thread):
    caller, callee = rpc()
    dispatcher = RpcDispatcher()

    @dispatcher.handler(9)
    def keep(payload):
        kept.append(payload[:1])
        return b"done"

    once = run_thread(dispatcher.serve_once, callee)
    assert keep.call(caller, b"x", timeout=30) == b"done"
    with pytest.raises(BufferError, match="outlive"):
        once.result(30)
    assert bytes(kept.pop()) == b"x"


def test_serve_once_gives_up_after_its_timeout(rpc):
    _, callee = rpc()
    with pytest.raises(BusEmptyError):
        RpcDispatcher().serve_once(callee, timeout=0.01)


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_that_comes_over_a_bus_is_unpickled(served, rpc, run_thread, tmp_path):
    folder = tmp_path / "sprung"
    trap = pickle.dumps(Trap(str(folder)))
    assert echo.call(served(echo), trap, timeout=30) == trap
    caller, callee = rpc()
    calling = run_thread(echo.call, caller, trap, timeout=30)
    with callee.serve(timeout=30) as rx:
        cid = rx.correlation_id
    callee.reply(cid, struct.pack("!H", 1) + trap, MSG_TYPE_ERROR)
    with pytest.raises(RpcError) as caught:
        calling.result(30)
    assert caught.value.detail == trap.decode("utf-8", "replace")
    assert not folder.exists()
    pickle.loads(trap)
    assert folder.exists()


def test_an_error_reply_is_raised_and_never_passed_to_on_response(served):
    caller = served(endpoint(boom), send_details=True)
    seen = []
    with pytest.raises(RpcError) as caught:
        endpoint(boom).call(caller, b"x", seen.append, timeout=30)
    assert (caught.value.msg_type, caught.value.detail) == (9, "ValueError: boom")
    assert not seen


def test_a_handler_that_keeps_a_view_has_its_caller_answered_and_ends_the_loop(rpc, run_thread):
    caller, callee = rpc()

    def keep(payload):
        kept.append(payload[:1])
        return b"done"

    dispatcher = RpcDispatcher()
    dispatcher.register(endpoint(keep))
    serving = run_thread(dispatcher.serve_forever, callee)
    assert endpoint(keep).call(caller, b"x", timeout=30) == b"done"
    with pytest.raises(BufferError, match="outlive"):
        serving.result(30)
    assert bytes(kept.pop()) == b"x"


@pytest.mark.parametrize(("error", "ends"), [(SystemExit, SystemExit), (KeyboardInterrupt, None)])
def test_an_exit_within_a_handler_answers_first_and_then_ends_the_loop(path, spawn, error, ends):
    child = spawn(
        f"""
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(9)
        def leave(payload): raise {error.__name__}
        with tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60) as callee:
            try: dispatcher.serve_forever(callee)
            except SystemExit: say("exit")
            else: say("returned")
        """,
        path,
    )
    with RpcBus.connect(path, timeout=60) as caller:
        with pytest.raises(RpcError):
            endpoint(bytes).call(caller, b"", timeout=30)
        child.says("exit" if ends else "returned")


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_an_endpoint_without_a_handler_is_a_clients_stub(served):
    caller = served(echo)
    for stub in (RpcEndpoint(1), RpcEndpoint(msg_type=1)):
        assert (stub.msg_type, repr(stub)) == (1, "<RpcEndpoint msg_type=1>")
        assert stub.call(caller, b"x", timeout=30) == b"x"
        with pytest.raises(TypeError, match="no handler here"):
            stub(b"x")
        with pytest.raises(TypeError, match="no handler"):
            RpcDispatcher().register(stub)
    with pytest.raises(TypeError, match="needs a msg_type"):
        RpcEndpoint(bytes)
    with pytest.raises(OverflowError):
        RpcEndpoint(65536)


@pytest.mark.parametrize("on_response", [None, bytes])
def test_a_call_that_times_out_is_cancelled(rpc, on_response):
    caller, callee = rpc()
    with pytest.raises(BusEmptyError):
        echo.call(caller, b"x", on_response, timeout=0.01)
    assert caller.stats()["in_flight"] == 0
    with callee.serve(timeout=30) as rx:
        cid = rx.correlation_id
    callee.reply(cid, b"late")
    with pytest.raises(BusEmptyError):
        echo.call(caller, b"y", on_response, timeout=0.01)
    assert caller.stats()["dropped"] == 1


def test_one_timeout_is_for_the_call_and_the_answer_together(rpc, run_thread):
    caller, callee = rpc(64, 64)

    def make_room():
        time.sleep(0.8)
        with callee.serve(timeout=30):
            pass

    for _ in range(3):  # a slow machine may need a second try
        caller.call(b"fills it", 1)
        making = run_thread(make_room)
        start = time.monotonic()
        with pytest.raises(BusEmptyError):
            echo.call(caller, b"x", bytes, timeout=1)
        took = time.monotonic() - start
        making.result(30)
        with callee.serve(timeout=30):
            pass
        if took < 1.7:
            return
    pytest.fail(f"the answer had a timeout of its own: {took} s")


def test_a_response_view_that_is_kept_is_a_buffer_error_not_a_crash(served):
    caller = served(echo)
    views = []
    with pytest.raises(BufferError):
        echo.call(caller, b"abc", on_response=lambda view: views.append(view[1:]), timeout=30)
    assert bytes(views.pop()) == b"bc"
    assert echo.call(caller, b"x", timeout=30) == b"x"


def test_the_aliases_are_there():
    assert tachyon.rpc_listen is RpcBus.listen
    assert tachyon.rpc_connect is RpcBus.connect
