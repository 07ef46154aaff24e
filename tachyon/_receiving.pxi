# Included by _tachyon.pyx: a message on its way in, through any inlet: a bus, the calls of a callee, the reply to a
# call.


# Between enter and leave, which it does unless there is a frame: ok, or peer_closed.
cdef inline int next_frame(core.BusHandle* handle, core.Inlet* inlet, core.Frame* frame, uint64_t deadline) except -1:
    if inlet.try_peek(frame[0]) == Status.ok:
        return <int>Status.ok
    return next_later(handle, inlet, frame, deadline)


cdef int next_later(core.BusHandle* handle, core.Inlet* inlet, core.Frame* frame, uint64_t deadline) except -1:
    cdef PythonWaiting waiting
    waiting.deadline = deadline
    return wait_for_frame(handle, inlet, frame, &waiting)


cdef int wait_for_frame(
    core.BusHandle* handle, core.Inlet* inlet, core.Frame* frame, PythonWaiting* waiting
) except -1:
    cdef Status status = inlet.peek(frame[0], waiting[0])
    if status != Status.ok:
        handle.leave()
        if status != Status.peer_closed:
            raise_status(handle, status)
    return <int>status


cdef int next_message(core.BusHandle* handle, core.Frame* frame, uint64_t deadline) except -1:
    """Enter and wait for a message: ok, and the caller leaves, or peer_closed."""
    enter(handle)
    if handle.bus().try_peek(frame[0]) == Status.ok:
        return <int>Status.ok
    return next_later(handle, handle.bus(), frame, deadline)


cdef int expect_message(core.BusHandle* handle, core.Frame* frame, uint64_t deadline) except -1:
    if next_message(handle, frame, deadline) != <int>Status.ok:
        raise_status(handle, Status.peer_closed)
    return 0


# Between enter and leave, which it does if there is none: nogil code may be at work on a bus that one is not inside of.
# Before the wait, not after it: a call that has been taken cannot be put back.
cdef int expect_guard(core.BusHandle* handle) except -1:
    """One more guard: see that letting go of them needs no memory."""
    if not handle.bus().expect_held(handle.gate().guards() + 1):
        handle.leave()
        raise MemoryError("no memory for one more guard; the message stays the next one")
    return 0


# Between enter and leave, which it does: the next frame of an inlet, in a guard that is started.
cdef RxGuard receive_into(RxGuard guard, core.Inlet* inlet, uint64_t deadline):
    expect_guard(guard._handle)
    if next_frame(guard._handle, inlet, &guard._frame, deadline) != <int>Status.ok:
        raise_status(guard._handle, Status.peer_closed)
    guard.start(<uint8_t*>guard._frame.payload, guard._frame.size, True)
    guard._handle.leave()
    return guard


cdef RxBatchGuard drain(
    object owner, core.BusHandle* handle, size_t most, uint32_t looks, uint64_t deadline
):
    """Wait for a message; then all that are there, up to `most`, in a guard."""
    cdef RxBatchGuard batch = RxBatchGuard.__new__(RxBatchGuard)
    cdef PythonWaiting waiting
    cdef core.Frame frame
    batch._owner = owner
    batch._handle = handle
    batch._frames.reserve(64)
    waiting.deadline = deadline
    waiting.unlocked_looks = looks
    enter(handle)
    expect_guard(handle)
    if wait_for_frame(handle, handle.bus(), &frame, &waiting) != <int>Status.ok:
        raise_status(handle, Status.peer_closed)
    try:
        batch._frames.push_back(frame)
        while batch._frames.size() < most and handle.bus().try_peek(frame) == Status.ok:
            batch._frames.push_back(frame)
        batch._start(True)
    except BaseException:  # no memory for the list: all of them stay the next ones
        handle.bus().put_back(frame)
        while not batch._frames.empty():
            if batch._frames.back().position != frame.position:
                handle.bus().put_back(batch._frames.back())
            batch._frames.pop_back()
        raise
    finally:
        handle.leave()
    return batch


cdef Message take(core.BusHandle* handle, core.Frame* frame):
    """Copy a frame out, free it, leave."""
    cdef bytes data = None
    try:
        data = copy_of(frame)
    finally:
        if data is None:  # no memory for it: the message stays the next one
            handle.bus().put_back(frame[0])
        else:
            handle.bus().let_go(frame[0])
        handle.leave()
    return new_message(frame.type_id, data)


cdef Message try_take(core.BusHandle* handle):
    """The next message, copied, or None."""
    cdef core.Frame frame
    enter(handle)
    cdef Status status = handle.bus().try_peek(frame)
    if status == Status.ok:
        return take(handle, &frame)
    handle.leave()
    if status != Status.empty:
        raise_status(handle, status)
    return None


cdef bytes copy_of(core.Frame* frame):
    if frame.size < core.kLargeCopy:
        return PyBytes_FromStringAndSize(<const char*>frame.payload, frame.size)
    cdef bytes data = PyBytes_FromStringAndSize(NULL, frame.size)
    copy_out(<uint8_t*>PyBytes_AS_STRING(data), frame)
    return data


cdef inline void copy_out(uint8_t* to, core.Frame* frame) noexcept:
    cdef PythonWaiting waiting
    core.Inlet.copy_out(to, frame[0], waiting.host)
