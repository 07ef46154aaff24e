"""`send` and `recv`: one byte stream over one Bus.

The stream, for whoever wants to speak it from a program: messages of type_id DATA (0) hold its bytes in order; one of
type_id END holds the total as 8 bytes, little-endian. Without END the stream is not whole, however it ended. The
consumer frees END only once all is written: a producer that then finds the whole ring free has its receipt.
"""

from __future__ import annotations

import os
import select
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tachyon import Bus, BusEmptyError, PeerClosedError, PeerDeadError, TachyonError
from tachyon.cli.exits import ERROR, OK, PEER_GONE, PROG, Failure
from tachyon.cli.meter import Meter, bytes_left, is_terminal, say
from tachyon.cli.output import NamedFile, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = 0
END = 0xFFFF
TOTAL = struct.Struct("<Q")

LARGEST_CHUNK = 1 << 20  # larger ones are not faster, and the two sides should work at the same time
PIPE_CHUNK = 1 << 16  # what a pipe holds unless told otherwise
SMALLEST_CHUNK = 1 << 12
GOODBYE = 10.0  # seconds to wait for a sender that has its receipt to go; it may be stopped


class _Receipt(Exception):
    """Leaves a claim without sending it."""


# ---- send ------------------------------------------------------------------------------------------------------------


def send(path: str, file: str, timeout: float, quiet: bool) -> int:
    """Send a file, or stdin for `-`, to whoever listens at `path`. Returns the exit code."""
    with _source(file) as fd:
        total = bytes_left(fd)
        show = not quiet and is_terminal(2) and not is_terminal(fd)
        with Bus.connect(path, timeout=timeout) as bus:
            meter = Meter("sent", total, show)
            try:
                _pump_out(fd, bus, meter, regular=total is not None)
                _await_receipt(bus)
            except PeerDeadError as error:
                how = "closed its end" if isinstance(error, PeerClosedError) else "died"
                raise Failure(
                    PEER_GONE,
                    f"the receiver (pid {bus.peer_pid}) at {path} {how} before it had confirmed the whole stream; "
                    f"{meter.bytes:,} bytes had been sent; look at its own message, and send again",
                ) from None
            finally:
                meter.clear()
    if not quiet:
        say(meter.summary())
    return OK


@contextmanager
def _source(file: str) -> Iterator[int]:
    if file == "-":
        yield 0
        return
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        with suppress(OSError):  # advice only
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield fd
    finally:
        os.close(fd)


def _pump_out(fd: int, bus: Bus, meter: Meter, regular: bool) -> None:
    # A quarter of the ring at most, so that the consumer empties one chunk while the next is filled.
    largest = max(TOTAL.size, min(LARGEST_CHUNK, bus.capacity // 4 - 16))
    smallest = min(SMALLEST_CHUNK, largest)
    claim = largest if regular else min(PIPE_CHUNK, largest)
    while True:
        with bus.send_zero_copy(claim, DATA) as frame, memoryview(frame) as room:
            count = _read(fd, room)
            if count == 0:
                TOTAL.pack_into(room, 0, meter.bytes)
                frame.type_id = END
                frame.actual_size = TOTAL.size
            else:
                frame.actual_size = count
        if count == 0:
            return
        meter.add(count)
        # Room that is claimed and not used costs the producer a pass over it, so follow what one read yields.
        if count == claim:
            claim = min(2 * claim, largest)
        elif 4 * count < claim:
            claim = max(claim // 2, smallest)


def _read(fd: int, room: memoryview) -> int:
    while True:
        try:
            return os.readv(fd, [room])
        except BlockingIOError:  # somebody else has set it to non-blocking
            select.select([fd], [], [])


def _await_receipt(bus: Bus) -> None:
    # There is room for the largest message only when the consumer has freed everything, END too.
    with suppress(_Receipt), bus.send_zero_copy(bus.max_message_size):
        raise _Receipt


# ---- recv ------------------------------------------------------------------------------------------------------------


def recv(path: str, file: str, capacity: int, timeout: float | None, quiet: bool) -> int:
    """Receive one stream at `path` into a file, or to stdout for `-`. Returns the exit code."""
    to_stdout = file == "-"
    output = Stream(1) if to_stdout else NamedFile(file)
    show = not quiet and is_terminal(2) and not (to_stdout and is_terminal(1))
    with Bus.listen(path, capacity, timeout=timeout) as bus:
        meter = Meter("received", None, show)
        output.open()
        try:
            _pump_in(bus, output, meter)
        except BrokenPipeError:  # nobody reads our stdout any more: main() ends without a word
            output.give_up()
            raise
        except BaseException as error:
            meter.clear()
            raise _explained(error, output.give_up(), path, bus.peer_pid, meter) from None
        finally:
            meter.clear()
    if not quiet:
        say(meter.summary())
    return OK


def _pump_in(bus: Bus, output: Stream, meter: Meter) -> None:
    tick = Meter.INTERVAL if meter.show else None
    while True:
        try:
            with bus.recv_zero_copy(timeout=tick) as frame, memoryview(frame) as data:
                if frame.type_id == DATA:
                    output.write(data)
                    meter.add(len(data))
                else:
                    _finish(bus, frame.type_id, data, output, meter)
                    break
        except BusEmptyError:
            meter.tick()
    # Leaving the block freed END. To close at once might hide that from the sender: let it go first.
    with suppress(TachyonError):
        bus.recv(timeout=GOODBYE)


def _finish(bus: Bus, type_id: int, data: memoryview, output: Stream, meter: Meter) -> None:
    try:
        if type_id != END or len(data) != TOTAL.size:
            what = f"a message of type_id {type_id} and {len(data)} bytes"
            raise Failure(ERROR, f"{what} is no part of a stream; is the peer a `send`?")
        (total,) = TOTAL.unpack(data)
        if total != meter.bytes:
            raise Failure(ERROR, f"the sender sent {total:,} bytes, but {meter.bytes:,} arrived")
        output.finish()
    except BaseException:
        bus.close()  # while END is held: freed, it would be the receipt
        raise


def _explained(error: BaseException, kept: str, path: str, pid: int, meter: Meter) -> BaseException:
    """The failure with what the user has to know besides: how far it came, and where the bytes are."""
    if isinstance(error, PeerClosedError):
        text = f"the sender (pid {pid}) at {path} closed the stream without ending it"
        return Failure(PEER_GONE, f"{text}, after {meter.bytes:,} bytes; {kept}")
    if isinstance(error, PeerDeadError):
        what = "corrupted the ring" if error.reason == "corrupt" else "died"
        return Failure(PEER_GONE, f"the sender (pid {pid}) at {path} {what} after {meter.bytes:,} bytes; {kept}")
    if isinstance(error, Failure):
        return Failure(error.code, f"{error}; {kept}")
    if isinstance(error, OSError):
        return Failure(ERROR, f"cannot write: {error.strerror or error}, after {meter.bytes:,} bytes; {kept}")
    if not isinstance(error, Exception):  # Ctrl-C and the like
        say(f"{PROG} recv: stopped after {meter.bytes:,} bytes; {kept}")
    return error
