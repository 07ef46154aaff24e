# cython: language_level=3
# distutils: language = c++
"""Tier 2: the ring itself, inlined. The same loops; the full and the empty ring are dealt with here."""

from book cimport Book, Market, Tick, apply, clear, next_tick, summary

from tachyon cimport EMPTY, FULL, OK, PEER_CLOSED, Bus
from tachyon.libtachyon cimport Consumer, Frame, Producer, Status, borrow_consumer, borrow_producer, give_back


def produce(Bus bus not None, unsigned long long count, unsigned long long seed=88172645463325252):
    cdef Producer* producer = borrow_producer(bus)
    cdef Market market
    cdef Tick tick
    cdef unsigned int type_id
    cdef unsigned long long _
    cdef int status = OK
    market.random, market.middle = seed, 500
    tick.sequence = tick.reserved = tick.sent_ns = 0
    try:
        with nogil:
            for _ in range(count):
                type_id = next_tick(&market, &tick)
                while not producer.try_send(&tick, sizeof(Tick), type_id):
                    status = bus.wait_writable(sizeof(Tick), -1)
                    if status == OK or status == FULL:
                        status = OK
                    else:
                        with gil:
                            bus.raise_for_status(status)  # INTERRUPTED raises what a signal handler raises, if it does
    finally:
        give_back(bus)


def consume(Bus bus not None):
    cdef Consumer* consumer = borrow_consumer(bus)
    cdef Book book
    cdef Frame frame
    cdef Status found
    cdef int status = OK
    clear(&book)
    try:
        with nogil:
            while status != PEER_CLOSED:
                found = consumer.peek(frame)
                if found == Status.ok:
                    if frame.size == sizeof(Tick):
                        apply(&book, frame.type_id, <const Tick*>frame.payload)
                    consumer.release(frame)
                    continue
                status = bus.wait_readable(-1) if found == Status.empty else <int>found
                if status != OK and status != EMPTY and status != PEER_CLOSED:
                    with gil:
                        bus.raise_for_status(status)
    finally:
        give_back(bus)
    return summary(&book)
