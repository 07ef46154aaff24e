"""An order-book service: keeps simulated books that change all the time, and answers with snapshots of them.

python service.py SOCKET
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time

import tachyon
from layout import GET_SNAPSHOT, LEVELS, REQUEST, Snapshot

INSTRUMENTS = (1, 2, 3, 4)
REACH = 20  # cents: no order is farther from the middle
PAUSE = 0.001  # seconds between two changes


class Book:
    """The orders of one instrument: quantities by price. Bids are below the middle, asks above it."""

    def __init__(self, instrument: int) -> None:
        """Start with all levels filled."""
        self.instrument = instrument
        self.sequence = 1
        self.middle = 10_000 * instrument
        self.bids = {self.middle - distance: 100 for distance in range(1, REACH + 1)}
        self.asks = {self.middle + distance: 100 for distance in range(1, REACH + 1)}

    def change(self) -> None:
        """Let one thing happen: the middle moves by a cent at most, and one level becomes another, new, or empty."""
        self.sequence += 1
        self.middle = max(2 * REACH, self.middle + random.choice((-1, 0, 1)))
        side, direction = random.choice(((self.bids, -1), (self.asks, 1)))
        side[self.middle + direction * random.randint(1, REACH)] = max(0, random.randint(-100, 900))
        self.bids = {price: n for price, n in self.bids.items() if n and 0 < self.middle - price <= REACH}
        self.asks = {price: n for price, n in self.asks.items() if n and 0 < price - self.middle <= REACH}

    def snapshot(self, depth: int) -> Snapshot:
        """Return the best `depth` levels of each side."""
        bids = sorted(self.bids.items(), reverse=True)[:depth]
        asks = sorted(self.asks.items())[:depth]
        return Snapshot(self.sequence, self.instrument, bids, asks)


books = {instrument: Book(instrument) for instrument in INSTRUMENTS}
lock = threading.Lock()  # a snapshot never shows half a change
dispatcher = tachyon.RpcDispatcher(send_details=True)  # callers see the text of the errors below


@dispatcher.handler(GET_SNAPSHOT)
def get_snapshot(request: memoryview) -> bytes:
    """Answer one call. Whatever is raised here becomes an error reply."""
    if len(request) != REQUEST.size:
        raise ValueError(f"a request has {REQUEST.size} bytes, not {len(request)}")
    instrument, depth = REQUEST.unpack(request)
    if instrument not in books:
        raise LookupError(f"there is no instrument {instrument}, only {', '.join(map(str, books))}")
    if not 1 <= depth <= LEVELS:
        raise ValueError(f"depth must be between 1 and {LEVELS}, not {depth}")
    with lock:
        snapshot = books[instrument].snapshot(depth)
    return snapshot.pack()


def market() -> None:
    """Change the books, for ever."""
    while True:
        time.sleep(PAUSE)
        with lock:
            random.choice(list(books.values())).change()


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve snapshots of simulated order books.")
    parser.add_argument("socket", help="path of the socket to listen at")
    arguments = parser.parse_args()
    try:
        with tachyon.RpcServer(arguments.socket, dispatcher) as server:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: server.stop())  # the call that is being served is answered first
            threading.Thread(target=market, daemon=True).start()
            print(f"serving instruments {', '.join(map(str, books))} at {arguments.socket}; Ctrl-C ends it", flush=True)
            server.serve_forever()
            counts = server.stats()
    except tachyon.TachyonError as error:
        sys.exit(f"service: {error}")
    print(f"clients: {counts['accepted']:,}, calls: {counts['served']:,}, of these failed: {counts['failed']:,}")


if __name__ == "__main__":
    main()
