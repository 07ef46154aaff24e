# Included by _tachyon.pyx: a buffer on its way out, through any outlet: a bus, a batch, a call, an answer.


# The bytes of any object that has some.
cdef struct Payload:
    Py_buffer view
    bint borrowed      # of a buffer, to be released
    bint contiguous
    const char* head   # of an array: what stands before its items
    Py_ssize_t head_size


cdef int get_payload(object data, Payload* payload) except -1:
    payload.borrowed = False
    payload.contiguous = True
    payload.head_size = 0
    if PyBytes_CheckExact(data):  # whoever has passed it keeps it
        payload.view.buf = PyBytes_AS_STRING(data)
        payload.view.len = PyBytes_GET_SIZE(data)
        return 0
    if type(data) is ArrayPayload:  # it keeps its array's
        (<ArrayPayload>data)._lend(&payload.view)
        payload.contiguous = PyBuffer_IsContiguous(&payload.view, b"A")
        payload.head = PyBytes_AS_STRING((<ArrayPayload>data)._head)
        payload.head_size = PyBytes_GET_SIZE((<ArrayPayload>data)._head)
        return 0
    if not PyObject_CheckBuffer(data):
        raise refuse_payload(data, "send")
    PyObject_GetBuffer(data, &payload.view, PyBUF_FULL_RO)
    payload.borrowed = True
    if has_pointers(payload.view.format):
        refused = refuse_pointers(payload.view.format, "send")
        PyBuffer_Release(&payload.view)
        raise refused
    payload.contiguous = PyBuffer_IsContiguous(&payload.view, b"C")
    return 0


cdef inline void drop_payload(Payload* payload) noexcept:
    if payload.borrowed:
        PyBuffer_Release(&payload.view)


cdef inline Py_ssize_t payload_size(Payload* payload) noexcept:
    return payload.head_size + payload.view.len


# Between enter and leave: ok, full when the time is over, or why not.
cdef inline int send_payload(core.Outlet* outlet, Payload* payload, uint32_t type_id, uint64_t deadline) except -1:
    cdef Status status
    if payload.contiguous and payload.head_size == 0 and payload.view.len < <Py_ssize_t>core.kLargeCopy:
        status = outlet.try_send(payload.view.buf, payload.view.len, type_id)
        if status != Status.full or deadline == 0:
            return <int>status
    return send_waiting(outlet, payload, type_id, deadline)


cdef int send_waiting(core.Outlet* outlet, Payload* payload, uint32_t type_id, uint64_t deadline) except -1:
    cdef PythonWaiting waiting
    cdef uint8_t* room = NULL
    cdef Status status
    waiting.deadline = deadline
    if payload.contiguous and payload.head_size == 0:
        return <int>outlet.send(payload.view.buf, payload.view.len, type_id, waiting)
    if payload.contiguous:
        return <int>outlet.send(
            core.bytes_at(payload.head, payload.head_size), core.bytes_at(payload.view.buf, payload.view.len),
            type_id, waiting
        )
    status = outlet.claim(payload_size(payload), room, waiting)
    if status != Status.ok:
        return <int>status
    try:
        if payload.head_size != 0:  # no head is no address
            memcpy(room, payload.head, payload.head_size)
        PyBuffer_ToContiguous(room + payload.head_size, &payload.view, payload.view.len, b"C")
    except BaseException:
        outlet.abort()
        raise
    status = outlet.commit(<uint32_t>payload_size(payload), type_id)
    if status == Status.full or status == Status.no_memory:  # what does not fit the ring; the claim is still open
        outlet.abort()
    return <int>status


# Where a message goes: `batch`, or if that is NULL the bus of `handle` itself; with `rpc` it is a call, or the answer
# to `id`.
cdef struct Way:
    core.BusHandle* handle
    core.Batch* batch
    core.RpcHandle* rpc
    uint64_t id  # of a call: its own, once it has been sent


# Between enter and leave.
cdef inline core.Outlet* outlet_of(Way* way) noexcept:
    if way.rpc == NULL:
        return way.handle.bus() if way.batch == NULL else way.batch
    return way.rpc.caller() if way.rpc.caller() != NULL else way.rpc.answer(way.id)


cdef inline void to_bus(Way* way, core.BusHandle* handle) noexcept:
    way.handle = handle
    way.batch = NULL
    way.rpc = NULL
    way.id = 0


# True: sent. False: no room, and deadline is 0.
cdef bint send_object(Way* way, object data, uint32_t type_id, uint64_t deadline) except -1:
    cdef Payload payload
    cdef Status status
    get_payload(data, &payload)
    try:
        enter(way.handle)
        try:
            status = <Status>send_payload(outlet_of(way), &payload, type_id, deadline)
            if way.rpc != NULL and way.rpc.caller() != NULL:
                way.id = way.rpc.caller().last_id()
        finally:
            way.handle.leave()
        if status != Status.ok and (status != Status.full or deadline != 0):
            raise_status(way.handle, status, payload_size(&payload))
    finally:
        drop_payload(&payload)
    return status == Status.ok


# The same of a plain bus: what is common goes straight.
cdef bint send_message(core.BusHandle* handle, object data, uint32_t type_id, uint64_t deadline) except -1:
    cdef Way way
    cdef Status status
    if PyBytes_CheckExact(data) and PyBytes_GET_SIZE(data) < <Py_ssize_t>core.kLargeCopy:
        enter(handle)
        status = handle.bus().try_send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), type_id)
        handle.leave()
        if status == Status.ok:
            return True
    to_bus(&way, handle)
    return send_object(&way, data, type_id, deadline)


# What of an item of send_many is to be sent; its type, where it says one.
cdef inline object data_of_item(object item, uint32_t* type_id):
    if isinstance(item, tuple):
        if len(<tuple>item) != 2:
            raise ValueError(f"a pair is (buffer, type_id); this tuple has {len(<tuple>item)} items")
        type_id[0] = as_type_id((<tuple>item)[1])
        return (<tuple>item)[0]
    if type(item) is Message:
        type_id[0] = (<Message>item).type_id
        return (<Message>item).data
    return item


# As send_message, of what an item of send_many has.
cdef int send_item(Way* way, object data, uint32_t type_id, uint64_t deadline) except -1:
    cdef Status status
    if way.batch == NULL:
        return send_message(way.handle, data, type_id, deadline)
    if PyBytes_CheckExact(data) and PyBytes_GET_SIZE(data) < <Py_ssize_t>core.kLargeCopy:
        enter(way.handle)
        status = way.batch.try_send(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), type_id)
        way.handle.leave()
        if status == Status.ok:
            return 1
    return send_object(way, data, type_id, deadline)


cdef uint64_t as_size(core.BusHandle* handle, object size) except? 0:
    """Bytes to claim."""
    if not hasattr(size, "__index__"):
        raise TypeError(f"size must be an int, not {type(size).__name__}")
    wanted = operator.index(size)
    if wanted < 0:
        raise ValueError(f"size must not be negative: {wanted}")
    if wanted > 0xffffffff:
        raise_status(handle, Status.too_large, wanted)
    return wanted


# Between enter and leave: room for a message, in a guard that is started.
cdef TxGuard claim_for(TxGuard guard, core.Outlet* outlet, uint64_t size, uint64_t deadline):
    cdef PythonWaiting waiting
    cdef uint8_t* payload = NULL
    waiting.deadline = deadline
    cdef Status status = outlet.claim(size, payload, waiting)
    if status != Status.ok:
        raise_status(guard._handle, status, size)
    guard.start(payload, <Py_ssize_t>size, False)
    guard._actual_size = size
    return guard


cdef int await_consumer(core.BusHandle* handle, uint64_t deadline, bint until_it_left) except -1:
    """Wait until the consumer has read everything; or end the stream, and wait until it has closed besides."""
    cdef PythonWaiting waiting
    cdef Status status
    waiting.deadline = deadline
    enter(handle)
    if until_it_left:
        status = handle.bus().finish()
        if status == Status.ok:
            status = handle.bus().wait_left(waiting)
    else:
        status = handle.bus().wait_read(waiting)
    handle.leave()
    if status == Status.full:
        wanted = "read everything and closed" if until_it_left else "read everything"
        raise TachyonTimeoutError(f"the consumer has not {wanted} within the timeout")
    return 0 if status == Status.ok else raise_status(handle, status)
