"""Compresses a file with a pool of processes; what comes out is a file for gunzip.

python compress.py SOURCE TARGET [--workers N] [--level 1..9] [--start-method spawn|fork|forkserver]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO

import tachyon
import worker

BLOCK = 128 << 10  # bytes
DEPTH = 3  # blocks with one worker at a time: they and their answers always fit into its rings
CAPACITY = 1 << 20
TIMEOUT = 60.0  # seconds: for a worker to start, and for each block


def deal_out(source: BinaryIO, target: BinaryIO, pipes: list[tachyon.PipeEnd]) -> None:
    """Deal out the blocks in turn and write the answers in the same order."""
    asked: deque[tachyon.PipeEnd] = deque()
    number = 0
    while block := source.read(BLOCK):
        if len(asked) == DEPTH * len(pipes):
            target.write(asked.popleft().recv(timeout=TIMEOUT).data)
        pipe = pipes[number % len(pipes)]
        pipe.send(block, timeout=TIMEOUT)
        asked.append(pipe)
        number += 1
    while asked:
        target.write(asked.popleft().recv(timeout=TIMEOUT).data)


def run(source: Path, target: Path, workers: int, level: int, start_method: str) -> None:
    """Start the pool, compress, and print what each worker did."""
    both = [tachyon.pipe(CAPACITY) for _ in range(workers)]
    pipes = [here for here, _ in both]
    context = multiprocessing.get_context(start_method)
    with (
        ProcessPoolExecutor(
            workers, context, initializer=worker.start, initargs=([there for _, there in both],)
        ) as pool,
        source.open("rb") as reading,
        target.open("wb") as writing,
    ):
        # One task for each process, which it is busy with until its pipe is closed.
        counts = [pool.submit(worker.work, level) for _ in range(workers)]
        try:
            for pipe in pipes:
                pipe.open(timeout=TIMEOUT)
            begin = time.perf_counter()
            deal_out(reading, writing, pipes)
        finally:
            for pipe in pipes:
                pipe.close()  # so that the workers come to their end
        seconds = time.perf_counter() - begin
        blocks = ", ".join(str(count.result()) for count in counts)
    size = source.stat().st_size
    speed = f"{size / seconds / 1e6:.0f} MB/s"
    print(f"{size:,} bytes to {target.stat().st_size:,} by {workers} workers, blocks: {blocks}; {speed}")


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Compress a file with a pool of processes.")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--level", type=int, default=6, choices=range(1, 10), metavar="1..9")
    parser.add_argument("--start-method", default="spawn", choices=multiprocessing.get_all_start_methods())
    options = parser.parse_args()
    try:
        run(options.source, options.target, options.workers, options.level, options.start_method)
    except (tachyon.TachyonError, BrokenProcessPool, OSError) as error:
        print(f"compress: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
