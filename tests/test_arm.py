"""fileno, arm and disarm: a bus in a loop that waits for other things too."""

import os
import select
import selectors

import pytest

import tachyon
from tachyon import Bus, BusBusyError, BusClosedError, Listener, PeerClosedError, PeerDeadError, RpcBus, WaitSet


def next_message(bus, patience=60):
    """The protocol of Bus.arm, with poll as the loop."""
    poll = select.poll()
    while True:
        message = bus.try_recv()
        if message is not None:
            return message
        if bus.arm():
            poll.register(bus.fileno(), select.POLLIN)
            assert poll.poll(patience * 1000), "it never rang"
            bus.disarm()


def test_a_bus_is_received_from_by_select_and_the_end_is_seen(spawn, path):
    child = spawn(
        """
        with tachyon.Bus.connect(path, timeout=30) as bus:
            for n in range(200):
                bus.send(b"%d" % n)
                if n % 20 == 0: time.sleep(0.005)
        """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        assert [next_message(bus).data for _ in range(200)] == [b"%d" % n for n in range(200)]
        with pytest.raises(PeerClosedError):
            next_message(bus)
    child.ends()


def test_a_killed_peer_rings(spawn, path):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=30); bus.send(b'one'); hear()", path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        assert next_message(bus).data == b"one"
        assert bus.try_recv() is None
        while bus.arm() and select.select([bus], [], [], 0.05)[0]:
            bus.disarm()
        child.kill()
        assert select.select([bus], [], [], 60)[0]
        assert not bus.disarm()
        assert not bus.arm()
        with pytest.raises(PeerDeadError):
            next_message(bus)


def test_many_buses_in_one_selector_are_told_apart(pair):
    pairs = [pair(4096) for _ in range(5)]
    with selectors.DefaultSelector() as selector:
        for n, (_, consumer) in enumerate(pairs):
            selector.register(consumer, selectors.EVENT_READ, n)
        got = []
        for n in (3, 0, 4):
            for _, consumer in pairs:
                assert consumer.arm()
            pairs[n][0].send(b"x")
            while len(got) == 0 or got[-1] != n:
                for key, _ in selector.select(60):
                    key.fileobj.disarm()
                    if key.fileobj.try_recv() is not None:
                        got.append(key.data)
        assert got == [3, 0, 4]


def test_a_sender_waits_for_room_and_for_what_it_sent_to_be_read(pair):
    producer, consumer = pair(4096)
    while producer.try_send(bytes(1000)):
        pass
    while producer.arm(for_writing=True) and select.select([producer], [], [], 0.05)[0]:
        producer.disarm()  # a ring for nothing
    assert consumer.recv().size == 1000
    assert select.select([producer], [], [], 60)[0]
    producer.disarm()
    assert producer.try_send(bytes(1000))
    with pytest.raises(tachyon.TachyonTimeoutError):
        producer.wait_read(timeout=0)
    while producer.arm(True):
        consumer.try_recv()
        if select.select([producer], [], [], 0)[0]:
            producer.disarm()
    producer.wait_read(timeout=0)


def test_there_is_nothing_to_arm_for_while_something_is_there_and_nothing_to_write_for_a_receiver(pair):
    producer, consumer = pair()
    assert not consumer.arm(for_writing=True)
    producer.send(b"x")
    assert not consumer.arm()
    assert not producer.arm()  # it sends: the next recv says so
    with pytest.raises(BusBusyError):
        producer.try_recv()


def test_the_descriptor_stays_the_same_and_goes_with_the_bus(pair):
    before = len(os.listdir("/proc/self/fd"))
    producer, consumer = pair()
    number = consumer.fileno()
    consumer.arm()
    assert consumer.fileno() == number
    consumer.close()
    with pytest.raises(OSError):
        os.fstat(number)
    for use in (consumer.fileno, consumer.arm, consumer.disarm):
        with pytest.raises(BusClosedError, match="closed"):
            use()
    producer.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_calls_and_replies_ring_by_one_descriptor(rpc):
    caller, callee = rpc()
    assert caller.arm() and callee.arm()
    first = caller.call(b"x", 1, timeout=0)
    assert select.select([callee], [], [], 60)[0]
    callee.disarm()
    with callee.serve(timeout=0) as call:
        assert call.correlation_id == first
    callee.reply(first, b"y")
    assert select.select([caller], [], [], 60)[0]
    caller.disarm()
    with caller.wait(first, timeout=0) as reply, memoryview(reply) as view:
        assert bytes(view) == b"y"
    while True:
        try:
            caller.call(bytes(10_000), 1, timeout=0)
        except tachyon.BusFullError:
            break
    while caller.arm(for_writing=True) and select.select([caller], [], [], 0.05)[0]:
        caller.disarm()
    for _ in range(6):
        callee.serve(timeout=0).release()
    assert select.select([caller], [], [], 60)[0]
    caller.disarm()
    caller.call(bytes(10_000), 1, timeout=0)


def test_a_forked_child_may_not_arm_and_does_no_harm(pair):
    producer, consumer = pair()
    assert consumer.arm()
    number = consumer.fileno()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            consumer.arm()
        except BusClosedError:
            try:
                # Not ours: the number may be another file's by now.
                code = int("eventpoll" in os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                code = 0
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    producer.send(b"x")
    assert select.select([number], [], [], 60)[0]


def test_a_listener_is_armed_too(path, run_thread):
    with Listener(path, 4096) as listener:
        assert listener.try_accept() is None
        assert listener.arm() and listener.disarm()
        connecting = run_thread(Bus.connect, path, timeout=60)
        bus = None
        while bus is None:
            assert select.select([listener], [], [], 60)[0]
            bus = listener.try_accept()
        connecting.result(60).close()
        bus.close()
        with pytest.raises(ValueError, match="nothing to write"):
            listener.arm(for_writing=True)
    with pytest.raises(BusClosedError):
        listener.arm()


def test_without_free_descriptors_there_is_an_error_and_nothing_is_broken(spawn):
    spawn(
        """
        import resource, threading, tempfile
        path = tempfile.mkdtemp() + "/bus"
        made = []
        thread = threading.Thread(target=lambda: made.append(tachyon.Bus.listen(path, 4096)))
        thread.start()
        bus = tachyon.Bus.connect(path, timeout=30)
        thread.join()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        for use in (bus.fileno, bus.arm):
            try:
                use()
            except tachyon.HandshakeError as error:
                assert error.errno == 24, error
            else:
                sys.exit("no error")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        assert bus.arm() and bus.fileno() > 0
        made[0].send(b"x")
        assert bus.recv().data == b"x"
        """
    ).ends()


# ---- WaitSet ---------------------------------------------------------------------------------------------------------


def test_a_wait_set_takes_buses_of_every_kind_and_what_has_a_fileno(pair, rpc, path):
    (_, silent), (producer, consumer), (caller, callee) = pair(), pair(), rpc()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as pipe, Listener(path, 4096) as listener:
        waiting = WaitSet()
        for member in (silent, consumer, caller, callee, pipe, listener):
            waiting.add(member)
        assert len(waiting) == 6
        assert waiting.wait(0.01) is None
        producer.send(b"x")
        assert waiting.wait(60) is consumer
        assert consumer.try_recv().data == b"x"
        first = caller.call(b"x", 1)
        assert waiting.wait(60) is callee
        callee.serve(timeout=0).release()
        callee.reply(first, b"y")
        assert waiting.wait(60) is caller
        caller.wait(first, timeout=0).release()
        os.write(writing, b"x")
        assert waiting.wait(60) is pipe
        os.close(writing)
        with pytest.raises(ValueError, match="already"):
            waiting.add(consumer)
        waiting.close()


def test_a_wait_set_waits_for_room(pair):
    producer, consumer = pair(4096)
    while producer.try_send(bytes(1000)):
        pass
    waiting = WaitSet()
    waiting.add(producer)
    waiting.await_room(producer, 1000)
    assert waiting.wait(0.01) is None
    consumer.recv()
    assert waiting.wait(60) is producer
    with pytest.raises(ValueError, match="add it first"):
        waiting.await_message(consumer)
    waiting.close()


def test_a_member_that_is_closed_by_another_thread_is_returned(pair, run_thread):
    _, consumer = pair()
    _, other = pair()
    waiting = WaitSet()
    waiting.add(consumer)
    waiting.add(other)
    waited = run_thread(waiting.wait, 60)
    while waiting_for(waiting):
        pass
    consumer.close()
    assert waited.result(60) is consumer
    with pytest.raises(BusClosedError):
        consumer.try_recv()
    waiting.remove(consumer)
    assert waiting.wait(0.01) is None
    waiting.close()


def waiting_for(waiting):
    """Has the other thread not come to its wait yet?"""
    try:
        waiting.remove(waiting)
        waiting.add(waiting_for)
    except BusBusyError:
        return False
    except AttributeError:
        return True
    raise AssertionError("a function has no fileno")


def test_a_bus_may_go_while_it_is_a_member_of_a_set_that_goes(pair):
    producer, consumer = pair()
    waiting = WaitSet()
    waiting.add(consumer)
    consumer.close()
    assert waiting.wait(60) is consumer
    del waiting
    producer.close()


def test_rpc_buses_that_were_never_opened_are_refused():
    for use in (RpcBus.__new__(RpcBus).arm, RpcBus.__new__(RpcBus).fileno, Bus.__new__(Bus).arm):
        with pytest.raises(BusClosedError):
            use()
    with pytest.raises(BusClosedError):
        WaitSet().add(Bus.__new__(Bus))
