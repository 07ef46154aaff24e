"""What we are called, the exit codes, and the one way a command fails: Failure."""

from __future__ import annotations

import os
import sys


def prog() -> str:
    """What we were called as: the console script's name, or `python -m tachyon`."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119
    return "python -m tachyon" if name in ("", "-c", "-m") or name.endswith(".py") else name


OK = 0
ERROR = 1
USAGE = 2  # argparse's own
PEER_GONE = 3
TIMED_OUT = 4
SIGNALLED = 128  # + the signal's number, as a shell reports it


class Failure(Exception):
    """Ends a command: `code` becomes the exit code, the text goes to stderr."""

    def __init__(self, code: int, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.code = code


class Stopped(BaseException):
    """A signal asked us to end. Not an Exception, like KeyboardInterrupt: nothing but the command line handles it."""

    def __init__(self, signum: int) -> None:
        """Keep the signal's number."""
        super().__init__(signum)
        self.signum = signum
