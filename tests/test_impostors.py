"""Listeners that are none of ours, and the memory that they choose."""

import errno
import fcntl
import os
import signal
import socket
import struct

import pytest
from strangers import HELLO, READ_WRITE, dial, gets_through, real_greeting, understood

import tachyon
from tachyon import Bus, HandshakeError

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
    os.pwrite(number, bytes(size), 0)
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
