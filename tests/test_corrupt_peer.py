"""What an end does about a ring that cannot be."""

import pytest
from ways import RECEIVE

from tachyon import PeerDeadError


def overwrite(bus_of, at, data):
    """Write into the shared memory behind the bus's back, through its mapping."""
    with open("/proc/self/maps") as maps:
        addresses = [int(line.split("-")[0], 16) for line in maps if "memfd:tachyon" in line]
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(addresses[bus_of] + at)
        memory.write(data)


@pytest.fixture
def alone(pair):
    with open("/proc/self/maps") as maps:
        if "memfd:tachyon" in maps.read():
            pytest.skip("another test left a mapping")
    return pair(4096)


@pytest.mark.parametrize(
    "word",
    [
        (4096).to_bytes(4, "little") + bytes(4),  # beyond the end
        b"\xfe\xff\xff\xff" + bytes(4),
        b"\xff\xff\xff\xff\x01\0\0\0",  # a padding frame with a type
        b"\xff\xff\xff\xff\0\0\0\0",  # a padding frame at the start
    ],
    ids=["too long", "much too long", "typed padding", "padding at 0"],
)
@pytest.mark.parametrize("receive", RECEIVE)
def test_a_frame_that_cannot_be_is_refused(alone, receive, word):
    producer, consumer = alone
    producer.send(b"x")
    overwrite(0, 4096, word)
    for _ in range(2):
        with pytest.raises(PeerDeadError, match="corrupted the ring; open a new one") as caught:
            RECEIVE[receive](consumer)
        assert type(caught.value) is PeerDeadError
        assert caught.value.reason == "corrupt"
    assert not consumer.closed


@pytest.mark.parametrize("position", [1 << 20, 2**64 - 64])
def test_a_read_position_that_cannot_be_is_refused(alone, position):
    producer, _ = alone
    while producer.try_send(b"x"):
        pass
    overwrite(0, 128, position.to_bytes(8, "little"))
    with pytest.raises(PeerDeadError) as caught:
        producer.send(b"y", timeout=30)
    assert caught.value.reason == "corrupt"
