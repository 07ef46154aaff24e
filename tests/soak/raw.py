"""The protocol by hand, for peers that follow it until they do not. Numbers are of the headers and a real greeting."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import random
import re
import socket
import struct
import time
from pathlib import Path

INCLUDE = Path(__file__).resolve().parents[2] / "cxx/include/tachyon"
LAYOUT, GREETING = (INCLUDE / part for part in ("ring/layout.hpp", "link/hello.hpp"))
FIELD = dict.fromkeys(("version", "oldest", "kind", "arrangement"), "H")  # the others: I
PATIENCE = 3.0
READY = b"R"
LINE, HEAD = 64, 16
PADDING = 0xFFFFFFFF


def offsets(header: Path, structure: str) -> dict[str, int]:
    found = re.findall(rf"offsetof\({structure}, (\w+)\) == (\d+)", header.read_text())
    return {name: int(offset) for name, offset in found}


HELLO, OFFER, HEADER = offsets(GREETING, "Hello"), offsets(GREETING, "SegmentOffer"), offsets(LAYOUT, "SegmentHeader")
HELLO_BYTES, OFFER_BYTES = (
    int(re.findall(rf"sizeof\({name}\) == (\d+)", GREETING.read_text())[0]) for name in ("Hello", "SegmentOffer")
)
READ_WRITE = 2
PAGE = int(re.findall(r"kHeaderBytes = (\d+)", LAYOUT.read_text())[0])


def put(hello: bytearray, name: str, value: int) -> None:
    form = "=" + FIELD.get(name, "I")
    struct.pack_into(form, hello, HELLO[name], value & ((1 << 8 * struct.calcsize(form)) - 1))


def put_offer(hello: bytearray, index: int, capacity: int, /, **changes: int) -> None:
    fields = {"bytes": PAGE + capacity, "capacity": capacity, "access": READ_WRITE} | changes
    for name, value in fields.items():
        form = "=Q" if name in ("bytes", "capacity") else "=I"
        at = HELLO["offers"] + index * OFFER_BYTES + OFFER[name]
        struct.pack_into(form, hello, at, value & ((1 << 8 * struct.calcsize(form)) - 1))


RESERVED = 128 << 20  # bytes; memory beyond that is offered without being there


class Greeting:
    """What a real listener says, and the header page that it makes: found out by asking one, twice."""

    def __init__(self, path: str) -> None:
        hello = bytearray(HELLO_BYTES)
        hello[:8] = b"TACHYON\x1a"
        put(hello, "byte_order", 0x01020304)
        for name in ("version", "oldest"):  # so that it says at once what it would have
            put(hello, name, 0xFFFF)
        put(hello, "bytes", HELLO_BYTES)
        with dial(path) as probe:
            probe.sendall(hello)
            self.hello = bytearray(probe.recv(HELLO_BYTES, socket.MSG_WAITALL))
        for name in ("verdict", "segments", "abilities"):
            put(self.hello, name, 0)
        peer = shake_as_connector(path, self.hello)
        self.page = bytes(peer.memories[0][:PAGE])
        peer.close()

    def of(self, rpc: bool) -> bytearray:
        hello = bytearray(self.hello)
        put(hello, "kind", 2 if rpc else 1)
        return hello

    def segment(self, capacity: int, *, size: int | None = None, seals: int = 7) -> int:
        number = os.memfd_create("soak", os.MFD_ALLOW_SEALING)
        size = PAGE + capacity if size is None else size
        os.ftruncate(number, size)
        if 0 < size <= RESERVED:  # as every listener that means it; more is an attack
            for start in range(0, size, 1 << 20):  # reserved, and touched as an honest listener's is
                os.pwrite(number, bytes(min(1 << 20, size - start)), start)
        page = bytearray(self.page)
        struct.pack_into("=Q", page, HEADER["capacity"], capacity)
        with contextlib.suppress(OSError):
            os.pwrite(number, page[: os.fstat(number).st_size], 0)
            fcntl.fcntl(number, 1033, seals)  # F_ADD_SEALS: SEAL | SHRINK | GROW
        return number


def dial(path: str) -> socket.socket:
    """A raw client, as soon as somebody listens."""
    end = time.monotonic() + PATIENCE
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        try:
            client.connect(path)
            return client
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            client.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.001)


class Peer:
    """One that has shaken hands: a socket, and the segments in its reach."""

    def __init__(self, link: socket.socket, numbers: list[int]) -> None:
        self.link, self.numbers = link, numbers
        self.memories = [mmap.mmap(number, os.fstat(number).st_size) for number in numbers]

    def close(self) -> None:
        self.link.close()
        for memory in self.memories:
            memory.close()
        for number in self.numbers:
            os.close(number)

    def word(self, memory: mmap.mmap, name: str, value: int) -> None:
        form = "=Q" if name in ("magic", "capacity", "read_position") else "=I"
        struct.pack_into(form, memory, HEADER[name], value & ((1 << 8 * struct.calcsize(form)) - 1))


def shake_as_connector(path: str, hello: bytearray) -> Peer:
    client = dial(path)
    client.sendall(hello)
    answer, numbers, _, _ = socket.recv_fds(client, HELLO_BYTES, 4)
    if len(answer) != HELLO_BYTES or not numbers:
        client.close()
        raise ConnectionError("refused")
    client.sendall(READY)
    client.recv(1)
    return Peer(client, numbers)


def shake_as_listener(server: socket.socket, greeting: Greeting, rpc: bool, capacity: int) -> Peer:
    client, _ = server.accept()
    client.settimeout(PATIENCE)
    client.recv(HELLO_BYTES, socket.MSG_WAITALL)
    hello, count = greeting.of(rpc), 2 if rpc else 1
    put(hello, "segments", count)
    numbers = [greeting.segment(capacity) for _ in range(count)]
    for i in range(count):
        put_offer(hello, i, capacity)
    socket.send_fds(client, [bytes(hello)], numbers)
    client.recv(1)
    client.sendall(READY)
    return Peer(client, numbers)


# ---- what goes into a ring -------------------------------------------------------------------------------------------


def frame(size: int, type_id: int = 0, correlation_id: int = 0) -> bytes:
    lines = -(-(size + HEAD) // LINE) * LINE
    return (struct.pack("=IIQ", size + 1, type_id, correlation_id) + bytes(size)).ljust(lines, b"\0")


def wild(source: random.Random, capacity: int) -> int:
    return source.choice(
        [
            *(0, 1, 2, 3, LINE, PADDING, PADDING - 1, 1 << 31, (1 << 64) - 1, (1 << 64) - LINE, 1 << 63),
            *(capacity - 16, capacity - 15, capacity - 14, capacity, capacity + LINE, 2 * capacity),
            *(source.randrange(1 << 64), source.randrange(4 * capacity + 1)),
            source.randrange(capacity // LINE + 1) * LINE,
        ]
    )


def punch(number: int, begin: int, size: int) -> None:
    """A hole: what was there reads 0."""
    ctypes.CDLL(None, use_errno=True).fallocate(number, 3, ctypes.c_long(begin), ctypes.c_long(size))
