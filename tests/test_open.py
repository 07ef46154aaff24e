"""Opening: paths, connecting, and the object."""

import errno
import os
import pathlib
import socket
import threading

import pytest
from conftest import listen_for

import tachyon
from tachyon import Bus, HandshakeError, TachyonTimeoutError

KINDS_OF_PATH = [str, os.fsencode, pathlib.Path]


class BytesPath:
    """A PathLike of bytes."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return os.fsencode(self.path)


# ---- what a path may be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS_OF_PATH, BytesPath])
def test_a_path_may_be_str_bytes_or_pathlike(path, kind, run_thread):
    listening = run_thread(listen_for, 30, kind(path))
    with Bus.connect(kind(path), timeout=30) as connector, listening.result() as listener:
        connector.send(b"x")
        assert listener.recv().data == b"x"


@pytest.mark.parametrize("bad", [None, 7, 1.0, ["x"], object()])
def test_anything_else_is_a_type_error(bad):
    with pytest.raises(TypeError):
        Bus.listen(bad, 4096, timeout=0)
    with pytest.raises(TypeError):
        Bus.connect(bad)


def test_a_path_of_the_greatest_length_works(tmp_path, run_thread, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longest = "x" * 107
    listening = run_thread(listen_for, 30, longest)
    with Bus.connect(longest, timeout=30), listening.result():
        pass
    assert os.listdir() == []


@pytest.mark.parametrize("length", [108, 109, 300, 5000])
@pytest.mark.parametrize("call", [lambda p: listen_for(0, p), Bus.connect], ids=["listen", "connect"])
def test_a_path_that_is_too_long_is_refused_with_numbers_and_path(length, call):
    path = "/tmp/" + "x" * (length - 5)
    with pytest.raises(HandshakeError) as caught:
        call(path)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert caught.value.path == path
    assert f"{length} bytes" in str(caught.value)
    assert "107" in str(caught.value)
    assert path in str(caught.value)


@pytest.mark.parametrize("kind", [str, os.fsencode])
@pytest.mark.parametrize("call", [lambda p: listen_for(0, p), Bus.connect], ids=["listen", "connect"])
def test_an_empty_path_is_refused(call, kind):
    with pytest.raises(HandshakeError, match="the socket path is empty") as caught:
        call(kind(""))
    assert caught.value.errno == errno.EINVAL
    assert caught.value.path == kind("")


@pytest.mark.parametrize("bad", ["\0", "\0abstract", "/tmp/a\0b", b"/tmp/a\0b"])
@pytest.mark.parametrize("call", [lambda p: listen_for(0, p), Bus.connect], ids=["listen", "connect"])
def test_a_nul_in_the_path_is_refused(call, bad):
    with pytest.raises(HandshakeError, match="NUL") as caught:
        call(bad)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.path == bad


def test_a_path_that_is_not_utf8_works(tmp_path, run_thread):
    path = os.fsencode(tmp_path) + b"/\xff\xfe"
    listening = run_thread(listen_for, 30, path)
    with Bus.connect(path, timeout=30), listening.result():
        pass
    with pytest.raises(HandshakeError) as caught:
        Bus.connect(path)
    assert caught.value.path == path


# ---- connect ---------------------------------------------------------------------------------------------------------


def test_connect_tries_once_by_default(path):
    with pytest.raises(HandshakeError) as caught:
        Bus.connect(path)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.path == path
    assert path in str(caught.value)
    assert "start the listening side first or pass a timeout" in str(caught.value)


def test_connect_to_a_stale_socket_is_refused_and_the_socket_left(path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
        stale.listen()
    with pytest.raises(HandshakeError) as caught:
        Bus.connect(path)
    assert caught.value.errno == errno.ECONNREFUSED
    assert os.path.exists(path)


def test_connect_with_a_timeout_waits_for_a_listener(path, run_thread):
    connecting = run_thread(Bus.connect, path, timeout=30)
    threading.Event().wait(0.1)
    with listen_for(30, path) as listener, connecting.result() as connector:
        connector.send(b"x")
        assert listener.recv().data == b"x"


def test_connect_without_end_waits_for_a_listener(path, run_thread):
    connecting = run_thread(Bus.connect, path, timeout=None)
    threading.Event().wait(0.1)
    with listen_for(30, path), connecting.result():
        pass


def test_connect_gives_up_after_its_timeout(path):
    with pytest.raises(TachyonTimeoutError) as caught:
        Bus.connect(path, timeout=0.05)
    assert path in str(caught.value)
    assert "pass a timeout" not in str(caught.value)  # one was


@pytest.mark.parametrize("bad", [-1, 2**32, 2**70])
def test_a_uid_out_of_range_is_refused(path, bad):
    with pytest.raises(ValueError, match="uid must be between"):
        Bus.connect(path, uid=bad)


def test_a_listener_of_another_user_is_refused(path, run_thread):
    listening = run_thread(listen_for, 30, path)
    stranger = os.geteuid() + 1
    with pytest.raises((HandshakeError, TachyonTimeoutError)) as caught:
        while True:  # until it listens
            try:
                Bus.connect(path, uid=stranger)
            except HandshakeError as error:
                if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
                    raise
    assert caught.value.errno == errno.EACCES
    assert str(stranger) in str(caught.value)
    assert "uid=" in str(caught.value)
    with Bus.connect(path, uid=os.geteuid(), timeout=30), listening.result():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_client_of_another_user_is_refused_unless_the_mode_lets_it_in(spawn, tmp_path, run_thread, until):
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:2]:
        if parent.stat().st_uid == os.geteuid() and parent != pathlib.Path("/tmp"):
            os.chmod(parent, 0o755)
    code = """
        os.setgroups([]); os.setgid(54321); os.setuid(54321)
        try:
            with tachyon.Bus.connect(path, timeout=5, uid=0) as bus: bus.send(b"x"); say("in")
        except tachyon.HandshakeError as error: say("refused", error.errno)
    """
    path = str(tmp_path / "shared")
    listening = run_thread(listen_for, 30, path, mode=0o666)
    child = spawn(code, path)
    child.says("in")
    with listening.result() as bus:
        assert bus.recv().data == b"x"

    path = str(tmp_path / "private")
    listening = run_thread(listen_for, 30, path)
    until(lambda: os.path.exists(path))
    os.chmod(path, 0o666)  # the file alone would let it in
    spawn(code, path).says(f"refused {errno.EACCES}")
    with Bus.connect(path, timeout=30), listening.result():
        pass


# ---- the object ------------------------------------------------------------------------------------------------------


def test_a_bus_is_not_made_by_calling_the_class():
    with pytest.raises(TypeError, match=r"Bus\.listen"):
        Bus()


def test_only_a_socket_path_and_a_capacity_go_by_position(path):
    with pytest.raises(TypeError):
        Bus.listen(path, 4096, 1)
    with pytest.raises(TypeError):
        Bus.connect(path, 1)


def test_the_peers_pid(path, spawn, run_thread):
    listening = run_thread(listen_for, 30, path)
    child = spawn("bus = tachyon.Bus.connect(path, timeout=30); say(bus.peer_pid); hear()", path)
    child.says(str(os.getpid()))
    with listening.result() as bus:
        assert bus.peer_pid == child.pid


def test_a_bus_is_a_context_manager_that_closes(pair):
    producer, consumer = pair()
    with producer as entered:
        assert entered is producer
        assert not producer.closed
        producer.send(b"x")
    assert producer.closed
    with pytest.raises(tachyon.BusClosedError):
        with producer:
            pass
    assert consumer.recv().data == b"x"


def test_its_repr_names_path_role_and_peer(pair):
    producer, consumer = pair(4096)
    assert "undecided" in repr(producer)
    producer.send(b"")
    for bus, role in ((producer, "producer"), (consumer, "consumer")):
        for part in (role, "capacity=4096", f"peer_pid={os.getpid()}", "pair0"):
            assert part in repr(bus)
        bus.close()
        assert "closed" in repr(bus)
        assert "pair0" in repr(bus)
