"""Tier 2: the ring inlined into a module elsewhere, borrowed from a Bus that was opened in Python."""

import os
import re
import shlex
import shutil
import subprocess
import threading
from functools import partial

import pytest
from downstream import build, load, need_compiler
from ring_loops import SOURCE

import tachyon

need_compiler()

OK, EMPTY, FULL, PEER_CLOSED, PEER_DEAD, CLOSED, FORKED, BUSY = 0, 1, 2, 8, 9, 11, 12, 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("libtachyon"), "inlined", SOURCE, include=tachyon.get_include())


@pytest.fixture(scope="module")
def user(folder):
    return load(folder, "inlined")


@pytest.fixture
def hands(user, pair):
    return lambda capacity=1 << 16: tuple(user.Hand(bus) for bus in pair(capacity))


def test_a_stream_between_two_processes(folder, spawn, path):
    start = f"sys.path.insert(0, {str(folder)!r}); import inlined; bus = tachyon.Bus."
    consumer = spawn(start + "listen(path, 4096, timeout=60); say(inlined.consume(bus))", path)
    producer = spawn(start + "connect(path, timeout=60); inlined.produce(bus, 300_000); bus.close(); say('sent')", path)
    producer.says("sent")
    consumer.says("300000")
    producer.ends()
    consumer.ends()


def test_python_and_the_inlined_ring_take_turns(user, pair):
    sender, receiver = pair()
    sender.send(b"from Python")
    hand = user.Hand(sender)
    hand.borrow_producer()
    assert hand.send(b"inlined")
    hand.give_back()
    sender.send(b"from Python again")
    other = user.Hand(receiver)
    other.borrow_consumer()
    assert other.peek() == OK
    assert other.read() == b"from Python"
    other.release()
    other.give_back()
    assert [receiver.recv().data for _ in range(2)] == [b"inlined", b"from Python again"]
    other.borrow_consumer()
    assert other.peek() == EMPTY
    other.give_back()
    assert sender.stats()["messages"] == receiver.stats()["messages"] == 3


def test_borrowing_the_producer_decides_the_direction(hands, user, pair):
    producer, consumer = (user.Hand(bus) for bus in pair())
    producer.borrow_producer()
    with pytest.raises(tachyon.BusBusyError, match="sends"):
        consumer.borrow_producer()
    producer.give_back()
    with pytest.raises(tachyon.BusBusyError, match="sends"):
        producer.borrow_consumer()
    producer.borrow_producer()  # what was refused has not been lent
    assert producer.send(b"x")
    producer.give_back()
    consumer.borrow_consumer()
    assert consumer.peek() == OK
    consumer.give_back()


def test_a_producer_is_not_lent_once_the_peer_has_closed(user, pair):
    sender, receiver = pair()
    receiver.close()
    with pytest.raises(tachyon.PeerClosedError):
        user.Hand(sender).borrow_producer()


def test_a_bus_in_use_is_not_lent(user, run_thread, pair, until):
    sender, receiver = pair()
    waiting = run_thread(receiver.recv)
    until(lambda: receiver.stats()["parks"] > 0)
    with pytest.raises(tachyon.BusBusyError, match="another thread"):
        user.Hand(receiver).borrow_consumer()
    sender.send(b"x")
    assert waiting.result(60).data == b"x"


def test_a_lent_bus_is_of_no_other_use(user, pair):
    sender, receiver = pair()
    sender.send(b"x")
    for bus, borrow in ((sender, "borrow_producer"), (receiver, "borrow_consumer")):
        hand = user.Hand(bus)
        getattr(hand, borrow)()
        for use in (
            partial(bus.send, b"y"),
            bus.recv,
            bus.recv_zero_copy,
            bus.flush,
            hand.borrow_producer,
            hand.borrow_consumer,
        ):
            with pytest.raises(tachyon.BusBusyError, match="lent"):
                use()
        assert hand.tier1() == (BUSY,) * 7
        hand.give_back()
    assert receiver.recv().data == b"x"


def test_what_is_not_lent_cannot_be_given_back(hands):
    producer, _ = hands()
    with pytest.raises(tachyon.BusBusyError, match="not lent"):
        producer.give_back()
    producer.borrow_producer()
    producer.give_back()
    with pytest.raises(tachyon.BusBusyError, match="not lent"):
        producer.give_back()


def test_a_guard_is_in_the_way(user, pair):
    sender, receiver = pair()
    hand = user.Hand(sender)
    with sender.send_zero_copy(8):
        with pytest.raises(tachyon.BusBusyError, match="guard"):
            hand.borrow_producer()
    hand.borrow_producer()
    hand.give_back()


def test_what_was_open_is_put_right_when_the_ring_is_given_back(user, pair):
    sender, receiver = pair()
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    sender.send_many([b"one", b"two", b"three"])
    consumer.borrow_consumer()
    assert consumer.peek() == OK
    consumer.release()
    assert consumer.peek() == OK
    assert consumer.peek() == OK
    consumer.give_back()
    assert [receiver.recv().data for _ in range(2)] == [b"two", b"three"]
    producer.borrow_producer()
    assert producer.claim()
    producer.give_back()
    sender.send(b"four")
    assert receiver.recv().data == b"four"


@pytest.mark.parametrize("producer", [True, False])
def test_another_layout_of_the_ring_is_refused(user, pair, producer):
    sender, receiver = pair()
    hand = user.Hand(sender if producer else receiver)
    for difference in (1, -1):
        with pytest.raises(tachyon.TachyonError, match="rebuild"):
            hand.lend(producer, difference)
    hand.lend(producer, 0)
    hand.give_back()


SWAPPED = {  # header, and two lines of it, in their order
    "the memory": ("ring/frame", "SegmentHeader* header = nullptr;", "std::uint8_t* data = nullptr;"),
    "the doorbell": ("wait/wait", "void (*knock)(void* context) noexcept = nullptr;", "void* context = nullptr;"),
    "a producer": ("ring/producer", "std::uint64_t write_position_ = 0;", "std::uint64_t cached_read_position_ = 0;"),
    "a consumer": ("ring/consumer", "std::uint64_t cursor_ = 0;", "std::uint64_t freed_ = 0;"),
    "a frame": ("ring/frame", "std::uint32_t size;", "std::uint32_t type_id;"),
    "what a side tells": ("ring/layout", "std::atomic<std::uint64_t> parks;", "std::atomic<std::uint64_t> wakes;"),
}
ADDED = {  # header, and the line behind which a bool is put
    "to a producer": ("ring/producer", "std::uint64_t corrupt_ = 0;"),
    "to a consumer": ("ring/consumer", "std::uint64_t released_ = 0;"),
    "to the memory": ("ring/frame", "std::uint64_t bulk = kBulk;"),
    "to the doorbell": ("wait/wait", "void* context = nullptr;"),
}
RAISED = {
    "the ring's revision": ("ring/ring", "kRingRevision = "),
    "the protocol's": ("ring/layout", "kProtocolVersion = "),
    "the threshold": ("ring/layout", "kBulk = "),
}


@pytest.mark.parametrize("change", ["nothing", *SWAPPED, *ADDED, *RAISED])
def test_headers_with_another_meaning_have_another_layout(user, pair, tmp_path, change):
    shutil.copytree(tachyon.get_include(), tmp_path / "include")
    name, *lines = (SWAPPED | ADDED | RAISED).get(change, ["ring/ring"])
    lines = [re.escape(line) for line in lines]
    header = tmp_path / "include" / "tachyon" / f"{name}.hpp"
    text, count = header.read_text(), 1
    if change in RAISED:
        text, count = re.subn(rf"({lines[0]}\d+);", r"\g<1>0;", text)
    elif change in SWAPPED:
        text, count = re.subn(rf"^( *{lines[0]}.*\n)( *{lines[1]}.*\n)", r"\2\1", text, count=1, flags=re.MULTILINE)
    elif change in ADDED:
        text, count = re.subn(rf"^( *{lines[0]}.*\n)", r"\1bool more_ = false;\n", text, count=1, flags=re.MULTILINE)
    assert count == 1
    header.write_text(text)
    ours = user.Hand(pair()[0]).layout()
    (tmp_path / "code.cpp").write_text(
        f'#include "tachyon/ring/ring.hpp"\nstatic_assert(tachyon::ring_layout() == {ours}u);\n'
    )
    command = [*shlex.split(os.environ.get("CXX", "c++")), "-std=c++20", "-fsyntax-only", "-I", "include", "code.cpp"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True)
    assert set(re.findall("error: (stat[a-z]*)", done.stderr)) == (set() if change == "nothing" else {"static"})
    assert (done.returncode == 0) == (change == "nothing")


def test_waits_tell_of_the_end_of_the_peer(user, pair):
    sender, receiver = pair(64)
    producer, consumer = user.Hand(sender), user.Hand(receiver)
    producer.borrow_producer()
    assert producer.send(b"fills")
    assert producer.wait_writable(1) == FULL
    consumer.borrow_consumer()
    producer.give_back()
    sender.close()
    assert consumer.wait_readable(-1) == OK
    assert consumer.check() == OK  # one is left
    assert consumer.peek() == OK
    consumer.release()
    assert consumer.peek() == EMPTY
    assert consumer.wait_readable(-1) == PEER_CLOSED
    assert consumer.check() == PEER_CLOSED
    consumer.give_back()
    with pytest.raises(tachyon.PeerClosedError):
        receiver.recv()
    with pytest.raises(tachyon.BusClosedError):
        producer.borrow_producer()


@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_waits_tell_of_the_death_of_the_peer(user, spawn, path, role):
    code = "bus.recv()" if role == "producer" else "bus.send(b'x')"
    child = spawn(f"bus = tachyon.Bus.connect(path, timeout=60); {code}; say('ready'); hear()", path)
    with tachyon.Bus.listen(path, 64, timeout=60) as bus:
        hand = user.Hand(bus)
        getattr(hand, f"borrow_{role}")()
        if role == "producer":
            assert hand.send(b"x")
        child.says("ready")
        if role == "producer":
            status = OK
            while status == OK:  # the child has read it, and makes room once
                status = OK if hand.send(b"x") else hand.wait_writable(1)
            assert status == FULL
        else:
            assert hand.peek() == OK
            hand.release()
        child.kill()
        assert (hand.wait_writable(-1) if role == "producer" else hand.wait_readable(-1)) in (
            PEER_DEAD,
            OK,
            FULL,
            EMPTY,
        )
        status = OK
        while status in (OK, FULL, EMPTY):
            status = hand.wait_writable(-1) if role == "producer" else hand.wait_readable(-1)
        assert status == PEER_DEAD
        assert hand.check() == PEER_DEAD
        hand.give_back()


def test_closing_a_lent_bus_leaves_the_ring_to_who_has_it(user, run_thread, pair, until):
    sender, receiver = pair()
    sender.send(b"x")
    hand = user.Hand(receiver)
    closed = threading.Event()

    def use():
        hand.borrow_consumer()
        said = [hand.peek()]
        hand.release()
        said.append(hand.wait_readable(-1))
        assert closed.wait(60)
        said += [hand.wait_readable(-1), hand.check(), hand.peek()]  # the ring is still there
        sender.send(b"nobody was told yet")
        hand.give_back()
        return said

    using = run_thread(use)
    until(lambda: receiver.stats()["parks"] > 0)
    receiver.close()
    assert receiver.closed
    closed.set()
    said = using.result(60)
    assert said[1] in (CLOSED, EMPTY)
    assert said[:1] + said[2:] == [OK, CLOSED, CLOSED, EMPTY]
    with pytest.raises(tachyon.PeerClosedError):
        sender.send(b"y")
    with pytest.raises(tachyon.BusClosedError):
        hand.borrow_consumer()


def test_only_the_thread_that_has_a_lent_ring_may_wait_for_it(user, run_thread, pair):
    sender, receiver = pair()
    sender.send(b"x")
    for bus, borrow in ((sender, "borrow_producer"), (receiver, "borrow_consumer")):
        hand = user.Hand(bus)
        getattr(hand, borrow)()
        for use in (lambda: hand.wait_readable(-1), lambda: hand.wait_writable(-1), hand.check):  # noqa: B023
            assert run_thread(use).result(60) == BUSY
        assert hand.check() == OK
        hand.give_back()


def test_a_lent_bus_of_the_parent_says_so_in_a_forked_child(hands):
    producer, _ = hands()
    producer.borrow_producer()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if producer.check() == producer.wait_writable(-1) == FORKED else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert producer.check() == OK
    producer.give_back()


def test_a_bus_that_was_never_opened_has_no_ring(user):
    hand = user.Hand(tachyon.Bus.__new__(tachyon.Bus))
    for borrow in (hand.borrow_producer, hand.borrow_consumer):
        with pytest.raises(tachyon.BusClosedError):
            borrow()


def test_none_has_no_ring(user):
    hand = user.Hand(None)
    for use in (hand.borrow_producer, hand.borrow_consumer, hand.give_back):
        with pytest.raises(TypeError, match="needs a Bus, not None"):
            use()
