"""One end of a session between two gateways: greeting, streams, presence, the end. Without threads, clocks or links.

Samples go in by on_sample and come out by next_data and next_control; what the other side says of its presence comes in
by on_presence; tick() has to be called now and then. `now` is in seconds, of any origin. Not for several threads.

The session is over once `over` is true; `outcome` says how it ended as soon as that is known.
"""

from __future__ import annotations

from typing import NamedTuple

from tachyon.bridge._samples import GREETING, NUMBER, How, Kind, Sample, encode, head, reason, reason_of
from tachyon.bridge._stream import Receiver, Sender

AGAIN = 0.25  # seconds between two samples that say the same: greetings, ends
LINGER = 6  # times the grace, for an end that is there but does not say that it knows


class Outcome(NamedTuple):
    """How a session ended: `how`, whether the other side ended it, and its words."""

    how: How
    theirs: bool
    text: str = ""


class Terms(NamedTuple):
    """What a gateway holds all its sessions to."""

    window: int  # bytes on their way at most, each way
    grace: float  # seconds that the other end may be away
    largest: int  # bytes of a message that is taken


class Channel:
    """One end. `peer`: the epoch of the other end; 0 for the one that greets first and does not know it yet."""

    def __init__(
        self, epoch: int, peer: int, terms: Terms, *, rpc: bool, sends: bool, receives: bool, now: float
    ) -> None:
        """Begin."""
        self.epoch = epoch
        self.peer = peer
        self.rpc = rpc
        self._terms = terms
        self.window = terms.window
        self.grace = terms.grace
        self.largest = terms.largest  # that the other end takes, once it has greeted; that we take, until then
        self.outcome: Outcome | None = None
        self.over = False
        self.present = False
        self.sender = Sender(terms.window) if sends else None
        self.receiver = Receiver(terms.window) if receives else None
        self.ended = False  # our stream: END is offered
        self._end_of_ours = How.CLOSED
        self._greets = peer == 0
        self._welcome = False  # owed
        self._saying: tuple[Kind, How, str] | None = None  # again and again
        self._said = float("-inf")
        self._rival = 0  # another end that answered our greeting, and is owed a word
        self._farewell: Outcome | None = None  # one last RESET is owed to it, as an answer
        self._heard = now  # from the other end
        self._lingers = False
        self._end_arrived = False  # and with it everything
        self.end_written = False

    # ---- what this end does ----

    def head(self) -> bytes:
        """Return the header of the next batch, to be packed."""
        assert self.sender is not None
        return head(Kind.DATA, self.epoch, self.peer, self.sender.next_number)

    @property
    def open(self) -> bool:
        """Whether the other end is known, and nothing has ended the session."""
        return self.peer != 0 and self.outcome is None

    @property
    def room(self) -> bool:
        """Whether a batch may be offered."""
        return self.open and not self.ended and self.sender is not None and self.sender.room

    def offer(self, sample: bytes, count: int) -> None:
        """Send a batch that begins with head()."""
        assert self.sender is not None
        self.sender.offer(sample, count)

    def end(self, how: How) -> None:
        """End our stream. The session is over when that has been acknowledged."""
        if self.sender is None or self.ended:
            return
        self.ended = True
        self.sender.offer(encode(Kind.END, self.epoch, self.peer, self.sender.next_number, how, count=1), 1)
        self._end_of_ours = how

    def waiting(self) -> bytes | None:
        """Return the oldest sample that waits to be written: DATA, or END."""
        receiver = self.receiver
        return receiver.waiting[0][1] if receiver is not None and receiver.waiting else None

    def wrote(self) -> None:
        """Take note that it is written; that END has been seen to."""
        assert self.receiver is not None
        self.receiver.wrote()

    def wrote_end(self, how: How) -> None:
        """As wrote(), for END: the session is over, but the other end may not know yet."""
        self.wrote()
        self.end_written = True
        self._settle(Outcome(how, theirs=True))
        self._lingers = True
        self._saying = None

    def reset(self, how: How, text: str = "") -> None:
        """End the session from this side, at once: say so until the other end is gone."""
        if self.outcome is None:
            self._settle(Outcome(how, theirs=False, text=text))
            self._lingers = True
            self._repeat(Kind.RESET, how, text)
            self.over = self.peer == 0  # nobody to tell

    def ask_to_stop(self) -> None:
        """Ask the other end to end its stream in good order."""
        if self.outcome is None and self._saying is None:
            self._repeat(Kind.STOP, How.STOPPED, "")

    # ---- what comes ----

    def on_sample(self, sample: Sample, now: float) -> bool:
        """Take a sample. True: the other end asks this one to stop."""
        if sample.to != (0 if sample.kind == Kind.HELLO else self.epoch) or self.over:  # who greets knows nobody
            return False
        if self.peer == 0:
            self._meet(sample)
        if sample.sender != self.peer:
            self._rival = sample.sender if sample.kind == Kind.WELCOME else self._rival
            return False
        self._heard = now
        if sample.kind == Kind.STOP:
            return self.outcome is None
        if sample.kind == Kind.HELLO:
            self._welcome = True
        elif sample.kind == Kind.RESET:
            self._on_reset(sample)
        elif sample.kind == Kind.ACK:
            self._on_ack(sample, now)
        elif sample.kind == Kind.PROBE and self.receiver is not None:
            self.receiver.probed(sample.messages)
        elif sample.kind in (Kind.DATA, Kind.END) and self.receiver is not None:
            if self._lingers and self._saying is not None:
                pass  # it will hear of the RESET
            elif not self.receiver.take(sample.first, sample.messages, sample.whole):
                self.reset(How.REFUSED, "the other gateway's numbers make no sense")
            elif sample.kind == Kind.END and self.receiver.received == sample.first + 1:
                self._end_arrived = True
        return False

    def lose(self) -> None:
        """Know that the other end will not come back."""
        self._settle(Outcome(How.LOST, theirs=True))
        self.over = True

    def on_presence(self, present: bool, now: float) -> None:
        """The other end came, or went away."""
        if present and not self.present and self.sender is not None:
            self.sender.go_back(now)  # what was under way is lost, more often than not
        self.present = present
        self._heard = now
        self.tick(now)

    def tick(self, now: float) -> None:
        """See what is due."""
        if self.over:
            return
        if self._farewell is not None:
            return
        if self._lingers:
            # It says farewell when it knows. Where that got lost it is gone; one that is there may only be stopped.
            if now - self._heard >= (LINGER * self.grace if self.present else self.grace):
                self.over = True
        elif now - self._heard >= self.grace and self._misses_the_other():
            self.lose()

    # ---- what goes out ----

    def next_data(self, now: float) -> bytes | None:
        """Return the next sample of our stream to send, if any."""
        if self.sender is None or not self.open:
            return None
        probe = self.sender.next_probe(now)
        if probe is not None:
            return encode(Kind.PROBE, self.epoch, self.peer, count=probe)
        return self.sender.next_sample(now)

    def next_control(self, now: float, *, lazily: bool = False) -> bytes | None:
        """Return what else is to be sent, if anything. Lazily: an ACK that is in no hurry is left for later."""
        self.tick(now)
        if self._farewell is not None:
            farewell, self._farewell = self._farewell, None
            self.over = True
            return encode(Kind.RESET, self.epoch, self.peer, 0, farewell.how)
        if self.over:
            return None
        if self._rival or self._welcome:
            return self._answer()
        if self._greets and now - self._said >= AGAIN:
            self._said = now
            return self._greeting(Kind.HELLO)
        if self._saying is not None and now - self._said >= AGAIN:
            self._said = now
            kind, how, text = self._saying
            return encode(kind, self.epoch, self.peer, 0, how, reason(text))
        return self._next_ack(now, lazily)

    # ---- inside ----

    def _misses_the_other(self) -> bool:
        if self.peer == 0:
            return self.rpc  # a caller does not wait for ever; a Bus may be opened long before its other end
        return not self.present and self.outcome is None and not self._end_arrived

    def _settle(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome

    def _repeat(self, kind: Kind, how: How, text: str) -> None:
        self._saying = (kind, how, text)
        self._said = float("-inf")

    def _greeting(self, kind: Kind) -> bytes:
        return encode(
            kind, self.epoch, self.peer, 0, How.CLOSED, GREETING.pack(self.rpc, self._terms.window, self._terms.largest)
        )

    def _answer(self) -> bytes:
        """To a greeting, or to an answer that came second."""
        if self._rival:
            rival, self._rival = self._rival, 0
            text = reason("another gateway exports this name, and answered first")
            return encode(Kind.RESET, self.epoch, rival, 0, How.REFUSED, text)
        self._welcome = False
        return self._greeting(Kind.WELCOME)

    def _meet(self, sample: Sample) -> None:
        """The one that greeted hears the first answer."""
        if sample.kind == Kind.RESET:  # no session over there, and none will be
            self._greets = False
            self._settle(Outcome(sample.how, theirs=True, text=reason_of(sample)))
            self.over = True
        elif sample.kind == Kind.WELCOME:
            self._greets = False
            self.peer = sample.sender
            self.greeted(sample)

    def greeted(self, sample: Sample) -> None:
        """Agree on the smaller window, the largest message, and the kind of bus. `sample`: a HELLO or a WELCOME."""
        rpc, window, self.largest = GREETING.unpack(sample.payload)
        self.window = max(1, min(self.window, window))
        for each in (self.sender, self.receiver):
            if each is not None:
                each.window = self.window
        if sample.kind == Kind.HELLO:
            self._welcome = True
        if bool(rpc) != self.rpc:
            kinds = ("a Bus", "an RpcBus")
            self.reset(How.REFUSED, f"one side of the bridge has {kinds[self.rpc]}, the other {kinds[not self.rpc]}")

    def _on_reset(self, sample: Sample) -> None:
        if self.outcome is None:
            self._settle(Outcome(sample.how, theirs=True, text=reason_of(sample)))
            self._farewell = self.outcome
        else:
            self.over = True

    def _on_ack(self, sample: Sample, now: float) -> None:
        (received,) = NUMBER.unpack(sample.payload)
        if self.sender is None:
            return
        if not self.sender.acknowledged(sample.first, received, bool(sample.how), sample.messages, now):
            self.reset(How.REFUSED, "the other gateway acknowledges what was never sent")
        elif self.ended and self.sender.idle:
            self._settle(Outcome(self._end_of_ours, theirs=False))
            self._farewell = self.outcome

    def _next_ack(self, now: float, lazily: bool) -> bytes | None:
        receiver = self.receiver
        if self.peer == 0:
            return None
        probing = self.outcome is None and not self.present and now - max(self._heard, self._said) >= AGAIN
        if probing:  # is it still the one we know?
            self._said = now
        elif receiver is None or not receiver.untold or (lazily and not receiver.must_tell):
            return None
        written, received, gap = receiver.tell() if receiver is not None else (0, 0, False)
        how = How.ABORTED if gap else How.CLOSED
        probe = receiver.probe if receiver is not None else 0
        return encode(Kind.ACK, self.epoch, self.peer, written, how, NUMBER.pack(received), probe)
