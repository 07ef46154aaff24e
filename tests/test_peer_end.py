"""What an end hears of the other one: closed on purpose, or only slow."""

import os
import signal
import time

import pytest
from ways import RECEIVE, SEND, try_recv

from tachyon import Bus, BusEmptyError, BusFullError, PeerClosedError

# ---- closed on purpose -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 64])
def test_what_a_producer_sent_before_it_closed_is_delivered_then_iteration_stops(pair, count):
    producer, consumer = pair(4096)
    sent = [b"%d" % i for i in range(count)]
    producer.send_many(sent)
    producer.close()
    assert [message.data for message in consumer] == sent
    assert list(consumer) == []


@pytest.mark.parametrize("receive", [*RECEIVE, "try_recv"])
def test_then_an_explicit_receive_says_closed(pair, receive):
    producer, consumer = pair()
    producer.send(b"last")
    producer.close()
    assert consumer.recv().data == b"last"
    for _ in range(3):
        with pytest.raises(
            PeerClosedError, match=rf"the peer \(pid {os.getpid()}\) has closed this bus \(.*pair0\)"
        ) as caught:
            RECEIVE.get(receive, try_recv)(consumer)
        assert caught.value.reason == "closed"
        assert isinstance(caught.value, EOFError)
    assert not consumer.closed


@pytest.mark.parametrize("send", SEND)
@pytest.mark.parametrize("unread", [0, 3])
def test_a_producer_whose_consumer_closed_is_told_by_its_next_send(pair, send, unread):
    producer, consumer = pair()
    producer.send(b"first")
    consumer.recv()
    for _ in range(unread):
        producer.send(b"unread")
    consumer.close()
    for _ in range(3):
        with pytest.raises(PeerClosedError, match="has closed this bus") as caught:
            SEND[send](producer)
        assert caught.value.reason == "closed"


def test_try_send_is_told_too(pair):
    producer, consumer = pair()
    producer.send(b"x")
    consumer.close()
    with pytest.raises(PeerClosedError):
        producer.try_send(b"y")


def test_a_side_that_never_did_anything_is_told_too(pair):
    for use in (lambda bus: bus.send(b"x"), lambda bus: bus.recv(timeout=30)):
        one, other = pair()
        other.close()
        with pytest.raises(PeerClosedError):
            use(one)


@pytest.mark.parametrize("polling", [False, True])
def test_a_producer_that_waits_for_room_is_told(pair, run_thread, until, polling):
    producer, consumer = pair(64)
    producer.set_polling_mode(polling)
    producer.send(b"x")
    sending = run_thread(producer.send, b"y")
    if not polling:
        until(lambda: producer.stats()["parks"] > 0)
    consumer.close()
    with pytest.raises(PeerClosedError):
        sending.result()


@pytest.mark.parametrize("polling", [False, True])
def test_a_consumer_that_waits_is_told(pair, run_thread, until, polling):
    producer, consumer = pair(64)
    consumer.set_polling_mode(polling)
    receiving = run_thread(consumer.recv)
    if not polling:
        until(lambda: consumer.stats()["parks"] > 0)
    producer.close()
    with pytest.raises(PeerClosedError):
        receiving.result()


def test_a_producer_that_exits_without_a_word_has_closed_if_python_could_clean_up(spawn, path):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=60); bus.send(b'last')", path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        assert [message.data for message in bus] == [b"last"]
    child.ends()


def test_a_message_that_was_read_was_sent_even_if_the_consumer_then_closes(spawn, tmp_path):
    """On one processor the consumer, once woken, often reads and closes before the send that woke it returns."""
    rounds = 150
    code = f"""
        for i in range({rounds}):
            with tachyon.Bus.listen(path + str(i), 4096, timeout=60) as bus:
                assert bus.recv().data == b"x"
        say("all")
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        child = spawn(code, tmp_path / "b")
        for i in range(rounds):
            with Bus.connect(str(tmp_path / f"b{i}"), timeout=60) as bus:
                time.sleep(0.001)  # it falls asleep
                bus.send(b"x")
                with pytest.raises(PeerClosedError):
                    while True:
                        bus.send(b"y", timeout=60)
        child.says("all")
        child.ends()
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_message_that_was_read_was_sent_even_if_the_consumer_then_dies(spawn, tmp_path):
    """A sender of the lowest class: the consumer that it wakes, on its processor, reads and dies before it goes on."""
    rounds = 5
    processor = min(os.sched_getaffinity(0))
    sender = spawn(
        f"""
        os.sched_setaffinity(0, {{{processor}}})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        for i in range({rounds}):
            with tachyon.Bus.connect(path + str(i), timeout=60) as bus:
                hear()
                bus.send(b"x")
                try:
                    while True: bus.send(b"y", timeout=60)
                except tachyon.PeerDeadError as error: say(type(error).__name__)
        """,
        tmp_path / "b",
    )
    for i in range(rounds):
        consumer = spawn(
            f"""
            os.sched_setaffinity(0, {{{processor}}})
            with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
                say("there")
                bus.recv()
                bus.flush()  # which tells that it was read; recv alone does so later
                os.kill(os.getpid(), signal.SIGKILL)
            """,
            tmp_path / f"b{i}",
        )
        consumer.says("there")
        consumer.falls_asleep()
        sender.tell()
        sender.says("PeerDeadError")
    sender.ends()


# ---- only slow -------------------------------------------------------------------------------------------------------


def test_a_stopped_producer_is_never_declared_dead(spawn, path):
    child = spawn(
        "bus = tachyon.Bus.connect(path, timeout=60)\nfor i in range(10): bus.send(b'%d' % i); hear()",
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        assert bus.recv(timeout=30).data == b"0"
        child.stop()
        with pytest.raises(BusEmptyError):
            bus.recv(timeout=1)
        assert bus.try_recv() is None
        child.send_signal(signal.SIGCONT)
        for i in range(1, 10):
            child.tell("next")
            assert bus.recv(timeout=30).data == b"%d" % i
        child.tell("end")
        assert list(bus) == []
    child.ends()


def test_a_stopped_consumer_is_never_declared_dead(spawn, path):
    child = spawn(
        "bus = tachyon.Bus.connect(path, timeout=60); say('there')\nfor m in bus: say(m.data.decode())",
        path,
    )
    with Bus.listen(path, 256, timeout=60) as bus:
        child.says("there")
        bus.send(b"first")
        child.says("first")
        child.stop()
        sent = 0
        while bus.try_send(b"%d" % sent):
            sent += 1
        with pytest.raises(BusFullError):
            bus.send(b"no room", timeout=1)
        child.send_signal(signal.SIGCONT)
        bus.send(b"room again", timeout=30)
        child.says(*map(str, range(sent)), "room again")
        bus.close()
    child.ends()


def test_an_idle_peer_is_never_declared_dead(pair):
    producer, consumer = pair()
    producer.send(b"x")
    consumer.recv()
    for _ in range(5):
        with pytest.raises(BusEmptyError):
            consumer.recv(timeout=0.1)
    producer.send(b"y")
    assert consumer.recv().data == b"y"


def race_of_a_last_message(spawn, path, rounds):
    """The consumer finds nothing; then the last message and the end come at once; then it asks about the peer."""
    child = spawn(
        """
        for i in range(int(sys.argv[2])):
            bus = tachyon.Bus.connect(path, timeout=60)
            bus.send(b"first")
            for _ in range(i % 100): pass
            bus.send(b"last")
            bus.close()
        """,
        path,
        rounds,
    )
    for _ in range(rounds):
        with Bus.listen(path, 4096, timeout=60) as bus:
            assert bus.recv(timeout=60).data == b"first"
            try_recv = bus.try_recv
            while (message := try_recv()) is None:
                pass
            assert message.data == b"last"
            with pytest.raises(PeerClosedError):
                bus.recv(timeout=60)
    child.ends()


def test_a_last_message_is_never_lost_to_the_close_that_follows_it(spawn, path):
    race_of_a_last_message(spawn, path, 1000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_last_message_is_never_lost_in_many_rounds(spawn, path):
    race_of_a_last_message(spawn, path, 50_000)
