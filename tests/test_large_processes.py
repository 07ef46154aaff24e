"""Messages that do not fit the ring, between processes: their order, the end, who dies, who is stopped, a server."""

import signal
import threading
import time

import pytest
from conftest import wait_until
from large_messages import MOST, descriptors, parcels, pattern

import tachyon
from tachyon import Bus, BusFullError, PeerClosedError, PeerDeadError

SENDER = """
    import os
    bus = tachyon.Bus.connect(path, timeout=60)
    there = len(os.listdir("/proc/self/fd"))
    for i in range(int(sys.argv[2])):
        size = 3000 + 700 * (i % 40)
        bus.send(bytes([i % 256]) * size, i)
    say("descriptors", len(os.listdir("/proc/self/fd")) - there)
"""


def test_a_stream_of_both_kinds_between_processes(spawn, path):
    child = spawn(SENDER + "    hear()\n    getattr(bus, sys.argv[3])()\n", path, 2000, "close")
    with Bus.listen(path, 1 << 14, timeout=60) as bus:
        before = descriptors()
        for i in range(2000):
            message = bus.recv(timeout=60)
            assert (message.type_id, message.size) == (i, 3000 + 700 * (i % 40))
            assert message.data == bytes([i % 256]) * message.size
        child.says("descriptors 0")
        assert (descriptors(), parcels()) == (before, 0)
        child.tell()
        with pytest.raises(PeerClosedError):
            bus.recv(timeout=60)
    child.ends()


@pytest.mark.parametrize("end", ["bus.close()", "bus.abort()", "os.kill(os.getpid(), 9)"])
def test_what_was_sent_before_the_end_arrives_after_it(spawn, path, end):
    child = spawn(SENDER + f"    {end}\n    say('gone')\n", path, 14)
    with Bus.listen(path, 1 << 10, timeout=60) as bus:
        child.says("descriptors 0")
        child.process.wait(60)
        for i in range(14):
            assert bus.recv(timeout=60).data == bytes([i]) * (3000 + 700 * i)
        with pytest.raises(PeerClosedError if "close" in end else PeerDeadError):
            bus.recv(timeout=60)


def test_a_receiver_that_dies_with_some_in_hand_leaves_the_sender_as_it_was(spawn, path):
    child = spawn(
        """
        bus = tachyon.Bus.connect(path, timeout=60)
        held = [bus.recv_zero_copy() for _ in range(3)]
        say("holds")
        hear()
        """,
        path,
    )
    with Bus.listen(path, 4096, timeout=60) as bus:
        before = descriptors()
        while bus.try_send(bytes(50_000)):
            pass
        child.says("holds")
        assert parcels(child.pid) == 3
        waiting = threading.Timer(0.1, child.kill)
        waiting.start()
        with pytest.raises(PeerDeadError):
            while True:
                bus.send(bytes(50_000), timeout=60)
        waiting.join()
        assert descriptors() == before


def test_a_stopped_receiver_holds_nobody_up_for_good(spawn, path):
    child = spawn("bus = tachyon.Bus.connect(path, timeout=60)\nsay(*[m.size for m in bus])", path)
    with Bus.listen(path, 4096, timeout=60) as bus:
        bus.send(b"")
        child.falls_asleep()
        child.stop()
        sent = 0
        while bus.try_send(bytes(5000)):
            sent += 1
        assert sent == MOST
        begin = time.monotonic()
        with pytest.raises(BusFullError):
            bus.send(bytes(5000), timeout=0.1)
        assert time.monotonic() - begin >= 0.1
        child.send_signal(signal.SIGCONT)
        bus.send(bytes(6000), timeout=60)
    child.says("0 " + "5000 " * MOST + "6000")


def test_a_server_waits_for_many_callers_with_large_calls(path, run_thread):
    @tachyon.tachyon_rpc(msg_type=1)
    def length(payload):
        return bytes(payload) + b"!"

    dispatcher = tachyon.RpcDispatcher()
    dispatcher.register(length)
    with tachyon.RpcServer(path, dispatcher, 4096, 4096) as server:
        serving = run_thread(server.serve_forever)

        def call(seed):
            with tachyon.RpcBus.connect(path, timeout=60) as caller:
                for i in range(20):
                    data = pattern(3000 + 1000 * (i % 5), seed + i)
                    assert length.call(caller, data, timeout=60) == data + b"!"
                    time.sleep(0.002)  # let it fall asleep
            return seed

        calls = [run_thread(call, seed) for seed in range(4)]
        assert [each.result(60) for each in calls] == [0, 1, 2, 3]
        server.stop()
        serving.result(60)
    wait_until(lambda: parcels() == 0)
