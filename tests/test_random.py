"""Random sizes in random ways through random capacities, between two processes; every byte is compared."""

import random
import time

import pytest

from tachyon import Bus

# Both sides draw the same numbers.
SHARED = """
    import random
    seed, count, most = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    source = random.Random(seed)
    ways = random.Random(-seed)
    block = random.Random(42).randbytes(2 * most + 1)
    small = random.Random(seed).random() < 0.5
    def draw():
        size = source.randrange((min(most, 200) if small else most) + 1)
        if source.random() < 0.1: size = source.choice((0, 1, 47, 48, most - 1, most))
        start = source.randrange(most + 1)
        return block[start:start + size], source.getrandbits(32)
"""
SENDER = """
    bus = tachyon.Bus.connect(path, timeout=60)
    left = count
    while left > 0:
        way = ways.randrange(6)
        if way == 0:
            many = min(left, ways.randrange(1, 30))
            bus.send_many([draw() for _ in range(many)])
            left -= many
            continue
        payload, kind = draw()
        if way == 1:
            claimed = min(most, len(payload) + ways.randrange(100))
            with bus.send_zero_copy(claimed) as tx:
                with memoryview(tx) as view:
                    view[:len(payload)] = payload
                    view[len(payload):] = b"\\xff" * (claimed - len(payload))
                tx.actual_size = len(payload); tx.type_id = kind
        elif way == 2:
            try:
                with bus.send_zero_copy(len(payload)) as tx, memoryview(tx) as view: view[:] = payload; raise KeyError
            except KeyError: pass
            bus.send(payload, kind)
        elif way == 3:
            strided = bytearray(2 * len(payload)); strided[::2] = payload
            bus.send(memoryview(strided)[::2], kind)
        elif way == 4:
            while not bus.try_send(payload, kind): pass
        else: bus.send(payload, kind)
        left -= 1
    bus.close()
"""


def campaign(spawn, path, rounds, count, seconds):
    source = random.Random(rounds * 1000 + count)
    end = time.monotonic() + seconds
    for i in range(rounds):
        capacity = 64 << source.randrange(15)
        most = min(capacity - 16, 1 << 16)
        child = spawn(SHARED + SENDER, path, i, count, most)
        space = {"sys": _Arguments(["", path, str(i), str(count), str(most)])}
        exec("\n".join(line[4:] for line in SHARED.splitlines()), space)
        draw, ways = space["draw"], random.Random(i)
        with Bus.listen(path, capacity, timeout=60) as bus:
            received = 0
            buffer = bytearray(most)
            while received < count and time.monotonic() < end:
                way = ways.randrange(5)
                if way == 0:
                    assert tuple(bus.recv(timeout=60))[::2] == draw()[::-1]
                elif way == 1:
                    size, kind = bus.recv_into(buffer, timeout=60)
                    assert (bytes(buffer[:size]), kind) == draw()
                elif way == 2:
                    with bus.recv_zero_copy(timeout=60) as rx:
                        assert (bytes(rx), rx.type_id) == draw()
                elif way == 3:
                    with bus.drain_batch(ways.randrange(1, 100), timeout=60) as batch:
                        for view in batch:
                            assert (bytes(view), view.type_id) == draw()
                        received += len(batch) - 1
                else:
                    message = bus.try_recv()
                    if message is None:
                        continue
                    assert (message.data, message.type_id) == draw()
                received += 1
            if received == count:
                assert list(bus) == []
        if time.monotonic() >= end:
            return i
        child.ends()
    return rounds


class _Arguments:
    def __init__(self, argv):
        self.argv = argv


def test_random_messages_arrive_whole_and_in_order(spawn, path):
    assert campaign(spawn, path, 12, 3000, 60) >= 1


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_random_messages(spawn, path):
    assert campaign(spawn, path, 100, 100_000, 3300) == 100


@pytest.mark.parametrize("capacity", [64, 128, 4096, 1 << 20])
def test_a_stream_in_both_directions_of_two_buses(spawn, path, capacity):
    count = 3000
    child = spawn(
        """
        there = tachyon.Bus.connect(path, timeout=60)
        back = tachyon.Bus.connect(path + "b", timeout=60)
        for m in there: back.send(m.data[::-1], m.type_id + 1)
        back.close()
        """,
        path,
    )
    with Bus.listen(path, capacity, timeout=60) as there, Bus.listen(path + "b", capacity, timeout=60) as back:
        for i in range(count):
            there.send(b"%d" % i, i)
            assert tuple(back.recv(timeout=60)) == (i + 1, len(str(i)), (b"%d" % i)[::-1])
        there.close()
        assert list(back) == []
    child.ends()
