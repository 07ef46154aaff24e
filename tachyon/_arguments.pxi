# Included by _tachyon.pyx: what users pass, checked and turned into what the core takes.


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


cdef uint64_t as_max_large(object value) except? 1:
    if isinstance(value, float) or not hasattr(value, "__index__"):
        raise TypeError(f"max_large must be an int, not {type(value).__name__}")
    limit = operator.index(value)
    if limit != 0 and (not 4096 <= limit <= core.kMaxCapacity or limit & (limit - 1)):
        raise ValueError(
            f"max_large must be 0, or a power of two between 4096 and {core.kMaxCapacity} bytes, not {limit}"
        )
    return limit


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


cdef uint32_t as_msg_type(object value) except? 0xffffffff:
    cdef int overflow = 0
    if type(value) is not int:
        value = operator.index(value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or not 0 <= number <= core.kMostReplyType:
        raise OverflowError(f"msg_type must be between 0 and 65535, not {value}")
    return <uint32_t>number


cdef uint32_t as_call_type(object value) except? 0xffffffff:
    cdef uint32_t msg_type = as_msg_type(value)
    if msg_type > core.kMostCallType:
        raise ValueError("msg_type 65535 means a failed call and is for replies; choose another")
    return msg_type


cdef uint64_t as_correlation_id(object value) except? 0:
    cdef int overflow = 0
    if type(value) is not int:
        value = operator.index(value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return number if overflow == 0 and number > 0 else 0  # 0 is nobody's, and nobody gets as far as 2**63


cdef unsigned int as_numa_node(object value) except? 0xffffffff:
    number = operator.index(value)
    if not 0 <= number < 1024:
        raise ValueError(f"NUMA node must be between 0 and 1023, not {number}")
    return number
