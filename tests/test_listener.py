"""Listener and RpcListener: many peers at one path."""

import copy
import os
import pickle
import select
import signal
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tachyon
from tachyon import (
    Bus,
    BusBusyError,
    BusClosedError,
    CapacityError,
    HandshakeError,
    Listener,
    RpcBus,
    RpcDispatcher,
    RpcListener,
    RpcServer,
    TachyonTimeoutError,
)


def test_a_listener_accepts_one_bus_after_another_and_each_is_whole(path, run_thread):
    with Listener(path, 4096) as listener:
        assert listener.path == path
        pairs = []
        for n in range(3):
            connecting = run_thread(Bus.connect, path, timeout=30)
            pairs.append((listener.accept(timeout=30), connecting.result()))
            pairs[-1][1].send(b"%d" % n)
        assert [here.recv(timeout=30).data for here, _ in pairs] == [b"0", b"1", b"2"]
        assert {here.capacity for here, _ in pairs} == {4096}
        pairs[0][1].close()
        assert list(pairs[0][0]) == []
        pairs[1][1].send(b"still there")
        assert pairs[1][0].recv(timeout=30).data == b"still there"
    assert not os.path.exists(path)
    pairs[2][1].send(b"even now")
    assert pairs[2][0].recv(timeout=30).data == b"even now"
    for pair in pairs:
        for bus in pair:
            bus.close()


def test_a_listener_is_iterated_and_close_from_another_thread_ends_it(path, run_thread, spawn):
    listener = Listener(path, 4096)
    assert iter(listener) is listener
    seen = []

    def serve():
        for bus in listener:
            with bus:
                seen.extend(message.data for message in bus)

    serving = run_thread(serve)
    children = [
        spawn(f"with tachyon.Bus.connect(path, timeout=30) as bus: bus.send(b'{n}'); bus.send(b'{n}')", path)
        for n in range(3)
    ]
    for child in children:
        child.ends()
    while len(seen) < 6:
        assert not serving.done()
    listener.close()
    with pytest.raises(BusClosedError, match="closed"):
        serving.result(30)
    assert sorted(seen) == [b"0", b"0", b"1", b"1", b"2", b"2"]
    assert not os.path.exists(path)


def test_try_accept_does_not_wait_and_fileno_says_when_there_is_something(path, run_thread):
    with Listener(path, 4096) as listener:
        assert listener.try_accept() is None
        assert select.select([listener], [], [], 0)[0] == []
        connecting = run_thread(Bus.connect, path, timeout=30)
        bus = None
        while bus is None:
            assert select.select([listener], [], [], 30)[0] == [listener]
            bus = listener.try_accept()
        connecting.result().close()
        bus.close()


def test_accept_keeps_its_timeout_and_may_be_called_again(path, run_thread):
    with Listener(path, 4096) as listener:
        with pytest.raises(TachyonTimeoutError, match="nobody connected"):
            listener.accept(timeout=0.02)
        with pytest.raises(TachyonTimeoutError):
            listener.accept(timeout=0)
        with pytest.raises(ValueError, match="timeout"):
            listener.accept(timeout=-1)
        connecting = run_thread(Bus.connect, path, timeout=30)
        listener.accept(timeout=30).close()
        connecting.result().close()


@pytest.mark.parametrize(
    ("bad", "error"), [(0, CapacityError), (3, CapacityError), (-1, CapacityError), ("x", TypeError), (1.0, TypeError)]
)
def test_bad_capacities_are_refused_before_the_path_is_touched(path, bad, error):
    with pytest.raises(error):
        Listener(path, bad)
    with pytest.raises(error):
        RpcListener(path, 4096, bad)
    with pytest.raises(error):
        RpcListener(path, bad, 4096)
    assert not os.path.exists(path)


def test_bad_paths_are_refused_and_left_alone(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for bad in (file, tmp_path, tmp_path / "no" / "folder", "", "x" * 200, "a\0b"):
        with pytest.raises((HandshakeError, ValueError)):
            Listener(bad, 4096)
    with pytest.raises(TypeError):
        Listener(None, 4096)
    assert file.read_text() == "x"


def test_a_second_listener_at_a_live_path_is_refused(path):
    with Listener(path, 4096):
        with pytest.raises(HandshakeError, match="another process listens"):
            Listener(path, 4096)
        with pytest.raises(HandshakeError, match="another process listens"):
            Bus.listen(path, 4096, timeout=0)
        assert os.path.exists(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path, **options: Listener(path, 4096, **options),
        lambda path, **options: RpcListener(path, 4096, 4096, **options),
        lambda path, **options: RpcServer(path, RpcDispatcher(), **options),
    ],
    ids=["Listener", "RpcListener", "RpcServer"],
)
def test_the_socket_file_has_its_mode(path, make):
    with make(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with make(path, mode=0o640):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    with pytest.raises(ValueError, match="mode"):
        make(path, mode=0o7777)


def test_clients_that_say_nothing_garbage_or_the_wrong_kind_keep_nobody_out(path, run_thread):
    with Listener(path, 4096) as listener:
        strays = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for each in strays:
            each.connect(path)
        strays[1].sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(200))
        strays[2].close()
        wrong = run_thread(RpcBus.connect, path, timeout=30)
        accepting = run_thread(listener.accept, timeout=60)
        with pytest.raises(HandshakeError, match="a Bus listens"):
            wrong.result(60)
        right = Bus.connect(path, timeout=30)
        accepting.result(60).close()
        right.close()
        for each in strays:
            each.close()


STALLERS = """
import select, socket, struct
good = bytes.fromhex(sys.argv[2])
def come(n):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    try:
        client.connect(path)
        if n % 3:
            client.send(good)
    except OSError:
        client.close()
        return None
    return client
stallers, kept, come_to, told = [None] * 200, [[] for _ in range(200)], 0, False
while True:
    for n, client in enumerate(stallers):
        if client is not None:
            try:
                takes = n % 3 == 2
                data, kept_now, *_ = socket.recv_fds(client, 999, 2) if takes else (client.recv(999), [])
                kept[n] += kept_now
                if data:
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            client.close()
            for each in kept[n]:
                os.close(each)
            kept[n] = []
        stallers[n] = come(n)
        come_to += stallers[n] is not None
    if come_to >= 100 and not told:
        say("all there")
        told = True
    time.sleep(0.001)
"""


def hello_of_a_bus(path):
    """What Bus.connect says first."""
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(path)
        listener.listen()
        connecting = pool.submit(Bus.connect, path, timeout=5)
        client = listener.accept()[0]
        data = client.recv(999)
        os.unlink(path)
        client.sendall(b"x" * 64)
        client.close()
        with pytest.raises(HandshakeError):
            connecting.result(60)
    assert len(data) == 240
    return data


@pytest.mark.parametrize("once", [True, False], ids=["Bus.listen", "Listener"])
def test_two_hundred_that_stall_in_another_process_keep_nobody_out(path, spawn, run_thread, once):
    child = spawn(STALLERS, path, hello_of_a_bus(path).hex())
    listener = None if once else Listener(path, 4096)
    accept = (lambda: Bus.listen(path, 4096, timeout=30)) if once else lambda: listener.accept(timeout=30)
    for newcomer in range(1 if once else 5):
        accepting = run_thread(accept)
        if newcomer == 0:
            child.says("all there")
        with Bus.connect(path, timeout=30) as there, accepting.result(60) as here:
            assert here.peer_pid == os.getpid()
            there.send(b"in")
            assert here.recv(timeout=30).data == b"in"
    if listener is not None:
        listener.close()


def test_an_rpc_listener_accepts_callees(path, run_thread):
    with RpcListener(path, 4096, 8192) as listener:
        connecting = run_thread(RpcBus.connect, path, timeout=30)
        callee, caller = listener.accept(timeout=30), connecting.result()
        cid = caller.call(b"ping", 1)
        with callee.serve(timeout=30) as rx:
            assert bytes(rx) == b"ping"
        callee.reply(cid, b"pong")
        with caller.wait(cid, timeout=30) as rx:
            assert bytes(rx) == b"pong"
        assert (callee.max_request_size, callee.max_reply_size) == (4096 - 16, 8192 - 16)
        callee.close()
        caller.close()


def test_two_threads_may_not_accept_at_once(path, run_thread, until):
    listener = Listener(path, 4096)
    waiting = run_thread(listener.accept, timeout=60)

    def refused():
        try:
            listener.try_accept()
        except BusBusyError:
            return True
        return False

    until(refused)
    listener.close()
    with pytest.raises(BusClosedError):
        waiting.result(30)


def test_a_closed_listener_says_so(path):
    listener = Listener(path, 4096)
    assert not listener.closed
    assert path in repr(listener)
    listener.close()
    listener.close()
    assert listener.closed
    assert "closed" in repr(listener)
    for use in (listener.accept, listener.try_accept, listener.fileno, listener.__enter__, lambda: iter(listener)):
        with pytest.raises(BusClosedError):
            use()
    with pytest.raises(TypeError, match="opened once"):
        listener.__init__(path, 4096)
    assert not os.path.exists(path)
    with pytest.raises(TypeError, match="opened once"):
        opened = Listener(path, 4096)
        try:
            opened.__init__(path, 4096)
        finally:
            opened.close()


def test_a_listener_made_without_init_is_closed():
    for kind in (Listener, RpcListener):
        empty = kind.__new__(kind)
        assert empty.closed
        empty.close()
        with pytest.raises(BusClosedError):
            empty.accept(timeout=0)


def test_a_listener_cannot_be_pickled_or_copied(path):
    with Listener(path, 4096) as listener:
        for use in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="belongs to one process"):
                use(listener)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_closed_listener_and_leaves_the_path_alone(path, run_thread):
    with Listener(path, 4096) as listener:
        pid = os.fork()
        if pid == 0:
            good = listener.closed
            try:
                listener.accept(timeout=0)
                good = False
            except BusClosedError as error:
                good = good and "parent" in str(error)
            listener.close()
            del listener
            os._exit(0 if good and os.path.exists(path) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        connecting = run_thread(Bus.connect, path, timeout=30)
        listener.accept(timeout=30).close()
        connecting.result().close()


def test_ctrl_c_ends_accept_and_leaves_a_listener_that_goes_on(spawn, path):
    child = spawn(
        """
        listener = tachyon.Listener(path, 4096)
        say("ready")
        try:
            listener.accept()
        except KeyboardInterrupt:
            say("interrupted")
        with listener.accept(timeout=60) as bus:
            say(bus.recv(timeout=60).data.decode())
        listener.close()
        say(os.path.exists(path))
        """,
        path,
    )
    child.says("ready")
    child.falls_asleep()
    child.send_signal(signal.SIGINT)
    child.says("interrupted")
    with Bus.connect(path, timeout=30) as bus:
        bus.send(b"hello")
        child.says("hello", "False")
    child.ends()


def test_other_signals_run_their_handlers_and_accept_goes_on(path, run_thread):
    ran = threading.Event()
    previous = signal.signal(signal.SIGUSR1, lambda *_: ran.set())
    try:
        with Listener(path, 4096) as listener:

            def poke():
                os.kill(os.getpid(), signal.SIGUSR1)
                assert ran.wait(30)
                return Bus.connect(path, timeout=30)

            poking = run_thread(poke)
            listener.accept(timeout=60).close()
            poking.result().close()
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_the_names_are_exported():
    for name in ("Listener", "RpcListener", "RpcServer"):
        assert name in tachyon.__all__
