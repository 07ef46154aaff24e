"""The protocol of the bridge by itself: what arrives is a prefix, in order, with the right end, on any link."""

import struct

import pytest

from tachyon.bridge._channel import Channel, Terms
from tachyon.bridge._samples import HEADER, How, Kind, decode, encode, head
from tachyon.bridge._stream import PATIENCE, Receiver, Sender

BEGIN = 100.0
GRACE = 5.0
WINDOW = 4096


class End:
    """One gateway without threads: its channel, the messages of its program, and what it wrote to it."""

    def __init__(self, channel):
        self.channel = channel
        self.to_send = []  # numbers of the program, not taken yet
        self.how = None  # how the program ended its stream
        self.written = []
        self.end_written = None

    def pack(self, most):
        """As the pump does: as much as there is, no more than `most`."""
        channel = self.channel
        if channel.room and self.to_send:
            batch, self.to_send = self.to_send[:most], self.to_send[most:]
            records = b"".join(struct.pack("<Q", number) for number in batch)
            channel.offer(channel.head() + struct.pack("<I", len(batch)) + records, len(batch))
        if channel.open and not self.to_send and self.how is not None and not channel.ended:
            channel.end(self.how)

    def write(self):
        """As the writer does: one batch, or the end."""
        sample = self.channel.waiting()
        if sample is None:
            return
        sample = decode(sample)
        if sample.kind == Kind.END:
            self.end_written = sample.how
            self.channel.wrote_end(sample.how)
        else:
            numbers = [number for (number,) in struct.iter_unpack("<Q", sample.payload)]
            assert len(numbers) == sample.messages
            self.written += numbers
            self.channel.wrote()


class World:
    """Two ends and a link between them that loses nothing by itself."""

    def __init__(self, rpc=False, grace=GRACE):
        self.now = BEGIN
        self.far_epoch = 0x2222
        self.under_way = {"near": [], "far": []}  # to whom: samples
        options = {"terms": Terms(WINDOW, grace, 1 << 20), "rpc": rpc, "now": self.now}
        self.options = options
        # The importer greets; the exporter's channel is made when the greeting comes.
        self.near = End(Channel(0x1111, 0, sends=rpc, receives=True, **options))
        self.far = None
        self.rpc = rpc

    def collect(self):
        for _, end, other in (("near", self.near, "far"), ("far", self.far, "near")):
            if end is None:
                continue
            end.pack(7)
            while (sample := end.channel.next_data(self.now)) is not None:
                self.under_way[other].append(sample)
            while (sample := end.channel.next_control(self.now)) is not None:
                self.under_way[other].append(sample)

    def deliver(self, name, place=0):
        data = self.under_way[name].pop(place)
        sample = decode(data)
        end = getattr(self, name)
        if name == "far" and end is None:
            if sample.kind == Kind.HELLO:
                self.far = end = End(
                    Channel(self.far_epoch, sample.sender, sends=True, receives=self.rpc, **self.options)
                )
                end.channel.greeted(sample)
                end.channel.on_presence(True, self.now)
                self.near.channel.on_presence(True, self.now)
            elif sample.kind != Kind.RESET:
                self.under_way["near"].append(encode(Kind.RESET, sample.to, sample.sender, how=How.UNKNOWN))
            return
        if end is not None and not end.channel.over:
            end.channel.on_sample(sample, self.now)
        elif sample.kind != Kind.RESET:
            other = {"near": "far", "far": "near"}[name]
            self.under_way[other].append(encode(Kind.RESET, sample.to, sample.sender, how=How.UNKNOWN))

    def settle(self, seconds=60.0, write=True, step=0.05):
        """Let time pass on a link that works."""
        end = self.now + seconds
        while self.now < end:
            self.collect()
            for name in ("near", "far"):
                while self.under_way[name]:
                    self.deliver(name)
            if write:
                for each in (self.near, self.far):
                    while each is not None and each.channel.waiting() is not None:
                        each.write()
            self.now += step

    def cut(self):
        self.under_way = {"near": [], "far": []}
        for each in (self.near, self.far):
            if each is not None:
                each.channel.on_presence(False, self.now)

    def mend(self):
        # Not for another one in its place.
        if self.far is not None and self.near.channel.peer in (0, self.far.channel.epoch):
            self.near.channel.on_presence(True, self.now)
        if self.far is not None:
            self.far.channel.on_presence(True, self.now)


def met(**options):
    world = World(**options)
    world.settle(1.0)
    assert world.far is not None
    assert world.near.channel.open
    assert world.far.channel.open
    return world


def test_a_welcome_that_is_lost_is_said_again():
    world = World()
    world.collect()
    world.deliver("far")
    world.collect()
    world.under_way["near"].clear()
    world.settle(1.0)
    assert world.near.channel.open


@pytest.mark.parametrize("how", [How.CLOSED, How.ABORTED, How.DIED, How.STOPPED])
def test_everything_arrives_and_then_the_end(how):
    world = met()
    world.far.to_send = list(range(1000))
    world.far.how = how
    world.settle()
    assert world.near.written == list(range(1000))
    assert world.near.end_written == how
    assert world.far.channel.outcome == (how, False, "")
    assert world.near.channel.outcome == (how, True, "")
    assert world.near.channel.over
    assert world.far.channel.over


def test_both_ends_are_over_within_a_moment_of_the_end():
    world = met(grace=1e6)
    world.far.how = How.CLOSED
    world.settle(1.0)
    assert world.near.channel.over
    assert world.far.channel.over


def test_two_streams_that_end_at_once_end():
    world = met(rpc=True, grace=1e6)
    world.far.to_send, world.near.to_send = [1, 2], [3, 4]
    world.far.how = world.near.how = How.CLOSED
    world.settle(3.0)
    assert world.near.channel.over
    assert world.far.channel.over


def test_what_is_lost_in_a_cut_is_sent_again_at_once():
    world = met()
    world.far.to_send = list(range(40))
    world.collect()
    world.cut()
    world.mend()
    world.settle(PATIENCE / 2)
    assert world.near.written == list(range(40))


def test_what_is_lost_without_notice_is_sent_again_after_a_second():
    world = met()
    world.far.to_send = list(range(7))
    world.collect()
    world.under_way["near"].clear()
    world.settle(PATIENCE / 2)
    assert world.near.written == []
    world.settle(PATIENCE)
    assert world.near.written == list(range(7))
    assert world.far.channel.sender.resent > 0


def test_what_comes_twice_is_written_once():
    world = met()
    world.far.to_send = list(range(14))
    world.collect()
    world.collect()
    world.under_way["near"] *= 2
    world.settle(1.0)
    assert world.near.written == list(range(14))
    assert world.near.channel.receiver.dropped > 0


def test_one_that_is_missing_is_asked_for_at_once_and_once():
    world = met()
    world.far.to_send = list(range(40))
    world.collect()
    world.collect()
    world.collect()
    del world.under_way["near"][2]
    world.settle(PATIENCE / 2)
    assert world.near.written == list(range(40))
    assert 0 < world.far.channel.sender.resent <= 6


def test_a_consumer_that_stalls_gets_nothing_twice_and_memory_stays_bounded():
    world = met()
    world.far.to_send = list(range(100_000))
    world.settle(30, write=False)
    near, far = world.near.channel, world.far.channel
    assert near.receiver.bytes <= WINDOW
    assert far.sender.bytes <= WINDOW + HEADER.size + 7 * 8
    assert far.sender.resent == 0
    assert not far.room
    world.far.to_send = world.far.to_send[:100]
    world.far.how = How.CLOSED
    world.settle()
    assert world.near.written == list(range(len(world.near.written)))
    assert world.near.end_written == How.CLOSED


def test_what_has_arrived_is_told_before_it_is_written():
    world = met()
    world.far.to_send = list(range(40))
    world.settle(PATIENCE / 2, write=False)
    world.cut()
    world.mend()
    world.settle(PATIENCE / 2)
    assert world.near.written == list(range(40))
    assert world.far.channel.sender.resent == 0


def test_an_acknowledgement_that_is_lost_is_asked_for():
    world = met()
    world.far.to_send = list(range(1000))
    world.settle(3, write=False)
    assert not world.far.channel.room
    while world.near.channel.waiting() is not None:
        world.near.write()
    world.collect()
    world.under_way["far"].clear()  # the sender does not learn that its window is free again
    world.settle(10)
    assert world.near.written == list(range(1000))


def test_one_message_larger_than_the_window_goes_alone():
    world = met()
    sender = world.far.channel
    for _ in range(3):
        sender.offer(sender.head() + struct.pack("<I", 1) + struct.pack("<Q", 5) * WINDOW, 1)
    assert sender.next_data(world.now) is not None
    assert sender.next_data(world.now) is None
    assert not sender.room


def test_an_acknowledgement_comes_at_least_every_quarter_of_a_window():
    receiver = Receiver(1000)
    for number in range(4):
        receiver.take(number, 1, bytes(100))
    for _ in range(2):
        receiver.wrote()
    assert not receiver.must_tell
    receiver.wrote()
    assert receiver.must_tell
    assert receiver.tell() == (3, 4, False)
    assert not receiver.must_tell


def test_an_end_that_stays_away_is_lost_after_the_grace_and_not_before():
    world = met()
    world.far.to_send = list(range(10))
    world.settle(1.0)
    world.near.channel.on_presence(False, world.now)
    world.now += GRACE - 0.1
    world.near.channel.tick(world.now)
    assert world.near.channel.outcome is None
    world.now += 0.2
    world.near.channel.tick(world.now)
    assert world.near.channel.outcome == (How.LOST, True, "")
    assert world.near.channel.over


def test_another_gateway_in_its_place_is_told_of_at_once():
    world = met()
    world.far.to_send = list(range(10))
    world.settle(1.0)
    world.cut()
    world.far = None
    world.far_epoch = 0x3333
    world.settle(1.0)
    assert world.near.written == list(range(10))
    assert world.near.channel.outcome == (How.UNKNOWN, True, "")
    assert world.near.end_written is None


def test_a_consumer_that_goes_ends_the_stream_over_there_with_its_reason():
    world = met()
    world.far.to_send = list(range(1000))
    world.collect()
    world.near.channel.reset(How.DIED, "it died")
    world.settle(1.0)
    assert world.far.channel.outcome == (How.DIED, True, "it died")
    assert world.near.channel.over
    assert world.far.channel.over


def test_a_bus_and_an_rpc_bus_do_not_meet():
    world = World(rpc=True)
    world.options = world.options | {"rpc": False}
    world.settle(1.0)
    for end in (world.near, world.far):
        assert end.channel.outcome.how == How.REFUSED
        assert "one side of the bridge has a" in end.channel.outcome.text


def test_a_request_to_stop_is_told_until_there_is_an_end():
    world = met()
    asked = []
    world.near.channel.ask_to_stop()
    for _ in range(3):
        sample = world.near.channel.next_control(world.now)
        asked.append(world.far.channel.on_sample(decode(sample), world.now))
        world.now += 1
    assert asked == [True] * 3
    world.far.how = How.STOPPED
    world.settle()
    assert world.near.end_written == How.STOPPED
    assert world.near.channel.over


def test_an_answer_from_before_a_question_says_nothing_of_what_is_lost():
    sender = Sender(1 << 20)
    sender.offer(bytes(100), 5)
    assert sender.next_sample(0.0) is not None
    probe = sender.next_probe(1.5)
    sender.acknowledged(0, 0, False, probe - 1, 1.5)  # it was on its way already
    assert sender.resent == 0
    sender.acknowledged(0, 0, False, probe, 1.6)
    assert sender.resent == 1
    sender.acknowledged(0, 0, False, probe, 1.7)  # the same again
    assert sender.resent == 1


def test_a_slow_link_is_no_reason_to_send_everything_twice():
    sender = Sender(1 << 20)
    now, probes = 0.0, []
    for number in range(200):
        sender.offer(bytes(100), 1)
        sent = sender.next_sample(now)
        for _ in range(30):  # it takes 3 seconds
            now += 0.1
            if (probe := sender.next_probe(now)) is not None:
                probes.append((now + 3, probe, number + 1))
            while probes and probes[0][0] <= now:  # what is there by the time the answer is
                _, probe, received = probes.pop(0)
                sender.acknowledged(number, received, False, probe, now)
            assert sender.next_sample(now) is None
        assert sent is not None
        sender.acknowledged(number + 1, number + 1, False, 0, now)
    assert sender.resent == 0


def test_numbers_that_make_no_sense_end_the_session():
    world = met()
    world.far.to_send = list(range(10))
    world.settle(1.0)
    overlapping = head(Kind.DATA, 0x2222, 0x1111, 5) + struct.pack("<I", 10) + bytes(80)
    world.near.channel.on_sample(decode(overlapping), world.now)
    assert world.near.channel.outcome.how == How.REFUSED
    world = met()
    world.far.channel.on_sample(decode(encode(Kind.ACK, 0x1111, 0x2222, 5, payload=struct.pack("<Q", 5))), world.now)
    assert world.far.channel.outcome.how == How.REFUSED


def test_samples_of_strangers_are_not_heard():
    world = met()
    for sender, to in ((0x9999, 0x1111), (0x2222, 0x9999), (0x9999, 0)):
        world.near.channel.on_sample(decode(encode(Kind.RESET, sender, to)), world.now)
    assert world.near.channel.outcome is None
