"""What a hostile peer writes: into the memory, the socket, the greeting, and as descriptors."""

from __future__ import annotations

import contextlib
import os
import random
import socket

import raw
from raw import HEADER, LINE, PAGE, Greeting, Peer, frame, put, wild


def scribble(peer: Peer, source: random.Random) -> None:
    """One act, mostly well aimed."""
    which = source.randrange(len(peer.memories))
    memory = peer.memories[which]
    size = len(memory)
    capacity = size - PAGE
    line = PAGE + source.randrange(capacity // LINE) * LINE
    act = source.randrange(12)
    if act <= 2:
        peer.word(memory, source.choice(list(HEADER)), wild(source, capacity))
    elif act <= 4:
        low = wild(source, capacity) & 0xFFFFFFFF
        memory[line : line + 8] = (low | source.choice([0, 1, 2, 0xFFFF, 0xFFFFFFFF]) << 32).to_bytes(8, "little")
    elif act == 5:
        memory[line + 8 : line + 16] = wild(source, capacity).to_bytes(8, "little")
    elif act == 6:
        begin = source.randrange(size)
        junk = source.randbytes(min(size - begin, 5000))
        memory[begin : begin + len(junk)] = junk
    elif act == 7:
        raw.punch(peer.numbers[which], source.randrange(0, size, 4096), 8192)
    elif act == 8:
        with contextlib.suppress(OSError):
            os.ftruncate(peer.numbers[which], source.randrange(2 * size))
        with contextlib.suppress(OSError):
            os.ftruncate(peer.numbers[which], size)
    elif act == 9:
        with contextlib.suppress(OSError):
            peer.link.setblocking(False)
            peer.link.send(source.choice([b"B", b"B" * 4096, b"R", source.randbytes(100)]))
    elif act == 10:
        with contextlib.suppress(OSError), open("/dev/null") as null:
            socket.send_fds(peer.link, [b"B"], [null.fileno()] * source.randrange(1, 20))
    else:
        fill(peer, source, which)


def fill(peer: Peer, source: random.Random, which: int = 0) -> None:
    """A ring full of frames that are right in themselves."""
    memory = peer.memories[which]
    capacity = len(memory) - PAGE
    ids = source.choice([0, 1, 2, 1 << 40])
    data = b""
    while len(data) < min(capacity, 1 << 14):
        data += frame(source.choice([0, 1, 48, 49, 200]) % (capacity - 16), source.choice([1, 2, 0xFFFF]), ids)
        ids += source.choice([0, 1, 1, 1])
    data = data[:capacity]
    memory[PAGE : PAGE + len(data)] = data
    if source.random() < 0.5:
        peer.word(memory, "producer_side", source.choice([1, 2]))


def mutated_hello(greeting: Greeting, source: random.Random, rpc: bool, capacity: int | None) -> bytes:
    """A listener's; a connector's where no capacity is offered."""
    hello = greeting.of(rpc)
    if capacity is None:
        capacity = 4096
    else:
        put(hello, "segments", 1 + rpc)
        for i in range(1 + rpc):
            raw.put_offer(hello, i, capacity)
    for _ in range(source.choice([0, 1, 1, 3])):
        name = source.choice(list(raw.HELLO))
        if name == "magic":
            hello[source.randrange(len(hello))] ^= 1 << source.randrange(8)
        elif name == "offers":
            field = source.choice(list(raw.OFFER))
            raw.put_offer(hello, source.randrange(8), capacity, **{field: wild(source, capacity)})
        else:
            put(hello, name, wild(source, capacity))
    data = bytes(hello)
    return source.choice([data, data, data, data[: source.randrange(len(data))], data + source.randbytes(99)])


def odd_descriptors(greeting: Greeting, source: random.Random, right: int, capacity: int) -> list[int]:
    made = []
    for _ in range(source.choice([right, right, right, 0, 1, 3, 5, 200])):
        kind = source.randrange(8)
        if kind == 0:
            made.append(os.open(source.choice(["/dev/null", "/dev/zero", "/", "/proc/self/maps"]), os.O_RDONLY))
        elif kind == 1:
            made += os.pipe()
        elif kind == 2:
            made.append(greeting.segment(capacity, seals=source.randrange(32)))
        elif kind == 3:
            made.append(
                greeting.segment(capacity, size=source.choice([0, 1, 4096, PAGE + capacity - 1, PAGE + 2 * capacity]))
            )
        else:
            made.append(greeting.segment(capacity))
    return made
