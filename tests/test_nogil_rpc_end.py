"""Nogil code of RpcBus at a close, and where two threads or two kinds of code meet."""

import os

import pytest
from downstream import need_compiler
from nogil_hands import BUSY, CLAIM_OPEN, CLOSED, FORKED, OK, PEER_CLOSED, TOO_LARGE, WRONG_SIDE, mappings

import tachyon

need_compiler()


def test_a_reply_that_the_parent_holds_is_not_released_by_a_forked_child(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_call(b"x", 1) == OK
    assert callee.try_peek_call() == OK
    assert callee.try_reply(callee.frame_id, b"y", 2) == OK
    assert callee.release_call() == OK
    assert caller.try_peek_reply(caller.id) == OK
    pid = os.fork()
    if pid == 0:
        os._exit(0 if caller.release_reply() == FORKED else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert caller.read() == (2, b"y")
    assert caller.release_reply() == OK


def test_rpc_with_python_at_the_other_end(rpc, nogil):
    caller, callee = rpc()
    hand = nogil.RpcHand(callee)
    number = caller.call(b"from Python", 5)
    assert hand.peek_call(-1) == OK
    with pytest.raises(tachyon.BusBusyError, match="nogil"):
        callee.serve()
    assert hand.reply(number, b"from C", 6, -1) == OK
    assert hand.release_call() == OK
    with caller.wait(number) as reply:
        assert (reply.type_id, bytes(reply)) == (6, b"from C")
        assert nogil.RpcHand(caller).try_peek_reply(number) == CLAIM_OPEN
    assert caller.call(b"and on it goes", 5) > number


def test_python_is_refused_while_nogil_code_holds_something_of_rpc(rpc, nogil):
    caller, callee = rpc()
    asking, answering = nogil.RpcHand(caller), nogil.RpcHand(callee)

    def refused(call):
        with pytest.raises(tachyon.BusBusyError, match="nogil"):
            call()

    assert asking.try_claim_call(8) == OK
    refused(lambda: caller.call(b"x", 1))
    assert asking.commit_call(1 << 20, 1) == TOO_LARGE
    refused(lambda: caller.call(b"x", 1))
    assert asking.commit_call(8, 1) == OK
    number = asking.id
    assert caller.call(b"x", 1) > number
    assert answering.try_peek_call() == OK
    refused(lambda: callee.serve(timeout=0))
    assert answering.release_call() == OK
    assert answering.try_claim_reply(number, 8) == OK
    refused(lambda: callee.reply(number, b"x"))
    assert answering.commit_reply(number, 1 << 20, 1) == TOO_LARGE
    refused(lambda: callee.reply(number, b"x"))
    assert answering.commit_reply(number, 8, 1) == OK
    with callee.serve() as call:
        callee.reply(call.correlation_id, b"y")
    assert asking.try_peek_reply(number) == OK
    refused(lambda: caller.wait(number + 1, timeout=0))
    assert asking.release_reply() == OK
    with caller.wait(number + 1) as reply:
        assert bytes(reply) == b"y"


def test_another_thread_inside_of_either_ring_is_busy(run_thread, rpc, nogil, until):
    caller, callee = rpc()
    number = caller.call(b"x", 1)
    waiting = run_thread(nogil.RpcHand(caller).peek_reply, number, -1)
    asking, answering = nogil.RpcHand(caller), nogil.RpcHand(callee)
    until(lambda: caller.stats()["replies"]["parks"] > 0)  # two that come in together might both be refused
    until(lambda: asking.cancel_call(77) == BUSY)  # between two slices of that wait it is UNKNOWN_CALL
    assert answering.try_peek_call() == OK
    assert answering.release_call() == OK
    assert answering.try_reply(number, b"y", 1) == OK
    assert waiting.result(60) == OK
    waiting = run_thread(answering.peek_call, -1)
    until(lambda: callee.stats()["calls"]["parks"] > 0)
    until(lambda: nogil.RpcHand(callee).try_claim_reply(77, 1) == BUSY)
    caller.close()
    assert waiting.result(60) == PEER_CLOSED


def test_what_finds_the_other_side_gone_leaves_nothing_open_in_rpc(rpc, nogil):
    for held in (True, False):
        caller, callee = rpc()
        asking = nogil.RpcHand(caller)
        if held:
            assert asking.try_claim_call(8) == OK
        callee.close()
        if held:
            assert asking.commit_call(8, 1) == PEER_CLOSED
        assert asking.try_call(b"x", 1) == PEER_CLOSED
        assert asking.commit_call(8, 1) == PEER_CLOSED
        with pytest.raises(tachyon.PeerClosedError):
            caller.call(b"x", 1)
        caller, callee = rpc()
        number = caller.call(b"x", 1)
        answering = nogil.RpcHand(callee)
        assert answering.try_peek_call() == OK
        assert answering.release_call() == OK
        if held:
            assert answering.try_claim_reply(number, 8) == OK
        caller.close()
        if held:
            assert answering.commit_reply(number, 8, 1) == PEER_CLOSED
        assert answering.try_reply(number, b"y", 1) == PEER_CLOSED
        assert answering.commit_reply(number, 8, 1) == PEER_CLOSED
        with pytest.raises(tachyon.PeerClosedError):
            callee.reply(number, b"x")


@pytest.mark.parametrize(
    "end",
    [
        "commit_call(8, 1)",
        "abort_call()",
        "release_reply()",
        "release_call()",
        "commit_reply(number, 8, 1)",
        "abort_reply()",
    ],
    ids=lambda end: end.partition("(")[0],
)
def test_what_nogil_code_holds_of_rpc_stays_mapped_after_a_close(rpc, nogil, end):
    caller, callee = rpc()
    calls = end.endswith("call(8, 1)") or end in ("abort_call()", "release_reply()")
    bus = caller if calls else callee
    hand = nogil.RpcHand(bus)
    number = caller.call(b"x", 1)
    if end == "release_reply()":
        with callee.serve():
            callee.reply(number, b"y")
        assert hand.try_peek_reply(number) == OK
    elif calls:
        assert hand.try_claim_call(8) == OK
    elif end == "release_call()":
        assert hand.try_peek_call() == OK
    else:
        with callee.serve():
            pass
        assert hand.try_claim_reply(number, 8) == OK
    before = mappings()
    bus.close()
    assert mappings() == before - 1  # the other ring's
    if "release" in end:
        assert hand.read()[1] == (b"y" if calls else b"x")
    else:
        hand.write(b"x" * 8)
    for _ in range(2):  # the second time nothing is held, and nothing is counted
        assert eval(f"hand.{end}", {"hand": hand, "number": number}) == CLOSED
    bus.close()
    assert mappings() == before - 2


def test_rpc_after_a_close(rpc, nogil):
    for each in (*rpc(), tachyon.RpcBus.__new__(tachyon.RpcBus)):
        hand = nogil.RpcHand(each)
        each.close()
        codes = [hand.try_call(b"", 1), hand.try_claim_call(1), hand.commit_call(1, 1), hand.abort_call()]
        codes += [hand.try_peek_reply(1), hand.release_reply(), hand.cancel_call(1), hand.try_peek_call()]
        codes += [hand.release_call(), hand.try_reply(1, b"", 1), hand.try_claim_reply(1, 1), hand.peek_call(-1)]
        codes += [hand.commit_reply(1, 1, 1), hand.abort_reply(), hand.reply(1, b"", 1, -1), hand.claim_reply(1, 1, -1)]
        codes += [hand.call(b"", 1, -1), hand.claim_call(1, -1), hand.peek_reply(1, -1)]
        assert set(codes) <= {CLOSED, WRONG_SIDE}
        assert CLOSED in codes
        with pytest.raises(tachyon.BusClosedError):
            hand.raise_for_status(CLOSED)


def test_rpc_waits_end_with_a_close(run_thread, rpc, nogil, until):
    caller, callee = rpc()
    number = caller.call(b"x", 1)
    waiting = run_thread(nogil.RpcHand(caller).peek_reply, number, -1)
    until(lambda: caller.stats()["replies"]["parks"] > 0)
    serving = nogil.RpcHand(callee)
    assert serving.peek_call(-1) == OK
    assert serving.release_call() == OK
    running = run_thread(serving.peek_call, -1)
    until(lambda: callee.stats()["calls"]["parks"] > 0)
    caller.close()
    assert waiting.result(60) == CLOSED
    assert running.result(60) == PEER_CLOSED
