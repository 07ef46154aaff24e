"""What an end hears of the other one that died, and what it had committed."""

import time

import pytest
from ways import RECEIVE, SEND, try_recv

from tachyon import Bus, PeerDeadError

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
