"""One thread at a time; close() from any."""

import threading

import pytest

import tachyon
from tachyon import Bus, BusBusyError, BusClosedError

RECEIVING = {
    "recv": lambda bus: bus.recv(),
    "recv with a timeout": lambda bus: bus.recv(timeout=50),
    "next": next,
    "iteration": list,
    "recv_into": lambda bus: bus.recv_into(bytearray(64)),
    "recv_zero_copy": lambda bus: bus.recv_zero_copy(),
    "drain_batch": lambda bus: bus.drain_batch(),
}
SENDING = {
    "send": lambda bus: bus.send(b"x"),
    "send with a timeout": lambda bus: bus.send(b"x", timeout=50),
    "send strided": lambda bus: bus.send(memoryview(b"abcd")[::2]),
    "send_many": lambda bus: bus.send_many([b"x"]),
    "send_zero_copy": lambda bus: bus.send_zero_copy(4),
}
WAITS = {**RECEIVING, **SENDING}


@pytest.fixture
def waiting(pair, run_thread, until):
    """waiting(name) → (bus, its peer, the future of a thread that waits in that call)."""

    def make(name, polling=False):
        producer, consumer = pair(64)
        producer.send(b"first")
        if name in RECEIVING:
            consumer.recv()
            bus, peer = consumer, producer
        else:
            bus, peer = producer, consumer
        bus.set_polling_mode(polling)
        future = run_thread(WAITS[name], bus)
        if polling:
            threading.Event().wait(0.1)
        else:
            until(lambda: bus.stats()["parks"] > 0)
        assert not future.done()
        return bus, peer, future

    return make


@pytest.mark.parametrize("polling", [False, True], ids=["sleeping", "polling"])
@pytest.mark.parametrize("name", WAITS)
def test_close_from_another_thread_ends_every_wait(waiting, name, polling):
    bus, peer, future = waiting(name, polling)
    bus.close()
    assert bus.closed
    with pytest.raises(BusClosedError, match=r"pair0.* is closed; open a new one"):
        future.result()
    with pytest.raises(BusClosedError):
        bus.recv()
    bus.close()
    if name in RECEIVING:
        with pytest.raises(tachyon.PeerClosedError):
            peer.send(b"x")
    else:
        assert [message.data for message in peer] == [b"first"]


@pytest.mark.parametrize("name", WAITS)
def test_a_second_thread_is_refused_and_the_first_goes_on(waiting, name):
    bus, peer, future = waiting(name)
    uses = [
        lambda: bus.send(b"x"),
        lambda: bus.try_send(b"x"),
        lambda: bus.send_many([b"x"]),
        lambda: bus.send_zero_copy(1),
        bus.recv,
        bus.try_recv,
        lambda: bus.recv_into(bytearray(8)),
        bus.recv_zero_copy,
        bus.drain_batch,
        lambda: next(bus),
        bus.flush,
        lambda: bus.set_polling_mode(True),
        lambda: bus.set_numa_node(0),
    ]
    for use in uses:
        with pytest.raises(BusBusyError, match="in use by another thread"):
            use()
    assert not bus.closed
    assert bus.stats()["capacity"] == 64
    assert not future.done()
    if name in RECEIVING:
        peer.send(b"second")
        if name == "iteration":
            peer.close()
    else:
        assert peer.recv().data == b"first"
    result = future.result()
    if name in ("recv", "next"):
        assert result.data == b"second"


def test_threads_that_fight_over_a_bus_corrupt_nothing(pair, run_thread):
    producer, consumer = pair(1024)
    end = threading.Event()
    refused = [0] * 3

    def send(number):
        sent = []
        i = 0
        while not end.is_set():
            try:
                if producer.try_send(b"%d %d" % (number, i)):
                    sent.append((number, i))
                    i += 1
                producer.send(bytearray(1), 99, timeout=0.001)
            except BusBusyError:
                refused[number] += 1
            except tachyon.BusFullError:
                pass
        return sent

    threads = [run_thread(send, number) for number in range(3)]
    seen = []
    while len(seen) < 500:
        try:
            message = consumer.recv(timeout=30)
        except BusBusyError:
            continue
        if message.type_id == 99:
            assert message.data == b"\0"
        else:
            seen.append(tuple(map(int, message.data.split())))
    end.set()
    while not all(thread.done() for thread in threads):
        message = consumer.try_recv()
        if message is not None and message.type_id != 99:
            seen.append(tuple(map(int, message.data.split())))
    while (message := consumer.try_recv()) is not None:
        if message.type_id != 99:
            seen.append(tuple(map(int, message.data.split())))
    for number, thread in enumerate(threads):
        assert [each for each in seen if each[0] == number] == thread.result()


def test_a_bus_may_be_handed_from_thread_to_thread(pair, run_thread):
    producer, consumer = pair(256)
    for i in range(50):
        run_thread(producer.send, b"%d" % i).result()
        assert run_thread(consumer.recv).result().data == b"%d" % i


def test_many_buses_in_many_threads(tmp_path, run_thread):
    def listen(i):
        with Bus.listen(str(tmp_path / f"b{i}"), 256, timeout=60) as bus:
            return [message.data for message in bus]

    def connect(i):
        with Bus.connect(str(tmp_path / f"b{i}"), timeout=60) as bus:
            for k in range(100):
                bus.send(b"%d %d" % (i, k))

    listeners = [run_thread(listen, i) for i in range(8)]
    connectors = [run_thread(connect, i) for i in range(8)]
    for connector in connectors:
        connector.result()
    for i, listener in enumerate(listeners):
        assert listener.result() == [b"%d %d" % (i, k) for k in range(100)]


def test_waiting_lets_other_threads_run(waiting):
    # All of this ran while a thread waited; and so does plain Python.
    for name in ("recv", "send"):
        bus, _, future = waiting(name)
        assert sum(range(100_000)) == 4999950000
        assert not future.done()
        bus.close()
        with pytest.raises(BusClosedError):
            future.result()
