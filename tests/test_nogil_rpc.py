"""The nogil methods of RpcBus."""

import signal
import time

import pytest
from downstream import need_compiler
from hostile import FLOOD
from nogil_hands import BAD_TYPE, CLAIM_OPEN, EMPTY, FULL, NO_CLAIM, OK, SECOND, TOO_LARGE, UNKNOWN_CALL, WRONG_SIDE

need_compiler()


@pytest.mark.parametrize(
    ("use", "ends"),
    [
        ("peek_reply(1, 500_000_000)", EMPTY),
        ("try_peek_reply(1)", EMPTY),
        ("peek_reply(1, -1)", None),
        ("call(b'', 1, 500_000_000)", FULL),
        ("claim_call(0, 500_000_000)", FULL),
        ("call(b'', 1, -1)", None),
    ],
)
def test_a_flood_of_replies_that_nobody_asked_for_stops_neither_the_clock_nor_signals(
    nogil_folder, spawn, path, use, ends
):
    callee = spawn(FLOOD, path, 64, 1 << 28, 30)
    caller = spawn(
        f"""
        import threading
        sys.path.insert(0, sys.argv[2])
        import nogil_user
        bus = tachyon.RpcBus.connect(path, timeout=60)
        hand = nogil_user.RpcHand(bus)
        bus.call(b"", 1)  # there is no room for a second one
        say("called")
        hear()
        say("waiting")
        try: say(hand.{use})
        except KeyboardInterrupt: say(None)
        """,
        path,
        nogil_folder,
    )
    caller.says("called")
    callee.says("full")
    caller.tell()
    caller.says("waiting")
    if ends is None:
        time.sleep(0.3)
        caller.send_signal(signal.SIGINT)
    caller.says(str(ends))
    callee.tell()
    callee.says("flooding")


def test_a_reply_that_is_there_is_found_at_once_whatever_is_before_it(rpc_hands):
    caller, callee = rpc_hands(1 << 20, 1 << 20)
    for _ in range(3000):
        assert caller.try_call(b"", 1) == OK
        assert callee.try_peek_call() == OK
        assert callee.try_reply(callee.frame_id, b"%d" % callee.frame_id, 2) == OK
        assert callee.release_call() == OK
    assert caller.try_peek_reply(3000) == OK
    assert caller.read() == (2, b"3000")
    assert caller.release_reply() == OK


def test_calls_and_replies_by_copy(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_call(b"one", 1) == OK
    first = caller.id
    assert caller.call(b"two", 2, -1) == OK
    second = caller.id
    assert first != second
    assert callee.peek_call(-1) == OK
    assert (callee.frame_id, callee.read()) == (first, (1, b"one"))
    assert callee.release_call() == OK
    assert callee.try_peek_call() == OK
    assert callee.read() == (2, b"two")
    assert callee.reply(second, b"TWO", 3, -1) == OK  # before the call is released, and not in order
    assert callee.release_call() == OK
    assert callee.try_reply(first, b"ONE", 4) == OK
    assert caller.peek_reply(first, -1) == OK
    assert caller.read() == (4, b"ONE")
    assert caller.try_peek_reply(second) == CLAIM_OPEN
    assert caller.release_reply() == OK
    assert caller.release_reply() == NO_CLAIM
    assert caller.try_peek_reply(second) == OK  # which was set aside
    assert caller.read() == (3, b"TWO")
    assert caller.release_reply() == OK
    assert caller.try_peek_reply(second) == UNKNOWN_CALL
    assert callee.try_reply(first, b"again", 4) == UNKNOWN_CALL
    assert callee.try_peek_call() == EMPTY
    assert callee.peek_call(1000) == EMPTY


def test_calls_and_replies_in_place(rpc_hands):
    caller, callee = rpc_hands()
    assert caller.try_claim_call(100) == OK
    assert caller.try_claim_call(100) == CLAIM_OPEN
    assert caller.abort_call() == OK
    assert caller.commit_call(3, 9) == NO_CLAIM
    assert caller.claim_call(100, -1) == OK
    caller.write(b"abc")
    assert caller.commit_call(3, 9) == OK
    assert callee.peek_call(-1) == OK
    assert callee.read() == (9, b"abc")
    assert callee.try_claim_reply(77, 1) == UNKNOWN_CALL
    assert callee.try_claim_reply(callee.frame_id, 10) == OK
    assert callee.abort_reply() == OK
    assert callee.claim_reply(callee.frame_id, 10, -1) == OK
    callee.write(b"cba")
    assert callee.commit_reply(77, 3, 1) == UNKNOWN_CALL
    assert callee.commit_reply(callee.frame_id, 3, 10) == OK
    assert callee.try_claim_reply(callee.frame_id, 1) == UNKNOWN_CALL  # answered
    assert callee.release_call() == OK
    assert caller.peek_reply(caller.id, -1) == OK
    assert caller.read() == (10, b"cba")
    assert caller.release_reply() == OK


def test_each_method_of_rpc_is_for_one_side(rpc_hands):
    caller, callee = rpc_hands()
    assert [
        callee.try_call(b"", 1), callee.try_claim_call(1), callee.commit_call(1, 1), callee.abort_call(),
        callee.try_peek_reply(1), callee.release_reply(), callee.cancel_call(1), callee.call(b"", 1, -1),
    ] == [WRONG_SIDE] * 8  # fmt: skip
    assert [
        caller.try_peek_call(), caller.release_call(), caller.try_reply(1, b"", 0), caller.try_claim_reply(1, 1),
        caller.commit_reply(1, 1, 1), caller.abort_reply(), caller.peek_call(-1), caller.reply(1, b"", 0, -1),
    ] == [WRONG_SIDE] * 8  # fmt: skip


def test_a_call_that_was_not_sent_has_no_reply(rpc_hands):
    caller, _ = rpc_hands()
    assert caller.try_claim_call(8) == OK
    assert caller.commit_call(1000, 1) == TOO_LARGE
    assert caller.try_peek_reply(caller.id) == UNKNOWN_CALL
    assert caller.cancel_call(caller.id) == UNKNOWN_CALL


def test_a_msg_type_out_of_bounds_is_refused(rpc_hands):
    caller, callee = rpc_hands()
    for wrong in (65535, 65536, 1 << 31):  # the first says that a call has failed
        assert caller.try_call(b"x", wrong) == BAD_TYPE
        assert caller.call(b"x", wrong, -1) == BAD_TYPE
        assert caller.try_claim_call(8) == OK
        assert caller.commit_call(8, wrong) == BAD_TYPE
        assert caller.abort_call() == OK  # the claim was still open
    with pytest.raises(ValueError, match="msg_type is out of bounds"):
        caller.raise_for_status(BAD_TYPE)
    assert callee.try_peek_call() == EMPTY
    assert caller.try_call(b"x", 65534) == OK
    assert callee.try_peek_call() == OK
    number = callee.frame_id
    assert callee.release_call() == OK
    for wrong in (65536, 1 << 31):
        assert callee.try_reply(number, b"x", wrong) == BAD_TYPE
        assert callee.reply(number, b"x", wrong, -1) == BAD_TYPE
        assert callee.try_claim_reply(number, 8) == OK
        assert callee.commit_reply(number, 8, wrong) == BAD_TYPE
        assert callee.abort_reply() == OK
    assert callee.try_reply(number, b"no", 65535) == OK


def test_a_cancelled_call_is_unknown(rpc_hands):
    caller, _ = rpc_hands()
    assert caller.try_call(b"x", 1) == OK
    assert caller.cancel_call(caller.id) == OK
    assert caller.cancel_call(caller.id) == UNKNOWN_CALL
    assert caller.try_peek_reply(caller.id) == UNKNOWN_CALL


def test_who_replies_to_no_call_is_not_told_of_waiting(rpc_hands):
    _, callee = rpc_hands()
    assert callee.try_reply(1, b"", 1) == UNKNOWN_CALL
    with pytest.raises(ValueError, match=r"no such call: .* answered already") as raised:
        callee.raise_for_status(UNKNOWN_CALL)
    assert "wait" not in str(raised.value)


def test_what_no_room_and_no_message_are_called_in_rpc(rpc_hands):
    caller, callee = rpc_hands(64, 64, max_large=0)
    assert caller.try_call(bytes(49), 1) == caller.call(bytes(49), 1, -1) == caller.claim_call(49, -1) == TOO_LARGE
    assert caller.call(b"first", 1, SECOND) == OK
    first = caller.id
    assert caller.try_call(b"", 1) == caller.try_claim_call(0) == FULL
    for timeout in (0, SECOND // 10):  # two slices
        assert caller.call(b"", 1, timeout) == caller.claim_call(0, timeout) == FULL
        assert caller.peek_reply(first, timeout) == EMPTY
    assert caller.try_peek_reply(first) == EMPTY
    assert callee.peek_call(SECOND) == OK
    assert callee.release_call() == OK
    assert caller.claim_call(6, SECOND) == OK
    caller.write(b"second")
    assert caller.commit_call(6, 1) == OK
    assert callee.peek_call(SECOND) == OK
    assert callee.release_call() == OK
    second = callee.frame_id
    assert callee.try_reply(first, bytes(49), 1) == callee.reply(first, bytes(49), 1, -1) == TOO_LARGE
    assert callee.try_claim_reply(first, 49) == callee.claim_reply(first, 49, -1) == TOO_LARGE
    assert callee.reply(first, b"one", 1, SECOND) == OK
    assert callee.try_reply(second, b"", 1) == callee.try_claim_reply(second, 0) == FULL
    for timeout in (0, SECOND // 10):
        assert callee.reply(second, b"", 1, timeout) == callee.claim_reply(second, 0, timeout) == FULL
        assert callee.peek_call(timeout) == EMPTY
    assert caller.peek_reply(first, SECOND) == OK
    assert caller.read() == (1, b"one")
    assert caller.release_reply() == OK
    assert callee.claim_reply(second, 3, SECOND) == OK
    callee.write(b"two")
    assert callee.commit_reply(second, 4000, 1) == TOO_LARGE  # and still open
    assert callee.commit_reply(second, 3, 1) == OK
    assert caller.peek_reply(second, SECOND) == OK
    assert caller.read() == (1, b"two")


def test_a_reply_is_released_as_it_was_whatever_its_frame_says_by_now(rpc_hands):
    caller, callee = rpc_hands()
    numbers = []
    for answer in (b"one", b"two"):
        assert caller.try_call(b"x", 1) == OK
        numbers.append(caller.id)
        assert callee.try_peek_call() == OK
        assert callee.try_reply(callee.frame_id, answer, 1) == OK
        assert callee.release_call() == OK
    assert caller.try_peek_reply(numbers[0]) == OK
    caller.change(1, 0, 0)
    assert caller.release_reply() == NO_CLAIM  # of another call
    caller.change(-1, 64, 64)  # into the next reply, which must not be cleared
    assert caller.release_reply() == OK
    assert caller.try_peek_reply(numbers[1]) == OK
    assert caller.read() == (1, b"two")
    assert caller.release_reply() == OK


def test_calls_and_replies_wait_for_room(run_thread, rpc, nogil, until):
    caller, callee = rpc(64, 64)
    asking, answering = nogil.RpcHand(caller), nogil.RpcHand(callee)
    numbers = [caller.call(b"first", 1)]
    waiting = run_thread(asking.claim_call, 8, -1)
    until(lambda: caller.stats()["calls"]["parks"] > 0)
    assert answering.peek_call(-1) == OK
    assert answering.release_call() == OK
    assert waiting.result(60) == OK
    asking.write(b"s")
    assert asking.commit_call(1, 1) == OK
    numbers.append(asking.id)
    assert answering.peek_call(-1) == OK
    assert answering.release_call() == OK
    assert answering.reply(numbers[0], b"one", 1, -1) == OK
    waiting = run_thread(answering.reply, numbers[1], b"two", 2, -1)
    until(lambda: callee.stats()["replies"]["parks"] > 0)
    for number, answer in zip(numbers, [(1, b"one"), (2, b"two")], strict=True):
        assert asking.peek_reply(number, -1) == OK
        assert asking.read() == answer
        assert asking.release_reply() == OK
    assert waiting.result(60) == OK


def test_a_full_ring_of_calls_does_not_lock_up_with_a_full_ring_of_replies(run_thread, rpc, nogil):
    """The callee waits for room for a reply, the caller for room for a call: the caller must take replies meanwhile."""
    caller, callee = rpc(64, 64)
    serving = run_thread(nogil.echo, callee, 50)
    hand = nogil.RpcHand(caller)
    ids = []
    for i in range(50):
        assert hand.call(bytes([i]), 1, 60 * SECOND) == OK
        ids.append(hand.id)
    for i, number in enumerate(ids):
        assert hand.peek_reply(number, 60 * SECOND) == OK
        assert hand.read() == (2, bytes([i]))
        assert hand.release_reply() == OK
    serving.result(60)


def test_calls_between_two_processes_without_the_gil(nogil_folder, spawn, path):
    start = f"sys.path.insert(0, {str(nogil_folder)!r}); import nogil_user; bus = tachyon.RpcBus."
    callee = spawn(start + "listen(path, 4096, 4096, timeout=60); nogil_user.echo(bus, 50_000); say('served')", path)
    caller = spawn(
        start + "connect(path, timeout=60); say(nogil_user.ask(bus, 50_000)); hear()",
        path,
    )
    caller.says("0")
    callee.says("served")
    caller.tell("end")
    caller.ends()
    callee.ends()
