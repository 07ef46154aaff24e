"""Every exception that tachyon raises on its own account. All of them derive from TachyonError."""

from __future__ import annotations

import queue
from typing import Any, Literal


class TachyonError(Exception):
    """Base of every error of ours."""


class HandshakeError(TachyonError, ConnectionError):
    """Two processes did not come together: no listener, refused, wrong kind, wrong version, wrong user, …

    `errno` is the operating system's number where there is one, else None; `path` is the socket path as it was given.
    """

    def __init__(self, message: str = "", errno: int | None = None, path: object = None) -> None:
        """Keep what happened, and where."""
        super().__init__(message)
        self.errno = errno
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the number and the path, which OSError by itself would drop."""
        return type(self), (str(self), self.errno, self.path)


class PeerDeadError(TachyonError, ConnectionError):
    """The peer is gone for good: it died, or wrote something impossible.

    All that it had committed has been handed out before this is raised. `reason` is "died", "aborted" (it gave up on
    purpose, in the middle: abort(), or an exception left its `with` block), "corrupt" or "closed".
    """

    reason: Literal["died", "aborted", "corrupt", "closed"] = "died"


class PeerClosedError(PeerDeadError, EOFError):
    """The peer closed on purpose, and everything that it sent has been read. Iteration ends without it."""

    reason: Literal["died", "aborted", "corrupt", "closed"] = "closed"


class TachyonTimeoutError(TachyonError, TimeoutError):
    """A timeout that the caller gave ran out."""


class BusFullError(TachyonTimeoutError, queue.Full):
    """No room in the ring within the timeout. `sent` is how many messages of a `send_many` went out before."""

    sent: int = 0


class BusEmptyError(TachyonTimeoutError, queue.Empty):
    """No message within the timeout."""


class BusClosedError(TachyonError, ValueError):
    """Our own handle is closed, or belongs to the parent of this forked process."""


class MessageTooLargeError(TachyonError, ValueError):
    """The message is larger than the ring can ever hold, or than the buffer it should go into."""


class CapacityError(TachyonError, ValueError):
    """The capacity is not a power of two within the bounds."""


class BusBusyError(TachyonError, RuntimeError):
    """Used from two threads at once, against its direction, or while a claim is open."""


class ArrayError(TachyonError, ValueError):
    """A message is no array, a corrupt one, or not the one that was expected.

    Where it has been taken for that, `message` is all of it, as a Message; what comes after it is received as ever.
    """

    message: Any = None


class CodecError(TachyonError, ValueError):
    """A message is no object of the codec that reads it, or cannot be decoded. What decoding raised is its `__cause__`.

    `codec` is the name of the codec that reads, `found` that of the one that wrote (None: the message is no object).
    `message` is the Message as it came, which has been taken from the bus; None where no bus is involved.
    """

    def __init__(self, text: str = "", codec: str | None = None, found: str | None = None) -> None:
        """Keep both names."""
        super().__init__(text)
        self.codec = codec
        self.found = found
        self.message: Any = None
        self.in_request = False  # of a call, before its handler ran

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the attributes."""
        return type(self), (str(self), self.codec, self.found), {"message": self.message}


class RpcError(TachyonError):
    """A remote call failed. `msg_type` is that of the call; `detail` is what the callee chose to tell, or None."""

    def __init__(self, message: str = "", msg_type: int | None = None, detail: str | None = None) -> None:
        """Keep which call failed, and why."""
        super().__init__(message)
        self.msg_type = msg_type
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the attributes."""
        return type(self), (str(self), self.msg_type, self.detail)
