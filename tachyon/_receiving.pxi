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


cdef int next_frame(Bus self, core.Frame* frame, uint64_t deadline, uint64_t looks, Wanted* wanted) except -1:
    """Wait for a frame: ok, or peer_closed. The caller leaves."""
    enter(self)
    cdef core.Bus* bus = tachyon_core(self._core)
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
                if status == Status.empty and core.now_ns() >= deadline:
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


cdef int expect_guard(Bus self) except -1:
    """One more guard: see that letting go of them needs no memory."""
    if not tachyon_core(self._core).expect_held(self._guards + 1):
        raise MemoryError("no memory for one more guard; the message stays the next one")
    return 0


cdef RxGuard hold_frame(Bus self, uint64_t deadline, Wanted* wanted):
    cdef RxGuard guard = RxGuard.__new__(RxGuard)
    expect_frame(self, &guard._frame, deadline, LOOKS_WITH_GIL, wanted)
    try:
        expect_guard(self)
        self._guards += 1
    except BaseException:
        tachyon_core(self._core).put_back(guard._frame)
        raise
    finally:
        leave(self)
    guard.start(self, <uint8_t*>guard._frame.payload, guard._frame.size, True)
    return guard


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
