"""Has the consumer let go of what was sent, and how did it leave: wait_read and finish."""

import signal

import pytest

from tachyon import (
    Bus,
    BusBusyError,
    BusClosedError,
    BusFullError,
    PeerClosedError,
    PeerDeadError,
    TachyonTimeoutError,
)


def test_nothing_sent_is_nothing_unread(pair):
    producer, _ = pair()
    producer.wait_read(timeout=0)


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_what_lies_there_or_is_held_is_not_read(pair, timeout):
    producer, consumer = pair()
    producer.send(b"one")
    with pytest.raises(TachyonTimeoutError, match="has not read everything within the timeout") as caught:
        producer.wait_read(timeout=timeout)
    assert not isinstance(caught.value, BusFullError)
    with consumer.recv_zero_copy():
        with pytest.raises(TachyonTimeoutError):
            producer.wait_read(timeout=timeout)
    producer.wait_read(timeout=0)


@pytest.mark.parametrize(
    "receive",
    [
        lambda bus: bus.recv(),
        lambda bus: bus.try_recv(),
        lambda bus: next(bus),
        lambda bus: bus.recv_into(bytearray(64)),
        lambda bus: bus.recv_zero_copy().release(),
        lambda bus: bus.drain_batch().release(),
    ],
    ids=["recv", "try_recv", "next", "recv_into", "guard", "batch"],
)
def test_a_consumer_that_takes_the_last_message_and_never_looks_again_has_read_it(pair, receive):
    producer, consumer = pair()
    for i in range(3):
        producer.send(b"%d" % i)
    while consumer.stats()["messages"] < 3:
        receive(consumer)
    producer.wait_read(timeout=0)


def test_a_sleeping_producer_is_woken_by_the_last_release(pair, run_thread, until):
    producer, consumer = pair()
    producer.send_many([b"1", b"2"])
    waiting = run_thread(producer.wait_read, timeout=60)
    until(lambda: producer.stats()["parks"] > 0)
    consumer.recv()
    assert not waiting.done()
    consumer.recv()
    assert waiting.result(60) is None
    producer.send(b"3")
    assert consumer.recv().data == b"3"


def test_a_consumer_that_left_after_reading_everything_has_read_everything(pair):
    for leave in (Bus.close, Bus.abort):
        producer, consumer = pair()
        producer.send(b"one")
        consumer.recv()
        leave(consumer)
        producer.wait_read(timeout=60)


@pytest.mark.parametrize(
    ("leave", "reason"), [("bus.close()", "closed"), ("bus.abort()", "aborted"), ("os.kill(os.getpid(), 9)", "died")]
)
def test_a_consumer_that_left_something_unread_is_told(spawn, path, leave, reason):
    child = spawn(f"""
        bus = tachyon.Bus.listen(path, 4096, timeout=60)
        bus.recv(timeout=60)
        {leave}
    """, path)  # fmt: skip
    with Bus.connect(path, timeout=60) as bus:
        bus.send_many([b"1", b"2"])
        for _ in range(3):
            with pytest.raises(PeerDeadError) as caught:
                bus.wait_read(timeout=60)
            assert caught.value.reason == reason
    child.process.wait(60)


def test_only_the_producer_may_ask_and_only_while_it_is_open(pair):
    producer, consumer = pair()
    producer.send(b"x")
    consumer.recv()
    for ask in (consumer.wait_read, consumer.finish):
        with pytest.raises(BusBusyError, match="one side sends"):
            ask()
    producer.close()
    for ask in (producer.wait_read, producer.finish):
        with pytest.raises(BusClosedError):
            ask()


@pytest.mark.parametrize("ask", ["wait_read", "finish"])
def test_ctrl_c_and_close_end_the_wait(spawn, path, ask):
    child = spawn(f"""
        import threading
        bus = tachyon.Bus.listen(path, 4096, timeout=60)
        bus.send(b"unread")
        say("waiting")
        try:
            bus.{ask}()
        except KeyboardInterrupt:
            say("interrupted")
        threading.Timer(0.1, bus.close).start()
        try:
            bus.{ask}()
        except tachyon.BusClosedError:
            say("closed")
    """, path)  # fmt: skip
    with Bus.connect(path, timeout=60):
        child.says("waiting")
        child.falls_asleep()
        child.send_signal(signal.SIGINT)
        child.says("interrupted", "closed")
    child.ends()


# ---- finish ----------------------------------------------------------------------------------------------------------


def test_finish_ends_the_stream_and_returns_when_the_consumer_has_left_in_good_order(pair, run_thread, until):
    producer, consumer = pair()
    producer.send(b"one")
    finishing = run_thread(producer.finish, timeout=60)
    assert [message.data for message in consumer] == [b"one"]  # the end of the stream, though the producer is there
    until(lambda: producer.stats()["parks"] > 0)
    assert not finishing.done()
    consumer.close()
    assert finishing.result(60) is None
    assert producer.closed


def test_a_stream_of_nothing_ends_too(pair, run_thread):
    producer, consumer = pair()
    finishing = run_thread(producer.finish, timeout=60)
    assert list(consumer) == []
    consumer.close()
    assert finishing.result(60) is None


def test_a_consumer_that_had_left_before_having_read_everything_is_fine(pair):
    producer, consumer = pair()
    producer.send(b"one")
    for _ in consumer:
        break
    consumer.close()
    producer.finish(timeout=60)
    assert producer.closed


@pytest.mark.parametrize(
    ("leave", "reason"), [("bus.close()", "closed"), ("bus.abort()", "aborted"), ("os.kill(os.getpid(), 9)", "died")]
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "meanwhile"])
def test_a_consumer_that_leaves_in_another_way_is_told(spawn, path, leave, reason, first):
    child = spawn(f"""
        bus = tachyon.Bus.listen(path, 4096, timeout=60)
        bus.recv(timeout=60)
        say("one read")
        hear()
        if {reason != "closed"}: bus.recv(timeout=60)
        {leave}
    """, path)  # fmt: skip
    with Bus.connect(path, timeout=60) as bus:
        bus.send_many([b"1", b"2"])
        child.says("one read")
        if first:
            child.tell()
            child.process.wait(60)
        else:
            with pytest.raises(TachyonTimeoutError, match="has not read everything and closed"):
                bus.finish(timeout=0.05)
            child.tell()
        for _ in range(2):
            with pytest.raises(PeerDeadError) as caught:
                bus.finish(timeout=60)
            assert caught.value.reason == reason
            assert isinstance(caught.value, PeerClosedError) == (reason == "closed")
        assert not bus.closed
    child.process.wait(60)


def test_nothing_is_sent_after_finish_and_an_abort_comes_too_late(pair):
    producer, consumer = pair()
    producer.send(b"one")
    with pytest.raises(TachyonTimeoutError):
        producer.finish(timeout=0)
    with pytest.raises(BusClosedError):
        producer.send(b"two")
    with pytest.raises(BusClosedError):
        producer.send_zero_copy(1)
    producer.abort()
    assert [message.data for message in consumer] == [b"one"]
