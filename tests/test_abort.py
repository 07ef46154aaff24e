"""Leaving in the middle is told from the end of the stream: abort(), and a block that an exception leaves."""

import contextlib
import os
import signal
from concurrent.futures import Future

import pytest

import tachyon
from tachyon import Bus, BusClosedError, PeerClosedError, PeerDeadError, RpcBus

ABORTS = {
    "ValueError": "raise ValueError('half way')",
    "KeyboardInterrupt": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "SystemExit(1)": "sys.exit(1)",
    "SystemExit('text')": "sys.exit('text')",
    "abort": "bus.abort()",
    "abort, then close": "bus.abort(); bus.close()",
    "a subclass of BaseException": "raise type('Mine', (BaseException,), {})",
}
ENDS = {
    "normally": "pass",
    "SystemExit(0)": "sys.exit(0)",
    "SystemExit(None)": "sys.exit()",
    "GeneratorExit": "raise GeneratorExit",
    "close": "bus.close()",
    "close, then abort": "bus.close(); bus.abort()",
    "close, then an exception": "bus.close(); raise ValueError",
}
PRODUCER = """
    import contextlib
    with contextlib.suppress(BaseException):
        with tachyon.Bus.connect(path, timeout=60) as bus:
            for i in range(3):
                bus.send(b"%d" % i)
            WAY
    say("left")
    hear()
"""


@pytest.mark.parametrize("how", ABORTS)
def test_a_producer_that_leaves_in_the_middle_is_no_end_of_stream(spawn, path, how):
    child = spawn(PRODUCER.replace("WAY", ABORTS[how]), path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("left")
        seen = []
        with pytest.raises(PeerDeadError, match=rf"peer \(pid {child.pid}\).*gave up in the middle") as caught:
            for message in bus:
                seen.append(message.data)
        assert seen == [b"0", b"1", b"2"]
        assert caught.value.reason == "aborted"
        assert not isinstance(caught.value, PeerClosedError)
        for receive in (
            bus.recv,
            bus.try_recv,
            bus.recv_zero_copy,
            bus.drain_batch,
            lambda: bus.recv_into(bytearray(9)),
        ):
            with pytest.raises(PeerDeadError) as caught:
                receive()
            assert caught.value.reason == "aborted"
    child.tell()
    child.ends()


@pytest.mark.parametrize("how", ENDS)
def test_these_are_ways_to_leave_in_good_order(spawn, path, how):
    child = spawn(PRODUCER.replace("WAY", ENDS[how]), path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("left")
        assert [message.data for message in bus] == [b"0", b"1", b"2"]
        with pytest.raises(PeerClosedError):
            bus.recv()
    child.tell()
    child.ends()


def test_the_end_of_a_generator_that_holds_a_bus_is_a_normal_end(pair):
    producer, consumer = pair()

    def sending():
        with producer:
            while True:
                producer.send((yield))

    generator = sending()
    next(generator)
    generator.send(b"one")
    generator.close()
    assert [message.data for message in consumer] == [b"one"]


@pytest.mark.parametrize("leave", [Bus.abort, lambda bus: bus.__exit__(ValueError, ValueError("x"), None)])
def test_a_consumer_that_leaves_in_the_middle_is_told_to_the_producer(pair, leave):
    producer, consumer = pair()
    producer.send(b"one")
    leave(consumer)
    assert consumer.closed
    for send in (
        lambda: producer.send(b"x"),
        lambda: producer.try_send(b"x"),
        lambda: producer.send_many([b"x"]),
        lambda: producer.send_zero_copy(1),
        producer.wait_read,
        producer.finish,
    ):
        with pytest.raises(PeerDeadError, match="gave up in the middle") as caught:
            send()
        assert caught.value.reason == "aborted"


def test_a_waiting_peer_is_woken_at_once(pair, run_thread, until):
    producer, consumer = pair()
    waiting = run_thread(consumer.recv, timeout=60)
    until(lambda: consumer.stats()["parks"] > 0)
    producer.abort()
    with pytest.raises(PeerDeadError) as caught:
        waiting.result(60)
    assert caught.value.reason == "aborted"


def test_abort_ends_the_wait_of_another_thread_and_counts_though_that_one_finishes_it(pair, run_thread, until):
    producer, consumer = pair(64)
    producer.send(b"full")
    waiting = run_thread(producer.send, b"more", timeout=60)
    until(lambda: producer.stats()["parks"] > 0)
    producer.abort()
    with pytest.raises(BusClosedError):
        waiting.result(60)
    assert consumer.recv().data == b"full"
    with pytest.raises(PeerDeadError) as caught:
        consumer.recv(timeout=60)
    assert caught.value.reason == "aborted"


@pytest.mark.parametrize(("first", "second", "reason"), [("abort", "close", "aborted"), ("close", "abort", "closed")])
def test_the_first_word_counts_though_another_thread_is_inside(pair, run_thread, until, first, second, reason):
    for _ in range(5):
        producer, consumer = pair(64)
        producer.send(b"full")
        waiting = run_thread(producer.send, b"more", timeout=60)
        until(lambda producer=producer: producer.stats()["parks"] > 0)
        getattr(producer, first)()
        getattr(producer, second)()
        with pytest.raises(BusClosedError):
            waiting.result(60)
        consumer.recv()
        with pytest.raises(PeerDeadError) as caught:
            consumer.recv(timeout=60)
        assert caught.value.reason == reason


def test_the_first_word_counts(pair):
    for first, second, reason in ((Bus.abort, Bus.close, "aborted"), (Bus.close, Bus.abort, "closed")):
        producer, consumer = pair()
        producer.send(b"x")
        guard = producer.send_zero_copy(4)  # the core is closed, and there is more to come
        first(producer)
        second(producer)
        del guard
        consumer.recv()
        with pytest.raises(PeerDeadError) as caught:
            consumer.recv(timeout=60)
        assert caught.value.reason == reason


def test_abort_is_idempotent_and_a_forked_child_cannot_abort_for_its_parent(pair):
    producer, consumer = pair()
    producer.send(b"x")
    pid = os.fork()
    if pid == 0:
        try:
            producer.abort()
            producer.__exit__(ValueError, ValueError(), None)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    producer.send(b"y")
    assert consumer.recv().data == b"x"
    assert consumer.recv().data == b"y"
    producer.abort()
    producer.abort()
    producer.close()
    with pytest.raises(PeerDeadError) as caught:
        consumer.recv(timeout=60)
    assert caught.value.reason == "aborted"


# ---- calls and replies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [RpcBus.abort, lambda bus: bus.__exit__(ValueError, ValueError("x"), None)])
def test_a_callee_that_leaves_in_the_middle(rpc, leave):
    caller, callee = rpc()
    one, two = caller.call(b"one", 1), caller.call(b"two", 1)
    with callee.serve() as rx:
        callee.reply(rx.correlation_id, b"answer", 1)
    leave(callee)
    with caller.wait(one) as rx:
        assert bytes(rx) == b"answer"
    for use in (lambda: caller.wait(two), lambda: caller.call(b"x", 1)):
        with pytest.raises(PeerDeadError, match="gave up") as caught:
            use()
        assert caught.value.reason == "aborted"


@pytest.mark.parametrize("leave", [RpcBus.abort, lambda bus: bus.__exit__(ValueError, ValueError("x"), None)])
def test_a_caller_that_leaves_in_the_middle(rpc, leave, caplog):
    caller, callee = rpc()
    caller.call(b"one", 1)
    leave(caller)
    with callee.serve() as rx:
        assert bytes(rx) == b"one"
    with pytest.raises(PeerDeadError) as caught:
        callee.serve()
    assert caught.value.reason == "aborted"
    tachyon.RpcDispatcher().serve_forever(callee)  # returns
    assert "gave up" in caplog.text


@pytest.mark.parametrize("raised", [ValueError, None])
def test_a_server_whose_block_an_exception_leaves_aborts_its_callers(path, run_thread, raised):
    def serve():
        with contextlib.suppress(ValueError), tachyon.RpcServer(path, dispatcher) as server:
            started.set_result(server)
            server.serve_forever()
            if raised is not None:
                raise raised

    dispatcher = tachyon.RpcDispatcher()
    dispatcher.handler(1)(bytes)
    started = Future()
    serving = run_thread(serve)
    callers = [RpcBus.connect(path, timeout=60) for _ in range(3)]
    for caller in callers:
        assert tachyon.RpcEndpoint(1).call(caller, b"x", timeout=60) == b"x"
    started.result(60).stop()
    serving.result(60)
    for caller in callers:
        with pytest.raises(PeerDeadError) as caught:
            caller.call(b"late", 1)
        assert caught.value.reason == ("closed" if raised is None else "aborted")
        caller.close()


def test_leaving_an_rpc_block_normally_is_a_close(rpc):
    caller, callee = rpc()
    with caller:
        pass
    with pytest.raises(PeerClosedError):
        callee.serve()


def test_a_signal_handler_that_raises_within_the_block_is_an_exception_like_any(spawn, path):
    child = spawn("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with tachyon.Bus.connect(path, timeout=60) as bus:
            bus.send(b"one")
            say("sent")
            time.sleep(60)
    """, path)  # fmt: skip
    with Bus.listen(path, 4096, timeout=60) as bus:
        child.says("sent")
        child.send_signal(signal.SIGTERM)
        assert bus.recv(timeout=60).data == b"one"
        with pytest.raises(PeerDeadError) as caught:
            bus.recv(timeout=60)
        assert caught.value.reason == "aborted"
    child.ends(1)
