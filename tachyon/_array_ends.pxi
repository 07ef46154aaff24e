# Included by _tachyon.pyx: arrays through a Bus and an RpcBus: ArrayGuard, and the methods that both classes inherit.


from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory


@cython.final
@cython.no_gc_clear
cdef class ArrayGuard:
    """An array in place, received or to be sent, for a `with` block, which gets it as a NumPy array.

    The array goes with the block: its name stays, and names an array of nothing. What else of it is alive then, a slice or a
    tensor, is a BufferError, and the frame stays held until that goes. Where NumPy is not installed, or has no type for its
    items, the block gets the guard itself. That is a buffer with shape and format, for memoryview and for typed memoryviews in
    Cython, and speaks DLPack, torch.from_dlpack(guard); read-only if it was received.
    """

    cdef _Window _window      # the frame's guard
    cdef core.Array _said     # our copy of the header
    cdef object _dtype        # NumPy's, or None
    cdef bytes _format        # of a buffer, or None
    cdef Py_ssize_t _shape[8]
    cdef Py_ssize_t _strides[8]

    def __init__(self, *args, **kwargs):
        raise TypeError("an ArrayGuard is made by the methods of a Bus or an RpcBus")

    cdef int _start(self, _Window window, object dtype) except -1:
        cdef size_t i
        cdef int64_t[8] strides
        tachyon_strides(self._said, strides)
        self._dtype = dtype
        self._format = format_of(&self._said, dtype)
        for i in range(self._said.dimensions):
            self._shape[i] = self._said.shape[i]
            self._strides[i] = strides[i]
        self._window = window  # last: without it there is nothing to leave
        return 0

    cdef _Window _open(self):
        if self._window is None:
            raise BusClosedError("this ArrayGuard has no array")
        self._window._usable()
        return self._window

    def array(self):
        """The array in place, NumPy's. What the block gets; it goes with the block."""
        window = self._open()
        if self._dtype is None:
            _dtypes.numpy()
            raise ArrayError("NumPy has no type for these items; take the guard by DLPack, or as a buffer")
        array = array_over(window, &self._said, self._dtype, self._said.header_bytes())
        window._handed = PyWeakref_NewRef(array, None)
        return array

    def __enter__(self):
        self._open()
        return self if self._dtype is None else self.array()

    def __exit__(self, exc_type, exc, traceback):
        self._window._leave(exc_type is None)

    def release(self):
        """Do what leaving the block does: free the frame, or send. Once is enough; a live view is a BufferError."""
        if self._window is not None:
            self._window._leave(True)

    @property
    def released(self):
        """True once the frame has been sent, or given back: the block has been left and no view is alive."""
        return self._window is None or not self._window._open

    @property
    def shape(self):
        """How many items in each dimension."""
        return shape_of(&self._said)

    @property
    def dtype(self):
        """NumPy's type of the items; None where NumPy is not installed, or has none such."""
        return self._dtype

    @property
    def type_id(self):
        """The message's type_id (of a call or a reply: its msg_type)."""
        return None if self._window is None else self._window.type_id

    @property
    def correlation_id(self):
        """The id of the call that this is, or that it answers; 0 on a plain bus."""
        return None if self._window is None else self._window.correlation_id

    def __repr__(self):
        kind = self._dtype or _dtypes.name_of(tachyon_item_code(self._said), self._said.bits)
        state = "released" if self._window is None else self._window._state()
        return f"<tachyon.ArrayGuard {kind} {shape_of(&self._said)} {state}>"

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef bint one_way = self._said.dimensions <= 1 or self._said.data.size() == 0
        cdef bint column_major = self._said.column_major and not one_way
        window = self._open()
        if flags & PyBUF_WRITABLE == PyBUF_WRITABLE and window._readonly:
            raise BufferError("a received array is read-only")
        if flags & PyBUF_FORMAT == PyBUF_FORMAT and self._format is None:
            raise BufferError("a buffer has no format for such items; take the array in the block, or by DLPack")
        if column_major and (flags & PyBUF_STRIDES != PyBUF_STRIDES or flags & PyBUF_C_CONTIGUOUS == PyBUF_C_CONTIGUOUS):
            raise BufferError("this array's first index runs fastest; ask for its strides")
        if not column_major and not one_way and flags & PyBUF_F_CONTIGUOUS == PyBUF_F_CONTIGUOUS:
            raise BufferError("this array's last index runs fastest")
        view.buf = window._payload + self._said.header_bytes()
        view.len = self._said.data.size()
        view.itemsize = self._said.item_bytes
        view.readonly = window._readonly
        view.ndim = self._said.dimensions
        view.format = NULL
        view.shape = view.strides = view.suboffsets = NULL
        if flags & PyBUF_FORMAT == PyBUF_FORMAT:
            view.format = PyBytes_AS_STRING(self._format)
        if flags & PyBUF_ND == PyBUF_ND:
            view.shape = self._shape
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            view.strides = self._strides
        view.internal = NULL
        view.obj = self
        window._view_made()

    def __releasebuffer__(self, Py_buffer* view):
        self._window._view_gone()

    def __dlpack_device__(self):
        """(1, 0): the CPU."""
        return 1, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Hand the array over as a tensor without copying; counts as a view until it is dropped.

        A received one needs a consumer that asks for DLPack 1.0 or later, which can say that it is read-only; BufferError
        otherwise, and for items that DLPack has no numbers for: dates, structures, the other byte order.
        """
        cdef int64_t[8] strides
        cdef DLTensor tensor
        cdef size_t i
        window = self._open()
        if self._said.described() or self._said.swapped:
            raise BufferError("DLPack has no numbers for such items; take the array in the block")
        for i in range(self._said.dimensions):
            strides[i] = self._strides[i] // <Py_ssize_t>self._said.item_bytes
        describe(
            &tensor, window._payload + self._said.header_bytes(), self._said.dimensions, tachyon_shape(self._said), strides
        )
        tensor.code = tachyon_item_code(self._said)
        tensor.bits = self._said.bits
        return window._capsule(&tensor, check_dlpack(stream, dl_device, copy, max_version))

    def __reduce__(self):
        raise TypeError("an ArrayGuard cannot be pickled or copied: it is a window into shared memory")


cdef bytes format_of(core.Array* array, object dtype):
    """Of a buffer of such items; None where there is none."""
    if array.described():
        return None if dtype is None else _dtypes.buffer_format(dtype)
    return _dtypes.format_of(tachyon_item_code(array[0]), array.bits, array.swapped)


# NumPy's type of the items, if there is NumPy and it has one. A description that is none is an ArrayError all the same.
cdef object dtype_or_none(core.Array* array, bytes description):
    try:
        return dtype_for(array, description)
    except (LookupError, ModuleNotFoundError):
        return None


# ---- in --------------------------------------------------------------------------------------------------------------------


# An error that has taken a frame's message with it: on any inlet the next one can be received, and nothing is lost.
cdef object with_message(object error, core.Frame* frame):
    error.message = new_message(frame.type_id, copy_of(frame))
    return error


# The array of a received frame in place.
cdef ArrayGuard guard_of(RxGuard window):
    cdef ArrayGuard guard = ArrayGuard.__new__(ArrayGuard)
    try:
        description = read_array(window._payload, window._size, &guard._said)
        guard._start(window, dtype_or_none(&guard._said, description))
    except ArrayError as error:
        with_message(error, &window._frame)
        window._leave(False)
        raise
    return guard


# What `out` of a receiving method has to be, before anything is taken.
cdef int check_out(object out) except -1:
    numpy = _dtypes.numpy()
    if out is None:
        return 0
    if not isinstance(out, numpy.ndarray):
        raise TypeError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.dtype.hasobject:
        raise refuse_pointers(b"O", "recv_array")
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
    if out.shape != shape_of(&said) or out.dtype != dtype:
        raise ArrayError(f"the array is {dtype} {shape_of(&said)}, and out {out.dtype} {out.shape}")
    if frame.size != said.header_bytes():
        memory = PyMemoryView_FromMemory(<char*>frame.payload, frame.size, PyBUF_READ)
        _dtypes.numpy().copyto(out, array_over(memory, &said, dtype, said.header_bytes()), "no")
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


# ---- out -------------------------------------------------------------------------------------------------------------------


# A guard for an array that will be claimed; how many bytes that takes.
cdef ArrayGuard room_for(core.BusHandle* handle, object shape, object dtype, uint64_t* size):
    cdef ArrayGuard guard = ArrayGuard.__new__(ArrayGuard)
    cdef uint64_t items = 0
    cdef size_t i
    lengths = list(shape) if isinstance(shape, (tuple, list)) else [shape]
    if len(lengths) > <Py_ssize_t>core.kMostDimensions:
        raise too_many_dimensions(len(lengths))
    layout = _dtypes.layout_of(dtype)
    total = layout.item_bytes
    for i, each in enumerate(lengths):
        length = operator.index(each)
        if length < 0:
            raise ValueError(f"an array cannot have {length} items in a dimension")
        total *= length or 1
        if total > 0xffffffff:
            raise_status(handle, Status.too_large, total)
        guard._said.shape[i] = length
    guard._said.dimensions = len(lengths)
    guard._format = layout.description  # kept while the header is written
    tachyon_describe_item(
        guard._said, layout.code, layout.item_bytes, PyBytes_AS_STRING(guard._format), len(guard._format)
    )
    guard._said.swapped = layout.swapped
    tachyon_count_items(guard._said, items)
    size[0] = guard._said.header_bytes() + items * layout.item_bytes
    return guard


# Once it has been claimed.
cdef ArrayGuard begin_array(ArrayGuard guard, TxGuard window):
    cdef bytes description = guard._format
    core.write_array_header(window._payload, guard._said)
    guard._said.data = core.bytes_at(window._payload + guard._said.header_bytes(), window._size - guard._said.header_bytes())
    guard._start(window, dtype_or_none(&guard._said, description))
    return guard


cdef class _BusArrays:
    """What Bus has for arrays."""

    def send_array(self, array, type_id=0, *, timeout=None):
        """Send an array, with its shape and type: NumPy's, any other buffer, or what speaks DLPack (torch, jax, on the CPU).

        Copied once; strided ones to C order. Objects are a TypeError, more than 8 dimensions a ValueError. Otherwise as send.
        """
        send_message(
            handle_of(<Bus?>self), ArrayPayload(array), as_type_id(type_id), deadline_after(timeout)
        )

    def try_send_array(self, array, type_id=0):
        """Send an array if there is room now. False if the ring is full. Otherwise as send_array."""
        return send_message(handle_of(<Bus?>self), ArrayPayload(array), as_type_id(type_id), 0)

    def send_array_zero_copy(self, shape, dtype, type_id=0, *, timeout=None):
        """Claim room for an array, to be written in place: `with bus.send_array_zero_copy((480, 640), "f4") as a: a[:] = 1`.

        Returns an ArrayGuard, whose block gets a NumPy array of whatever was in that memory before. Leaving the block sends it;
        an exception in the block gives the room back. Otherwise as send_zero_copy.
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

        out: a writable NumPy array of the same shape and type; it is returned.
        Raises ArrayError, a ValueError, if the message is no array, or does not fit `out`: it has been taken then, and is the
        error's `message`. ModuleNotFoundError without NumPy, and nothing is taken. Otherwise as recv.
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
        """Wait for the next array and return it in place, as an ArrayGuard: `with bus.recv_array_zero_copy() as a: a.sum()`.

        The block gets a read-only NumPy array, which goes with the block. Raises ArrayError as recv_array, otherwise as
        recv_zero_copy; recv_zero_copy().array() is for messages that may be something else.
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
