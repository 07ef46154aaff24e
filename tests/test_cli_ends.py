"""`python -m tachyon send` and `recv` that are killed, stopped or left by the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from commands import MESSAGE, half_way
from conftest import PATIENCE, wait_until


def handles(pid, signum):
    with open(f"/proc/{pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return int(caught.split()[1], 16) >> (signum - 1) & 1


def test_a_sender_that_is_killed_is_no_end_of_stream(command, path, tmp_path):
    (tmp_path / "out").write_bytes(b"older and whole")
    send, recv, part = half_way(command, path, tmp_path / "out")
    send.signal(signal.SIGKILL)
    _, said = recv.ends(3)
    assert f"pid {send.pid}" in said
    assert str(part) in said
    assert part.read_bytes() == MESSAGE
    assert (tmp_path / "out").read_bytes() == b"older and whole"


def test_what_a_killed_sender_sent_reaches_stdout(command, path):
    recv = command("recv", path)
    send = command("send", path)
    send.feed(MESSAGE)
    assert recv.process.stdout.read(len(MESSAGE)) == MESSAGE
    send.signal(signal.SIGKILL)
    recv.ends(3)


@pytest.mark.parametrize("last", ["raise ValueError", "bus.abort()", "os._exit(0)"])
def test_a_program_that_does_not_close_is_no_end_of_stream(command, path, last):
    recv = command("recv", path)
    code = (
        f"import os, tachyon\nwith tachyon.Bus.connect({str(path)!r}, timeout=60) as bus:\n bus.send(b'half')\n {last}"
    )
    subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL, timeout=PATIENCE)
    assert recv.ends(3)[0] == b"half"


def test_a_receiver_that_is_killed_fails_the_sender(command, path, tmp_path):
    send, recv, _ = half_way(command, path, tmp_path / "out")
    recv.signal(signal.SIGKILL)
    recv.process.wait(PATIENCE)
    _, said = send.ends(3, MESSAGE)
    assert f"pid {recv.pid}" in said
    assert str(path) in said


def test_a_sender_that_was_killed_before_it_sent_leaves_no_file(command, path, tmp_path):
    recv = command("recv", path, "-o", "out")
    send = command("send", path)
    wait_until(lambda: (tmp_path / "out.part").exists())
    send.signal(signal.SIGKILL)
    recv.ends(3)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_ends_a_recv_that_listens(command, path):
    recv = command("recv", path)
    wait_until(lambda: os.path.exists(path))
    recv.signal(signal.SIGINT)
    recv.ends(130)
    assert not os.path.exists(path)


def test_sigterm_ends_a_recv_that_listens(command, path):
    recv = command("recv", path)
    wait_until(lambda: os.path.exists(path))
    recv.signal(signal.SIGTERM)
    recv.ends(143)
    assert not os.path.exists(path)


def test_ctrl_c_ends_a_send_that_waits(command, path):
    send = command("send", path, stdin=subprocess.DEVNULL)
    wait_until(lambda: handles(send.pid, signal.SIGTERM))  # which it does just before it starts to work
    send.signal(signal.SIGINT)
    send.ends(130)


def test_ctrl_c_in_recv_keeps_what_arrived_and_fails_send(command, path, tmp_path):
    send, recv, part = half_way(command, path, tmp_path / "out")
    recv.signal(signal.SIGINT)
    _, said = recv.ends(130)
    assert str(part) in said
    assert part.read_bytes() == MESSAGE
    send.ends(3, b"more")


def test_ctrl_c_in_send_fails_recv(command, path, tmp_path):
    send, recv, part = half_way(command, path, tmp_path / "out")
    send.signal(signal.SIGINT)
    send.ends(130)
    recv.ends(3)
    assert part.read_bytes() == MESSAGE


def test_nobody_reading_stdout_is_no_news(command, path):
    recv = command("recv", path)
    send = command("send", path)
    send.feed(MESSAGE)
    assert recv.process.stdout.read(10) == MESSAGE[:10]
    recv.process.stdout.close()
    send.feed(bytes(1 << 15))  # no more than the pipe takes: send may be gone before it has read it
    _, said = send.ends(3)
    assert "receiver" in said
    recv.process.wait(PATIENCE)
    assert recv.process.returncode == 141
    assert recv.process.stderr.read() == b""
