"""The published README's examples, unchanged, as two processes each."""

import contextlib
import fcntl
import os
import struct

import pytest

import tachyon

# Word for word from the README of tachyon-ipc 0.5.1, tabs and comments included.
QUICKSTART_CONSUMER = """\
# consumer
import tachyon

with tachyon.Bus.listen("/tmp/demo.sock", 1 << 16) as bus:
	for msg in bus:
		print(f"received {msg.size} bytes type_id={msg.type_id}")
		break
"""

QUICKSTART_PRODUCER = """\
# producer
import tachyon

with tachyon.Bus.connect("/tmp/demo.sock") as bus:
	bus.send(b"hello tachyon", type_id=1)
"""

ZERO_COPY_TX = """\
with bus.send_zero_copy(size=64, type_id=7) as tx:
	with memoryview(tx) as m:
		m[:len(payload)] = payload
	tx.actual_size = len(payload)
# auto-flushes on context exit
"""

ZERO_COPY_RX = """\
with bus.recv_zero_copy() as rx:
	with memoryview(rx) as m:
		snapshot = m.tobytes()  # copy before context exit
# slot committed on __exit__
"""

BATCH_RX = """\
with bus.drain_batch(max_msgs=64) as batch:
	for msg in batch:
		print(msg.type_id, msg.actual_size)
# all slots committed on __exit__
"""

TYPE_IDS = """\
from tachyon import make_type_id, route_id, msg_type

type_id = make_type_id(0, 42)  # == 42
route_id(type_id)  # 0
msg_type(type_id)  # 42
"""

ERROR_HANDLING = """\
from tachyon import TachyonError, PeerDeadError

try:
	with tachyon.Bus.connect("/tmp/demo.sock") as bus:
		bus.send(b"ping")
except PeerDeadError:
	# Bus entered FATAL_ERROR: corrupted header. Destroy immediately.
	pass
except TachyonError as e:
	print(e)
"""

NUMA = """\
with tachyon.Bus.listen(path, 1 << 20) as bus:
	bus.set_numa_node(0)  # call before first message
"""

RPC_CALLEE = """\
# callee
with tachyon.RpcBus.listen("/tmp/rpc.sock", 1 << 16, 1 << 16) as callee:
	with callee.serve() as rx:
		cid = rx.correlation_id
		with memoryview(rx) as m:
			reply = m.tobytes()
	callee.reply(cid, reply, msg_type=2)
"""

RPC_CALLER = """\
# caller
with tachyon.RpcBus.connect("/tmp/rpc.sock") as caller:
	cid = caller.call(b"ping", msg_type=1)
	with caller.wait(cid) as rx:
		with memoryview(rx) as m:
			print(m.tobytes())
"""

DECORATOR = """\
import tachyon
from tachyon import tachyon_rpc, RpcDispatcher


@tachyon_rpc(msg_type=1)
def echo(payload: memoryview) -> bytes:
	return payload.tobytes()


dispatcher = RpcDispatcher()
dispatcher.register(echo)

"""

DECORATOR_CALLEE = """\
# callee
with tachyon.RpcBus.listen("/tmp/rpc.sock", 1 << 16, 1 << 16) as callee:
	dispatcher.serve_forever(callee)
"""

DECORATOR_CALLER = """\
# caller
with tachyon.RpcBus.connect("/tmp/rpc.sock") as caller:
	response = echo.call(caller, b"hello")
	print(response)
"""

DEMO = "/tmp/demo.sock"
RPC = "/tmp/rpc.sock"


@contextlib.contextmanager
def alone_at(path, kind):
    """The path in the examples is the same for everybody: one run of these tests at a time."""
    with open(f"{path}.{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(tachyon.TachyonError):
            kind.connect(path).close()
            pytest.skip(f"somebody listens on {path}")
        yield path


@pytest.fixture
def demo():
    with alone_at(DEMO, tachyon.Bus) as path:
        yield path


@pytest.fixture
def rpc_path():
    with alone_at(RPC, tachyon.RpcBus) as path:
        yield path


def as_code(example):
    """To run an example as it stands within a program of ours."""
    return f"exec(compile({example!r}, 'README.md', 'exec'))\n"


def test_the_quickstart(spawn, demo, until):
    consumer = spawn(as_code(QUICKSTART_CONSUMER))
    until(lambda: os.path.exists(demo))
    until(lambda: consumer.state() == "S")
    producer = spawn(as_code(QUICKSTART_PRODUCER))
    consumer.says("received 13 bytes type_id=1")
    assert producer.ends() == ""
    assert consumer.ends() == ""
    assert not os.path.exists(demo)


def test_zero_copy(spawn, path):
    consumer = spawn(
        "bus = tachyon.Bus.listen(path, 1 << 16)\n" + as_code(ZERO_COPY_RX) + "say(snapshot); hear()", path
    )
    producer = spawn(
        "bus = tachyon.Bus.connect(path, timeout=60); payload = b'in place'\n" + as_code(ZERO_COPY_TX) + "hear()", path
    )
    consumer.says("b'in place'")
    for child in (producer, consumer):
        child.ends()


def test_zero_copy_sends_the_type(spawn, path):
    producer = spawn("bus = tachyon.Bus.connect(path, timeout=60); payload = b'x' * 64\n" + as_code(ZERO_COPY_TX), path)
    with tachyon.Bus.listen(path, 1 << 16, timeout=60) as bus:
        assert bus.recv() == tachyon.Message(7, 64, b"x" * 64)
    producer.ends()


def test_batches(spawn, path):
    consumer = spawn(
        "bus = tachyon.Bus.listen(path, 1 << 16); hear()\n" + as_code(BATCH_RX) + "sys.stdout.flush()", path
    )
    with tachyon.Bus.connect(path, timeout=60) as bus:
        bus.send_many([(b"a", 1), (b"bc", 2), (b"", 3)])
        consumer.tell("now")
        consumer.says("1 1", "2 2", "3 0")
    consumer.ends()


def test_the_low_level_rpc(spawn, rpc_path, until):
    callee = spawn(as_code(RPC_CALLEE))
    until(lambda: os.path.exists(rpc_path))
    until(lambda: callee.state() == "S")
    caller = spawn(as_code(RPC_CALLER))
    caller.says("b'ping'")
    assert caller.ends() == ""
    assert callee.ends() == ""
    assert not os.path.exists(rpc_path)


def test_the_rpc_decorators(spawn, rpc_path, until):
    callee = spawn(as_code(DECORATOR + DECORATOR_CALLEE))
    until(lambda: os.path.exists(rpc_path))
    until(lambda: callee.state() == "S")
    caller = spawn(as_code(DECORATOR + DECORATOR_CALLER))
    caller.says("b'hello'")
    assert caller.ends() == ""
    assert callee.ends() == ""


def test_the_rpc_error_reply_is_decoded():
    assert tachyon._decode_error(struct.pack("!H", 77)) == 77
    assert tachyon.MSG_TYPE_ERROR == 0xFFFF


def test_type_ids():
    space = {}
    exec(TYPE_IDS, space)
    assert (space["type_id"], space["route_id"](42), space["msg_type"](42)) == (42, 0, 42)


def test_error_handling_with_nobody_there(spawn, demo):
    child = spawn(as_code(ERROR_HANDLING))
    text = child.ends()
    assert demo in text
    assert "no listener" in text


def test_error_handling_with_a_listener(spawn, demo, until):
    listener = spawn("with tachyon.Bus.listen('/tmp/demo.sock', 4096) as bus: say([m.data for m in bus])")
    until(lambda: os.path.exists(demo))
    until(lambda: listener.state() == "S")
    child = spawn(as_code(ERROR_HANDLING))
    assert child.ends() == ""
    listener.says("[b'ping']")
    listener.ends()


def test_numa(spawn, path):
    listener = spawn(as_code(NUMA) + "say('bound', bus.closed)", path)
    with tachyon.Bus.connect(path, timeout=60):
        listener.says("bound True")
    listener.ends()


def test_the_symbols_of_the_published_table():
    for name in ("Bus", "TxGuard", "RxGuard", "RxBatchGuard", "Message", "TachyonError", "PeerDeadError"):
        assert name in tachyon.__all__
        assert isinstance(getattr(tachyon, name), type)
