# cython: language_level=3
"""Tier 1: methods of Bus, no GIL, nothing to include or link."""

from book cimport Book, Market, Tick, apply, clear, next_tick, summary

from tachyon cimport OK, PEER_CLOSED, Bus, Frame


def produce(Bus bus not None, unsigned long long count, unsigned long long seed=88172645463325252):
    """Send `count` ticks, each written in place."""
    cdef Market market
    cdef Tick tick
    cdef unsigned char* payload = NULL
    cdef unsigned int type_id
    cdef unsigned long long _
    cdef int status = OK
    market.random, market.middle = seed, 500
    tick.sequence = tick.reserved = tick.sent_ns = 0
    with nogil:
        for _ in range(count):
            type_id = next_tick(&market, &tick)
            status = bus.claim(sizeof(Tick), &payload, -1)
            if status != OK:
                break
            (<Tick*>payload)[0] = tick
            status = bus.commit(sizeof(Tick), type_id)
            if status != OK:
                break
    bus.raise_for_status(status)


def consume(Bus bus not None):
    """Take ticks in batches until the producer closes; returns what came of them."""
    cdef Book book
    cdef Frame[64] frames
    cdef size_t count = 0, i
    cdef int status = OK
    clear(&book)
    with nogil:
        while True:
            status = bus.drain(frames, 64, &count, -1)
            if status != OK:
                break
            for i in range(count):
                if frames[i].size == sizeof(Tick):  # what a peer sends is checked like any other input
                    apply(&book, frames[i].type_id, <const Tick*>frames[i].payload)
            status = bus.release_all(frames, count)
            if status != OK:
                break
    if status != PEER_CLOSED:
        bus.raise_for_status(status)
    return summary(&book)
