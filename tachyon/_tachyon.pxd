# What other Cython code may cimport. Append only: downstream modules are compiled against these sizes and this order.
# cython: language_level=3

# A received message in place. Valid from try_peek until its release.
cdef struct Frame:
    const unsigned char* payload
    unsigned long long position
    unsigned long long correlation_id
    unsigned int size
    unsigned int type_id


# Got from tachyon.Bus.listen or tachyon.Bus.connect. The nogil methods return a status: 0 is ok, 1 empty, 2 full,
# 3 interrupted (run signal handlers, wait again); anything above is final for this call and made an exception by
# raise_for_status. One thread at a time, and no Python method of the same Bus meanwhile.
cdef class Bus:
    cdef void* _core
    cdef object _path
    cdef unsigned long long _capacity
    cdef int _peer_pid
    cdef int _in_use
    cdef int _guards
    cdef bint _closing
    cdef object __weakref__

    # producer
    cdef int try_claim(self, unsigned long long size, unsigned char** payload) noexcept nogil
    cdef int commit(self, unsigned int size, unsigned int type_id) noexcept nogil
    cdef int abort(self) noexcept nogil
    cdef int wait_writable(self, unsigned long long size, unsigned long long until_ns) noexcept nogil
    # consumer
    cdef int try_peek(self, Frame* frame) noexcept nogil
    cdef int release(self, const Frame* frame) noexcept nogil
    cdef int wait_readable(self, unsigned long long until_ns) noexcept nogil
    # either; with the GIL
    cdef int raise_for_status(self, int status) except -1


# A pair of buses: calls one way, replies the other. From tachyon.RpcBus.listen (the callee) or .connect (the caller).
cdef class RpcBus:
    cdef Bus _calls
    cdef Bus _replies
    cdef void* _caller   # one of the two is NULL
    cdef void* _callee
    cdef object __weakref__
