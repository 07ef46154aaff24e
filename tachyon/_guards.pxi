# Included by _tachyon.pyx: the windows into frames that are handed out.
#
# no_gc_clear: a guard in a reference cycle needs its bus until __dealloc__, to give the frame back there, and a view
# of it needs the guard. The collector must not take them away before; a cycle through a guard is broken elsewhere.


@cython.no_gc_clear
cdef class _Held:
    """What a guard holds, until its block has been left and no view of it is alive."""

    cdef object _owner            # the Bus or RpcBus: its memory lives as long
    cdef core.BusHandle* _handle
    cdef Py_ssize_t _views
    cdef bint _readonly
    cdef bint _open      # something is held
    cdef bint _leaving   # its block has been left; it is held for the views only
    cdef object __weakref__

    def __init__(self, *args, **kwargs):
        raise TypeError(f"a {type(self).__name__} is made by the methods of a Bus")

    # Between enter and leave: something is held from now on.
    cdef void _start(self, bint readonly) noexcept:
        self._handle.open_guard()
        self._readonly = readonly
        self._open = True

    # Gives it back, or sends it.
    cdef Status _finish(self, bint send) noexcept:
        return Status.ok

    cdef Status _end(self, bint send) noexcept:
        self._open = False
        cdef Status status = self._finish(send)
        self._handle.end_guard()
        return status

    cdef int _usable(self) except -1:
        if not self._open or self._leaving:
            raise BusClosedError(f"this {type(self).__name__} is over: its block has been left")
        return check_open(self._handle)

    cdef void _view_made(self) noexcept:
        self._views += 1

    cdef void _view_gone(self) noexcept:
        self._views -= 1
        if self._views == 0 and self._leaving and self._open:
            self._end(False)

    # How its block is left; `send`: in good order.
    cdef int _leave(self, bint send) except -1:
        cdef Status status
        if not self._open or self._leaving:
            return 0
        if self._views != 0:
            self._leaving = True
            if not send:
                return 0
            raise BufferError(
                f"{self._views} view(s) of this {type(self).__name__} outlive its block; release them inside it "
                "(`with memoryview(...)`, `del array`). What it holds stays held until they are gone"
                + ("" if self._readonly else ", and is then given back unsent")
            )
        status = self._end(send)
        if send and status != Status.ok and not self._readonly:
            raise_status(self._handle, status, len(self))
        return 0

    cdef str _state(self):
        if not self._open:
            return "released"
        return f"held by {self._views} view{'' if self._views == 1 else 's'}" if self._leaving else "open"

    def __dealloc__(self):
        if self._open:
            self._end(False)

    def __enter__(self):
        self._usable()
        return self

    def __exit__(self, exc_type, exc, traceback):
        self._leave(exc_type is None)

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: it is a window into shared memory")


@cython.no_gc_clear
cdef class _Window(_Held):
    """The bytes of one frame. Counts the views, so that none outlives the frame unnoticed."""

    cdef core.RpcHandle* _rpc     # NULL on a plain bus
    cdef uint8_t* _payload
    cdef Py_ssize_t _size
    cdef list _handed             # weak references to arrays that go when the block is left, or None

    cdef void start(self, uint8_t* payload, Py_ssize_t size, bint readonly) noexcept:
        self._payload = payload
        self._size = size
        self._start(readonly)

    @property
    def released(self):
        """True once the frame has been sent, or given back: its block has been left and no view is alive."""
        return not self._open

    def __len__(self):
        return self._size

    def __repr__(self):
        return f"<tachyon.{type(self).__name__} {self.actual_size} bytes type_id={self.type_id} {self._state()}>"

    def __getbuffer__(self, Py_buffer* view, int flags):
        self._usable()
        PyBuffer_FillInfo(view, self, self._payload, self._size, self._readonly, flags)
        Py_DECREF(None)  # which Cython had put into view.obj, and PyBuffer_FillInfo has replaced without a look
        self._view_made()

    def __releasebuffer__(self, Py_buffer* view):
        self._view_gone()

    def __dlpack_device__(self):
        """(1, 0): the CPU."""
        return 1, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Hand the bytes over as a one-dimensional uint8 tensor without copying; counts as a view until it is dropped.

        Read-only frames need a consumer that asks for DLPack 1.0 or later, which can say so; BufferError otherwise.
        """
        cdef int64_t size = self._size, stride = 1
        cdef DLTensor tensor
        describe(&tensor, self._payload, 1, &size, &stride)
        return self._capsule(&tensor, check_dlpack(stream, dl_device, copy, max_version))

    cdef object _capsule(self, DLTensor* tensor, bint versioned):
        self._usable()  # last: arguments may run code that leaves the block
        if versioned:
            capsule = versioned_capsule(tensor, self._readonly, <void*>self, drop_versioned)
        elif self._readonly:
            raise BufferError(
                "received bytes are read-only, which DLPack before 1.0 cannot say; use memoryview, or a newer consumer"
            )
        else:
            capsule = unversioned_capsule(tensor, <void*>self, drop_unversioned)
        Py_INCREF(self)
        self._view_made()
        return capsule

    # An array over this frame, which goes when the block is left.
    cdef object _hand_out(self, object array):
        if self._handed is None:
            self._handed = []
        self._handed.append(PyWeakref_NewRef(array, None))
        return array

    cdef int _leave(self, bint send) except -1:
        while self._handed:
            take_away(self._handed.pop())
        return _Held._leave(self, send)


cdef inline TxGuard new_tx_guard(object owner, core.BusHandle* handle, uint32_t type_id):
    cdef TxGuard guard = TxGuard.__new__(TxGuard)
    guard._owner = owner
    guard._handle = handle
    guard._type_id = type_id
    return guard


cdef inline RxGuard new_rx_guard(object owner, core.BusHandle* handle):
    cdef RxGuard guard = RxGuard.__new__(RxGuard)
    guard._owner = owner
    guard._handle = handle
    return guard


# Deleters may be called by a consumer that does not hold the GIL.
cdef void drop_versioned(DLManagedTensorVersioned* managed) noexcept with gil:
    window = <_Window>managed.context
    PyMem_RawFree(managed)
    window._view_gone()
    Py_DECREF(window)


cdef void drop_unversioned(DLManagedTensor* managed) noexcept with gil:
    window = <_Window>managed.context
    PyMem_RawFree(managed)
    window._view_gone()
    Py_DECREF(window)


@cython.final
@cython.no_gc_clear
cdef class TxGuard(_Window):
    """Room for a message, to be written in place. `with memoryview(guard) as m: m[:] = ...`, np.frombuffer, DLPack.

    Leaving its block sends the first `actual_size` bytes; an exception gives the room back. A view that is alive then
    is a BufferError: nothing is sent, and the room is given back when the view goes.
    """

    cdef uint32_t _type_id
    cdef Py_ssize_t _actual_size
    cdef uint64_t _correlation_id

    cdef core.Outlet* _outlet(self) noexcept:
        if self._rpc == NULL:
            return self._handle.bus()
        return self._rpc.caller() if self._rpc.caller() != NULL else self._rpc.answer(self._correlation_id)

    cdef Status _finish(self, bint send) noexcept:
        if self._handle.bus() == NULL:
            return Status.closed
        if not send:
            return self._outlet().abort()
        cdef Status status = self._outlet().commit(<uint32_t>self._actual_size, self._type_id)
        if status == Status.full or status == Status.no_memory:  # what does not fit the ring; the claim is still open
            self._outlet().abort()
        return status

    @property
    def actual_size(self):
        """Bytes that will be sent: 0 … the size claimed, which it starts at (ValueError beyond)."""
        return self._actual_size

    @actual_size.setter
    def actual_size(self, value):
        size = operator.index(value)
        if not 0 <= size <= self._size:
            raise ValueError(f"actual_size must be between 0 and the {self._size} bytes claimed, not {size}")
        self._usable()
        self._actual_size = size

    @property
    def type_id(self):
        """The message's type_id (of a call or a reply: its msg_type); may be set until the block is left."""
        return self._type_id

    @type_id.setter
    def type_id(self, value):
        cdef uint32_t kind
        if self._rpc == NULL:
            kind = as_type_id(value)
        else:
            kind = as_call_type(value) if self._rpc.caller() != NULL else as_msg_type(value)
        self._usable()
        self._type_id = kind

    @property
    def correlation_id(self):
        """The id that the call will have, or that the reply answers; 0 on a plain bus."""
        return self._correlation_id


@cython.final
@cython.no_gc_clear
cdef class RxGuard(_Window):
    """A received message in place, read-only. Leaving its block frees the frame.

    A view that is alive then is a BufferError, and the frame stays held until the view goes.
    """

    cdef core.Frame _frame

    cdef Status _finish(self, bint send) noexcept:
        if self._rpc != NULL and self._rpc.caller() != NULL:
            self._rpc.caller().release(self._frame)
        elif self._handle.bus() != NULL:
            self._handle.bus().let_go(self._frame)
        return Status.ok

    def release(self):
        """Do what leaving the block does: free the frame. Once is enough; a view that is alive is a BufferError."""
        self._leave(True)

    def array(self):
        """The array that the message is, in place: NumPy's, read-only, its data aligned to 64 bytes.

        It goes with the block, as in `with bus.recv_array_zero_copy() as a`; what else of it is alive then is a
        BufferError. Raises ArrayError if the message is no array, which it stays; ModuleNotFoundError without NumPy.
        """
        return self._hand_out(as_array(self))

    @property
    def actual_size(self):
        """Bytes of the message."""
        return self._frame.size

    @property
    def type_id(self):
        """The message's type_id."""
        return self._frame.type_id

    @property
    def correlation_id(self):
        """Which call this is, or which it answers; 0 on a plain bus."""
        return self._frame.correlation_id


@cython.final
@cython.no_gc_clear
cdef class RxView(_Window):
    """One message of an RxBatchGuard, in place, read-only, of use within the batch's block."""

    cdef RxBatchGuard _batch
    cdef uint32_t _type_id

    cdef int _usable(self) except -1:
        if self._batch is None:  # made by __new__
            raise BusClosedError("this RxView belongs to no batch")
        return self._batch._usable()

    cdef void _view_made(self) noexcept:
        self._batch._views += 1

    cdef void _view_gone(self) noexcept:
        self._batch._view_gone()

    cdef str _state(self):
        return "released" if self._batch is None else self._batch._state()

    def __enter__(self):
        raise TypeError("a message of a batch needs no `with`: the batch's own block frees it")

    @property
    def released(self):
        """True once the frames of the batch have been freed."""
        return self._batch is None or not self._batch._open

    @property
    def actual_size(self):
        """Bytes of the message."""
        return self._size

    @property
    def type_id(self):
        """The message's type_id."""
        return self._type_id


@cython.final
@cython.no_gc_clear
cdef class RxBatchGuard(_Held):
    """A sequence of received messages in place: RxView objects, read-only. Leaving its block frees all of them.

    A view of any of them that is alive then is a BufferError, and the frames stay held until it goes.
    """

    cdef vector[core.Frame] _frames

    cdef Status _finish(self, bint send) noexcept:
        cdef core.Bus* bus = self._handle.bus()
        cdef size_t i
        if bus != NULL:
            for i in range(self._frames.size()):
                bus.release(self._frames[i])
            bus.hand_back()
        return Status.ok

    def __dealloc__(self):  # not the base's: the frames are gone by then
        if self._open:
            self._end(False)

    def release(self):
        """Do what leaving the block does: free the frames. Once is enough; a view that is alive is a BufferError."""
        self._leave(True)

    def __len__(self):
        return self._frames.size()

    def __repr__(self):
        count = self._frames.size()
        return f"<tachyon.RxBatchGuard {count} message{'' if count == 1 else 's'} {self._state()}>"

    cdef RxView _view(self, size_t i):
        cdef RxView view = RxView.__new__(RxView)
        view._batch = self
        view._payload = <uint8_t*>self._frames[i].payload
        view._size = self._frames[i].size
        view._readonly = True
        view._type_id = self._frames[i].type_id
        return view

    def __getitem__(self, index):
        cdef Py_ssize_t i, count = self._frames.size()
        self._usable()
        if isinstance(index, slice):
            return [self._view(i) for i in range(*index.indices(count))]
        wanted = operator.index(index)
        if not -count <= wanted < count:
            raise IndexError(f"batch index {wanted} out of range for {count} messages")
        i = wanted
        return self._view(i + count if i < 0 else i)

    def __iter__(self):
        cdef size_t i
        self._usable()
        for i in range(self._frames.size()):
            yield self[i]
