"""The service behind the gateway: counts the words of a text, by coroutines that take their time.

python service.py SOCKET
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter

import tachyon
from tachyon import aio

COUNT_WORDS = 1
PAUSE = 0.01  # seconds that a real service would wait for a database

dispatcher = tachyon.RpcDispatcher(send_details=True)


@dispatcher.handler(COUNT_WORDS)
async def count_words(request: memoryview) -> bytes:
    """Answer with the five most common words of a text, as JSON."""
    words = bytes(request).decode().lower().split()
    if not words:
        raise ValueError("there are no words")
    await asyncio.sleep(PAUSE)
    return json.dumps(dict(Counter(words).most_common(5))).encode()


async def serve(path: str) -> None:
    """Serve until Ctrl-C or SIGTERM; calls that are being served are answered first."""
    async with aio.RpcServer(path, dispatcher, max_concurrent=256) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        print(f"serving words at {path}; Ctrl-C ends it", flush=True)
        await server.serve_forever()
        counts = server.stats()
    print(f"clients: {counts['accepted']:,}, calls: {counts['served']:,}, of these failed: {counts['failed']:,}")


def main() -> None:
    """Parse, serve."""
    parser = argparse.ArgumentParser(description="Count words.")
    parser.add_argument("socket", help="path of the socket to listen at")
    try:
        asyncio.run(serve(parser.parse_args().socket))
    except tachyon.TachyonError as error:
        sys.exit(f"service: {error}")


if __name__ == "__main__":
    main()
