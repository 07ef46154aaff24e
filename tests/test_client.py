"""RpcClient: connects when it has to, and sends each call once."""

import contextlib
import copy
import os
import pickle
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import tachyon

PATIENCE = 60
echo = tachyon.RpcEndpoint(1)

# Notes each call before it is answered, in one write that no kill can tear.
SERVER = """
import signal
notes = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
dispatcher = tachyon.RpcDispatcher()
@tachyon.tachyon_rpc(1)
def echo(payload):
    os.write(notes, bytes(payload) + b"\\n")
    return payload.tobytes()
@tachyon.tachyon_rpc(2)
def never(payload):
    os.write(notes, bytes(payload) + b"\\n")
    time.sleep(90)
dispatcher.register(echo)
dispatcher.register(never)
with tachyon.RpcServer(path, dispatcher) as server:
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    say("serving")
    server.serve_forever()
"""


@pytest.fixture
def serve(spawn, path, tmp_path):
    """serve() → Child: a server that listens. serve.notes: the calls that it, or one before, has served."""

    def make():
        server = spawn(SERVER, path, tmp_path / "notes")
        server.says("serving")
        return server

    make.notes = lambda: Counter(Path(tmp_path / "notes").read_text().split())
    return make


@pytest.fixture
def client(path):
    with tachyon.RpcClient(path) as client:
        yield client


@pytest.mark.parametrize(("limit", "most"), [(0, (1 << 20) - 16), (1 << 21, 1 << 21)])
def test_it_says_how_large_a_call_may_be(serve, path, limit, most):
    serve()
    with tachyon.RpcClient(path, max_large=limit) as client:
        assert echo.call(client, bytes(most), timeout=PATIENCE) == bytes(most)
        with pytest.raises(tachyon.MessageTooLargeError, match=f"at most {most} "):
            client.call(bytes(most + 1), 1, timeout=PATIENCE)


def test_it_connects_on_first_use(client, serve, path):
    assert not client.connected
    assert not os.path.exists(path)
    server = serve()
    assert not client.connected
    assert echo.call(client, b"abc") == b"abc"
    assert client.connected
    assert echo.call(client, b"abc", on_response=len) == 3
    first, second = client.call(b"1", 1), client.call(b"2", 1, timeout=PATIENCE)
    for call, text in ((second, b"2"), (first, b"1")):
        with client.wait(call, timeout=PATIENCE) as rx:
            assert bytes(rx) == text
    with pytest.raises(ValueError, match="answered already"):
        client.wait(first)
    assert repr(client) == f"<tachyon.RpcClient {path!r} connected>"
    client.close()
    server.send_signal(15)
    server.ends()


def test_objects_are_called_with_too(client, serve):
    serve()
    typed = tachyon.TypedEndpoint(msg_type=1, allow_pickle=True)
    assert typed.call(client, {"a": (1, 2)}, timeout=PATIENCE) == {"a": (1, 2)}


def test_it_waits_for_a_server_to_appear(client, serve, run_thread):
    calling = run_thread(echo.call, client, b"abc", timeout=PATIENCE)
    serve()
    assert calling.result(PATIENCE) == b"abc"


@pytest.mark.parametrize("number", [9, 15])
def test_the_next_call_after_a_restart_goes_to_the_new_server(client, serve, number):
    server = serve()
    for round_ in range(3):
        assert echo.call(client, b"%d" % round_) == b"%d" % round_
        server.send_signal(number)
        server.process.wait(PATIENCE)
        assert not client.connected
        server = serve()
    assert echo.call(client, b"last", timeout=PATIENCE) == b"last"
    assert serve.notes() == Counter(["0", "1", "2", "last"])


def test_a_call_in_flight_raises_and_is_not_repeated(client, serve, until):
    server = serve()
    answered = client.call(b"before", 1)
    lost = [client.call(b"served", 2), client.call(b"unserved", 1)]
    until(lambda: serve.notes()["served"])
    server.kill()
    serve()
    assert echo.call(client, b"after", timeout=PATIENCE) == b"after"
    with client.wait(answered, timeout=PATIENCE) as rx:  # it had come before
        assert bytes(rx) == b"before"
    for call in lost:
        with pytest.raises(tachyon.PeerDeadError):
            client.wait(call, timeout=PATIENCE)
    for call in (0, -1, lost[1] + 2):
        with pytest.raises(ValueError, match="no such call|no call"):
            client.wait(call)
    assert serve.notes() == Counter(["before", "served", "after"])


def test_a_call_of_a_connection_long_ago_is_lost_too(client, serve):
    calls = []
    for _ in range(3):
        server = serve()
        echo.call(client, b"x", timeout=PATIENCE)
        calls.append(client.call(b"y", 2))
        server.kill()
    serve()
    echo.call(client, b"x", timeout=PATIENCE)
    for call in calls:
        with pytest.raises(tachyon.PeerDeadError):
            client.wait(call, timeout=PATIENCE)
        assert client.cancel(call) in (True, False)
    assert calls == sorted(set(calls))


def test_calls_are_served_at_most_once_by_servers_that_are_killed_again_and_again(client, serve, run_thread):
    sent, answered, over = [], [], threading.Event()

    def call():
        while not over.is_set():
            text = b"%d" % len(sent)
            sent.append(text)
            try:
                assert echo.call(client, text, timeout=PATIENCE) == text
                answered.append(text)
            except tachyon.PeerDeadError:
                pass

    server = serve()
    calling = run_thread(call)
    for _ in range(8):
        before = len(answered)
        while len(answered) < before + 20:
            time.sleep(0.001)
            assert not calling.done(), calling.result()
        server.kill()
        server = serve()
    over.set()
    calling.result(PATIENCE)
    served = serve.notes()
    assert set(served.values()) == {1}
    assert {text.decode() for text in answered} <= set(served)
    assert len(sent) >= len(served) >= len(answered) >= 160


def test_a_wait_in_the_moment_in_which_another_thread_finds_the_server_gone_is_told_so(client, serve, monkeypatch):
    server = serve()
    number = client.call(b"x", 2)
    server.kill()
    serve()
    found = []

    def last_call(bus):
        found.append(client._links.find(number)[1])
        return tachyon._tachyon.last_call(bus)

    monkeypatch.setattr("tachyon._client.last_call", last_call)
    assert echo.call(client, b"y", timeout=PATIENCE) == b"y"
    assert found == [number]
    with pytest.raises(tachyon.PeerDeadError):
        client.wait(number)


def test_without_a_server_it_gives_up_in_time(path):
    with tachyon.RpcClient(path, connect_timeout=0.05) as client:
        for timeout in (None, PATIENCE):
            with pytest.raises(tachyon.TachyonTimeoutError, match=path):
                echo.call(client, b"abc", timeout=timeout)
    with tachyon.RpcClient(path) as client, pytest.raises(tachyon.TachyonTimeoutError, match=path):
        client.call(b"abc", 1, timeout=0.05)


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_timeouts_that_are_none(path, client, wrong):
    for use in (client.call, lambda *_, timeout: echo.call(client, b"", timeout=timeout)):
        with pytest.raises(ValueError, match="timeout"):
            use(b"", 1, timeout=wrong)
    with pytest.raises(ValueError, match="timeout"):
        tachyon.RpcClient(path, connect_timeout=wrong)


def test_one_thread_connects_and_others_wait_in_time(path, client, run_thread, until):
    calling = run_thread(echo.call, client, b"abc")
    until(client._lock.locked)
    with pytest.raises(tachyon.TachyonTimeoutError, match="another thread"):
        client.call(b"abc", 1, timeout=0.02)
    client.close()
    with (
        tachyon.RpcListener(path) as listener,
        listener.accept(timeout=PATIENCE),
        pytest.raises(tachyon.BusClosedError),
    ):
        calling.result(PATIENCE)


def test_what_no_waiting_mends_is_raised_at_once(path, client, run_thread):
    listening = run_thread(tachyon.Bus.listen, path, 4096, timeout=PATIENCE)
    while not os.path.exists(path):
        time.sleep(0.001)
    with pytest.raises(tachyon.HandshakeError, match="not a RpcBus"):
        echo.call(client, b"abc", timeout=PATIENCE)
    with pytest.raises(tachyon.HandshakeError):
        listening.result(PATIENCE)


def test_connections_that_bring_no_answer_come_ever_more_slowly(path, client):
    """A server that lets everybody in and ends at once."""
    accepted = 0
    before = time.monotonic()
    with tachyon.RpcListener(path, 4096, 4096) as listener:

        def let_in():
            nonlocal accepted
            with contextlib.suppress(tachyon.BusClosedError):
                for bus in listener:
                    accepted += 1
                    bus.close()

        thread = threading.Thread(target=let_in)
        thread.start()
        try:
            while accepted < 7:
                with pytest.raises(tachyon.PeerClosedError):
                    echo.call(client, b"abc", timeout=PATIENCE)
        finally:
            listener.close()
            thread.join()
    # 10, 20, 40 … ms between them, at least half of each
    assert time.monotonic() - before >= sum(0.005 * 2**i for i in range(5))


def test_after_close_there_are_no_calls(client, serve):
    serve()
    call = client.call(b"abc", 2)
    client.close()
    client.close()
    assert client.closed
    for use in (lambda: client.call(b"abc", 1), lambda: echo.call(client, b"abc"), lambda: client.wait(call)):
        with pytest.raises(tachyon.BusClosedError):
            use()


def test_a_wait_ends_when_another_thread_closes_the_client(client, serve, run_thread):
    serve()
    waiting = run_thread(client.wait, client.call(b"abc", 2))
    time.sleep(0.05)
    client.close()
    with pytest.raises(tachyon.BusClosedError):
        waiting.result(PATIENCE)


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy])
def test_a_client_is_not_pickled(client, way):
    with pytest.raises(TypeError, match="make one with the same path in each process"):
        way(client)


def test_a_forked_child_gets_a_connection_of_its_own(client, serve):
    serve()
    assert echo.call(client, b"parent") == b"parent"
    call = client.call(b"parent's", 1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            assert not client.connected
            assert echo.call(client, b"child", timeout=PATIENCE) == b"child"
            try:
                client.wait(call)
            except tachyon.PeerDeadError:
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    with client.wait(call, timeout=PATIENCE) as rx:
        assert bytes(rx) == b"parent's"
    assert echo.call(client, b"parent again") == b"parent again"
