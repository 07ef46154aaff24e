"""How the other side ends: closed on purpose, dead, or only slow."""

import os
import signal
import time

import pytest

from tachyon import Bus, BusEmptyError, BusFullError, PeerClosedError, PeerDeadError

RECEIVE = {
    "recv": lambda bus: bus.recv(timeout=30),
    "recv_into": lambda bus: bus.recv_into(bytearray(4096), timeout=30),
    "recv_zero_copy": lambda bus: bus.recv_zero_copy(timeout=30),
    "drain_batch": lambda bus: bus.drain_batch(timeout=30),
}
SEND = {
    "send": lambda bus: bus.send(b"late", timeout=30),
    "send strided": lambda bus: bus.send(memoryview(b"l_a_t_e_")[::2], timeout=30),
    "send_many": lambda bus: bus.send_many([b"late"], timeout=30),
    "send_zero_copy": lambda bus: bus.send_zero_copy(4, timeout=30).__exit__(None, None, None),
}


def try_recv(bus):
    """try_recv until it has something to say; the kernel is asked for news of the peer every 0.1 ms only."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        message = bus.try_recv()
        if message is not None:
            return message
    raise AssertionError("nothing")


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


# ---- dead ------------------------------------------------------------------------------------------------------------


PRODUCER = """
    bus = tachyon.Bus.connect(path, timeout=60)
    for i in range(int(sys.argv[2])): bus.send(b"%d" % i)
    say("sent")
    time.sleep(60)
"""
CONSUMER = """
    bus = tachyon.Bus.connect(path, timeout=60)
    bus.recv()
    say("read")
    time.sleep(60)
"""


@pytest.mark.parametrize("receive", [*RECEIVE, "try_recv"])
def test_what_a_producer_committed_before_it_was_killed_is_delivered_then_the_death(spawn, path, receive):
    child = spawn(PRODUCER, path, 5)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("sent")
        child.kill()
        for i in range(5):
            assert try_recv(bus).data == b"%d" % i
        for _ in range(3):
            with pytest.raises(
                PeerDeadError, match=rf"the peer \(pid {child.pid}\) of this bus \(.*/bus\) died; open a new one"
            ) as caught:
                RECEIVE.get(receive, try_recv)(bus)
            assert type(caught.value) is PeerDeadError
            assert caught.value.reason == "died"
            assert isinstance(caught.value, ConnectionError)


def test_iteration_ends_with_the_death(spawn, path):
    child = spawn(PRODUCER, path, 5)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("sent")
        child.kill()
        received = []
        with pytest.raises(PeerDeadError) as caught:
            for message in bus:
                received.append(message.data)
        assert type(caught.value) is PeerDeadError
        assert received == [b"%d" % i for i in range(5)]


def test_a_batch_is_delivered_before_the_death(spawn, path):
    child = spawn(PRODUCER, path, 5)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("sent")
        child.kill()
        with bus.drain_batch(timeout=30) as batch:
            assert [bytes(view) for view in batch] == [b"%d" % i for i in range(5)]
        with pytest.raises(PeerDeadError):
            bus.drain_batch(timeout=30)


@pytest.mark.parametrize("polling", [False, True])
def test_a_death_ends_a_wait(spawn, path, run_thread, until, polling):
    child = spawn(PRODUCER, path, 0)
    with Bus.listen(path, 4096, timeout=60) as bus:
        bus.set_polling_mode(polling)
        child.says("sent")
        receiving = run_thread(next, bus)
        if not polling:
            until(lambda: bus.stats()["parks"] > 0)
        child.kill()
        with pytest.raises(PeerDeadError) as caught:
            receiving.result()
        assert type(caught.value) is PeerDeadError


@pytest.mark.parametrize("send", SEND)
def test_a_producer_whose_consumer_died_is_told_by_its_next_send(spawn, path, send):
    child = spawn(CONSUMER, path)
    with Bus.listen(path, 1 << 20, timeout=60) as bus:
        bus.send(b"first")
        child.says("read")
        child.kill()
        time.sleep(0.01)  # it is asked every 0.1 ms or so
        for _ in range(3):
            with pytest.raises(PeerDeadError, match=rf"pid {child.pid}\) .* died") as caught:
                SEND[send](bus)
            assert type(caught.value) is PeerDeadError


def test_a_producer_that_waits_for_room_is_told_of_the_death(spawn, path, run_thread, until):
    child = spawn(CONSUMER, path)
    with Bus.listen(path, 64, timeout=60) as bus:
        bus.send(b"first")
        child.says("read")
        bus.send(b"fills the ring")
        sending = run_thread(bus.send, b"waits")
        until(lambda: bus.stats()["parks"] > 0)
        child.kill()
        with pytest.raises(PeerDeadError) as caught:
            sending.result()
        assert type(caught.value) is PeerDeadError


def test_a_death_before_anybody_sent_anything(spawn, path):
    for use in (lambda bus: bus.recv(timeout=30), lambda bus: [bus.send(b"x", timeout=30) for _ in range(10**6)]):
        child = spawn("bus = tachyon.Bus.connect(path, timeout=60); say('there'); time.sleep(60)", path)
        with Bus.listen(path, 4096, timeout=60) as bus:
            child.says("there")
            child.kill()
            with pytest.raises(PeerDeadError) as caught:
                use(bus)
            assert type(caught.value) is PeerDeadError


def test_a_claim_that_was_never_committed_is_never_seen(spawn, path):
    child = spawn(
        """
        bus = tachyon.Bus.connect(path, timeout=60)
        bus.send(b"whole")
        tx = bus.send_zero_copy(100)
        memoryview(tx)[:] = b"\\xff" * 100
        say("half")
        time.sleep(60)
        """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("half")
        child.kill()
        assert bus.recv(timeout=30).data == b"whole"
        with pytest.raises(PeerDeadError):
            bus.recv(timeout=30)


def test_a_zombie_is_dead(spawn, path):
    child = spawn(PRODUCER, path, 1)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("sent")
        child.process.kill()  # and not waited for
        assert bus.recv(timeout=30).data == b"0"
        with pytest.raises(PeerDeadError):
            bus.recv(timeout=30)


# ---- corrupt ---------------------------------------------------------------------------------------------------------


def overwrite(bus_of, at, data):
    """Write into the shared memory behind the bus's back, through its mapping."""
    with open("/proc/self/maps") as maps:
        addresses = [int(line.split("-")[0], 16) for line in maps if "memfd:tachyon" in line]
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(addresses[bus_of] + at)
        memory.write(data)


@pytest.fixture
def alone(pair):
    with open("/proc/self/maps") as maps:
        if "memfd:tachyon" in maps.read():
            pytest.skip("another test left a mapping")
    return pair(4096)


@pytest.mark.parametrize(
    "word",
    [
        (4096).to_bytes(4, "little") + bytes(4),  # beyond the end
        b"\xfe\xff\xff\xff" + bytes(4),
        b"\xff\xff\xff\xff\x01\0\0\0",  # a padding frame with a type
        b"\xff\xff\xff\xff\0\0\0\0",  # a padding frame at the start
    ],
    ids=["too long", "much too long", "typed padding", "padding at 0"],
)
@pytest.mark.parametrize("receive", RECEIVE)
def test_a_frame_that_cannot_be_is_refused(alone, receive, word):
    producer, consumer = alone
    producer.send(b"x")
    overwrite(0, 4096, word)
    for _ in range(2):
        with pytest.raises(PeerDeadError, match="corrupted the ring; open a new one") as caught:
            RECEIVE[receive](consumer)
        assert type(caught.value) is PeerDeadError
        assert caught.value.reason == "corrupt"
    assert not consumer.closed


@pytest.mark.parametrize("position", [1 << 20, 2**64 - 64])
def test_a_read_position_that_cannot_be_is_refused(alone, position):
    producer, _ = alone
    while producer.try_send(b"x"):
        pass
    overwrite(0, 128, position.to_bytes(8, "little"))
    with pytest.raises(PeerDeadError) as caught:
        producer.send(b"y", timeout=30)
    assert caught.value.reason == "corrupt"


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
