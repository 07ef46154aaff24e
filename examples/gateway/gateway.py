"""A gateway: HTTP in, calls to the service behind. One process, one loop, any number of requests at once.

python gateway.py SOCKET [--port PORT]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import tachyon
from tachyon import aio

COUNT_WORDS = tachyon.RpcEndpoint(1)
LARGEST = 1 << 16  # bytes of a request's body
PATIENCE = 5.0  # seconds for a call

Answer = tuple[int, str, bytes]


async def answer(bus: aio.RpcBus, body: bytes) -> Answer:
    """Call the service, and put what comes of it in HTTP's words."""
    try:
        return 200, "OK", await COUNT_WORDS.acall(bus, body, timeout=PATIENCE)
    except tachyon.RpcError as error:
        return 422, "Unprocessable Content", str(error.detail).encode()
    except tachyon.TachyonTimeoutError as error:
        return 504, "Gateway Timeout", str(error).encode()
    except tachyon.TachyonError as error:
        return 502, "Bad Gateway", str(error).encode()


async def talk(bus: aio.RpcBus, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one client's requests, until it hangs up."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            length = fields.get("content-length", "0")
            if not length.isdecimal() or int(length) > LARGEST:
                code, reason, body = 413, "Content Too Large", b"at most 65536 bytes"
            else:
                code, reason, body = await answer(bus, await reader.readexactly(int(length)))
            writer.write(f"HTTP/1.1 {code} {reason}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            if code == 413:
                return
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return
    finally:
        writer.close()


async def serve(path: str, port: int) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    done = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    async with await aio.RpcBus.connect(path, timeout=PATIENCE) as bus:
        server = await asyncio.start_server(lambda reader, writer: talk(bus, reader, writer), "127.0.0.1", port)
        print(f"listening at port {server.sockets[0].getsockname()[1]}", flush=True)
        await done.wait()
        server.close()


def main() -> None:
    """Parse, serve."""
    parser = argparse.ArgumentParser(description="Bring HTTP to a service.")
    parser.add_argument("socket", help="path of the service's socket")
    parser.add_argument("--port", type=int, default=0, help="to listen at; 0: any")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.socket, arguments.port))
    except tachyon.TachyonError as error:
        sys.exit(f"gateway: {error}")


if __name__ == "__main__":
    main()
