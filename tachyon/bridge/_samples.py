"""What two gateways say to each other: every byte of a sample but the records, which Cython packs and unpacks.

A sample: the header below, then what its kind says. DATA: `count` records, the first of them number `first`. END:
how the stream ended; it has a number too, the one after the last record's, so that it is sent again and acknowledged
as they are. ACK: `first` is the number up to which all is written, the payload that up to which all has arrived, `how`
whether something is missing, `count` the last PROBE that came. PROBE: its number is `count`; an ACK, please. HELLO,
WELCOME: the kind of bus, the window, and the largest message, of who says it. RESET: it is over, and why. STOP: end,
please.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
HEADER = struct.Struct("<BBHQQQI")  # version, kind, how, from, to, first, count
NUMBER = struct.Struct("<Q")
GREETING = struct.Struct("<HQQ")  # is it RPC, window, largest message
MOST_TEXT = 500  # characters of a reason


class Kind(IntEnum):
    """What a sample is."""

    DATA = 1
    END = 2
    ACK = 3
    HELLO = 4
    WELCOME = 5
    RESET = 6
    STOP = 7
    PROBE = 8


class How(IntEnum):
    """How a stream ended, or why a session did."""

    CLOSED = 0  # by the program, on purpose
    ABORTED = 1  # by the program, in the middle
    DIED = 2  # the program
    STOPPED = 3  # the gateway was asked to end
    REFUSED = 4  # the text says why
    UNKNOWN = 5  # no such session here: this gateway is another one than before
    LOST = 6  # the other gateway went away; never sent


class BadSample(ValueError):
    """Not one of ours, or not well formed."""


class Sample(NamedTuple):
    """One sample, taken apart. `sender` and `to` are the epochs of two ends; 0: not known yet."""

    kind: Kind
    how: How
    sender: int
    to: int
    first: int
    messages: int
    payload: memoryview
    whole: bytes


def head(kind: Kind, sender: int, to: int, first: int = 0, how: How = How.CLOSED) -> bytes:
    """Return a header without its last field, the count, which goes behind it."""
    return HEADER.pack(VERSION, kind, how, sender, to, first, 0)[:-4]


def encode(  # noqa: PLR0917
    kind: Kind, sender: int, to: int, first: int = 0, how: How = How.CLOSED, payload: bytes = b"", count: int = 0
) -> bytes:
    """Return a whole sample. What has records is packed in Cython."""
    return HEADER.pack(VERSION, kind, how, sender, to, first, count) + payload


def reason(text: str) -> bytes:
    """Return a reason as a payload."""
    return text[:MOST_TEXT].encode(errors="replace")


def reason_of(sample: Sample) -> str:
    """Return what a RESET says, fit for a terminal."""
    text = str(sample.payload[: 4 * MOST_TEXT], "utf-8", "replace")[:MOST_TEXT]
    return "".join(each if each.isprintable() else "?" for each in text)


def count_of(sample: bytes) -> int:
    """Return how many messages a sample has."""
    return int(HEADER.unpack_from(sample)[-1])


def decode(data: bytes) -> Sample:
    """Take a sample apart. Raises BadSample."""
    if len(data) < HEADER.size:
        raise BadSample(f"{len(data)} bytes are no sample")
    version, kind, how, sender, to, first, count = HEADER.unpack_from(data)
    if version != VERSION:
        raise BadSample(
            f"a sample of version {version}; this gateway speaks {VERSION}: use the same tachyon on both sides"
        )
    try:
        sample = Sample(Kind(kind), How(how), sender, to, first, count, memoryview(data)[HEADER.size :], data)
    except ValueError as error:
        raise BadSample(str(error)) from None
    if sample.sender == 0:
        raise BadSample("a sample of nobody")
    if sample.kind in (Kind.DATA, Kind.END) and not (count and first + count < 1 << 63):
        raise BadSample(f"{count} messages from number {first} on")
    if sample.kind == Kind.END and count != 1:
        raise BadSample(f"{count} ends")
    if sample.kind == Kind.ACK and len(sample.payload) != NUMBER.size:
        raise BadSample("an ACK of the wrong size")
    if sample.kind in (Kind.HELLO, Kind.WELCOME) and len(sample.payload) != GREETING.size:
        raise BadSample("a greeting of the wrong size")
    return sample
