# Included by _tachyon.pyx: what recv returns.


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
