"""connect, to a listener that died in the handshake while a child of it keeps the accepted socket open."""

import errno

import pytest

import tachyon
from tachyon import Bus

# Has accepted, so that the connector waits for its greeting; the child holds the socket from then on.
STALLED = """
import multiprocessing, socket
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
say("listens")
client, _ = server.accept()
server.close()
os.unlink(path)
def keep():
    say("keeps")
    hear()
if sys.argv[2] == "fork":
    if os.fork() == 0:
        keep()
        os._exit(0)
else:
    multiprocessing.get_context("fork").Process(target=lambda: (say("keeps"), time.sleep(60))).start()
signal.pause()
"""
CONNECTOR = """
try: tachyon.Bus.connect(path, timeout=eval(sys.argv[2])).close()
except tachyon.HandshakeError as error: say(error.errno, error)
except tachyon.TachyonTimeoutError as error: say("timeout", error)
else: say("connected")
"""


@pytest.fixture(params=["fork", "multiprocessing"])
def orphaned(request, spawn, path):
    """orphaned(timeout) -> a connector in a process of its own, whose listener is dead and whose socket is held."""
    held = []

    def make(timeout):
        listener = spawn(STALLED, path, request.param)
        listener.says("listens")
        connector = spawn(CONNECTOR, path, timeout)
        listener.says("keeps")
        connector.falls_asleep()
        listener.process.kill()
        listener.process.wait(60)
        held.append(listener)
        return connector

    return make


def test_one_try_ends_with_the_listener(orphaned):
    line = orphaned(0).line()
    assert line.startswith(f"{errno.ECONNRESET} "), line
    assert "hung up" in line


def test_a_timeout_ends_as_without_any_listener(orphaned):
    line = orphaned(8).line()
    assert line.startswith("timeout no listener at"), line


@pytest.mark.parametrize("timeout", [60, None])
def test_the_next_listener_is_found(orphaned, path, timeout):
    connector = orphaned(timeout)
    with Bus.listen(path, 4096, timeout=30) as bus, pytest.raises(tachyon.PeerClosedError):
        connector.says("connected")
        bus.recv(timeout=30)
