# Included by _tachyon.pyx: which side of an RPC may do what; a call and an answer on their way out, a call on its way
# in.


cdef int check_opened(core.RpcHandle* rpc) except -1:
    if rpc == core.RpcHandle.never_opened():
        raise BusClosedError("this RpcBus was never opened; use RpcBus.listen or RpcBus.connect")
    return check_open(&rpc.calls())


cdef int need_caller(core.RpcHandle* rpc, str verb) except -1:
    check_opened(rpc)
    if rpc.caller() == NULL:
        raise BusBusyError(f"{verb} is for the side that connected; this one listened: it serves and replies")
    return 0


cdef int need_callee(core.RpcHandle* rpc, str verb) except -1:
    check_opened(rpc)
    if rpc.callee() == NULL:
        raise BusBusyError(f"{verb} is for the side that listened; this one connected: it calls and waits")
    return 0


# What is known of each call is theirs then, GIL or not.
cdef bint in_use_by_nogil(core.RpcHandle* rpc) noexcept:
    return rpc.calls().gate().is_inside(core.User.free) or rpc.replies().gate().is_inside(core.User.free)


cdef object nothing_to_answer(object correlation_id):
    return ValueError(
        f"there is no call {correlation_id} to reply to: it was never served, is answered already, "
        f"or more than {core.kMostCallsInFlight} calls old"
    )


cdef uint64_t send_call(core.RpcHandle* rpc, object data, uint32_t msg_type, uint64_t deadline) except 0:
    """Send a call. Returns its id."""
    cdef Way way
    to_bus(&way, &rpc.calls())
    way.rpc = rpc
    send_object(&way, data, msg_type, deadline)
    return way.id


cdef bint send_answer(core.RpcHandle* rpc, uint64_t id, object data, uint32_t msg_type, uint64_t deadline) except -1:
    """Answer a call. False: no room, and deadline is 0."""
    cdef Way way
    to_bus(&way, &rpc.replies())
    way.rpc = rpc
    way.id = id
    return send_object(&way, data, msg_type, deadline)


cdef RxGuard receive_call(RpcBus self, uint64_t deadline):
    cdef core.RpcHandle* rpc = rpc_of(self)
    cdef RxGuard guard = new_rx_guard(self, &rpc.calls())
    guard._rpc = rpc
    enter(guard._handle)
    return receive_into(guard, rpc.callee(), deadline)


# The id of a call that can be answered, as a user says it.
cdef uint64_t answerable(core.RpcHandle* rpc, object correlation_id) except 0:
    cdef uint64_t id = as_correlation_id(correlation_id)
    if id == 0 or not rpc.callee().can_reply(id):
        raise nothing_to_answer(correlation_id)
    return id


# Room for a request, or for the answer to a call, in a guard that is started.
cdef TxGuard claim_request(RpcBus self, uint64_t size, uint32_t msg_type, uint64_t deadline):
    cdef core.RpcHandle* rpc = rpc_of(self)
    cdef TxGuard guard = new_tx_guard(self, &rpc.calls(), msg_type)
    enter(guard._handle)
    try:
        claim_for(guard, rpc.caller(), size, deadline)
        guard._correlation_id = rpc.caller().next_id()
        guard._rpc = rpc
    finally:
        guard._handle.leave()
    return guard


cdef TxGuard claim_answer(RpcBus self, uint64_t id, uint64_t size, uint32_t msg_type, uint64_t deadline):
    cdef core.RpcHandle* rpc = rpc_of(self)
    cdef TxGuard guard = new_tx_guard(self, &rpc.replies(), msg_type)
    enter(guard._handle)
    try:
        claim_for(guard, rpc.answer(id), size, deadline)
        guard._correlation_id = id
        guard._rpc = rpc
    finally:
        guard._handle.leave()
    return guard


# What an error reply says.
cdef object failed_call(bytes reply):
    msg_type = int.from_bytes(reply[:2], "big") if len(reply) >= 2 else None
    detail = reply[2:].decode("utf-8", "replace") or None
    return RpcError(
        f"the callee failed on msg_type {msg_type}" + ("" if detail is None else f": {detail}"), msg_type, detail
    )
