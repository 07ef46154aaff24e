# Included by _tachyon.pyx: arrays in place, received or to be written.


@cython.final
@cython.no_gc_clear
cdef class ArrayGuard:
    """An array in place, received or to be sent, for a `with` block, which gets it as a NumPy array.

    The array goes with the block: its name stays, and names an array of nothing. What else of it is alive then, a
    slice or a tensor, is a BufferError, and the frame stays held until that goes. Where NumPy is not installed, or has
    no type for its items, the block gets the guard itself. That is a buffer with shape and format, for memoryview and
    for typed memoryviews in Cython, and speaks DLPack, torch.from_dlpack(guard); read-only if it was received.
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
        return window._hand_out(array_over(window, &self._said, self._dtype, self._said.header_bytes()))

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
        cdef bint row_major = flags & PyBUF_STRIDES != PyBUF_STRIDES or flags & PyBUF_C_CONTIGUOUS == PyBUF_C_CONTIGUOUS
        if column_major and row_major:
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

        A received one needs a consumer that asks for DLPack 1.0 or later, which can say that it is read-only;
        BufferError otherwise, and for items that DLPack has no numbers for: dates, structures, the other byte order.
        """
        cdef int64_t[8] strides
        cdef DLTensor tensor
        cdef size_t i
        window = self._open()
        if self._said.described() or self._said.swapped:
            raise BufferError("DLPack has no numbers for such items; take the array in the block")
        for i in range(self._said.dimensions):
            strides[i] = self._strides[i] // <Py_ssize_t>self._said.item_bytes
        data = window._payload + self._said.header_bytes()
        describe(&tensor, data, self._said.dimensions, tachyon_shape(self._said), strides)
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
    cdef uint64_t start = guard._said.header_bytes()
    guard._said.data = core.bytes_at(window._payload + start, window._size - start)
    guard._start(window, dtype_or_none(&guard._said, description))
    return guard
