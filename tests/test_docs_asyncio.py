"""The examples of docs/asyncio.md, as they stand: in asyncio, in trio and anyio, and without a loop."""

import ast
import asyncio
import os
import re
from pathlib import Path

import pytest
from aio_ends import dispatcher_of, passes, run, serving

import tachyon
from tachyon import PeerClosedError, aio

DOCS = Path(__file__).parent.parent / "docs" / "asyncio.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)

CHILD = """
with tachyon.Bus.connect(path, timeout=30) as bus:
    for n in range(500):
        bus.send(b"%d" % n)
        if n % 50 == 0: time.sleep(0.005)
"""


def block(mark, path=""):
    (found,) = [each for each in BLOCKS if mark in each]
    return found.replace("/tmp/demo.sock", path).replace("/tmp/rpc.sock", path)


async def execute(code, space):
    """One that awaits outside of a function."""
    await eval(compile(code, "docs/asyncio.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), space)


def test_the_first_program(path):
    printed = []
    space = {"print": printed.append}
    exec(block("async def produce", path), space)

    async def main():
        await asyncio.gather(space["consume"](), space["produce"]())

    run(main)
    assert printed == [b"%d" % n for n in range(1000)]


def test_the_calls(path):
    async def main():
        async with serving(path, dispatcher_of(_1=lambda request: request)):
            space = {"tachyon": tachyon, "aio": aio, "asyncio": asyncio}
            await execute(block("answers = await", path), space)
            assert space["answers"] == [b"%d" % n for n in range(1000)]

    run(main)


def test_the_server(path):
    class Database:
        @staticmethod
        async def fetch(key):
            await asyncio.sleep(0)
            return key.upper()

    space = {"tachyon": tachyon, "aio": aio, "database": Database}
    exec(block("async def look_up", path), space)

    async def main():
        server = asyncio.ensure_future(space["main"]())
        async with aio.RpcClient(path) as client:
            endpoint = tachyon.RpcEndpoint(1)
            answers = await asyncio.gather(*(endpoint.acall(client, b"key%d" % n, timeout=60) for n in range(100)))
        assert answers == [b"KEY%d" % n for n in range(100)]
        server.cancel()
        await asyncio.wait([server])
        await passes()
        assert not os.path.exists(path)

    run(main)


def receives_all(receive):
    """As an assertion in any loop."""

    async def main(bus):
        assert [(await receive(bus)).data for _ in range(500)] == [b"%d" % n for n in range(500)]
        with pytest.raises(PeerClosedError):
            await receive(bus)

    return main


def test_trio(spawn, path):
    trio = pytest.importorskip("trio")
    space = {"trio": trio}
    exec(block("trio.lowlevel"), space)
    child = spawn(CHILD, path)

    async def main(bus):
        with trio.fail_after(60):
            await receives_all(space["receive"])(bus)

    with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
        trio.run(main, bus)
    child.ends()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(spawn, path, backend):
    anyio = pytest.importorskip("anyio")
    if not hasattr(anyio, "wait_readable"):
        pytest.skip("anyio before 4.7")
    if backend == "trio":
        pytest.importorskip("trio")
    space = {"anyio": anyio}
    exec(block("anyio.wait_readable"), space)
    child = spawn(CHILD, path)

    async def main(bus):
        with anyio.fail_after(60):
            await receives_all(space["receive"])(bus)

    with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
        anyio.run(main, bus, backend=backend)
    child.ends()


def test_one_thread_waits_for_many(pair):
    producers, consumers = zip(*(pair(4096) for _ in range(3)), strict=True)
    for n in range(30):
        producers[n % 3].send(b"%d" % n)
    got = []
    take = "message = bus.try_recv()"
    code = block("tachyon.WaitSet()")
    assert code.count(take) == 1
    exec(code.replace(take, f"{take}; got.append(message)"), {"tachyon": tachyon, "buses": consumers, "got": got})
    assert sorted(int(message.data) for message in got if message is not None) == list(range(30))


def test_every_block_is_of_one_of_the_examples():
    assert len(BLOCKS) == 6
