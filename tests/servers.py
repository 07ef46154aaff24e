"""RpcServers for the tests, each run by a thread, and what a process holds of them."""

import os

import pytest

from tachyon import (
    RpcBus,
    RpcDispatcher,
    RpcServer,
    tachyon_rpc,
)


@tachyon_rpc(msg_type=1)
def echo(payload):
    return payload


@tachyon_rpc(msg_type=2)
def fail(payload):
    raise ValueError("no " + bytes(payload).decode())


kept = []


@tachyon_rpc(msg_type=3)
def keep(payload):
    kept.append(memoryview(payload))
    return b"kept"


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def connect(server, **options):
    return RpcBus.connect(server._listener.path, timeout=30, **options)


@pytest.fixture
def serve(path, run_thread):
    """serve(*endpoints, **options) → RpcServer that a thread runs."""
    running = []

    def make(*endpoints, forward=1 << 16, reverse=1 << 16, **options):
        dispatcher = RpcDispatcher(**options)
        for each in endpoints or (echo, fail, keep):
            dispatcher.register(each)
        server = RpcServer(path, dispatcher, forward, reverse)
        running.append((server, run_thread(server.serve_forever)))
        return server

    yield make
    for server, thread in running:
        server.stop()
        thread.result(60)
        server.close()
