"""Waiting for who has the other end: timeouts, Ctrl-C, threads; and what all of it leaves behind."""

import gc
import multiprocessing
import os
import signal
import time

import pair_workers
import pytest
from pair_children import PATIENCE

import tachyon


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_ctrl_c_ends_the_wait_and_the_end_can_still_be_opened(spawn):
    code = """
    import threading
    producer, consumer = tachyon.pair(4096)
    say("waiting")
    try: consumer.open()
    except KeyboardInterrupt: say("interrupted")
    here, there = tachyon.pipe()
    say("waiting")
    try: here.recv()
    except KeyboardInterrupt: say("interrupted")
    threading.Thread(target=lambda: producer.open().send(b"abc")).start()
    say(consumer.open(timeout=60).recv().data)
    threading.Thread(target=lambda: there.send(b"abc")).start()
    say(here.recv(timeout=60).data)
    """
    child = spawn(code)
    for _ in range(2):
        child.says("waiting")
        child.falls_asleep()
        child.send_signal(signal.SIGINT)
        child.says("interrupted")
    child.says("b'abc'", "b'abc'")
    child.ends()


def test_timeouts_are_kept_and_one_may_go_on(run_thread):
    producer, consumer = tachyon.pair(4096)
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            consumer.open(timeout=wrong)
    for seconds in (0, 0.02, 0.3):
        before = time.monotonic()
        with pytest.raises(tachyon.TachyonTimeoutError, match="nobody came to the other end"):
            consumer.open(timeout=seconds)
        assert time.monotonic() - before >= seconds
    opening = run_thread(producer.open, timeout=PATIENCE)
    with consumer.open(timeout=PATIENCE) as bus, opening.result(PATIENCE) as sender:
        sender.send(b"abc")
        assert bus.recv(timeout=PATIENCE).data == b"abc"


def test_a_pipe_nobody_has_come_to_is_empty_and_full(run_thread):
    here, there = tachyon.pipe()
    with pytest.raises(tachyon.BusEmptyError):
        here.recv(timeout=0.01)
    with pytest.raises(tachyon.BusFullError):
        here.send(b"abc", timeout=0.01)
    assert here.try_recv() is None
    assert here.try_send(b"abc") is False
    with pytest.raises(ValueError, match="timeout"):
        here.recv(timeout=-1)
    assert (here.tx, here.rx, here.peer_pid, here.closed) == (None, None, 0, False)
    echo = run_thread(lambda: there.send(there.recv(timeout=PATIENCE).data))
    here.send(b"abc", timeout=PATIENCE)
    assert here.recv(timeout=PATIENCE).data == b"abc"
    echo.result(PATIENCE)


def test_close_in_another_thread_ends_the_wait(run_thread):
    for end, _other in (tachyon.pair(4096), tachyon.rpc_pair(), tachyon.pipe()):
        opening = run_thread(end.open)
        time.sleep(0.05)
        end.close()
        with pytest.raises(tachyon.BusClosedError, match="this end is closed"):
            opening.result(PATIENCE)
        assert end.closed


def test_two_threads_do_not_open_one_end(run_thread, until):
    producer, _consumer = tachyon.pair(4096)
    opening = run_thread(producer.open)

    def refused():
        try:
            return producer.try_open() is not None
        except tachyon.BusBusyError:
            return True

    until(refused)
    producer.close()
    with pytest.raises(tachyon.BusClosedError):
        opening.result(PATIENCE)


def test_ends_leave_no_descriptors_behind(run_thread):
    def use():
        tachyon.pair(4096)
        one, other = tachyon.pipe(4096)
        sent = run_thread(one.send, b"abc", timeout=PATIENCE)
        assert other.recv(timeout=PATIENCE).data == b"abc"
        sent.result(PATIENCE)
        one.close()
        other.close()
        producer, consumer = tachyon.pair(4096)
        consumer.try_open()
        consumer.close()
        producer, consumer = tachyon.pair(4096)
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=pair_workers.produce, args=(producer, 1), daemon=True)
        child.start()
        with consumer as bus:
            assert len(list(bus)) == 1
        child.join(PATIENCE)
        child.close()

    use()
    before = descriptors()
    use()
    assert descriptors() == before
