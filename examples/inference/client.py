"""Sends batches to the inference service, checks each result, and prints rates and latencies.

python client.py SOCKET [--count N] [--rows N]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

import tachyon
from model import FEATURES, INFER, Array, forward
from tachyon.cli.histogram import quantiles

TIMEOUT = 10.0  # seconds: for the service to appear, and for each answer


def infer(bus: tachyon.RpcBus, batch: Array) -> Array:
    """Send one batch and return its result."""
    call = bus.call_array_zero_copy(batch.shape, batch.dtype, INFER, timeout=TIMEOUT)
    with call as place:  # in the ring; what computes a batch can write it here in the first place
        place[:] = batch
    result: Array = bus.wait_array(call.correlation_id, timeout=TIMEOUT)  # a copy, to keep
    return result


def run(path: str, count: int, rows: int) -> None:
    """Send `count` batches and print the result."""
    generator = np.random.default_rng()
    batches = [generator.standard_normal((rows, FEATURES), dtype=np.float32) for _ in range(8)]
    expected = [forward(batch) for batch in batches]
    latencies = []
    with tachyon.RpcBus.connect(path, timeout=TIMEOUT) as bus:
        infer(bus, batches[0])  # warms up the service's NumPy
        print(f"sending batches of {rows:,} rows, {batches[0].nbytes:,} bytes", flush=True)
        for number in range(count):
            which = number % len(batches)
            start = time.perf_counter_ns()
            result = infer(bus, batches[which])
            latencies.append(time.perf_counter_ns() - start)
            if not np.allclose(result, expected[which], rtol=1e-4, atol=1e-5):
                raise ValueError(f"batch {number} came back wrong")
    seconds = sum(latencies) / 1e9  # of the calls alone, without our checks
    moved = count * (batches[0].nbytes + expected[0].nbytes)
    print(f"{count:,} batches, all as computed here")
    print(f"{count / seconds:,.0f} batches/s, {count * rows / seconds:,.0f} rows/s, {moved / seconds / 1e6:,.0f} MB/s")
    print(quantiles(sorted(latencies)))


def main() -> None:
    """Read the arguments, run, and put what goes wrong in one line."""
    parser = argparse.ArgumentParser(description="Send batches and measure the answers.")
    parser.add_argument("socket", help="path of the service's socket")
    parser.add_argument("--count", type=int, default=10_000, help="how many batches (default 10,000)")
    parser.add_argument("--rows", type=int, default=256, help=f"of {FEATURES} float32, in each batch (default 256)")
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.rows < 1:
        parser.error("--count and --rows must be 1 at least")
    try:
        run(arguments.socket, arguments.count, arguments.rows)
    except (tachyon.TachyonError, ValueError) as error:
        sys.exit(f"client: {error}")
    except KeyboardInterrupt:
        sys.exit("client: interrupted")


if __name__ == "__main__":
    main()
