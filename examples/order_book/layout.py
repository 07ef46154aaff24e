"""What goes over the bus: the request and the snapshot, little-endian, without padding. Prices are in cents.

request, 8 bytes          snapshot, 176 bytes
  0  u32  instrument        0  u64  sequence: grows with each change of this book
  4  u32  depth, 1 … 10     8  u32  instrument
                           12  u16  bids, how many follow
                           14  u16  asks, how many follow
                           16  10 levels of 16 bytes, the best one first; zero where there is no more
                                 0  u32  bid price      8  u32  ask price
                                 4  u32  bid quantity  12  u32  ask quantity
"""

from __future__ import annotations

import struct
from itertools import zip_longest
from typing import Any, NamedTuple

GET_SNAPSHOT = 1  # the msg_type
LEVELS = 10
REQUEST = struct.Struct("<II")
SNAPSHOT = struct.Struct(f"<QIHH{4 * LEVELS}I")
assert SNAPSHOT.size == 176

Level = tuple[int, int]  # price, quantity


class Snapshot(NamedTuple):
    """One book at one moment."""

    sequence: int
    instrument: int
    bids: list[Level]
    asks: list[Level]

    def pack(self) -> bytes:
        """Return the 176 bytes."""
        numbers: list[int] = []
        for bid, ask in zip_longest(self.bids, self.asks, fillvalue=(0, 0)):
            numbers += [*bid, *ask]
        numbers += [0] * (4 * LEVELS - len(numbers))
        return SNAPSHOT.pack(self.sequence, self.instrument, len(self.bids), len(self.asks), *numbers)

    @classmethod
    def unpack(cls, buffer: Any) -> Snapshot:
        """Read the 176 bytes of any buffer; struct.error if there are more or fewer."""
        sequence, instrument, bids, asks, *numbers = SNAPSHOT.unpack(buffer)
        levels = list(zip(numbers[0::2], numbers[1::2], strict=True))  # a bid, an ask, a bid, an ask, …
        return cls(sequence, instrument, levels[0::2][:bids], levels[1::2][:asks])
