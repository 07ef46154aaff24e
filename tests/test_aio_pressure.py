"""In a loop: what may pile up and what may not, and what comes between a look and the asking to be rung."""

import asyncio

import pytest
from aio_ends import asleep, dispatcher_of, passes, run, serving

import tachyon
from tachyon import aio

echo = tachyon.RpcEndpoint(1)


def test_a_message_that_comes_between_the_look_and_the_asking_is_found(apair):
    async def main():
        async with apair(4096) as (producer, consumer):

            def look():
                message = consumer.bus.try_recv()
                if message is None:
                    producer.bus.send(b"x", timeout=60)
                return message

            assert (await asyncio.wait_for(consumer._receive(look, None), 8)).data == b"x"

    run(main)


def test_room_that_comes_between_the_look_and_the_asking_is_found(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            while producer.try_send(bytes(1000), 1):
                pass

            def look():
                done = producer.bus.try_send(bytes(1000), 2) or None
                while done is None and consumer.bus.try_recv() is not None:
                    pass
                return done

            assert await asyncio.wait_for(producer._stand_in_line(look, None, TimeoutError), 8)
            assert (await consumer.recv()).type_id == 2

    run(main)


def test_replies_are_taken_out_while_a_call_waits_for_room(arpc):
    """Else a callee that waits for room for them would never come to the calls."""

    async def main():
        async with arpc(1024, 1024) as (caller, callee):
            early = [await caller.call(bytes(150), 1) for _ in range(4)]
            for _ in early:
                (await callee.serve()).release()  # to be answered later
            late = [await caller.call(bytes(150), 1) for _ in range(4)]
            calling = asyncio.ensure_future(caller.call(bytes(900), 1))
            await asleep(caller)
            await passes()
            for each in early:
                await callee.reply(each, bytes(600))
            for each in late:
                (await callee.serve()).release()
                await callee.reply(each, b"late")
            (await callee.serve()).release()
            last = await calling
            await callee.reply(last, b"last")
            for each in (*early, *late, last):
                (await caller.wait(each)).release()

    run(main)


def test_of_calls_whose_handlers_may_not_begin_one_of_each_caller_is_taken(path):
    async def main():
        go = asyncio.Event()

        async def handler(request):
            await go.wait()
            return request

        async with serving(path, dispatcher_of(_1=handler), max_concurrent=2) as server:
            async with await aio.RpcBus.connect(path, timeout=60) as one:
                calls = [asyncio.ensure_future(echo.acall(one, b"%d" % n)) for n in range(20)]
                while server.stats()["served"] < 3:
                    await passes(1)
                await asyncio.sleep(0.05)
                assert server.stats()["served"] == 3
                assert echo_count(one) == 20
                go.set()
                assert await asyncio.gather(*calls) == [b"%d" % n for n in range(20)]

    run(main)


def echo_count(bus):
    return bus.bus.stats()["calls"]["messages"]


@pytest.mark.parametrize("waits", [False, True], ids=["a function", "a coroutine"])
def test_no_more_calls_are_taken_of_a_caller_that_reads_no_answers(path, waits):
    async def later(request):
        await asyncio.sleep(0)
        return bytes(request)

    async def main():
        handler = later if waits else lambda request: request
        async with serving(path, dispatcher_of(_1=handler), cap_fwd=1 << 16, cap_rev=4096) as server:
            async with await aio.RpcBus.connect(path, timeout=60) as deaf:
                sent = [deaf.bus.call(bytes(500), 1, timeout=60) for _ in range(100)]
                before = -1
                while (served := server.stats()["served"]) != before:
                    before = served
                    await asyncio.sleep(0.05)
                assert served < 100 - 64  # 7 answers fit, and what runs at once by then
                for each in sent:
                    (await deaf.wait(each, timeout=60)).release()
                assert server.stats()["served"] == 100

    run(main)


def test_a_stop_waits_for_handlers_that_run_as_long_as_they_take(path, monkeypatch):
    monkeypatch.setattr("tachyon.aio._server._LAST_WORDS", 0.01)

    async def main():
        go = asyncio.Event()

        async def handler(request):
            await go.wait()
            return request

        async with aio.RpcServer(path, dispatcher_of(_1=handler)) as server:
            task = asyncio.ensure_future(server.serve_forever())
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                calling = asyncio.ensure_future(echo.acall(bus, b"x"))
                while server.stats()["running"] == 0:
                    await passes(1)
                server.stop()
                await asyncio.sleep(0.2)
                assert not task.done()
                go.set()
                await task
                assert await calling == b"x"

    run(main)
