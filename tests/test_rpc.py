"""RpcBus: calls and replies, in any order, whatever the other side does."""

import contextlib
import os
import random
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from rpc_sides import CALLEE, answer, result

from tachyon import (
    Bus,
    HandshakeError,
    RpcBus,
    TachyonTimeoutError,
)

# ---- calls and replies -----------------------------------------------------------------------------------------------


def test_a_call_is_served_and_its_reply_waited_for(path, spawn):
    child = spawn(CALLEE, path)
    with RpcBus.connect(path, timeout=60) as caller:
        child.says("open")
        assert caller.peer_pid == child.pid
        cid = caller.call(b"ping", msg_type=7)
        with caller.wait(cid, timeout=30) as rx:
            assert (bytes(rx), rx.type_id, rx.correlation_id, rx.actual_size) == (b"gnip", 8, cid, 4)
            assert memoryview(rx).readonly
        assert result(caller, caller.call(b"", 1)) == b""
    child.says("closed")
    child.ends()


def test_ids_start_at_one_and_are_never_used_again(rpc):
    caller, callee = rpc()
    seen = []
    for _ in range(100):
        seen.append(caller.call(b"x", 1))
        assert answer(callee) == seen[-1]
        result(caller, seen[-1])
    assert seen == list(range(1, 101))


def test_replies_in_any_order_can_be_waited_for_in_any_order(rpc):
    caller, callee = rpc()
    chance = random.Random(5)
    calls = {caller.call(str(i).encode(), 1): str(i).encode() for i in range(200)}
    served = []
    for _ in calls:
        with callee.serve(timeout=30) as rx:
            served.append((rx.correlation_id, bytes(rx)))
    chance.shuffle(served)
    for cid, data in served:
        callee.reply(cid, data * 2)
    order = list(calls)
    chance.shuffle(order)
    for cid in order:
        assert result(caller, cid) == calls[cid] * 2
    assert caller.stats()["in_flight"] == caller.stats()["set_aside"] == caller.stats()["dropped"] == 0


def test_a_reply_that_comes_early_is_set_aside_and_frees_the_ring(rpc):
    caller, callee = rpc(1 << 16, 64)  # room for one reply
    first, second, third = (caller.call(bytes([i]), 1) for i in range(3))
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(lambda: [answer(callee) for _ in range(3)])
        assert result(caller, third) == b"\2"
        answering.result(30)
    assert caller.stats()["set_aside"] == 2
    assert result(caller, first) == b"\0"
    assert result(caller, second) == b"\1"


def test_a_reply_set_aside_keeps_its_msg_type(rpc):
    caller, callee = rpc()
    first, second = caller.call(b"1", 1), caller.call(b"2", 1)
    for kind in (7, 8):
        with callee.serve(timeout=30) as rx:
            cid = rx.correlation_id
        callee.reply(cid, b"", kind)
    for cid, kind in ((second, 8), (first, 7)):
        with caller.wait(cid, timeout=30) as rx:
            assert (rx.type_id, rx.correlation_id, rx.actual_size) == (kind, cid, 0)


def test_a_reply_can_be_written_in_place_and_so_can_a_call(rpc):
    caller, callee = rpc()
    with caller.call_zero_copy(8, 5) as tx:
        cid = tx.correlation_id
        with memoryview(tx) as m:
            m[:] = b"abcdefgh"
        tx.actual_size = 3
    with callee.serve(timeout=30) as rx:
        assert (rx.correlation_id, rx.type_id, bytes(rx)) == (cid, 5, b"abc")
    with callee.reply_zero_copy(cid, 4, 6) as tx:
        assert tx.correlation_id == cid
        memoryview(tx)[:] = b"done"
    with caller.wait(cid, timeout=30) as rx:
        assert (rx.type_id, bytes(rx)) == (6, b"done")


def test_a_call_in_place_that_is_given_up_was_never_made(rpc):
    caller, callee = rpc()
    with contextlib.suppress(ZeroDivisionError), caller.call_zero_copy(8, 5) as tx:
        lost = tx.correlation_id
        1 / 0
    with pytest.raises(ValueError, match="no such call"):
        caller.wait(lost, timeout=0)
    cid = caller.call(b"x", 1)
    assert answer(callee) == cid
    assert result(caller, cid) == b"x"


def test_a_reply_may_be_the_request_while_that_is_held(rpc):
    caller, callee = rpc()
    cid = caller.call(b"mirror", 1)
    with callee.serve(timeout=30) as rx, memoryview(rx) as m:
        callee.reply(cid, m[::-1])
    assert result(caller, cid) == b"rorrim"


def test_a_caller_may_call_and_wait_while_it_holds_replies(rpc):
    caller, callee = rpc()
    ids = [caller.call(b"%d" % i, 1) for i in range(4)]
    held = []
    for each in (ids[2], ids[0]):  # one that was set aside meanwhile, one that was not
        while callee.stats()["calls"]["messages"] < 4:
            answer(callee)
        held.append(caller.wait(each, timeout=30))
    later = caller.call(b"later", 1)
    with pytest.raises(ValueError, match="no such call"):
        caller.wait(ids[0], timeout=0)
    answer(callee)
    for each, data in ((later, b"later"), (ids[3], b"3"), (ids[1], b"1")):
        with caller.wait(each, timeout=30) as rx:
            assert bytes(rx) == data
    assert [bytes(guard) for guard in held] == [b"2", b"0"]
    for guard in held:
        guard.release()
    assert caller.stats()["set_aside"] == caller.stats()["dropped"] == caller.stats()["in_flight"] == 0


# ---- opening ---------------------------------------------------------------------------------------------------------


def test_connecting_to_a_callee_tries_once_by_default_and_gives_up_after_its_timeout(path):
    with pytest.raises(HandshakeError, match="no listener"):
        RpcBus.connect(path)
    with pytest.raises(TachyonTimeoutError, match="no listener"):
        RpcBus.connect(path, timeout=0.02)


def test_listening_for_a_caller_gives_up_after_its_timeout(path):
    with pytest.raises(TachyonTimeoutError, match="nobody connected"):
        RpcBus.listen(path, 64, 64, timeout=0.02)
    assert not os.path.exists(path)


def test_listening_without_a_timeout_waits_for_a_caller(path, run_thread, until):
    listening = run_thread(RpcBus.listen, path, 64, 64)
    until(lambda: os.path.exists(path))
    RpcBus.connect(path, timeout=60).close()
    listening.result(60).close()


def test_the_socket_file_of_a_callee_has_its_mode(path, run_thread, until):
    listening = run_thread(RpcBus.listen, path, 64, 64, timeout=60, mode=0o640)
    until(lambda: os.path.exists(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    RpcBus.connect(path, timeout=60).close()
    listening.result(60).close()


# ---- meeting the wrong kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc_listens", [True, False])
def test_a_bus_and_an_rpc_bus_that_meet_both_learn_what_the_other_is(path, run_thread, until, rpc_listens):
    if rpc_listens:
        listening = run_thread(RpcBus.listen, path, 64, 64, timeout=60)
        connect = Bus.connect
    else:
        listening = run_thread(Bus.listen, path, 64, timeout=60)
        connect = RpcBus.connect
    with pytest.raises(HandshakeError, match="a RpcBus listens" if rpc_listens else "a Bus listens"):
        connect(path, timeout=60)
    with pytest.raises(HandshakeError, match="a Bus connected" if rpc_listens else "a RpcBus connected"):
        listening.result(60)
    assert not os.path.exists(path)


# ---- many ------------------------------------------------------------------------------------------------------------


def campaign(path, spawn, calls):
    child = spawn(CALLEE, path)
    chance = random.Random(11)
    with RpcBus.connect(path, timeout=60) as caller:
        pending, awaited = [], 0
        for i in range(calls):
            request = i.to_bytes(4, "big") + chance.randbytes(chance.choice((0, 8, 40, 200, 3000)))
            pending.append((caller.call(request, i % 65534, timeout=60), request, i % 65534))
            if len(pending) >= 1000 or chance.random() < 0.5:
                at = chance.randrange(len(pending))
                pending[at], pending[-1] = pending[-1], pending[at]
                cid, request, kind = pending.pop()
                if chance.random() < 0.01:
                    continue  # abandoned, without a word
                with caller.wait(cid, timeout=60) as rx:
                    assert (bytes(rx), rx.type_id) == (request[::-1], kind + 1)
                awaited += 1
        for cid, request, _ in pending:
            assert result(caller, cid, 60) == request[::-1]
        stats = caller.stats()
        assert stats["set_aside"] <= 1 << 16
        assert stats["in_flight"] <= 1 << 16
    child.says("open", "closed")
    return awaited


def test_every_awaited_answer_is_right(path, spawn):
    assert campaign(path, spawn, 20_000) > 15_000


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_awaited_answer_of_a_million_is_right(path, spawn):
    campaign(path, spawn, 1_000_000)
