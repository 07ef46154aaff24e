"""RpcBus: calls and replies, in any order, whatever the other side does."""

import contextlib
import copy
import os
import pickle
import random
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hostile import FLOOD

import tachyon
from tachyon import (
    Bus,
    BusBusyError,
    BusClosedError,
    BusEmptyError,
    BusFullError,
    CapacityError,
    HandshakeError,
    MessageTooLargeError,
    PeerClosedError,
    PeerDeadError,
    RpcBus,
    TachyonTimeoutError,
)

CALLEE = """
with tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60) as callee:
    say("open")
    try:
        while True:
            with callee.serve() as rx:
                cid, kind, request = rx.correlation_id, rx.type_id, bytes(rx)
            callee.reply(cid, request[::-1], msg_type=kind + 1)
    except tachyon.PeerClosedError:
        say("closed")
    except tachyon.PeerDeadError as error:
        say(error.reason)
"""


def answer(callee, transform=bytes):
    with callee.serve(timeout=30) as rx:
        correlation_id, data = rx.correlation_id, transform(bytes(rx))
    callee.reply(correlation_id, data, msg_type=2)
    return correlation_id


def result(caller, correlation_id, timeout=30):
    with caller.wait(correlation_id, timeout=timeout) as rx:
        assert rx.correlation_id == correlation_id
        return bytes(rx)


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


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cid", [0, -1, 2, 99, 2**64, 2**70])
def test_waiting_for_an_id_that_was_never_issued_is_a_value_error(rpc, cid):
    caller, _ = rpc()
    caller.call(b"x", 1)
    with pytest.raises(ValueError, match="no such call"):
        caller.wait(cid, timeout=0)


def test_a_reply_can_be_had_once(rpc):
    caller, callee = rpc()
    early, late = caller.call(b"early", 1), caller.call(b"late", 1)
    answer(callee), answer(callee)
    for cid in (late, early):  # in place, and set aside
        result(caller, cid)
        with pytest.raises(ValueError, match="no such call"):
            caller.wait(cid, timeout=0)


@pytest.mark.parametrize("cid", [0, -1, 2, 2**64])
def test_replying_to_an_id_that_was_never_served_is_a_value_error(rpc, cid):
    caller, callee = rpc()
    caller.call(b"x", 1)
    with pytest.raises(ValueError, match="no call 1 "):
        callee.reply(1, b"too early")
    with callee.serve(timeout=30):
        pass
    with pytest.raises(ValueError, match=f"no call {cid}"):
        callee.reply(cid, b"x")
    with pytest.raises(ValueError, match=f"no call {cid}"):
        callee.reply_zero_copy(cid, 1)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_call_is_answered_once(rpc, in_place):
    caller, callee = rpc()
    cid = caller.call(b"x", 1)
    if in_place:
        with callee.serve(timeout=30):
            pass
        with callee.reply_zero_copy(cid, 1) as tx:
            memoryview(tx)[:] = b"x"
    else:
        answer(callee)
    with pytest.raises(ValueError, match="no call"):
        callee.reply(cid, b"again")
    with pytest.raises(ValueError, match="no call"):
        callee.reply_zero_copy(cid, 1)
    assert result(caller, cid) == b"x"


def test_an_answer_in_place_that_is_given_up_can_be_given_again(rpc):
    caller, callee = rpc()
    cid = caller.call(b"x", 1)
    with callee.serve(timeout=30):
        pass
    with contextlib.suppress(ZeroDivisionError), callee.reply_zero_copy(cid, 5):
        1 / 0
    callee.reply(cid, b"second")
    assert result(caller, cid) == b"second"


@pytest.mark.parametrize("msg_type", [-1, 65536, 2**40])
def test_a_msg_type_beyond_16_bits_is_refused(rpc, msg_type):
    caller, callee = rpc()
    with pytest.raises(OverflowError, match=str(msg_type)):
        caller.call(b"x", msg_type)
    cid = caller.call(b"x", 1)
    with callee.serve(timeout=30):
        pass
    with pytest.raises(OverflowError, match=str(msg_type)):
        callee.reply(cid, b"x", msg_type)


def test_msg_type_65535_is_for_error_replies_only(rpc):
    caller, callee = rpc()
    with pytest.raises(ValueError, match="65535"):
        caller.call(b"x", 65535)
    with pytest.raises(ValueError, match="65535"):
        caller.call_zero_copy(1, 65535)
    cid = caller.call(b"x", 65534)
    with callee.serve(timeout=30) as rx:
        assert rx.type_id == 65534
    callee.reply(cid, b"", tachyon.MSG_TYPE_ERROR)
    with caller.wait(cid, timeout=30) as rx:
        assert rx.type_id == tachyon.MSG_TYPE_ERROR


@pytest.mark.parametrize("data", ["text", None, 5])
def test_only_buffers_are_sent(rpc, data):
    caller, callee = rpc()
    with pytest.raises(TypeError):
        caller.call(data, 1)
    cid = caller.call(b"x", 1)
    with callee.serve(timeout=30):
        pass
    with pytest.raises(TypeError):
        callee.reply(cid, data)
    callee.reply(cid, b"still possible")
    assert result(caller, cid) == b"still possible"


def test_what_can_never_fit_is_refused_and_the_call_can_still_be_answered(rpc):
    caller, callee = rpc(1024, 256)
    assert (caller.max_request_size, caller.max_reply_size) == (1008, 240)
    with pytest.raises(MessageTooLargeError, match="1009"):
        caller.call(bytes(1009), 1)
    cid = caller.call(bytes(1008), 1)
    with callee.serve(timeout=30):
        pass
    with pytest.raises(MessageTooLargeError, match="241"):
        callee.reply(cid, bytes(241))
    callee.reply(cid, bytes(240))
    assert len(result(caller, cid)) == 240


def test_each_side_has_its_own_verbs(rpc):
    caller, callee = rpc()
    for use in (lambda: caller.serve(timeout=0), lambda: caller.reply(1, b""), lambda: caller.reply_zero_copy(1, 1)):
        with pytest.raises(BusBusyError, match="listened"):
            use()
    for use in (
        lambda: callee.call(b"", 1),
        lambda: callee.wait(1),
        lambda: callee.cancel(1),
        lambda: callee.call_zero_copy(1, 1),
    ):
        with pytest.raises(BusBusyError, match="connected"):
            use()


@pytest.mark.parametrize("capacities", [(0, 64), (64, 3), (1 << 33, 64), (64, -1), (64, 1 << 64)])
def test_both_capacities_are_checked(path, capacities):
    with pytest.raises(CapacityError):
        RpcBus.listen(path, *capacities, timeout=0)
    assert not os.path.exists(path)


def test_neither_capacity_may_be_left_open(path):
    for capacities in ((64, None), (None, 64)):
        with pytest.raises(TypeError, match="capacity must be an int, not NoneType"):
            RpcBus.listen(path, *capacities, timeout=0)
    assert not os.path.exists(path)


def test_an_rpc_bus_is_neither_made_nor_pickled_nor_copied(rpc):
    caller, _ = rpc()
    with pytest.raises(TypeError, match="RpcBus.listen"):
        RpcBus()
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="one process"):
            use(caller)


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_timeouts_run_out_and_nothing_is_lost(rpc):
    caller, callee = rpc()
    with pytest.raises(BusEmptyError):
        callee.serve(timeout=0.01)
    cid = caller.call(b"x", 1)
    with pytest.raises(BusEmptyError):
        caller.wait(cid, timeout=0.01)
    answer(callee)
    assert result(caller, cid) == b"x"


def test_a_full_ring_of_calls_is_a_timeout(rpc):
    caller, callee = rpc(128, 1024)
    caller.call(b"1", 1), caller.call(b"2", 1)
    with pytest.raises(BusFullError):
        caller.call(b"3", 1, timeout=0.01)
    with pytest.raises(BusFullError):
        caller.call_zero_copy(1, 1, timeout=0.01)
    answer(callee), answer(callee)
    third = caller.call(b"3", 1, timeout=30)
    answer(callee)
    assert result(caller, third) == b"3"


def test_a_full_ring_of_replies_is_a_timeout_and_the_call_can_still_be_answered(rpc):
    caller, callee = rpc(1024, 128)
    calls = [caller.call(b"%d" % i, 1) for i in range(3)]
    answer(callee), answer(callee)
    with callee.serve(timeout=30):
        pass
    with pytest.raises(BusFullError):
        callee.reply(calls[2], b"2", timeout=0.01)
    with pytest.raises(BusFullError):
        callee.reply_zero_copy(calls[2], 1, timeout=0.01)
    assert [result(caller, cid) for cid in calls[:2]] == [b"0", b"1"]
    callee.reply(calls[2], b"2", timeout=30)
    assert result(caller, calls[2]) == b"2"


def in_place(claimed):
    with claimed as tx:
        memoryview(tx)[:] = b"late"
        return tx.correlation_id


@pytest.mark.parametrize(
    "use", [lambda caller: caller.call(b"late", 1), lambda caller: in_place(caller.call_zero_copy(4, 1))]
)
def test_without_a_timeout_a_call_waits_for_room(rpc, run_thread, until, use):
    caller, callee = rpc(128, 1024)
    calls = [caller.call(b"1", 1), caller.call(b"2", 1)]
    waiting = run_thread(use, caller)
    until(lambda: caller.stats()["calls"]["parks"] > 0)
    answer(callee)
    calls.append(waiting.result(30))
    answer(callee), answer(callee)
    assert [result(caller, cid) for cid in calls] == [b"1", b"2", b"late"]


@pytest.mark.parametrize(
    "use",
    [lambda callee, cid: callee.reply(cid, b"late"), lambda callee, cid: in_place(callee.reply_zero_copy(cid, 4))],
)
def test_without_a_timeout_a_reply_waits_for_room(rpc, run_thread, until, use):
    caller, callee = rpc(1024, 128)
    calls = [caller.call(b"%d" % i, 1) for i in range(3)]
    answer(callee), answer(callee)
    with callee.serve(timeout=30):
        pass
    waiting = run_thread(use, callee, calls[2])
    until(lambda: callee.stats()["replies"]["parks"] > 0)
    assert [result(caller, cid) for cid in calls[:2]] == [b"0", b"1"]
    waiting.result(30)
    assert result(caller, calls[2]) == b"late"


def test_neither_side_hangs_when_both_rings_are_full(path, spawn):
    child = spawn(CALLEE.replace("1 << 16, 1 << 16", "256, 128"), path)
    with RpcBus.connect(path, timeout=60) as caller:
        calls = [caller.call(str(i).encode(), 1, timeout=60) for i in range(500)]  # nobody waits meanwhile
        assert [result(caller, cid) for cid in calls] == [str(i).encode()[::-1] for i in range(500)]
    child.says("open", "closed")


def test_more_calls_in_flight_than_are_remembered_lose_the_oldest(rpc):
    caller, callee = rpc(1 << 23, 1 << 23)  # nobody takes replies out meanwhile
    most = 1 << 16
    calls = []
    for _ in range(most + 10):
        calls.append(caller.call(b"x", 1))
        answer(callee)
    assert caller.stats()["in_flight"] <= most
    for cid in calls[:10]:
        with pytest.raises(ValueError, match="no such call"):
            caller.wait(cid, timeout=0)
    assert result(caller, calls[10]) == b"x"
    assert result(caller, calls[-1]) == b"x"
    assert caller.stats()["dropped"] == 10


def test_replies_set_aside_are_bounded_in_bytes_and_the_oldest_go_first(rpc):
    caller, callee = rpc(1 << 16, 1 << 23)
    calls = [caller.call(b"x", 1) for _ in range(20)]
    for _ in calls:
        answer(callee, lambda _: bytes(5_000_000))
        with pytest.raises(BusEmptyError):
            caller.wait(caller.call(b"later", 1), timeout=0)  # takes what has come out of the ring
    assert caller.stats()["dropped"] == 20 - (64 << 20) // 5_000_000
    with pytest.raises(ValueError, match="dropped"):
        caller.wait(calls[0], timeout=0)
    assert len(result(caller, calls[-1])) == 5_000_000


def test_one_reply_larger_than_that_bound_is_set_aside_all_the_same(rpc):
    caller, callee = rpc(1 << 16, 1 << 27)
    large, small = caller.call(b"large", 1), caller.call(b"small", 1)
    answer(callee, lambda _: bytes((64 << 20) + 1))
    answer(callee)
    assert result(caller, small) == b"small"
    assert caller.stats()["set_aside"] == 1
    assert len(result(caller, large)) == (64 << 20) + 1


def test_cancel_gives_up_a_call_before_and_after_its_reply(rpc):
    caller, callee = rpc()
    before, after, wanted = (caller.call(bytes([i]), 1) for i in range(3))
    assert caller.cancel(before) is True
    assert caller.cancel(before) is False
    assert caller.cancel(99) is False
    for _ in range(3):
        answer(callee)
    assert result(caller, wanted) == b"\2"
    assert caller.cancel(after) is True
    for cid in (before, after):
        with pytest.raises(ValueError, match="cancelled"):
            caller.wait(cid, timeout=0)
    assert caller.stats()["dropped"] == 2
    assert caller.stats()["in_flight"] == 0


# ---- the other side's end --------------------------------------------------------------------------------------------


def test_a_callee_that_closes_has_its_replies_read_first(rpc):
    caller, callee = rpc()
    first, second, third = (caller.call(bytes([i]), 1) for i in range(3))
    answer(callee), answer(callee)
    callee.close()
    assert result(caller, second) == b"\1"
    assert result(caller, first) == b"\0"
    with pytest.raises(PeerClosedError):
        caller.wait(third, timeout=30)
    with pytest.raises(PeerClosedError):
        caller.call(b"x", 1)


def test_a_caller_that_closes_has_its_calls_served_first(rpc):
    caller, callee = rpc()
    caller.call(b"1", 1)
    caller.close()
    with callee.serve(timeout=30) as rx:
        cid = rx.correlation_id
        assert bytes(rx) == b"1"
    with pytest.raises(PeerClosedError):
        callee.serve(timeout=30)
    with pytest.raises(PeerClosedError):
        callee.reply(cid, b"late")


def test_a_callee_that_dies_is_noticed_by_the_waiting_caller(path, spawn):
    spawn(
        """
        callee = tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60)
        with callee.serve() as rx: cid = rx.correlation_id
        callee.reply(cid, b"first")
        with callee.serve() as rx: pass
        say("served")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )
    with RpcBus.connect(path, timeout=60) as caller:
        first, second = caller.call(b"", 1), caller.call(b"", 1)
        with pytest.raises(PeerDeadError) as caught:
            caller.wait(second, timeout=30)
        assert caught.value.reason == "died"
        assert not isinstance(caught.value, PeerClosedError)
        assert result(caller, first) == b"first"


def test_a_caller_that_dies_is_noticed_by_the_serving_callee(path, spawn):
    child = spawn(CALLEE, path)
    other = spawn("caller = tachyon.RpcBus.connect(path, timeout=60); say('open'); hear()", path)
    other.says("open")
    child.says("open")
    other.kill()
    child.says("died")
    child.ends()


@pytest.mark.parametrize("which", ["callee", "caller"])
def test_closing_ends_a_wait_in_another_thread(rpc, run_thread, until, which):
    caller, callee = rpc()
    cid = caller.call(b"x", 1)
    with callee.serve(timeout=30):
        pass
    bus = callee if which == "callee" else caller
    waiting = run_thread((lambda: callee.serve()) if which == "callee" else (lambda: caller.wait(cid)))
    ring = "calls" if which == "callee" else "replies"
    until(lambda: bus.stats()[ring]["parks"] > 0)
    bus.close()
    with pytest.raises(BusClosedError):
        waiting.result(30)
    assert bus.closed
    bus.close()


def test_two_threads_at_once_are_refused(rpc, run_thread, until):
    caller, _ = rpc()
    first, second = caller.call(b"x", 1), caller.call(b"y", 1)
    waiting = run_thread(lambda: caller.wait(first))
    until(lambda: caller.stats()["replies"]["parks"] > 0)
    with pytest.raises(BusBusyError):
        caller.wait(second, timeout=0)
    third = caller.call(b"z", 1)  # the other direction is free
    assert third == 3
    caller.close()
    with pytest.raises(BusClosedError):
        waiting.result(30)


def test_after_close_everything_is_refused(rpc):
    caller, callee = rpc()
    cid = caller.call(b"x", 1)
    caller.close()
    callee.close()
    assert "closed" in repr(caller)
    for use in (
        lambda: caller.call(b"x", 1),
        lambda: caller.wait(cid),
        lambda: caller.cancel(cid),
        caller.stats,
        callee.serve,
        lambda: callee.reply(1, b""),
        lambda: caller.set_polling_mode(True),
        caller.__enter__,
    ):
        with pytest.raises(BusClosedError):
            use()


@pytest.mark.parametrize(
    ("use", "ends"),
    [
        ("bus.wait(cid, timeout=0.5)", "BusEmptyError"),
        ("bus.wait(cid, timeout=0)", "BusEmptyError"),
        ("bus.wait(cid)", "KeyboardInterrupt"),
        ("bus.call(b'', 1, timeout=0.5)", "BusFullError"),
        ("bus.call_zero_copy(0, 1, timeout=0.5)", "BusFullError"),
        ("bus.call(b'', 1)", "KeyboardInterrupt"),
        ("tachyon.RpcEndpoint(bytes, 1).call(bus, b'', timeout=0.5)", "BusFullError"),
        ("first.call(bus, b'', timeout=0.5)", "BusEmptyError"),
        ("first.call(bus, b'', bytes, timeout=0.5)", "BusEmptyError"),
        ("first.call(bus, b'')", "KeyboardInterrupt"),
    ],
)
def test_a_flood_of_replies_that_nobody_asked_for_stops_neither_the_clock_nor_signals_nor_threads(
    path, spawn, use, ends
):
    callee = spawn(FLOOD, path, 64, 1 << 28, 30)
    caller = spawn(
        f"""
        import threading
        bus = tachyon.RpcBus.connect(path, timeout=60)
        first = tachyon.RpcEndpoint(bytes, 1)
        if {not use.startswith("first")}: cid = bus.call(b"", 1)  # there is no room for a second one
        say("called")
        hear()
        def count():
            global ticks
            while True:
                ticks += 1
                time.sleep(0.001)
        ticks = 0
        threading.Thread(target=count, daemon=True).start()
        say("waiting")
        before = ticks
        try:
            {use}
        except (KeyboardInterrupt, tachyon.TachyonError) as error:
            say(type(error).__name__, {use.endswith("=0)")} or ticks - before > 20)
        """,
        path,
    )
    caller.says("called")
    callee.says("full")
    caller.tell()
    caller.says("waiting")
    if ends == "KeyboardInterrupt":
        time.sleep(2)  # the other thread has to get its turns, on a slow machine too
        caller.send_signal(signal.SIGINT)
    caller.says(f"{ends} True")
    callee.tell()
    callee.says("flooding")


def test_a_reply_that_is_there_is_found_at_once_whatever_is_before_it(rpc):
    caller, callee = rpc(1 << 22, 1 << 22)
    ids = [caller.call(b"", 1, timeout=30) for _ in range(10_000)]
    for cid in ids:
        assert answer(callee, lambda _, cid=cid: b"%d" % cid) == cid
    assert result(caller, ids[-1], timeout=0) == b"10000"
    assert caller.stats()["set_aside"] == 9_999
    for cid in ids[:-1]:
        assert result(caller, cid, timeout=0) == b"%d" % cid


@pytest.mark.parametrize("use", ["callee.serve()", "caller.wait(cid)"])
def test_ctrl_c_ends_a_wait(path, spawn, use):
    child = spawn(
        f"""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(1) as pool:
            listening = pool.submit(tachyon.RpcBus.listen, path, 1 << 16, 1 << 16, timeout=60)
            caller = tachyon.RpcBus.connect(path, timeout=60)
            callee = listening.result()
        cid = caller.call(b"x", 1)
        with callee.serve() as rx: pass
        say("waiting")
        try:
            {use}
        except KeyboardInterrupt:
            say("interrupted")
        callee.reply(cid, b"fine")
        with caller.wait(cid) as rx: say(bytes(rx))
        """,
        path,
    )
    child.says("waiting")
    child.falls_asleep()
    child.send_signal(signal.SIGINT)
    child.says("interrupted", "b'fine'")
    child.ends()


def test_a_forked_child_may_not_use_it_and_does_not_hide_a_death(path, spawn):
    child = spawn(
        """
        caller = tachyon.RpcBus.connect(path, timeout=60)
        if os.fork() == 0:
            for use in (lambda: caller.call(b"", 1), lambda: caller.wait(1)):
                try: use()
                except tachyon.BusClosedError: say("refused")
            time.sleep(60)
        hear()
        """,
        path,
    )
    callee = RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60)
    child.says("refused", "refused")
    child.kill()
    with pytest.raises(PeerDeadError) as caught:
        callee.serve(timeout=30)
    assert caught.value.reason == "died"


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


def test_the_msg_type_of_a_guard_stays_within_its_bounds(rpc):
    caller, callee = rpc()
    with caller.call_zero_copy(1, 5) as tx:
        for bad, error in ((0xFFFF, ValueError), (0x10000, OverflowError), (-1, OverflowError)):
            with pytest.raises(error, match="msg_type"):
                tx.type_id = bad
        tx.type_id = 6
        cid = tx.correlation_id
    with callee.serve(timeout=30) as rx:
        assert rx.type_id == 6
    with callee.reply_zero_copy(cid, 1, 5) as tx:
        with pytest.raises(OverflowError, match="msg_type"):
            tx.type_id = 0x10000
        tx.type_id = 0xFFFF
    with caller.wait(cid, timeout=30) as rx:
        assert rx.type_id == 0xFFFF


def test_an_rpc_bus_that_was_never_opened_says_so():
    bus = RpcBus.__new__(RpcBus)
    assert (bus.max_request_size, bus.max_reply_size, bus.peer_pid, bus.closed) == (0, 0, 0, True)
    assert tachyon.Bus.__new__(tachyon.Bus).max_message_size == 0
    for use in (
        bus.stats,
        lambda: bus.set_polling_mode(True),
        lambda: bus.set_numa_node(0),
        lambda: bus.call(b"", 1),
        lambda: bus.serve(),
        lambda: tachyon.tachyon_rpc(1)(bytes).call(bus, b""),
    ):
        with pytest.raises(tachyon.BusClosedError, match="never opened"):
            use()


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
