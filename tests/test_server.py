"""RpcServer: many callers at one path, served by one thread."""

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
import time
from types import SimpleNamespace

import pytest

import tachyon
from tachyon import (
    BusBusyError,
    BusClosedError,
    BusEmptyError,
    CapacityError,
    HandshakeError,
    PeerClosedError,
    RpcBus,
    RpcDispatcher,
    RpcError,
    RpcServer,
    tachyon_rpc,
)


@tachyon_rpc(msg_type=1)
def echo(payload):
    return payload


@tachyon_rpc(msg_type=2)
def fail(payload):
    raise ValueError("no " + bytes(payload).decode())


kept = []


@tachyon_rpc(msg_type=3)
def keep(payload):
    kept.append(memoryview(payload))
    return b"kept"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:tachyon" in line for line in maps)


def connect(server):
    return RpcBus.connect(server._listener.path, timeout=30)


@pytest.fixture
def serve(path, run_thread):
    """serve(*endpoints, **options) → RpcServer that a thread runs."""
    running = []

    def make(*endpoints, forward=1 << 16, reverse=1 << 16, **options):
        dispatcher = RpcDispatcher(**options)
        for each in endpoints or (echo, fail, keep):
            dispatcher.register(each)
        server = RpcServer(path, dispatcher, forward, reverse)
        running.append((server, run_thread(server.serve_forever)))
        return server

    yield make
    for server, thread in running:
        server.stop()
        thread.result(60)
        server.close()


CALLER = """
import struct
echo = tachyon.tachyon_rpc(1)(bytes)
with tachyon.RpcBus.connect(path, timeout=60) as bus:
    for n in range(int(sys.argv[2])):
        payload = struct.pack("!IQ", os.getpid(), n) * (n % 50)
        assert echo.call(bus, payload, timeout=60) == payload
say("content")
"""


def test_callers_in_many_processes_get_their_own_answers(serve, spawn, path):
    server = serve()
    children = [spawn(CALLER, path, 2000) for _ in range(5)]
    for child in children:
        child.says("content")
        child.ends()
    stats = server.stats()
    assert (stats["served"], stats["accepted"], stats["failed"]) == (10_000, 5, 0)


def test_the_server_serves_the_dispatchers_handlers_and_answers_for_the_missing_ones(serve, caplog):
    server = serve(send_details=True)
    with connect(server) as one, connect(server) as two:
        assert echo.call(one, b"1", timeout=30) == b"1"
        with pytest.raises(RpcError, match="ValueError: no luck") as caught:
            fail.call(two, b"luck", timeout=30)
        assert caught.value.detail == "ValueError: no luck"
        with pytest.raises(RpcError, match="no handler"):
            tachyon_rpc(77)(bytes).call(one, b"", timeout=30)
        assert echo.call(two, b"2", timeout=30) == b"2"
    assert [record.message for record in caplog.records] == ["a call failed", "a call failed"]
    assert caplog.records[0].exc_info[0] is ValueError
    assert server.stats()["failed"] == 2


def test_callers_are_served_in_turn_however_many_calls_one_has_waiting(path, run_thread):
    served = []

    @tachyon_rpc(msg_type=1)
    def note(payload):
        served.append(bytes(payload))
        return b""

    dispatcher = RpcDispatcher()
    dispatcher.register(note)
    server = RpcServer(path, dispatcher)
    serving = run_thread(server.serve_forever)
    one, two = connect(server), connect(server)
    server.stop()
    serving.result(30)
    for _ in range(50):
        one.call(b"greedy", 1)
    for _ in range(3):
        two.call(b"modest", 1)
    last = one.call(b"greedy", 1)
    serving = run_thread(server.serve_forever)
    one.wait(last, timeout=30).__exit__(None, None, None)
    assert served[:6].count(b"modest") == 3
    server.stop()
    serving.result(30)
    server.close()
    one.close()
    two.close()


def test_an_idle_server_sleeps_and_is_woken(serve, until):
    server = serve()
    with connect(server) as caller:
        for _ in range(3):
            assert echo.call(caller, b"x", timeout=30) == b"x"
            time.sleep(0.25)  # long enough for two sleeps
    until(lambda: server.stats()["callers"] == 0)


def test_a_caller_that_does_not_read_its_answers_keeps_only_itself_waiting(serve, until):
    server = serve(reverse=4096)
    with connect(server) as lazy, connect(server) as other:
        ids = [lazy.call(bytes([n]) * 1000, 1, timeout=30) for n in range(30)]
        for n in range(200):
            assert echo.call(other, b"%d" % n, timeout=30) == b"%d" % n
        until(lambda: server._pending and any(server._pending.values()))
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
        first, second = caller.call(b"1" * 3000, 5, timeout=30), caller.call(b"", 6, timeout=30)
        third = caller.call(b"3" * 3000, 5, timeout=30)
        until(lambda: any(server._pending.values()))
        for cid, answer in ((first, b"1" * 3000), (third, b"3" * 3000)):
            with caller.wait(cid, timeout=30) as rx:
                assert bytes(rx) == answer
        with caller.wait(second, timeout=30) as rx:
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
        until(lambda: any(server._pending.values()))
        with caller.wait(first, timeout=30) as rx:
            assert bytes(rx) == b"fits"
        with caller.wait(second, timeout=30) as rx:
            assert (rx.type_id, bytes(rx)) == (tachyon.MSG_TYPE_ERROR, b"\0\2")
    assert server.stats()["failed"] == 1


def test_a_caller_that_goes_with_answers_unread_is_forgotten(serve, until, spawn, path):
    server = serve(reverse=4096)
    child = spawn(
        """
        bus = tachyon.RpcBus.connect(path, timeout=30)
        for n in range(30): bus.call(bytes(1000), 1)
        say("called")
        hear()
        """,
        path,
    )
    child.says("called")
    until(lambda: any(server._pending.values()))
    child.kill()
    until(lambda: server.stats()["callers"] == 0)
    with connect(server) as other:
        assert echo.call(other, b"x", timeout=30) == b"x"


@pytest.mark.parametrize("end", ["close", "kill"])
def test_callers_that_end_leave_nothing_behind(serve, spawn, until, path, end):
    server = serve()
    with connect(server) as stays:
        echo.call(stays, b"x", timeout=30)
        until(lambda: server.stats()["callers"] == 1)
        before = descriptors(), mappings()
        children = [
            spawn(
                """
                bus = tachyon.RpcBus.connect(path, timeout=30)
                tachyon.tachyon_rpc(1)(bytes).call(bus, b"x", timeout=30)
                say("served")
                hear()
                bus.close()
                """,
                path,
            )
            for _ in range(3)
        ]
        for child in children:
            child.says("served")
        assert server.stats()["callers"] == 4
        for child in children:
            if end == "kill":
                child.kill()
            else:
                child.tell()
                child.ends()
        until(lambda: server.stats()["callers"] == 1)
        for child in children:
            child.clean_up()
        until(lambda: mappings() == before[1])
        assert echo.call(stays, b"y", timeout=30) == b"y"


@pytest.mark.parametrize("how", ["os.fork", "_Fork"])
def test_a_callers_death_is_seen_though_its_forked_child_lives(serve, spawn, until, path, how):
    """_Fork is glibc's fork that runs no handlers: that child holds open whatever its parent had open."""
    if how == "_Fork" and not hasattr(ctypes.CDLL(None), "_Fork"):
        pytest.skip("this libc has no _Fork")
    server = serve()
    child = spawn(
        """
        bus = tachyon.RpcBus.connect(path, timeout=30)
        pid = os.fork() if sys.argv[2] == "os.fork" else ctypes.CDLL(None)._Fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        say(pid)
        hear()
        """,
        path,
        how,
    )
    orphan = int(child.line())
    try:
        until(lambda: server.stats()["callers"] == 1)
        child.kill()
        until(lambda: server.stats()["callers"] == 0)
        os.kill(orphan, 0)  # still there
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_each_caller_costs_two_descriptors(serve, spawn, until, path):
    server = serve()
    children = [
        spawn("say('ready'); hear(); bus = tachyon.RpcBus.connect(path, timeout=30); say('up'); hear()", path)
        for _ in range(3)
    ]
    for child in children:
        child.says("ready")
    gc.collect()
    for number, child in enumerate(children, 1):
        child.tell()
        child.says("up")
        until(lambda number=number: server.stats()["callers"] == number)
        if number == 1:
            first = descriptors()  # before, there was the memory for the first caller
        assert descriptors() == first + 2 * (number - 1)


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


def segments():
    """Where the rings of this process are mapped."""
    with open("/proc/self/maps") as maps:
        return {int(line.split("-")[0], 16) for line in maps if "memfd:tachyon" in line}


def test_a_caller_that_corrupts_its_ring_costs_itself_the_connection_and_nobody_else(serve, caplog, until):
    server = serve()
    with connect(server) as other:
        assert echo.call(other, b"x", timeout=30) == b"x"
        before = segments()
        with connect(server) as vandal, open("/proc/self/mem", "r+b", buffering=0) as memory:
            until(lambda: server.stats()["callers"] == 2)
            for start in segments() - before:
                memory.seek(start + 4096)
                memory.write((0x7FFFFFFF).to_bytes(8, "little"))  # a first frame of two gigabytes
            until(lambda: server.stats()["callers"] == 1)
            with pytest.raises(tachyon.PeerDeadError):
                while True:
                    vandal.call(b"x", 1, timeout=1)
        assert "corrupt" in caplog.text
        assert echo.call(other, b"y", timeout=30) == b"y"


def test_a_plain_bus_is_told_what_the_server_is_and_does_not_end_it(serve):
    server = serve()
    with pytest.raises(HandshakeError, match="RpcBus listens"):
        tachyon.Bus.connect(server._listener.path, timeout=30)
    with connect(server) as caller:
        assert echo.call(caller, b"x", timeout=30) == b"x"


def test_too_large_answers_and_bad_answers_are_error_replies(serve, caplog):
    @tachyon_rpc(msg_type=5)
    def large(payload):
        return bytes(1 << 20)

    @tachyon_rpc(msg_type=6)
    def nothing(payload):
        return None

    server = serve(echo, large, nothing, send_details=True)
    with connect(server) as caller:
        with pytest.raises(RpcError, match="MessageTooLargeError"):
            large.call(caller, b"", timeout=30)
        with pytest.raises(RpcError, match="TypeError"):
            nothing.call(caller, b"", timeout=30)
        assert echo.call(caller, b"", timeout=30) == b""


def test_a_handlers_systemexit_ends_the_server_once_its_caller_is_answered(path, run_thread):
    @tachyon_rpc(msg_type=1)
    def leave(payload):
        raise SystemExit(3)

    dispatcher = RpcDispatcher()
    dispatcher.register(leave)
    with RpcServer(path, dispatcher) as server:
        serving = run_thread(server.serve_forever)
        with connect(server) as caller:
            with pytest.raises(RpcError):
                leave.call(caller, b"", timeout=30)
            with pytest.raises(SystemExit):
                serving.result(30)


@pytest.mark.parametrize("leave", ["close", "kill"])
def test_a_ctrl_c_within_a_handler_whose_caller_has_gone_ends_the_server(path, spawn, leave):
    caller = spawn(
        """
        bus = tachyon.RpcBus.connect(path, timeout=60)
        bus.call(b"", 1)
        say("called")
        hear()
        bus.close()
        say("closed")
        hear()
        """,
        path,
    )
    server = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(1)
        def wait(payload):
            say("serving")
            hear()
            signal.raise_signal(signal.SIGINT)
        with tachyon.RpcServer(path, dispatcher) as server:
            server.serve_forever()
            say("interrupted", server.stats()["failed"])
        """,
        path,
    )
    caller.says("called")
    server.says("serving")
    if leave == "close":
        caller.tell()
        caller.says("closed")
    else:
        caller.kill()
    server.tell()
    server.says("interrupted 1")
    server.ends()


def test_stop_ends_serving_keeps_callers_and_serving_goes_on(path, run_thread):
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)
    with RpcServer(path, dispatcher) as server:
        serving = run_thread(server.serve_forever)
        with connect(server) as caller:
            assert echo.call(caller, b"1", timeout=30) == b"1"
            server.stop()
            serving.result(30)
            cid = caller.call(b"2", 1)
            with pytest.raises(BusEmptyError):
                caller.wait(cid, timeout=0.05)
            serving = run_thread(server.serve_forever)
            with caller.wait(cid, timeout=30) as rx:
                assert bytes(rx) == b"2"
            server.stop()
            serving.result(30)


@pytest.mark.parametrize("kind", ["server", "dispatcher"])
def test_stop_may_be_interrupted_by_itself(path, spawn, kind):
    child = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        server = tachyon.RpcServer(path, dispatcher)
        stop = (server if sys.argv[2] == "server" else dispatcher).stop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop())
        depth = 0
        def at_every_line(frame, event, _):  # the worst moments for a second signal: all of them
            global depth
            if depth == 0 and frame.f_code.co_name != "<lambda>":
                depth = 1
                signal.raise_signal(signal.SIGTERM)
                depth = 0
            return at_every_line
        sys.settrace(at_every_line)
        signal.raise_signal(signal.SIGINT)
        sys.settrace(None)
        if sys.argv[2] == "server": server.serve_forever()
        say("stopped")
        """,
        path,
        kind,
    )
    child.says("stopped")
    child.ends()


def test_close_from_another_thread_ends_serving_and_tells_every_caller(serve, path, until):
    server = serve()
    caller = connect(server)
    assert echo.call(caller, b"1", timeout=30) == b"1"
    server.close()
    with pytest.raises(PeerClosedError):
        while True:
            echo.call(caller, b"2", timeout=30)
    caller.close()
    until(lambda: not os.path.exists(path))
    assert server.closed
    with pytest.raises(BusClosedError):
        server.serve_forever()
    with pytest.raises(BusClosedError):
        server.__enter__()


def test_close_at_any_moment_of_serve_forever_closes_the_server(spawn, path):
    child = spawn(
        """
        import threading
        dispatcher = tachyon.RpcDispatcher()
        closing = 0
        def trace(frame, event, _):  # close() at the n-th line, from another thread or from a signal handler
            global lines
            if frame.f_code.co_name in ("_serve_until_stopped", "_close") and event == "line":
                lines += 1
                if lines == at and not server._closing:
                    close()
            return trace
        def close():
            sys.settrace(None)
            thread = threading.Thread(target=server.close)
            thread.start()
            thread.join()
            sys.settrace(trace)
        at, reached = 0, True
        while reached:
            at += 1
            lines = 0
            server = tachyon.RpcServer(path, dispatcher)
            server.stop()
            sys.settrace(trace)
            try:
                server.serve_forever()
            except tachyon.BusClosedError:
                pass
            sys.settrace(None)
            reached = lines >= at
            if reached and os.path.exists(path):
                say("open after a close at line", at)
            server.close()
        say("lines" if at > 2 else at)
        """,
        path,
    )
    child.says("lines")
    child.ends()


def test_one_thread_serves_at_a_time(serve, until):
    server = serve()
    with connect(server) as caller:
        echo.call(caller, b"", timeout=30)
        with pytest.raises(BusBusyError, match="another thread"):
            server.serve_forever()


def test_bad_arguments_are_refused(path):
    with pytest.raises(TypeError, match="RpcDispatcher"):
        RpcServer(path, object())
    with pytest.raises(CapacityError):
        RpcServer(path, RpcDispatcher(), 3)
    with pytest.raises(CapacityError):
        RpcServer(path, RpcDispatcher(), 4096, 0)
    assert not os.path.exists(path)


def test_ctrl_c_ends_a_server_and_sigterm_may_stop_it(spawn, path):
    child = spawn(
        """
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(bytes))
        with tachyon.RpcServer(path, dispatcher) as server:
            signal.signal(signal.SIGTERM, lambda *_: server.stop())
            say("ready")
            server.serve_forever()
            say("interrupted")
            server.serve_forever()
            say("stopped")
        say(os.path.exists(path))
        """,
        path,
    )
    child.says("ready")
    with RpcBus.connect(path, timeout=30) as caller:
        assert echo.call(caller, b"x", timeout=30) == b"x"
        child.falls_asleep()
        child.send_signal(signal.SIGINT)
        child.says("interrupted")
        assert echo.call(caller, b"x", timeout=30) == b"x"
        child.send_signal(signal.SIGTERM)
        child.says("stopped", "False")
    child.ends()


def test_ctrl_c_between_any_two_steps_leaves_no_caller_waiting_for_what_never_comes(spawn, path):
    child = spawn(
        """
        import threading
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        def trace(frame, event, _):
            global lines
            if not frame.f_code.co_filename.endswith(("_server.py", "_dispatcher.py")):
                return None
            if event == "line" and frame.f_code.co_name != "_close":
                lines += 1
                if lines == at:
                    raise KeyboardInterrupt
            return trace
        def use():
            global ended
            try:
                with tachyon.RpcBus.connect(path, timeout=60) as bus:
                    ids = [bus.call(bytes(3000), 1) for _ in range(3)]
                    time.sleep(0.01)  # until there is no room for an answer
                    for cid in ids:
                        with bus.wait(cid, timeout=30): pass
                ended = "answered"
            except tachyon.PeerClosedError:
                ended = "told"
            except BaseException as error:
                ended = f"{error!r} for Ctrl-C at {at}"
            server.stop()
        at, reached, ends = 0, True, set()
        while reached:
            at, lines, ended = at + 1, 0, None
            with tachyon.RpcServer(path, dispatcher, 1 << 16, 4096) as server:
                caller = threading.Thread(target=use)
                caller.start()
                sys.settrace(trace)
                while ended is None:
                    server.serve_forever()
                sys.settrace(None)
                caller.join()
                ends.add(ended)
            reached = lines >= at and ended in ("answered", "told")
        say(*sorted(ends))
        """,
        path,
    )
    child.says("answered told")
    child.ends()


def test_ctrl_c_at_any_opcode_leaves_a_server_that_serves_again_and_closes(spawn, path):
    child = spawn(
        """
        import logging, threading
        logging.disable(logging.CRITICAL)
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        dispatcher.register(tachyon.tachyon_rpc(2)(len))
        def trace(frame, event, _):
            global count
            if not frame.f_code.co_filename.endswith(("_server.py", "_dispatcher.py")):
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == at:
                    raise KeyboardInterrupt
            return trace
        def use():
            try:
                with tachyon.RpcBus.connect(path, timeout=60) as bus:
                    for kind in (1, 2):
                        with bus.wait(bus.call(b"x", kind), timeout=30): pass
            except tachyon.PeerClosedError:
                pass
            except BaseException as error:
                say(f"{error!r} after a Ctrl-C at {at}")
            ended.set()
            server.stop()
        at, reached = 0, True
        while reached:
            at, count, ended = at + 1, 0, threading.Event()
            server = tachyon.RpcServer(path, dispatcher)
            caller = threading.Thread(target=use)
            caller.start()
            sys.settrace(trace)
            try:
                while not ended.is_set():
                    server.serve_forever()
                server.stop()
                server.serve_forever()
                for _ in range(2):
                    try: server.close()
                    except KeyboardInterrupt: pass
            except KeyboardInterrupt:
                say("came out at", at)
            sys.settrace(None)
            caller.join()
            reached = count >= at
            if os.path.exists(path) or not server.closed: say("open after a Ctrl-C at", at); break
        say("opcodes" if at > 50 else at)
        """,
        path,
    )
    child.says("opcodes")
    child.ends()


def test_a_closed_server_has_no_descriptor_left(path):
    RpcServer(path, RpcDispatcher()).close()
    before = descriptors()
    server = RpcServer(path, RpcDispatcher())
    server.close()
    assert descriptors() == before


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


def test_newcomers_without_end_do_not_keep_the_server_from_its_callers(path):
    class Endless:
        path = "endless"
        accepted = 0

        def try_accept(self):
            self.accepted += 1
            assert self.accepted < 1000
            return object()

    with RpcServer(path, RpcDispatcher()) as server:
        listener, waiting = server._listener, server._waiting
        server._listener = Endless()
        server._waiting = SimpleNamespace(add=lambda bus: None)
        try:
            server._accept()
            assert server.stats()["accepted"] == server._listener.accepted == 16
        finally:
            server._pending.clear()
            server._listener, server._waiting = listener, waiting


def test_more_callers_than_are_let_in_at_once_are_all_served(path, run_thread):
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)
    with RpcServer(path, dispatcher, 4096, 4096) as server:

        def call(n):
            with RpcBus.connect(path, timeout=60) as caller:
                return echo.call(caller, b"%d" % n, bytes, timeout=60)

        calling = [run_thread(call, n) for n in range(40)]
        serving = run_thread(server.serve_forever)
        try:
            for each in calling:
                each.result(60)
        finally:
            server.stop()
            serving.result(60)
        assert server.stats()["accepted"] == server.stats()["served"] == 40


def test_without_descriptors_for_one_more_caller_the_others_are_served(spawn, path):
    child = spawn(
        """
        import logging, resource
        logging.basicConfig(stream=sys.stdout, format="%(message).30s")
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(bytes))
        with tachyon.RpcServer(path, dispatcher) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
            say("ready")
            server.serve_forever()
        """,
        path,
    )
    child.says("ready")
    start = time.monotonic()
    callers = []
    with pytest.raises(tachyon.TachyonError):
        for _ in range(40):
            callers.append(RpcBus.connect(path, timeout=1))
            assert echo.call(callers[-1], b"x", timeout=30) == b"x"
    assert len(callers) >= 3
    child.says("a caller could not be let in: ")
    for caller in callers:
        assert echo.call(caller, b"x", timeout=30) == b"x"
    for caller in callers:
        caller.close()
    with RpcBus.connect(path, timeout=60) as late:
        assert echo.call(late, b"x", timeout=30) == b"x"
    child.kill()
    # After each, nobody else is let in for a second.
    rest = child._rest + child.process.stdout.read()
    assert rest.count(b"could not be let in") <= time.monotonic() - start


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_of_a_server_is_no_server(serve):
    server = serve()
    with connect(server) as caller:
        assert echo.call(caller, b"x", timeout=30) == b"x"
        pid = os.fork()
        if pid == 0:
            os._exit(0 if server.closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert echo.call(caller, b"y", timeout=30) == b"y"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_that_closes_its_copy_of_a_server_does_not_close_the_parents(path, run_thread):
    dispatcher = RpcDispatcher()
    dispatcher.register(echo)
    with RpcServer(path, dispatcher) as server:
        pid = os.fork()
        if pid == 0:
            server.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        serving = run_thread(server.serve_forever)
        with connect(server) as caller:
            assert echo.call(caller, b"x", timeout=30) == b"x"
        server.stop()
        serving.result(30)


def test_an_exit_in_a_child_that_a_handler_forked_is_the_childs_alone(path, spawn):
    child = spawn(
        """
        import warnings
        warnings.simplefilter("ignore")
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(1)
        def fork(payload):
            if os.fork() == 0:
                sys.exit(3)
            return b"%d" % os.waitstatus_to_exitcode(os.wait()[1])
        with tachyon.RpcServer(path, dispatcher) as server:
            say("ready")
            server.serve_forever()
        """,
        path,
    )
    child.says("ready")
    for _ in range(2):
        with RpcBus.connect(path, timeout=30) as caller:
            assert echo.call(caller, b"", timeout=30) == b"3"
    child.kill()


SOAK_CALLER = """
import random
rng = random.Random(os.getpid())
echo = tachyon.tachyon_rpc(1)(bytes)
while True:
    try:
        bus = tachyon.RpcBus.connect(path, timeout=60)
    except tachyon.HandshakeError as error:
        say("connect", error)
        continue
    say("up")
    for n in range(rng.randrange(1, 400)):
        payload = os.getpid().to_bytes(4, "big") * rng.randrange(0, 200) + n.to_bytes(4, "big")
        if echo.call(bus, payload, timeout=60) != payload:
            say("wrong answer"); sys.exit(1)
        if rng.random() < 0.02: time.sleep(0.01)
    bus.close()
"""


@pytest.mark.parametrize(
    ("callers", "seconds"), [(12, 4), pytest.param(100, 60, marks=[pytest.mark.long, pytest.mark.timeout(400)])]
)
def test_callers_killed_and_replaced_at_random_harm_nobody_and_leak_nothing(path, spawn, callers, seconds, caplog):
    caplog.set_level(logging.CRITICAL)  # a warning for each death
    server_process = spawn(
        """
        import logging, threading
        logging.disable(logging.CRITICAL)
        def held():
            with open("/proc/self/maps") as maps:
                mapped = sum("memfd:tachyon" in line for line in maps)
            return len(os.listdir("/proc/self/fd")), mapped
        dispatcher = tachyon.RpcDispatcher()
        dispatcher.register(tachyon.tachyon_rpc(1)(lambda payload: payload))
        server = tachyon.RpcServer(path, dispatcher)
        before = held()
        say("ready")
        def control():
            while (word := hear()) != "end":
                if word == "stats": say(server.stats()["served"])
            deadline = time.monotonic() + 30
            while server.stats()["callers"] and time.monotonic() < deadline: time.sleep(0.01)
            say("callers", server.stats()["callers"])
            server.stop()
        threading.Thread(target=control, daemon=True).start()
        server.serve_forever()
        after = held()  # `before` had the memory for the first caller
        say("clean" if after[0] <= before[0] and after[1] == 0 else f"{before} {after}")
        server.close()
        """,
        path,
    )
    server_process.says("ready")
    rng = random.Random(1)
    alive = [spawn(SOAK_CALLER, path) for _ in range(callers)]
    for child in alive:
        child.says("up")
    end = time.monotonic() + seconds
    killed = 0
    while time.monotonic() < end:
        victim = rng.randrange(callers)
        assert alive[victim].process.poll() is None, alive[victim].complaint()
        alive[victim].kill()
        alive[victim].clean_up()
        killed += 1
        alive[victim] = spawn(SOAK_CALLER, path)
        time.sleep(rng.random() * 0.1)
    server_process.tell("stats")
    served = int(server_process.line())
    # Each survivor still gets its answers, and only its own.
    for child in alive:
        assert child.process.poll() is None, child.complaint()
        child.kill()
        said = child._rest + child.process.stdout.read()
        assert set(said.split(b"\n")) <= {b"up", b""}, said
    server_process.tell("end")
    server_process.says("callers 0", "clean")
    server_process.ends()
    assert killed > seconds
    assert served > 100
