"""`python -m tachyon ...` as processes of the tests."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import pytest
from conftest import PATIENCE, wait_until

MESSAGE = bytes(range(256)) * 16


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
    """command(words …, **streams) → Command, killed in the end."""
    # Also where the tests run in the background of a shell that has its children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    started = []

    def start(*words, **streams):
        started.append(Command(*words, cwd=tmp_path, **streams))
        return started[-1]

    yield start
    for each in started:
        each.close()
    signal.signal(signal.SIGINT, before)


def half_way(command, path, output, *options):
    """A recv to `output` and a send that has sent MESSAGE and now waits for more on its stdin."""
    recv = command("recv", path, "-o", output, *options)
    send = command("send", path)
    send.feed(MESSAGE)
    part = output.with_name(output.name + ".part")
    wait_until(lambda: part.exists() and part.stat().st_size == len(MESSAGE))
    return send, recv, part
