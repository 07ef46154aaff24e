"""How a bus in a loop ends: the peer's death, close, Ctrl-C, loops that close, threads."""

import asyncio
import gc
import os
import signal
import threading

import pytest
from aio_ends import asleep, awaits_reply, passes, run

import tachyon
from tachyon import BusBusyError, BusClosedError, PeerClosedError, PeerDeadError, aio


def test_a_killed_peer_ends_what_waits_for_it_after_all_it_sent(spawn, path):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=30); bus.send(b'one'); hear()", path)

    async def main():
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            assert (await bus.recv()).data == b"one"
            receiving = asyncio.ensure_future(bus.recv())
            await asleep(bus)
            child.kill()
            with pytest.raises(PeerDeadError) as caught:
                await receiving
            assert caught.value.reason == "died"
            for _ in range(3):
                with pytest.raises(PeerDeadError):
                    await bus.recv()
            # Readable for ever, it is out of the loop.
            assert not asyncio.get_running_loop().remove_reader(bus.bus.fileno())

    run(main)


def test_a_killed_consumer_ends_a_send_that_waits_for_room(spawn, path):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=30); hear()", path)

    async def main():
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            while bus.try_send(bytes(1000)):
                pass
            sending = [asyncio.ensure_future(bus.send(bytes(1000))) for _ in range(3)]
            reading = asyncio.ensure_future(bus.wait_read())
            await asleep(bus)
            child.kill()
            for task in (*sending, reading):
                with pytest.raises(PeerDeadError):
                    await task

    run(main)


def test_a_killed_callee_ends_every_call_in_flight(spawn, path):
    child = spawn("bus = tachyon.RpcBus.listen(path); bus.serve(); say('served'); hear()", path)
    endpoint = tachyon.RpcEndpoint(1)

    async def main():
        async with await aio.RpcBus.connect(path, timeout=60) as bus:
            calls = [asyncio.ensure_future(endpoint.acall(bus, b"x")) for _ in range(5)]
            waiting = asyncio.ensure_future(bus.wait(await bus.call(b"y", 1)))
            await asyncio.get_running_loop().run_in_executor(None, child.says, "served")
            child.kill()
            for task in (*calls, waiting):
                with pytest.raises(PeerDeadError):
                    await task
            with pytest.raises(PeerDeadError):
                await endpoint.acall(bus, b"x")

    run(main)


def test_close_ends_what_waits_here_and_tells_the_peer(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            receiving = asyncio.ensure_future(consumer.recv())
            await asleep(consumer)
            consumer.close()
            consumer.close()
            with pytest.raises(BusClosedError, match="closed"):
                await receiving
            for use in (consumer.recv, consumer.recv_zero_copy, lambda: anext(consumer), lambda: consumer.send(b"")):
                with pytest.raises(BusClosedError):
                    await use()
            with pytest.raises(BusClosedError):
                consumer.try_recv()
            with pytest.raises(PeerClosedError):
                await producer.send(b"x")
            with pytest.raises(BusClosedError):
                async with consumer:
                    pass
        async with apair(4096) as (producer, consumer):
            while producer.try_send(bytes(1000)):
                pass
            sending = [asyncio.ensure_future(producer.send(b"")) for _ in range(3)]
            await asleep(producer)
            producer.close()
            for task in sending:
                with pytest.raises(BusClosedError):
                    await task
            assert len([message async for message in consumer]) > 0

    run(main)


def test_close_ends_who_waits_for_a_reply_and_takes_the_bus_out_of_the_loop(arpc):
    async def main():
        async with arpc() as (caller, _):
            waiting = asyncio.ensure_future(caller.wait(await caller.call(b"x", 1)).__aenter__())
            requesting = asyncio.ensure_future(caller.request(b"y", 1))
            await awaits_reply(caller)
            number = caller.bus.fileno()
            caller.close()
            for task in (waiting, requesting):
                with pytest.raises(BusClosedError):
                    await asyncio.wait_for(task, 8)
            assert not asyncio.get_running_loop().remove_reader(number)

    run(main)


def test_close_may_come_from_another_thread(apair, run_thread):
    async def main():
        asyncio.get_running_loop().set_debug(True)  # complains of what no other thread may do
        async with apair() as (_, consumer):
            receiving = asyncio.ensure_future(consumer.recv())
            await asleep(consumer)
            closing = run_thread(consumer.close)
            with pytest.raises(BusClosedError):
                await receiving
            await asyncio.to_thread(closing.result, 60)

    run(main)


def test_an_exception_out_of_the_block_is_an_abort_and_so_is_a_cancellation(apair):
    async def leave(producer, error):
        async with producer:
            await producer.send(b"x")
            raise error

    async def main():
        for error in (RuntimeError("mine"), asyncio.CancelledError()):
            async with apair() as (producer, consumer):
                with pytest.raises(type(error)):
                    await leave(producer, error)
                assert (await consumer.recv()).data == b"x"
                with pytest.raises(PeerDeadError) as caught:
                    await consumer.recv()
                assert caught.value.reason == "aborted"
        async with apair() as (producer, consumer):
            producer.abort()
            with pytest.raises(PeerDeadError) as caught:
                await consumer.recv()
            assert caught.value.reason == "aborted"

    run(main)


def test_ctrl_c_ends_a_program_that_waits(spawn, path):
    for wait in ("await bus.recv()", "await bus.send_many([bytes(1000)] * 100)"):
        child = spawn(
            f"""
            import asyncio
            from tachyon import aio
            async def main():
                async with await aio.Bus.connect(path, timeout=30) as bus:
                    say("waits")
                    {wait}
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                say("interrupted")
            """,
            path,
        )

        with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
            child.says("waits")
            child.falls_asleep()
            child.send_signal(signal.SIGINT)
            child.says("interrupted")
            with pytest.raises(PeerDeadError):
                while bus.recv(timeout=60):
                    pass
        child.ends()


def test_a_loop_may_be_closed_while_buses_are_open(pair):
    before = len(os.listdir("/proc/self/fd"))
    producer, consumer = map(aio.Bus, pair())
    loop = asyncio.new_event_loop()
    task = loop.create_task(consumer.recv())
    loop.run_until_complete(asleep(consumer))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()

    async def again():  # in another loop, now that the first is gone
        receiving = asyncio.ensure_future(consumer.recv())
        await asleep(consumer)
        await producer.send(b"x")
        return (await receiving).data

    assert run(again) == b"x"
    producer.close()
    consumer.close()
    assert producer.bus.closed and consumer.bus.closed
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_loop_may_be_closed_under_a_task_that_still_waits(pair):
    producer, consumer = map(aio.Bus, pair())
    loop = asyncio.new_event_loop()
    coroutine = consumer.recv()
    task = loop.create_task(coroutine)
    loop.run_until_complete(asleep(consumer))
    loop.close()
    consumer.close()
    assert consumer.bus.closed
    coroutine.close()
    task._log_destroy_pending = False
    producer.close()


def test_two_loops_in_two_threads_have_a_bus_each_and_one_bus_is_for_one_loop(pair, run_thread):
    pairs = [pair() for _ in range(2)]
    meet = threading.Barrier(2)

    async def echo(ends):
        producer, consumer = map(aio.Bus, ends)
        meet.wait(60)
        async with producer, consumer:
            for n in range(60):
                receiving = asyncio.ensure_future(consumer.recv())
                if n % 3 == 0:
                    await asleep(consumer)
                await producer.send(b"%d" % n)
                assert (await receiving).data == b"%d" % n
        return True

    for running in [run_thread(run, echo, ends) for ends in pairs]:
        assert running.result(60)
    producer, consumer = map(aio.Bus, pair())

    async def main():
        receiving = asyncio.ensure_future(consumer.recv())
        await asleep(consumer)

        async def elsewhere():
            consumer._receiver = None  # as between two of its waits
            with pytest.raises(BusBusyError, match="another event loop|another thread"):
                await consumer.recv()

        await asyncio.get_running_loop().run_in_executor(None, run, elsewhere)
        receiving.cancel()
        consumer.close()
        producer.close()

    run(main)


def test_a_bus_opened_before_the_loop_ran_is_used_in_it_and_after_it(pair):
    producer, consumer = pair()
    producer.send(b"before")
    wrapped = aio.Bus(consumer)

    async def main():
        assert (await wrapped.recv()).data == b"before"
        receiving = asyncio.ensure_future(wrapped.recv())
        await asleep(wrapped)
        producer.send(b"within")
        assert (await receiving).data == b"within"

    run(main)
    producer.send(b"after")
    assert consumer.recv(timeout=0).data == b"after"
    wrapped.close()
    assert consumer.closed


def test_a_bus_that_is_forgotten_is_closed_and_complained_of(apair):
    async def main():
        async with apair() as (producer, consumer):
            receiving = asyncio.ensure_future(consumer.recv(timeout=0.001))
            with pytest.raises(tachyon.BusEmptyError):
                await receiving
            other = aio.Bus(consumer.bus)
            with pytest.raises(tachyon.BusEmptyError):
                await other.recv(timeout=0.001)
            number = consumer.bus.fileno()
            with pytest.warns(ResourceWarning, match="unclosed <tachyon.aio.Bus"):
                del other
                gc.collect()
            await passes()
            assert consumer.bus.closed
            assert not asyncio.get_running_loop().remove_reader(number)
            with pytest.raises(PeerClosedError):
                await producer.send(b"x")

    run(main)


def test_a_forked_child_may_not_use_it(pair):
    producer, consumer = map(aio.Bus, pair())
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(consumer.recv())
        except BusClosedError:
            code = 0
        except BaseException:
            code = 2
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    producer.close()
    consumer.close()
