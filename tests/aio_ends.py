"""Event loops for the tests of tachyon.aio: each with a watchdog."""

import asyncio
import contextlib

import pytest
from conftest import PATIENCE

import tachyon
from tachyon import aio


def run(main, *arguments):
    """Run main(*arguments) in a loop of its own, for as long as a test may take."""

    async def watched():
        return await asyncio.wait_for(main(*arguments), PATIENCE)

    return asyncio.run(watched())


async def passes(count=5):
    """So many passes of the loop: time for what is about to happen."""
    for _ in range(count):
        await asyncio.sleep(0)


async def asleep(bus):
    """Until a task waits for this bus, and the peer has been asked to ring."""
    while not any(place is not None and place.future is not None for place in (bus._receiver, *bus._line)):
        await asyncio.sleep(0)


async def awaits_reply(caller):
    """The same, for the reply to a call."""
    while caller._looking is not None or not (caller._wanted or caller._watched):
        await asyncio.sleep(0)


@pytest.fixture
def apair(pair):
    """async with apair(capacity) as (producer, consumer), both in this loop."""

    @contextlib.asynccontextmanager
    async def make(capacity=1 << 16):
        producer, consumer = map(aio.Bus, pair(capacity))
        try:
            yield producer, consumer
        finally:
            producer.close()
            consumer.close()
            await passes()

    return make


@pytest.fixture
def arpc(rpc):
    """async with arpc(cap_fwd, cap_rev) as (caller, callee), both in this loop."""

    @contextlib.asynccontextmanager
    async def make(forward=1 << 16, reverse=1 << 16):
        caller, callee = map(aio.RpcBus, rpc(forward, reverse))
        try:
            yield caller, callee
        finally:
            caller.close()
            callee.close()
            await passes()

    return make


@contextlib.asynccontextmanager
async def serving(path, dispatcher, **options):
    """async with serving(path, dispatcher) as server: it serves."""
    async with aio.RpcServer(path, dispatcher, **options) as server:
        task = asyncio.ensure_future(server.serve_forever())
        try:
            yield server
        finally:
            server.stop()
            await task


def dispatcher_of(**handlers):
    """dispatcher_of(_1=function) → RpcDispatcher."""
    dispatcher = tachyon.RpcDispatcher(send_details=True)
    for name, handler in handlers.items():
        dispatcher.handler(int(name[1:]))(handler)
    return dispatcher
