"""Python code that runs in the middle of a call of ours: it may raise, or use the very bus. Nothing breaks."""

import pytest

import tachyon
from tachyon import BusClosedError, RpcBus, RpcDispatcher, RpcError, tachyon_rpc


def test_a_polling_mode_whose_truth_raises_leaves_the_bus_usable(pair):
    class Torn:
        def __bool__(self):
            raise ZeroDivisionError

    producer, consumer = pair()
    with pytest.raises(ZeroDivisionError):
        producer.set_polling_mode(Torn())
    producer.send(b"x")
    assert consumer.recv(timeout=30).data == b"x"


def test_dlpack_arguments_that_leave_the_block_get_no_tensor(pair):
    producer, consumer = pair()
    producer.send(b"mine")
    guard = consumer.recv_zero_copy(timeout=30)

    class Version:
        def __getitem__(self, index):
            guard.__exit__(None, None, None)
            return 1

    with pytest.raises(BusClosedError, match="over"):
        guard.__dlpack__(max_version=Version())


@pytest.mark.parametrize("use", ["tachyon.Bus.listen(path, 4096)", "tachyon.Bus.connect(path, timeout=None)"])
def test_a_daemon_thread_in_set_up_does_not_abort_the_exit(path, spawn, use):
    code = f"""
        import threading
        threading.Thread(target=lambda: {use}, daemon=True).start()
        class Slow:
            def __del__(self, sleep=time.sleep): sleep(0.3)
        slow = Slow()
        time.sleep(0.1)
    """
    children = [spawn(code, f"{path}{i}") for i in range(8)]  # only in every other one the thread asks in time
    for child in children:
        assert child.ends() == ""


def test_a_timeout_that_calls_gets_an_id_of_its_own(rpc):
    caller, callee = rpc()

    class Timeout:
        def __float__(self):
            inner.append(caller.call(b"inner", 1))
            return 30.0

    inner = []
    outer = caller.call(b"outer", 1, timeout=Timeout())
    assert (inner, outer) == ([1], 2)
    for expected in ((1, b"inner"), (2, b"outer")):
        with callee.serve(timeout=30) as rx:
            assert (rx.correlation_id, bytes(rx)) == expected


def test_an_rpc_bus_that_was_never_opened_says_so():
    bus = RpcBus.__new__(RpcBus)
    assert bus.closed
    assert "closed" in repr(bus)
    bus.close()
    for use in (lambda: bus.call(b"", 1), lambda: bus.wait(1), bus.serve, lambda: bus.reply(1, b""), bus.__enter__):
        with pytest.raises(BusClosedError, match="never opened"):
            use()


# ---- the dispatcher --------------------------------------------------------------------------------------------------


def serve_one(rpc, run_thread, handler, **options):
    """(caller, the running serve_forever) with `handler` at msg_type 9."""
    caller, callee = rpc()
    dispatcher = RpcDispatcher(**options)
    dispatcher.handler(9)(handler)
    return caller, run_thread(dispatcher.serve_forever, callee)


def test_a_caller_that_goes_before_its_answer_ends_the_loop_quietly(rpc, run_thread, caplog):
    caller, serving = serve_one(rpc, run_thread, lambda payload: caller.close() or b"x")
    caller.call(b"hello", 9)
    assert serving.result(30) is None
    assert not caplog.records


def test_a_chained_failure_frees_the_request(rpc, run_thread):
    def parse(payload):
        head = payload[:2]
        raise KeyError(len(head))

    def handler(payload):
        try:
            parse(payload)
        except KeyError as error:
            raise ValueError from error

    caller, serving = serve_one(rpc, run_thread, handler)
    for _ in range(2):
        with pytest.raises(RpcError):
            tachyon_rpc(9)(bytes).call(caller, b"abc", timeout=30)
    caller.close()
    serving.result(30)


def test_a_failure_that_means_something_else_by_exceptions_does_not_end_the_loop(rpc, run_thread):
    class Unavailable(Exception):
        @property
        def exceptions(self):
            raise RuntimeError("not today")

    counted, named = Exception(), Exception()
    counted.exceptions = 3
    named.exceptions = ["ValueError"]
    failures = [counted, named, Unavailable()]

    def handler(payload):
        raise failures.pop()

    caller, serving = serve_one(rpc, run_thread, handler)
    for _ in range(3):
        with pytest.raises(RpcError):
            tachyon_rpc(9)(bytes).call(caller, b"", timeout=30)
    caller.close()
    serving.result(30)


def test_a_failure_that_cannot_be_printed_is_answered(rpc, run_thread):
    class Torn(Exception):
        def __str__(self):
            raise ZeroDivisionError

    def handler(payload):
        raise Torn

    caller, serving = serve_one(rpc, run_thread, handler, send_details=True)
    with pytest.raises(RpcError, match="Torn"):
        tachyon_rpc(9)(bytes).call(caller, b"abc", timeout=30)
    caller.close()
    serving.result(30)


def test_a_type_id_beyond_a_msg_type_is_answered(rpc):
    caller, callee = rpc()
    cid = caller.call(b"x", 0x2345)
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as memory:
        for line in maps:  # as only a peer that is not ours would send it
            if "memfd:tachyon" in line:
                memory.seek(int(line.split("-")[0], 16) + 4096)
                if memory.read(8) == b"\x02\0\0\0\x45\x23\0\0":
                    memory.seek(-8, 1)
                    memory.write(b"\x02\0\0\0\x45\x23\1\0")
    with pytest.raises(RpcError):
        RpcDispatcher().serve_once(callee, timeout=30)
    with caller.wait(cid, timeout=30) as rx:
        assert (rx.type_id, bytes(rx)) == (tachyon.MSG_TYPE_ERROR, b"\x23\x45")


def test_an_endpoint_keeps_its_own_msg_type():
    inner = tachyon_rpc(1)(bytes)
    assert (tachyon_rpc(2)(inner).msg_type, inner.msg_type) == (2, 1)
