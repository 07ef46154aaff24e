"""fork: the child owns nothing of its parent's, and its copies of descriptors hide no death."""

import ctypes
import os
import signal

import pytest

import tachyon
from tachyon import Bus, PeerDeadError

USES = """
    import traceback
    uses = {
        "send": lambda: bus.send(b"x"),
        "try_send": lambda: bus.try_send(b"x"),
        "send_many": lambda: bus.send_many([b"x"]),
        "send_zero_copy": lambda: bus.send_zero_copy(1),
        "recv": lambda: bus.recv(),
        "try_recv": lambda: bus.try_recv(),
        "recv_into": lambda: bus.recv_into(bytearray(8)),
        "recv_zero_copy": lambda: bus.recv_zero_copy(),
        "drain_batch": lambda: bus.drain_batch(),
        "next": lambda: next(bus),
        "iter": lambda: iter(bus),
        "enter": lambda: bus.__enter__(),
        "flush": lambda: bus.flush(),
        "stats": lambda: bus.stats(),
        "set_polling_mode": lambda: bus.set_polling_mode(True),
        "set_numa_node": lambda: bus.set_numa_node(0),
    }
    def check_refused():
        assert bus.closed
        assert "closed" in repr(bus)
        for name, use in uses.items():
            try: use()
            except tachyon.BusClosedError as error: text = str(error)
            else: raise AssertionError(name)
            assert "belongs to the parent of this process" in text, (name, text)
        bus.close(); bus.close()
        assert bus.closed
    def in_child(function):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try: function(); code = 0
            except BaseException: traceback.print_exc()
            finally: sys.stderr.flush(); os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("role", ["undecided", "producer", "consumer"])
def test_every_use_in_the_child_is_refused_and_the_parents_bus_is_unharmed(spawn, path, role):
    child = spawn(
        USES
        + """
    bus = tachyon.Bus.connect(path, timeout=60)
    role = sys.argv[2]
    if role == "producer": bus.send(b"before")
    if role == "consumer": bus.recv()
    say(in_child(check_refused))
    if role == "consumer": say(bus.recv().data)
    else: bus.send(b"after"); say("sent")
    """,
        path,
        role,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        if role == "consumer":
            bus.send(b"before")
        child.says("0")
        if role == "consumer":
            bus.send(b"after")
            child.says("b'after'")
        else:
            child.says("sent")
            assert [message.data for message in bus] == ([b"before"] if role == "producer" else []) + [b"after"]
    child.ends()


def test_guards_in_the_child_are_harmless(spawn, path):
    child = spawn(
        USES
        + """
    bus = tachyon.Bus.connect(path, timeout=60)
    tx = bus.send_zero_copy(5)
    view = memoryview(tx)
    def leave():
        global view
        assert view.nbytes == 5
        view.release()
        try:
            with tx: pass
        except tachyon.BusClosedError: pass
        else: raise AssertionError
        try: memoryview(tx)
        except tachyon.BusClosedError: pass
        else: raise AssertionError
    say(in_child(leave))
    with tx: view[:] = b"12345"; view.release()
    other = tachyon.Bus.connect(path + "2", timeout=60)
    for make in (other.recv_zero_copy, other.drain_batch):
        guard = make()
        def leave():
            global guard
            with_guard = guard
            del guard
            try:
                with with_guard: pass
            except tachyon.BusClosedError: pass
            del with_guard
        say(in_child(leave))
        with guard: say(bytes(guard[0] if hasattr(guard, "__getitem__") else guard))
    """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus, Bus.listen(path + "2", 64, timeout=60) as other:
        child.says("0")
        assert bus.recv().data == b"12345"
        other.send(b"1")
        other.send(b"2")
        child.says("0", "b'1'", "0", "b'2'")
    child.ends()


def test_a_forked_child_opens_its_own(spawn, path):
    child = spawn(
        USES
        + """
    bus = tachyon.Bus.connect(path, timeout=60)
    def own():
        bus.close()
        with tachyon.Bus.connect(path + "2", timeout=60) as mine: mine.send(b"mine")
    say(in_child(own))
    bus.send(b"parent's")
    """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus, Bus.listen(path + "2", 4096, timeout=60) as other:
        child.says("0")
        assert [message.data for message in other] == [b"mine"]
        assert bus.recv().data == b"parent's"
    child.ends()


def test_the_end_of_a_forked_child_is_not_the_end_of_the_bus(spawn, path):
    child = spawn(
        USES
        + """
    bus = tachyon.Bus.connect(path, timeout=60)
    for i in range(5):
        say(in_child(lambda: None), in_child(lambda: sys.exit))
        pid = os.fork()
        if pid == 0: os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        bus.send(b"%d" % i)
    """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        for i in range(5):
            child.says("0 0")
            assert bus.recv(timeout=30).data == b"%d" % i
        assert list(bus) == []
    child.ends()


@pytest.mark.parametrize("how", ["os.fork", "_Fork"])
@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_a_parents_death_is_seen_though_its_forked_child_lives(spawn, path, role, how):
    """_Fork is glibc's fork that runs no handlers: that child holds open whatever its parent had open."""
    if how == "_Fork" and not hasattr(ctypes.CDLL(None), "_Fork"):
        pytest.skip("this libc has no _Fork")
    child = spawn(
        """
    bus = tachyon.Bus.connect(path, timeout=60)
    if sys.argv[2] == "producer": bus.send(b"last")
    pid = os.fork() if sys.argv[3] == "os.fork" else ctypes.CDLL(None)._Fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    say(pid)
    time.sleep(60)
    """,
        path,
        role,
        how,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        if role == "consumer":
            bus.send(b"nobody reads this")
        orphan = int(child.line())
        try:
            child.kill()
            if role == "producer":
                assert bus.recv(timeout=30).data == b"last"
                with pytest.raises(PeerDeadError, match=rf"pid {child.pid}\) .* died") as caught:
                    bus.recv(timeout=30)
            else:
                with pytest.raises(PeerDeadError, match=rf"pid {child.pid}\) .* died") as caught:
                    while True:
                        bus.send(b"x", timeout=30)
            assert type(caught.value) is PeerDeadError
            assert caught.value.reason == "died"
            os.kill(orphan, 0)  # still there
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_parents_clean_close_is_seen_though_its_forked_child_lives(spawn, path):
    child = spawn(
        """
    bus = tachyon.Bus.connect(path, timeout=60)
    bus.send(b"last")
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    bus.close()
    say(pid)
    hear()
    """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        orphan = int(child.line())
        try:
            assert [message.data for message in bus] == [b"last"]
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_fork_while_other_threads_wait_harms_nobody(spawn, path):
    child = spawn(
        USES
        + """
    import threading
    bus = tachyon.Bus.connect(path, timeout=60)
    got = []
    thread = threading.Thread(target=lambda: got.append(bus.recv().data))
    thread.start()
    while bus.stats()["parks"] == 0: time.sleep(0.001)
    say(in_child(check_refused))
    thread.join()
    say(got)
    """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("0")
        bus.send(b"x")
        child.says("[b'x']")
    child.ends()


def test_no_descriptor_is_inherited_by_a_program_that_is_started(pair):
    before = set(os.listdir("/proc/self/fd"))
    producer, _consumer = pair()
    fresh = set(os.listdir("/proc/self/fd")) - before
    assert fresh
    for number in fresh:
        try:
            assert not os.get_inheritable(int(number))
        except OSError:  # that of the listing itself
            continue
    assert isinstance(producer, tachyon.Bus)
