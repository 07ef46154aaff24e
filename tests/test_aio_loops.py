"""Other loops than asyncio's: uvloop through tachyon.aio; a sender in trio. Receivers: test_docs_asyncio.py."""

import asyncio
import os
import signal

import pytest
from aio_ends import asleep

import tachyon
from tachyon import aio

CHILD = """
with tachyon.Bus.connect(path, timeout=30) as bus:
    for n in range(500):
        bus.send(b"%d" % n)
        if n % 50 == 0: time.sleep(0.005)
"""


def test_uvloop(spawn, path):
    uvloop = pytest.importorskip("uvloop")
    child = spawn(CHILD, path)
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    before = len(os.listdir("/proc/self/fd"))  # the first loop of a process keeps some

    async def main():
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            assert [message.data async for message in bus] == [b"%d" % n for n in range(500)]

    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.wait_for(main(), 60))
    loop.close()
    child.ends()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_uvloop_waits_for_room_closes_makes_calls_and_is_closed_under_an_open_bus(pair, rpc):
    uvloop = pytest.importorskip("uvloop")
    producer, consumer = map(aio.Bus, pair(4096))
    caller, callee = map(aio.RpcBus, rpc())
    echo = tachyon.RpcEndpoint(1)

    async def main():
        sending = asyncio.ensure_future(producer.send_many([bytes(100)] * 500))
        await asleep(producer)
        for _ in range(500):
            await consumer.recv()
        assert await sending == 500
        receiving = asyncio.ensure_future(consumer.recv())
        await asleep(consumer)
        receiving.cancel()
        calls = [asyncio.ensure_future(echo.acall(caller, b"%d" % n)) for n in range(50)]
        for _ in range(50):
            async with callee.serve() as call:
                await callee.reply(call.correlation_id, call)
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(50)]
        for _ in range(50):  # numbers of descriptors come round again
            caller.close()
            await asyncio.sleep(0)

    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.wait_for(main(), 60))
    loop.close()
    for bus in (producer, consumer, callee):
        bus.close()
        assert bus.bus.closed


def test_uvloop_sees_a_killed_peer(spawn, path):
    uvloop = pytest.importorskip("uvloop")
    child = spawn("bus = tachyon.Bus.connect(path, timeout=30); hear()", path)

    async def main():
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            receiving = asyncio.ensure_future(bus.recv())
            await asleep(bus)
            os.kill(child.pid, signal.SIGKILL)
            with pytest.raises(tachyon.PeerDeadError):
                await receiving

    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.wait_for(main(), 60))
    loop.close()


def test_trio_waits_for_room_and_a_cancelled_wait_takes_nothing(pair):
    trio = pytest.importorskip("trio")
    producer, consumer = pair(4096)

    async def send(data):
        while not producer.try_send(data):
            if producer.arm(for_writing=True):
                await trio.lowlevel.wait_readable(producer.fileno())
                producer.disarm()

    async def main():
        with trio.fail_after(60):
            while producer.try_send(bytes(1000)):
                pass
            with trio.move_on_after(0.02) as scope:
                await send(b"cancelled" * 100)
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, b"sent" * 250)
                await trio.sleep(0.02)
                consumer.recv()
            last = None
            while (message := consumer.try_recv()) is not None:
                last = message
            assert last.data == b"sent" * 250

    trio.run(main)
