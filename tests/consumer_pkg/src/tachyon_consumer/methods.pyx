# cython: language_level=3
"""Tier 1: methods of Bus and RpcBus. No header, nothing to link; this compiles as C."""

from tachyon cimport OK, PEER_CLOSED, Bus, Frame, RpcBus


def send_numbers(Bus bus not None, unsigned long long count):
    """Send 1 … count."""
    cdef unsigned char* payload = NULL
    cdef unsigned long long i
    cdef int status = OK
    with nogil:
        for i in range(1, count + 1):
            status = bus.claim(sizeof(i), &payload, -1)
            if status != OK:
                break
            (<unsigned long long*>payload)[0] = i
            status = bus.commit(sizeof(i), 1)
            if status != OK:
                break
    bus.raise_for_status(status)


def sum_numbers(Bus bus not None):
    """The sum of all that comes until the peer closes."""
    cdef Frame frame
    cdef unsigned long long total = 0
    cdef int status = OK
    with nogil:
        while status == OK:
            status = bus.peek(&frame, -1)
            if status == OK:
                total += (<const unsigned long long*>frame.payload)[0]
                status = bus.release(&frame)
    if status != PEER_CLOSED:
        bus.raise_for_status(status)
    return total


def sum_numbers_in_batches(Bus bus not None):
    cdef Frame[128] frames
    cdef size_t count = 0, k
    cdef unsigned long long total = 0
    cdef int status = OK
    with nogil:
        while status == OK:
            status = bus.drain(frames, 128, &count, -1)
            if status == OK:
                for k in range(count):
                    total += (<const unsigned long long*>frames[k].payload)[0]
                status = bus.release_all(frames, count)
    if status != PEER_CLOSED:
        bus.raise_for_status(status)
    return total


def fill(guard, unsigned char value):
    """A typed memoryview over a TxGuard: writable."""
    cdef unsigned char[::1] view = guard
    view[:] = value


def total(guard):
    """A typed memoryview over an RxGuard: read-only, hence const."""
    cdef const unsigned char[::1] view = guard
    cdef unsigned long long sum = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(view.shape[0]):
            sum += view[i]
    return sum


def double(RpcBus callee not None):
    """Serve numbers with twice what they are, until the caller closes."""
    cdef Frame call
    cdef unsigned long long number, answer
    cdef int status = OK
    with nogil:
        while status == OK:
            status = callee.peek_call(&call, -1)
            if status != OK:
                break
            number = call.correlation_id
            answer = 2 * (<const unsigned long long*>call.payload)[0]
            status = callee.release_call(&call)
            if status == OK:
                status = callee.reply_bytes(number, &answer, sizeof(answer), 0, -1)
    if status != PEER_CLOSED:
        callee.raise_for_status(status)
