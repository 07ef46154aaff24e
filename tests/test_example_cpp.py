"""examples/cpp_to_python: a producer in C++, a consumer with NumPy."""

import importlib.util
import math
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys

import pytest
from example_programs import EXAMPLES, complaint

import tachyon

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in the source tree")
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
