"""RpcServer: many callers at one path, served by one thread."""

import gc
import os
import time
from types import SimpleNamespace

import pytest
from servers import connect, descriptors, echo, fail

import tachyon
from tachyon import (
    BusBusyError,
    CapacityError,
    HandshakeError,
    RpcBus,
    RpcDispatcher,
    RpcError,
    RpcServer,
    tachyon_rpc,
)

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


def test_a_plain_bus_is_told_what_the_server_is_and_does_not_end_it(serve):
    server = serve()
    with pytest.raises(HandshakeError, match="RpcBus listens"):
        tachyon.Bus.connect(server._listener.path, timeout=30)
    with connect(server) as caller:
        assert echo.call(caller, b"x", timeout=30) == b"x"


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
            server._callers.clear()
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
