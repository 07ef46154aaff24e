"""A peer killed at any moment: the survivor reads all that was committed, whole and in order, then hears of it."""

import contextlib
import mmap
import random
import struct
import time
import zlib

import pytest

from tachyon import Bus, Message, PeerDeadError, TachyonTimeoutError

SHORT, LONG = 20, 200
HEAD = struct.Struct("<QI")  # number, crc of the rest

# Counts what it has committed in a shared file; which stays when it is killed.
PRODUCER = """
    import mmap, random, struct, zlib
    seed, ways, most = int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    with open(sys.argv[2], "r+b") as file: counter = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    source = random.Random(seed)
    block = source.randbytes(most)
    bus = tachyon.Bus.connect(path, timeout=60)
    head = struct.Struct("<QI")
    number = 0
    def next_payload():
        rest = block[:source.randrange(most - head.size + 1)]
        return head.pack(number, zlib.crc32(rest)) + rest
    while True:
        payload = next_payload()
        way = source.choice(ways)
        if way == "s": bus.send(payload, number % 1000)
        elif way == "t":
            while not bus.try_send(payload, number % 1000): pass
        elif way == "m": bus.send_many([(payload, number % 1000)])
        elif way == "z":
            with bus.send_zero_copy(len(payload), number % 1000) as tx, memoryview(tx) as view: view[:] = payload
        elif way == "a":  # given up, and then done
            try:
                with bus.send_zero_copy(len(payload)) as tx:
                    with memoryview(tx) as view: view[:] = payload
                    raise KeyError
            except KeyError: pass
            bus.send(payload, number % 1000)
        number += 1
        counter[0] = number  # in one store: struct.pack_into clears the bytes first, and may be killed then
"""

CONSUMER = """
    import mmap, random, struct
    seed, ways = int(sys.argv[3]), sys.argv[4]
    with open(sys.argv[2], "r+b") as file: counter = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    source = random.Random(seed)
    bus = tachyon.Bus.connect(path, timeout=60)
    number = 0
    while True:
        way = source.choice(ways)
        if way == "r": bus.recv(); number += 1
        elif way == "z":
            with bus.recv_zero_copy(): number += 1
        elif way == "b":
            with bus.drain_batch(source.randrange(1, 20)) as batch: number += len(batch)
        counter[0] = number  # in one store: struct.pack_into clears the bytes first, and may be killed then
"""


@pytest.fixture
def counter(tmp_path):
    file = tmp_path / "count"
    file.write_bytes(bytes(8))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 8) as memory:

        def read():
            return struct.unpack_from("<Q", memory)[0]

        read.file = file
        read.reset = lambda: memory.__setitem__(slice(0, 8), bytes(8))
        yield read


@pytest.fixture
def record_notices(request):
    """Tells and keeps how long it took until a death was noticed. Never asserted."""

    def record(notices):
        median, most = sorted(notices)[len(notices) // 2] * 1000, max(notices) * 1000
        request.node.user_properties.extend([("notice_median_ms", median), ("notice_max_ms", most)])
        print(f"noticed after {median:.2f} ms (median of {len(notices)}), {most:.2f} ms at most")

    return record


def kill_producers(times, spawn, path, counter, record_notices):
    source = random.Random(times)
    notices = []
    for i in range(times):
        capacity = source.choice([64, 128, 1024, 1 << 16, 1 << 20])
        most = source.choice(
            [min(capacity - 16, source.choice([48, 500, 40_000])), 2 * capacity + 100]
        )  # and beyond the ring
        counter.reset()
        child = spawn(PRODUCER, path, counter.file, i, source.choice(["s", "z", "stmza"]), most)
        moment = source.choice([0, 0, source.random() * 0.03])
        received = 0
        killed = None
        with Bus.listen(path, capacity, timeout=60) as bus:
            begin = time.monotonic()
            with pytest.raises(PeerDeadError) as caught:
                while True:
                    if killed is None and received >= 1 and time.monotonic() - begin >= moment:
                        child.process.kill()
                        killed = time.monotonic()
                    type_id, size, data = bus.recv(timeout=60)
                    number, crc = HEAD.unpack_from(data)
                    assert number == received
                    assert type_id == number % 1000
                    assert size == len(data)
                    assert zlib.crc32(data[HEAD.size :]) == crc
                    received += 1
            notices.append(time.monotonic() - killed)
            assert type(caught.value) is PeerDeadError
            assert caught.value.reason == "died"
        # It may have been killed between a commit and the count of it.
        assert counter() <= received <= counter() + 1
        child.clean_up()
    record_notices(notices)


def kill_consumers(times, spawn, path, counter, record_notices):
    source = random.Random(times)
    notices = []
    for i in range(times):
        capacity = source.choice([64, 128, 1024, 1 << 16])
        payload = bytes(source.choice([min(capacity - 16, source.choice([0, 48, 500])), capacity + 100]))
        counter.reset()
        child = spawn(CONSUMER, path, counter.file, i, source.choice(["r", "z", "b", "rzb"]))
        moment = source.choice([0, 0, source.random() * 0.03])
        send_as = source.choice(["send", "try_send", "send_many", "zero"])
        sent = 0
        killed = None
        with Bus.listen(path, capacity, timeout=60) as bus:
            begin = time.monotonic()
            with pytest.raises(PeerDeadError) as caught:
                while True:
                    if killed is None and counter() >= 1 and time.monotonic() - begin >= moment:
                        child.process.kill()
                        killed = time.monotonic()
                    if send_as == "send":
                        bus.send(payload, timeout=60)
                    elif send_as == "try_send":
                        sent -= not bus.try_send(payload)
                    elif send_as == "send_many":
                        bus.send_many([payload], timeout=60)
                    else:
                        bus.send_zero_copy(len(payload), timeout=60).__exit__(None, None, None)
                    sent += 1
            notices.append(time.monotonic() - killed)
            assert type(caught.value) is PeerDeadError
        assert 1 <= counter() <= sent + 1
        child.clean_up()
    record_notices(notices)


def test_a_producer_killed_at_any_moment_loses_nothing_that_it_committed(spawn, path, counter, record_notices):
    kill_producers(SHORT, spawn, path, counter, record_notices)


def test_a_consumer_killed_at_any_moment_is_noticed(spawn, path, counter, record_notices):
    kill_consumers(SHORT, spawn, path, counter, record_notices)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_producers_killed_at_any_moment(spawn, path, counter, record_notices):
    kill_producers(LONG, spawn, path, counter, record_notices)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_consumers_killed_at_any_moment(spawn, path, counter, record_notices):
    kill_consumers(LONG, spawn, path, counter, record_notices)


@pytest.mark.parametrize("side", ["listen(path, 4096)", "connect(path, timeout=None)"])
def test_a_peer_killed_during_the_handshake_uses_nobody_up(spawn, path, run_thread, side):
    source = random.Random(side)
    ours = "connect" if side.startswith("listen") else "listen"
    waiting = (
        run_thread(Bus.connect, path, timeout=100)
        if ours == "connect"
        else run_thread(Bus.listen, path, 4096, timeout=100)
    )
    for _ in range(SHORT):
        child = spawn(f"tachyon.Bus.{side}", path)
        time.sleep(source.random() * 0.08)
        child.kill()
        if waiting.done():
            break
    # It got through to one that was killed at once afterwards, or it waits for the next.
    other = None
    while other is None and not waiting.done():
        with contextlib.suppress(TachyonTimeoutError):
            other = Bus.listen(path, 4096, timeout=1) if ours == "connect" else Bus.connect(path, timeout=1)
    with waiting.result() as bus:
        if other is None:
            with pytest.raises(PeerDeadError):
                bus.recv(timeout=60)
        else:
            with other:
                other.send(b"x")
                assert bus.recv() == Message(0, 1, b"x")
