# Included by _tachyon.pyx: arrays in messages. What is sent of NumPy's, of any buffer, and of what speaks DLPack;
# NumPy's arrays over a payload, and how they go with it. Header and checks are C++: tachyon/array.hpp. NumPy itself is
# used in _dtypes.py.

from cpython.weakref cimport PyWeakref_NewRef

from tachyon import _dtypes

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef extern from *:
    """
    #include <algorithm>
    static tachyon::ArrayFault tachyon_read_array(const void* payload, uint64_t size, tachyon::Array& found) noexcept {
        return tachyon::read_array({static_cast<const std::byte*>(payload), size}, found);
    }
    static bool tachyon_count_items(const tachyon::Array& array, uint64_t& count) noexcept {
        const auto items = array.items();
        count = items.value_or(0);
        return items.has_value();
    }
    static void tachyon_strides(const tachyon::Array& array, int64_t* strides) noexcept {
        const auto found = array.strides();
        std::copy(found.begin(), found.end(), strides);
    }
    static int64_t* tachyon_shape(tachyon::Array& array) noexcept { return array.shape.data(); }
    static constexpr bool tachyon_little_endian = std::endian::native == std::endian::little;
    static int tachyon_item_code(const tachyon::Array& array) noexcept { return static_cast<int>(array.code); }
    static void tachyon_describe_item(tachyon::Array& array, int code, uint64_t bytes, const char* text,
                                      size_t size) noexcept {
        array.code = static_cast<tachyon::ArrayCode>(code);
        array.item_bytes = bytes;
        array.bits = static_cast<uint8_t>(array.described() ? 0 : 8 * bytes);
        array.description = {text, size};
    }
    """
    core.ArrayFault tachyon_read_array(const void* payload, uint64_t size, core.Array& found) noexcept
    bint tachyon_count_items(const core.Array& array, uint64_t& count) noexcept
    void tachyon_strides(const core.Array& array, int64_t* strides) noexcept
    int64_t* tachyon_shape(core.Array& array) noexcept
    const bint tachyon_little_endian
    int tachyon_item_code(const core.Array& array) noexcept
    void tachyon_describe_item(core.Array& array, int code, uint64_t bytes, const char* text, size_t size) noexcept


# ---- in --------------------------------------------------------------------------------------------------------------


cdef str fault_of(core.ArrayFault fault):
    return (<bytes>core.text_of(fault)).decode()


# Reads what stands in a payload; raises ArrayError. The description is a copy: where it came from the peer may write.
cdef bytes read_array(const void* payload, uint64_t size, core.Array* array):
    cdef core.ArrayFault fault = tachyon_read_array(payload, size, array[0])
    if fault != core.ArrayFault.none:
        raise ArrayError(f"a message of {size} bytes is {fault_of(fault)}")
    return <bytes>array.description.data()[:array.description.size()]


cdef object dtype_for(core.Array* array, bytes description):
    """NumPy's type of an item. ArrayError, ModuleNotFoundError, or LookupError where NumPy has none such."""
    if not array.described():
        return _dtypes.dtype_of(tachyon_item_code(array[0]), array.bits, array.swapped)
    try:
        return _dtypes.dtype_described(description, array.item_bytes)
    except ValueError as error:
        raise ArrayError(f"a corrupt array: {error}") from None


cdef tuple shape_of(core.Array* array):
    cdef size_t i
    return tuple([array.shape[i] for i in range(array.dimensions)])


# Over the bytes of a buffer, from `start` on.
cdef object array_over(object buffer, core.Array* array, object dtype, uint64_t start):
    cdef uint64_t items = 0
    numpy = _dtypes.numpy()
    order = "F" if array.column_major else "C"
    tachyon_count_items(array[0], items)
    if items == 0:  # which frombuffer takes for a mistake
        return numpy.ndarray(shape_of(array), dtype, memoryview(buffer), start, order=order)
    return numpy.frombuffer(buffer, dtype, items, start).reshape(shape_of(array), order=order)


# An array of its own bytes, aligned as a received one is, and where to copy them.
cdef object new_array(core.Array* array, object dtype, uint8_t** data):
    cdef Py_buffer view
    cdef uint64_t size = array.data.size(), start
    memory = _dtypes.numpy().empty(size + core.kArrayAlignment, "u1")
    PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
    start = -<uint64_t>view.buf & (core.kArrayAlignment - 1)
    data[0] = <uint8_t*>view.buf + start
    PyBuffer_Release(&view)  # the memory stays where it is, as long as there is an array over it
    return array_over(memory, array, dtype, start)


def as_array(buffer):
    """The array that a message is, as a NumPy array over the same memory: of a guard, a memoryview of one, bytes.

    Read-only unless the buffer is writable. It is a view of the buffer as any other. Raises ArrayError, a ValueError,
    if the message is no array, or a corrupt one; ModuleNotFoundError without NumPy.
    """
    cdef Py_buffer view
    cdef core.Array array
    PyObject_GetBuffer(buffer, &view, PyBUF_C_CONTIGUOUS)
    try:
        description = read_array(view.buf, view.len, &array)
        return array_over(buffer, &array, numpy_type(&array, description), array.header_bytes())
    finally:
        PyBuffer_Release(&view)


# dtype_for, where there has to be one.
cdef object numpy_type(core.Array* array, bytes description):
    try:
        return dtype_for(array, description)
    except LookupError as error:
        raise ArrayError(str(error)) from None


# ---- how an array goes with its block --------------------------------------------------------------------------------


cdef object _GONE = None  # the dtype of an array whose block has been left


# Empties an array that was handed out for a block, if nothing but variables of the code that leaves the block, and of
# what has called that (a loop over a generator), refers to it: as with a memoryview, the name stays, and what it names
# is no window into the frame any more. Views of it keep what is under it, which shows in the guard's count. So does the
# array itself where something else refers to it: a memoryview or a tensor made of it looks at its memory, and at
# nothing else of it.
cdef int take_away(object reference) except -1:
    global _GONE
    cdef Py_ssize_t names = 0
    cdef list seen = []
    cdef int depth
    array = reference()
    if array is None:
        return 0
    try:
        frame = sys._getframe()
    except ValueError:  # nobody's code: from C
        frame = None
    for depth in range(16):
        if frame is None or Py_REFCNT(array) - 1 <= names:
            break
        names += names_in(frame, array, seen)
        frame = frame.f_back
    frame = None
    if Py_REFCNT(array) - 1 <= names:
        if _GONE is None:
            _GONE = _dtypes.numpy().dtype([("the block of this array has been left", "V1")])
        array.__setstate__((1, (0,), _GONE, False, b""))
    return 0


# How many references to an array are variables of a frame. Each is counted once: what is the module's, or a class's,
# may be the same for several frames, and a variable of an enclosing function is that function's. What somebody put into
# `locals()` of a function beside its variables is none of them.
cdef Py_ssize_t names_in(object frame, object array, list seen) except -1:
    cdef Py_ssize_t names = 0
    code, local = frame.f_code, frame.f_locals
    cdef bint own = code.co_flags & 1  # a function's: before Python 3.13 this is a copy of its variables
    for each in seen:
        if each is local:
            return 0
    for name, value in local.items():
        if own and name not in code.co_varnames and name not in code.co_cellvars:
            continue
        if value is array and name not in code.co_freevars:
            names += 1
    value = each = None
    if not own:
        seen.append(local)
    elif type(local) is dict:
        if Py_REFCNT(local) <= 2:  # the frame's and ours: leave no more references than there were
            local.clear()
        else:
            seen.append(local)
            for value in local.values():
                names += value is array
            value = None
    return names


# What a consumer of DLPack asks for. True: of version 1 or later.
cdef bint check_dlpack(object stream, object device, object copy, object max_version) except -1:
    if stream is not None:
        raise BufferError("a CPU tensor has no stream; pass stream=None")
    if device is not None and tuple(device) != (1, 0):
        raise BufferError(f"these bytes live on the CPU (1, 0), not on {device}")
    if copy:
        raise BufferError("no copy is made here; copy the tensor after taking it")
    return max_version is not None and max_version[0] >= 1


# ---- out -------------------------------------------------------------------------------------------------------------


cdef object refuse_array(object data):
    return TypeError(
        f"an array is NumPy's, another buffer, or what speaks DLPack, not {type(data).__name__}; try numpy.asarray"
    )


# DLPack's code of a buffer's items, where that has one: a single letter of struct's, perhaps with its byte order.
# ctypes calls a union and a packed structure, of whatever size, a byte.
cdef int simple_code(Py_buffer* view, bint* swapped) noexcept:
    cdef const char* at = view.format
    if at == NULL:
        return 1 if view.itemsize == 1 else -1
    swapped[0] = at[0] in (b">", b"!") if tachyon_little_endian else at[0] == b"<"
    if at[0] in (b"@", b"=", b"<", b">", b"!", b"^"):
        at += 1
    if at[0] in (b"b", b"B", b"?") and view.itemsize != 1:
        return -1
    if at[0] != 0 and at[1] == 0:
        if at[0] in (b"b", b"h", b"i", b"l", b"q", b"n"):
            return 0
        if at[0] in (b"B", b"H", b"I", b"L", b"Q", b"N"):
            return 1
        if at[0] in (b"e", b"f", b"d", b"g"):
            return 2
        return 6 if at[0] == b"?" else -1
    return 5 if at[0] == b"Z" and at[1] in (b"f", b"d") and at[2] == 0 else -1


cdef inline bint is_column_major(Py_buffer* view) noexcept:
    return PyBuffer_IsContiguous(view, b"F") and not PyBuffer_IsContiguous(view, b"C")


@cython.final
cdef class ArrayPayload:
    """An array as a message: goes wherever bytes go, `send_many`, `call`, what a handler returns.

    Of NumPy, any other buffer, or what speaks DLPack on the CPU (torch, jax). It keeps the array, whose items are
    copied once, when they are sent; `as_array` makes an array of it again. TypeError for items that are, or hold,
    objects; ValueError for more than 8 dimensions, or a tensor that is not in the CPU's memory.
    """

    cdef Py_buffer _view
    cdef bint _exported       # _view has to be released
    cdef bytes _head          # what stands before the items
    cdef object _capsule      # a tensor's
    cdef int64_t _strides[8]  # of a tensor, in bytes

    def __init__(self, array):
        if self._head is not None or self._exported or self._capsule is not None:
            raise TypeError("an ArrayPayload cannot be changed; make a new one")
        if hasattr(array, "filled") and hasattr(array, "mask"):
            raise TypeError("a masked array cannot be sent: its mask would be lost; send array.filled(value), or both")
        cdef core.Array said
        if PyObject_CheckBuffer(array):
            self._take_buffer(&said, array)
        elif hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
            self._take_tensor(&said, array)
        else:
            raise refuse_array(array)

    cdef int _take_buffer(self, core.Array* said, object array) except -1:
        cdef bint swapped = False
        try:
            PyObject_GetBuffer(array, &self._view, PyBUF_FULL_RO)
        except (ValueError, BufferError):  # a type that has no format, such as NumPy's dates
            return self._take_numpy(said, array)
        self._exported = True
        if has_pointers(self._view.format):
            raise refuse_pointers(self._view.format, "send_array")
        cdef int code = simple_code(&self._view, &swapped)
        # NumPy's dates that are scalars pass themselves off as bytes.
        if code < 0 or (self._view.itemsize == 1 and getattr(getattr(array, "dtype", None), "itemsize", 1) != 1):
            self._exported = False
            PyBuffer_Release(&self._view)
            return self._take_numpy(said, array)
        tachyon_describe_item(said[0], code, self._view.itemsize, NULL, 0)
        said.swapped = swapped and self._view.itemsize > 1
        return self._write_head(said)

    cdef int _take_numpy(self, core.Array* said, object array) except -1:
        if hasattr(array, "__dlpack__") and not hasattr(array, "__array_interface__"):
            return self._take_tensor(said, array)
        layout, plain = _dtypes.exported(array)
        PyObject_GetBuffer(plain, &self._view, PyBUF_FULL_RO)
        self._exported = True
        cdef bytes description = layout.description
        tachyon_describe_item(said[0], layout.code, layout.item_bytes, description, len(description))
        said.swapped = layout.swapped
        return self._write_head(said)

    cdef int _take_tensor(self, core.Array* said, object tensor) except -1:
        cdef DLTensor* given
        cdef int i
        device = tuple(tensor.__dlpack_device__())
        if device[0] not in (1, 3, 11):  # the CPU's own, and what CUDA or ROCm have pinned of it
            raise ValueError(f"this tensor is on device {device}; copy it to the CPU first, as tensor.cpu() does")
        try:
            self._capsule = tensor.__dlpack__(max_version=(1, 0))
        except TypeError:  # of before DLPack 1.0
            self._capsule = tensor.__dlpack__()
        given = tensor_in(self._capsule)
        if given.lanes != 1 or given.bits % 8 != 0 or given.bits == 0 or given.code == 3:
            raise TypeError(
                f"this tensor's items (DLPack type {given.code}, {given.bits} bits, {given.lanes} lanes) are no whole "
                "bytes; convert it first"
            )
        if given.ndim > 8:
            raise too_many_dimensions(given.ndim)
        tachyon_describe_item(said[0], given.code, given.bits // 8, NULL, 0)
        self._view.buf = <uint8_t*>given.data + given.byte_offset
        self._view.itemsize = self._view.len = given.bits // 8
        self._view.ndim = given.ndim
        self._view.readonly = True
        self._view.shape = <Py_ssize_t*>given.shape
        self._view.strides = <Py_ssize_t*>self._strides
        for i in reversed(range(given.ndim)):
            self._strides[i] = self._view.len if given.strides == NULL else given.strides[i] * self._view.itemsize
            self._view.len *= given.shape[i]
        return self._write_head(said)

    cdef int _write_head(self, core.Array* said) except -1:
        cdef uint64_t items = 0
        cdef int i
        if self._view.ndim > 8:
            raise too_many_dimensions(self._view.ndim)
        said.dimensions = self._view.ndim
        for i in range(self._view.ndim):  # a buffer of one dimension may come without
            said.shape[i] = self._view.len // self._view.itemsize if self._view.shape == NULL else self._view.shape[i]
        if not tachyon_count_items(said[0], items) or items * said.item_bytes != <uint64_t>self._view.len:
            raise ValueError(f"a shape of {shape_of(said)} is none that a buffer of {self._view.len} bytes can have")
        said.column_major = is_column_major(&self._view)
        head = PyBytes_FromStringAndSize(NULL, said.header_bytes())
        core.write_array_header(<uint8_t*>PyBytes_AS_STRING(head), said[0])
        self._head = head
        return 0

    # Its items, for as long as it lives.
    cdef int _lend(self, Py_buffer* view) except -1:
        if self._head is None:  # made by __new__
            raise TypeError("this ArrayPayload has no array")
        view[0] = self._view  # to be used, not to be released
        return 0

    def __dealloc__(self):
        if self._exported:
            PyBuffer_Release(&self._view)

    def __len__(self):
        """Bytes of the message."""
        return 0 if self._head is None else len(self._head) + self._view.len

    def __bytes__(self):
        """The message, as a copy."""
        cdef Py_buffer view
        self._lend(&view)
        items = PyBytes_FromStringAndSize(NULL, view.len)
        PyBuffer_ToContiguous(PyBytes_AS_STRING(items), &view, view.len, b"F" if is_column_major(&view) else b"C")
        return self._head + items

    def __reduce__(self):
        raise TypeError("an ArrayPayload cannot be pickled or copied; do so with the array")


cdef object too_many_dimensions(int count):
    return ValueError(f"an array of {count} dimensions cannot be sent: at most 8; reshape it")


cdef DLTensor* tensor_in(object capsule) except NULL:
    if PyCapsule_IsValid(capsule, "dltensor_versioned"):
        versioned = <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, "dltensor_versioned")
        if versioned.major == 1:
            return &versioned.tensor
    elif PyCapsule_IsValid(capsule, "dltensor"):
        return &(<DLManagedTensor*>PyCapsule_GetPointer(capsule, "dltensor")).tensor
    raise TypeError("__dlpack__ returned no tensor of DLPack before 2.0")
