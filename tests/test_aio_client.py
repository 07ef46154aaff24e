"""tachyon.aio.RpcClient: as RpcClient, for any number of tasks."""

import asyncio
import time

import pytest
from test_client import PATIENCE, echo, serve  # noqa: F401

import tachyon
from tachyon import aio


def test_many_tasks_share_one_connection(path, serve):  # noqa: F811
    serve()

    async def main():
        async with aio.RpcClient(path) as client:
            assert not client.connected
            texts = [b"%d" % i for i in range(200)]
            assert await asyncio.gather(*(echo.acall(client, text, timeout=PATIENCE) for text in texts)) == texts
            assert client.connected
            call = await client.call(b"abc", 1)
            async with client.wait(call, timeout=PATIENCE) as reply:
                assert bytes(reply) == b"abc"
            assert set(serve.notes().values()) == {1}
        with pytest.raises(tachyon.BusClosedError):
            await echo.acall(client, b"abc")

    asyncio.run(main())


@pytest.mark.parametrize(("limit", "most"), [(0, (1 << 20) - 16), (1 << 21, 1 << 21)])
def test_it_says_how_large_a_call_may_be(path, serve, limit, most):  # noqa: F811
    serve()

    async def main():
        async with aio.RpcClient(path, max_large=limit) as client:
            assert await echo.acall(client, bytes(most), timeout=PATIENCE) == bytes(most)
            with pytest.raises(tachyon.MessageTooLargeError, match=f"at most {most} "):
                await client.call(bytes(most + 1), 1, timeout=PATIENCE)

    asyncio.run(main())


def test_after_a_restart_calls_go_to_the_new_server_and_none_twice(path, serve):  # noqa: F811
    async def main():
        nonlocal server
        sent, answered, failed = [], [], 0

        async def call(client):
            nonlocal failed
            while len(answered) < 300:
                text = b"%d" % len(sent)
                sent.append(text)
                try:
                    assert await echo.acall(client, text, timeout=PATIENCE) == text
                    answered.append(text)
                except tachyon.PeerDeadError:
                    failed += 1

        async with aio.RpcClient(path) as client:
            tasks = [asyncio.ensure_future(call(client)) for _ in range(8)]
            for _ in range(3):
                before = len(answered)
                while len(answered) < before + 30:
                    await asyncio.sleep(0.001)
                    for task in tasks:
                        assert not task.done() or task.result() is None
                server.kill()
                server = serve()
            await asyncio.gather(*tasks)
        served = serve.notes()
        assert set(served.values()) == {1}
        assert {text.decode() for text in answered} <= set(served)
        assert len(sent) == len(answered) + failed

    server = serve()
    asyncio.run(main())


def test_a_call_of_a_lost_connection_raises(path, serve):  # noqa: F811
    server = serve()

    async def main():
        async with aio.RpcClient(path) as client:
            answered, lost = await client.call(b"before", 1), await client.call(b"never", 2)
            async with client.wait(answered, timeout=PATIENCE):
                pass
            while not serve.notes()["never"]:
                await asyncio.sleep(0.001)
            server.kill()
            serve()
            assert await echo.acall(client, b"after", timeout=PATIENCE) == b"after"
            with pytest.raises(tachyon.PeerDeadError):
                async with client.wait(lost, timeout=PATIENCE):
                    pass
            assert not client.cancel(10**9)

    asyncio.run(main())


def test_timeouts_and_cancellation_leave_the_attempt_to_connect_to_others(path, serve):  # noqa: F811
    async def main():
        async with aio.RpcClient(path) as client:
            waiting = asyncio.ensure_future(echo.acall(client, b"abc", timeout=PATIENCE))
            cancelled = asyncio.ensure_future(echo.acall(client, b"abc"))
            with pytest.raises(tachyon.TachyonTimeoutError):
                await echo.acall(client, b"abc", timeout=0.02)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await asyncio.to_thread(serve)
            assert await waiting == b"abc"
        async with aio.RpcClient(path + "-nobody", connect_timeout=0.02) as client:
            with pytest.raises(tachyon.TachyonTimeoutError, match="nobody"):
                await client.call(b"abc", 1, timeout=PATIENCE)

    asyncio.run(main())


def test_close_ends_the_wait_for_a_server(path):
    async def main():
        client = aio.RpcClient(path)
        waiting = asyncio.ensure_future(client.call(b"abc", 1))
        await asyncio.sleep(0.05)
        client.close()
        with pytest.raises(tachyon.BusClosedError):
            await waiting
        assert client.closed

    before = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - before >= 0.05
