# cython: language_level=3
#
# What other Cython code may cimport, by way of `from tachyon cimport …`. docs/cython.md explains it with examples.
#
# Append only: modules elsewhere are compiled against these sizes and this order; tests/test_surface.py holds it. Names
# that begin with an underscore are ours alone. Do not derive a cdef class from one of these: it would lack the methods
# of a later version, which that version calls.
#
# Every nogil method returns one of tachyon.Status: OK, or why not. They need no GIL and touch no Python object. Those
# declared `except -1` may wait; every 50 ms they take the GIL for a moment to run signal handlers, and what a handler
# raises (KeyboardInterrupt) comes out of them as an exception. The others never wait, except for wait_readable and
# wait_writable: at most 50 ms, and INTERRUPTED when a signal came.
#
# Where PEER_CLOSED may come, PEER_ABORTED may too.
#
# timeout_ns: nanoseconds; negative: as long as the peer lives; 0: do not wait.
#
# One thread at a time, Python methods of the same object included. BUSY: another one was found inside. That is looked
# at without locks, so it is help in finding a mistake and not a licence; only close() may come from any thread, at any
# moment: what is inside then finishes, and every later call returns CLOSED.


# A received message in place: from try_peek, peek, try_drain or drain until it is released.
cdef struct Frame:
    const unsigned char* payload
    unsigned long long position        # ours: where in the ring
    unsigned long long correlation_id  # of an RpcBus; 0 on a Bus
    unsigned int size                  # bytes of payload
    unsigned int type_id


# What Python finds in them besides: sending and receiving arrays, and objects; loops that wait.
cdef class _BusArrays:
    pass


cdef class _BusBell(_BusArrays):
    pass


cdef class _BusObjects(_BusBell):
    pass


cdef class _RpcArrays:
    pass


# Where Python finds Bus.abort(), which ends the conversation: `abort` of a typed Bus is the C method below.
cdef class _Abortable(_BusObjects):
    pass


# Got from tachyon.Bus.listen or tachyon.Bus.connect.
cdef class Bus(_Abortable):
    cdef void* _handle
    cdef object __weakref__

    # -- producer: OK, FULL, TOO_LARGE, WRONG_SIDE, CLAIM_OPEN, NO_CLAIM, and how it ended. A close is seen at once; a
    # death by the first message that begins a tick of the kernel (1 … 10 ms) after it, by every wait, and by check --

    # Room for a message of `size` bytes, to be written at *payload. One claim at a time; then commit, or abort.
    cdef int try_claim(self, unsigned long long size, unsigned char** payload) noexcept nogil
    # Sends the first `size` bytes of what was claimed. What is larger than the ring: also FULL or NO_MEMORY, and the
    # claim is still open; commit the same again later, or abort.
    cdef int commit(self, unsigned int size, unsigned int type_id) noexcept nogil
    cdef int abort(self) noexcept nogil
    # Until there may be room: OK, FULL after 50 ms or timeout_ns, INTERRUPTED, or how it ended.
    cdef int wait_writable(self, unsigned long long size, long long timeout_ns) noexcept nogil

    # -- consumer: OK, EMPTY, WRONG_SIDE, NO_CLAIM, and how it ended --

    # The next message. Several may be held; they are released oldest first.
    cdef int try_peek(self, Frame* frame) noexcept nogil
    # NO_CLAIM if it is not the oldest one held, or has been changed.
    cdef int release(self, const Frame* frame) noexcept nogil
    # Until there may be a message: OK, EMPTY after 50 ms or timeout_ns, INTERRUPTED, or how it ended.
    cdef int wait_readable(self, long long timeout_ns) noexcept nogil

    # -- either, with the GIL: OK → 0; INTERRUPTED → 0, or what a signal handler raises; all others raise --
    cdef int raise_for_status(self, int status) except -1

    # -- producer --

    # Waits for room: FULL when the time is over.
    cdef int claim(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil
    # Claim, copy, commit in one.
    cdef int try_send_bytes(self, const void* data, unsigned long long size, unsigned int type_id) noexcept nogil
    cdef int send_bytes(
        self, const void* data, unsigned long long size, unsigned int type_id, long long timeout_ns
    ) except -1 nogil

    # -- consumer --

    # Waits for a message: EMPTY when the time is over.
    cdef int peek(self, Frame* frame, long long timeout_ns) except -1 nogil
    # Up to `most` messages, at least 1, into an array of the caller's, *count of them. OK if there is at least one.
    cdef int try_drain(self, Frame* frames, size_t most, size_t* count) noexcept nogil
    cdef int drain(self, Frame* frames, size_t most, size_t* count, long long timeout_ns) except -1 nogil
    # Releases all of them, or up to the first that may not be (NO_CLAIM), and tells the producer at once.
    cdef int release_all(self, const Frame* frames, size_t count) noexcept nogil

    # -- either --

    # How the peer is: OK, PEER_CLOSED, PEER_ABORTED, PEER_DEAD (a consumer: only once it has read everything), CORRUPT,
    # CLOSED, FORKED.
    cdef int check(self) noexcept nogil
    # The ring itself, for code that inlines it: use borrow_producer, borrow_consumer and give_back of
    # tachyon.libtachyon. `layout` is the ring_layout() of the headers the caller was compiled with.
    cdef void* lend(self, bint producer, unsigned long long layout) except NULL
    cdef int take_back(self) except -1


# Calls one way, replies the other. Got from tachyon.RpcBus.listen (the callee) or .connect (the caller). WRONG_SIDE:
# the method is the other one's. UNKNOWN_CALL: there is no such correlation_id.
cdef class RpcBus(_RpcArrays):
    cdef void* _handle
    cdef object __weakref__

    # -- caller: msg_type is 0 … 65534, or BAD_TYPE --

    # Room for a request, to be written at *payload; then commit_call, or abort_call.
    cdef int try_claim_call(self, unsigned long long size, unsigned char** payload) noexcept nogil
    cdef int claim_call(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil
    # *correlation_id: what to ask for the reply with.
    cdef int commit_call(
        self, unsigned int size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil
    cdef int abort_call(self) noexcept nogil
    cdef int try_call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil
    cdef int call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id,
        long long timeout_ns
    ) except -1 nogil
    # The reply to a call, once; replies may be asked for in any order. One at a time is held (CLAIM_OPEN).
    cdef int try_peek_reply(self, unsigned long long correlation_id, Frame* frame) noexcept nogil
    cdef int peek_reply(self, unsigned long long correlation_id, Frame* frame, long long timeout_ns) except -1 nogil
    cdef int release_reply(self, const Frame* frame) noexcept nogil
    # Give up a call: its reply will be dropped.
    cdef int cancel_call(self, unsigned long long correlation_id) noexcept nogil

    # -- callee: msg_type is 0 … 65535, or BAD_TYPE; 65535 says that the call has failed --

    # The next call; its correlation_id says what to reply to. It may be released before or after the reply.
    cdef int try_peek_call(self, Frame* frame) noexcept nogil
    cdef int peek_call(self, Frame* frame, long long timeout_ns) except -1 nogil
    cdef int release_call(self, const Frame* frame) noexcept nogil
    # Room for the answer, to be written at *payload; then commit_reply, or abort_reply.
    cdef int try_claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload
    ) noexcept nogil
    cdef int claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload, long long timeout_ns
    ) except -1 nogil
    cdef int commit_reply(
        self, unsigned long long correlation_id, unsigned int size, unsigned int msg_type
    ) noexcept nogil
    cdef int abort_reply(self) noexcept nogil
    cdef int try_reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type
    ) noexcept nogil
    cdef int reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type,
        long long timeout_ns
    ) except -1 nogil

    # -- either, with the GIL: as Bus.raise_for_status --
    cdef int raise_for_status(self, int status) except -1
