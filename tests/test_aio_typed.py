"""Arrays and objects on a bus in an event loop."""

import asyncio

import numpy as np
import pytest
from aio_ends import asleep, run

from tachyon import BusEmptyError, BusFullError, CodecError, tachyon_rpc

pytest.importorskip("msgspec")


def test_arrays_go_through_a_loop(apair):
    async def main():
        async with apair() as (producer, consumer):
            taking = asyncio.ensure_future(consumer.recv_array(timeout=30))
            await asleep(consumer)
            await producer.send_array(np.arange(6, dtype="f4").reshape(2, 3), 7)
            assert (await taking).tolist() == [[0, 1, 2], [3, 4, 5]]
            with await producer.send_array_zero_copy((4,), "i8") as a:
                a[:] = 5
            with await consumer.recv_array_zero_copy(timeout=30) as a:
                assert a.tolist() == [5, 5, 5, 5]
            out = np.zeros(3, "u1")
            await producer.send_array(np.array([1, 2, 3], "u1"))
            await consumer.recv_array(out, timeout=30)
            assert out.tolist() == [1, 2, 3]
            with pytest.raises(BusEmptyError):
                await consumer.recv_array(timeout=0)

    run(main)


def test_objects_go_through_a_loop_and_none_is_one(apair):
    async def main():
        async with apair() as (producer, consumer):
            for o in ({"a": [1, 2.5, None]}, None, "text"):
                await producer.send_obj(o)
            assert await consumer.recv_obj(timeout=30) == {"a": [1, 2.5, None]}
            assert await consumer.recv_obj(timeout=30) is None
            with pytest.raises(CodecError):
                await consumer.recv_obj(type=int, timeout=30)
            taking = asyncio.ensure_future(consumer.recv_obj(allow_pickle=True))
            await asleep(consumer)
            await producer.send_obj({1, 2}, allow_pickle=True)
            assert await taking == {1, 2}

    run(main)


def test_room_for_an_array_is_waited_for(apair):
    async def main():
        async with apair(1 << 12) as (producer, consumer):
            await producer.send_array(np.zeros(3000, "u1"))
            with pytest.raises(BusFullError, match="no room for an array of"):
                await producer.send_array_zero_copy((3000,), "u1", timeout=0.01)
            claiming = asyncio.ensure_future(producer.send_array_zero_copy((3000,), "u1"))
            await asleep(producer)
            await consumer.recv_array(timeout=30)
            with await claiming as a:
                a[:] = 9
            assert (await consumer.recv_array(timeout=30)).sum() == 27000

    run(main)


def test_objects_are_called_with_in_a_loop(arpc):
    @tachyon_rpc(msg_type=3, codec=(lambda o: repr(o).encode(), lambda data: eval(bytes(data))))
    def double(numbers):
        return [2 * each for each in numbers]

    async def main():
        async with arpc() as (caller, callee):
            calling = asyncio.ensure_future(double.acall(caller, [1, 2], timeout=30))
            with await callee.serve(timeout=30) as call:
                answer = double.handler(memoryview(call))
                callee_id = call.correlation_id
            await callee.reply(callee_id, answer, 3)
            assert await calling == [2, 4]

    run(main)
