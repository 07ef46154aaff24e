"""What no bus, listener or server in a loop comes to grief by: lack of memory, loops that were closed."""

import asyncio
import gc
import logging

import pytest
from aio_ends import asleep, awaits_reply, dispatcher_of, passes, run

import tachyon
from tachyon import BusFullError, PeerClosedError, aio

LARGE = 8 << 20  # bytes of ring that are reserved in a thread


# ---- lack of memory --------------------------------------------------------------------------------------------------


class Failing:
    """A listener that has no memory for the first peer."""

    def __init__(self, listener):
        self._listener = listener
        self._failed = False

    def __getattr__(self, name):
        return getattr(self._listener, name)

    def try_accept(self):
        if self._failed:
            return self._listener.try_accept()
        self._failed = True
        raise MemoryError("none now")


@pytest.mark.parametrize("capacity", [4096, LARGE])
def test_an_accept_after_one_that_failed_accepts(path, run_thread, capacity):
    async def main():
        async with aio.Listener(path, capacity) as listener:
            listener.listener = Failing(listener.listener)
            connecting = run_thread(tachyon.Bus.connect, path, timeout=60)
            with pytest.raises(MemoryError):
                await listener.accept()
            async with await listener.accept() as bus:
                connecting.result(60).send(b"x")
                assert (await bus.recv()).data == b"x"

    run(main)


def test_a_reply_that_there_is_no_memory_for_is_an_error_for_who_waits_for_it(arpc, no_descriptors, caplog):
    async def main():
        async with arpc(4096, 4096) as (caller, callee):
            calling = asyncio.ensure_future(caller.request(b"x", 1))
            later = await caller.call(b"y", 1)
            await awaits_reply(caller)
            for size in (3, 100_000):
                async with callee.serve() as call:
                    await callee.reply(call.correlation_id, bytes(size))
            with no_descriptors, pytest.raises(MemoryError, match="Too many open files"):
                await calling
            async with caller.wait(later) as reply:
                assert bytes(reply) == bytes(3)

    run(main)
    assert not caplog.records


CALLER = """
bus = tachyon.RpcBus.connect(path, timeout=60)
hear()
bus.call(bytes(100_000), 1)
try: bus.wait(1)
except tachyon.PeerClosedError: say("cut off")
"""


def test_a_call_that_there_is_no_memory_for_costs_its_caller_the_connection(path, spawn, no_descriptors, caplog):
    caplog.set_level(logging.ERROR)

    async def main():
        async with aio.RpcServer(path, dispatcher_of(_1=bytes), 4096, 4096) as server:
            serving = asyncio.ensure_future(server.serve_forever())
            child = spawn(CALLER, path)
            while server.stats()["callers"] < 1:
                await asyncio.sleep(0.001)
            with no_descriptors:
                child.tell()
                while server.stats()["callers"]:
                    await asyncio.sleep(0.001)
            await asyncio.get_running_loop().run_in_executor(None, child.says, "cut off")
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                assert await tachyon.RpcEndpoint(1).acall(bus, bytes(5000)) == bytes(5000)
            server.stop()
            await serving

    run(main)
    assert "cut off" in caplog.text


# ---- callers that do not read ----------------------------------------------------------------------------------------


def test_stop_does_not_wait_for_a_caller_that_does_not_read(path):
    async def answer(request):
        return bytes(3000)

    async def main():
        async with aio.RpcServer(path, dispatcher_of(_1=answer), 4096, 4096, grace=0) as server:
            serving = asyncio.ensure_future(server.serve_forever())
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                ids = [await bus.call(b"x", 1) for _ in range(3)]
                while server.stats()["served"] < 2:
                    await asyncio.sleep(0.001)
                server.stop()
                await serving
                assert server.stats()["callers"] == 1
                serving = asyncio.ensure_future(server.serve_forever())
                for number in ids:  # nothing is lost by that
                    async with bus.wait(number) as reply:
                        assert bytes(reply) == bytes(3000)
                server.stop()
                await serving

    run(main)


# ---- loops that were closed ------------------------------------------------------------------------------------------


def left_in_a_closed_loop(begin, *buses):
    """Have tasks wait in a loop, and close it under them. Returns the tasks."""
    loop = asyncio.new_event_loop()

    async def main():
        tasks = [asyncio.ensure_future(each) for each in begin()]
        for bus in buses:
            await asleep(bus)
        await passes()
        return tasks

    tasks = loop.run_until_complete(main())
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False
    return tasks


def test_tasks_that_a_closed_loop_has_left_waiting_are_in_nobodys_way(pair):
    producer, consumer = map(aio.Bus, pair(4096))

    def send():
        while producer.try_send(bytes(1000)):
            pass
        return [producer.send(b"never") for _ in range(3)]

    left = left_in_a_closed_loop(send, producer)

    async def read():
        while consumer.try_recv() is not None:
            pass
        await producer.send(b"x", timeout=30)
        assert (await consumer.recv()).data == b"x"

    run(read)
    left += left_in_a_closed_loop(lambda: [consumer.recv()], consumer)

    async def receive():
        receiving = asyncio.ensure_future(consumer.recv())
        await asleep(consumer)
        left.clear()  # they end now
        gc.collect()
        await producer.send(b"y")
        assert (await receiving).data == b"y"

    run(receive)
    producer.close()
    consumer.close()


def test_calls_and_servers_that_a_closed_loop_has_left_waiting_are_in_nobodys_way(rpc):
    caller, callee = map(aio.RpcBus, rpc())
    number = caller.bus.call(b"", 1)
    with callee.bus.serve():
        pass
    left = left_in_a_closed_loop(lambda: [caller.wait(number), callee.serve()], callee)

    async def main():
        waiting = asyncio.ensure_future(caller.wait(number))
        calling = asyncio.ensure_future(caller.request(b"x", 1))
        async with callee.serve() as call:
            await callee.reply(call.correlation_id, call)
        left.clear()
        gc.collect()
        await callee.reply(number, b"y")
        assert (await calling).data == b"x"
        with await waiting as reply:
            assert bytes(reply) == b"y"

    run(main)
    caller.close()
    callee.close()


def test_the_answer_to_a_request_that_a_closed_loop_has_left_is_in_nobodys_way(rpc):
    caller, callee = map(aio.RpcBus, rpc())
    left = left_in_a_closed_loop(lambda: [caller.request(b"left", 1)])

    async def main():
        calling = asyncio.ensure_future(caller.request(b"x", 1))
        for _ in range(2):
            async with callee.serve() as call:
                await callee.reply(call.correlation_id, call)
        assert (await asyncio.wait_for(calling, 8)).data == b"x"

    run(main)
    left.clear()
    gc.collect()
    caller.close()
    callee.close()


def test_a_listener_goes_on_in_the_next_loop_after_an_accept_that_a_loop_left(path, run_thread):
    listener = aio.Listener(path, LARGE)

    async def begin():
        accepting = asyncio.ensure_future(listener.accept())
        while listener._accepting is None:
            await asyncio.sleep(0)
        return accepting

    asyncio.run(begin())

    async def main():
        connecting = run_thread(tachyon.Bus.connect, path, timeout=60)
        async with await listener.accept() as bus:
            connecting.result(60).send(b"x")
            assert (await bus.recv()).data == b"x"

    run(main)
    asyncio.run(begin())
    listener.close()
    assert listener.listener.closed


def test_try_accept_gets_the_peer_of_an_accept_that_was_cancelled(path, run_thread):
    async def main():
        async with aio.Listener(path, LARGE) as listener:
            connecting = run_thread(tachyon.Bus.connect, path, timeout=60)
            accepting = asyncio.ensure_future(listener.accept())
            while listener._accepting is None:
                await asyncio.sleep(0)
            accepting.cancel()
            while (bus := listener.try_accept()) is None:
                await asyncio.sleep(0.001)
            connecting.result(60).send(b"x")
            async with bus:
                assert (await bus.recv()).data == b"x"

    run(main)


def test_a_close_in_the_last_pass_of_a_loop_is_done_by_the_next_one(pair):
    producer, consumer = pair()
    producer = aio.Bus(producer)
    loop = asyncio.new_event_loop()

    async def wait():
        with pytest.raises(tachyon.TachyonTimeoutError):
            await producer.wait_read(timeout=0.001)

    producer.try_send(b"x")
    loop.run_until_complete(wait())
    loop.call_soon(lambda: (producer.close(), loop.stop()))
    loop.run_forever()
    loop.close()
    producer.close()
    assert consumer.recv().data == b"x"
    with pytest.raises(PeerClosedError):
        consumer.recv(timeout=30)


@pytest.mark.parametrize("waited", [False, True])
def test_a_bus_that_is_forgotten_without_a_loop_is_closed_and_complained_of(pair, waited):
    producer, consumer = pair(4096)
    producer = aio.Bus(producer)

    async def fill(bus):
        with pytest.raises(BusFullError):
            await bus.send_many([bytes(1000)] * 10, timeout=0.001)

    if waited:
        asyncio.run(fill(producer))
    with pytest.warns(ResourceWarning, match="unclosed <tachyon.aio.Bus"):
        del producer
        gc.collect()
    with pytest.raises(PeerClosedError):
        while True:
            consumer.recv(timeout=30)
