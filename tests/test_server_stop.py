"""How an RpcServer is stopped, closed and interrupted."""

import os
import signal

import pytest
from servers import connect, descriptors, echo

from tachyon import (
    BusClosedError,
    BusEmptyError,
    PeerClosedError,
    RpcBus,
    RpcDispatcher,
    RpcError,
    RpcServer,
    tachyon_rpc,
)


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
        tachyon._server.STOP_INTERVAL = 0.02  # each of the many rounds has to see a stop
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
        tachyon._server.STOP_INTERVAL = 0.001  # each of the many rounds has to see two stops
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
