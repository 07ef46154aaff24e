"""One stream of numbered messages over a link that may lose, repeat and reorder: its two ends, without threads.

A Sender keeps each batch until the other side has written it; a Receiver takes batches in their order and drops
whatever else comes. Where there is no news for a while the Sender probes: asks, behind all it has sent, how far the
Receiver is. An answer that lacks what was sent before says that it is lost; so a slow link gets nothing twice, and an
acknowledgement that was lost is made up for. Both are told the time (seconds, any origin). Not for several threads.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

PATIENCE = 1.0  # seconds without news before the other side is asked for some


class Batch(NamedTuple):
    """A sample of ours, and the numbers of its messages: from `first` to before `after`."""

    first: int
    after: int
    sample: bytes


class Sender:
    """The end that numbers messages, and keeps them until they have been acknowledged."""

    def __init__(self, window: int) -> None:
        """`window`: bytes that may be on their way; one batch may be larger if it is alone."""
        self.window = window
        self.bytes = 0  # of all batches kept
        self.next_number = 0  # that the next message will have
        self.resent = 0  # batches
        self._kept: deque[Batch] = deque()
        self._sent = 0  # of those kept, so many from the left have been sent
        self._under_way = 0  # bytes of those
        self._received = 0  # number up to which everything has arrived over there
        self._gap = -1  # the last number we went back to because something was missing there
        self._news = 0.0  # when there was some, or was asked for
        self._probes = 0
        self._probed: int | None = None  # the number before which all had been sent when the last probe was

    @property
    def room(self) -> bool:
        """Whether another batch may be offered. What is kept is the window and one batch at most."""
        return self.bytes < self.window

    @property
    def idle(self) -> bool:
        """Whether everything that was offered has been written over there."""
        return not self._kept

    def offer(self, sample: bytes, count: int) -> None:
        """Take a batch of `count` messages, the first of which has next_number."""
        self._kept.append(Batch(self.next_number, self.next_number + count, sample))
        self.next_number += count
        self.bytes += len(sample)

    def next_sample(self, now: float) -> bytes | None:
        """Return the next sample to send, if there is one and it has room over there."""
        if self._sent == len(self._kept):
            return None
        batch = self._kept[self._sent]
        if self._sent == 0:
            self._news = now
        elif self._under_way + len(batch.sample) > self.window:
            return None
        self._sent += 1
        self._under_way += len(batch.sample)
        return batch.sample

    def next_probe(self, now: float) -> int | None:
        """Return the number of a probe, if one is to be sent behind all that has been. It may be the last one again."""
        if not self._sent or now - self._news < PATIENCE:
            return None
        self._news = now
        if self._probed is None:
            self._probed = self._kept[self._sent - 1].after
            self._probes = (self._probes + 1) & 0xFFFFFFFF
        return self._probes

    def acknowledged(self, written: int, received: int, gap: bool, answered: int, now: float) -> bool:
        """Forget what is written. `answered`: the last probe that came there. False: these numbers cannot be."""
        if not written <= received <= self.next_number:
            return False
        if received > self._received:
            self._received = received
            self._news = now
        while self._kept and self._kept[0].after <= written:
            size = len(self._kept.popleft().sample)
            self.bytes -= size
            self._news = now
            if self._sent:  # a peer may acknowledge what it cannot have
                self._sent -= 1
                self._under_way -= size
        lost = gap and received == self._received != self._gap  # once: what follows the missing one says so too
        if self._probed is not None and answered == self._probes:
            lost = lost or received < self._probed
            self._probed = None
        if lost:
            self._gap = received
            self.go_back(now)
        return True

    def go_back(self, now: float) -> None:
        """Send everything again that has not arrived."""
        keep = 0
        while keep < self._sent and self._kept[keep].after <= self._received:
            keep += 1
        while self._sent > keep:
            self._sent -= 1
            self._under_way -= len(self._kept[self._sent].sample)
            self.resent += 1
        self._news = now
        self._probed = None


class Receiver:
    """The end that takes messages in their order."""

    def __init__(self, window: int) -> None:
        """`window`: as the sender's: it never sends more than that."""
        self.window = window
        self.bytes = 0  # of what waits
        self.received = 0  # number of the next message to arrive
        self.written = 0  # number of the next message to be written
        self.dropped = 0  # batches that were there already, or came before their turn
        self.gap = False  # something is missing; until that has been told
        self.probe = 0  # the last one that came
        self.waiting: deque[tuple[int, bytes]] = deque()  # number after it, sample
        self._told = (0, 0)  # what was acknowledged last: written, received
        self.silent = 0  # bytes written since
        self.must_tell = False  # the other side seems not to know

    def take(self, first: int, count: int, sample: bytes) -> bool:
        """Take a batch, or drop it. False: it cannot be one, for it begins before its turn and ends after."""
        if first == self.received and (not self.waiting or self.bytes + len(sample) <= self.window):
            self.received = first + count
            self.bytes += len(sample)
            self.waiting.append((self.received, sample))
            self.gap = False
            return True
        self.dropped += 1
        self.must_tell = True
        self.gap = first > self.received
        return first >= self.received or first + count <= self.received

    def probed(self, number: int) -> None:
        """Be asked for news."""
        self.probe = number
        self.must_tell = True

    def wrote(self) -> None:
        """Forget the oldest batch that waits: it is written."""
        self.written, sample = self.waiting.popleft()
        self.bytes -= len(sample)
        self.silent += len(sample)
        self.must_tell = self.must_tell or 4 * self.silent >= self.window

    @property
    def untold(self) -> bool:
        """Whether more has been written, or has arrived, than was acknowledged."""
        return self.must_tell or self._told != (self.written, self.received)

    def tell(self) -> tuple[int, int, bool]:
        """Return what to acknowledge: written, received, and whether something is missing."""
        gap, self.gap = self.gap, False
        self._told = (self.written, self.received)
        self.silent = 0
        self.must_tell = False
        return (*self._told, gap)
