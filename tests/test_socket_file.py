"""The socket's file: what may stand in its place, its mode, and what is left of it."""

import errno
import os
import pathlib
import socket
import stat

import pytest
from conftest import listen_for

from tachyon import Bus, HandshakeError, TachyonTimeoutError

# ---- what may stand there --------------------------------------------------------------------------------------------


def make_file(path):
    pathlib.Path(path).write_text("precious")


def make_symlink(path):
    make_file(path + ".target")
    os.symlink(path + ".target", path)


def make_dangling_symlink(path):
    os.symlink(path + ".nothing", path)


THINGS = {
    "file": make_file,
    "empty file": lambda path: pathlib.Path(path).touch(),
    "directory": os.mkdir,
    "fifo": os.mkfifo,
    "symlink": make_symlink,
    "dangling symlink": make_dangling_symlink,
}


@pytest.mark.parametrize("thing", THINGS)
def test_listen_never_removes_what_is_not_a_socket(path, thing):
    THINGS[thing](path)
    before = os.lstat(path)
    with pytest.raises(HandshakeError) as caught:
        listen_for(0, path)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.path == path
    assert path in str(caught.value)
    assert "left alone, choose another path" in str(caught.value)


@pytest.mark.parametrize("thing", THINGS)
def test_connect_to_what_is_not_a_socket_is_refused(path, thing):
    THINGS[thing](path)
    with pytest.raises(HandshakeError) as caught:
        Bus.connect(path)
    assert path in str(caught.value)
    assert caught.value.errno in (errno.ECONNREFUSED, errno.ENOENT)
    assert os.path.lexists(path)


def test_listen_in_a_folder_that_is_missing(tmp_path):
    path = tmp_path / "missing" / "bus"
    with pytest.raises(HandshakeError) as caught:
        listen_for(0, path)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.path is path
    assert str(path) in str(caught.value)


def test_listen_in_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HandshakeError) as caught:
        listen_for(0, tmp_path / "file" / "bus")
    assert caught.value.errno == errno.ENOTDIR


def test_a_stale_socket_is_replaced(path, run_thread):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
        stale.listen()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)
    listening = run_thread(listen_for, 30, path)
    with Bus.connect(path, timeout=30) as connector, listening.result() as listener:
        connector.send(b"x")
        assert listener.recv().data == b"x"


def test_a_live_listeners_socket_is_left_alone_whoever_it_is(path):
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen()
        before = os.lstat(path).st_ino
        with pytest.raises(HandshakeError, match="another process listens on") as caught:
            listen_for(5, path)
        assert caught.value.errno == errno.EADDRINUSE
        assert path in str(caught.value)
        assert "stop it" in str(caught.value)
        assert os.lstat(path).st_ino == before


def test_a_live_socket_with_a_full_queue_is_left_alone(path):
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(path)
        live.listen(0)
        waiting = []
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(path)
        except BlockingIOError:
            pass
        with pytest.raises(HandshakeError, match="another process listens on"):
            listen_for(5, path)
        assert os.path.exists(path)
        for client in waiting:
            client.close()


def test_a_socket_of_another_type_is_left_alone(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(HandshakeError, match="left alone"):
            listen_for(5, path)
        assert os.path.exists(path)


def test_a_second_listener_is_refused_and_the_first_served(path, run_thread, until):
    listening = run_thread(listen_for, 30, path)
    until(lambda: os.path.exists(path))
    with pytest.raises(HandshakeError, match="another process listens on"):
        listen_for(5, path)
    with Bus.connect(path, timeout=30) as connector, listening.result() as listener:
        connector.send(b"first")
        assert listener.recv().data == b"first"


# ---- what is left behind ---------------------------------------------------------------------------------------------


def test_the_path_is_gone_once_both_are_let_in(path, run_thread):
    listening = run_thread(listen_for, 30, path)
    with Bus.connect(path, timeout=30):
        assert not os.path.exists(path)  # for the connector, too: it may listen on it itself
        with listening.result():
            assert not os.path.exists(path)


def test_the_path_is_gone_after_a_timeout(path):
    with pytest.raises(TachyonTimeoutError) as caught:
        listen_for(0.05, path)
    assert path in str(caught.value)
    assert not os.path.exists(path)


def test_a_path_can_be_used_again_at_once(path, run_thread):
    for i in range(20):
        listening = run_thread(listen_for, 30, path)
        with Bus.connect(path, timeout=30) as connector, listening.result() as listener:
            connector.send(b"%d" % i)
            assert listener.recv().data == b"%d" % i


def test_a_killed_listeners_socket_is_replaced(path, spawn, run_thread, until):
    child = spawn("Bus = tachyon.Bus; say('here'); Bus.listen(path, 4096)", path)
    child.says("here")
    until(lambda: os.path.exists(path))
    child.falls_asleep()
    child.kill()
    assert os.path.exists(path)
    listening = run_thread(listen_for, 30, path)
    with Bus.connect(path, timeout=30), listening.result():
        pass
    assert not os.path.exists(path)


def test_another_file_that_took_the_path_meanwhile_survives(path, run_thread, until):
    listening = run_thread(listen_for, 0.3, path)
    until(lambda: os.path.exists(path))
    os.unlink(path)
    make_file(path)
    with pytest.raises(TachyonTimeoutError):
        listening.result()
    assert pathlib.Path(path).read_text() == "precious"


# ---- mode ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [None, 0o600, 0o660, 0o666, 0o777])
def test_the_socket_file_has_the_mode_asked_for(spawn, path, until, mode, umask):
    options = "" if mode is None else f", mode={mode}"
    child = spawn(f"os.umask({umask}); say('go'); tachyon.Bus.listen(path, 4096{options})", path)
    child.says("go")
    until(lambda: os.path.exists(path))
    until(lambda: child.state() == "S")
    assert stat.S_IMODE(os.stat(path).st_mode) == (0o600 if mode is None else mode)


@pytest.mark.parametrize("bad", [-1, 0o1000, 0o100600, 2**32])
def test_a_mode_out_of_range_is_refused(path, bad):
    with pytest.raises(ValueError, match="mode must be between 0 and 0o777"):
        Bus.listen(path, 4096, mode=bad, timeout=0)
    assert not os.path.exists(path)


@pytest.mark.parametrize("bad", ["600", 6.0, None])
def test_a_mode_of_the_wrong_type_is_refused(path, bad):
    with pytest.raises(TypeError):
        Bus.listen(path, 4096, mode=bad, timeout=0)
