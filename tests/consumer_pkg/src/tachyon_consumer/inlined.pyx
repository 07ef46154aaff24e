# cython: language_level=3
# distutils: language = c++
"""Tier 2: the ring itself, inlined."""

from tachyon cimport EMPTY, FULL, INTERRUPTED, OK, PEER_CLOSED, Bus
from tachyon.libtachyon cimport Consumer, Frame, Producer, Status, borrow_consumer, borrow_producer, give_back


def send_numbers(Bus bus not None, unsigned long long count):
    cdef Producer* producer = borrow_producer(bus)
    cdef unsigned long long i
    cdef int status = OK
    try:
        with nogil:
            for i in range(1, count + 1):
                while not producer.try_send(&i, sizeof(i), 1):
                    status = bus.wait_writable(sizeof(i), -1)
                    if status == INTERRUPTED:
                        with gil:
                            bus.raise_for_status(status)
                    elif status != OK and status != FULL:
                        break
                if status != OK and status != FULL and status != INTERRUPTED:
                    break
    finally:
        give_back(bus)
    if status != FULL and status != INTERRUPTED:
        bus.raise_for_status(status)


def sum_numbers(Bus bus not None):
    cdef Consumer* consumer = borrow_consumer(bus)
    cdef Frame frame
    cdef unsigned long long total = 0
    cdef Status found
    cdef int status = OK
    try:
        with nogil:
            while True:
                found = consumer.peek(frame)
                if found == Status.ok:
                    total += (<const unsigned long long*>frame.payload)[0]
                    consumer.release(frame)
                    continue
                if found != Status.empty:
                    status = <int>found
                    break
                status = bus.wait_readable(-1)
                if status == INTERRUPTED:
                    with gil:
                        bus.raise_for_status(status)
                elif status != OK and status != EMPTY:
                    break
    finally:
        give_back(bus)
    if status != PEER_CLOSED:
        bus.raise_for_status(status)
    return total
