# Included by _tachyon.pyx: exceptions, arguments, and Message.

# ---- errors ----------------------------------------------------------------------------------------------------------


cdef object too_large(Bus self, object size):
    message = "the message" if size is None else f"a message of {size} bytes"
    return MessageTooLargeError(
        f"{message} can never fit: this bus takes at most {self._capacity - 16} "
        f"(its capacity of {self._capacity} less 16); listen with a larger capacity"
    )


cdef int raise_status(Bus self, Status status, uint64_t size) except -1:
    """Status to exception, in one place."""
    if status == Status.too_large:
        raise too_large(self, size)
    if status == Status.wrong_side:
        raise BusBusyError(
            "one side sends and the other receives, as the first send decided; open a second bus for the way back"
        )
    if status == Status.claim_open or status == Status.no_claim:
        raise BusBusyError(
            "a claim of this bus is open; leave its block, and drop the views of it, before you send"
            if status == Status.claim_open else "there is no claim, or no frame, to give back; open one first"
        )
    if status == Status.peer_closed:
        raise PeerClosedError(f"the peer (pid {self._peer_pid}) has closed this bus ({self._path})")
    if status == Status.peer_dead:
        raise PeerDeadError(f"the peer (pid {self._peer_pid}) of this bus ({self._path}) died; open a new one")
    if status == Status.peer_aborted:
        error = PeerDeadError(
            f"the peer (pid {self._peer_pid}) of this bus ({self._path}) gave up in the middle; "
            "what it sent is not the whole, look at its own error"
        )
        error.reason = "aborted"
        raise error
    if status == Status.corrupt:
        error = PeerDeadError(
            f"the peer (pid {self._peer_pid}) of this bus ({self._path}) corrupted the ring; open a new one"
        )
        error.reason = "corrupt"
        raise error
    if status == Status.forked:
        raise BusClosedError(f"this bus ({self._path}) belongs to the parent of this process; open one here")
    if status == Status.closed:
        raise BusClosedError(f"this bus ({self._path}) is closed; open a new one")
    if status == Status.unknown_call:
        raise ValueError(
            "there is no such call to wait for: its id was never issued, it is answered already, was cancelled, or "
            "its reply was dropped because too many others had not been asked for"
        )
    if status == Status.busy:
        raise BusBusyError("this bus is in use by another thread, or lent; a Bus serves one thread at a time")
    if status == Status.bad_type:
        raise ValueError("the msg_type is out of bounds: 0 … 65534 for a call, 0 … 65535 for a reply")
    if status == Status.full:
        raise BusFullError("no room now")
    if status == Status.empty:
        raise BusEmptyError("no message now")
    raise TachyonError(f"unexpected status {<int>status}")


cdef object refuse_payload(object data, str verb):
    if isinstance(data, str):
        return TypeError(f"{verb} takes bytes-like objects, not str; encode it first: text.encode()")
    return TypeError(f"{verb} takes bytes-like objects, not {type(data).__name__}")


# Does a buffer's format, in the words of struct, PEP 3118 and ctypes, hold an address? Names stand between colons.
cdef bint has_pointers(const char* format) noexcept:
    cdef bint in_name = False
    if format == NULL:  # plain bytes
        return False
    while format[0] != 0:
        if format[0] == b":":
            in_name = not in_name
        elif in_name:
            pass
        elif format[0] in (b"O", b"P", b"&", b"X", b"z"):
            return True
        elif format[0] == b"Z" and format[1] not in (b"f", b"d", b"g"):  # those are complex numbers
            return True
        format += 1
    return False


cdef object refuse_pointers(const char* format, str verb):
    shown = (<bytes>format).decode("utf-8", "replace")
    return TypeError(
        f"{verb} takes no buffer whose format has pointers in it ({shown!r}): they mean nothing in another process; "
        "convert it to plain values, or serialize the objects"
    )


# What recv_into fills.
cdef int get_target(object buffer, Py_buffer* view) except -1:
    try:
        PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
    except ValueError:  # a NumPy dtype that has no format, such as datetime64
        if getattr(getattr(buffer, "dtype", None), "hasobject", False):
            raise refuse_pointers(b"O", "recv_into") from None
        PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)
        return 0
    if has_pointers(view.format):
        refused = refuse_pointers(view.format, "recv_into")
        PyBuffer_Release(view)
        raise refused
    return 0


# ---- arguments -------------------------------------------------------------------------------------------------------


cdef uint32_t as_type_id(object value) except? 0xffffffff:
    cdef int overflow = 0
    if type(value) is not int:
        value = operator.index(value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or (<uint64_t>number) >> 32 != 0:
        raise OverflowError(f"type_id must be between 0 and {0xffffffff}, not {value}")
    return <uint32_t>number


cdef uint64_t deadline_after(object timeout) except? 0:
    """Absolute deadline on the core's clock for a timeout in seconds; None never ends."""
    if timeout is None:
        return core.kNever
    if isinstance(timeout, (str, bytes)):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    cdef double seconds = timeout
    if isnan(seconds) or seconds < 0:
        raise ValueError(f"timeout must be None or a number of seconds that is not negative, not {timeout!r}")
    cdef double ns = seconds * 1e9
    cdef uint64_t now = core.now_ns()
    return core.kNever if ns >= 9e18 else now + <uint64_t>ns


cdef uint64_t as_capacity(object value) except 0:
    if isinstance(value, float) or not hasattr(value, "__index__"):
        raise TypeError(f"capacity must be an int, not {type(value).__name__}")
    capacity = operator.index(value)
    if not core.kMinCapacity <= capacity <= core.kMaxCapacity or capacity & (capacity - 1):
        raise CapacityError(
            f"capacity must be a power of two between {core.kMinCapacity} and {core.kMaxCapacity} bytes, not {capacity}"
        )
    return capacity


cdef uint64_t as_max_capacity(object value) except 0:
    if value is None:
        return core.kMaxCapacity
    if isinstance(value, float) or not hasattr(value, "__index__"):
        raise TypeError(f"max_capacity must be an int or None, not {type(value).__name__}")
    limit = operator.index(value)
    if limit < core.kMinCapacity:
        raise ValueError(f"max_capacity must be None or at least {core.kMinCapacity}, not {limit}")
    return min(limit, core.kMaxCapacity)


cdef unsigned int as_mode(object value) except? 0:
    mode = operator.index(value)
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be between 0 and 0o777, not {mode:#o}")
    return mode


cdef long as_user(object value) except? -1:
    """A user id; -1 for None."""
    if value is None:
        return -1
    user = operator.index(value)
    if not 0 <= user < 1 << 32:
        raise ValueError(f"uid must be between 0 and {(1 << 32) - 1}, not {user}")
    return user


cdef string as_path(object path) except *:
    return os.fsencode(path)


# ---- Message ---------------------------------------------------------------------------------------------------------


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Message:
    """A received message: `type_id`, `size` in bytes, and `data`, a bytes object to keep as long as one likes.

    Immutable, hashable, picklable; equal to and ordered with other messages; unpacks to (type_id, size, data).
    """

    __match_args__ = ("type_id", "size", "data")

    cdef readonly uint32_t type_id
    cdef readonly bytes data

    # Not __cinit__: that would run for every message received.
    def __init__(self, type_id=0, size=None, data=b""):
        if self.data is not None:
            raise TypeError("a Message cannot be changed; make a new one")
        self.type_id = as_type_id(type_id)
        if not PyBytes_CheckExact(data):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        self.data = data
        if size is not None and size != len(data):
            raise ValueError(f"size is {size}, but data has {len(data)} bytes")

    @property
    def size(self):
        """Number of bytes in `data`."""
        return len(self.data)

    cdef tuple _fields(self):
        return self.type_id, len(self.data), self.data

    def __iter__(self):
        return iter(self._fields())

    def __richcmp__(self, other, int op):
        if not isinstance(other, Message):
            return NotImplemented
        mine, theirs = self._fields(), (<Message>other)._fields()
        if op == 0:
            return mine < theirs
        if op == 1:
            return mine <= theirs
        if op == 2:
            return mine == theirs
        if op == 3:
            return mine != theirs
        if op == 4:
            return mine > theirs
        return mine >= theirs

    def __hash__(self):
        return hash(self._fields())

    def __reduce__(self):
        return Message, self._fields()

    def __repr__(self):
        shown = repr(self.data) if len(self.data) <= 64 else f"{self.data[:60]!r}..."
        return f"Message(type_id={self.type_id}, size={self.size}, data={shown})"


cdef inline Message new_message(uint32_t type_id, bytes data):
    cdef Message message = Message.__new__(Message)
    message.type_id = type_id
    message.data = data
    return message
