# Included by _tachyon.pyx: waiting for a message, and its way in. Calls and replies too.


# What a wait is for, beyond the next frame of a plain bus: the reply to a call, or a call to serve.
cdef struct Wanted:
    core.Caller* caller
    core.Callee* callee
    uint64_t correlation_id


cdef inline Status look(core.Bus* bus, core.Frame* frame, Wanted* wanted) noexcept:
    if wanted == NULL:
        return bus.try_peek(frame[0])
    if wanted.caller != NULL:
        return wanted.caller.try_wait(wanted.correlation_id, frame[0])
    return wanted.callee.try_serve(frame[0])


# Bytes that looks for a reply have gone past.
cdef inline uint64_t passed(Wanted* wanted) noexcept:
    return 0 if wanted == NULL or wanted.caller == NULL else wanted.caller.passed()


# The last look stopped before it had seen everything that was there when `before` was taken. A reply that was is found
# even if the time is up. Not more: a callee may be faster than we are.
cdef bint is_unseen(Bus self, Wanted* wanted, uint64_t before) noexcept:
    if wanted == NULL or wanted.caller == NULL or not wanted.caller.unfinished():
        return False
    return wanted.caller.passed() - before < self._capacity


cdef int next_frame(Bus self, core.Frame* frame, uint64_t deadline, uint64_t looks, Wanted* wanted) except -1:
    """Wait for a frame: ok, or peer_closed. The caller leaves."""
    enter(self)
    cdef core.Bus* bus = tachyon_core(self._core)
    cdef uint64_t before = passed(wanted)
    cdef Status status = look(bus, frame, wanted)
    if status == Status.ok:
        return <int>status
    try:
        if status == Status.empty and bus.spin_readable(min(looks, <uint64_t>LOOKS_WITH_GIL)):
            status = look(bus, frame, wanted)
        if status == Status.empty and looks > LOOKS_WITH_GIL:
            bus.prepare_wait()
            with nogil:
                bus.spin_readable(looks)
            status = look(bus, frame, wanted)
        while status == Status.empty:
            bus.prepare_wait()  # beside the wait other threads may let go of frames, with the GIL
            with nogil:
                status = bus.wait_beside(deadline)
            PyErr_CheckSignals()
            if status == Status.ok or status == Status.empty or status == Status.interrupted:
                status = Status.closed if self._closing else look(bus, frame, wanted)
                if status == Status.empty and core.now_ns() >= deadline and not is_unseen(self, wanted, before):
                    raise BusEmptyError("no message within the timeout")
        if status != Status.ok and status != Status.peer_closed:
            raise_status(self, status, 0)
    except BaseException:
        leave(self)
        raise
    return <int>status


cdef int expect_frame(Bus self, core.Frame* frame, uint64_t deadline, uint64_t looks, Wanted* wanted=NULL) except -1:
    if next_frame(self, frame, deadline, looks, wanted) != <int>Status.ok:
        leave(self)
        raise_status(self, Status.peer_closed, 0)
    return 0


# Before the wait, not after it: a call that has been taken cannot be put back.
cdef int expect_guard(Bus self) except -1:
    """One more guard: see that letting go of them needs no memory."""
    if self._core != NULL and not tachyon_core(self._core).expect_held(self._guards + 1):
        raise MemoryError("no memory for one more guard; the message stays the next one")
    return 0


cdef RxGuard hold_frame(Bus self, uint64_t deadline, Wanted* wanted, RpcBus rpc=None):
    cdef RxGuard guard = RxGuard.__new__(RxGuard)
    expect_guard(self)
    expect_frame(self, &guard._frame, deadline, LOOKS_WITH_GIL, wanted)
    start_guard(guard, self, rpc)
    return guard


# Between expect_frame and leave, which it does.
cdef void start_guard(RxGuard guard, Bus self, RpcBus rpc) noexcept:
    self._guards += 1
    leave(self)
    guard._rpc = rpc
    guard.start(self, <uint8_t*>guard._frame.payload, guard._frame.size, True)


cdef Message take(Bus self, core.Frame* frame):
    """Copy a frame out, free it, leave."""
    cdef bytes data = None
    try:
        if frame.size < LARGE_COPY:
            data = PyBytes_FromStringAndSize(<const char*>frame.payload, frame.size)
        else:
            data = PyBytes_FromStringAndSize(NULL, frame.size)
            copy_out(<uint8_t*>PyBytes_AS_STRING(data), frame.payload, frame.size)
    finally:
        if data is None:  # no memory for it: the message stays the next one
            tachyon_core(self._core).put_back(frame[0])
        else:
            tachyon_core(self._core).release_and_tell(frame[0])
        leave(self)
    return new_message(frame.type_id, data)


cdef inline void copy_out(uint8_t* to, const uint8_t* source, size_t size) noexcept:
    if size < LARGE_COPY:
        memcpy(to, source, size)
    else:
        with nogil:
            memcpy(to, source, size)
