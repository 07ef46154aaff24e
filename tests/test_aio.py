"""tachyon.aio.Bus: every method, and what it does not do."""

import asyncio
import subprocess
import sys

import pytest
from aio_ends import asleep, passes, run

import tachyon
from tachyon import BusBusyError, BusEmptyError, BusFullError, MessageTooLargeError, PeerClosedError, aio


def test_what_is_sent_is_received_in_order_and_the_end_ends_the_iteration(path):
    async def main():
        listening = asyncio.ensure_future(aio.Bus.listen(path, 4096, timeout=60))
        producer = await aio.Bus.connect(path, timeout=60)
        consumer = await listening

        async def produce():
            async with producer:
                for n in range(5000):
                    await producer.send(b"%d" % n, n)

        async def consume():
            async with consumer:
                return [(message.data, message.type_id) async for message in consumer]

        _, got = await asyncio.gather(produce(), consume())
        assert got == [(b"%d" % n, n) for n in range(5000)]
        assert producer.bus.closed and consumer.bus.closed

    run(main)


def test_two_processes_with_a_loop_each(spawn, path):
    child = spawn(
        """
        import asyncio
        from tachyon import aio
        async def main():
            async with await aio.Bus.connect(path, timeout=30) as bus:
                for n in range(3000):
                    await bus.send(n.to_bytes(4, "big"))
                    if n % 500 == 0: await asyncio.sleep(0.01)
        asyncio.run(main())
        """,
        path,
    )

    async def main():
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            assert [int.from_bytes(message.data, "big") async for message in bus] == list(range(3000))

    run(main)
    child.ends()


def test_a_receiver_that_waits_is_woken_and_so_is_a_sender_that_waits_for_room(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            receiving = asyncio.ensure_future(consumer.recv())
            await asleep(consumer)
            await producer.send(b"one")
            assert (await receiving).data == b"one"
            while producer.try_send(bytes(1000)):
                pass
            sending = asyncio.ensure_future(producer.send(b"two" * 333))
            await asleep(producer)
            assert not sending.done()
            assert (await consumer.recv()).size == 1000
            await sending
            while (message := await consumer.recv()).size == 1000:
                pass
            assert message.data == b"two" * 333

    run(main)


def test_timeouts_are_those_of_the_blocking_bus(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            for timeout in (0, 0.01):
                with pytest.raises(BusEmptyError):
                    await consumer.recv(timeout=timeout)
            with pytest.raises(BusEmptyError):
                await consumer.recv_into(bytearray(10), timeout=0.01)
            with pytest.raises(BusEmptyError):
                async with consumer.recv_zero_copy(timeout=0.01):
                    pass
            with pytest.raises(BusEmptyError):
                await consumer.drain_batch(timeout=0.01)
            while producer.try_send(bytes(1000)):
                pass
            for timeout in (0, 0.01):
                with pytest.raises(BusFullError):
                    await producer.send(bytes(1000), timeout=timeout)
            with pytest.raises(BusFullError):
                await producer.send_zero_copy(1000, timeout=0.01)
            with pytest.raises(tachyon.TachyonTimeoutError):
                await producer.wait_read(timeout=0.01)
            with pytest.raises(ValueError, match="timeout"):
                await producer.send(b"", timeout=-1)
            with pytest.raises(ValueError, match="timeout"):
                await consumer.recv(timeout=float("nan"))
            assert (await consumer.recv(timeout=0)).size == 1000
            with pytest.raises(BusFullError) as caught:
                await producer.send_many([b"x", bytes(2000)], timeout=0.01)
            assert caught.value.sent == 1

    run(main)


def test_wait_for_and_timeout_of_asyncio_work_too(apair):
    async def main():
        async with apair() as (producer, consumer):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(consumer.recv(), 0.01)
            if sys.version_info >= (3, 11):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await consumer.recv()
            await producer.send(b"still there")
            assert (await asyncio.wait_for(consumer.recv(), 60)).data == b"still there"

    run(main)


def test_send_many_takes_lists_and_generators_and_waits_where_there_is_no_room(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            items = [(b"%d" % n, n) for n in range(2000)]
            sending = asyncio.gather(producer.send_many(items), producer.send_many(data for data, _ in items))
            got = [await consumer.recv() for _ in range(4000)]
            assert await sending == [2000, 2000]
            first = [(message.data, message.type_id) for message in got if message.type_id or message.data == b"0"]
            assert [each for each in first if each[1]] == items[1:]
            assert sorted(message.data for message in got) == sorted([data for data, _ in items] * 2)
            with pytest.raises(TypeError):
                await producer.send_many([b"good", "bad"])
            assert (await consumer.recv()).data == b"good"
            assert await producer.send_many([]) == 0

    run(main)


def test_zero_copy_guards_are_left_by_async_with_and_by_with(apair):
    async def main():
        async with apair() as (producer, consumer):
            async with producer.send_zero_copy(10, 7) as guard:
                with memoryview(guard) as room:
                    room[:3] = b"abc"
                guard.actual_size = 3
            with pytest.raises(RuntimeError, match="mine"):
                async with producer.send_zero_copy(10):
                    raise RuntimeError("mine")
            with await producer.send_zero_copy(1) as guard, memoryview(guard) as room:
                room[:] = b"d"
            async with consumer.recv_zero_copy() as guard, consumer.recv_zero_copy() as second:
                assert (bytes(guard), guard.type_id, bytes(second)) == (b"abc", 7, b"d")
            assert consumer.try_recv() is None
            receiving = asyncio.ensure_future(consumer.recv_zero_copy())
            await asleep(consumer)
            await producer.send(b"later")
            with await receiving as guard:
                assert bytes(guard) == b"later"
            await producer.wait_read(timeout=60)

    run(main)


def test_recv_into_fills_a_buffer_and_leaves_what_is_too_large(apair):
    async def main():
        async with apair() as (producer, consumer):
            await producer.send(b"abc", 5)
            buffer = bytearray(2)
            with pytest.raises(MessageTooLargeError):
                await consumer.recv_into(buffer)
            buffer = bytearray(4)
            assert await consumer.recv_into(buffer) == (3, 5)
            assert buffer == b"abc\0"

    run(main)


def test_batches_are_freed_one_after_the_other(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            sending = asyncio.ensure_future(producer.send_many([b"%d" % n for n in range(1000)]))
            got = []
            async for batch in consumer.batches(16):
                assert 1 <= len(batch) <= 16
                got += [bytes(view) for view in batch]
                if len(got) == 1000:
                    break
            assert got == [b"%d" % n for n in range(1000)]
            assert await sending == 1000
            with pytest.raises(tachyon.TachyonTimeoutError):
                await producer.wait_read(timeout=0)  # the last one is held
            batch.release()
            await producer.wait_read(timeout=60)
            await producer.send(b"x")
            batches = consumer.batches()
            kept = memoryview((await anext(batches))[0])
            with pytest.raises(BufferError):
                await anext(batches)
            kept.release()
            producer.close()
            await passes()
            with pytest.raises(StopAsyncIteration):
                await anext(batches)
            with pytest.raises(PeerClosedError):
                await consumer.drain_batch()
            with pytest.raises(PeerClosedError):
                await consumer.recv()
            assert [message async for message in consumer] == []

    run(main)


def test_finish_and_wait_read_wait_for_the_consumer(apair):
    async def main():
        async with apair() as (producer, consumer):
            await producer.send(b"x")
            reading = asyncio.ensure_future(producer.wait_read())
            await asleep(producer)
            assert not reading.done()
            await consumer.recv()
            await reading
            await producer.send(b"y")
            with pytest.raises(tachyon.TachyonTimeoutError):
                await producer.finish(timeout=0.01)
            finishing = asyncio.ensure_future(producer.finish())
            await asleep(producer)
            assert [message.data async for message in consumer] == [b"y"]
            assert not finishing.done()
            consumer.close()
            await finishing
            assert producer.closed

    run(main)


def test_a_second_receiver_is_refused_and_the_first_is_left_in_peace(apair):
    async def main():
        async with apair() as (producer, consumer):
            receiving = asyncio.ensure_future(consumer.recv())
            await passes(1)
            for second in (consumer.recv, consumer.recv_zero_copy, consumer.drain_batch, lambda: anext(consumer)):
                with pytest.raises(BusBusyError, match="another task"):
                    await second()
            with pytest.raises(BusBusyError, match="another task"):
                consumer.try_recv()
            await producer.send(b"x")
            assert (await receiving).data == b"x"

    run(main)


def test_senders_of_many_tasks_come_in_the_order_in_which_they_came(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            while producer.try_send(bytes(1000)):
                pass
            tasks = []
            for n in range(20):
                tasks.append(asyncio.ensure_future(producer.send(bytes(900), n + 1)))
                await passes(1)
            tasks[3].cancel()
            tasks[0].cancel()
            kinds = []
            while len(kinds) < 18:
                message = await consumer.recv()
                kinds += [message.type_id] * (message.type_id != 0)
            assert kinds == [n + 1 for n in range(20) if n not in (0, 3)]

    run(main)


async def send_in_place(bus):
    async with bus.send_zero_copy(8, 3):
        pass


@pytest.mark.parametrize(
    "way",
    [lambda bus: bus.send(b"3", 3), lambda bus: bus.send_many([b"3"], 3), send_in_place],
    ids=["send", "send_many", "in place"],
)
def test_nobody_overtakes_who_waits_for_room(apair, way):
    async def main():
        async with apair(4096) as (producer, consumer):
            while producer.try_send(bytes(1000), 1):
                pass
            first = asyncio.ensure_future(producer.send(bytes(900), 2))
            await asleep(producer)
            while consumer.try_recv() is not None:
                pass  # there is room, of which the loop has not heard yet
            assert not producer.try_send(b"", 3)
            second = asyncio.ensure_future(way(producer))
            await asyncio.gather(first, second)
            assert [consumer.try_recv().type_id for _ in range(2)] == [2, 3]
            assert consumer.try_recv() is None

    run(main)


def test_items_that_find_room_for_some_of_them_go_out_once(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            for _ in range(10):
                await producer.send(b"x")
            sending = asyncio.ensure_future(producer.send_many([b"%d" % n for n in range(100)]))
            await asleep(producer)
            got = [(await consumer.recv()).data for _ in range(110)]
            assert got == [b"x"] * 10 + [b"%d" % n for n in range(100)]
            assert await sending == 100
            assert consumer.try_recv() is None

    run(main)


def test_whoever_sends_first_is_the_sender_and_its_own_receiver_learns_it(apair):
    async def main():
        for send in (
            aio.Bus.send,
            lambda bus, data: passes(bus.try_send(data)),
            lambda bus, data: bus.send_many([data]),
        ):
            async with apair() as (producer, consumer):
                receiving = asyncio.ensure_future(producer.recv())
                await asleep(producer)
                await send(producer, b"x")
                with pytest.raises(BusBusyError):
                    await asyncio.wait_for(receiving, 60)
                assert (await consumer.recv()).data == b"x"

    run(main)


def test_both_wait_for_the_first_message_and_the_one_that_sends_wakes_the_other(apair):
    async def main():
        async with apair() as (producer, consumer):
            here, there = asyncio.ensure_future(producer.recv()), asyncio.ensure_future(consumer.recv())
            await asleep(producer)
            await asleep(consumer)
            here.cancel()
            await producer.send(b"x")
            assert (await asyncio.wait_for(there, 60)).data == b"x"

    run(main)


def test_a_blocking_peer_that_slept_first_does_not_keep_the_first_message_from_the_loop(pair, run_thread):
    producer, consumer = pair()

    async def main():
        async with aio.Bus(consumer) as bus:
            receiving = asyncio.ensure_future(bus.recv())
            await asleep(bus)

            def sleep_then_send():
                with pytest.raises(BusEmptyError):
                    producer.recv(timeout=0.02)  # on the same word
                producer.send(b"x")

            sent = run_thread(sleep_then_send)
            assert (await receiving).data == b"x"
            sent.result(60)

    run(main)


def test_a_bus_that_was_never_opened_and_what_is_none_are_refused():
    with pytest.raises(TypeError):
        aio.Bus("bus")
    with pytest.raises(tachyon.BusClosedError):
        aio.Bus(tachyon.Bus.__new__(tachyon.Bus))
    with pytest.raises(tachyon.BusClosedError):
        aio.RpcBus(tachyon.RpcBus.__new__(tachyon.RpcBus))


def test_properties_are_those_of_the_bus_beneath(apair):
    async def main():
        async with apair(4096) as (producer, _):
            assert (producer.capacity, producer.max_message_size) == (4096, 4080)
            assert producer.peer_pid == producer.bus.peer_pid
            await producer.send(b"x")
            await producer.flush()
            assert producer.stats()["messages"] == 1
            assert repr(producer).startswith("<tachyon.aio.Bus ")
            with pytest.raises(TypeError):
                await producer.send("text")
            with pytest.raises(OverflowError):
                await producer.send(b"", 1 << 32)

    run(main)


def test_import_tachyon_does_not_import_asyncio():
    code = "import sys, tachyon; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
