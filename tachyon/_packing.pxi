# Included by _tachyon.pyx: many messages of a ring as one bytes object, and back into another ring, in place. What a
# bridge to another machine is made of. A record: size and type_id, of an RPC's ring the correlation_id, then the
# payload.

cdef extern from *:
    """
    #include <cstring>

    static tachyon::Status tachyon_commit_quietly(tachyon::Bus& bus, uint32_t size, uint32_t type_id, uint64_t id) {
        return bus.commit<tachyon::Wake::later>(size, type_id, id);
    }
    """
    Status tachyon_commit_quietly(core.Bus& bus, uint32_t size, uint32_t type_id, uint64_t id) noexcept nogil

from libc.string cimport memcpy

cdef enum:
    _MOST_RECORDS = 16384  # of one batch: half a megabyte of frames


# Of an RPC each side reads one ring and writes the other. Both as they are: ids go through, and are matched at the two
# ends.
cdef core.BusHandle* ring_of(object bus, bint source, bint* with_ids) except NULL:
    cdef core.RpcHandle* rpc
    if isinstance(bus, Bus):
        with_ids[0] = False
        check_open(handle_of(<Bus>bus))
        return handle_of(<Bus>bus)
    rpc = rpc_of(<RpcBus?>bus)
    check_opened(rpc)
    with_ids[0] = True
    return &rpc.calls() if source == (rpc.callee() != NULL) else &rpc.replies()


def pack(bus, bytes head not None, Py_ssize_t limit, timeout):
    """Take what the ring holds, up to `limit` bytes of records, and return it behind `head` and its count.

    Returns (sample, count), or None if nothing came within `timeout` seconds. One message is taken even if it is
    larger. Never waits for more than the first. Of an RpcBus: calls of the side that serves, replies of the side
    that calls. Raises as recv.
    """
    cdef bint with_ids = False
    cdef core.BusHandle* handle = ring_of(bus, True, &with_ids)
    cdef Py_ssize_t fixed = 16 if with_ids else 8
    cdef Py_ssize_t total = 0
    cdef PythonWaiting waiting
    cdef core.Frame frame
    cdef vector[core.Frame] frames
    cdef bytes sample = None
    cdef Status status
    waiting.deadline = deadline_after(timeout)
    frames.reserve(16)
    enter(handle)
    status = handle.bus().peek(frame, waiting)
    if status != Status.ok:
        handle.leave()
        if status == Status.empty:
            return None
        raise_status(handle, status)
    try:
        # A few messages are sooner taken than the GIL is given up.
        while True:
            total += fixed + frame.size
            frames.push_back(frame)
            if total >= limit or frames.size() == 64:
                break
            status = handle.bus().try_peek(frame)
            if status != Status.ok:
                break
        if frames.size() == 64:
            with nogil:
                while total < limit and frames.size() < _MOST_RECORDS:
                    if handle.bus().try_peek(frame) != Status.ok:
                        break
                    total += fixed + frame.size
                    frames.push_back(frame)
        sample = PyBytes_FromStringAndSize(NULL, len(head) + 4 + total)
    finally:
        if sample is None:  # no memory: all of them stay the next ones
            while not frames.empty():
                handle.bus().put_back(frames.back())
                frames.pop_back()
            handle.leave()
    count = frames.size()
    pack_frames(handle.bus(), frames, sample, head, with_ids)
    handle.leave()
    return sample, count


cdef int pack_frames(
    core.Bus* bus, vector[core.Frame]& frames, bytes sample, bytes head, bint with_ids
) except -1:
    """Copy and release them."""
    cdef uint8_t* to = <uint8_t*>PyBytes_AS_STRING(sample)
    cdef uint32_t count = <uint32_t>frames.size()
    memcpy(to, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    to += PyBytes_GET_SIZE(head)
    memcpy(to, &count, 4)
    to += 4
    if PyBytes_GET_SIZE(sample) < 4096:
        copy_and_release(bus, &frames[0], count, to, with_ids)
    else:
        with nogil:
            copy_and_release(bus, &frames[0], count, to, with_ids)
    return 0


cdef void copy_and_release(
    core.Bus* bus, const core.Frame* frame, size_t count, uint8_t* to, bint with_ids
) noexcept nogil:
    cdef const core.Frame* end = frame + count
    while frame != end:
        memcpy(to, &frame.size, 4)
        memcpy(to + 4, &frame.type_id, 4)
        to += 8
        if with_ids:
            memcpy(to, &frame.correlation_id, 8)
            to += 8
        memcpy(to, frame.payload, frame.size)
        to += frame.size
        bus.release(frame[0])
        frame += 1
    bus.hand_back()


# What is left of a sample. `length`: of the payload at the offset, once that has been looked at.
cdef struct Records:
    const uint8_t* data
    Py_ssize_t size
    Py_ssize_t offset
    Py_ssize_t left
    Py_ssize_t fixed  # bytes before each payload
    uint32_t length


def unpack(bus, bytes sample not None, Py_ssize_t offset, Py_ssize_t count, timeout):
    """Send `count` records of a sample, from `offset` on; wait up to `timeout` seconds for room.

    Returns (new offset, how many are left). The consumer is woken once. ValueError for a sample that does not have so
    many, or something behind them; what is before the damage has been sent then. Of an RpcBus: replies of the side
    that serves, calls of the other one. Raises as send, but for BusFullError.
    """
    cdef bint with_ids = False
    cdef core.BusHandle* handle = ring_of(bus, False, &with_ids)
    cdef Records records
    cdef PythonWaiting waiting
    cdef Status status
    records.data = <const uint8_t*>PyBytes_AS_STRING(sample)
    records.size = PyBytes_GET_SIZE(sample)
    records.offset = offset
    records.left = count
    records.fixed = 16 if with_ids else 8
    if not 0 <= offset <= records.size:
        raise ValueError(f"an offset of {offset} in a sample of {records.size} bytes")
    waiting.deadline = deadline_after(timeout)
    enter(handle)
    while True:
        if records.size - records.offset < 4096:
            status = send_records(handle.bus(), &records)
        else:
            with nogil:
                status = send_records(handle.bus(), &records)
        if status != Status.full or core.now_ns() >= waiting.deadline:
            break
        status = send_later(handle.bus(), &records, waiting)
        if status != Status.ok:
            break
    handle.leave()
    if status == Status.bad_type:
        raise ValueError(
            f"a sample of {records.size} bytes does not hold the {count} messages it is to have: look at the one at "
            f"{records.offset}"
        )
    if status != Status.ok and status != Status.full:
        raise_status(handle, status, records.length)
    return records.offset, records.left


# ok: all of them; bad_type: a record that is cut off, or bytes behind the last. What was sent is visible, and its
# consumer awake.
cdef Status send_records(core.Bus* bus, Records* records) noexcept nogil:
    cdef uint8_t* payload = NULL
    cdef Status status = Status.ok
    while records.left > 0 and status == Status.ok:
        if records.size - records.offset < records.fixed:
            status = Status.bad_type
            break
        memcpy(&records.length, records.data + records.offset, 4)
        if <Py_ssize_t>records.length > records.size - records.offset - records.fixed:
            status = Status.bad_type
            break
        status = bus.try_claim(records.length, payload)
        if status == Status.ok:
            status = fill_record(bus, payload, records)
    if status == Status.ok and records.offset != records.size:
        status = Status.bad_type
    bus.wake_consumer()
    return status


# Waits for room for the record at the offset, which is known to be whole.
cdef Status send_later(core.Bus* bus, Records* records, PythonWaiting& waiting) noexcept:
    cdef uint8_t* payload = NULL
    cdef Status status = (<core.Outlet*>bus).claim(records.length, payload, waiting)
    if status == Status.ok:
        status = fill_record(bus, payload, records)
        bus.wake_consumer()
    return status


# Copies the record at the offset into what was claimed for it, and goes on to the next.
cdef Status fill_record(core.Bus* bus, uint8_t* payload, Records* records) noexcept nogil:
    cdef const uint8_t* data = records.data + records.offset
    cdef uint32_t type_id
    cdef uint64_t id = 0
    cdef Status status
    memcpy(&type_id, data + 4, 4)
    if records.fixed == 16:
        memcpy(&id, data + 8, 8)
    memcpy(payload, data + records.fixed, records.length)
    status = tachyon_commit_quietly(bus[0], records.length, type_id, id)
    if status == Status.ok:
        records.offset += records.fixed + records.length
        records.left -= 1
    else:
        bus.abort()  # of what is larger than the ring, memory or descriptors may be lacking only now
    return status


def check_peer(bus):
    """Raise as send would if the other end of what unpack() writes to is gone. Never waits."""
    cdef bint with_ids = False
    cdef core.BusHandle* handle = ring_of(bus, False, &with_ids)
    cdef Status status
    enter(handle)
    status = handle.bus().check()
    handle.leave()
    if status != Status.ok:
        raise_status(handle, status)
