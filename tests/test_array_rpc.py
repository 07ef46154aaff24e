"""Arrays as arguments and results of calls."""

import numpy as np
import pytest

from tachyon import ArrayPayload, BusBusyError, RpcDispatcher, RpcError, as_array, tachyon_rpc

X = np.arange(6, dtype="f4").reshape(2, 3)


def test_a_call_and_its_answer_are_arrays(rpc):
    caller, callee = rpc()
    cid = caller.call_array(X, 4, timeout=30)
    with callee.serve(timeout=30) as call:
        assert (call.correlation_id, call.type_id) == (cid, 4)
        x = call.array()
        assert x.ctypes.data % 64 == 0
        callee.reply_array(call.correlation_id, x.T * 2, 8)
    with caller.wait(cid, timeout=30) as reply:
        assert reply.type_id == 8
        y = reply.array()
        assert (y == X.T * 2).all()
        assert y.ctypes.data % 64 == 0
    assert (x.size, y.size) == (0, 0)


def test_both_can_be_written_in_place_and_received_as_copies(rpc):
    caller, callee = rpc()
    guard = caller.call_array_zero_copy((2, 3), "f4", 1)
    with guard as x:
        x[:] = X
    with callee.serve(timeout=30) as call, callee.reply_array_zero_copy(call.correlation_id, (), "f8") as total:
        total[...] = call.array().sum()
    got = caller.wait_array(guard.correlation_id, timeout=30)
    assert (got, got.shape, got.ctypes.data % 64) == (15, (), 0)
    out = np.zeros((2, 3), "f4")
    cid = caller.call(b"", 1)
    callee.serve(timeout=30).release()
    callee.reply_array(cid, X)
    assert caller.wait_array(cid, out, timeout=30) is out
    assert (out == X).all()


@pytest.mark.parametrize("size", [1, 17, 1000, 3000])
def test_an_answer_that_was_set_aside_is_aligned_too(rpc, size):
    caller, callee = rpc()
    ids = [caller.call(b"", 1) for _ in range(5)]
    for cid in ids:
        callee.serve(timeout=30).release()
        callee.reply_array(cid, np.full(size, cid, "u2"))
    for cid in reversed(ids):
        with caller.wait(cid, timeout=30) as reply:
            a = reply.array()
            assert a.ctypes.data % 64 == 0
            assert (a == cid).all()
        del a


def test_a_handler_gets_and_returns_arrays(rpc, run_thread):
    caller, callee = rpc()
    dispatcher = RpcDispatcher(send_details=True)

    @dispatcher.handler(1)
    def double(payload):
        return ArrayPayload(as_array(payload) * 2)

    @dispatcher.handler(2)
    def itself(payload):
        return ArrayPayload(as_array(payload))  # a view of the request, sent before that is freed

    @dispatcher.handler(3)
    def objects(payload):
        return np.array([payload, None], dtype=object)

    served = run_thread(lambda: [dispatcher.serve_once(callee, timeout=30) for _ in range(2)])
    assert (as_array(double.call(caller, ArrayPayload(X), timeout=30)) == X * 2).all()
    assert itself.call(caller, ArrayPayload(X), lambda y: as_array(y).sum(), timeout=30) == 15
    served.result(30)
    failing = run_thread(dispatcher.serve_once, callee, timeout=30)
    with pytest.raises(RpcError, match="pointers"):
        objects.call(caller, b"", timeout=30)
    with pytest.raises(TypeError, match="pointers"):
        failing.result(30)


def test_an_array_that_finds_no_room_is_answered_with_later(rpc, run_thread):
    caller, callee = rpc(1 << 16, 4096)
    dispatcher = RpcDispatcher()
    big = np.arange(2900, dtype="u1").reshape(2, 1450)
    endpoint = dispatcher.register(tachyon_rpc(1)(lambda payload: ArrayPayload(big.T)))
    serving = run_thread(dispatcher.serve_forever, callee)
    ids = [caller.call(b"", endpoint.msg_type) for _ in range(3)]
    first = caller.wait(ids[0], timeout=30)  # held: there is no room for the second
    import time

    time.sleep(0.3)
    first.release()
    for cid in ids[1:]:
        assert (caller.wait_array(cid, timeout=30) == big.T).all()
    caller.close()
    serving.result(30)


def test_each_side_has_its_own_methods(rpc):
    caller, callee = rpc()
    for use in (
        lambda: callee.call_array(X, 1),
        lambda: callee.call_array_zero_copy(3, "u1", 1),
        lambda: callee.wait_array(1),
        lambda: caller.reply_array(1, X),
        lambda: caller.reply_array_zero_copy(1, 3, "u1"),
    ):
        with pytest.raises(BusBusyError, match="is for the side"):
            use()
    for use in (lambda: callee.reply_array(77, X), lambda: callee.reply_array_zero_copy(77, 3, "u1")):
        with pytest.raises(ValueError, match="no call 77"):
            use()
    with pytest.raises(ValueError, match="65535"):
        caller.call_array(X, 65535)
