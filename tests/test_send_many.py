"""send_many: its items, their order, and who is woken when."""

import pytest

import tachyon
from tachyon import BusFullError, Message


def test_send_many_takes_buffers_pairs_and_messages(pair):
    producer, consumer = pair()
    items = [b"a", (bytearray(b"b"), 2), Message(3, 1, b"c"), memoryview(b"d_")[::2], (b"", 5)]
    assert producer.send_many(iter(items), 9) == 5
    received = [consumer.recv() for _ in items]
    assert received == [
        Message(9, 1, b"a"),
        Message(2, 1, b"b"),
        Message(3, 1, b"c"),
        Message(9, 1, b"d"),
        Message(5, 0, b""),
    ]
    assert consumer.try_recv() is None


def test_send_many_of_nothing(pair):
    producer, consumer = pair()
    assert producer.send_many([]) == 0
    assert producer.send_many(iter(())) == 0
    assert consumer.try_recv() is None
    assert producer.stats()["role"] is None


@pytest.mark.parametrize("bad", [7, None])
def test_send_many_needs_an_iterable(pair, bad):
    with pytest.raises(TypeError):
        pair()[0].send_many(bad)


@pytest.mark.parametrize("bad", [(), (b"x",), (b"x", 1, 2)])
def test_a_tuple_that_is_no_pair_is_refused(pair, bad):
    producer, consumer = pair()
    with pytest.raises(ValueError, match=rf"pair is \(buffer, type_id\); this tuple has {len(bad)} items"):
        producer.send_many([b"before", bad, b"after"])
    assert consumer.recv().data == b"before"
    assert consumer.try_recv() is None


def test_a_named_pair_is_a_pair(pair):
    from collections import namedtuple

    producer, consumer = pair()
    producer.send_many([namedtuple("Pair", "data kind")(b"x", 3)])
    assert consumer.recv() == Message(3, 1, b"x")


def test_what_went_out_before_an_error_arrives_even_at_a_sleeper(pair, run_thread, until):
    producer, consumer = pair()

    def items():
        yield b"one"
        yield b"two"
        raise LookupError("enough")

    receiving = run_thread(lambda: [consumer.recv().data, consumer.recv().data])
    until(lambda: consumer.stats()["parks"] > 0)
    with pytest.raises(LookupError, match="enough"):
        producer.send_many(items())
    assert receiving.result() == [b"one", b"two"]


def test_send_many_counts_what_was_sent_before_the_ring_was_full(pair):
    producer, consumer = pair(256)
    with pytest.raises(BusFullError) as caught:
        producer.send_many((b"%d" % i for i in range(100)), timeout=0.01)
    assert caught.value.sent == 4
    assert [consumer.recv().data for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert consumer.try_recv() is None


def test_send_many_waits_for_room(pair, run_thread):
    producer, consumer = pair(256)
    sending = run_thread(producer.send_many, [b"%d" % i for i in range(1000)])
    for i in range(1000):
        assert consumer.recv().data == b"%d" % i
    assert sending.result() == 1000


def test_send_many_wakes_a_sleeping_consumer_for_each_item_of_an_iterator_that_takes_its_time(spawn, path):
    child = spawn(
        """
        with tachyon.Bus.connect(path, timeout=60) as bus:
            for message in bus: say(message.data.decode())
        """,
        path,
    )
    with tachyon.Bus.listen(path, 1 << 16, timeout=60) as producer:
        woken = []

        def items():
            for n in range(5):
                yield b"%d" % n
                child.says(str(n))
                child.falls_asleep()
                woken.append(producer.stats()["wakes"])

        producer.send_many(items())
    assert woken[-1] >= 4  # the first may have found it awake
    child.ends()


def test_send_many_wakes_a_sleeping_consumer_once(pair, run_thread, until):
    producer, consumer = pair()
    producer.send(b"")
    consumer.recv()
    woken = 0
    for _ in range(50):  # it may be awake just then, but not every time
        receiving = run_thread(lambda: [consumer.recv().data for _ in range(100)])
        parks = consumer.stats()["parks"]
        until(lambda before=parks: consumer.stats()["parks"] > before)
        before = producer.stats()["wakes"]
        producer.send_many([b"%d" % i for i in range(100)])
        assert receiving.result() == [b"%d" % i for i in range(100)]
        woken = producer.stats()["wakes"] - before
        assert woken <= 1
        if woken:
            break
    assert woken


def test_send_many_wakes_a_sleeping_consumer_before_it_waits_for_room(pair, run_thread, until):
    producer, consumer = pair(256)
    producer.send(b"")
    consumer.recv()
    for _ in range(50):  # it may be awake just then, but not every time
        receiving = run_thread(consumer.recv)
        parks = consumer.stats()["parks"]
        until(lambda before=parks: consumer.stats()["parks"] > before)
        before = producer.stats()["wakes"]
        # Nobody reads more than one, and who is not woken has woken by himself after 0.05 s: no wake comes at the end.
        with pytest.raises(BusFullError):
            producer.send_many([b""] * 6, timeout=0.3)
        receiving.result()
        while consumer.try_recv() is not None:
            pass
        if producer.stats()["wakes"] > before:
            return
    pytest.fail("it woke nobody")


def test_items_made_by_using_the_same_bus_are_fine(pair):
    producer, consumer = pair()

    def items():
        for i in range(3):
            producer.send(b"inner %d" % i)
            yield b"outer %d" % i

    producer.send_many(items())
    assert [consumer.recv().data for _ in range(6)] == [
        b"%s %d" % (w, i) for i in range(3) for w in (b"inner", b"outer")
    ]


def test_a_bus_closed_by_an_item_ends_send_many(pair):
    producer, consumer = pair()

    def items():
        yield b"last"
        producer.close()
        yield b"too late"

    with pytest.raises(tachyon.BusClosedError):
        producer.send_many(items())
    assert [message.data for message in consumer] == [b"last"]
