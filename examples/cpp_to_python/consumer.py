"""Reads float32 frames of the C++ producer where they lie in shared memory, checks each, and prints rates.

python consumer.py SOCKET [--torch]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tachyon

SAMPLES = 256
FRAME_BYTES = SAMPLES * 4
BATCH = 256  # frames at once, at most: a quarter of the ring, so that the producer goes on meanwhile
TIMEOUT = 10.0  # seconds for the producer to appear

Rms = Callable[[Any], float]


def rms_numpy(frame: Any) -> float:
    """Return the root mean square of a frame.

    `samples` is a view of the ring. It must be gone before the frame's block is left: as a local variable it goes when
    we return. What is to be kept has to be copied.
    """
    samples = np.frombuffer(frame, dtype=np.float32)
    return math.sqrt(np.dot(samples, samples) / SAMPLES)


def rms_torch(frame: Any) -> float:
    """Do the same with PyTorch. DLPack hands over bytes; `view` makes float32 of them, without copying either."""
    import torch  # only if it is asked for

    samples = torch.from_dlpack(frame).view(torch.float32)
    return math.sqrt(torch.dot(samples, samples).item() / SAMPLES)


def check(frame: Any, number: int, rms: Rms) -> None:
    """Raise ValueError unless this is frame `number`, whole, with the RMS of a sine of its amplitude."""
    if frame.type_id != number % 2**32:
        raise ValueError(f"after frame {number - 1} came frame {frame.type_id}")
    if len(frame) != FRAME_BYTES:
        raise ValueError(f"frame {number} has {len(frame)} bytes, not {FRAME_BYTES}")
    expected = (1 + number % 8) / math.sqrt(2)
    if not math.isclose(found := rms(frame), expected, rel_tol=1e-5):
        raise ValueError(f"frame {number} has an RMS of {found:.6f}, not {expected:.6f}")


def rates(frames: int, seconds: float) -> str:
    """Return how fast so many frames came."""
    return f"{frames / seconds:,.0f} frames/s, {frames * FRAME_BYTES / seconds / 1e6:,.0f} MB/s"


def run(path: str, rms: Rms) -> None:
    """Read until the producer closes. Prints the rates of each second, and those of the whole."""
    frames = reported = 0
    with tachyon.Bus.connect(path, timeout=TIMEOUT) as bus:
        start = last = time.perf_counter()
        try:
            while True:
                with bus.drain_batch(BATCH) as batch:
                    for frame in batch:
                        check(frame, frames, rms)
                        frames += 1
                now = time.perf_counter()
                if now - last >= 1:
                    print(rates(frames - reported, now - last), flush=True)
                    last, reported = now, frames
        except tachyon.PeerClosedError:  # the end of the stream; one that dies is a PeerDeadError, which ends us
            seconds = time.perf_counter() - start
    print(f"{frames:,} frames, none missing, all with the expected RMS\n{rates(frames, seconds)}")


def main() -> None:
    """Read the arguments, run, and put what goes wrong in one line."""
    parser = argparse.ArgumentParser(description="Check the frames of the producer and measure how fast they come.")
    parser.add_argument("socket", help="path of the producer's socket")
    parser.add_argument("--torch", action="store_true", help="compute with PyTorch instead of NumPy")
    arguments = parser.parse_args()
    try:
        run(arguments.socket, rms_torch if arguments.torch else rms_numpy)
    except (tachyon.TachyonError, ImportError, BufferError, ValueError) as error:
        sys.exit(f"consumer: {error}")
    except KeyboardInterrupt:
        sys.exit("consumer: interrupted")


if __name__ == "__main__":
    main()
