"""What is read of a sample of the bridge: whatever comes from the network, it does no harm."""

import random
import struct

import pytest
from test_bridge_channel import met

from tachyon.bridge._samples import BadSample, How, Kind, Sample, decode, encode, head, reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(31),
        bytes(32),
        b"\x02" + head(Kind.DATA, 1, 2)[1:] + bytes(4),
        head(Kind.DATA, 1, 2) + struct.pack("<I", 0),
        head(Kind.DATA, 1, 2, (1 << 63) - 1) + struct.pack("<I", 5),
        encode(Kind.ACK, 1, 2, payload=b"short"),
        encode(Kind.HELLO, 1, 2),
        encode(Kind.DATA, 1, 2)[:1] + b"\x63" + encode(Kind.DATA, 1, 2)[2:],
        head(Kind.END, 1, 2) + struct.pack("<I", 2),
        encode(Kind.RESET, 0, 2),
        encode(Kind.END, 1, 2, count=1)[:2] + b"\xff\xff" + encode(Kind.END, 1, 2, count=1)[4:],
    ],
)
def test_what_is_no_sample_is_refused(data):
    with pytest.raises(BadSample):
        decode(data)


def test_a_reason_from_over_there_is_short_and_harmless_on_a_terminal():
    world = met()
    words = b"\x1b[2J\x07" + b"a\xff\n" * 100_000
    world.near.channel.on_sample(decode(encode(Kind.RESET, 0x2222, 0x1111, payload=words)), world.now)
    text = world.near.channel.outcome.text
    assert len(text) == 500
    assert text.isprintable()
    assert text.startswith("?[2J?a")


def test_a_reason_with_any_path_in_it_can_be_told():
    assert reason("/tmp/\udcff") == b"/tmp/?"


def test_any_bytes_from_the_other_end_leave_the_channel_in_order():
    chance = random.Random(5)
    for _ in range(300):
        world = met(rpc=True)
        world.far.to_send = list(range(5))
        world.collect()
        for _ in range(20):
            kind = chance.choice(list(Kind))
            size = {Kind.ACK: 8, Kind.HELLO: 18, Kind.WELCOME: 18}.get(kind, chance.randrange(40))
            first = chance.choice([0, 1, 5, 1 << 40])
            sample = (
                head(kind, 0x2222, 0x1111, first, How(chance.randrange(6)))
                + struct.pack("<I", 1)
                + chance.randbytes(size)
            )
            world.near.channel.on_sample(decode(sample), world.now)
            world.near.channel.next_control(world.now)
            world.near.channel.next_data(world.now)
    assert isinstance(decode(encode(Kind.END, 1, 2, count=1)), Sample)
