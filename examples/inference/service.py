"""An inference service: float32 batches in, float32 results out, computed on the request where it lies.

python service.py SOCKET
"""

from __future__ import annotations

import argparse
import signal
import sys

import numpy as np

import tachyon
from model import FEATURES, INFER, forward

CALLS = 1 << 20  # bytes of ring for each client's calls: up to 4,095 rows; larger batches go in memory of their own
REPLIES = 1 << 18  # and for its answers, which are a sixth of that

dispatcher = tachyon.RpcDispatcher(send_details=True)  # clients see the text of the error below


@dispatcher.handler(INFER)
def infer(request: memoryview) -> tachyon.ArrayPayload:
    """Answer one batch without copying it.

    `batch` is a view of the ring and must not outlive this call: as a local variable it goes when we return. Had we
    put it away, in a list say, the service would cut off this client. What we return is copied into the other ring.
    """
    batch = tachyon.as_array(request)  # shape and type came along; ArrayError, which the client sees, if it is no array
    if batch.dtype != np.float32 or batch.ndim != 2 or batch.shape[0] == 0 or batch.shape[1] != FEATURES:
        raise ValueError(f"a batch is float32 of shape (rows, {FEATURES}); got {batch.dtype} {batch.shape}")
    return tachyon.ArrayPayload(forward(batch))


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a small neural network.")
    parser.add_argument("socket", help="path of the socket to listen at")
    arguments = parser.parse_args()
    try:
        with tachyon.RpcServer(arguments.socket, dispatcher, CALLS, REPLIES) as server:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: server.stop())  # the batch that is being computed is answered first
            print(f"serving at {arguments.socket}; Ctrl-C ends it", flush=True)
            server.serve_forever()
            counts = server.stats()
    except tachyon.TachyonError as error:
        sys.exit(f"service: {error}")
    print(f"clients: {counts['accepted']:,}, calls: {counts['served']:,}, of these failed: {counts['failed']:,}")


if __name__ == "__main__":
    main()
