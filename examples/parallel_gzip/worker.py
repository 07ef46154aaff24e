"""What runs in each process of the pool: takes a pipe of its own, then answers blocks with their gzip members."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

import tachyon

mine: list[tachyon.PipeEnd] = []


def start(ends: Sequence[tachyon.PipeEnd]) -> None:
    """Take the first end that no other worker has taken. Every worker is started with the same ones."""
    mine.append(tachyon.take(ends))


def work(level: int) -> int:
    """Compress until the other side closes. Returns how many blocks there were."""
    count = 0
    with mine.pop() as end:
        for block in end:
            end.send(gzip.compress(block.data, level, mtime=0))
            count += 1
    return count
