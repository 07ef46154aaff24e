"""Messages that do not fit the ring: in memory of their own, in their place among the others."""

import os
import signal

import numpy as np
import pytest
from conftest import open_pair
from large_messages import MOST, descriptors, parcels, pattern
from strangers import dial, real_greeting, understood

import tachyon
from tachyon import Bus, BusEmptyError, BusFullError, Message, MessageTooLargeError, PeerClosedError

SIZES = [4081, 65_535, 65_536, 1_000_000]


# ---- the ways there and back -----------------------------------------------------------------------------------------


def send_zero_copy(bus, data, type_id):
    with bus.send_zero_copy(len(data) + 10, type_id) as tx:
        with memoryview(tx) as view:
            view[: len(data)] = data
        tx.actual_size = len(data)


def parts(message):
    return message.type_id, message.data


def recv_into(bus):
    buffer = bytearray(2_000_000)
    size, type_id = bus.recv_into(buffer)
    return type_id, bytes(buffer[:size])


def recv_zero_copy(bus):
    with bus.recv_zero_copy() as rx, memoryview(rx) as view:
        assert view.readonly
        return rx.type_id, bytes(view)


def drain_batch(bus):
    with bus.drain_batch(1) as batch:
        return batch[0].type_id, bytes(batch[0])


SEND = {
    "send": lambda bus, data, kind: bus.send(data, kind),
    "a bytearray": lambda bus, data, kind: bus.send(bytearray(data), kind),
    "strided": lambda bus, data, kind: bus.send(memoryview(bytes(b for b in data for _ in "ab"))[::2], kind),
    "try_send": lambda bus, data, kind: bus.try_send(data, kind) or pytest.fail("no room"),
    "send_many": lambda bus, data, kind: bus.send_many([(data, kind)]),
    "an iterator": lambda bus, data, kind: bus.send_many(iter([data]), kind),
    "zero copy": send_zero_copy,
}


RECEIVE = {
    "recv": lambda bus: parts(bus.recv()),
    "try_recv": lambda bus: parts(bus.try_recv()),
    "iteration": lambda bus: parts(next(bus)),
    "recv_into": recv_into,
    "zero copy": recv_zero_copy,
    "drain": drain_batch,
}


@pytest.mark.parametrize("receive", RECEIVE)
@pytest.mark.parametrize("send", SEND)
def test_it_goes_through_in_every_way_and_in_order(pair, send, receive):
    producer, consumer = pair(4096)
    before = descriptors()
    for i, size in enumerate(SIZES if send != "strided" else SIZES[:3]):
        data = pattern(size, i)
        producer.send(b"before")
        SEND[send](producer, data, i)
        producer.send(b"after")
        assert consumer.recv().data == b"before"
        assert RECEIVE[receive](consumer) == (i, data)
        assert consumer.recv().data == b"after"
    assert (descriptors(), parcels()) == (before, 0)


def test_the_limits_are_said(path, run_thread):
    for listener, connector, most in (
        ({}, {}, 1 << 30),
        ({"max_large": 1 << 20}, {}, 1 << 20),
        ({}, {"max_large": 4096}, 4096),
        ({"max_large": 1 << 32}, {"max_large": 1 << 32}, (1 << 32) - 16),
        ({"max_large": 0}, {}, 1008),
        ({}, {"max_large": 0}, 1008),
    ):
        listening = run_thread(Bus.listen, path, 1024, timeout=60, **listener)
        with Bus.connect(path, timeout=60, **connector) as one, listening.result(60) as other:
            assert one.max_large_size == other.max_large_size == most
            assert one.max_message_size == 1008
            with pytest.raises(MessageTooLargeError, match=rf"{1 << 40} bytes .* at most {most} \(.*max_large"):
                one.send_zero_copy(1 << 40)
    assert Bus.__new__(Bus).max_large_size == tachyon.RpcBus.__new__(tachyon.RpcBus).max_large_size == 0


@pytest.mark.parametrize("bad", [-1, 1, 4095, 4097, 1 << 33])
def test_a_bad_limit_is_refused(path, bad):
    with pytest.raises(ValueError, match=f"max_large must be 0, or a power of two .* not {bad}"):
        Bus.listen(path, 4096, max_large=bad)
    with pytest.raises(ValueError, match="max_large"):
        tachyon.RpcBus.connect(path, max_large=bad)
    with pytest.raises(TypeError, match="max_large must be an int, not float"):
        Bus.connect(path, max_large=1e9)


def test_a_peer_that_does_not_know_of_it_is_not_sent_any(path, until, run_thread):
    listening = run_thread(Bus.listen, path, 4096, timeout=60)
    with dial(path, until) as client:
        client.sendall(real_greeting(path, until))  # without abilities
        said = client.recv(240)
        assert understood(said)["abilities"] >> 8 & 0x3F == 30
        client.sendall(b"R")
        with listening.result() as bus:
            assert bus.max_large_size == bus.max_message_size
            with pytest.raises(MessageTooLargeError):
                bus.send(bytes(4081))


# ---- so many under way -----------------------------------------------------------------------------------------------


def test_a_receiver_that_takes_none_costs_a_bounded_amount(pair):
    producer, consumer = pair(4096, max_large=1 << 22)
    data = pattern(100_000)
    there = descriptors()
    sent = 0
    while producer.try_send(data, sent):
        sent += 1
    assert sent == MOST
    for _ in range(200):
        assert not producer.try_send(data)
    with pytest.raises(BusFullError):
        producer.send(data, timeout=0.2)
    with pytest.raises(BusFullError):
        producer.send_zero_copy(100_000, timeout=0)
    assert (descriptors(), parcels()) == (there, 0)
    producer.send(b"small", MOST)  # what fits goes on
    assert [consumer.recv().type_id for _ in range(MOST + 1)] == list(range(MOST + 1))
    quarter = bytes(1 << 20)
    assert [producer.try_send(quarter) for _ in range(5)] == [True] * 4 + [False]  # and so many bytes


def test_a_sender_that_waits_goes_on_when_one_is_let_go_of(pair, run_thread, until):
    producer, consumer = pair(4096)
    for i in range(MOST):
        producer.send(bytes(5000), i)
    waiting = run_thread(producer.send, bytes(5000), MOST, timeout=60)
    until(lambda: producer.stats()["parks"] > 0)
    with consumer.recv_zero_copy():
        with pytest.raises(BusEmptyError):
            for _ in range(MOST + 1):
                consumer.recv(timeout=0.3)
        assert not waiting.done()  # the oldest is held
    waiting.result(60)
    assert consumer.recv(timeout=60).type_id == MOST


def test_a_close_ends_the_wait_for_room(pair, run_thread, until):
    producer, consumer = pair(4096)
    while producer.try_send(bytes(5000)):
        pass
    waiting = run_thread(producer.send, bytes(5000))
    until(lambda: producer.stats()["parks"] > 0)
    consumer.close()
    with pytest.raises(PeerClosedError):
        waiting.result(60)


# ---- guards ----------------------------------------------------------------------------------------------------------


def test_guards_of_both_kinds_are_left_in_any_order(pair):
    producer, consumer = pair(4096)
    for i in range(8):
        producer.send(pattern(5000 if i % 2 else 50, i), i)
    held = [consumer.recv_zero_copy() for _ in range(8)]
    for i in (5, 0, 7, 2, 1, 6, 4, 3):
        assert bytes(held[i]) == pattern(5000 if i % 2 else 50, i)
        held[i].release()
    assert parcels() == 0
    producer.send(b"on")
    assert consumer.recv().data == b"on"


def test_a_view_that_outlives_everything_stays_valid(path):
    producer, consumer = open_pair(path, 4096)
    producer.send(pattern(5000))
    with pytest.raises(BufferError):
        with consumer.recv_zero_copy() as rx:
            view = memoryview(rx)
    producer.close()
    consumer.close()
    assert bytes(view) == pattern(5000)
    view.release()
    assert parcels() == 0


def test_a_view_of_a_claim_outlives_its_block_and_the_bus(path):
    producer, consumer = open_pair(path, 4096)
    with pytest.raises(BufferError):
        with producer.send_zero_copy(5000) as tx:
            view = memoryview(tx)
    producer.close()
    view[4999] = 1
    view.release()
    with pytest.raises(PeerClosedError):
        consumer.recv(timeout=30)
    consumer.close()
    assert parcels() == 0


def test_it_begins_as_far_into_a_line_as_in_a_ring_and_cannot_be_changed(pair):
    producer, consumer = pair(4096)
    producer.send(bytes(5000))
    with consumer.recv_zero_copy() as rx:
        array = np.frombuffer(rx, np.uint8)
        assert array.ctypes.data % 64 == 16
        assert not array.flags.writeable
        del array


def test_what_does_not_fit_the_buffer_of_recv_into_waits(pair):
    producer, consumer = pair(4096)
    producer.send(pattern(5000), 7)
    for _ in range(3):
        with pytest.raises(MessageTooLargeError, match="5000 bytes, the buffer 4999"):
            consumer.recv_into(bytearray(4999))
    assert consumer.recv() == Message(7, 5000, pattern(5000))
    assert parcels() == 0


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_calls_and_replies_go_through(rpc):
    caller, callee = rpc(4096, 4096)
    assert caller.max_large_size == callee.max_large_size == 1 << 30
    ids = [caller.call(pattern(10_000, i), i) for i in range(4)]
    for i in range(4):
        with callee.serve() as call, memoryview(call) as view:
            callee.reply(call.correlation_id, view, i)
    for i in (3, 0, 2, 1):  # 0 … 2 are set aside meanwhile
        with caller.wait(ids[i], timeout=0) as reply:
            assert (reply.type_id, bytes(reply)) == (i, pattern(10_000, i))
    with caller.call_zero_copy(10_000, 5) as tx:
        memoryview(tx)[0] = 1
    with callee.serve() as call, callee.reply_zero_copy(call.correlation_id, 20_000) as tx:
        memoryview(tx)[19_999] = 2
    with caller.wait(tx.correlation_id) as reply:
        assert (len(reply), reply.actual_size, bytes(reply)[-1]) == (20_000, 20_000, 2)


def test_an_endpoint_answers_with_more_than_its_ring(served):
    @tachyon.tachyon_rpc(msg_type=4)
    def double(payload):
        return bytes(payload) * 2

    caller = served(double, forward=4096, reverse=4096)
    for size in (100, 3000, 100_000):
        assert double.call(caller, pattern(size), timeout=60) == pattern(size) * 2


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_without_descriptors_it_is_a_memory_error_and_nothing_is_lost(pair, no_descriptors):
    producer, consumer = pair(4096)
    with no_descriptors, pytest.raises(MemoryError, match=r"5000 bytes .* \(Too many open files\)"):
        producer.send(bytes(5000))
    with no_descriptors, pytest.raises(MemoryError, match="5000 bytes"):
        producer.send_zero_copy(5000)
    producer.send(pattern(5000), 3)
    producer.send(b"next")
    for receive in (consumer.recv, consumer.recv_zero_copy, consumer.drain_batch, consumer.try_recv):
        with no_descriptors, pytest.raises(MemoryError, match="Too many open files"):
            receive()
    assert consumer.recv() == Message(3, 5000, pattern(5000))
    assert consumer.recv().data == b"next"


def test_more_than_the_machine_has_is_a_memory_error_that_names_it(spawn, path, fake_meminfo):
    child = spawn(
        fake_meminfo(8 << 10)
        + """
with tachyon.Bus.connect(path, timeout=60) as bus:
    try: bus.send_zero_copy(16 << 20)
    except MemoryError as error: say(error)
    bus.send(bytes(5000))
""",
        path,
    )
    if child.line() != "mounted":
        pytest.skip("nothing can be mounted here")
    with Bus.listen(path, 4096, timeout=60) as bus:
        assert "a message of 16777216 bytes" in child.line()
        assert bus.recv(timeout=60).size == 5000
    child.ends()


def test_a_forked_child_neither_keeps_nor_spoils_anything(pair):
    producer, consumer = pair(4096)
    with producer.send_zero_copy(5000) as tx:
        with memoryview(tx) as view:
            view[:] = pattern(5000)
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(1)
    try:
        assert consumer.recv(timeout=30).data == pattern(5000)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
