"""RpcBus when the other side closes, dies or forks."""

import pytest
from rpc_sides import CALLEE, answer, result

from tachyon import (
    BusClosedError,
    PeerClosedError,
    PeerDeadError,
    RpcBus,
)


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
