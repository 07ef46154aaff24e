"""Callers of an RpcServer that close, die, corrupt their rings or fork."""

import ctypes
import logging
import os
import random
import signal
import time

import pytest
from servers import connect, descriptors, echo

import tachyon
from tachyon import (
    RpcBus,
    RpcDispatcher,
    RpcServer,
)


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:tachyon" in line for line in maps)


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
    until(lambda: len(server._outbox))
    child.kill()
    until(lambda: server.stats()["callers"] == 0)
    with connect(server) as other:
        assert echo.call(other, b"x", timeout=30) == b"x"


def test_a_call_that_there_is_no_memory_for_costs_its_caller_the_connection(
    serve, until, spawn, path, no_descriptors, caplog
):
    server = serve(forward=4096, reverse=4096)
    child = spawn(
        """
        bus = tachyon.RpcBus.connect(path, timeout=30)
        hear()
        bus.call(bytes(100_000), 1)
        try: bus.wait(1)
        except tachyon.PeerClosedError: say("cut off")
        """,
        path,
    )
    until(lambda: server.stats()["callers"] == 1)
    with no_descriptors:
        child.tell()
        until(lambda: server.stats()["callers"] == 0)
    child.says("cut off")
    assert "cut off" in caplog.text
    with connect(server) as other:
        assert echo.call(other, bytes(5000), timeout=30) == bytes(5000)


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
