"""Messages that do not fit the ring, in an event loop: there and back, cancelled, and a peer that is killed."""

import asyncio
import random

import pytest
from aio_ends import asleep, awaits_reply, dispatcher_of, passes, run, serving
from large_messages import MOST, descriptors, parcel_files, parcels, pattern
from test_aio_cancel import cut_short, take_batch, take_in_place

import tachyon
from tachyon import BusFullError, PeerDeadError, aio

SIZES = [10, 4081, 30, 65_536, 200_000]
CANCELS = 1000


async def send_in_place(bus, data):
    async with bus.send_zero_copy(len(data) + 10) as guard:
        with memoryview(guard) as room:
            room[: len(data)] = data
        guard.actual_size = len(data)


async def take_into(bus):
    buffer = bytearray(300_000)
    size, _ = await bus.recv_into(buffer)
    return [bytes(buffer[:size])]


SEND = {
    "send": lambda bus, data: bus.send(data),
    "send_many": lambda bus, data: bus.send_many(iter([data])),
    "in place": send_in_place,
}


async def take(bus):
    return [(await bus.recv()).data]


async def take_next(bus):
    return [(await anext(bus)).data]


RECEIVE = {"recv": take, "iteration": take_next, "in place": take_in_place, "into": take_into, "batch": take_batch}


@pytest.mark.parametrize("receive", RECEIVE)
@pytest.mark.parametrize("send", SEND)
def test_they_go_through_in_every_way_in_order_whoever_waits(apair, send, receive):
    async def main():
        async with apair(4096) as (producer, consumer):
            sent = [pattern(size, i) for i in range(8) for size in SIZES]

            async def produce():
                for i, data in enumerate(sent):
                    await SEND[send](producer, data)
                    if i % 7 == 0:
                        await asleep(consumer)  # who receives has to be woken

            producing = asyncio.ensure_future(produce())
            got = []
            while len(got) < len(sent):
                got += await RECEIVE[receive](consumer)
            await producing
            assert got == sent
            assert (parcel_files(), parcels()) == (0, 0)

    run(main)


def test_a_sender_waits_until_one_is_let_go_of_and_one_that_is_cancelled_sends_none(apair):
    async def main():
        async with apair(4096) as (producer, consumer):
            for i in range(MOST):
                await producer.send(bytes(5000), i)
            assert not producer.try_send(bytes(5000))
            with pytest.raises(BusFullError):
                await producer.send(bytes(5000), timeout=0.01)
            given_up = asyncio.ensure_future(producer.send(bytes(5000), 1000))
            in_place = asyncio.ensure_future(send_in_place(producer, bytes(5000)))
            waiting = asyncio.ensure_future(producer.send(bytes(5000), MOST))
            await asleep(producer)
            given_up.cancel()
            in_place.cancel()
            await asyncio.wait([given_up, in_place])
            assert given_up.cancelled() and in_place.cancelled() and not waiting.done()
            assert [(await consumer.recv()).type_id for _ in range(MOST + 1)] == list(range(MOST + 1))
            await waiting
            assert consumer.try_recv() is None
            assert (parcel_files(), parcels()) == (0, 0)

    run(main)


def test_receivers_that_are_cancelled_lose_none(spawn, path):
    child = spawn(
        """
        import random
        chance = random.Random(1)
        with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
            n = 0
            try:
                while True:
                    bus.send(n.to_bytes(8, "big") + bytes(chance.choice((0, 5000, 20000))))
                    n += 1
                    if chance.random() < 0.3: time.sleep(chance.random() * 0.0003)
            except tachyon.PeerClosedError:
                pass
        """,
        path,
    )

    async def main():
        chance = random.Random(2)
        async with await aio.Bus.connect(path, timeout=60) as bus:
            expected = cancelled = 0
            while cancelled < CANCELS:
                done, got = await cut_short(chance.choice(list(RECEIVE.values()))(bus), chance)
                cancelled += not done
                for data in got if done else ():
                    assert int.from_bytes(data[:8], "big") == expected
                    expected += 1
            assert expected > 0
            assert parcels() == 0
            assert parcel_files() <= MOST  # of what has come and was not taken

    there = descriptors()
    run(main)
    assert (descriptors(), parcels()) == (there, 0)
    child.ends()


def test_senders_that_are_cancelled_have_sent_none(spawn, path):
    child = spawn(
        """
        import random
        chance = random.Random(1)
        with tachyon.Bus.connect(path, timeout=60) as bus:
            n = 0
            for message in bus:
                if int.from_bytes(message.data[:8], "big") != n: sys.exit(f"{message.size} bytes after {n - 1}")
                n += 1
                if chance.random() < 0.5: time.sleep(chance.random() * 0.0005)
        say(n)
        """,
        path,
    )
    counted = []

    async def main():
        chance = random.Random(2)
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            sent = cancelled = 0
            while cancelled < CANCELS:
                data = sent.to_bytes(8, "big") + bytes(chance.choice((0, 5000, 20000)))
                done, _ = await cut_short(chance.choice((bus.send, send_in_place_on(bus)))(data), chance)
                sent += done
                cancelled += not done
            assert (parcel_files(), parcels()) == (0, 0)
            await bus.finish()
            counted.append(sent)

    run(main)
    child.says(str(counted[0]))
    child.ends()


def send_in_place_on(bus):
    return lambda data: send_in_place(bus, data)


# ---- calls -----------------------------------------------------------------------------------------------------------


def test_calls_and_answers_larger_than_their_rings_go_many_at_once(path):
    async def double(request):
        await asyncio.sleep(0)
        return bytes(request) * 2

    async def main():
        there = descriptors()
        echo = tachyon.RpcEndpoint(1)
        async with serving(path, dispatcher_of(_1=double), cap_fwd=4096, cap_rev=4096):
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                datas = [pattern(size, i) for i in range(10) for size in SIZES]
                answers = await asyncio.gather(*(echo.acall(bus, data, timeout=60) for data in datas))
                assert answers == [data * 2 for data in datas]
                assert (await bus.request(datas[-1], 1)).data == datas[-1] * 2
        await passes()
        assert (descriptors(), parcels()) == (there, 0)

    run(main)


def test_calls_that_are_cancelled_cost_neither_the_others_nor_a_descriptor(arpc):
    async def main():
        async with arpc(4096, 4096) as (caller, callee):

            async def answer():
                async with callee:
                    while True:
                        try:
                            async with (
                                callee.serve() as call,
                                callee.reply_zero_copy(call.correlation_id, len(call)) as tx,
                            ):
                                with memoryview(tx) as room:
                                    room[:] = bytes(call)
                        except tachyon.PeerClosedError:
                            return

            answering = asyncio.ensure_future(answer())
            chance = random.Random(3)
            echo = tachyon.RpcEndpoint(1)
            answered = cancelled = 0
            while cancelled < CANCELS // 4:
                data = pattern(chance.choice((10, 5000, 20_000)), chance.randrange(100))
                done, got = await cut_short(echo.acall(caller, data), chance)
                assert not done or got == data
                answered += done
                cancelled += not done
            assert await echo.acall(caller, pattern(50_000), timeout=60) == pattern(50_000)
            await passes()
            assert answered > 0
            assert (caller.stats()["in_flight"], parcels(), parcel_files()) == (0, 0, 0)
            caller.close()
            await answering

    run(main)


def test_a_wait_that_is_cancelled_leaves_the_answer_to_the_next(arpc):
    async def main():
        async with arpc(4096, 4096) as (caller, callee):
            first = await caller.call(pattern(5000), 1)
            waiting = asyncio.ensure_future(caller.wait(first).__aenter__())
            await awaits_reply(caller)
            async with callee.serve() as call:
                waiting.cancel()
                await asyncio.wait([waiting])
                await callee.reply(call.correlation_id, bytes(call) * 2)
            async with caller.wait(first) as reply:
                assert bytes(reply) == pattern(5000) * 2
            assert parcels() == 0

    run(main)


# ---- a peer that is killed -------------------------------------------------------------------------------------------


def test_what_a_killed_peer_had_sent_arrives_before_its_death(spawn, path):
    child = spawn(
        """
        bus = tachyon.Bus.connect(path, timeout=60)
        for i in range(10): bus.send(bytes([i]) * 5000)
        say("sent")
        hear()
        """,
        path,
    )

    async def main():
        there = descriptors()
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            guard = await bus.recv_zero_copy()  # in hand meanwhile
            await asyncio.to_thread(child.says, "sent")
            child.kill()
            assert [(await bus.recv()).data for _ in range(9)] == [bytes([i]) * 5000 for i in range(1, 10)]
            with pytest.raises(PeerDeadError):
                await bus.recv()
            assert bytes(guard) == bytes(5000)
            guard.release()
        await passes()
        assert (descriptors(), parcels()) == (there, 0)

    run(main)


def test_a_receiver_that_is_killed_ends_a_wait_for_room_and_leaves_nothing(spawn, path):
    child = spawn(
        """
        bus = tachyon.Bus.connect(path, timeout=60)
        held = [bus.recv_zero_copy() for _ in range(3)]
        say("holds")
        hear()
        """,
        path,
    )

    async def main():
        there = descriptors()
        async with await aio.Bus.listen(path, 4096, timeout=60) as bus:
            for _ in range(MOST):
                await bus.send(bytes(5000))
            waiting = asyncio.gather(bus.send(bytes(5000)), send_in_place(bus, bytes(5000)), return_exceptions=True)
            await asyncio.to_thread(child.says, "holds")
            await asleep(bus)
            child.kill()
            assert [type(each) for each in await waiting] == [PeerDeadError] * 2
            assert parcel_files() == 0
        await passes()
        assert (descriptors(), parcels()) == (there, 0)

    run(main)


@pytest.mark.parametrize("size", [5000, 100])
def test_a_callee_that_is_killed_fails_the_calls_in_flight(spawn, path, size):
    child = spawn(
        """
        bus = tachyon.RpcBus.listen(path, 4096, 4096, timeout=60)
        with bus.serve() as call: bus.reply(call.correlation_id, bytes(call) * 2)
        held = bus.serve()
        say("holds")
        hear()
        """,
        path,
    )

    async def main():
        there = descriptors()
        echo = tachyon.RpcEndpoint(1)
        async with await aio.RpcBus.connect(path, timeout=60) as bus:
            assert await echo.acall(bus, pattern(size), timeout=60) == pattern(size) * 2
            calls = [asyncio.ensure_future(echo.acall(bus, bytes(size))) for _ in range(MOST)]
            await asyncio.to_thread(child.says, "holds")
            child.kill()
            for each in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(each, PeerDeadError)
        await passes()
        assert (descriptors(), parcels()) == (there, 0)

    run(main)
