"""Hand-made greetings, and a listener that they come to."""

import socket
import struct

import pytest

from tachyon import Bus

HELLO = struct.Struct("=8sIHHIIII2Q2Q")


def dial(path, until):
    """A raw client, as soon as somebody listens."""
    client = socket.socket(socket.AF_UNIX)

    def connected():
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    until(connected)
    return client


@pytest.fixture
def listening(path, run_thread):
    """A listener at work in a thread; in the end a real client has to get through to it."""
    return run_thread(Bus.listen, path, 4096, timeout=60)


def gets_through(path, listening):
    with Bus.connect(path, timeout=30) as connector, listening.result() as listener:
        connector.send(b"real")
        assert listener.recv().data == b"real"
        listener_end = connector.stats()["role"], listener.stats()["role"]
        assert listener_end == ("producer", "consumer")


def ask_for_descriptors(client):
    """Our own greeting, found out by asking a listener: its answer and the descriptors with it."""
    probe = HELLO.pack(b"TACHYON\x1a", 0x01020304, 0xFFFF, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    client.sendall(probe)
    return HELLO.unpack(client.recv(64, socket.MSG_WAITALL))


def real_greeting(path, until, kind=1):
    with dial(path, until) as client:
        _, _, version, _, layout, *_ = ask_for_descriptors(client)
    return HELLO.pack(b"TACHYON\x1a", 0x01020304, version, kind, layout, 0, 0, 0, 0, 0, 0, 0)
