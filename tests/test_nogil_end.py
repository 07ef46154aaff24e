"""Nogil code at a close, a death, and beside another thread."""

import threading
import time

import pytest
from downstream import need_compiler
from nogil_hands import CLOSED, EMPTY, FULL, OK, PEER_CLOSED, PEER_DEAD, mappings

import tachyon

need_compiler()


def test_everything_says_closed_afterwards(hands, nogil, pair):
    producer, consumer = (nogil.Hand(bus) for bus in pair())
    never = nogil.Hand(tachyon.Bus.__new__(tachyon.Bus))
    assert producer.try_send(b"x", 0) == OK
    assert consumer.try_peek() == OK
    for hand in (producer, consumer):
        hand.close()
    for hand in (producer, consumer, never):
        assert hand.try_claim(1) == CLOSED
        assert hand.commit(1, 1) == CLOSED
        assert hand.abort() == CLOSED
        assert hand.try_send(b"", 0) == CLOSED
        assert hand.claim(1, -1) == CLOSED
        assert hand.send(b"", 0, -1) == CLOSED
        assert hand.try_peek() == CLOSED
        assert hand.peek(-1) == CLOSED
        assert hand.release() == CLOSED
        assert hand.try_drain(2) == (CLOSED, 0)
        assert hand.drain(2, -1) == (CLOSED, 0)
        assert hand.release_all() == CLOSED
        assert hand.wait_readable(-1) == CLOSED
        assert hand.wait_writable(1, -1) == CLOSED
        assert hand.check() == CLOSED


@pytest.mark.parametrize("loop", ["send_until_it_ends", "claim_until_it_ends", "read_until_it_ends"])
def test_closing_under_a_running_loop_ends_it(nogil, run_thread, pair, loop):
    """What the loop touches must not go away under it. 150 times, at whatever moment it happens to be."""
    for turn in range(150):
        sender, receiver = pair(4096)
        sender.send(b"x" * 50)
        started = threading.Event()

        def run(bus, started=started):
            started.set()
            return getattr(nogil, loop)(bus)

        mine, other = (receiver, sender) if loop == "read_until_it_ends" else (sender, receiver)
        running = run_thread(run, mine)
        drive = run_thread(nogil.send_until_it_ends if mine is receiver else nogil.read_until_it_ends, other)
        started.wait(60)
        for _ in range(turn * 100):
            pass
        mine.close()
        result = running.result(60)
        assert (result[0] if isinstance(result, tuple) else result) == CLOSED
        drive = drive.result(60)
        assert (drive[0] if isinstance(drive, tuple) else drive) == PEER_CLOSED
        other.close()


def test_what_nogil_code_holds_stays_mapped_after_a_close(nogil, run_thread, pair):
    sender, receiver = pair(1 << 20)
    sender.send(bytes(1 << 19))
    flag = []
    before = mappings()
    holding = run_thread(nogil.hold_until, receiver, flag)
    while True:
        try:
            receiver.try_recv()
        except tachyon.BusBusyError:
            break
    receiver.close()
    assert mappings() == before
    flag.append(True)
    assert holding.result(60) == CLOSED
    assert nogil.Hand(receiver).release() == CLOSED  # which is no reason to count down
    receiver.close()  # nothing is held any more
    assert mappings() == before - 1


def test_a_claim_stays_writable_after_a_close(nogil, pair):
    sender, _ = pair()
    producer = nogil.Hand(sender)
    assert producer.try_claim(1000) == OK
    before = mappings()
    sender.close()
    producer.write(b"x" * 1000)
    assert producer.commit(1000, 0) == CLOSED
    assert mappings() == before
    sender.close()
    assert mappings() == before - 1


def test_after_nogil_use_close_unmaps_at_once(nogil, pair):
    sender, receiver = pair()
    producer, consumer = nogil.Hand(sender), nogil.Hand(receiver)
    assert producer.try_send(b"x", 0) == OK
    assert consumer.try_peek() == OK
    assert consumer.release() == OK
    before = mappings()
    sender.close()
    receiver.close()
    assert mappings() == before - 2


def test_a_waiting_loop_ends_with_the_close_of_another_thread(nogil, run_thread, pair, until):
    sender, receiver = pair(64)
    sender.send(b"full")
    sending = run_thread(nogil.Hand(sender).claim, 8, -1)
    until(lambda: sender.stats()["parks"] > 0)
    sender.close()
    assert sending.result(60) == CLOSED
    assert receiver.recv().data == b"full"
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    receiving = run_thread(nogil.Hand(receiver).drain, 4, -1)
    until(lambda: receiver.stats()["parks"] > 0)
    receiver.close()
    assert receiving.result(60) == (CLOSED, 0)
    assert receiver.closed


def test_the_peer_hears_of_a_close_that_a_single_wait_was_left_with(nogil, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    assert receiver.recv()
    hand, seen = nogil.Hand(receiver), 0
    for _ in range(20):  # a wait is a slice of 50 ms: the close comes in the midst of one, or after them all
        waiting = run_thread(hand.wait_readable, -1)
        until(lambda seen=seen, waiting=waiting: receiver.stats()["parks"] > seen or waiting.done())
        if not waiting.done():
            break
        seen = receiver.stats()["parks"]
    receiver.close()
    assert waiting.result(60) in (CLOSED, EMPTY)
    with pytest.raises(tachyon.PeerClosedError):
        sender.send(b"y")


def test_the_end_of_the_peer(hands, spawn, path, nogil):
    producer, consumer = hands()
    assert producer.try_send(b"last", 0) == OK
    producer.close()
    assert consumer.check() == OK  # something is left to read
    assert consumer.peek(-1) == OK
    assert consumer.release() == OK
    assert consumer.check() == PEER_CLOSED
    assert consumer.peek(-1) == PEER_CLOSED
    assert consumer.drain(4, -1) == (PEER_CLOSED, 0)
    for code, verb in (("bus.send(b'x')", "peek"), ("bus.recv()", "claim")):
        child = spawn(f"bus = tachyon.Bus.connect(path, timeout=60); {code}; say('ready'); hear()", path)
        bus = tachyon.Bus.listen(path, 64, timeout=60)
        hand = nogil.Hand(bus)
        if verb == "peek":
            assert hand.peek(-1) == OK
            assert hand.release() == OK
        else:
            assert hand.send(b"x", 0, -1) == OK
        child.says("ready")
        if verb == "claim":
            assert hand.send(b"fills it", 0, -1) == OK
        child.kill()
        assert (hand.peek(-1) if verb == "peek" else hand.claim(1, -1)) == PEER_DEAD
        assert hand.check() == PEER_DEAD
        bus.close()


@pytest.mark.parametrize("way", ["send", "claim"])
def test_a_slow_sender_hears_of_a_death_by_its_next_message(spawn, path, nogil, way):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=60); bus.recv(); say('ready'); hear()", path)
    with tachyon.Bus.listen(path, 1 << 16, timeout=60) as bus:
        hand = nogil.Hand(bus)
        assert hand.send(b"x", 0, -1) == OK
        child.says("ready")
        child.kill()
        time.sleep(0.05)  # a tick of the kernel is 10 ms at most
        assert way == "send" or hand.try_claim(8) == OK
        assert (hand.try_send(b"x", 0) if way == "send" else hand.commit(8, 0)) == PEER_DEAD
        assert hand.check() == PEER_DEAD


@pytest.mark.parametrize("code", ["send", "recv"])
def test_a_single_wait_tells_of_the_end_of_the_peer(spawn, path, nogil, code):
    call = "send(b'x')" if code == "send" else "recv()"
    for ending, status in (("close", PEER_CLOSED), ("kill", PEER_DEAD)):
        child = spawn(
            f"bus = tachyon.Bus.connect(path, timeout=60); bus.{call}; say('ready'); hear(); bus.close()", path
        )
        with tachyon.Bus.listen(path, 64, timeout=60) as bus:
            hand = nogil.Hand(bus)
            if code == "send":
                assert hand.peek(-1) == OK
                assert hand.release() == OK
            else:
                assert hand.send(b"x", 0, -1) == OK
            child.says("ready")
            if code == "recv":
                assert hand.send(b"fills it", 0, -1) == OK
            child.kill() if ending == "kill" else child.tell("close")
            said = OK
            while said in (OK, EMPTY, FULL):
                said = hand.wait_readable(-1) if code == "send" else hand.wait_writable(8, -1)
            assert said == status


def test_short_waits_leave_the_gil_alone(nogil, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    receiver.recv()
    kept = False
    for _ in range(20):  # every 50 ms one has to take it, to look for signals: a slow machine may come that far
        nogil.begin()
        waiting = run_thread(nogil.short_waits, receiver)
        until(nogil.has_started)
        kept = nogil.keep_the_gil()
        waiting.result(60)
        if kept:
            break
    assert kept
