"""timeout=: what it may be, and what it says when it runs out."""

import decimal
import fractions
import queue
import time

import numpy as np
import pytest

import tachyon
from tachyon import Bus, BusEmptyError, BusFullError, TachyonTimeoutError


def receivers(bus):
    return {
        "recv": lambda timeout: bus.recv(timeout=timeout),
        "recv_into": lambda timeout: bus.recv_into(bytearray(64), timeout=timeout),
        "recv_zero_copy": lambda timeout: bus.recv_zero_copy(timeout=timeout),
        "drain_batch": lambda timeout: bus.drain_batch(timeout=timeout),
    }


def senders(bus):
    return {
        "send": lambda timeout: bus.send(b"x", timeout=timeout),
        "send strided": lambda timeout: bus.send(memoryview(b"abcd")[::2], timeout=timeout),
        "send_many": lambda timeout: bus.send_many([b"x"], timeout=timeout),
        "send_zero_copy": lambda timeout: bus.send_zero_copy(1, timeout=timeout),
    }


RECEIVERS = pytest.mark.parametrize("receiver", receivers(None))
SENDERS = pytest.mark.parametrize("sender", senders(None))
GOOD = [0, 0.0, -0.0, 0.05, 1e-9, False, np.float32(0.01), decimal.Decimal("0.01"), fractions.Fraction(1, 100)]


@RECEIVERS
@pytest.mark.parametrize("timeout", GOOD, ids=repr)
def test_receiving_gives_up_after_it(pair, receiver, timeout):
    _, consumer = pair()
    begin = time.monotonic()
    with pytest.raises(BusEmptyError, match="no message within the timeout") as caught:
        receivers(consumer)[receiver](timeout)
    assert time.monotonic() - begin >= float(timeout)
    assert isinstance(caught.value, queue.Empty)
    assert isinstance(caught.value, TimeoutError)


@SENDERS
@pytest.mark.parametrize("timeout", GOOD, ids=repr)
def test_sending_gives_up_after_it(pair, sender, timeout):
    producer, consumer = pair(64)
    producer.send(b"first")
    begin = time.monotonic()
    with pytest.raises(BusFullError, match=r"no room for \d bytes within the timeout") as caught:
        senders(producer)[sender](timeout)
    assert time.monotonic() - begin >= float(timeout)
    assert isinstance(caught.value, queue.Full)
    assert caught.value.sent == 0
    assert consumer.recv().data == b"first"
    assert consumer.try_recv() is None


@pytest.mark.parametrize("timeout", [None, 0, 30, float("inf"), 1e300, 2**64])
def test_none_is_needed_where_there_is_something_to_do(pair, timeout):
    producer, consumer = pair(256)
    for name in receivers(consumer):
        for sender in senders(producer).values():
            guard = sender(timeout)
            if hasattr(guard, "__exit__"):
                with guard:
                    pass
            result = receivers(consumer)[name](timeout)
            if hasattr(result, "__exit__"):
                with result:
                    pass
    assert consumer.try_recv() is None


@RECEIVERS
@pytest.mark.parametrize("timeout", [None, float("inf"), 1e300])
def test_a_wait_without_end_waits(pair, run_thread, until, receiver, timeout):
    producer, consumer = pair()
    waiting = run_thread(receivers(consumer)[receiver], timeout)
    until(lambda: consumer.stats()["parks"] > 2)
    assert not waiting.done()
    producer.send(b"x")
    waiting.result()


BAD = [
    (-1, ValueError),
    (-0.001, ValueError),
    (float("-inf"), ValueError),
    (float("nan"), ValueError),
    ("x", TypeError),
    ("1", TypeError),
    (b"1", TypeError),
    ([1], TypeError),
    (object(), TypeError),
]


@pytest.mark.parametrize("timeout, error", BAD, ids=lambda each: repr(each)[:20])
def test_what_is_no_timeout_is_refused_everywhere(pair, path, timeout, error):
    producer, consumer = pair()
    producer.send(b"there is a message")
    calls = [*senders(producer).values(), *receivers(consumer).values()]
    calls += [
        lambda timeout: Bus.listen(path, 4096, timeout=timeout),
        lambda timeout: Bus.connect(path, timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(error) as caught:
            call(timeout)
        if error is ValueError:
            assert "timeout must be None or a number of seconds" in str(caught.value)
            assert repr(timeout) in str(caught.value)
        elif isinstance(timeout, (str, bytes)):
            assert f"must be a number of seconds or None, not {type(timeout).__name__}" in str(caught.value)
    assert consumer.recv().data == b"there is a message"
    assert consumer.try_recv() is None


def test_an_int_that_no_double_holds_is_an_overflow(pair):
    with pytest.raises(OverflowError):
        pair()[1].recv(timeout=10**400)


def test_a_timeout_goes_by_name_only(pair):
    producer, consumer = pair()
    with pytest.raises(TypeError):
        consumer.recv(0)
    with pytest.raises(TypeError):
        producer.send(b"x", 0, 0)


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_listening_gives_up_after_it(path, timeout):
    begin = time.monotonic()
    with pytest.raises(TachyonTimeoutError, match="nobody connected to") as caught:
        Bus.listen(path, 4096, timeout=timeout)
    assert time.monotonic() - begin >= timeout
    assert not isinstance(caught.value, (queue.Full, queue.Empty))


def test_connecting_gives_up_after_it(path):
    begin = time.monotonic()
    with pytest.raises(TachyonTimeoutError, match="no listener at"):
        Bus.connect(path, timeout=0.05)
    assert time.monotonic() - begin >= 0.05


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, False])
def test_zero_lets_connect_try_once_and_tells_why_not(path, timeout):
    with pytest.raises(tachyon.HandshakeError):
        Bus.connect(path, timeout=timeout)


def test_a_bus_is_as_good_as_new_after_a_timeout(pair):
    producer, consumer = pair(64)
    for i in range(10):
        with pytest.raises(BusEmptyError):
            consumer.recv(timeout=0.001)
        producer.send(b"%d" % i, timeout=0)
        with pytest.raises(BusFullError):
            producer.send(b"x", timeout=0.001)
        assert consumer.recv(timeout=0).data == b"%d" % i


def test_one_timeout_is_for_all_of_send_many(pair, run_thread):
    producer, consumer = pair(64)

    def slow_consumer():  # it never lets anybody wait for 0.2 s
        for _ in range(30):
            time.sleep(0.05)
            consumer.try_recv()

    consuming = run_thread(slow_consumer)
    with pytest.raises(BusFullError) as caught:
        producer.send_many((b"x" for _ in range(1000)), timeout=0.2)
    assert 1 <= caught.value.sent < 20
    consuming.result()
