"""Several received guards at once: in any order, by any thread, and what that means for the room of the producer."""

import contextlib
import gc
import itertools
import queue
import random

import pytest

import tachyon
from tachyon import BusClosedError, BusEmptyError, PeerClosedError


def fill(producer, count, size=4):
    for i in range(count):
        producer.send(bytes([65 + i]) * size, i, timeout=0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=lambda order: "".join(map(str, order)))
def test_guards_are_left_in_any_order_and_the_ring_frees_in_order_behind_the_oldest(pair, order):
    producer, consumer = pair(256)
    fill(producer, 4)
    guards = [consumer.recv_zero_copy() for _ in range(4)]
    assert [bytes(guard) for guard in guards] == [b"AAAA", b"BBBB", b"CCCC", b"DDDD"]
    left = set()
    for index in order:
        guards[index].release()
        left.add(index)
        free = next((i for i in range(4) if i not in left), 4)  # the oldest that is still held
        consumer.flush()
        assert consumer.stats()["position"] == 64 * free
        for i in range(4):
            if i not in left:
                assert bytes(guards[i]) == bytes([65 + i]) * 4
    for i in range(20):
        producer.send(b"%d" % i, timeout=0)
        assert consumer.recv(timeout=0).data == b"%d" % i


def test_as_many_guards_as_the_ring_holds_and_then_nothing_comes_until_one_is_left(pair):
    producer, consumer = pair(1024)
    fill(producer, 16)
    guards = [consumer.recv_zero_copy(timeout=0) for _ in range(16)]
    assert not producer.try_send(b"full")
    assert consumer.try_recv() is None
    with pytest.raises(BusEmptyError):
        consumer.recv_zero_copy(timeout=0.01)
    guards[5].release()
    assert not producer.try_send(b"still full: the oldest is held")
    assert consumer.try_recv() is None
    guards[0].release()
    consumer.flush()
    assert producer.try_send(b"first room")
    assert not producer.try_send(b"no more")
    assert consumer.recv(timeout=0).data == b"first room"
    del guards
    gc.collect()
    consumer.flush()
    for _ in range(16):
        assert producer.try_send(b"all of it")


def test_release_does_what_leaving_the_block_does_and_once_is_enough(pair):
    producer, consumer = pair(64)
    for _ in range(3):
        producer.send(b"x" * 40, timeout=0)
        guard = consumer.recv_zero_copy()
        assert not guard.released
        guard.release()
        guard.release()
        assert guard.released
        with pytest.raises(BusClosedError, match="is over"):
            bytes(guard)
    producer.send(b"y", timeout=0)
    with consumer.drain_batch() as batch:
        batch.release()
        assert producer.try_send(b"z")
    batch.release()
    with consumer.recv_zero_copy() as rx:
        view = memoryview(rx)
        with pytest.raises(BufferError, match=r"1 view\(s\)"):
            rx.release()
        assert not rx.released
        view.release()
        assert rx.released
    assert not hasattr(tachyon.TxGuard, "release")  # of a claim: to send it, or to give it back?


def test_copies_and_batches_pass_by_guards_that_are_held(pair):
    producer, consumer = pair(4096)
    fill(producer, 12)
    held = consumer.recv_zero_copy()
    assert consumer.recv(timeout=0).data == b"BBBB"
    buffer = bytearray(4)
    assert consumer.recv_into(buffer, timeout=0) == (4, 2)
    other = consumer.recv_zero_copy(timeout=0)
    with consumer.drain_batch(3) as batch:
        assert [bytes(each) for each in batch] == [b"EEEE", b"FFFF", b"GGGG"]
        assert consumer.try_recv().data == b"HHHH"
    assert next(consumer).data == b"IIII"
    with pytest.raises(tachyon.MessageTooLargeError):
        consumer.recv_into(bytearray(1), timeout=0)
    assert consumer.recv(timeout=0).data == b"JJJJ"
    assert (bytes(held), bytes(other), buffer) == (b"AAAA", b"DDDD", b"CCCC")
    assert consumer.stats()["position"] == 0
    other.release()
    assert consumer.stats()["position"] == 0
    held.release()
    assert consumer.stats()["position"] == 64 * 10
    assert [consumer.recv(timeout=0).data for _ in range(2)] == [b"KKKK", b"LLLL"]


class Mixture:
    """Receives in every way, with guards left at random, and compares with what was sent."""

    def __init__(self, consumer, content, draw):
        self.consumer, self.content, self.draw = consumer, content, draw
        self.seen = 0
        self.held = []  # (guard, [(number, view), …])

    def check(self, views):
        for number, view in views:
            assert bytes(view) == self.content(number)

    def copy(self):
        if (message := self.consumer.try_recv()) is None:
            return False
        assert (message.type_id, message.data) == (self.seen, self.content(self.seen))
        self.seen += 1
        return True

    def hold_one(self):
        with contextlib.suppress(BusEmptyError):
            guard = self.consumer.recv_zero_copy(timeout=0)
            assert guard.type_id == self.seen
            self.held.append((guard, [(self.seen, guard)]))
            self.seen += 1

    def hold_batch(self):
        with contextlib.suppress(BusEmptyError):
            batch = self.consumer.drain_batch(self.draw.randint(1, 4), timeout=0)
            self.held.append((batch, [(self.seen + i, view) for i, view in enumerate(batch)]))
            self.seen += len(batch)

    def let_go(self):
        if self.held:
            guard, views = self.held.pop(self.draw.randrange(len(self.held)))
            self.check(views)
            guard.release()

    def look(self):
        if self.held:
            self.check(self.draw.choice(self.held)[1])


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_shows_every_message_whole_once_and_in_order(pair, seed):
    """A small ring, frames that wrap, paddings, guards of all kinds left at random: against a plain list."""
    draw = random.Random(seed)
    capacity = draw.choice([128, 256, 512, 1024, 4096])
    producer, consumer = pair(capacity)

    def content(number):
        sizes = [0, 1, 47, 48, 49, 100, 112, capacity // 2 - 16, capacity - 16]
        size = random.Random(number * 7919 + seed).choice(sizes)
        return number.to_bytes(4, "little") * (size // 4) + b"#" * (size % 4)

    mixture = Mixture(consumer, content, draw)
    actions = [
        mixture.copy,
        mixture.hold_one,
        mixture.hold_one,
        mixture.hold_batch,
        *[mixture.let_go] * 4,
        mixture.look,
    ]
    sent = 0
    for _ in range(6000):
        if draw.random() < 0.5 and producer.try_send(content(sent), sent):
            sent += 1
        draw.choice(actions)()
        assert mixture.seen <= sent
    while mixture.held:
        mixture.let_go()
    while mixture.copy():
        pass
    assert mixture.seen == sent > 100
    assert consumer.stats()["messages"] == sent


def test_a_guard_that_outlives_its_block_keeps_its_own_frame_and_no_other(pair):
    producer, consumer = pair(256)
    fill(producer, 2)
    with pytest.raises(BufferError):
        with consumer.recv_zero_copy() as rx:
            view = memoryview(rx)
    for i in range(20):  # a loop that logs the error and goes on
        assert consumer.recv(timeout=5).data == (b"%d" % (i - 1) if i else b"BBBB")
        if not producer.try_send(b"%d" % i):
            break
    assert bytes(view) == b"AAAA"
    view.release()
    consumer.flush()
    for _ in range(4):
        assert producer.try_send(b"late")


@pytest.mark.parametrize(
    ("capacity", "held", "size"),
    [(256, 4, 40), (512, 2, 170), (4096, 64, 40)],
    ids=["the whole ring in hand", "a rest that is too small for one more", "less than is told of by itself"],
)
def test_a_guard_may_be_left_by_another_thread_while_this_one_sleeps(
    spawn, path, run_thread, until, capacity, held, size
):
    """A sleep that only its slice of 50 ms ends is followed by another one: that is counted."""
    count = held + 40
    child = spawn(f"""
        with tachyon.Bus.connect(path, timeout=60) as bus:
            for i in range({count}):
                while not bus.try_send(bytes([i]) * {size}, i):  # does not say that it waits
                    time.sleep(0.001)
    """, path)  # fmt: skip
    parks = 0
    with tachyon.Bus.listen(path, capacity, timeout=60) as bus:
        guards = [bus.recv_zero_copy(timeout=60) for _ in range(held)]

        def let_go(guard, parks):
            until(lambda: bus.stats()["parks"] > parks)
            assert bytes(guard) == bytes([guard.type_id]) * size
            guard.release()

        for _ in range(held, count):
            before = bus.stats()["parks"]
            ending = run_thread(let_go, guards.pop(0), before)
            guards.append(bus.recv_zero_copy(timeout=60))
            parks += bus.stats()["parks"] - before
            ending.result(60)
        for guard in reversed(guards):
            guard.release()
        with pytest.raises(PeerClosedError):
            bus.recv(timeout=60)
    child.ends()
    assert parks < 1.7 * 40


def test_waiting_with_the_whole_ring_in_hand_is_a_sleep(pair):
    producer, consumer = pair(256)
    fill(producer, 4)
    guards = [consumer.recv_zero_copy() for _ in range(4)]
    before = consumer.stats()["parks"]
    with pytest.raises(BusEmptyError):
        consumer.recv(timeout=0.2)
    assert 0 < consumer.stats()["parks"] - before < 40  # not a look after look at the oldest frame
    assert len(guards) == 4


def test_many_messages_are_handed_to_threads(spawn, path, run_thread):
    child = spawn("""
        with tachyon.Bus.connect(path, timeout=60) as bus:
            for i in range(3000):
                bus.send(i.to_bytes(4, "little"))
    """, path)  # fmt: skip
    handed = queue.Queue()
    seen = []

    def work():
        while (guard := handed.get(timeout=60)) is not None:
            seen.append(int.from_bytes(guard, "little"))
            guard.release()

    with tachyon.Bus.listen(path, 256, timeout=60) as bus:
        workers = [run_thread(work) for _ in range(2)]
        with pytest.raises(PeerClosedError):
            while True:
                handed.put(bus.recv_zero_copy(timeout=60))
        for _ in workers:
            handed.put(None)
        for worker in workers:
            worker.result(60)
    child.ends()
    assert sorted(seen) == list(range(3000))


def test_closing_with_guards_open_keeps_what_they_show(pair):
    producer, consumer = pair(4096)
    fill(producer, 3)
    guards = [consumer.recv_zero_copy() for _ in range(3)]
    views = [memoryview(guard) for guard in guards]
    consumer.close()
    assert [bytes(view) for view in views] == [b"AAAA", b"BBBB", b"CCCC"]
    for view, guard in zip(reversed(views), reversed(guards), strict=True):
        view.release()
        guard.release()
    with pytest.raises(PeerClosedError):
        producer.send(b"late")


def test_closing_beside_a_waiting_thread_with_guards_open_ends_in_order(pair, run_thread):
    for _ in range(30):
        producer, consumer = pair(256)
        fill(producer, 4)
        guards = [consumer.recv_zero_copy() for _ in range(4)]
        waiting = run_thread(consumer.recv, timeout=60)
        ending = run_thread(lambda guards=guards: [guard.release() for guard in guards])
        consumer.close()
        with pytest.raises(BusClosedError):
            waiting.result(60)
        ending.result(60)
        assert consumer.closed


def test_calls_are_served_several_at_a_time_and_answered_in_any_order(rpc):
    caller, callee = rpc()
    ids = [caller.call(b"%d" % i, 1) for i in range(5)]
    held = [callee.serve(timeout=5) for _ in range(5)]
    for guard in reversed(held):
        callee.reply(guard.correlation_id, bytes(guard) * 2, 1)
        guard.release()
    for i, each in enumerate(ids):
        with caller.wait(each, timeout=5) as rx:
            assert bytes(rx) == b"%d" % i * 2


def test_guards_say_what_they_are(pair):
    producer, consumer = pair()
    tx = producer.send_zero_copy(4, 7)
    assert repr(tx) == "<tachyon.TxGuard 4 bytes type_id=7 open>"
    with tx:
        tx.actual_size = 2
    assert repr(tx) == "<tachyon.TxGuard 2 bytes type_id=7 released>"
    producer.send(b"xyz", 8)
    rx = consumer.recv_zero_copy()
    assert repr(rx) == "<tachyon.RxGuard 2 bytes type_id=7 open>"
    batch = consumer.drain_batch()
    assert repr(batch) == "<tachyon.RxBatchGuard 1 message open>"
    assert repr(batch[0]) == "<tachyon.RxView 3 bytes type_id=8 open>"
    view, part = memoryview(rx), batch[0]
    with pytest.raises(BufferError):
        rx.release()
    assert repr(rx) == "<tachyon.RxGuard 2 bytes type_id=7 held by 1 view>"
    view.release()
    batch.release()
    assert repr(rx).endswith("released>")
    assert repr(batch).endswith("released>")
    assert repr(part).endswith("released>")
