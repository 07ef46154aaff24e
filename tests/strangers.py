"""Hand-made greetings, and a listener that they come to."""

import socket
import struct

import pytest

from tachyon import Bus

HELLO = struct.Struct("=8sIHHIIHHIIIII" + "QQII" * 8)
NAMES = ["magic", "order", "version", "oldest", "bytes", "hash", "kind", "arrangement", "arrangement_hash"]
NAMES += ["abilities", "verdict", "segments", "schema_bytes"]
NAMES += [f"{name}{i}" for i in range(8) for name in ("bytes", "capacity", "access", "reserved")]
READ_WRITE = 2


def greeting(**fields):
    known = {"magic": b"TACHYON\x1a", "order": 0x01020304, "bytes": HELLO.size} | fields
    return HELLO.pack(*(known.get(name, 0) for name in NAMES))


def understood(data):
    return dict(zip(NAMES, HELLO.unpack(data), strict=True))


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


def real_greeting(path, until, kind=1):
    """Our own greeting, found out by asking a listener: its answer to a version that there is not."""
    with dial(path, until) as client:
        client.sendall(greeting(version=0xFFFF, oldest=0xFFFF))
        answer = understood(client.recv(HELLO.size, socket.MSG_WAITALL))
    return HELLO.pack(*(answer | {"kind": kind, "verdict": 0, "abilities": 0}).values())
