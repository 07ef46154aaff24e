"""Signals: Ctrl-C ends every blocking call; others run their handlers, and the wait goes on."""

import os
import signal
import time

import pytest

import tachyon
from tachyon import Bus

# name → (what it needs, the call, what ends it otherwise)
CALLS = {
    "listen": "tachyon.Bus.listen(path, 4096).close()",
    "listen with a timeout": "tachyon.Bus.listen(path, 4096, timeout=50).close()",
    "connect": "tachyon.Bus.connect(path, timeout=None).close()",
    "connect with a timeout": "tachyon.Bus.connect(path, timeout=50).close()",
    "send": "bus.send(b'x')",
    "send with a timeout": "bus.send(b'x', timeout=50)",
    "send strided": "bus.send(memoryview(b'abcd')[::2])",
    "send_many": "bus.send_many([b'x'])",
    "send_zero_copy": "bus.send_zero_copy(4)",
    "recv": "bus.recv()",
    "recv with a timeout": "bus.recv(timeout=50)",
    "iteration": "[m for m in bus]",
    "recv_into": "bus.recv_into(bytearray(64))",
    "recv_zero_copy": "bus.recv_zero_copy()",
    "drain_batch": "bus.drain_batch()",
}
SETUP = [name for name in CALLS if name.startswith(("listen", "connect"))]
SENDING = [name for name in CALLS if name.startswith("send")]
RECEIVING = [name for name in CALLS if name not in SETUP and name not in SENDING]

CODE = """
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    signal.signal(signal.SIGALRM, lambda *_: handled.append(1))
    bus = None
    if sys.argv[2] != "setup":
        bus = tachyon.Bus.connect(path, timeout=60)
        bus.set_polling_mode(sys.argv[3] == "polling")
    if sys.argv[2] == "sending":
        while bus.try_send(b"full"): pass
    say("waiting")
    try:
        result = {call}
        say("done", len(handled))
    except KeyboardInterrupt:
        say("interrupted", len(handled))
    except tachyon.TachyonError as error:
        say(type(error).__name__)
    say("left" if bus is None else "closed" if bus.closed else "open", os.path.exists(path))
    if hear() == "again":  # the bus is as good as before
        say(bus.recv(timeout=50).data if sys.argv[2] == "receiving" else bus.send(b"again", timeout=50))
"""


def group(name):
    return "setup" if name in SETUP else "sending" if name in SENDING else "receiving"


@pytest.fixture
def caller(spawn, path):
    """caller(name) → (child, the other end): a child that blocks in the call."""
    opened = []

    def make(name, mode="sleeping"):
        child = spawn(CODE.format(call=CALLS[name]), path, group(name), mode)
        bus = None
        if name not in SETUP:
            bus = Bus.listen(path, 256, timeout=60)
            opened.append(bus)
        child.says("waiting")
        if mode == "sleeping":
            child.falls_asleep()
        return child, bus

    yield make
    for bus in opened:
        bus.close()


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_ends_it(caller, name):
    child, bus = caller(name)
    child.send_signal(signal.SIGINT)
    child.says("interrupted 0", "left False" if bus is None else "open False")
    if bus is None:
        child.tell("end")
    elif name in RECEIVING:
        bus.send(b"again", timeout=50)
        child.tell("again")
        child.says("b'again'")
    else:
        child.tell("again")
        received = [bus.recv(timeout=50).data for _ in range(5)]
        assert received == [b"full"] * 4 + [b"again"]
        child.says("None")
    child.ends()


@pytest.mark.parametrize("name", ["send", "recv", "drain_batch"])
def test_ctrl_c_ends_a_polling_wait(caller, name):
    child, _ = caller(name, "polling")
    time.sleep(0.2)  # it does not sleep, so nothing shows that it has got there
    child.send_signal(signal.SIGINT)
    child.says("interrupted 0", "open False")


@pytest.mark.parametrize("name", CALLS)
def test_other_signals_run_their_handlers_and_the_wait_goes_on(caller, path, until, name):
    child, bus = caller(name)
    for number in (signal.SIGUSR1, signal.SIGALRM):
        child.send_signal(number)
        child.falls_asleep()
    assert child._rest == b""
    if name.startswith("listen"):
        Bus.connect(path, timeout=50).close()
    elif name.startswith("connect"):
        Bus.listen(path, 4096, timeout=50).close()
    elif name in SENDING:
        assert bus.recv(timeout=50).data == b"full"
        bus.flush()
    else:
        bus.send(b"x")
        if name == "iteration":
            bus.close()
    line = child.line()
    assert line == "done 2", child.complaint()


def test_the_exception_of_another_handler_comes_out(spawn, path):
    code = """
        class Enough(Exception): pass
        def handler(*_): raise Enough("of it")
        signal.signal(signal.SIGUSR1, handler)
        say("waiting")
        for call in (lambda: tachyon.Bus.listen(path, 4096), lambda: tachyon.Bus.connect(path, timeout=None)):
            try: call()
            except Enough as error: say("enough", error, error.__cause__, os.path.exists(path))
    """
    child = spawn(code, path)
    child.says("waiting")
    for _ in range(2):
        child.falls_asleep()
        child.send_signal(signal.SIGUSR1)
        child.says("enough of it None False")
    child.ends()


def test_a_handler_may_close_the_bus_and_so_end_the_wait(spawn, path):
    code = """
        bus = tachyon.Bus.connect(path, timeout=60)
        signal.signal(signal.SIGUSR1, lambda *_: bus.close())
        say("waiting")
        try: bus.recv()
        except tachyon.BusClosedError as error: say("closed", error)
    """
    child = spawn(code, path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("waiting")
        child.falls_asleep()
        child.send_signal(signal.SIGUSR1)
        assert child.line().startswith("closed ")
        with pytest.raises(tachyon.PeerClosedError):
            bus.send(b"x")
    child.ends()


def test_a_handler_that_uses_the_bus_it_interrupted_is_refused(spawn, path):
    code = """
        bus = tachyon.Bus.connect(path, timeout=60)
        def handler(*_):
            try: bus.try_recv()
            except tachyon.BusBusyError: say("busy")
        signal.signal(signal.SIGUSR1, handler)
        say("waiting")
        say(bus.recv().data)
    """
    child = spawn(code, path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("waiting")
        child.falls_asleep()
        child.send_signal(signal.SIGUSR1)
        child.says("busy")
        bus.send(b"x")
        child.says("b'x'")
    child.ends()


def test_a_storm_of_signals_loses_nothing(spawn, path):
    code = """
        count = [0]
        def handler(*_): count[0] += 1
        signal.signal(signal.SIGALRM, handler)
        bus = tachyon.Bus.connect(path, timeout=60)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        total = 0
        for message in bus:
            assert message.data == b"%d" % total; total += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(total, count[0] > 10)
    """
    child = spawn(code, path)
    with Bus.listen(path, 256, timeout=60) as bus:
        for i in range(20000):
            bus.send(b"%d" % i, timeout=60)
            if i % 200 == 0:
                time.sleep(0.001)
    child.says("20000 True")
    child.ends()


def test_a_signal_ends_a_send_many_that_never_has_to_wait(spawn, path):
    code = """
        import itertools
        class Enough(Exception): pass
        def handler(*_): raise Enough
        signal.signal(signal.SIGALRM, handler)
        bus = tachyon.Bus.connect(path, timeout=60)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        try: bus.send_many(itertools.repeat(b"", 500_000))  # all of them would fit
        except Enough: say("enough", 0 < bus.stats()["messages"] < 500_000)
        else: say("all of them")
    """
    child = spawn(code, path)
    with Bus.listen(path, 1 << 25, timeout=60) as bus:
        child.says("enough True")
        with bus.drain_batch() as batch:  # and those before are there
            assert len(batch) == 1024
    child.ends()


def test_a_signal_in_a_process_whose_main_thread_is_elsewhere_ends_nothing(spawn, path):
    code = """
        import threading
        got = []
        bus = tachyon.Bus.connect(path, timeout=60)
        thread = threading.Thread(target=lambda: got.append(bus.recv().data))
        thread.start()
        try:
            say("waiting")
            while thread.is_alive(): time.sleep(0.01)
        except KeyboardInterrupt: say("interrupted", thread.is_alive())
        thread.join()
        say(got)
    """
    child = spawn(code, path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("waiting")
        os.kill(child.pid, signal.SIGINT)
        child.says("interrupted True")
        bus.send(b"x")
        child.says("[b'x']")
    child.ends()
