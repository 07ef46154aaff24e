# cython: language_level=3
# distutils: language = c++
"""The loops of cxx/bench's one-way measurement in Cython: 32 B, each message visible at once, checked by the consumer.

Every producer returns when it began, every consumer when it ended.
"""

from libc.string cimport memcpy

from tachyon cimport OK, Bus
from tachyon cimport Frame as Message
from tachyon.libtachyon cimport (
    Consumer, Frame, Producer, Status, borrow_consumer, borrow_producer, cpu_relax, give_back, now_ns,
)

cdef struct Payload:
    unsigned long long number
    char rest[24]


def inlined_send(Bus bus not None, unsigned long long messages):
    cdef Producer* producer = borrow_producer(bus)
    cdef Payload payload
    cdef unsigned long long i, start
    try:
        with nogil:
            start = now_ns()
            for i in range(1, messages + 1):
                payload.number = i
                while not producer.try_send(&payload, sizeof(payload), 1):
                    cpu_relax()
    finally:
        give_back(bus)
    return start


def inlined_receive(Bus bus not None, unsigned long long messages):
    cdef Consumer* consumer = borrow_consumer(bus)
    cdef Payload payload
    cdef Frame frame
    cdef unsigned long long i, wrong = 0, end
    try:
        with nogil:
            for i in range(1, messages + 1):
                while consumer.peek(frame) != Status.ok:
                    cpu_relax()
                memcpy(&payload, frame.payload, sizeof(payload))
                consumer.release(frame)
                wrong += payload.number != i
            end = now_ns()
    finally:
        give_back(bus)
    assert wrong == 0
    return end


def methods_send(Bus bus not None, unsigned long long messages):
    cdef Payload payload
    cdef unsigned long long i, start
    cdef int status = OK
    with nogil:
        start = now_ns()
        for i in range(1, messages + 1):
            payload.number = i
            status = bus.send_bytes(&payload, sizeof(payload), 1, -1)
            if status != OK:
                break
    bus.raise_for_status(status)
    return start


def methods_claim(Bus bus not None, unsigned long long messages):
    cdef unsigned char* payload = NULL
    cdef unsigned long long i, start
    cdef int status = OK
    with nogil:
        start = now_ns()
        for i in range(1, messages + 1):
            status = bus.claim(sizeof(Payload), &payload, -1)
            if status != OK:
                break
            (<Payload*>payload).number = i
            status = bus.commit(sizeof(Payload), 1)
            if status != OK:
                break
    bus.raise_for_status(status)
    return start


def methods_receive(Bus bus not None, unsigned long long messages):
    cdef Payload payload
    cdef Message frame
    cdef unsigned long long i, wrong = 0, end
    cdef int status = OK
    with nogil:
        for i in range(1, messages + 1):
            status = bus.peek(&frame, -1)
            if status != OK:
                break
            memcpy(&payload, frame.payload, sizeof(payload))
            bus.release(&frame)
            wrong += payload.number != i
        end = now_ns()
    bus.raise_for_status(status)
    assert wrong == 0
    return end


def methods_receive_batches(Bus bus not None, unsigned long long messages):
    cdef Payload payload
    cdef Message[64] frames
    cdef unsigned long long i = 0, wrong = 0, end
    cdef size_t count = 0, k
    cdef int status = OK
    with nogil:
        while i < messages:
            status = bus.drain(frames, 64, &count, -1)
            if status != OK:
                break
            for k in range(count):
                i += 1
                memcpy(&payload, frames[k].payload, sizeof(payload))
                wrong += payload.number != i
            bus.release_all(frames, count)
        end = now_ns()
    bus.raise_for_status(status)
    assert wrong == 0
    return end
