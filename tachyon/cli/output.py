"""Where `recv` writes: a descriptor, or a file that gets its name only when it is whole."""

from __future__ import annotations

import errno
import os
import select
import stat
from contextlib import suppress
from pathlib import Path


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte, also to a descriptor that somebody else has set to non-blocking."""
    while data:
        try:
            written = os.write(fd, data)
        except BlockingIOError:
            select.select([], [fd], [])
            continue
        data = data[written:]


class Stream:
    """Writes to a descriptor that is already open: stdout."""

    def __init__(self, fd: int) -> None:
        """`fd` stays open."""
        self._fd = fd

    def open(self) -> None:
        """Nothing to open."""

    def write(self, data: memoryview) -> None:
        """Write through; nothing is kept back, so there is nothing to flush."""
        write_all(self._fd, data)

    def finish(self) -> None:
        """Nothing to finish."""

    def give_up(self) -> str:
        """Say what has become of the bytes."""
        return "what arrived has been written"


class NamedFile(Stream):
    """Writes to NAME.part, and renames it to NAME at the end. A device, FIFO or the like is written to directly.

    The partial file has its final folder and a plain name from the start, so that even SIGKILL leaves it to be found.
    """

    def __init__(self, name: str) -> None:
        """Look now for what would make open() fail: nobody wants to learn of it when the sender has come."""
        super().__init__(-1)
        self._name = Path(name).resolve()  # a symbolic link stays one
        self._part: Path | None = self._name.with_name(f"{self._name.name}.part")
        self._mode: int | None = None
        with suppress(FileNotFoundError):
            mode = self._name.stat().st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
            if stat.S_ISREG(mode):
                self._mode = stat.S_IMODE(mode)
            else:
                self._part = None
        folder = self._name.parent
        if self._part is not None and not os.access(folder, os.W_OK | os.X_OK):
            code = errno.EACCES if folder.is_dir() else errno.ENOENT
            raise OSError(code, os.strerror(code), str(folder))

    def open(self) -> None:
        """Open the partial file; an older one of that name is overwritten."""
        if self._part is None:
            self._fd = os.open(self._name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
            return
        self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        if self._mode is not None:
            with suppress(OSError):  # not our file: then its mode is as good as it gets
                os.fchmod(self._fd, self._mode)

    def finish(self) -> None:
        """Close, which is where some file systems report a full disk, and give the file its name."""
        fd, self._fd = self._fd, -1
        os.close(fd)
        if self._part is not None:
            self._part.replace(self._name)

    def give_up(self) -> str:
        """Close, drop an empty partial file, and say what has become of the bytes."""
        size = 1
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                size = os.fstat(fd).st_size
            with suppress(OSError):
                os.close(fd)
        if self._part is None:
            return f"what arrived has been written to {self._name}"
        if size == 0:
            with suppress(OSError):
                self._part.unlink()
            return "nothing was written"
        return f"what arrived is in {self._part}"
