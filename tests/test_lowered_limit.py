"""A process that has lowered its limit on descriptors, as one that gives up privileges, learns of a death too."""

import pytest

LOWERED = """
import errno, resource
def lowered():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), hard))
def ends(call):
    until = time.monotonic() + 30
    try:
        while time.monotonic() < until: call()
    except tachyon.PeerDeadError as error: return error.reason
    except tachyon.TachyonError as error: return repr(error)
    return "never"
"""
PEER = """
peer = getattr(tachyon, sys.argv[2]).connect(path, timeout=60)
if hasattr(peer, "send"):
    if len(sys.argv) > 3: peer.send(b"x")
else:
    if len(sys.argv) > 3: peer.call(b"x", 1)
say("there")
hear()
"""
ECHOED = """
peer = tachyon.RpcBus.connect(path, timeout=60)
for text in b"before", b"after":
    with peer.wait(peer.call(text, 1), timeout=30) as rx: say(bytes(rx))
    hear()
"""


@pytest.fixture(params=[0, 1])
def limit(request):
    return request.param


def finds_out(spawn, path, limit, kind, listening, uses):
    """The listener's uses, in a process of its own with a lowered limit, after its peer was killed."""
    child = spawn(LOWERED + listening + "\nlowered()\nsay('lowered')\nhear()\n" + uses, path, limit)
    peer = spawn(PEER, path, kind)
    peer.says("there")
    child.says("lowered")
    peer.kill()
    child.tell()
    child.says("died")
    child.ends()


@pytest.mark.parametrize(
    "use",
    [
        "lambda: bus.recv(timeout=3)",
        "lambda: bus.recv()",
        "lambda: next(bus)",
        "lambda: bus.recv_zero_copy()",
        "lambda: bus.send(b'x')",
        "lambda: bus.try_send(b'x')",
        "lambda: bus.send_many([b'x'] * 10)",
    ],
)
def test_a_bus(spawn, path, limit, use):
    finds_out(spawn, path, limit, "Bus", "bus = tachyon.Bus.listen(path, 1 << 20, timeout=60)", f"say(ends({use}))")


@pytest.mark.parametrize("use", ["lambda: bus.recv(timeout=3)", "lambda: bus.recv()", "lambda: bus.send(b'x')"])
def test_a_death_during_the_call(spawn, path, limit, use):
    child = spawn(
        LOWERED + f"bus = tachyon.Bus.listen(path, 1 << 12, timeout=60)\nlowered()\nsay('lowered')\nsay(ends({use}))\n",
        path,
        limit,
    )
    peer = spawn(PEER, path, "Bus")
    peer.says("there")
    child.says("lowered")
    child.falls_asleep()
    peer.kill()
    child.says("died")
    child.ends()


@pytest.mark.parametrize("use", ["lambda: bus.serve(timeout=3)", "lambda: bus.serve()"])
def test_a_callee(spawn, path, limit, use):
    finds_out(
        spawn,
        path,
        limit,
        "RpcBus",
        "bus = tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60)",
        f"say(ends({use}))",
    )


@pytest.mark.parametrize(
    "use", ["lambda: bus.wait(call, timeout=3)", "lambda: bus.wait(call)", "lambda: bus.call(b'x' * 999, 1)"]
)
def test_a_caller(spawn, path, limit, use):
    callee = spawn("callee = tachyon.RpcBus.listen(path, 1 << 16, 1 << 16, timeout=60)\nsay('there')\nhear()\n", path)
    child = spawn(
        LOWERED
        + "bus = tachyon.RpcBus.connect(path, timeout=60)\ncall = bus.call(b'x', 1)\nlowered()\nsay('lowered')\n"
        + f"hear()\nsay(ends({use}))\n",
        path,
        limit,
    )
    callee.says("there")
    child.says("lowered")
    callee.kill()
    child.tell()
    child.says("died")
    child.ends()


def test_a_server_loses_its_callers_and_serves_on(spawn, path, limit):
    child = spawn(
        LOWERED
        + """
import threading
dispatcher = tachyon.RpcDispatcher()
dispatcher.register(tachyon.tachyon_rpc(1)(bytes))
server = tachyon.RpcServer(path, dispatcher, 1 << 16, 1 << 16)
thread = threading.Thread(target=server.serve_forever, daemon=True)
thread.start()
hear()
lowered()
say("lowered")
until = time.monotonic() + 30
while server.stats()["callers"] > 1 and time.monotonic() < until: time.sleep(0.01)
say(server.stats()["callers"])
hear()
server.close()
thread.join(30)
say(thread.is_alive())
""",
        path,
        limit,
    )
    peer, other = spawn(PEER, path, "RpcBus"), spawn(ECHOED, path)
    peer.says("there")
    other.says("b'before'")
    child.tell()
    child.says("lowered")
    peer.kill()
    child.says("1")
    other.tell()
    other.says("b'after'")
    child.tell()
    child.says("False")
    child.ends()
    other.ends()
