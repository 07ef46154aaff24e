# Included by _tachyon.pyx: objects through a Bus. What they are as bytes, and by which codec, is _objects.py's.


from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from libc.stdint cimport uintptr_t

from tachyon._errors import CodecError
from tachyon._objects import codec_of


# Copies the parts of a message into the room for it; long ones without the GIL: the open guard keeps others out.
cdef int fill(TxGuard guard, list parts) except -1:
    cdef Py_buffer view
    cdef Py_ssize_t offset
    for offset, part in parts:
        PyObject_GetBuffer(part, &view, PyBUF_SIMPLE)
        if view.len < <Py_ssize_t>core.kLargeCopy:
            if view.len != 0:  # nothing may have no address
                memcpy(guard._payload + offset, view.buf, view.len)
        else:
            with nogil:
                memcpy(guard._payload + offset, view.buf, view.len)
        PyBuffer_Release(&view)
    return 0


# True: sent. False: no room, and deadline is 0.
cdef bint send_packed(_BusObjects bus, object packed, uint32_t type_id, uint64_t deadline) except -1:
    cdef core.BusHandle* handle = handle_of(<Bus?>bus)
    cdef TxGuard guard
    if PyBytes_CheckExact(packed):
        return send_message(handle, packed, type_id, deadline)
    try:
        guard = new_tx_guard(bus, handle, type_id)
        enter(handle)
        try:
            claim_for(guard, handle.bus(), as_size(handle, packed.size), deadline)
        finally:
            handle.leave()
        with guard:
            fill(guard, packed.parts)
    except BusFullError:
        if deadline != 0:
            raise
        return False
    return True


# As take, into memory that may be written to, of which byte 48 lies on a line: there a message has its first buffer.
cdef object take_own(core.BusHandle* handle, core.Frame* frame):
    cdef bytearray memory = None
    cdef Py_ssize_t shift = 0
    try:
        memory = PyByteArray_FromStringAndSize(NULL, <Py_ssize_t>frame.size + 63)
        shift = (16 - <uintptr_t>PyByteArray_AS_STRING(memory)) & 63
        copy_out(<uint8_t*>PyByteArray_AS_STRING(memory) + shift, frame)
    finally:
        if memory is None:
            handle.bus().put_back(frame[0])
        else:
            handle.bus().let_go(frame[0])
        handle.leave()
    return memoryview(memory)[shift:shift + <Py_ssize_t>frame.size]


cdef object receive_object(_BusObjects bus, object codec, object decode, bint own, uint64_t deadline):
    cdef core.BusHandle* handle = handle_of(<Bus?>bus)
    cdef core.Frame frame
    expect_message(handle, &frame, deadline)
    data = take_own(handle, &frame) if own else take(handle, &frame).data
    try:
        return codec.unpack(data, decode)
    except (CodecError, MemoryError) as error:
        try:
            error.message = new_message(frame.type_id, bytes(data))
        except MemoryError:
            pass  # as before
        raise


cdef class _BusObjects(_BusBell):
    """What Bus does with objects."""

    def send_obj(self, o, type_id=0, *, codec=None, allow_pickle=False, timeout=None):
        """Encode an object and send it; wait while the ring is full.

        codec: msgspec's MessagePack unless told otherwise; a Codec, a pair (encode, decode). allow_pickle: pickle it.
        The message names the codec; recv_obj on the other side reads with the same one. When this returns, nothing
        refers to `o` or its memory any more. Raises what the codec raises for an object that it cannot encode,
        ImportError without msgspec and codec, and as send.
        """
        send_packed(self, codec_of(codec, allow_pickle).pack(o), as_type_id(type_id), deadline_after(timeout))

    def try_send_obj(self, o, type_id=0, *, codec=None, allow_pickle=False):
        """Send an object if there is room now. False if the ring is full. Otherwise as send_obj."""
        return send_packed(self, codec_of(codec, allow_pickle).pack(o), as_type_id(type_id), 0)

    def recv_obj(self, *, type=None, codec=None, allow_pickle=False, timeout=None):
        """Wait for the next message and return the object in it, which has memory of its own.

        type: what it has to be, for codecs that know types: a msgspec.Struct, a dataclass, list[int]; None: anything;
        msgspec checks it and makes it. codec, allow_pickle: as send_obj. Unpickling runs whatever code the sender put
        there: allow_pickle only for a sender that you trust like yourself.
        Raises CodecError if the message is no object, was written by another codec, or cannot be decoded to `type`;
        it has been taken then, and is the error's `message`. So it is of a MemoryError while it was being decoded, if
        there was enough for a copy. Otherwise as recv.
        """
        chosen = codec_of(codec, allow_pickle)
        return receive_object(self, chosen, chosen.decoder(type), bool(allow_pickle), deadline_after(timeout))

    def try_recv_obj(self, default=None, *, type=None, codec=None, allow_pickle=False):
        """Return the object in the next message if there is one now, else `default`. Otherwise as recv_obj."""
        chosen = codec_of(codec, allow_pickle)
        decode = chosen.decoder(type)
        try:
            return receive_object(self, chosen, decode, bool(allow_pickle), 0)
        except BusEmptyError:
            return default

    def objects(self, *, type=None, codec=None, allow_pickle=False):
        """Iterate over the objects that come: `for o in bus.objects()`. Ends when the producer closes.

        Arguments and errors as recv_obj; after a CodecError the same iterator goes on with the next message.
        """
        cdef _ObjectIterator objects = _ObjectIterator.__new__(_ObjectIterator)
        check_open(handle_of(<Bus?>self))
        objects._codec = codec_of(codec, allow_pickle)
        objects._decode = objects._codec.decoder(type)
        objects._own = bool(allow_pickle)
        objects._bus = self
        return objects


@cython.final
cdef class _ObjectIterator:
    """What Bus.objects returns."""

    cdef _BusObjects _bus
    cdef object _codec
    cdef object _decode
    cdef bint _own

    def __init__(self, *args, **kwargs):
        raise TypeError("made by Bus.objects()")

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return receive_object(self._bus, self._codec, self._decode, self._own, core.kNever)
        except PeerClosedError:
            raise StopIteration from None
