# Included by _tachyon.pyx: a message on its way out, with waiting for room. Calls and replies too.


# What a send is part of, beyond the plain bus: a call (caller, with the id it is going to have) or a reply.
cdef struct Origin:
    core.Caller* caller
    core.Callee* callee
    uint64_t correlation_id
    PyObject* replies  # the Bus that the answers to a caller come on


cdef inline void as_message(Origin* origin) noexcept:
    origin.caller = NULL
    origin.callee = NULL
    origin.correlation_id = 0


# Between enter and leave, so that nothing that runs Python code (a buffer, __index__, __float__) or another thread
# comes between the choice of an id and the message that carries it.
cdef int begin_origin(Origin* origin) except -1:
    if origin.caller != NULL:
        origin.correlation_id = origin.caller.next_id()
    elif origin.callee != NULL and not origin.callee.can_reply(origin.correlation_id):
        raise nothing_to_answer(origin.correlation_id)
    return 0


cdef object nothing_to_answer(object correlation_id):
    return ValueError(
        f"there is no call {correlation_id} to reply to: it was never served, is answered already, "
        f"or more than {core.kMostCallsInFlight} calls old"
    )


cdef inline void origin_sent(Origin* origin) noexcept:
    if origin.caller != NULL:
        origin.caller.called(origin.correlation_id)
    elif origin.callee != NULL:
        origin.callee.replied(origin.correlation_id)


cdef int send_until(Bus self, object data, uint32_t type_id, uint64_t deadline, bint wait, bint quietly) except -1:
    """1: sent. 0: no room, and `wait` is false."""
    cdef Origin origin
    as_message(&origin)
    return send_object(self, data, type_id, deadline, wait, quietly, &origin)


cdef int send_object(
    Bus self, object data, uint32_t type_id, uint64_t deadline, bint wait, bint quietly, Origin* origin
) except -1:
    cdef Py_buffer view
    cdef int sent
    if PyBytes_CheckExact(data):
        return send_bytes(
            self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), NULL, type_id, deadline, wait, quietly, origin
        )
    if not PyObject_CheckBuffer(data):
        raise refuse_payload(data, "send")
    PyObject_GetBuffer(data, &view, PyBUF_FULL_RO)
    try:
        if PyBuffer_IsContiguous(&view, b"C"):
            sent = send_bytes(self, <const char*>view.buf, view.len, NULL, type_id, deadline, wait, quietly, origin)
        else:
            sent = send_bytes(self, NULL, view.len, &view, type_id, deadline, wait, quietly, origin)
    finally:
        PyBuffer_Release(&view)
    return sent


cdef int send_bytes(
    Bus self, const char* data, Py_ssize_t size, Py_buffer* strided, uint32_t type_id, uint64_t deadline, bint wait,
    bint quietly, Origin* origin
) except -1:
    enter(self)
    cdef core.Bus* bus = tachyon_core(self._core)
    cdef Status status
    cdef uint8_t* payload = NULL
    cdef bint direct = strided == NULL and size < LARGE_COPY
    try:
        begin_origin(origin)
        while True:
            if direct and quietly:
                status = bus.try_send_quietly(data, size, type_id)
            elif direct:
                status = bus.try_send(data, size, type_id, origin.correlation_id)
            else:
                status = bus.try_claim(size, payload)
            if status == Status.ok:
                break
            if status != Status.full:
                raise_status(self, status, size)
            if not wait:
                return 0
            if quietly:
                bus.wake_consumer()
            await_room(self, size, deadline, origin)
        if direct:
            origin_sent(origin)
            return 1
        if strided == NULL:
            with nogil:
                memcpy(payload, data, size)
        else:
            try:
                PyBuffer_ToContiguous(payload, strided, size, b"C")
            except BaseException:
                bus.abort()
                raise
        status = bus.commit(<uint32_t>size, type_id, origin.correlation_id)
        if status != Status.ok:
            raise_status(self, status, size)
        origin_sent(origin)
        return 1
    finally:
        leave(self)


cdef TxGuard claim_frame(Bus self, object size, uint32_t type_id, uint64_t deadline, Origin* origin):
    if not hasattr(size, "__index__"):
        raise TypeError(f"size must be an int, not {type(size).__name__}")
    wanted = operator.index(size)
    if wanted < 0:
        raise ValueError(f"size must not be negative: {wanted}")
    if wanted > 0xffffffff:
        raise too_large(self, wanted)
    cdef uint64_t claimed = wanted
    cdef uint8_t* payload = NULL
    cdef Status status
    cdef TxGuard guard = TxGuard.__new__(TxGuard)
    enter(self)
    try:
        begin_origin(origin)
        while True:
            status = tachyon_core(self._core).try_claim(claimed, payload)
            if status == Status.ok:
                break
            if status != Status.full:
                raise_status(self, status, claimed)
            await_room(self, claimed, deadline, origin)
        self._guards += 1
    finally:
        leave(self)
    guard.start(self, payload, <Py_ssize_t>claimed, False)
    guard._actual_size = claimed
    guard._type_id = type_id
    return guard


cdef int await_room(Bus self, uint64_t size, uint64_t deadline, Origin* origin) except -1:
    """Wait until the ring may have room. Between enter and leave."""
    cdef core.Bus* bus = tachyon_core(self._core)
    cdef Status status
    cdef uint64_t until = deadline
    if bus.spin_writable(size, LOOKS_WITH_GIL):
        return 0
    if origin.caller != NULL and gather_replies(<Bus><object>origin.replies, origin.caller):
        until = min(deadline, core.now_ns() + GATHER_EVERY)
    with nogil:
        status = bus.wait_writable(size, until)
    PyErr_CheckSignals()
    if self._closing:
        status = Status.closed
    if status == Status.full:
        if core.now_ns() >= deadline:
            raise BusFullError(f"no room for {size} bytes within the timeout; the consumer is slow or stopped")
    elif status != Status.ok and status != Status.interrupted:
        raise_status(self, status, size)
    return 0


# Takes what has arrived for a caller out of the ring. True if replies may still come.
cdef bint gather_replies(Bus replies, core.Caller* caller) except -1:
    if replies._held == 0 and not replies._closing and tachyon_enter(&replies._in_use):
        caller.gather()
        leave(replies)
    return caller.in_flight() != 0


cdef int await_consumer(Bus self, uint64_t deadline, bint until_it_left) except -1:
    """Wait until the consumer has read everything; or end the stream, and wait until it has closed besides."""
    enter(self)
    cdef core.Bus* bus = tachyon_core(self._core)
    cdef Status status = Status.ok
    try:
        if until_it_left:
            status = bus.finish()
            if status != Status.ok:
                raise_status(self, status, 0)
        while True:
            with nogil:
                status = bus.wait_left(deadline) if until_it_left else bus.wait_read(deadline)
            PyErr_CheckSignals()
            if self._closing:
                status = Status.closed
            if status == Status.ok:
                return 0
            if status != Status.full and status != Status.interrupted:
                raise_status(self, status, 0)
            if core.now_ns() >= deadline:
                raise TachyonTimeoutError(
                    "the consumer has not " + ("read everything and closed" if until_it_left else "read everything")
                    + " within the timeout"
                )
    finally:
        leave(self)
