"""The examples as a newcomer runs them: a service and its clients, each a process of its own."""

import importlib.util
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import tachyon

EXAMPLES = Path(__file__).parent.parent / "examples"
START = "os.execv(sys.executable, [sys.executable, '-W', 'error', *sys.argv[1:]])"
FOR_EVER = 10**9
NAMES = [
    "order_book",
    pytest.param(
        "inference", marks=pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs NumPy")
    ),
]

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the source tree")
both = pytest.mark.parametrize("name", NAMES)
inference_only = pytest.mark.parametrize("name", NAMES[1:])


@pytest.fixture
def run(spawn, path):
    """run(example, program, …) → Child: a program of an example at this test's socket."""

    def make(name, program, *arguments):
        return spawn(START, EXAMPLES / name / f"{program}.py", path, *arguments)

    return make


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


def complaint(child, code=1):
    """Its last words, which are one line and no traceback."""
    child.ends(code)
    text = child.errors.read_text()
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert text.startswith(("client: ", "service: ", "producer: ", "consumer: ")), text
    return text


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
    service = serve(name)
    with tachyon.RpcBus.connect(path, timeout=60) as bus:
        for size in (0, 255, 257):
            with bus.wait(bus.call(bytes(size), 1), timeout=60) as rx:
                assert rx.type_id == tachyon.MSG_TYPE_ERROR
                text = bytes(rx)[2:].decode()
            assert text == f"ValueError: a batch is rows of 64 float32, 256 bytes each; got {size} bytes"
        with bus.wait(bus.call(bytes(512), 1), timeout=60) as rx:
            assert rx.type_id != tachyon.MSG_TYPE_ERROR
            assert bytes(rx) == bytes(2 * 40)  # nothing in, nothing out: the network has no bias
    end(service, path, calls=4, failed=3)


@inference_only
def test_a_batch_that_never_fits_is_said_so(name, serve, run):
    service = serve(name)
    assert "can never fit" in complaint(run(name, "client", "--rows", 5000))
    assert "10 batches, all as" in run(name, "client", "--count", 10).ends()  # the service goes on
    service.send_signal(signal.SIGINT)
    service.ends()


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


# ---- cpp_to_python: a producer in C++, a consumer with NumPy ----

CPP = EXAMPLES / "cpp_to_python"
START_PROGRAM = "os.execv(sys.argv[1], sys.argv[1:])"
CXX = shlex.split(os.environ.get("CXX", "c++"))[0]
with_numpy = pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="needs NumPy")


def frame(number, samples=256):
    """What the producer sends, as computed by somebody else: four periods, amplitude 1 … 8."""
    wave = (math.sin(math.tau * 4 * i / 256) for i in range(samples))
    return struct.pack(f"{samples}f", *((1 + number % 8) * value for value in wave))


def build(folder, block, *tools):
    """Build the producer in this folder with the commands of the README: its first block of them, or its second."""
    for tool in (*tools, CXX):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    (folder / "examples").symlink_to(EXAMPLES)
    commands = re.findall(r"```bash\n(.*?)```", (CPP / "README.md").read_text(), re.DOTALL)[block]
    commands = commands.replace("python -m", f"{shlex.quote(sys.executable)} -m")
    done = subprocess.run(
        ["bash", "-ec", commands.replace("c++ ", f"{CXX} -Wall -Wextra -Werror ")],
        cwd=folder,  # not where sources of ours may shadow what is installed
        env=os.environ | {"CXXFLAGS": "-Werror"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    return folder / "build" / "cpp_to_python" / "producer"


@pytest.fixture(scope="module")
def producer_program(tmp_path_factory):
    """The producer, built with CMake."""
    return build(tmp_path_factory.mktemp("cmake"), 0, "cmake")


@pytest.fixture
def produce(spawn, path, producer_program):
    """produce(…) → Child: the producer, which has said that it waits."""

    def make(*arguments):
        producer = spawn(START_PROGRAM, producer_program, path, *arguments)
        producer.says(f"waiting for a consumer at {path}; Ctrl-C ends it")
        return producer

    return make


def sent(producer, code=0):
    """How many frames it says it has sent, at its end."""
    return int(re.fullmatch(r"sent (\d+) frames\n", producer.ends(code))[1])


def received(consumer):
    """How many frames it says were all as expected, at its end."""
    text = consumer.ends()
    rates = r"[\d,]+ frames/s, [\d,]+ MB/s\n"
    found = re.fullmatch(rf"(?:{rates})*([\d,]+) frames, none missing, all with the expected RMS\n{rates}", text)
    assert found, text
    return int(found[1].replace(",", ""))


@with_numpy
def test_cpp_frames_arrive_as_sent(produce, run):
    producer = produce(20_000)  # 20 times the ring: it has to wait for room
    consumer = run("cpp_to_python", "consumer")
    assert received(consumer) == 20_000
    assert sent(producer) == 20_000
    assert consumer.errors.read_text() == producer.errors.read_text() == ""


@with_numpy
def test_the_consumer_may_come_before_the_cpp_producer(produce, run):
    consumer = run("cpp_to_python", "consumer")
    consumer.falls_asleep()
    producer = produce(1)
    assert received(consumer) == sent(producer) == 1


@with_numpy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cpp_producer_that_is_asked_to_end_loses_nothing(produce, run, number):
    producer = produce()
    consumer = run("cpp_to_python", "consumer")
    assert consumer.line().endswith(" MB/s")  # a second has gone by
    producer.send_signal(number)
    count = sent(producer)
    assert count > 0
    assert received(consumer) == count


def test_ctrl_c_ends_a_cpp_producer_that_has_no_consumer(produce, path):
    producer = produce()
    producer.falls_asleep()
    producer.send_signal(signal.SIGINT)
    assert complaint(producer) == "producer: interrupted\n"
    assert not os.path.exists(path)


def test_a_cpp_producer_that_waits_for_room_sees_ctrl_c(produce, path):
    producer = produce()
    with tachyon.Bus.connect(path, timeout=60) as bus:
        producer.falls_asleep()  # the ring is full
        producer.send_signal(signal.SIGINT)
        count = sent(producer)
        assert 1 < count <= bus.capacity // 1088
        for number in range(count):
            message = bus.recv(timeout=60)
            assert message.type_id == number
            assert struct.unpack("256f", message.data) == pytest.approx(struct.unpack("256f", frame(number)), abs=1e-5)
        with pytest.raises(tachyon.PeerClosedError):
            bus.recv(timeout=60)


@with_numpy
def test_a_cpp_producer_that_is_killed_ends_its_consumer_with_one_line(produce, run):
    producer = produce()
    consumer = run("cpp_to_python", "consumer")
    assert consumer.line().endswith(" MB/s")
    producer.kill()
    assert "died" in complaint(consumer)


@with_numpy
def test_ctrl_c_ends_a_consumer_and_its_cpp_producer_with_one_line_each(produce, run):
    producer = produce()
    consumer = run("cpp_to_python", "consumer")
    consumer.line()
    consumer.send_signal(signal.SIGINT)
    assert complaint(consumer) == "consumer: interrupted\n"
    assert complaint(producer) == "producer: the consumer has given up\n"


@with_numpy
def test_a_consumer_that_is_killed_ends_its_cpp_producer_with_one_line(produce, run):
    producer = produce()
    consumer = run("cpp_to_python", "consumer")
    consumer.line()
    consumer.kill()
    assert complaint(producer) == "producer: the consumer has died\n"


def test_the_cpp_producer_can_be_built_with_pkgconfig(spawn, path, tmp_path):
    producer = spawn(START_PROGRAM, build(tmp_path, 1, "pkg-config"), path, 1)
    assert producer.line().startswith("waiting")
    with tachyon.Bus.connect(path, timeout=60) as bus:
        assert [(each.type_id, each.size) for each in bus] == [(0, 1024)]
    assert sent(producer) == 1


def test_a_cpp_producer_refuses_what_it_does_not_understand(spawn, path, producer_program):
    for arguments in ((), (path, "many"), (path, "-1"), (path, "1x"), (path, 1, 1)):
        producer = spawn(START_PROGRAM, producer_program, *arguments)
        producer.ends(2)
        assert producer.errors.read_text() == "usage: producer SOCKET [COUNT]\n"
    producer = spawn(START_PROGRAM, producer_program, f"{path}/nowhere/socket")
    assert f"{path}/nowhere/socket" in complaint(producer)


@with_numpy
@pytest.mark.parametrize(
    ("message", "text"),
    [
        ((frame(3), 3), "after frame 1 came frame 3"),
        ((frame(1), 1), "after frame 1 came frame 1"),
        ((frame(2, samples=255), 2), "frame 2 has 1020 bytes, not 1024"),
        ((frame(3), 2), "frame 2 has an RMS of 2.828427, not 2.121320"),
        ((bytes(1024), 2), "frame 2 has an RMS of 0.000000, not 2.121320"),
        ((struct.pack("256f", *[math.nan] * 256), 2), "frame 2 has an RMS of nan, not 2.121320"),
    ],
    ids=["gap", "repeated", "short", "amplitude", "silence", "nan"],
)
def test_the_consumer_notices_what_is_wrong(run, run_thread, path, message, text):
    listening = run_thread(tachyon.Bus.listen, path, 1 << 16, timeout=60)
    consumer = run("cpp_to_python", "consumer")
    with listening.result(60) as bus:
        for number in range(2):
            bus.send(frame(number), number)
        bus.send(*message)
    assert complaint(consumer) == f"consumer: {text}\n"


@with_numpy
def test_the_consumer_takes_frames_over_dlpack(produce, run, tmp_path, monkeypatch):
    # Stands for PyTorch, which few machines have: the same names, and tensors that hold the frame as long as they live.
    torch = "from numpy import dot, float32, from_dlpack\nprint('torch is used', flush=True)\n"
    (tmp_path / "torch.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    producer = produce(20_000)
    consumer = run("cpp_to_python", "consumer", "--torch")
    consumer.says("torch is used")
    assert received(consumer) == 20_000
    assert sent(producer) == 20_000


@with_numpy
def test_a_consumer_without_torch_says_so(produce, run, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    producer = produce()
    assert complaint(run("cpp_to_python", "consumer", "--torch")) == "consumer: No module named 'torch'\n"
    assert complaint(producer) == "producer: the consumer has given up\n"
