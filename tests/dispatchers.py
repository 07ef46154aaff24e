"""Dispatchers for the tests, each run by a thread."""

import pytest

from tachyon import (
    RpcDispatcher,
    tachyon_rpc,
)


@tachyon_rpc(msg_type=1)
def echo(payload: memoryview) -> bytes:
    """Say it again."""
    return payload.tobytes()


def endpoint(function):
    return tachyon_rpc(9)(function)


@pytest.fixture
def served(rpc, run_thread):
    """served(*endpoints, **options) → caller; a thread serves them until the caller closes."""
    serving = []

    def make(*endpoints, forward=1 << 16, reverse=1 << 16, max_large=1 << 30, **options):
        caller, callee = rpc(forward, reverse, max_large=max_large)
        dispatcher = RpcDispatcher(**options)
        for each in endpoints:
            dispatcher.register(each)
        serving.append((caller, run_thread(dispatcher.serve_forever, callee)))
        return caller

    yield make
    for caller, thread in serving:
        caller.close()
        thread.result(30)
