"""Two ends of a bus for the tests: both in this process, or one in a child that cannot outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import tachyon

# Where the fixtures of more than one file are that not all need.
pytest_plugins = [
    *(
        "aio_ends",
        "bridge_commands",
        "bridge_links",
        "commands",
        "dispatchers",
        "example_programs",
        "nogil_hands",
        "pair_children",
        "servers",
        "strangers",
    ),
]
collect_ignore = ["consumer_pkg"]  # a project of its own; scripts/check_wheel runs it

# seconds; only ever for what should have happened long before
PATIENCE = float(os.environ.get("TACHYON_TEST_PATIENCE", "60"))

PRELUDE = f"""\
import ctypes, os, signal, sys, time
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != {os.getpid()}: sys.exit("the tests are gone")
signal.signal(signal.SIGINT, signal.default_int_handler)
import tachyon
path = sys.argv[1] if len(sys.argv) > 1 else None
def say(*words): print(*words, flush=True)
def hear(): return sys.stdin.readline().strip()
"""


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long forms of the campaigns too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a long form; run with --long"))


class Child:
    """A Python process at the other end: its lines out, our lines in. Killed by the fixture that made it."""

    def __init__(self, code: str, arguments: tuple, errors: Path) -> None:
        self.errors = errors
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=errors.parent,  # not where sources of ours may shadow what is installed
            )
        self.pid = self.process.pid
        self._rest = b""

    def line(self) -> str:
        """Its next line, without the end."""
        out = self.process.stdout.fileno()
        end = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            ready, _, _ = select.select([out], [], [], max(0, end - time.monotonic()))
            data = os.read(out, 65536) if ready else b""
            if not data:
                why = "ended" if ready else "said nothing"
                pytest.fail(f"the child {why}; it had said {self._rest!r}; {self.complaint()}")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def says(self, *expected: str) -> None:
        for each in expected:
            line = self.line()
            assert line == each, f"{line!r}, not {each!r}; {self.complaint()}"

    def tell(self, line: object = "go") -> None:
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it has."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: self.state() == "T")

    def state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()[0]

    def falls_asleep(self) -> None:
        """Until its main thread blocks in the kernel, and still does a little later."""

        def asleep() -> bool:
            if self.state() != "S":
                return False
            time.sleep(0.03)
            return self.state() == "S"

        wait_until(asleep)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def ends(self, code: int = 0) -> str:
        """Wait for its end; returns what else it said."""
        self.process.stdin.close()
        out = self._rest
        while chunk := self.process.stdout.read():
            out += chunk
        assert self.process.wait(PATIENCE) == code, self.complaint()
        return out.decode()

    def complaint(self) -> str:
        return f"stderr: {self.errors.read_text(errors='replace')}"

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


def wait_until(condition, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


def open_pair(path, capacity: int = 1 << 16, **options):
    """(listener, connector), both in this process. options: of connect."""
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(tachyon.Bus.listen, path, capacity, timeout=PATIENCE)
        try:
            connector = tachyon.Bus.connect(path, timeout=PATIENCE, **options)
        except BaseException:
            # Let it go at once, with a client of its own.
            with contextlib.suppress(tachyon.TachyonError):
                tachyon.Bus.connect(path, timeout=1).close()
            raise
        return listening.result(), connector


def listen_for(seconds, path, **options):
    return tachyon.Bus.listen(path, 4096, timeout=seconds, **options)


@pytest.fixture
def path(tmp_path):
    """A free socket path, short enough for a UNIX address."""
    path = str(tmp_path / "bus")
    assert len(path) < 100
    return path


@pytest.fixture
def pair(tmp_path):
    """pair(capacity, **options) → (producer, consumer): two ends in this process. The connector is the producer."""
    opened = []

    def make(capacity: int = 1 << 16, **options):
        listener, connector = open_pair(str(tmp_path / f"pair{len(opened)}"), capacity, **options)
        opened.extend((listener, connector))
        return connector, listener

    yield make
    for bus in opened:
        bus.close()


@pytest.fixture
def rpc(tmp_path):
    """rpc(cap_fwd, cap_rev, **options) → (caller, callee), both in this process. options: of connect."""
    opened = []

    def make(forward=1 << 16, reverse=1 << 16, **options):
        path = tmp_path / f"rpc{len(opened)}"
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(tachyon.RpcBus.listen, path, forward, reverse, timeout=60)
            caller = tachyon.RpcBus.connect(path, timeout=60, **options)
            callee = listening.result()
        opened.extend((caller, callee))
        return caller, callee

    yield make
    for bus in opened:
        bus.close()


@pytest.fixture
def spawn(tmp_path):
    """spawn(code, *arguments) → Child. The code finds `tachyon`, `path` (its first argument), `say` and `hear`."""
    children = []

    def make(code: str, *arguments) -> Child:
        child = Child(code, arguments, tmp_path / f"stderr{len(children)}")
        children.append(child)
        return child

    yield make
    for child in children:
        child.clean_up()


@pytest.fixture
def until():
    """until(condition): poll until it is true; the watchdog is a minute."""
    return wait_until


@pytest.fixture
def no_descriptors():
    """no_descriptors(): a block in which this process gets no more of them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Block:
        def __enter__(self):
            with open("/dev/null") as free:
                resource.setrlimit(resource.RLIMIT_NOFILE, (free.fileno(), before[1]))

        def __exit__(self, *exc_info):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    return Block()


@pytest.fixture
def run_thread():
    """run_thread(function, …) → Future, in a thread of its own."""
    threads = []

    def run(future, function, args, kwargs):
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        finally:
            del future  # which keeps the exception, which keeps this frame

    def make(function, *args, **kwargs):
        future = Future()
        # A daemon, and waited for with an end: once a test has failed, pytest's watchdog does not look any more.
        threads.append(threading.Thread(target=run, args=(future, function, args, kwargs), daemon=True))
        threads[-1].start()
        return future

    yield make
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a thread of this test never ended"


@pytest.fixture
def fake_meminfo(tmp_path):
    """fake_meminfo(kib) → source for a child: from now on /proc/meminfo says so much is available."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()  # whether namespaces may be made at all
    if pid == 0:
        os._exit(0 if libc.unshare(0x10020000) == 0 else 1)
    if os.waitpid(pid, 0)[1] != 0:
        pytest.skip("this machine allows no user namespaces")

    def source(kib: int) -> str:
        fake = tmp_path / "meminfo"
        fake.write_text(f"MemTotal: {kib} kB\nMemAvailable: {kib} kB\n")
        return textwrap.dedent(f"""
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x10020000) != 0: sys.exit("unshare failed")  # CLONE_NEWUSER | CLONE_NEWNS
            if libc.mount({str(fake)!r}.encode(), b"/proc/meminfo", None, 4096, None) != 0:  # MS_BIND
                say("no mount"); sys.exit()
            say("mounted")
        """)

    return source
