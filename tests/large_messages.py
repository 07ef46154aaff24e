"""Messages that do not fit their ring, for tests: what is in them, and what they cost."""

import contextlib
import os
from pathlib import Path

import numpy as np

MOST = 16  # under way


def parcels(pid="self"):
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:tachyon-parcel")


def descriptors(pid="self"):
    return len(os.listdir(f"/proc/{pid}/fd"))


def parcel_files():
    """How many descriptors of this process are such a message's memory."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += "memfd:tachyon-parcel" in os.readlink(f"/proc/self/fd/{number}")
    return found


def pattern(size, seed=0):
    return (np.arange(size, dtype=np.uint32) * 2654435761 >> 7).astype(np.uint8).tobytes()[seed:] + bytes(seed)
