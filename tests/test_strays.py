"""A client that is none of ours does not use the listener up."""

import contextlib
import errno
import fcntl
import os
import random
import signal
import socket
import struct

import pytest

import tachyon
from tachyon import Bus, HandshakeError

# As link/hello.hpp has it: the last field of each of the eight offers is what its connector may do with it.
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


def real_greeting(path, until, kind=1):
    """Our own greeting, found out by asking a listener: its answer to a version that there is not."""
    with dial(path, until) as client:
        client.sendall(greeting(version=0xFFFF, oldest=0xFFFF))
        answer = understood(client.recv(HELLO.size, socket.MSG_WAITALL))
    return HELLO.pack(*(answer | {"kind": kind, "verdict": 0, "abilities": 0}).values())


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


# ---- a listener that is none of ours ---------------------------------------------------------------------------------


@pytest.fixture
def impostor(path, run_thread):
    """impostor(answer): accepts one client, reads its greeting, and then does answer(client)."""
    servers = []

    def make(answer):
        server = socket.socket(socket.AF_UNIX)
        servers.append(server)
        server.bind(path)
        server.listen()

        def serve():
            client, _ = server.accept()
            with client:
                answer(client, understood(client.recv(HELLO.size, socket.MSG_WAITALL)))

        return run_thread(serve)

    yield make
    for server in servers:
        server.close()


def refused(path, **options):
    with pytest.raises(HandshakeError) as caught:
        Bus.connect(path, **options)
    assert path in str(caught.value) or "segment" in str(caught.value)
    assert caught.value.path == path
    return caught.value


def test_a_listener_that_speaks_another_protocol(path, impostor):
    impostor(lambda client, _: client.sendall(b"220 mail.example.org ESMTP".ljust(64)))
    error = refused(path)
    assert error.errno == errno.EPROTO
    assert "does not speak this protocol" in str(error)


def test_a_listener_that_hangs_up(path, impostor):
    impostor(lambda client, _: None)
    assert refused(path).errno == errno.ECONNRESET


def answer_with(hello, *capacities, **changes):
    """An offer of rings of these capacities, but for the changes."""
    fields = hello | {"segments": len(capacities)}
    for i, capacity in enumerate(capacities):
        size = (4096 + capacity) % (1 << 64)
        fields |= {f"bytes{i}": size, f"capacity{i}": capacity, f"access{i}": READ_WRITE}
    return HELLO.pack(*(fields | changes).values())


@pytest.mark.parametrize(
    "changes, number, text",
    [
        ({"version": 99, "oldest": 98}, errno.EPROTONOSUPPORT, "speaks protocol version 99"),
        ({"hash": 1}, errno.EPROTONOSUPPORT, "another memory layout"),
        ({"kind": 2}, errno.EPROTOTYPE, "RpcBus listens"),
        ({"verdict": 4}, errno.EACCES, "refuses user"),
        ({"verdict": 77}, errno.EPROTO, "refused with code 77"),
        ({"segments": 0}, errno.EPROTO, "passed 0 descriptors, not 1"),
        ({}, errno.EPROTO, "passed 0 descriptors, not 1"),
        ({"version": 99}, errno.EPROTO, "passed 0 descriptors, not 1"),  # which understands ours too
        ({"arrangement": 99}, errno.EPROTONOSUPPORT, "speaks protocol version 99"),
        ({"arrangement_hash": 1}, errno.EPROTONOSUPPORT, "another memory layout"),
        ({"bytes": 4097}, errno.EPROTO, "contradicts itself"),
        ({"bytes": 239}, errno.EPROTO, "contradicts itself"),
        ({"schema_bytes": 1}, errno.EPROTO, "contradicts itself"),
    ],
)
def test_a_listener_that_answers_something_else(path, impostor, changes, number, text):
    impostor(lambda client, hello: client.sendall(answer_with(hello, 4096, **changes)))
    error = refused(path)
    assert error.errno == number
    assert text in str(error)


def memfd(size, *, seal=True):
    number = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(number, size)
    os.posix_fallocate(number, 0, size)
    if seal:
        fcntl.fcntl(number, 1033, 7)  # F_ADD_SEALS: SEAL | SHRINK | GROW
    return number


@pytest.mark.parametrize(
    "make, capacity, text",
    [
        (lambda: memfd(8192, seal=False), 4096, "can still be resized"),
        (lambda: memfd(4096), 4096, "has 4096 bytes, not 8192"),
        (lambda: memfd(16384), 4096, "has 16384 bytes, not 8192"),
        (lambda: memfd(8192), 4096, "header page"),
        (lambda: memfd(8192), 3, "capacity 3"),
        (lambda: memfd(8192), 1 << 62, "capacity"),
        (lambda: os.open("/dev/zero", os.O_RDWR), 4096, "not a memfd"),
        (lambda: os.open("/dev/null", os.O_RDONLY), 4096, "not a memfd"),
    ],
)
def test_a_segment_that_is_not_what_it_should_be(path, impostor, make, capacity, text):
    def answer(client, hello):
        number = make()
        socket.send_fds(client, [answer_with(hello, capacity)], [number])
        os.close(number)

    impostor(answer)
    error = refused(path)
    assert text in str(error)
    assert error.errno == errno.EPROTO


def test_more_descriptors_than_were_asked_for(path, impostor):
    def answer(client, hello):
        numbers = [memfd(8192) for _ in range(2)]
        socket.send_fds(client, [answer_with(hello, 4096)], numbers)
        for number in numbers:
            os.close(number)

    impostor(answer)
    assert "more descriptors" in str(refused(path))


def test_a_listener_that_never_answers_ends_with_the_timeout(path, until):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(tachyon.TachyonTimeoutError, match="did not answer in time"):
            Bus.connect(path, timeout=0.1)


# ---- the memory that a listener chooses ------------------------------------------------------------------------------


@pytest.fixture
def header_page(tmp_path, until, run_thread):
    """The first page of a segment as a real listener makes it."""
    path = str(tmp_path / "real")
    listening = run_thread(Bus.listen, path, 4096, timeout=60)
    data = real_greeting(path, until)
    with dial(path, until) as client:
        client.sendall(data)
        _, numbers, _, _ = socket.recv_fds(client, HELLO.size, 4)
    page = bytearray(os.pread(numbers[0], 4096, 0))
    os.close(numbers[0])
    gets_through(path, listening)
    return page


def segment(page, capacity, reserved):
    """A memfd with everything right, but perhaps for its memory: that much of it is reserved."""
    number = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(number, 4096 + capacity)
    os.posix_fallocate(number, 0, min(reserved, 4096 + capacity))
    struct.pack_into("=Q", page, 16, capacity)
    os.pwrite(number, page, 0)
    fcntl.fcntl(number, 1033, 7)
    return number


CONNECTOR = """
import resource
kind = getattr(tachyon, sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: kind.connect(path, timeout=30)
except tachyon.HandshakeError as error: say(error.errno, error)
else: say("connected")
say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10)
"""


@pytest.mark.parametrize("reserved", [4096, (1 << 30) - (1 << 20)], ids=["its first page", "all but a MiB"])
@pytest.mark.parametrize("kind", ["Bus", "RpcBus"])
def test_memory_that_the_listener_has_not_reserved_is_not_taken(path, impostor, header_page, spawn, kind, reserved):
    capacity = 1 << 30

    def answer(client, hello):
        numbers = [segment(header_page, capacity, reserved if i == 0 else 4096) for i in range(1 + (kind == "RpcBus"))]
        socket.send_fds(client, [answer_with(hello, *[capacity] * len(numbers))], numbers)
        for number in numbers:
            os.close(number)
        client.recv(1)

    impostor(answer)
    child = spawn(CONNECTOR, path, kind)
    line = child.line()
    assert line.startswith(f"{errno.ENODATA} "), line
    assert "has not reserved" in line
    child.says("True")
    child.ends()


@pytest.mark.parametrize("options", [{"max_capacity": 1 << 16}, {}], ids=["asked for", "by default"])
@pytest.mark.parametrize("kind", [tachyon.Bus, tachyon.RpcBus])
def test_a_larger_ring_than_the_limit_is_refused_before_its_descriptor_is_looked_at(path, impostor, kind, options):
    limit = options.get("max_capacity", 1 << 30)

    def answer(client, hello):
        null = os.open("/dev/null", os.O_RDONLY)
        count = 1 + (kind is tachyon.RpcBus)
        capacities = [64, 2 * limit] if count == 2 else [2 * limit]
        socket.send_fds(client, [answer_with(hello, *capacities)], [null] * count)
        os.close(null)

    impostor(answer)
    with pytest.raises(HandshakeError) as caught:
        kind.connect(path, **options)
    assert caught.value.errno == errno.EFBIG
    assert path in str(caught.value)
    for part in (f"{2 * limit} bytes", f"more than {limit}", "max_capacity="):
        assert part in str(caught.value)


@pytest.mark.parametrize("limit", [1 << 31, None, 1 << 100])
def test_the_limit_can_be_raised_and_lifted(path, impostor, limit):
    def answer(client, hello):
        null = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(client, [answer_with(hello, 1 << 31)], [null])
        os.close(null)

    impostor(answer)
    assert "not a memfd" in str(refused(path, max_capacity=limit))


def test_a_ring_as_large_as_the_limit_is_let_in(path, run_thread):
    listening = run_thread(Bus.listen, path, 4096, timeout=60)
    with pytest.raises(HandshakeError, match=r"a ring of 4096 bytes, more than 4095; .*max_capacity="):
        Bus.connect(path, timeout=30, max_capacity=4095)
    with Bus.connect(path, timeout=30, max_capacity=4096), listening.result():
        pass


@pytest.mark.parametrize("bad", [63, 0, -1, True])
def test_a_limit_that_no_ring_can_keep_is_a_value_error(path, bad):
    with pytest.raises(ValueError, match="max_capacity must be None or at least 64"):
        Bus.connect(path, max_capacity=bad)


@pytest.mark.parametrize("bad", ["4096", 4096.0, [4096]])
def test_a_limit_of_another_type_is_a_type_error(path, bad):
    for kind in (tachyon.Bus, tachyon.RpcBus):
        with pytest.raises(TypeError, match="max_capacity must be an int or None"):
            kind.connect(path, max_capacity=bad)


def test_what_the_listener_has_reserved_needs_no_memory_here(path, run_thread, spawn, fake_meminfo):
    listening = run_thread(Bus.listen, path, 1 << 25, timeout=60)
    child = spawn(
        fake_meminfo(1_000)
        + """
with tachyon.Bus.connect(path, timeout=30) as bus: bus.send(b"in")
""",
        path,
    )
    if child.line() == "no mount":
        Bus.connect(path, timeout=30).close()
        listening.result().close()
        pytest.skip("this machine allows no mounts")
    with listening.result() as bus:
        assert bus.recv().data == b"in"
    child.ends()


def test_a_listener_that_takes_its_memory_back_from_a_client_has_hung_up(path, impostor, header_page, spawn):
    """What a listener does to a client that it drops for others: told as such, and with time left tried again."""

    def answer(client, hello):
        child.stop()
        number = segment(header_page, 4096, 4096)  # the header page only
        socket.send_fds(client, [answer_with(hello, 4096)], [number])
        os.close(number)
        client.close()
        child.send_signal(signal.SIGCONT)

    serving = impostor(answer)
    child = spawn(CONNECTOR.replace("timeout=30", "timeout=0"), path, "Bus")
    line = child.line()
    assert "hung up during the handshake" in line, line
    assert line.startswith(str(errno.ECONNRESET))
    serving.result(60)
