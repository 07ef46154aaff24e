"""Progress on a terminal, and the summary line."""

from __future__ import annotations

import os
import stat
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def say(text: str, end: str = "\n") -> None:
    """Write to stderr. That it is closed or broken must not decide what becomes of the data."""
    try:
        sys.stderr.write(text + end)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # None, broken, closed
        pass


def settle() -> None:
    """Leave nothing in a stderr that takes nothing: Python tries again at its end, and makes that its exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except (AttributeError, ValueError):  # None, closed
        pass


def complain(who: str, text: str) -> None:
    """Say what went wrong; on a terminal `who` is red, unless its user or the terminal itself does without colours."""
    colours = is_terminal(2) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    say(f"\x1b[31m{who}:\x1b[m {text}" if colours else f"{who}: {text}")


def is_terminal(fd: int) -> bool:
    """True if the descriptor is open and a terminal."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size_text(count: float) -> str:
    """Return e.g. `1.23 GB`: decimal units, as disks and networks are measured."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:  # what rounds up is 1 of the next
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def bytes_left(fd: int) -> int | None:
    """Bytes from here to the end of a regular file; None where that is not known, as for a pipe."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(fd, 0, os.SEEK_CUR))


@contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Say on a terminal that we wait for `what`, as long as the block takes."""
    show = not quiet and is_terminal(2)
    if show:
        say(f"waiting for {what} … Ctrl-C ends it", end="")
    try:
        yield
    finally:
        if show:
            say("\r\x1b[K", end="")


class Meter:
    """Counts bytes and messages of one stream, from its first moment on."""

    INTERVAL = 0.1  # seconds between two drawings

    def __init__(self, done: str, total: int | None, show: bool) -> None:
        """`done` is the summary's verb; `total` is in bytes if known; `show` draws the progress line."""
        self.done = done
        self.total = total
        self.show = show
        self.bytes = 0
        self.messages = 0
        self._start = time.monotonic()
        self._drawn_at = 0.0
        self._on_screen = False

    def add(self, count: int) -> None:
        """Count one message."""
        self.bytes += count
        self.messages += 1
        if self.show:
            self.tick()

    def tick(self) -> None:
        """Draw the line again if it is time to."""
        now = time.monotonic()
        if self.show and now - self._drawn_at >= self.INTERVAL:
            self._drawn_at = now
            self._on_screen = True
            say(f"\r{self._line(now - self._start)}\x1b[K", end="")

    def clear(self) -> None:
        """Take the line away, so that other text can be written in its place."""
        if self._on_screen:
            self._on_screen = False
            say("\r\x1b[K", end="")

    def summary(self) -> str:
        """Size, messages, time and rate, for the end."""
        seconds = time.monotonic() - self._start
        exact = f"{self.bytes:,} bytes" + (f" ({size_text(self.bytes)})" if self.bytes >= 1000 else "")
        plural = "" if self.messages == 1 else "s"
        rate = size_text(self.bytes / max(seconds, 1e-9))
        return f"{self.done} {exact} in {self.messages:,} message{plural}, {seconds:.3f} s, {rate}/s"

    def _line(self, seconds: float) -> str:
        parts = [size_text(self.bytes)]
        if self.total:
            # More than the total is possible: the file grew while it was read.
            parts[0] += f" of {size_text(self.total)}, {min(100, 100 * self.bytes // self.total)}%"
        minutes, rest = divmod(int(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{size_text(self.bytes / max(seconds, 1e-9))}/s")
        parts.append(f"{hours}:{minutes:02}:{rest:02}")
        return "  ".join(parts)
