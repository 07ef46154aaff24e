"""Asks the order-book service many times, checks each snapshot, and prints how long the answers took.

python client.py SOCKET [--count N] [--instrument ID] [--depth LEVELS]
"""

from __future__ import annotations

import argparse
import struct
import sys
import time

import tachyon
from layout import GET_SNAPSHOT, LEVELS, REQUEST, Snapshot
from tachyon.cli.histogram import histogram, quantiles

TIMEOUT = 10.0  # seconds: for the service to appear, and for each answer


def ask(bus: tachyon.RpcBus, instrument: int, depth: int) -> Snapshot:
    """Make one call and wait for its answer."""
    call = bus.call(REQUEST.pack(instrument, depth), GET_SNAPSHOT, timeout=TIMEOUT)
    with bus.wait(call, timeout=TIMEOUT) as answer:
        if answer.type_id == tachyon.MSG_TYPE_ERROR:  # two bytes, then the text
            raise tachyon.RpcError(bytes(answer)[2:].decode(), GET_SNAPSHOT)
        return Snapshot.unpack(answer)  # read in place


def check(book: Snapshot, instrument: int, depth: int, sequence: int) -> None:
    """Raise ValueError if this cannot be the answer, or is older than `sequence`."""
    bids = [price for price, _ in book.bids]
    asks = [price for price, _ in book.asks]
    if book.instrument != instrument:
        raise ValueError(f"asked for instrument {instrument}, got {book.instrument}")
    if len(bids) > depth or len(asks) > depth:
        raise ValueError(f"asked for {depth} levels, got {len(bids)} bids and {len(asks)} asks")
    if bids != sorted(set(bids), reverse=True):
        raise ValueError(f"the bids do not descend: {bids}")
    if asks != sorted(set(asks)):
        raise ValueError(f"the asks do not ascend: {asks}")
    if bids and asks and bids[0] >= asks[0]:
        raise ValueError(f"the best bid, {bids[0]}, is not below the best ask, {asks[0]}")
    if not all(quantity for _, quantity in book.bids + book.asks):
        raise ValueError("a level is empty")
    if book.sequence < sequence:
        raise ValueError(f"after sequence {sequence} came {book.sequence}")


def show(book: Snapshot) -> None:
    """Print a snapshot, the best levels first."""
    print(f"instrument {book.instrument}, sequence {book.sequence}\n\n     bid                  ask")
    for (bid, wanted), (ask, offered) in zip(book.bids, book.asks, strict=False):
        print(f"{wanted:>8} @ {bid / 100:<8.2f} {ask / 100:>8.2f} @ {offered}")
    print(flush=True)


def run(path: str, count: int, instrument: int, depth: int) -> None:
    """Ask `count` times and print the result."""
    latencies = []
    with tachyon.RpcBus.connect(path, timeout=TIMEOUT) as bus:
        first = book = ask(bus, instrument, depth)
        check(first, instrument, depth, 0)
        show(first)
        for _ in range(count):
            start = time.perf_counter_ns()
            snapshot = ask(bus, instrument, depth)
            latencies.append(time.perf_counter_ns() - start)
            check(snapshot, instrument, depth, book.sequence)
            book = snapshot
    latencies.sort()
    print(f"{count:,} snapshots, all consistent; the book changed {book.sequence - first.sequence:,} times meanwhile\n")
    print(*histogram(latencies), quantiles(latencies), sep="\n")


def main() -> None:
    """Read the arguments, run, and put what goes wrong in one line."""
    parser = argparse.ArgumentParser(description="Ask for snapshots and measure the answers.")
    parser.add_argument("socket", help="path of the service's socket")
    parser.add_argument("--count", type=int, default=100_000, help="how many times to ask (default 100,000)")
    parser.add_argument("--instrument", type=int, default=1, help="default 1")
    parser.add_argument("--depth", type=int, default=LEVELS, help=f"levels of each side (default {LEVELS})")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count must be 1 at least")
    try:
        run(arguments.socket, arguments.count, arguments.instrument, arguments.depth)
    except (tachyon.TachyonError, ValueError, struct.error) as error:
        sys.exit(f"client: {error}")
    except KeyboardInterrupt:
        sys.exit("client: interrupted")


if __name__ == "__main__":
    main()
