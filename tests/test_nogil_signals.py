"""Nogil code that a signal interrupts."""

import signal
import threading

import pytest
from downstream import need_compiler
from nogil_hands import CLOSED, EMPTY, FULL, INTERRUPTED, OK

import tachyon

need_compiler()


@pytest.mark.parametrize(
    "call", ["peek(-1)", "drain(4, -1)", "claim(1, -1)", "send(b'x', 0, -1)"], ids=lambda call: call.partition("(")[0]
)
def test_ctrl_c_ends_a_blocking_method(nogil_folder, spawn, path, call):
    producing = call[0] in "cs"
    child = spawn(
        f"""
        sys.path.insert(0, {str(nogil_folder)!r})
        import nogil_user
        bus = tachyon.Bus.connect(path, timeout=60)
        hand = nogil_user.Hand(bus)
        bus.send(b"fills it") if {producing} else bus.recv()
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
        say("ready")
        try:
            hand.{call}
        except KeyboardInterrupt:
            say("interrupted")
        """,
        path,
    )
    bus = tachyon.Bus.listen(path, 64, timeout=60)
    if not producing:
        bus.send(b"x")
    child.says("ready")
    child.falls_asleep()
    child.send_signal(signal.SIGUSR1)
    child.says("handled")
    child.falls_asleep()  # the wait goes on
    child.send_signal(signal.SIGINT)
    child.says("interrupted")
    child.ends()
    bus.close()


@pytest.mark.parametrize("way", ["readable", "writable"])
def test_a_single_wait_tells_of_a_signal(hands, way):
    producer, consumer = hands(64)
    assert producer.send(b"all the room", 0, 0) == OK
    if way == "readable":
        assert consumer.peek(0) == OK
        assert consumer.release() == OK
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        status = EMPTY
        while status in (EMPTY, FULL):  # it may have come before the wait
            status = consumer.wait_readable(-1) if way == "readable" else producer.wait_writable(8, -1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert status == INTERRUPTED


def test_a_signal_that_another_thread_got_ends_a_blocking_method(hands, run_thread):
    class Asked(Exception):
        pass

    def handler(*_):
        raise Asked

    _, consumer = hands()
    leave = threading.Event()
    other = run_thread(leave.wait)  # lets the signal in
    before = signal.signal(signal.SIGALRM, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(Asked):
            consumer.peek(-1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGALRM, before)
        leave.set()
    assert other.result(60)


@pytest.mark.parametrize("way", ["peek", "claim"])
def test_a_handler_may_close_the_bus_that_is_waited_for(nogil, pair, way):
    sender, receiver = pair(64)
    sender.send(b"all the room")
    if way == "peek":
        assert receiver.recv()
    bus = receiver if way == "peek" else sender
    hand = nogil.Hand(bus)
    before = signal.signal(signal.SIGALRM, lambda *_: bus.close())
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        assert (hand.peek(-1) if way == "peek" else hand.claim(8, -1)) == CLOSED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert bus.closed
