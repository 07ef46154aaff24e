# Included by _tachyon.pyx: arrays through a Bus and an RpcBus: the methods that both classes inherit.


from cpython.memoryview cimport PyMemoryView_FromMemory


# What `out` of a receiving method has to be, before anything is taken.
cdef int check_out(object out) except -1:
    numpy = _dtypes.numpy()
    if out is None:
        return 0
    if not isinstance(out, numpy.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.dtype.hasobject:
        raise refuse_pointers(b"O", "recv_array")
    if hasattr(out, "filled") and hasattr(out, "mask"):
        raise TypeError("out is a masked array, whose mask would hide what comes; pass out.data")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    return 0


# Between enter and leave: a copy of the array that a frame holds, new or in `out`. ArrayError.
cdef object copy_array(core.Frame* frame, object out):
    cdef core.Array said
    cdef core.Frame items = frame[0]
    cdef uint8_t* to = NULL
    description = read_array(frame.payload, frame.size, &said)
    dtype = numpy_type(&said, description)
    if out is None:
        array = new_array(&said, dtype, &to)
        items.payload += said.header_bytes()
        items.size -= <uint32_t>said.header_bytes()
        copy_out(to, &items)
        return array
    target = _dtypes.numpy().asarray(out)  # NumPy's own class: another one's code could keep what it is copied from
    if target.shape != shape_of(&said) or target.dtype != dtype:
        raise ArrayError(f"the array is {dtype} {shape_of(&said)}, and out {target.dtype} {target.shape}")
    if frame.size != said.header_bytes():
        memory = PyMemoryView_FromMemory(<char*>frame.payload, frame.size, PyBUF_READ)
        _dtypes.numpy().copyto(target, array_over(memory, &said, dtype, said.header_bytes()), "no")
    return out


# Copies a frame's array out, frees it, leaves.
cdef object take_array(core.BusHandle* handle, core.Frame* frame, object out):
    cdef bint taken = False
    try:
        try:
            array = copy_array(frame, out)
        except ArrayError as error:
            with_message(error, frame)
            taken = True
            raise
        taken = True
    finally:
        if taken:
            handle.bus().let_go(frame[0])
        else:  # no memory for it: the message stays the next one
            handle.bus().put_back(frame[0])
        handle.leave()
    return array


# The reply to a call, which can be had once. Enters and leaves.
cdef object take_reply(core.RpcHandle* rpc, uint64_t id, object out, uint64_t deadline):
    cdef core.Frame frame
    enter(&rpc.replies())
    if next_frame(&rpc.replies(), rpc.reply_to(id), &frame, deadline) != <int>Status.ok:
        raise_status(&rpc.replies(), Status.peer_closed)
    try:
        if frame.type_id == core.kMostReplyType:
            raise failed_call(copy_of(&frame))
        return copy_array(&frame, out)
    except ArrayError as error:
        with_message(error, &frame)
        raise
    finally:
        rpc.caller().release(frame)
        rpc.replies().leave()


cdef class _BusArrays:
    """What Bus has for arrays."""

    def send_array(self, array, type_id=0, *, timeout=None):
        """Send an array, with its shape and type: NumPy's, any other buffer, or what speaks DLPack (torch, jax).

        Copied once; strided ones to C order. Objects are a TypeError, more than 8 dimensions a ValueError. Otherwise
        as send.
        """
        send_message(
            handle_of(<Bus?>self), ArrayPayload(array), as_type_id(type_id), deadline_after(timeout)
        )

    def try_send_array(self, array, type_id=0):
        """Send an array if there is room now. False if the ring is full. Otherwise as send_array."""
        return send_message(handle_of(<Bus?>self), ArrayPayload(array), as_type_id(type_id), 0)

    def send_array_zero_copy(self, shape, dtype, type_id=0, *, timeout=None):
        """Claim room for an array, to be written in place: `with bus.send_array_zero_copy((3, 4), "f4") as a: ...`.

        Returns an ArrayGuard, whose block gets a NumPy array of whatever was in that memory before. Leaving the block
        sends it; an exception in the block gives the room back. Otherwise as send_zero_copy.
        """
        cdef core.BusHandle* handle = handle_of(<Bus?>self)
        cdef uint64_t size = 0, deadline = deadline_after(timeout)
        cdef TxGuard window = new_tx_guard(self, handle, as_type_id(type_id))
        guard = room_for(handle, shape, dtype, &size)
        enter(handle)
        try:
            claim_for(window, handle.bus(), size, deadline)
        finally:
            handle.leave()
        return begin_array(guard, window)

    def recv_array(self, out=None, *, timeout=None):
        """Wait for the next message, an array, and return a copy of it, aligned to 64 bytes; or copy it into `out`.

        out: a writable NumPy array of the same shape and type; it is returned. Raises ArrayError, a ValueError, if the
        message is no array, or does not fit `out`: it has been taken then, and is the error's `message`.
        ModuleNotFoundError without NumPy, and nothing is taken. Otherwise as recv.
        """
        cdef core.Frame frame
        cdef core.BusHandle* handle = handle_of(<Bus?>self)
        cdef uint64_t deadline = deadline_after(timeout)
        check_out(out)
        expect_message(handle, &frame, deadline)
        return take_array(handle, &frame, out)

    def try_recv_array(self, out=None):
        """Return the next array if there is a message now, else None. Otherwise as recv_array."""
        cdef core.Frame frame
        cdef core.BusHandle* handle = handle_of(<Bus?>self)
        check_out(out)
        enter(handle)
        cdef Status status = handle.bus().try_peek(frame)
        if status == Status.ok:
            return take_array(handle, &frame, out)
        handle.leave()
        if status != Status.empty:
            raise_status(handle, status)
        return None

    def recv_array_zero_copy(self, *, timeout=None):
        """Wait for the next array; return it in place, as an ArrayGuard: `with bus.recv_array_zero_copy() as a: ...`.

        The block gets a read-only NumPy array, which goes with the block. Raises ArrayError as recv_array, otherwise
        as recv_zero_copy; recv_zero_copy().array() is for messages that may be something else.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        cdef RxGuard window = new_rx_guard(self, handle_of(<Bus?>self))
        enter(window._handle)
        return guard_of(receive_into(window, window._handle.bus(), deadline))


cdef class _RpcArrays:
    """What RpcBus has for arrays."""

    def call_array(self, array, msg_type, *, timeout=None):
        """Send a request that is an array, and return its id. As call, and Bus.send_array."""
        cdef uint32_t kind = as_call_type(msg_type)
        need_caller(rpc_of(<RpcBus?>self), "call_array")
        return send_call(rpc_of(<RpcBus?>self), ArrayPayload(array), kind, deadline_after(timeout))

    def call_array_zero_copy(self, shape, dtype, msg_type, *, timeout=None):
        """Claim room for an array as a request, to be written in place: an ArrayGuard with its `correlation_id`."""
        cdef core.RpcHandle* rpc = rpc_of(<RpcBus?>self)
        cdef uint32_t kind = as_call_type(msg_type)
        cdef uint64_t size = 0, deadline = deadline_after(timeout)
        need_caller(rpc, "call_array_zero_copy")
        guard = room_for(&rpc.calls(), shape, dtype, &size)
        return begin_array(guard, claim_request(<RpcBus>self, size, kind, deadline))

    def wait_array(self, correlation_id, out=None, *, timeout=None):
        """Wait for the reply to a call and return the array that it is, copied. As wait, and Bus.recv_array.

        RpcError if the callee says that the call has failed. wait().array() is the array in place.
        """
        cdef core.RpcHandle* rpc = rpc_of(<RpcBus?>self)
        cdef uint64_t deadline = deadline_after(timeout)
        need_caller(rpc, "wait_array")
        check_out(out)
        return take_reply(rpc, as_correlation_id(correlation_id), out, deadline)

    def reply_array(self, correlation_id, array, msg_type=0, *, timeout=None):
        """Answer a call with an array. As reply, and Bus.send_array. The call's own array is serve().array()."""
        cdef core.RpcHandle* rpc = rpc_of(<RpcBus?>self)
        cdef uint32_t kind = as_msg_type(msg_type)
        need_callee(rpc, "reply_array")
        send_answer(rpc, answerable(rpc, correlation_id), ArrayPayload(array), kind, deadline_after(timeout))

    def reply_array_zero_copy(self, correlation_id, shape, dtype, msg_type=0, *, timeout=None):
        """Claim room for an array as the answer to a call, to be written in place: an ArrayGuard."""
        cdef core.RpcHandle* rpc = rpc_of(<RpcBus?>self)
        cdef uint32_t kind = as_msg_type(msg_type)
        cdef uint64_t size = 0, deadline = deadline_after(timeout)
        need_callee(rpc, "reply_array_zero_copy")
        cdef uint64_t id = answerable(rpc, correlation_id)
        guard = room_for(&rpc.replies(), shape, dtype, &size)
        return begin_array(guard, claim_answer(<RpcBus>self, id, size, kind, deadline))
