"""Cancellation, at every await: nothing is lost, and nothing is sent twice. The peer, a process, counts.

TACHYON_CANCELS says how many there shall be of each kind; --long: 100,000.
"""

import asyncio
import os
import random
import sys
import time

import pytest
from aio_ends import asleep, awaits_reply, passes, run

import tachyon
from tachyon import aio


@pytest.fixture
def cancels(request):
    return int(os.environ.get("TACHYON_CANCELS", 100_000 if request.config.getoption("--long") else 2_000))


async def cut_short(work, chance, scale=1):
    """Run a coroutine and cancel it after some passes of the loop, or some time. (done, result)."""
    task = asyncio.ensure_future(work)
    way = chance.random()
    if way < 0.6:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
    elif way < 0.8:
        until = time.perf_counter() + chance.random() * 2e-4 * scale
        while time.perf_counter() < until and not task.done():
            await asyncio.sleep(0)
    elif way < 0.9 and sys.version_info >= (3, 12):  # before, wait_for is a task of its own, with its own ways
        try:
            return True, await asyncio.wait_for(task, chance.random() * 2e-4)
        except asyncio.TimeoutError:
            return False, None
    else:
        await asyncio.sleep(chance.random() * 5e-4 * scale)
    task.cancel()
    try:
        return True, await task
    except asyncio.CancelledError:
        return False, None


def of_a_test(main):
    """Run it for longer than others may take."""

    async def watched():
        await asyncio.wait_for(main(), 3000)

    asyncio.run(watched())


@pytest.mark.timeout(3600)
def test_receivers_that_are_cancelled_lose_nothing(spawn, path, cancels):
    child = spawn(
        """
        import random
        chance = random.Random(1)
        with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
            n = 0
            try:
                while True:
                    bus.send(n.to_bytes(8, "big"))
                    n += 1
                    if chance.random() < 0.3: time.sleep(chance.random() * 0.0003)
            except tachyon.PeerClosedError:
                pass
        """,
        path,
    )

    async def main():
        chance = random.Random(2)
        ways = (
            lambda: bus.recv(),
            lambda: anext(bus),
            lambda: bus.recv(timeout=chance.random() * 3e-4),
            lambda: take_in_place(bus),
            lambda: take_into(bus),
            lambda: take_batch(bus),
        )
        async with await aio.Bus.connect(path, timeout=60) as bus:
            expected = cancelled = 0
            while cancelled < cancels:
                try:
                    done, got = await cut_short(chance.choice(ways)(), chance)
                except tachyon.BusEmptyError:
                    continue
                cancelled += not done
                for data in (got if isinstance(got, list) else [got.data]) if done else ():
                    assert int.from_bytes(data, "big") == expected
                    expected += 1
            assert expected > 0

    of_a_test(main)
    child.ends()


async def take_in_place(bus):
    with await bus.recv_zero_copy() as guard:
        return [bytes(guard)]


async def take_into(bus):
    buffer = bytearray(8)
    await bus.recv_into(buffer)
    return [buffer]


async def take_batch(bus):
    with await bus.drain_batch(5) as batch:
        return [bytes(view) for view in batch]


@pytest.mark.timeout(3600)
def test_senders_that_are_cancelled_have_sent_nothing(spawn, path, cancels):
    child = spawn(
        """
        import random
        chance = random.Random(1)
        with tachyon.Bus.connect(path, timeout=60) as bus:
            n = 0
            for message in bus:
                if int.from_bytes(message.data[:8], "big") != n: sys.exit(f"{message} after {n - 1}")
                n += 1
                if chance.random() < 0.5: time.sleep(chance.random() * 0.0005)
        say(n)
        """,
        path,
    )

    async def main():
        chance = random.Random(2)
        async with await aio.Bus.listen(path, 1024, timeout=60) as bus:

            def way(n):
                data = n.to_bytes(8, "big") + bytes(chance.randrange(500))
                which = chance.randrange(3)
                if which == 0:
                    return bus.send(data)
                if which == 1:
                    return bus.send(data, timeout=chance.random() * 3e-4)
                return send_in_place(bus, data)

            sent = cancelled = 0
            while cancelled < cancels:
                try:
                    done, _ = await cut_short(way(sent), chance)
                except tachyon.BusFullError:
                    continue
                sent += done
                cancelled += not done
            await bus.finish()
            return sent

    counted = []

    async def count():
        counted.append(await main())

    of_a_test(count)
    child.says(str(counted[0]))
    child.ends()


async def send_in_place(bus, data):
    with await bus.send_zero_copy(len(data)) as guard, memoryview(guard) as room:
        room[:] = data


@pytest.mark.timeout(3600)
def test_calls_that_are_cancelled_are_given_up_and_no_others(spawn, path, cancels):
    child = spawn(
        """
        import random
        chance = random.Random(1)
        dispatcher = tachyon.RpcDispatcher()
        @dispatcher.handler(1)
        def echo(request):
            if chance.random() < 0.5: time.sleep(chance.random() * 0.0004)
            return request
        with tachyon.RpcBus.listen(path, 4096, 4096, timeout=60) as bus:
            dispatcher.serve_forever(bus)
        """,
        path,
    )
    echo = tachyon.RpcEndpoint(1)

    async def main():
        counts = {"cancelled": 0, "answered": 0}

        async def call(seed):
            chance = random.Random(seed)
            while counts["cancelled"] < cancels:
                payload = b"%d:%d" % (seed, chance.randrange(1 << 30)) + bytes(chance.randrange(300))
                done, answer = await cut_short(echo.acall(bus, payload), chance, chance.choice((1, 50)))
                if done:
                    assert answer == payload
                counts["answered" if done else "cancelled"] += 1

        async def wait(chance):
            while counts["cancelled"] < cancels:
                payload = b"%d" % chance.randrange(1 << 30)
                correlation_id = await bus.call(payload, 1)
                while True:  # a wait that is cancelled leaves the reply to the next
                    done, guard = await cut_short(take_reply(bus, correlation_id), chance)
                    if done:
                        break
                assert guard == payload

        async with await aio.RpcBus.connect(path, timeout=60) as bus:
            await asyncio.gather(*(call(seed) for seed in range(4)), wait(random.Random(9)))
            for n in range(200):
                assert await echo.acall(bus, b"%d" % n, timeout=60) == b"%d" % n
            assert counts["answered"] > 0
            stats = bus.stats()  # all calls of before those have been answered too
            assert (stats["in_flight"], stats["set_aside"]) == (0, 0)

    of_a_test(main)
    child.ends()


async def take_reply(bus, correlation_id):
    with await bus.wait(correlation_id) as guard:
        return bytes(guard)


def test_who_is_cancelled_in_the_moment_it_is_woken_has_taken_nothing(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            receiving = asyncio.ensure_future(consumer.recv())
            await asleep(consumer)
            producer.try_send(b"x")
            consumer._on_ring()  # woken; it has not run yet
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            assert (await consumer.recv(timeout=0)).data == b"x"
            while producer.try_send(bytes(1000)):
                pass
            sending = asyncio.ensure_future(producer.send(bytes(1000), 7))
            await asleep(producer)
            await consumer.recv()
            producer._on_ring()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            kinds = []
            while (message := consumer.try_recv()) is not None:
                kinds.append(message.type_id)
            assert 7 not in kinds

    run(main)


def test_a_reply_that_came_just_before_its_waiter_was_cancelled_is_still_there(arpc):
    async def main():
        async with arpc() as (caller, callee):
            first = await caller.call(b"x", 1)
            waiting = asyncio.ensure_future(take_reply(caller, first))
            requesting = asyncio.ensure_future(caller.request(b"y", 1))
            await awaits_reply(caller)
            for _ in range(2):
                async with callee.serve() as call:
                    await callee.reply(call.correlation_id, bytes(call) + b"!")
            while caller._wanted or caller._watched:
                await passes(1)
                if not (caller._wanted or caller._watched):
                    break
            waiting.cancel()
            requesting.cancel()
            await asyncio.wait([waiting, requesting])
            if waiting.cancelled():
                assert await take_reply(caller, first) == b"x!"
            assert caller.stats()["in_flight"] == 0

    run(main)


def test_a_reply_that_comes_between_a_cancellation_and_its_task_goes_to_nobody_else(arpc):
    async def main():
        async with arpc() as (caller, callee):
            first = await caller.call(b"x", 1)
            waiting = asyncio.ensure_future(take_reply(caller, first))
            requesting = asyncio.ensure_future(caller.request(b"y", 1))
            other = asyncio.ensure_future(caller.request(b"z", 1))
            while len(caller._wanted) + len(caller._watched) < 3:
                await passes(1)
            for _ in range(3):
                with callee.bus.serve(timeout=60) as call:
                    callee.bus.reply(call.correlation_id, bytes(call) + b"!")
            waiting.cancel()
            requesting.cancel()
            caller._look()  # before those two have had their turn
            assert (await other).data == b"z!"
            await asyncio.wait([waiting, requesting])
            assert waiting.cancelled() and requesting.cancelled()
            assert await take_reply(caller, first) == b"x!"
            stats = caller.stats()
            assert (stats["in_flight"], stats["set_aside"]) == (0, 0)

    run(main)


def test_a_batch_of_sends_that_is_cancelled_has_sent_its_beginning_once(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            sending = asyncio.ensure_future(producer.send_many([b"%d" % n for n in range(1000)]))
            await asleep(producer)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            sent = producer.stats()["messages"]
            assert 0 < sent < 1000
            got = []
            while (message := consumer.try_recv()) is not None:
                got.append(message.data)
            assert got == [b"%d" % n for n in range(sent)]

    run(main)


def test_listen_connect_and_accept_can_be_cancelled_and_leave_nothing_behind(path):
    async def main():
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            for opening in (aio.Bus.listen(path, 4096), aio.RpcBus.listen(path), aio.Bus.connect(path, timeout=None)):
                task = asyncio.ensure_future(opening)
                await asyncio.sleep(0.02)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not os.path.exists(path)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(aio.Bus.listen(path, 4096), 0.02)
        listening = asyncio.ensure_future(aio.Bus.listen(path, 4096, timeout=60))
        async with await aio.Bus.connect(path, timeout=60) as bus, await listening:
            await bus.send(b"x")
        await passes()
        assert len(os.listdir("/proc/self/fd")) == before
        with pytest.raises(tachyon.HandshakeError):
            await aio.Bus.connect(path)
        with pytest.raises(tachyon.TachyonTimeoutError):
            await aio.Bus.listen(path, 4096, timeout=0.02)

    run(main)


@pytest.mark.parametrize("capacity", [4096, 8 << 20])
def test_an_accept_that_is_cancelled_loses_no_peer(path, capacity):
    async def main():
        chance = random.Random(5)
        async with aio.Listener(path, capacity) as listener:
            connecting = [asyncio.ensure_future(aio.Bus.connect(path, timeout=60)) for _ in range(8)]
            accepted = []
            while len(accepted) < 8:
                done, bus = await cut_short(listener.accept(), chance)
                if done:
                    accepted.append(bus)
            peers = await asyncio.gather(*connecting)
            for peer in peers:
                await peer.send(b"x")
                peer.close()
            for bus in accepted:
                assert (await bus.recv()).data == b"x"
                bus.close()
            with pytest.raises(tachyon.TachyonTimeoutError):
                await listener.accept(timeout=0.01)
            assert listener.try_accept() is None

    run(main)
