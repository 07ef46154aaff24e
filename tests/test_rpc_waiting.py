"""RpcBus's waits: time, room, replies set aside, and floods."""

import signal
import time

import pytest
from hostile import FLOOD
from rpc_sides import CALLEE, answer, in_place, result

from tachyon import (
    BusEmptyError,
    BusFullError,
    RpcBus,
)

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
            # Some hundred on a quiet machine; none or one where the GIL is never let go of.
            say(type(error).__name__, {use.endswith("=0)")} or ticks - before > 5)
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
