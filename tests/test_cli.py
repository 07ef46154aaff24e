"""`python -m tachyon`: real processes, their exit codes, and what they leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tachyon
from tachyon.cli.histogram import duration, histogram, quantile
from tachyon.cli.meter import size_text

PATIENCE = 60.0  # seconds; only ever for what should have happened long before
DOCS = Path(__file__).parent.parent / "docs"
MESSAGE = bytes(range(256)) * 16


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def handles(pid, signum):
    with open(f"/proc/{pid}/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt:"))
    return int(caught.split()[1], 16) >> (signum - 1) & 1


@pytest.fixture(autouse=True)
def ctrl_c_is_not_ignored():
    """Also where the tests run in the background of a shell that has its children ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Command:
    """One `python -m tachyon ...`, its stdin ours to write, its stdout and stderr pipes unless told otherwise."""

    def __init__(self, *words, cwd, **streams):
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        self.process = subprocess.Popen([sys.executable, "-m", "tachyon", *map(str, words)], cwd=cwd, **streams)
        self.pid = self.process.pid

    def feed(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    def running(self):
        return self.process.poll() is None

    def ends(self, code, data=None):
        """Wait for its end; returns its stdout and stderr."""
        out, err = self.process.communicate(data, timeout=PATIENCE)
        err = (err or b"").decode()
        assert self.process.returncode == code, err
        assert "Traceback" not in err
        return out, err

    def close(self):
        if self.running():
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.process.wait(PATIENCE)


@pytest.fixture
def command(tmp_path):
    started = []

    def start(*words, **streams):
        started.append(Command(*words, cwd=tmp_path, **streams))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bus"


def half_way(command, path, output, *options):
    """A recv to `output` and a send that has sent MESSAGE and now waits for more on its stdin."""
    recv = command("recv", path, "-o", output, *options)
    send = command("send", path)
    send.feed(MESSAGE)
    part = output.with_name(output.name + ".part")
    wait_until(lambda: part.exists() and part.stat().st_size == len(MESSAGE))
    return send, recv, part


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
        wait_until(lambda: not path.exists())
    assert send.process.wait(PATIENCE) == 3


@pytest.mark.skipif(
    not shutil.which("c++") or not (DOCS / "cpp.md").is_file(), reason="no C++ compiler, or not the source tree"
)
def test_either_end_may_be_in_cxx(command, path, tmp_path):
    (code,) = re.findall(r"```cpp\n(.*?)```", (DOCS / "cpp.md").read_text(), re.DOTALL)
    (tmp_path / "app.cpp").write_text(code.replace("/tmp/cpp.sock", str(path)))
    app = tmp_path / "app"
    flags = ["-std=c++20", "-I", tachyon.get_include(), "-L", *tachyon.get_library_dirs()]
    arguments = ["c++", *flags, tmp_path / "app.cpp", "-o", app, "-ltachyon", "-pthread"]
    subprocess.run(arguments, check=True, timeout=100)
    recv = command("recv", path)
    subprocess.run([app, "send"], check=True, timeout=PATIENCE)
    assert recv.ends(0)[0] == b"hello"
    with subprocess.Popen([app], stdout=subprocess.PIPE) as listener:
        try:
            command("send", path).ends(0, b"hello")
            assert listener.communicate(timeout=PATIENCE)[0] == b"0: hello\n"
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
    assert not path.exists()


# ---- deaths and stops ------------------------------------------------------------------------------------------------


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
    wait_until(path.exists)
    recv.signal(signal.SIGINT)
    recv.ends(130)
    assert not path.exists()


def test_sigterm_ends_a_recv_that_listens(command, path):
    recv = command("recv", path)
    wait_until(path.exists)
    recv.signal(signal.SIGTERM)
    recv.ends(143)
    assert not path.exists()


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


# ---- not even started ------------------------------------------------------------------------------------------------


def test_no_listener(command, path):
    _, said = command("send", path, "--timeout", "0").ends(1)
    assert str(path) in said
    _, said = command("send", path, "--timeout", "0.1").ends(4)
    assert str(path) in said


def test_no_sender(command, path):
    _, said = command("recv", path, "--timeout", "0.1").ends(4)
    assert str(path) in said
    assert not path.exists()


def test_a_path_that_cannot_be_listened_at(command, path, tmp_path):
    path.write_text("precious")
    for bad in (path, tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        _, said = command("recv", bad).ends(1)
        assert said.startswith("python -m tachyon recv: ")
        assert str(bad) in said
        assert said.count("\n") == 1
    assert path.read_text() == "precious"


def test_an_input_that_cannot_be_read(command, path, tmp_path):
    _, said = command("send", path, "missing").ends(1)
    assert "missing: No such file" in said
    recv = command("recv", path)
    _, said = command("send", path, tmp_path).ends(1)
    assert "Is a directory" in said
    recv.ends(3)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("recv", "p", "--capacity", "3M"), "take 4M"),
        (("recv", "p", "--capacity", "0"), "take 64"),
        (("recv", "p", "--capacity", "8G"), "take 4G"),
        (("recv", "p", "--capacity", "-4K"), "capacity"),
        (("recv", "p", "--capacity", "many"), "e.g. 4M"),
        (("recv", "p", "--timeout", "nan"), "seconds"),
        (("send", "p", "--timeout", "-1"), "seconds"),
        (("send",), "PATH"),
        (("fly",), "invalid choice"),
        ((), "recv /tmp/bus"),
    ],
)
def test_wrong_usage(command, words, hint):
    _, said = command(*words).ends(2)
    assert hint in said


@pytest.mark.parametrize("name", [None, "send", "recv"])
def test_help_lists_the_exit_codes(command, name):
    out, _ = command(*(word for word in (name, "--help") if word)).ends(0)
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130", "141"):
        assert f"\n  {code} " in out.decode()


def test_without_a_command_the_help_is_shown(command):
    out, said = command().ends(2)
    assert out == b""
    assert said == command("--help").ends(0)[0].decode()


@pytest.mark.parametrize(
    ("more", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_an_error_is_red_on_a_terminal_that_can_and_wants_it(command, path, more, coloured):
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", **more}
    words = ("send", path, "--timeout", "0")
    shown = on_terminal(command, *words, code=1, env=environment)
    assert ("\x1b[31mpython -m tachyon send:\x1b[m no listener" in shown) is coloured
    assert ("\x1b[3" in shown) is coloured
    _, said = command(*words, env=environment).ends(1)
    assert "\x1b" not in said


def test_version(command):
    assert command("--version").ends(0)[0].decode().strip() == f"tachyon-ipc {tachyon.__version__}"


# ---- progress --------------------------------------------------------------------------------------------------------


def on_terminal(command, *words, code=0, **streams):
    """Run with a terminal as stderr; returns what it showed."""
    ours, theirs = pty.openpty()
    shown = b""
    with open(ours, "rb", buffering=0) as screen:
        process = command(*words, stdin=subprocess.DEVNULL, stderr=theirs, **streams)
        os.close(theirs)
        while True:
            try:
                chunk = screen.read(1 << 16)
            except OSError:  # EIO: nobody has the other end open any more
                break
            if not chunk:
                break
            shown += chunk
        assert process.process.wait(PATIENCE) == code
    return shown.decode()


def test_a_terminal_sees_progress(command, path, tmp_path):
    (tmp_path / "in").write_bytes(bytes(5_000_000))
    recv = command("recv", path, "-o", "out")
    shown = on_terminal(command, "send", path, "in")
    assert "MB of 5 MB, " in shown
    assert "%" in shown
    assert "/s" in shown
    assert "\r\x1b[Ksent 5,000,000 bytes" in shown  # in the place of the progress line
    _, said = recv.ends(0)
    assert "\r" not in said  # its stderr is no terminal


def test_a_terminal_sees_progress_of_recv(command, path):
    send = command("send", path)
    send.feed(MESSAGE)
    send.process.stdin.close()
    shown = on_terminal(command, "recv", path, "-o", "out")
    assert "4.1 kB  " in shown
    assert "received 4,096 bytes" in shown


@pytest.mark.parametrize("words", [("recv",), ("send",), ("call", "1")])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_sees_that_it_waits(command, path, words, quiet):
    options = ["--timeout", "0.2", *(["-q"] if quiet else [])]
    shown = on_terminal(command, words[0], path, *words[1:], *options, code=4)
    assert shown.startswith("waiting for a ") is not quiet
    assert ("\r\x1b[K" in shown) is not quiet
    _, said = command(words[0], path, *words[1:], *options, stdin=subprocess.DEVNULL).ends(4)
    assert "waiting" not in said


def test_the_console_script_says_its_own_name(command):
    script = Path(sys.executable).parent / "tachyon"
    if not script.is_file():
        pytest.skip("it is not installed beside this Python")
    done = subprocess.run([script, "send", "/nowhere", "--timeout", "0"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tachyon send: no listener at /nowhere")
    assert subprocess.run([script, "--help"], capture_output=True, timeout=PATIENCE).stdout.startswith(
        b"usage: tachyon "
    )


def test_quiet_draws_nothing_on_a_terminal(command, path, tmp_path):
    (tmp_path / "in").write_bytes(bytes(5_000_000))
    command("recv", path, "-o", "out")
    assert on_terminal(command, "send", path, "in", "--quiet") == ""


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_succeeds(command):
    out, said = command("demo").ends(0)
    text = out.decode()
    assert "the same" in text
    assert "messages in" in text
    assert "█" in text
    for word in ("p50", "p99", "p99.9", "max", "n "):
        assert word in text
    assert said == ""


def test_the_demo_speaks_ascii_where_it_must(command):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    out, _ = command("demo", env=environment).ends(0)
    assert "##" in out.decode("ascii")


@pytest.mark.parametrize(
    "harm",
    [
        "import hashlib; f = hashlib.blake2b; hashlib.blake2b = lambda **how: f(b'x', **how)",  # another digest
        "demo.FILE = demo.CHUNK",  # another count of files
        "demo._import_folder = lambda: '/'; demo.sys.executable = '/bin/false'",  # no second process
    ],
)
def test_the_demo_fails_where_the_two_sides_differ(harm, tmp_path):
    code = f"import sys\nfrom tachyon.cli import demo\n{harm}\nsys.exit(demo.demo())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"python -m tachyon demo: " in done.stderr


@pytest.mark.parametrize(
    "samples",
    [[5], [0, 0], [7] * 1000, list(range(1, 100_000)), [400] * 990 + [10**9] * 10, [1, 10**12], list(range(999_990))],
)
def test_the_histogram_counts_every_sample(samples):
    lines = histogram(samples)
    assert len(lines) <= 25
    shares = [float(line.split()[-1].rstrip("%")) for line in lines if line.endswith("%")]
    beyond = [int(line.split(": ")[1].split()[0].replace(",", "")) for line in lines if " and more: " in line]
    assert sum(shares) + 100 * sum(beyond) / len(samples) == pytest.approx(100, abs=0.1 * len(lines))
    assert "█" * 40 in "".join(lines)


def test_a_quantile_is_a_sample():
    samples = list(range(10, 1010, 10))
    assert [quantile(samples, share) for share in (0, 0.5, 0.99, 0.999, 1)] == [10, 500, 990, 1000, 1000]
    assert quantile([3], 0.5) == 3


def test_quantities_are_short():
    assert [duration(ns) for ns in (0, 999, 999.7, 1240, 999_700, 2e9)] == [
        "0 ns",
        "999 ns",
        "1 µs",
        "1.24 µs",
        "1 ms",
        "2 s",
    ]
    assert [size_text(n) for n in (0, 999, 1000, 999_600, 12_345_678, 2.5e12)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "1 MB",
        "12.3 MB",
        "2.5 TB",
    ]
