"""A session as it runs: one bus of this machine, one Channel, and two threads between them and the link.

The pump takes from the ring and sends. The other thread writes to the ring what came, acknowledges it, and sees to all
that takes time; what comes while it has nothing to do, the link's own thread writes at once.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from tachyon._errors import (
    BusClosedError,
    MessageTooLargeError,
    PeerDeadError,
    TachyonError,
    TachyonTimeoutError,
)
from tachyon._tachyon import Bus, RpcBus, check_peer, pack, unpack
from tachyon.bridge._samples import HEADER, How, Kind, Sample, count_of, decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tachyon.bridge._channel import Channel, Outcome
    from tachyon.bridge._link import Link, Undo

log = logging.getLogger("tachyon")

BATCH = 1 << 20  # bytes of records in a sample, or a quarter of the window if that is less; never waited for
LEAST = HEADER.size + 16  # bytes of a sample with an empty message
TICK = 0.05  # seconds between two looks at what is due while something happens
IDLE_TICK = 0.25
TELL = 1.0  # seconds for the end of a stream that is stopped to go over, beyond those for the rest


def how_of(error: PeerDeadError) -> How:
    """Return what the end of a program at its bus is called over there."""
    return {"closed": How.CLOSED, "aborted": How.ABORTED}.get(error.reason, How.DIED)


class Session:
    """One bus, and one channel to its other end. `undo`: what was declared for it alone, undone when it is over."""

    def __init__(self, link: Link, key: str, bus: Bus | RpcBus, channel: Channel, undo: list[Undo]) -> None:
        """Send to `key`. start() begins; the bus is the session's from now on."""
        self.bus = bus
        self.channel = channel
        self.bytes_out = self.bytes_in = 0  # of samples with messages; what was sent again not included
        self.done = threading.Event()
        self.on_done: Callable[[Session], None] | None = None
        self._undo = undo
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # for the pump
        self._work = threading.Condition(self._lock)  # for the other one
        self._writing = threading.Lock()  # who holds it may write to the bus; taken before the other one
        self._offset = HEADER.size  # in the sample that is being written
        self._left = 0  # messages of it
        self._sink_gone = False
        self._stop_by: float | None = None
        self._killed = False
        self._out: threading.Thread | None = None
        self._told = 0.0  # when something was acknowledged last
        self._checked = 0.0
        self._put, undo_put = link.publish(key)
        self._put_urgently, undo_urgent = link.publish(key, urgent=True)
        self._undo += [undo_put, undo_urgent]

    def start(self) -> None:
        """Begin."""
        try:
            if self.channel.sender is not None:
                out = threading.Thread(target=self._pump, name="tachyon bridge out", daemon=True)
                out.start()
                self._out = out
            threading.Thread(target=self._run, name="tachyon bridge in", daemon=True).start()
        except RuntimeError as error:  # no more threads
            self._fail(error)
            self._finish()

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it goes on."""
        return self.channel.outcome

    def stop(self, seconds: float) -> None:
        """End in good order: what the ring holds now still goes over, for `seconds` at most; what comes is written."""
        with self._lock:
            if self._stop_by is None:
                self._stop_by = monotonic() + seconds
            if self.channel.peer == 0:
                self.channel.reset(How.STOPPED)
            elif self.channel.sender is None:
                self.channel.ask_to_stop()
            self._wake()

    def kill(self) -> None:
        """End now; the other side is told once, if the link can."""
        with self._lock:
            self._killed = True
            self.channel.reset(How.STOPPED)
            self._wake()

    def stats(self) -> dict[str, int]:
        """Return counters: messages and bytes each way, bytes kept in memory, batches sent again or dropped."""
        with self._lock:
            sender, receiver = self.channel.sender, self.channel.receiver
            return {
                "sent": sender.next_number - self.channel.ended if sender else 0,
                "bytes_sent": self.bytes_out,
                "kept": sender.bytes if sender else 0,
                "resent": sender.resent if sender else 0,
                "received": receiver.written - self.channel.end_written if receiver else 0,
                "bytes_received": self.bytes_in,
                "waiting": receiver.bytes if receiver else 0,
                "dropped": receiver.dropped if receiver else 0,
            }

    # ---- what the link tells ----

    def on_sample(self, sample: Sample) -> None:
        """Take a sample from the link."""
        with self._lock:
            asked = self.channel.on_sample(sample, monotonic())
            waiting = sample.kind == Kind.DATA and self.channel.waiting() is not None
            if sample.kind == Kind.ACK and self.channel.open:
                self._room.notify()
                return
            if not waiting:
                self._wake()
        if asked:
            self.stop(self.channel.grace)
        if waiting and self._writing.acquire(blocking=False):
            try:
                self._write(0.0)
            finally:
                self._writing.release()
            with self._lock:
                receiver = self.channel.receiver
                if self.channel.waiting() is not None or (receiver is not None and receiver.must_tell):
                    self._work.notify()

    def on_presence(self, present: bool) -> None:
        """The other end came or went."""
        with self._lock:
            self.channel.on_presence(present, monotonic())
            self._wake()

    def lose(self) -> None:
        """The other end will not come back."""
        with self._lock:
            self.channel.lose()
            self._wake()

    def _wake(self) -> None:
        self._room.notify_all()
        self._work.notify_all()

    # ---- out ----

    def _pump(self) -> None:
        try:
            while self._pump_once():
                pass
        except OSError as error:  # the link is closed
            self._fail(error)
        except Exception as error:
            log.exception("a bridge failed")
            self._fail(error)

    def _pump_once(self) -> bool:
        channel = self.channel
        with self._lock:
            if channel.outcome is not None or channel.over:
                return False
            sample = channel.next_data(monotonic())
            if sample is None and not channel.room:
                self._room.wait(TICK)
                return True
            head = channel.head()
        if sample is None:
            sample = self._take(head)
        if sample is not None:
            self._put(sample)
        return True

    def _take(self, head: bytes) -> bytes | None:
        """Return the next batch to send, if there is one now."""
        stopping = self._stop_by is not None
        how = None
        batch = None
        try:
            batch = pack(self.bus, head, min(BATCH, self.channel.window // 4), 0.0 if stopping else 0.1)
        except PeerDeadError as error:
            how = how_of(error)
        except MemoryError as error:
            self._reset(How.REFUSED, str(error) or "no memory for a batch")
            return None
        except BusClosedError:
            if self.channel.rpc:  # by the other thread: the end came from over there
                with self._lock:
                    self._room.wait(TICK)
                return None
            how = How.STOPPED
        if stopping and (batch is None or monotonic() >= (self._stop_by or 0.0)):
            how = how or How.STOPPED
        with self._lock:
            if batch is not None and len(batch[0]) > self.channel.largest + BATCH + LEAST:
                self.channel.reset(
                    How.REFUSED,
                    f"one of the messages in {len(batch[0])} bytes is larger than the gateway over there takes, which "
                    f"is {self.channel.largest}: give that one a larger --max-large",
                )
                return None
            if batch is not None:
                self.channel.offer(*batch)
                self.bytes_out += len(batch[0])
            if how is not None:
                self.channel.end(how)
            return self.channel.next_data(monotonic())

    # ---- in, and all that takes time ----

    def _run(self) -> None:
        try:
            while self._run_once():
                pass
            self._write_the_rest()
        except OSError as error:  # the link is closed
            self._fail(error)
        except Exception as error:
            log.exception("a bridge failed")
            self._fail(error)
        finally:
            self._finish()

    def _run_once(self) -> bool:
        with self._writing:
            self._write(TICK)
            self._see_to_the_end()
            self._look_at_the_program()
        now = monotonic()
        with self._lock:
            channel = self.channel
            if self._stop_by is not None and now >= self._stop_by + TELL:
                channel.reset(How.STOPPED, "not everything went through in time")
            sample = channel.next_control(now, lazily=now - self._told < TICK)
            if channel.outcome is not None:
                self._room.notify_all()
            if sample is None:
                if channel.over or (self._killed and channel.outcome is not None):
                    return False
                rest = channel.waiting()
                if rest is None or (rest[1] == Kind.END and channel.outcome is not None):  # there it stays, unheard
                    receiver = channel.receiver
                    self._work.wait(TICK if receiver is not None and receiver.untold else IDLE_TICK)
        if sample is not None:
            self._told = now
            self._put_urgently(sample)
        return True

    def _write(self, timeout: float) -> None:
        """Write what has arrived, as far as there is room within `timeout` seconds for each. Holds _writing."""
        while True:
            with self._lock:
                sample = self.channel.waiting()
            if sample is None or sample[1] == Kind.END:
                return
            if not self._sink_gone:
                try:
                    if self._offset == HEADER.size:
                        self._left = count_of(sample)
                    self._offset, self._left = unpack(self.bus, sample, self._offset, self._left, timeout)
                except (TachyonError, ValueError, MemoryError) as error:
                    self._lose_sink(error)
                    continue
                if self._left:
                    return
            with self._lock:
                self.bytes_in += len(sample)
                self._offset = HEADER.size
                self.channel.wrote()

    def _lose_sink(self, error: Exception) -> None:
        """The program does not read any more, or cannot be given this."""
        self._sink_gone = True
        if isinstance(error, PeerDeadError):
            # Of an RPC the pump sees it too, behind the last that was sent, and ends the stream in order.
            if not self.channel.rpc:
                self._reset(how_of(error), "")
        elif isinstance(error, MessageTooLargeError):
            self._reset(How.REFUSED, f"its program's bus: {error}")
        elif not isinstance(error, BusClosedError):
            self._reset(How.REFUSED, str(error) or "no memory for a message")

    def _reset(self, how: How, text: str) -> None:
        with self._lock:
            self.channel.reset(how, text)

    _sink_is_busy = False  # END is here, and the consumer still reads

    def _see_to_the_end(self) -> None:
        """Once the end is what comes next: end the bus in the same way. Holds _writing."""
        with self._lock:
            sample = self.channel.waiting()
        if sample is None or sample[1] != Kind.END or self.channel.outcome is not None:
            return
        how = decode(sample).how
        if how != How.CLOSED:
            self.bus.abort()
        elif isinstance(self.bus, Bus) and not self._sink_gone:
            # Not over before the consumer has read everything: finish() over there waits for that.
            try:
                self.bus.finish(timeout=TICK)
            except TachyonTimeoutError:
                self._sink_is_busy = True
                return
            except PeerDeadError as error:
                self._lose_sink(error)
                return
        else:
            self.bus.close()
        with self._lock:
            self.channel.wrote_end(how)
            self._sink_is_busy = False

    def _look_at_the_program(self) -> None:
        """See whether the program that reads is still there, though nothing is written to it. Holds _writing."""
        now = monotonic()
        if self.channel.receiver is None or self._sink_gone or self._sink_is_busy or now - self._checked < TICK:
            return
        self._checked = now
        if self.channel.outcome is None:
            try:
                check_peer(self.bus)
            except TachyonError as error:
                self._lose_sink(error)

    def _write_the_rest(self) -> None:
        """Over, but what has arrived is still the program's, as far as it takes it; until a stop's time is over."""
        while not (self._killed or self._sink_gone or (self._stop_by is not None and monotonic() >= self._stop_by)):
            with self._writing:
                self._write(TICK)
            with self._lock:
                sample = self.channel.waiting()
                if sample is None or sample[1] == Kind.END:
                    return

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.channel.reset(How.REFUSED, str(error))
            self.channel.over = True
            self._wake()

    def _finish(self) -> None:
        outcome = self.channel.outcome
        with suppress(TachyonError):
            if outcome is not None and outcome.how == How.CLOSED:
                self.bus.close()
            else:
                self.bus.abort()
        with self._lock:
            self._room.notify_all()
        if self._out is not None:
            self._out.join(1.0)  # it may be stuck in a link that is
        for undo in self._undo:
            undo()
        self.done.set()
        if self.on_done is not None:
            self.on_done(self)
