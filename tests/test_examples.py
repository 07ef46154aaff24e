"""The examples as a newcomer runs them: a service and its clients, each a process of its own."""

import gzip
import http.client
import importlib.util
import os
import random
import re
import runpy
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from example_programs import EXAMPLES, START, complaint

import tachyon

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the source tree")
FOR_EVER = 10**9


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


NAMES = [
    "order_book",
    pytest.param(
        "inference", marks=pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs NumPy")
    ),
]

both = pytest.mark.parametrize("name", NAMES)
inference_only = pytest.mark.parametrize("name", NAMES[1:])


@pytest.fixture
def serve(run, path):
    """serve(example) → Child: its service, which has said that it listens."""

    def make(name):
        service = run(name, "service")
        line = service.line()
        assert line.startswith("serving"), line
        assert line.endswith(f"at {path}; Ctrl-C ends it"), line
        return service

    return make


def end(service, path, calls, failed=0, clients=1):
    """Ctrl-C."""
    service.send_signal(signal.SIGINT)
    assert service.ends().splitlines() == [f"clients: {clients}, calls: {calls}, of these failed: {failed}"]
    assert not os.path.exists(path)
    if not failed:
        assert service.errors.read_text() == ""


def test_order_book_snapshots_are_consistent_and_timed(serve, run, path):
    service = serve("order_book")
    out = run("order_book", "client", "--count", 500, "--instrument", 2, "--depth", 3).ends()
    assert re.match(r"instrument 2, sequence \d+\n", out)
    assert re.search(r"\d+ @ \d+\.\d\d +\d+\.\d\d @ \d+\n", out)
    assert "\n500 snapshots, all consistent; the book changed " in out
    assert re.search(r"\n *[\d.]+ [nµm]?s █", out)
    assert re.search(r"\np50 .* p99 .* p99\.9 .* max .* n 500\n$", out)
    end(service, path, calls=501)


def test_two_order_book_clients_at_once(serve, run, path):
    service = serve("order_book")
    clients = [run("order_book", "client", "--count", FOR_EVER, "--instrument", which) for which in (1, 2)]
    for which, client in enumerate(clients, 1):
        assert client.line().startswith(f"instrument {which}, sequence ")
    assert "2,000 snapshots, all consistent" in run("order_book", "client", "--count", 2000).ends()  # a third
    assert [client.process.poll() for client in clients] == [None, None]
    service.send_signal(signal.SIGTERM)
    assert service.ends().startswith("clients: 3, ")
    for client in clients:
        assert "closed" in complaint(client)
    assert not os.path.exists(path)


def test_a_snapshot_has_176_bytes_whatever_its_depth(serve, path):
    service = serve("order_book")
    sequence = 0
    with tachyon.RpcBus.connect(path, timeout=60) as bus:
        for depth in (1, 5, 10):
            request = b"\4\0\0\0" + depth.to_bytes(4, "little")
            with bus.wait(bus.call(request, 1), timeout=60) as rx:
                answer = bytes(rx)
            assert len(answer) == 176
            assert int.from_bytes(answer[:8], "little") >= sequence
            sequence = int.from_bytes(answer[:8], "little")
            assert answer[8:12] == b"\4\0\0\0"
            bids, asks = answer[12], answer[14]
            assert answer[12:16] == bytes([bids, 0, asks, 0])
            assert 0 < max(bids, asks) <= depth
            assert answer[16 + 16 * max(bids, asks) :] == bytes(16 * (10 - max(bids, asks)))
    end(service, path, calls=3)


def test_the_snapshot_is_laid_out_as_documented():
    layout = runpy.run_path(str(EXAMPLES / "order_book" / "layout.py"))
    snapshot = layout["Snapshot"](2**40, 3, [(99, 1), (98, 2)], [(101, 4)])
    packed = struct.pack("<QIHH 8I 128x", 2**40, 3, 2, 1, *(99, 1, 101, 4), *(98, 2, 0, 0))
    assert snapshot.pack() == packed
    assert layout["Snapshot"].unpack(memoryview(packed)) == snapshot
    with pytest.raises(struct.error):
        layout["Snapshot"].unpack(packed[:-1])


def test_the_book_changes_meanwhile(serve, path, until):
    service = serve("order_book")
    with tachyon.RpcBus.connect(path, timeout=60) as bus:

        def sequence():
            with bus.wait(bus.call(b"\1\0\0\0\1\0\0\0", 1), timeout=60) as rx:
                return int.from_bytes(bytes(rx)[:8], "little")

        first = sequence()
        until(lambda: sequence() > first + 10)
    service.send_signal(signal.SIGINT)
    service.ends()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--instrument", 99), "client: LookupError: there is no instrument 99, only 1, 2, 3, 4\n"),
        (("--depth", 11), "client: ValueError: depth must be between 1 and 10, not 11\n"),
        (("--depth", 0), "client: ValueError: depth must be between 1 and 10, not 0\n"),
    ],
)
def test_the_order_book_refuses(serve, run, path, arguments, text):
    service = serve("order_book")
    assert complaint(run("order_book", "client", "--count", 10, *arguments)) == text
    end(service, path, calls=1, failed=1)


@inference_only
def test_batches_come_back_as_computed_locally(name, serve, run, path):
    service = serve(name)
    out = run(name, "client", "--count", 50, "--rows", 33).ends().splitlines()
    assert out[:2] == ["sending batches of 33 rows, 8,448 bytes", "50 batches, all as computed here"]
    assert re.fullmatch(r"[\d,]+ batches/s, [\d,]+ rows/s, [\d,]+ MB/s", out[2])
    assert re.fullmatch(r"p50 .* p99 .* n 50", out[3])
    end(service, path, calls=51)


@inference_only
def test_malformed_batches_get_an_error_and_the_connection_goes_on(name, serve, path):
    np = pytest.importorskip("numpy")
    service = serve(name)
    with tachyon.RpcBus.connect(path, timeout=60) as bus:
        for refused, why in [
            (np.zeros((2, 63), "f4"), r"ValueError: a batch is float32 of shape \(rows, 64\); got float32 \(2, 63\)"),
            (np.zeros((2, 64)), r"ValueError: .*; got float64 \(2, 64\)"),
            (np.zeros(64, "f4"), r"ValueError: .*; got float32 \(64,\)"),
            (np.zeros((0, 64), "f4"), r"ValueError: .*; got float32 \(0, 64\)"),
        ]:
            with pytest.raises(tachyon.RpcError) as caught:
                bus.wait_array(bus.call_array(refused, 1), timeout=60)
            assert re.fullmatch(why, caught.value.detail)
        with pytest.raises(tachyon.RpcError) as caught:
            bus.wait_array(bus.call(bytes(512), 1), timeout=60)
        assert caught.value.detail.startswith("ArrayError: ")
        answer = bus.wait_array(bus.call_array(np.zeros((2, 64), "f4"), 1), timeout=60)
        assert (answer.dtype, answer.tolist()) == (np.float32, [[0] * 10] * 2)  # the network has no bias
    end(service, path, calls=6, failed=5)


@inference_only
def test_a_batch_larger_than_the_ring_is_served_too(name, serve, run):
    service = serve(name)
    assert "10 batches, all as" in run(name, "client", "--count", 10, "--rows", 5000).ends()
    service.send_signal(signal.SIGINT)
    service.ends()


def gunzipped(target):
    with gzip.open(target) as file:
        return file.read()


@pytest.fixture
def compress(spawn, tmp_path):
    """compress(bytes, …) → (Child, target): the parallel gzip on a file of so many bytes."""

    def make(size, *arguments):
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(random.Random(size).randbytes(size))
        return spawn(START, EXAMPLES / "parallel_gzip" / "compress.py", source, target, *arguments), source, target

    return make


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_what_a_pool_compresses_is_a_gzip_file_of_the_same(compress, method):
    child, source, target = compress(3_000_001, "--workers", 3, "--level", 1, "--start-method", method)
    out = child.ends()
    assert re.fullmatch(r"3,000,001 bytes to [\d,]+ by 3 workers, blocks: 8, 8, 7; \d+ MB/s\n", out), out
    assert gunzipped(target) == source.read_bytes()


@pytest.mark.parametrize("size", [0, 1])
def test_a_pool_with_more_workers_than_blocks(compress, size):
    child, source, target = compress(size, "--workers", 2)
    assert f"blocks: {size}, 0; " in child.ends() or size == 0
    assert target.read_bytes() == b"" if size == 0 else gunzipped(target) == source.read_bytes()


def test_a_worker_of_the_pool_that_is_killed_ends_it_with_one_line(compress, until):
    child, _, target = compress(30_000_000, "--workers", 2)
    until(lambda: target.exists() and target.stat().st_size > 0)
    workers = [pid for pid in children_of(child.pid) if "spawn_main" in command_of(pid)]
    os.kill(workers[0], signal.SIGKILL)
    child.ends(1)
    text = child.errors.read_text()
    assert text.startswith("compress: the peer (pid "), text
    assert text.count("\n") == 1, text


@both
def test_a_service_that_is_killed_ends_its_client_with_one_line(name, serve, run):
    service = serve(name)
    client = run(name, "client", "--count", FOR_EVER)
    client.line()  # it has been answered once
    service.kill()
    assert "died" in complaint(client)


@both
def test_ctrl_c_ends_a_client_with_one_line_and_leaves_the_service(name, serve, run):
    service = serve(name)
    client = run(name, "client", "--count", FOR_EVER)
    client.line()
    client.send_signal(signal.SIGINT)
    assert complaint(client) == "client: interrupted\n"
    run(name, "client", "--count", 1).ends()
    service.send_signal(signal.SIGINT)
    assert service.ends().startswith("clients: 2, ")


@both
def test_a_second_service_at_the_same_path_is_refused(name, serve, run, path):
    service = serve(name)
    assert path in complaint(run(name, "service"))
    end(service, path, calls=0, clients=0)


# ---- the gateway -----------------------------------------------------------------------------------------------------


def post(port, body):
    """(status, body) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body)
    response = connection.getresponse()
    status, answer = response.status, response.read()
    connection.close()
    return status, answer


def test_the_gateway_answers_many_requests_at_once_and_says_what_is_wrong(serve, run, path):
    service = serve("gateway")
    gateway = run("gateway", "gateway")
    port = int(gateway.line().removeprefix("listening at port "))
    assert post(port, "the cat and the hat") == (200, b'{"the": 2, "cat": 1, "and": 1, "hat": 1}')
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: post(port, f"word{n}"), range(100)))
    assert answers == [(200, b'{"word%d": 1}' % n) for n in range(100)]
    assert post(port, " ") == (422, b"ValueError: there are no words")
    assert post(port, "x" * 100_000)[0] == 413
    service.send_signal(signal.SIGTERM)
    assert service.ends().splitlines() == ["clients: 1, calls: 102, of these failed: 1"]
    assert post(port, "word")[0] == 502
    gateway.send_signal(signal.SIGINT)
    gateway.ends()
