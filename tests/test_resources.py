"""Memory and descriptors that cannot be had: an error that says so, and nothing left behind."""

import contextlib
import errno
import os
import signal

import pytest

import tachyon
from tachyon import Bus


def test_a_capacity_beyond_the_machines_memory_is_refused_before_it_is_allocated(spawn, path, fake_meminfo):
    child = spawn(
        fake_meminfo(20_000)
        + """
import resource
for capacity in (1 << 25, 1 << 32):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    try: tachyon.Bus.listen(path, capacity, timeout=0)
    except MemoryError as error:
        say(str(capacity + 4096) in str(error), "20480000 bytes are available" in str(error), error)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    say(faults < 1000, os.path.exists(path))  # 32 MiB alone are 8192 pages
try: tachyon.Bus.listen(path, 1 << 16, timeout=0)
except tachyon.TachyonTimeoutError: say("small ones still work")
""",
        path,
    )
    if child.line() == "no mount":
        pytest.skip("this machine allows no mounts")
    for _ in range(2):
        line = child.line()
        assert line.startswith("True True "), line
        assert "use a smaller capacity or free some memory" in line
        child.says("True False")
    child.says("small ones still work")
    child.ends()


def test_the_memory_is_there_before_anybody_is_let_in(path, run_thread, until):
    capacity = 1 << 22
    listening = run_thread(Bus.listen, path, capacity, timeout=60)
    until(lambda: os.path.exists(path))

    def reserved():
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:tachyon"):
                    return os.fstat(int(number)).st_blocks * 512
            except OSError:  # that of the listing itself
                continue
        raise AssertionError("no segment")

    found = reserved()
    with Bus.connect(path, timeout=30), listening.result():
        pass
    assert found == capacity + 4096


LIMITED = """
    import resource
    def limit(what, value): resource.setrlimit(what, (value, resource.getrlimit(what)[1]))
    def used(): return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
"""


@pytest.mark.parametrize("capacity", [1 << 24, 1 << 25])
def test_a_lack_of_address_space_is_a_memory_error_that_names_the_size(spawn, path, capacity):
    child = spawn(
        LIMITED
        + f"""
    fds = os.listdir("/proc/self/fd")
    limit(resource.RLIMIT_AS, used() + (4 << 20))
    try: tachyon.Bus.listen(path, {capacity}, timeout=0)
    except MemoryError as error: say(error)
    say(os.path.exists(path), os.listdir("/proc/self/fd") == fds)
    try: tachyon.Bus.listen(path, 1 << 16, timeout=0)
    except tachyon.TachyonTimeoutError: say("small ones still work")
    """,
        path,
    )
    line = child.line()
    assert str(capacity + 4096) in line
    assert "use a smaller capacity" in line
    child.says("False True", "small ones still work")
    child.ends()


def test_a_connector_without_address_space_gets_a_memory_error_and_the_next_one_through(spawn, path, run_thread):
    listening = run_thread(Bus.listen, path, 1 << 24, timeout=60)
    child = spawn(
        LIMITED
        + """
    limit(resource.RLIMIT_AS, used() + (4 << 20))
    try: tachyon.Bus.connect(path, timeout=30)
    except MemoryError as error: say(error)
    """,
        path,
    )
    line = child.line()
    assert str((1 << 24) + 4096) in line
    child.ends()
    with Bus.connect(path, timeout=30) as connector, listening.result() as listener:
        connector.send(b"x")
        assert listener.recv().data == b"x"


def test_a_limit_on_file_sizes_is_an_error_too(spawn, path):
    child = spawn(
        LIMITED
        + """
    limit(resource.RLIMIT_FSIZE, 1 << 20)
    try: tachyon.Bus.listen(path, 1 << 32, timeout=0)
    except MemoryError as error: say(error)
    say(os.path.exists(path))
    """,
        path,
    )
    assert str((1 << 32) + 4096) in child.line()
    child.says("False")
    child.ends()


def test_a_message_that_there_is_no_memory_for_stays_the_next_one(spawn, path):
    child = spawn(
        LIMITED
        + """
    bus = tachyon.Bus.connect(path, timeout=60)
    old = resource.getrlimit(resource.RLIMIT_AS)[0]
    say(bus.recv().data)
    limit(resource.RLIMIT_AS, used() + (1 << 20))
    for receive in (bus.recv, bus.recv, lambda: next(bus), bus.try_recv):
        try: receive()
        except MemoryError: say("no memory")
    with bus.recv_zero_copy() as rx: say(rx.actual_size)
    limit(resource.RLIMIT_AS, old)
    say(bus.recv().data)
    """,
        path,
    )
    with Bus.listen(path, 1 << 24, timeout=60) as bus:
        bus.send(b"before")
        child.says("b'before'")
        bus.send(bytes(12 << 20))
        bus.send(b"after")
        child.says(*["no memory"] * 4, str(12 << 20), "b'after'")
    child.ends()


DESCRIPTORS = (
    LIMITED
    + """
    import errno
    highest = max(map(int, os.listdir("/proc/self/fd")))
    free = int(sys.argv[2])
    taken = []
    limit(resource.RLIMIT_NOFILE, 64)
    try:
        while True: taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: pass
    for _ in range(free): os.close(taken.pop())
    def open_numbers():  # without opening one
        found = 0
        for number in range(64):
            try: os.fstat(number); found += 1
            except OSError: pass
        return found
    before = open_numbers()
"""
)


@pytest.mark.parametrize("free", range(4))
def test_a_listener_without_descriptors_says_so(spawn, path, free):
    child = spawn(
        DESCRIPTORS
        + """
    try: bus = tachyon.Bus.listen(path, 4096, timeout=0)
    except tachyon.TachyonTimeoutError: say("enough")
    except tachyon.HandshakeError as error: say(error.errno == errno.EMFILE, error)
    except MemoryError as error: say("memory", error)
    say(open_numbers() == before, os.path.exists(path))
    """,
        path,
        free,
    )
    line = child.line()
    if line != "enough":
        assert line.startswith("True "), line
        assert "ulimit -n" in line
    assert free > 0 or line != "enough"
    child.says("True False")
    child.ends()


@pytest.mark.parametrize("free", range(6))
def test_a_connector_without_descriptors_says_so_and_the_listener_serves_the_next(spawn, path, run_thread, free, until):
    listening = run_thread(Bus.listen, path, 4096, timeout=30)
    until(lambda: os.path.exists(path))
    child = spawn(
        DESCRIPTORS
        + """
    try: bus = tachyon.Bus.connect(path)
    except tachyon.HandshakeError as error: say(error.errno == errno.EMFILE, error)
    else: say("enough"); bus.send(b"x"); bus.close()
    say(open_numbers() == before)
    """,
        path,
        free,
    )
    line = child.line()
    if line == "enough":
        assert free >= 2
        with listening.result() as bus:
            assert bus.recv().data == b"x"
    else:
        assert line.startswith("True "), line
        assert "ulimit -n" in line
        with Bus.connect(path, timeout=30), listening.result():
            pass
    child.says("True")
    child.ends()


@pytest.mark.parametrize("free", range(4, 10))
def test_a_listener_that_runs_out_while_it_waits_says_so_or_serves(spawn, path, free, until):
    child = spawn(
        DESCRIPTORS
        + """
    try: bus = tachyon.Bus.listen(path, 4096, timeout=50)
    except tachyon.HandshakeError as error: say(error.errno == errno.EMFILE, error)
    else: say("enough"); say(bus.recv().data); bus.close()
    say(open_numbers() == before, os.path.exists(path))
    """,
        path,
        free,
    )
    until(lambda: os.path.exists(path))
    child.falls_asleep()  # between the two it does not listen yet
    try:
        with Bus.connect(path) as bus:
            bus.send(b"x")
    except tachyon.HandshakeError:
        assert free <= 5  # memfd, epoll, socket, folder, client, pidfd
    line = child.line()
    if line == "enough":
        child.says("b'x'")
    else:
        assert line.startswith("True "), line
        assert "ulimit -n" in line
    child.says("True False")
    child.ends()


def test_a_full_table_is_the_system_error_that_it_is():
    assert issubclass(tachyon.HandshakeError, OSError)
    assert tachyon.HandshakeError("x", errno.EMFILE).errno == errno.EMFILE


# ---- the time that it takes ------------------------------------------------------------------------------------------

GIB = 1 << 30
FAULTS = f"""
import resource
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
def part(): return faults() - before < {GIB // 4096 // 2}
"""


@pytest.mark.parametrize(
    "call", [f"Bus.listen(path, {GIB}, timeout=0.01)", f"RpcBus.listen(path, {GIB // 2}, {GIB // 2}, timeout=0.01)"]
)
def test_reserving_much_memory_ends_with_the_timeout(spawn, path, call):
    child = spawn(
        FAULTS
        + f"""
try: tachyon.{call}
except tachyon.TachyonTimeoutError as error: say(error)
say(part(), os.path.exists(path), "memfd" in open("/proc/self/maps").read())
""",
        path,
    )
    line = child.line()
    assert line == f"the timeout ran out while memory was being reserved for {path}"
    child.says("True False False")
    child.ends()


def reserved_by(pid):
    """Bytes of the child's first segment."""
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        with contextlib.suppress(OSError):
            if os.readlink(f"{folder}/{number}").startswith("/memfd:tachyon"):
                return os.stat(f"{folder}/{number}").st_blocks * 512
    return 0


def test_ctrl_c_while_much_memory_is_being_reserved(spawn, path, until):
    for _attempt in range(20):  # the signal may come when all of it is there
        child = spawn(
            FAULTS
            + f"""
say("go")
try: tachyon.Bus.listen(path, {GIB}, timeout=60)
except KeyboardInterrupt: say("interrupted")
say(os.path.exists(path), "memfd" in open("/proc/self/maps").read())
say(part())
""",
            path,
        )
        child.says("go")
        until(lambda pid=child.pid: reserved_by(pid) > 1 << 20)
        child.send_signal(signal.SIGINT)
        child.says("interrupted", "False False")
        if child.line() == "True":
            child.ends()
            return
        child.ends()
    pytest.fail("it never ended before everything was reserved")


@pytest.mark.parametrize("timeout", [0, 30, None])
def test_a_signal_is_looked_at_while_memory_is_being_mapped(spawn, path, run_thread, timeout):
    listening = run_thread(Bus.listen, path, 1 << 28, timeout=60)
    child = spawn(
        """
mapped = []
def look(*_):
    if "memfd:tachyon" in open("/proc/self/maps").read():
        mapped.append(1)
        raise InterruptedError("enough")
signal.signal(signal.SIGALRM, look)
signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
until = time.monotonic() + 60
while not os.path.exists(path) and time.monotonic() < until: time.sleep(1e-3)
try: tachyon.Bus.connect(path, timeout=eval(sys.argv[2])).close()
except InterruptedError as error: say(error)
else: say("connected")
signal.setitimer(signal.ITIMER_REAL, 0)
say("memfd:tachyon" in open("/proc/self/maps").read())
""",
        path,
        timeout,
    )
    child.says("enough", "False")
    child.ends()
    with Bus.connect(path, timeout=30), listening.result():
        pass


@pytest.mark.parametrize("timeout", [0, 1e-9, 60])
def test_what_is_wrong_with_the_arguments_is_said_before_the_time_is_looked_at(path, timeout):
    with pytest.raises(tachyon.CapacityError):
        Bus.listen(path, GIB + 1, timeout=timeout)
    with pytest.raises(tachyon.CapacityError):
        tachyon.RpcBus.listen(path, GIB, GIB + 1, timeout=timeout)
    with pytest.raises(tachyon.HandshakeError, match="the socket path is empty"):
        Bus.listen("", GIB, timeout=timeout)
    with pytest.raises(tachyon.HandshakeError, match="107"):
        Bus.listen("/tmp/" + "x" * 200, GIB, timeout=timeout)
