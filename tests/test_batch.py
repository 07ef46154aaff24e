"""drain_batch: many messages at once, in place."""

import numpy as np
import pytest

import tachyon
from tachyon import BusClosedError, BusEmptyError, RxBatchGuard, RxView


def test_the_published_example(pair):
    producer, consumer = pair()
    producer.send_many([(b"a", 1), (b"bc", 2)])
    seen = []
    with consumer.drain_batch(max_msgs=64) as batch:
        for msg in batch:
            seen.append((msg.type_id, msg.actual_size))
    assert seen == [(1, 1), (2, 2)]


@pytest.fixture
def batch(pair):
    producer, consumer = pair()
    producer.send_many((b"%d" % i * i, i) for i in range(10))
    with consumer.drain_batch() as batch:
        yield batch


def test_it_is_a_sequence_of_views(batch):
    assert type(batch) is RxBatchGuard
    assert len(batch) == 10
    for i in range(10):
        for view in (batch[i], batch[i - 10]):
            assert type(view) is RxView
            assert (view.type_id, view.actual_size, len(view), bytes(view)) == (i, i, i, b"%d" % i * i)
    assert [view.type_id for view in batch] == list(range(10))
    assert [view.type_id for view in reversed(batch)] == list(range(9, -1, -1))


@pytest.mark.parametrize(
    "part", [slice(None), slice(2, 5), slice(None, None, -1), slice(-3, None), slice(0, 100, 4), slice(5, 2)]
)
def test_slices(batch, part):
    assert [view.type_id for view in batch[part]] == list(range(10))[part]


@pytest.mark.parametrize("bad", [10, -11, 1000, 2**70, -(2**70)])
def test_an_index_out_of_range(batch, bad):
    with pytest.raises(IndexError):
        batch[bad]


@pytest.mark.parametrize("bad", ["0", 0.0, None])
def test_an_index_of_the_wrong_type(batch, bad):
    with pytest.raises(TypeError):
        batch[bad]


def test_the_views_are_read_only_and_aligned(batch):
    for view in batch[1:]:
        with memoryview(view) as memory:
            assert memory.readonly
            assert np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0] % 16 == 0
        with pytest.raises(AttributeError):
            view.actual_size = 0
        with pytest.raises(AttributeError):
            view.type_id = 0


def test_a_message_of_a_batch_needs_no_block(batch):
    with pytest.raises(TypeError, match="batch's own block"):
        with batch[0]:
            pass


def test_it_takes_no_more_than_asked_for_and_the_rest_stays(pair):
    producer, consumer = pair()
    producer.send_many(b"%d" % i for i in range(10))
    seen = []
    for most in (1, 3, 2, 100):
        with consumer.drain_batch(most) as batch:
            assert len(batch) == min(most, 10 - len(seen))
            seen += [bytes(view) for view in batch]
    assert seen == [b"%d" % i for i in range(10)]
    assert consumer.try_recv() is None


def test_the_default_takes_1024(pair):
    producer, consumer = pair(1 << 18)
    producer.send_many(b"" for _ in range(1500))
    for expected in (1024, 476):
        with consumer.drain_batch() as batch:
            assert len(batch) == expected


def test_a_whole_ring_can_be_held_at_once(pair):
    for capacity in (64, 128, 4096):
        producer, consumer = pair(capacity)
        for lap in range(3):
            while producer.try_send(b"%d" % lap):
                pass
            with consumer.drain_batch(2**100, 2**100) as batch:
                assert len(batch) == capacity // 64
                assert {bytes(view) for view in batch} == {b"%d" % lap}
                assert not producer.try_send(b"no room")


def test_messages_across_the_end_of_the_ring_are_whole(pair):
    producer, consumer = pair(1024)
    for i in range(200):
        payloads = [bytes([i % 256]) * (i * 37 % 300), bytes([i % 251]) * (i * 53 % 200)]
        producer.send_many(payloads)
        with consumer.drain_batch() as batch:
            assert [bytes(view) for view in batch] == payloads


def test_leaving_the_block_shows_the_producer_its_room_at_once(pair):
    producer, consumer = pair(4096)
    while producer.try_send(b"x"):
        pass
    for _ in range(64):  # one line each: less than what a consumer gathers before it tells
        with consumer.drain_batch(1) as batch:
            assert len(batch) == 1
        assert producer.try_send(b"y")
        assert not producer.try_send(b"z")


@pytest.mark.parametrize("how", ["exception", "dropped"])
def test_leaving_it_in_another_way_does_so_too(pair, how):
    producer, consumer = pair(256)
    for _ in range(4):
        producer.send(b"x", timeout=0)
    if how == "exception":
        with pytest.raises(ZeroDivisionError), consumer.drain_batch():
            1 / 0
    else:
        batch = consumer.drain_batch()
        assert len(batch) == 4
        del batch
    for _ in range(4):
        assert producer.try_send(b"y")
    assert consumer.recv().data == b"y"


def test_leaving_the_block_wakes_a_waiting_producer(pair, run_thread, until):
    producer, consumer = pair(64)
    producer.send(b"first")
    sending = run_thread(producer.send, b"second")
    until(lambda: producer.stats()["parks"] > 0)
    with consumer.drain_batch() as batch:
        assert bytes(batch[0]) == b"first"
    sending.result()
    assert consumer.recv().data == b"second"


def test_it_waits_for_the_first_message(pair, run_thread, until):
    producer, consumer = pair()

    def drain():
        with consumer.drain_batch() as batch:
            return [bytes(view) for view in batch]

    draining = run_thread(drain)
    until(lambda: consumer.stats()["parks"] > 0)
    producer.send(b"x")
    assert draining.result() == [b"x"]


def test_a_timeout_is_for_the_first_message(pair):
    producer, consumer = pair()
    with pytest.raises(BusEmptyError):
        consumer.drain_batch(timeout=0.01)
    producer.send(b"x")
    with consumer.drain_batch(timeout=0) as batch:
        assert len(batch) == 1


@pytest.mark.parametrize("bad", [0, -1, -(2**100)])
def test_max_msgs_must_be_positive(pair, bad):
    with pytest.raises(ValueError, match=f"max_msgs must be at least 1, not {bad}"):
        pair()[1].drain_batch(bad)


def test_spin_threshold_must_not_be_negative(pair):
    producer, consumer = pair()
    with pytest.raises(ValueError, match="spin_threshold must not be negative: -1"):
        consumer.drain_batch(1, -1)
    producer.send(b"x")
    with consumer.drain_batch(1, 0) as batch:
        assert len(batch) == 1


@pytest.mark.parametrize("bad", ["1", 1.0, None])
def test_numbers_of_the_wrong_type_are_refused(pair, bad):
    _, consumer = pair()
    with pytest.raises(TypeError):
        consumer.drain_batch(bad)
    with pytest.raises(TypeError):
        consumer.drain_batch(1, bad)


def test_what_was_committed_before_the_producers_end_comes_then_the_end(pair):
    producer, consumer = pair()
    producer.send_many([b"a", b"b"])
    producer.close()
    with consumer.drain_batch() as batch:
        assert [bytes(view) for view in batch] == [b"a", b"b"]
    with pytest.raises(tachyon.PeerClosedError):
        consumer.drain_batch()


def test_a_message_of_a_batch_is_released_with_the_batch(pair):
    producer, consumer = pair()
    producer.send(b"x")
    with consumer.drain_batch() as batch:
        view = batch[0]
        assert not view.released
    assert view.released


def test_a_view_after_the_block_gives_nothing_out(pair):
    producer, consumer = pair()
    producer.send(b"x", 7)
    with consumer.drain_batch() as batch:
        view = batch[0]
        iterator = iter(batch)
    with pytest.raises(BusClosedError, match="is over"):
        memoryview(view)
    with pytest.raises(BusClosedError, match="is over"):
        batch[0]
    with pytest.raises(BusClosedError, match="is over"):
        next(iterator)
    with pytest.raises(BusClosedError, match="is over"):
        list(batch)
    assert (view.type_id, view.actual_size, len(batch)) == (7, 1, 1)
