"""The dispatcher's loop: what ends it, and what does not."""

import asyncio
import signal
import sys
import threading

import pytest
from dispatchers import echo, endpoint

import tachyon
from tachyon import (
    PeerClosedError,
    PeerDeadError,
    RpcBus,
    RpcDispatcher,
    RpcError,
)

SERVER = """
dispatcher = tachyon.RpcDispatcher()
@dispatcher.handler(1)
def echo(payload): return payload
{extra}
with tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60) as callee:
    say("open")
    dispatcher.serve_forever(callee)
say("returned")
"""


def test_serve_forever_returns_when_the_caller_closes(path, spawn):
    child = spawn(SERVER.format(extra=""), path)
    with RpcBus.connect(path, timeout=60) as caller:
        assert echo.call(caller, b"x", timeout=30) == b"x"
    child.says("open", "returned")
    child.ends()


def test_serve_forever_returns_when_the_caller_dies(path, spawn):
    child = spawn(SERVER.format(extra=""), path)
    other = spawn("caller = tachyon.RpcBus.connect(path, timeout=60); say('open'); hear()", path)
    other.says("open")
    other.kill()
    child.says("open", "returned")
    child.ends()


def test_stop_ends_serving_though_an_answer_waits_for_room_and_the_next_serving_sends_it(rpc, run_thread, until):
    caller, callee = rpc(1 << 16, 4096)
    dispatcher = RpcDispatcher()
    dispatcher.register(endpoint(lambda payload: bytes(payload) * 3000))
    serving = run_thread(dispatcher.serve_forever, callee)
    ids = [caller.call(b"%d" % n, 9) for n in range(5)]
    until(lambda: len(dispatcher._outbox))
    dispatcher.stop()
    serving.result(30)
    serving = run_thread(dispatcher.serve_forever, callee)
    for n, cid in enumerate(ids):
        with caller.wait(cid, timeout=30) as rx:
            assert bytes(rx) == b"%d" % n * 3000
    assert not len(dispatcher._outbox)
    caller.close()
    serving.result(30)


def test_serve_forever_returns_on_ctrl_c(path, spawn):
    child = spawn(SERVER.format(extra=""), path)
    with RpcBus.connect(path, timeout=60) as caller:
        child.says("open")
        assert echo.call(caller, b"x", timeout=30) == b"x"
        child.send_signal(signal.SIGINT)
        child.says("returned")
        child.ends()
        with pytest.raises((PeerClosedError, PeerDeadError)):
            echo.call(caller, b"x", timeout=30)


def test_ctrl_c_while_a_reply_waits_for_room_ends_the_loop(path, spawn):
    child = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(1)
        def last(payload): say("answering"); return b"no room"
        with tachyon.RpcBus.listen(path, 1 << 16, 64, timeout=60) as callee:
            with callee.serve() as rx: cid = rx.correlation_id
            callee.reply(cid, b"full")
            dispatcher.serve_forever(callee)
            say("returned", callee.closed)
        """,
        path,
    )
    with RpcBus.connect(path, timeout=60) as caller:
        caller.call(b"", 1)
        caller.call(b"", 1)
        child.says("answering")
        child.falls_asleep()
        child.send_signal(signal.SIGINT)
        child.says("returned False")
    child.ends()


def test_stop_from_a_signal_handler_ends_the_loop(path, spawn):
    child = spawn(SERVER.format(extra="signal.signal(signal.SIGTERM, lambda *_: dispatcher.stop())"), path)
    with RpcBus.connect(path, timeout=60):
        child.says("open")
        child.falls_asleep()
        child.send_signal(signal.SIGTERM)
        child.says("returned")
        child.ends()


def test_stop_from_another_thread_ends_the_loop(rpc, run_thread):
    caller, callee = rpc()
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)
    serving = run_thread(dispatcher.serve_forever, callee)
    assert echo.call(caller, b"x", timeout=30) == b"x"
    threading.Timer(0.01, dispatcher.stop).start()
    serving.result(30)
    assert not callee.closed


def test_a_stop_that_comes_too_early_ends_the_next_loop_only(rpc, run_thread):
    caller, callee = rpc()
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)
    dispatcher.stop()
    dispatcher.serve_forever(callee)
    serving = run_thread(dispatcher.serve_forever, callee)
    assert echo.call(caller, b"x", timeout=30) == b"x"
    dispatcher.stop()
    serving.result(30)


def test_a_callee_killed_within_a_handler_is_an_error_for_the_caller(path, spawn):
    child = spawn(SERVER.format(extra="dispatcher.handler(9)(lambda p: os.kill(os.getpid(), signal.SIGKILL))"), path)
    with RpcBus.connect(path, timeout=60) as caller:
        child.says("open")
        with pytest.raises(PeerDeadError) as caught:
            endpoint(bytes).call(caller, b"", timeout=30)
        assert caught.value.reason == "died"


def test_a_handler_with_trouble_of_its_own_does_not_end_the_loop(served):
    def trouble(payload):
        raise tachyon.PeerDeadError("some other bus")

    caller = served(endpoint(trouble), echo)
    with pytest.raises(RpcError):
        endpoint(trouble).call(caller, b"", timeout=30)
    assert echo.call(caller, b"x", timeout=30) == b"x"


class Own(BaseException):
    pass


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, Own])
def test_a_handler_that_raises_anything_does_not_end_the_loop(served, caplog, error):
    def anything(payload):
        raise error

    caller = served(endpoint(anything), echo)
    with pytest.raises(RpcError):
        endpoint(anything).call(caller, b"", timeout=30)
    assert echo.call(caller, b"x", timeout=30) == b"x"
    assert caplog.records[0].exc_info[0] is error


@pytest.mark.parametrize("fails", [False, True])
def test_a_handler_that_answers_its_call_itself_is_logged_and_the_loop_goes_on(rpc, run_thread, caplog, fails):
    caller, callee = rpc()
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)

    @dispatcher.handler(9)
    def own(payload):
        callee.reply(1, b"mine")
        if fails:
            raise KeyError("too late")
        return b"dropped"

    serving = run_thread(dispatcher.serve_forever, callee)
    assert own.call(caller, b"", timeout=30) == b"mine"
    assert echo.call(caller, b"x", timeout=30) == b"x"
    caller.close()
    serving.result(30)
    assert [record.exc_info[0] for record in caplog.records] == [KeyError if fails else ValueError]


def test_ctrl_c_at_any_opcode_of_a_call_leaves_nothing_behind(served):
    caller = served(echo)

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename != tachyon._rpc.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == at:
                raise KeyboardInterrupt
        return trace

    before, at, reached = sys.gettrace(), 0, True
    while reached:
        at, count = at + 1, 0
        sys.settrace(trace)
        try:
            echo.call(caller, b"x", bytes, timeout=30)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        reached = count >= at
        stats = caller.stats()
        assert (stats["in_flight"], stats["set_aside"]) == (0, 0), at
        assert echo.call(caller, b"y", timeout=30) == b"y"
    assert at > 10


def test_ctrl_c_at_any_opcode_of_a_dispatcher_does_not_come_out(path, spawn):
    child = spawn(
        """
        import threading
        def stop_once_idle(dispatcher):
            seen = 0
            while seen != count or count == 0:
                seen = count
                time.sleep(0.01)
            dispatcher.stop()
        def trace(frame, event, _):
            global count
            if not frame.f_code.co_filename.endswith("_dispatcher.py"):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == at:
                    raise KeyboardInterrupt
            return trace
        threading.Thread(target=lambda: (tachyon.RpcBus.connect(path, timeout=60), hear()), daemon=True).start()
        callee = tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60)
        at, reached = 0, True
        while reached:
            at, count = at + 1, 0
            dispatcher = tachyon.RpcDispatcher()  # of its own, so that a stop that came too late is nobody else's
            stopper = threading.Thread(target=stop_once_idle, args=(dispatcher,))
            stopper.start()
            sys.settrace(trace)
            try:
                dispatcher.serve_forever(callee)
            except KeyboardInterrupt:
                say("came out at", at)
            sys.settrace(None)
            stopper.join()
            reached = count >= at
        say("opcodes" if at > 10 else at)
        """,
        path,
    )
    child.says("opcodes")
