"""What RpcBus refuses."""

import contextlib
import copy
import os
import pickle

import pytest
from rpc_sides import answer, result

import tachyon
from tachyon import (
    BusBusyError,
    BusClosedError,
    CapacityError,
    MessageTooLargeError,
    RpcBus,
)

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
    caller, callee = rpc(1024, 256, max_large=0)
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


# ---- the other side's end --------------------------------------------------------------------------------------------


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


# ---- meeting the wrong kind ------------------------------------------------------------------------------------------


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
