"""What the methods of tachyon.aio return: coroutines, without the cost of one."""

import asyncio

import pytest
from aio_ends import passes, run

from tachyon import BusEmptyError


def test_coroutines_do_nothing_before_they_are_awaited_and_say_so_if_they_never_are(apair):
    async def main():
        async with apair() as (producer, consumer):
            await producer.send(b"x")
            coroutine = consumer.recv()
            assert asyncio.iscoroutine(coroutine)
            await passes()
            assert consumer.try_recv().data == b"x"
            await producer.send(b"y")
            assert (await coroutine).data == b"y"
            with pytest.raises(RuntimeError, match="already awaited"):
                await coroutine
            task = asyncio.ensure_future(consumer.recv())
            await producer.send(b"z")
            task.cancel()  # before its first step
            with pytest.raises(asyncio.CancelledError):
                await task
            assert consumer.try_recv().data == b"z"
            coroutine = producer.send(b"never")
            coroutine.close()
            with pytest.warns(RuntimeWarning, match="was never awaited"):
                producer.send(b"never")
                await passes()
                consumer.recv()
            assert consumer.try_recv() is None
            coroutine = consumer.recv()
            with pytest.raises(KeyError):
                coroutine.throw(KeyError("mine"))
            assert coroutine.close() is None

    run(main)


def test_the_old_ways_of_a_coroutine_work(apair):
    async def main():
        async with apair() as (producer, consumer):
            await producer.send(b"x")
            coroutine = consumer.recv()
            with pytest.raises(StopIteration) as stopped:
                coroutine.send(None)
            assert stopped.value.value.data == b"x"
            waiting = consumer.recv()
            assert waiting.send(None) is None  # a pass of the loop
            waiting.close()
            with pytest.raises(BusEmptyError):
                await consumer.recv(timeout=0)  # nobody waits any more
            assert [await each async for each in one_by_one(consumer, producer)] == [None, None]

    async def one_by_one(consumer, producer):
        for _ in range(2):
            await producer.send(b"x")
            await consumer.recv()
            yield passes(0)

    run(main)
