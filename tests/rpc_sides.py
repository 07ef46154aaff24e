"""One answer and one result over an RpcBus, and a callee in a process of its own."""

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


def in_place(claimed):
    with claimed as tx:
        memoryview(tx)[:] = b"late"
        return tx.correlation_id
