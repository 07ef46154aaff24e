"""A client that is none of ours does not use the listener up."""

import contextlib
import errno
import os
import random
import socket
import struct

import pytest
from strangers import HELLO, dial, gets_through, greeting, real_greeting, understood

from tachyon import HandshakeError


def close_at_once(client):
    client.close()


def half_close(client):
    client.shutdown(socket.SHUT_WR)


def one_byte(client):
    client.sendall(b"T")


def http(client):
    client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def noise(client):
    client.sendall(random.Random(1).randbytes(HELLO.size))


def much_noise(client):
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        client.sendall(random.Random(1).randbytes(1 << 20))


def zeros(client):
    client.sendall(bytes(HELLO.size))


def half_a_greeting(client):
    client.sendall(b"TACHYON\x1a" + bytes(20))


def greeting_of_another_byte_order(client):
    client.sendall(b"TACHYON\x1a" + struct.pack(">I", 0x01020304) + bytes(HELLO.size - 12))


def greeting_of_another_version(client):
    client.sendall(greeting(version=0xFFFF, oldest=0xFFFF, kind=1))


def greeting_of_the_version_before(client):
    """Of 64 bytes, with its kind where we look for the oldest version that it understands."""
    client.sendall(b"TACHYON\x1a" + struct.pack("=IHH", 0x01020304, 2, 1) + bytes(48))
    answer = client.recv(64, socket.MSG_WAITALL)
    assert answer[:12] == b"TACHYON\x1a" + struct.pack("=I", 0x01020304)
    assert struct.unpack_from("=H", answer, 12) == (3,)  # which it understands, and refuses


def pass_descriptors(client, data, count):
    numbers = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    try:
        socket.send_fds(client, [data], numbers)
    except OSError:
        pass
    finally:
        for number in numbers:
            os.close(number)


def descriptors_and_noise(client):
    pass_descriptors(client, b"x" * HELLO.size, 1)


def many_descriptors_and_a_greeting(client):
    pass_descriptors(client, b"TACHYON\x1a" + bytes(HELLO.size - 8), 100)


STRAYS = [
    close_at_once,
    half_close,
    one_byte,
    http,
    noise,
    much_noise,
    zeros,
    half_a_greeting,
    greeting_of_another_byte_order,
    greeting_of_another_version,
    greeting_of_the_version_before,
    descriptors_and_noise,
    many_descriptors_and_a_greeting,
]


def test_a_silent_client_is_no_hindrance(path, until, listening):
    with dial(path, until):
        gets_through(path, listening)


@pytest.mark.parametrize("stray", STRAYS, ids=lambda each: each.__name__)
def test_garbage_is_no_hindrance(path, until, listening, stray):
    with dial(path, until) as client:
        stray(client)
        gets_through(path, listening)


def test_all_of_them_at_once_are_no_hindrance(path, until, listening):
    clients = []
    for stray in STRAYS * 4:
        client = dial(path, until)
        clients.append(client)
        stray(client)
    gets_through(path, listening)
    for client in clients:
        client.close()


def test_many_silent_clients_are_no_hindrance(path, until, listening):
    clients = [dial(path, until) for _ in range(150)]
    gets_through(path, listening)
    for client in clients:
        client.close()


@pytest.mark.parametrize("at, wrong", [(0, b"T\xc1CHYON\x1a"), (0, bytes(8)), (8, b"\x01\x02\x03\x04")])
def test_a_greeting_that_is_right_but_for_its_first_words_is_dropped(path, until, listening, at, wrong):
    data = bytearray(real_greeting(path, until))
    data[at : at + len(wrong)] = wrong
    with dial(path, until) as client:
        client.sendall(data)
        assert client.recv(HELLO.size) == b""
    gets_through(path, listening)


@pytest.mark.parametrize("end", ["close", "wrong word"])
def test_a_client_that_drops_out_at_the_last_step_is_no_hindrance(path, until, listening, end):
    data = real_greeting(path, until)
    with dial(path, until) as client:
        client.sendall(data)
        answer, numbers, _, _ = socket.recv_fds(client, HELLO.size, 4)
        assert len(answer) == HELLO.size
        assert len(numbers) == 1
        kept = os.fstat(numbers[0]).st_ino
        if end == "wrong word":
            client.sendall(b"X")
    # It may have kept the memory, so whoever comes next has to get other memory.
    with dial(path, until) as second:
        second.sendall(data)
        _, others, _, _ = socket.recv_fds(second, HELLO.size, 4)
        assert os.fstat(others[0]).st_ino != kept
    for number in numbers + others:
        os.close(number)
    gets_through(path, listening)


def test_a_client_of_the_other_kind_is_told_on_both_sides(path, until, listening):
    data = real_greeting(path, until, kind=2)
    with dial(path, until) as client:
        client.sendall(data)
        answer = understood(client.recv(HELLO.size, socket.MSG_WAITALL))
        assert answer["verdict"] == 3
    with pytest.raises(HandshakeError, match=r"RpcBus connected .* where a Bus listens; use the same class") as caught:
        listening.result()
    assert caught.value.errno == errno.EPROTOTYPE
    assert caught.value.path == path
    assert not os.path.exists(path)
