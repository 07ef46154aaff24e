"""`python -m tachyon send` and `recv`: real processes, their exit codes, and what they leave behind."""

from __future__ import annotations

import fcntl
import os
import random
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import MESSAGE, half_way
from conftest import PATIENCE, wait_until

import tachyon

DOCS = Path(__file__).parent.parent / "docs"


# ---- whole streams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "capacity"),
    [
        (0, "64K"),
        (1, "64K"),
        (65536 - 16, "64K"),  # the largest message there
        (65536, "64K"),
        (65536 // 4 - 16, "64K"),  # exactly one chunk
        (10_000_019, "64K"),  # many times round
        (5_000, "64"),
        (9_000_001, "4M"),
        (3_000_000, None),
    ],
)
def test_a_file_arrives_as_it_was_sent(command, path, tmp_path, size, capacity):
    data = random.Random(size).randbytes(size)
    (tmp_path / "in").write_bytes(data)
    recv = command("recv", path, "-o", "out", *(() if capacity is None else ("--capacity", capacity)))
    send = command("send", path, "in")
    _, said = send.ends(0)
    assert said.startswith(f"sent {size:,} bytes")
    _, said = recv.ends(0)
    assert said.startswith(f"received {size:,} bytes")
    assert (tmp_path / "out").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_stdin_goes_to_stdout(command, path):
    data = random.Random(1).randbytes(3_333_333) + bytes(range(256))
    recv = command("recv", path, "-o", "-", stdin=subprocess.DEVNULL)
    send = command("send", path, "-")
    received = []

    # The receiver's stdout must be emptied while the sender's stdin is filled: send waits for its receipt.
    def empty_and_fill():
        left = memoryview(data)
        os.set_blocking(send.process.stdin.fileno(), False)
        while recv.running() or not received or received[-1]:
            ready, room, _ = select.select([recv.process.stdout], [send.process.stdin] if left else [], [], PATIENCE)
            assert ready or room
            if room:
                left = left[os.write(send.process.stdin.fileno(), left) :]
                if not left:
                    send.process.stdin.close()
            if ready:
                received.append(os.read(recv.process.stdout.fileno(), 1 << 20))
                if not received[-1]:
                    return

    empty_and_fill()
    assert b"".join(received) == data
    assert recv.process.wait(PATIENCE) == 0
    assert send.process.wait(PATIENCE) == 0


def test_what_is_typed_arrives_at_once(command, path):
    recv = command("recv", path)
    send = command("send", path)
    for line in (b"one\n", b"two\n"):
        send.feed(line)
        assert recv.process.stdout.readline() == line
    send.ends(0)
    recv.ends(0)


def test_descriptors_that_somebody_set_to_non_blocking_work(command, path):
    inward, outward = os.pipe(), os.pipe()
    fcntl.fcntl(outward[1], fcntl.F_SETPIPE_SZ, 4 * 4096)  # so small that what is written at once goes out in parts
    os.set_blocking(inward[0], False)
    os.set_blocking(outward[1], False)
    recv = command("recv", path, stdout=outward[1])
    send = command("send", path, stdin=inward[0])
    os.close(outward[1])
    os.close(inward[0])
    with open(outward[0], "rb") as sink:
        os.write(inward[1], b"first")
        assert sink.read(5) == b"first"
        time.sleep(0.2)  # until send has found its stdin empty
        data = random.Random(2).randbytes(60_000)
        os.write(inward[1], data)
        os.close(inward[1])
        time.sleep(0.2)  # until recv has found its stdout full
        assert sink.read() == data
    send.ends(0)
    recv.ends(0)


def test_send_waits_for_a_recv_that_comes_later(command, path):
    send = command("send", path)
    send.feed(b"early")
    time.sleep(0.3)
    assert send.running()
    recv = command("recv", path)
    send.process.stdin.close()
    assert recv.process.stdout.read() == b"early"
    assert (send.process.wait(PATIENCE), recv.process.wait(PATIENCE)) == (0, 0)


def test_any_producer_will_do_whatever_its_type_ids(command, path):
    recv = command("recv", path)
    with tachyon.Bus.connect(path, timeout=PATIENCE) as bus:
        bus.send(b"from ")
        bus.send(b"", 3)
        bus.send(b"a program", 0xFFFF)
    assert recv.ends(0)[0] == b"from a program"


def test_any_consumer_will_do_and_gets_the_data_only(command, path):
    send = command("send", path)
    with tachyon.Bus.listen(path, 1 << 16, timeout=PATIENCE) as bus:
        send.feed(b"hello")
        send.process.stdin.close()
        assert [(each.type_id, each.data) for each in bus] == [(0, b"hello")]
    assert send.process.wait(PATIENCE) == 0


def test_send_fails_where_the_consumer_leaves_without_the_rest(command, path):
    send = command("send", path)
    with tachyon.Bus.listen(path, 1 << 16, timeout=PATIENCE):
        send.feed(b"hello")
        send.process.stdin.close()
        wait_until(lambda: not os.path.exists(path))
    assert send.process.wait(PATIENCE) == 3


@pytest.mark.skipif(
    not shutil.which("c++") or not (DOCS / "cpp.md").is_file(), reason="no C++ compiler, or not the source tree"
)
def test_either_end_may_be_in_cxx(command, path, tmp_path):
    def built(name):
        page = (DOCS / "cpp.md").read_text()
        code = re.search(rf"```cpp\n// {name}.cpp\n(.*?)```", page, re.DOTALL).group(1)
        (tmp_path / f"{name}.cpp").write_text(code.replace("/tmp/cpp.sock", str(path)))
        flags = ["-std=c++20", "-I", tachyon.get_include(), "-L", *tachyon.get_library_dirs()]
        arguments = ["c++", *flags, f"{name}.cpp", "-o", name, "-ltachyon", "-pthread"]
        subprocess.run(arguments, check=True, timeout=100, cwd=tmp_path)
        return tmp_path / name

    producer, consumer = built("producer"), built("consumer")
    recv = command("recv", path)
    subprocess.run([producer], check=True, timeout=PATIENCE)
    assert recv.ends(0)[0] == b"hellofromC++"
    with subprocess.Popen([consumer], stdout=subprocess.PIPE) as listener:
        try:
            command("send", path).ends(0, b"hello")
            assert listener.communicate(timeout=PATIENCE)[0] == b"0: hello\n"
            assert listener.returncode == 0
        finally:
            listener.kill()


def test_send_ends_only_when_recv_has_written_everything(command, path):
    recv = command("recv", path)
    send = command("send", path)
    send.feed(bytes(1 << 20))  # far less than the ring, far more than recv's stdout takes
    send.process.stdin.close()
    time.sleep(0.5)
    assert send.running()
    recv.process.kill()
    assert send.process.wait(PATIENCE) == 3


def test_quiet_says_nothing(command, path):
    recv = command("recv", path, "-q")
    send = command("send", path, "--quiet")
    assert send.ends(0, b"x") == (b"", "")
    assert recv.ends(0) == (b"x", "")


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_new_file_keeps_the_mode_of_the_old_and_a_link_stays_a_link(command, path, tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    recv = command("recv", path, "-o", "link")
    command("send", path).ends(0, b"new")
    recv.ends(0)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


def test_a_device_or_fifo_is_written_to_as_it_is(command, path, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    recv = command("recv", path, "-o", "fifo")
    send = command("send", path)
    send.feed(b"through")
    send.process.stdin.close()
    assert (tmp_path / "fifo").read_bytes() == b"through"
    assert (send.process.wait(PATIENCE), recv.process.wait(PATIENCE)) == (0, 0)
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_full_disk_fails_both(command, path):
    recv = command("recv", path, "-o", "/dev/full")
    _, said = command("send", path).ends(3, b"x")
    assert "receiver" in said
    _, said = recv.ends(1)
    assert "No space left" in said
    assert "/dev/full" in said


def test_a_stderr_that_takes_nothing_does_not_change_the_exit_code(tmp_path):
    words = [sys.executable, "-m", "tachyon", "recv", str(tmp_path / "nowhere" / "bus")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        assert subprocess.run(words, stderr=full, env=environment, timeout=60, check=False).returncode == 1


@pytest.mark.parametrize("capacity", ["64", "4M"])
def test_a_failure_at_the_very_end_fails_both(command, path, tmp_path, capacity):
    send, recv, part = half_way(command, path, tmp_path / "out", "--capacity", capacity)
    (tmp_path / "out").mkdir()  # now the last step, the renaming, cannot succeed
    send.ends(3)
    _, said = recv.ends(1)
    assert str(part) in said
    assert part.read_bytes() == MESSAGE


@pytest.mark.parametrize(
    ("output", "reason"), [("no/such/folder", "No such file"), (".", "Is a directory"), ("file/out", "Not a directory")]
)
def test_an_impossible_output_is_told_before_anybody_comes(command, path, tmp_path, output, reason):
    (tmp_path / "file").touch()
    _, said = command("recv", path, "-o", output).ends(1)
    assert reason in said
    assert not os.path.exists(path)
