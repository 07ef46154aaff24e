"""`send` and `recv`: one byte stream over one Bus.

The stream is the bytes of all messages in order, whatever their type_id, and a clean close; any Bus can be the other
end. recv frees a message once it is written, and closes once the file has its name; any other way of leaving is an
abort. So a producer whose Bus.finish() returns knows that all is written.
"""

from __future__ import annotations

import os
import select
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tachyon import Bus, BusEmptyError, PeerClosedError, PeerDeadError
from tachyon.cli.exits import ERROR, OK, PEER_GONE, Failure, prog
from tachyon.cli.meter import Meter, bytes_left, is_terminal, say, waiting
from tachyon.cli.opening import Opening
from tachyon.cli.output import NamedFile, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = 0  # the type_id of what send sends

LARGEST_CHUNK = 1 << 20  # larger ones are not faster, and the two sides should work at the same time
PIPE_CHUNK = 1 << 16  # what a pipe holds unless told otherwise
SMALLEST_CHUNK = 1 << 12
LEAST_CHUNK = 8  # in a ring of 64 bytes


class _NothingMore(Exception):
    """Leaves a claim without sending it."""


# ---- send ------------------------------------------------------------------------------------------------------------


def send(path: str, file: str, timeout: float, quiet: bool) -> int:
    """Send a file, or stdin for `-`, to whoever listens at `path`. Returns the exit code."""
    with _source(file) as fd, Opening() as opening:
        total = bytes_left(fd)
        show = not quiet and is_terminal(2) and not is_terminal(fd)
        with waiting(f"a receiver at {path}", quiet):
            bus = opening.take(Bus.connect, path, timeout=timeout)
        with bus:
            meter = Meter("sent", total, show)
            try:
                _pump_out(fd, bus, meter, regular=total is not None)
                bus.finish()
            except PeerDeadError as error:
                how = {"closed": "closed its end", "aborted": "gave up"}.get(error.reason, "died")
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
    largest = max(LEAST_CHUNK, min(LARGEST_CHUNK, bus.capacity // 4 - 16))
    smallest = min(SMALLEST_CHUNK, largest)
    claim = largest if regular else min(PIPE_CHUNK, largest)
    while True:
        count = 0
        with suppress(_NothingMore), bus.send_zero_copy(claim, DATA) as frame, memoryview(frame) as room:
            count = _read(fd, room)
            if count == 0:
                raise _NothingMore
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


# ---- recv ------------------------------------------------------------------------------------------------------------


def recv(path: str, file: str, capacity: int, timeout: float | None, quiet: bool) -> int:
    """Receive one stream at `path` into a file, or to stdout for `-`. Returns the exit code."""
    to_stdout = file == "-"
    output = Stream(1) if to_stdout else NamedFile(file)
    show = not quiet and is_terminal(2) and not (to_stdout and is_terminal(1))
    with Opening() as opening:
        with waiting(f"a sender at {path}", quiet):
            bus = opening.take(Bus.listen, path, capacity=capacity, timeout=timeout)
        with bus:
            meter = Meter("received", None, show)
            output.open()
            try:
                _pump_in(bus, output, meter)
                output.finish()
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
                output.write(data)
                meter.add(len(data))
        except BusEmptyError:
            meter.tick()
        except PeerClosedError:
            return


def _explained(error: BaseException, kept: str, path: str, pid: int, meter: Meter) -> BaseException:
    """The failure with what the user has to know besides: how far it came, and where the bytes are."""
    if isinstance(error, PeerDeadError):
        what = {"corrupt": "corrupted the ring", "aborted": "gave up"}.get(error.reason, "died")
        return Failure(PEER_GONE, f"the sender (pid {pid}) at {path} {what} after {meter.bytes:,} bytes; {kept}")
    if isinstance(error, OSError):
        return Failure(ERROR, f"cannot write: {error.strerror or error}, after {meter.bytes:,} bytes; {kept}")
    if not isinstance(error, Exception):  # Ctrl-C and the like
        say(f"{prog()} recv: stopped after {meter.bytes:,} bytes; {kept}")
    return error
