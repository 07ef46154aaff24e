"""tachyon.aio.RpcBus and RpcServer."""

import asyncio
import logging
import os
import sys

import pytest
from aio_ends import asleep, dispatcher_of, passes, run, serving

import tachyon
from tachyon import (
    MSG_TYPE_ERROR,
    BusBusyError,
    BusClosedError,
    BusEmptyError,
    BusFullError,
    PeerClosedError,
    RpcError,
    aio,
)

echo, slow, fail = tachyon.RpcEndpoint(1), tachyon.RpcEndpoint(2), tachyon.RpcEndpoint(3)


async def raises(request):
    raise ValueError("no " + bytes(request).decode())


async def sleeps(request):
    await asyncio.sleep(float(bytes(request)))
    return request


def test_calls_are_made_served_and_answered_one_by_one(arpc):
    async def main():
        async with arpc() as (caller, callee):
            first, second = await caller.call(b"a", 7), await caller.call(b"b", 8)
            for wanted in (7, 8):
                async with callee.serve() as call:
                    assert call.type_id == wanted
            async with callee.reply_zero_copy(second, 1, 9) as guard:
                with memoryview(guard) as room:
                    room[:] = b"B"
            await callee.reply(first, b"A")
            async with caller.wait(first) as reply:
                assert bytes(reply) == b"A"
            async with caller.wait(second) as reply:
                assert (bytes(reply), reply.type_id) == (b"B", 9)
            async with caller.call_zero_copy(3, 7) as guard:
                with memoryview(guard) as room:
                    room[:] = b"abc"
            waiting = asyncio.ensure_future(caller.wait(guard.correlation_id))
            await passes()
            with pytest.raises(BusBusyError, match="another task"):
                await caller.wait(guard.correlation_id)
            async with callee.serve() as call:
                await callee.reply(call.correlation_id, call)
            with await waiting as reply:
                assert bytes(reply) == b"abc"
            with pytest.raises(ValueError, match="no such call"):
                await caller.wait(first)
            with pytest.raises(ValueError, match="no call"):
                await callee.reply(first, b"again")
            with pytest.raises(BusBusyError):
                await callee.call(b"", 1)
            assert caller.max_request_size == callee.max_request_size and caller.max_reply_size > 0
            assert caller.peer_pid == os.getpid() and "aio.RpcBus" in repr(caller)

    run(main)


def test_any_number_of_calls_may_be_in_flight_and_be_answered_in_any_order(arpc):
    async def main():
        async with arpc(4096, 4096) as (caller, callee):

            async def serve():
                held = []
                for n in range(2000):
                    with await callee.serve() as call:
                        held.append((call.correlation_id, bytes(call)))
                    if len(held) == 10 or n == 1999:
                        for correlation_id, data in reversed(held):
                            await callee.reply(correlation_id, data * 2)
                        held.clear()

            serving = asyncio.ensure_future(serve())
            answers = await asyncio.gather(*(echo.acall(caller, b"%d" % n) for n in range(2000)))
            assert answers == [b"%d" % n * 2 for n in range(2000)]
            await serving
            assert await asyncio.gather(*(caller.call(b"", 1) for _ in range(3))) == [2001, 2002, 2003]

    run(main)


def test_a_call_out_of_time_is_given_up_and_a_reply_out_of_time_is_not(arpc):
    async def main():
        async with arpc(4096, 4096) as (caller, callee):
            with pytest.raises(BusEmptyError):
                await echo.acall(caller, b"x", timeout=0.01)
            assert caller.stats()["in_flight"] == 0
            second = await caller.call(b"y", 1)
            for timeout in (0, 0.01):
                with pytest.raises(BusEmptyError):
                    await caller.wait(second, timeout=timeout)
            for _ in range(2):
                async with callee.serve() as call:
                    await callee.reply(call.correlation_id, call)
            async with caller.wait(second) as reply:
                assert bytes(reply) == b"y"
            with pytest.raises(BusEmptyError):
                await callee.serve(timeout=0.01)
            with pytest.raises(BusFullError):
                for _ in range(10):
                    await caller.call(bytes(1000), 1, timeout=0.01)
            assert caller.cancel(3) and not caller.cancel(1)
            task = asyncio.ensure_future(callee.serve(timeout=60))
            await passes(1)
            with await task as call:
                assert call.correlation_id == 3

    run(main)


def test_a_caller_whose_replies_fill_the_ring_still_gets_its_calls_through(arpc):
    """A callee that waits for room for its replies does not come to the calls."""

    async def main():
        async with arpc(1024, 1024) as (caller, callee):

            async def serve():
                for _ in range(300):
                    with await callee.serve() as call:
                        await callee.reply(call.correlation_id, call)

            serving = asyncio.ensure_future(serve())
            ids = [await caller.call(bytes(200), 1) for _ in range(300)]
            for each in ids:
                (await caller.wait(each)).release()
            await serving

    run(main)


def test_the_end_of_a_callee_ends_calls_and_their_replies_come_first(arpc):
    async def main():
        async with arpc() as (caller, callee):
            requests = [asyncio.ensure_future(caller.request(b"x", 1)) for _ in range(3)]
            async with callee.serve() as call:
                await callee.reply(call.correlation_id, b"y", MSG_TYPE_ERROR)
            callee.close()
            assert (await requests[0]).type_id == MSG_TYPE_ERROR
            for request in requests[1:]:
                with pytest.raises(PeerClosedError):
                    await request
            waiting = asyncio.ensure_future(caller.request(b"x", 1))
            with pytest.raises(PeerClosedError):
                await waiting
        async with arpc() as (caller, callee):
            request, wait = asyncio.ensure_future(caller.request(b"x", 1)), asyncio.ensure_future(callee.serve())
            (await wait).release()
            serve = asyncio.ensure_future(callee.serve())
            await asleep(callee)
            caller.close()
            with pytest.raises(BusClosedError):
                await request
            with pytest.raises(PeerClosedError):
                await serve

    run(main)


# ---- the server ------------------------------------------------------------------------------------------------------


def test_a_server_serves_functions_and_coroutines_to_many_callers(path, spawn):
    children = [
        spawn(
            """
            with tachyon.RpcBus.connect(path, timeout=30) as bus:
                for n in range(200):
                    for kind in (1, 2):
                        assert tachyon.RpcEndpoint(kind).call(bus, b"0.000%d" % n) == b"0.000%d" % n
            """,
            path,
        )
        for _ in range(3)
    ]

    async def main():
        async with serving(path, dispatcher_of(_1=lambda request: request, _2=sleeps)) as server:
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                answers = await asyncio.gather(*(slow.acall(bus, b"0.01") for _ in range(300)))
                assert answers == [b"0.01"] * 300
            while server.stats()["served"] < 1500:
                await asyncio.sleep(0.01)
            while server.stats()["callers"]:
                await asyncio.sleep(0.01)
            assert server.stats() | {"accepted": 4, "failed": 0, "running": 0} == server.stats()
        assert server.closed and not os.path.exists(path)

    run(main)
    for child in children:
        child.ends()


def test_no_more_handlers_run_at_once_than_were_asked_for(path):
    running = most = 0

    async def handler(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return request

    async def main():
        async with serving(path, dispatcher_of(_1=handler), max_concurrent=3):
            buses = [await aio.RpcBus.connect(path, timeout=60) for _ in range(3)]
            await asyncio.gather(*(echo.acall(bus, b"x") for bus in buses for _ in range(30)))
            assert most == 3
            for bus in buses:
                bus.close()

    run(main)
    with pytest.raises(ValueError, match="at least 1"):
        aio.RpcServer(path, dispatcher_of(), max_concurrent=0)
    with pytest.raises(TypeError, match="RpcDispatcher"):
        aio.RpcServer(path, {})


@pytest.mark.parametrize("handler", ["function", "coroutine"])
def test_whatever_a_handler_does_its_caller_is_answered(path, caplog, handler):
    outcomes = {b"none": None, b"text": "text", b"number": 5, b"large": bytes(5000)}

    def function(request):
        if bytes(request) == b"raise":
            raise ValueError("no")
        return outcomes.get(bytes(request), request)

    async def coroutine(request):
        await asyncio.sleep(0)
        return function(request)

    async def main():
        async with serving(
            path, dispatcher_of(_1=function if handler == "function" else coroutine), cap_rev=4096, max_large=0
        ):
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                for each in (*outcomes, b"raise"):
                    with pytest.raises(RpcError) as caught:
                        await echo.acall(bus, each)
                    assert caught.value.detail
                with pytest.raises(RpcError):
                    await slow.acall(bus, b"no such")
                assert await echo.acall(bus, b"fine") == b"fine"
                assert await echo.acall(bus, b"fine", lambda view: bytes(view).upper()) == b"FINE"

    with caplog.at_level(logging.CRITICAL, "tachyon"):
        run(main)


def test_a_caller_that_reads_no_answers_harms_no_other_one(path):
    async def main():
        async with serving(path, dispatcher_of(_1=lambda request: request, _2=sleeps), cap_rev=4096, max_concurrent=4):
            deaf = await aio.RpcBus.connect(path, timeout=60)
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                for kind in (1, 2):
                    for _ in range(200):
                        await deaf.call(b"0" + b" " * 500, kind, timeout=60) if deaf.bus.stats()["calls"][
                            "messages"
                        ] < 60 else None
                    assert await echo.acall(bus, b"x") == b"x"
                    assert await asyncio.gather(*(slow.acall(bus, b"0") for _ in range(20))) == [b"0"] * 20
            deaf.close()

    run(main)


def test_a_close_lets_handlers_finish_within_their_grace_and_tells_the_callers_of_the_rest(path):
    async def main():
        async with aio.RpcServer(path, dispatcher_of(_2=sleeps), grace=60) as server:
            task = asyncio.ensure_future(server.serve_forever())
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                quick = [asyncio.ensure_future(slow.acall(bus, b"0.05")) for _ in range(5)]
                while server.stats()["running"] < 5:
                    await asyncio.sleep(0)
                await server.close()
                assert [await each for each in quick] == [b"0.05"] * 5
                with pytest.raises(tachyon.HandshakeError):
                    await aio.RpcBus.connect(path)
                with pytest.raises(PeerClosedError):
                    await slow.acall(bus, b"0")
            await task
            await server.close()
            with pytest.raises(BusClosedError):
                await server.serve_forever()
        async with aio.RpcServer(path, dispatcher_of(_2=sleeps), grace=0.02) as server:
            task = asyncio.ensure_future(server.serve_forever())
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                long = asyncio.ensure_future(slow.acall(bus, b"1000"))
                while server.stats()["running"] < 1:
                    await asyncio.sleep(0)
                await server.close()
                with pytest.raises(RpcError):
                    await long
            await task

    run(main)


def test_stop_ends_serving_once_what_runs_has_ended_and_serving_may_go_on_later(path, run_thread):
    async def main():
        async with aio.RpcServer(path, dispatcher_of(_1=lambda request: request, _2=sleeps)) as server:
            task = asyncio.ensure_future(server.serve_forever())
            async with await aio.RpcBus.connect(path, timeout=60) as bus:
                for stop in (server.stop, lambda: run_thread(server.stop)):
                    call = asyncio.ensure_future(slow.acall(bus, b"0.05"))
                    while server.stats()["running"] < 1:
                        await asyncio.sleep(0)
                    with pytest.raises(BusBusyError):
                        await server.serve_forever()
                    stop()
                    await task
                    assert await call == b"0.05"
                    later = asyncio.ensure_future(echo.acall(bus, b"x"))
                    await asyncio.sleep(0.01)
                    assert not later.done()
                    task = asyncio.ensure_future(server.serve_forever())
                    assert await later == b"x"
                server.stop()
                await task
                server.stop()  # before it serves: not lost
                await server.serve_forever()

    run(main)


def test_a_handler_that_exits_ends_the_server_after_its_answer(path):
    async def leaves(request):
        sys.exit(7)

    async def main():
        for handler in (leaves, lambda request: sys.exit(7)):
            async with aio.RpcServer(path, dispatcher_of(_1=handler)) as server:
                task = asyncio.ensure_future(collect(server.serve_forever()))
                async with await aio.RpcBus.connect(path, timeout=60) as bus:
                    with pytest.raises(RpcError):
                        await echo.acall(bus, b"x")
                assert await task == 7

    async def collect(work):
        try:
            await work
        except SystemExit as leaving:
            return leaving.code
        return None

    run(main)


def test_a_caller_that_dies_or_a_cancelled_server_leaves_nothing_behind(path, spawn):
    child = spawn("bus = tachyon.RpcBus.connect(path, timeout=30); bus.call(b'0.05', 2); say('called'); hear()", path)

    async def main():
        before = len(os.listdir("/proc/self/fd"))
        async with aio.RpcServer(path, dispatcher_of(_2=sleeps)) as server:
            task = asyncio.ensure_future(server.serve_forever())
            await asyncio.get_running_loop().run_in_executor(None, child.says, "called")
            while server.stats()["running"] < 1:
                await asyncio.sleep(0.001)
            child.kill()
            while server.stats()["callers"]:
                await asyncio.sleep(0.001)
            bus = await aio.RpcBus.connect(path, timeout=60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(PeerClosedError):
            await slow.acall(bus, b"0")
        bus.close()
        await passes()
        assert len(os.listdir("/proc/self/fd")) <= before

    run(main)
