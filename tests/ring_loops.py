"""A module with the ring inlined, for the tests of tier 2: loops over a borrowed ring, and its statuses."""

SOURCE = """\
# cython: language_level=3
cimport tachyon
from libc.string cimport memcpy

from tachyon cimport INTERRUPTED, OK, Bus
from tachyon cimport EMPTY as NOTHING
from tachyon cimport FULL as NO_ROOM
from tachyon.libtachyon cimport (
    Consumer, Frame, Producer, Status, borrow_consumer, borrow_producer, give_back, ring_layout,
)


def produce(Bus bus not None, unsigned long long count):
    cdef Producer* producer = borrow_producer(bus)
    cdef unsigned long long i
    cdef unsigned char* payload
    cdef int status = OK
    try:
        with nogil:
            for i in range(count):
                while not producer.try_send(&i, sizeof(i), 1) if i % 2 else False:
                    status = bus.wait_writable(sizeof(i), -1)
                    if status != OK and status != NO_ROOM:
                        break
                if i % 2 == 0:
                    payload = producer.try_claim(64)
                    while payload == NULL:
                        status = bus.wait_writable(64, -1)
                        if status != OK and status != NO_ROOM:
                            break
                        payload = producer.try_claim(64)
                    if payload == NULL:
                        break
                    memcpy(payload, &i, sizeof(i))
                    producer.commit(sizeof(i), 2)
                if status == INTERRUPTED:
                    with gil:
                        bus.raise_for_status(status)
                elif status != OK and status != NO_ROOM:
                    break
    finally:
        give_back(bus)
    bus.raise_for_status(OK if status == NO_ROOM else status)


def consume(Bus bus not None):
    '''Until the peer closes. How many; -1: one was wrong.'''
    cdef Consumer* consumer = borrow_consumer(bus)
    cdef Frame frame
    cdef Status found
    cdef unsigned long long i = 0, number = 0
    cdef bint wrong = False
    cdef int status = OK
    try:
        with nogil:
            while True:
                found = consumer.peek(frame)
                if found == Status.ok:
                    memcpy(&number, frame.payload, sizeof(number))
                    wrong = wrong or number != i or frame.size != 8 or frame.type_id != 2 - i % 2
                    consumer.release(frame)
                    i += 1
                    continue
                if found != Status.empty:
                    status = <int>found
                    break
                status = bus.wait_readable(-1)
                if status == INTERRUPTED:
                    with gil:
                        bus.raise_for_status(status)
                elif status != OK and status != NOTHING:
                    break
    finally:
        give_back(bus)
    if status != tachyon.PEER_CLOSED:
        bus.raise_for_status(status)
    return -1 if wrong else i


cdef class Hand:
    cdef Bus bus
    cdef Producer* producer
    cdef Consumer* consumer
    cdef Frame frame

    def __init__(self, Bus bus): self.bus = bus
    def borrow_producer(self): self.producer = borrow_producer(self.bus)
    def borrow_consumer(self): self.consumer = borrow_consumer(self.bus)
    def give_back(self): give_back(self.bus)
    def lend(self, producer, difference): self.bus.lend(producer, ring_layout() + <int>difference)
    def layout(self): return ring_layout()
    def send(self, bytes data): return self.producer.try_send(<char*>data, len(data), 0)
    def claim(self): return self.producer.try_claim(100) != NULL
    def peek(self): return int(<int>self.consumer.peek(self.frame))
    def read(self): return self.frame.payload[:self.frame.size]
    def release(self): self.consumer.release(self.frame)
    def check(self): return self.bus.check()
    def tier1(self):
        cdef unsigned char* payload = NULL
        cdef tachyon.Frame frame
        cdef size_t count = 0
        return (
            self.bus.try_claim(1, &payload), self.bus.try_send_bytes(b"", 0, 0), self.bus.commit(0, 0),
            self.bus.try_peek(&frame), self.bus.try_drain(&frame, 1, &count), self.bus.claim(1, &payload, -1),
            self.bus.peek(&frame, -1),
        )
    def wait_readable(self, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.wait_readable(timeout)
        return status
    def wait_writable(self, long long timeout):
        cdef int status
        with nogil:
            status = self.bus.wait_writable(8, timeout)
        return status
"""
