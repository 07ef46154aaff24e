"""The same in pure Python, to compare with."""

import struct

TICK = struct.Struct("=QIIIIQ")
LEVELS, QUOTE, TRADE = 1024, 1, 2
MASK = (1 << 64) - 1


def ticks(count, seed=88172645463325252):
    """(type_id, bytes), the very ones of book.pxd."""
    x, middle = seed, 500
    for sequence in range(1, count + 1):
        x ^= x << 13 & MASK
        x ^= x >> 7
        x ^= x << 17 & MASK
        if x % 16 == 0 and 300 < middle < 700:
            middle += 1 if x & 16 else -1
        side, quantity = x >> 8 & 1, (x >> 16) % 100
        if (x >> 32) % 4 == 0:
            kind, level = TRADE, middle
        else:
            kind, level = QUOTE, middle + 1 + (x >> 40) % 20 if side else middle - 1 - (x >> 40) % 20
        yield kind, TICK.pack(sequence, level, quantity, side, 0, 0)


def produce(bus, count):
    """Send `count` ticks."""
    send = bus.send
    for kind, data in ticks(count):
        send(data, kind)


def consume(bus):
    """Receive until the producer closes."""
    quantities = [0] * LEVELS, [0] * LEVELS
    bids, asks = quantities
    bid, ask, count, missed, traded, paid = -1, LEVELS, 0, 0, 0, 0.0
    unpack = TICK.unpack
    for kind, _, data in bus:
        sequence, level, quantity, side, _, _ = unpack(data)
        count += 1
        missed += sequence != count
        if kind == TRADE:
            traded += quantity
            paid += quantity * level
            continue
        quantities[side][level] = quantity
        if side == 0:
            if quantity and level > bid:
                bid = level
            while bid >= 0 and bids[bid] == 0:
                bid -= 1
        else:
            if quantity and level < ask:
                ask = level
            while ask < LEVELS and asks[ask] == 0:
                ask += 1
    return {"ticks": count, "missed": missed, "vwap": paid / traded if traded else None, "bid": bid, "ask": ask}
