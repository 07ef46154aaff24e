# Included by _tachyon.pyx: Bus, one direction.


cdef inline core.BusHandle* handle_of(Bus self) noexcept nogil:
    return <core.BusHandle*>self._handle


cdef Bus new_bus(core.Established* established, object path):
    cdef core.BusHandle* handle = new_handle(established, path)
    cdef Bus bus
    try:
        bus = Bus.__new__(Bus)
    except BaseException:  # no memory
        del handle
        raise
    bus._handle = handle
    return bus


cdef class _Abortable:
    """What Bus has under a name that its C methods have too."""

    def abort(self):
        """Give up: as close(), but the peer learns that what it got is not the whole.

        It reads what was sent, then gets PeerDeadError, whose `reason` is "aborted". Leaving a `with` block by an
        exception does the same. Without effect on a bus that is closed already.
        """
        handle_of(<Bus?>self).close(core.End.aborted)


cdef class Bus(_Abortable):
    """One direction between two processes. Made by Bus.listen and Bus.connect; a context manager.

    Either side may be the producer: the first send decides. One thread at a time; a second one gets BusBusyError,
    except that close() may come from any thread and ends a wait. Not picklable, not copyable, of no use in a forked
    child.
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("a Bus is made by Bus.listen(path, capacity) or Bus.connect(path)")

    def __cinit__(self):
        self._handle = core.BusHandle.never_opened()

    def __dealloc__(self):
        cdef core.BusHandle* handle = handle_of(self)
        self._handle = core.BusHandle.never_opened()
        if handle != self._handle:
            del handle

    @staticmethod
    def listen(socket_path, capacity, *, timeout=None, mode=_OWNER_ONLY):
        """Create a ring of `capacity` bytes and wait until one peer has connected to `socket_path`.

        capacity: power of two, 64 bytes … 4 GiB; the memory is reserved before anybody is let in.
        timeout: seconds to wait for the peer; None waits for ever.
        mode: permissions of the socket file; with any bit for group or others, other users than ours (and root) are
        let in.

        The file is gone when this returns or raises. Whatever else stands at the path is left alone; a socket that
        nobody listens on is replaced. Clients that say nothing, or the wrong thing, are dropped without harm.
        Raises CapacityError, MemoryError, HandshakeError, TachyonTimeoutError.
        """
        return new_bus(listen_at(socket_path, listen_options(Kind.bus, capacity, None, timeout, mode)), socket_path)

    @staticmethod
    def connect(socket_path, *, timeout=0.0, uid=None, max_capacity=1 << 30):
        """Attach to the bus that a listener offers at `socket_path`.

        timeout: 0 tries once; more waits so many seconds for a listener to appear; None waits for ever.
        uid: the user whose listener is trusted; by default our own effective user, or root.
        max_capacity: the most bytes that the listener may have chosen for the ring, a GiB by default; None is any.
        Raises HandshakeError (no listener, refused, …), TachyonTimeoutError (none within a timeout > 0), MemoryError.
        """
        return new_bus(connect_to(socket_path, connect_options(Kind.bus, timeout, uid, max_capacity)), socket_path)

    # -- sending --

    def send(self, data, type_id=0, *, timeout=None):
        """Send the bytes of any buffer (strided ones in C order); wait while the ring is full.

        timeout: seconds to wait for room; None waits as long as the peer lives.
        Raises BusFullError, MessageTooLargeError, PeerClosedError, PeerDeadError, BusBusyError, BusClosedError. After a
        PeerClosedError or PeerDeadError nobody will read this message.
        """
        send_message(handle_of(self), data, as_type_id(type_id), deadline_after(timeout))

    def try_send(self, data, type_id=0):
        """Send if there is room now. False if the ring is full. Otherwise as send."""
        return send_message(handle_of(self), data, as_type_id(type_id), 0)

    def send_many(self, items, type_id=0, *, timeout=None):
        """Send each item of an iterable: a buffer, a (buffer, type_id) pair, or a Message. Returns how many were sent.

        A consumer that sleeps is woken once for all items of a list or tuple, at the end or when the ring is full;
        other iterables may take their time, so for them it is woken for each. One that polls sees each message at once.
        `timeout` (seconds) is for all of them together; BusFullError.sent tells how many went out before it ran out.
        Raises as send.
        """
        cdef uint32_t default_type = as_type_id(type_id), item_type
        cdef uint64_t deadline = deadline_after(timeout)
        cdef Py_ssize_t sent = 0
        cdef Way way
        to_bus(&way, handle_of(self))
        if isinstance(items, (list, tuple)) and way.handle.bus() != NULL:
            way.handle.open_guard()  # the batch looks at the ring at its end, whatever becomes of the bus meanwhile
            way.batch = new core.Batch(way.handle.bus()[0])
        try:
            for item in items:
                item_type = default_type
                send_item(&way, data_of_item(item, &item_type), item_type, deadline)
                sent += 1
                if sent % 1024 == 0:  # with room enough, nothing else in here looks at signals
                    PyErr_CheckSignals()
        except BusFullError as error:
            error.sent = sent
            raise
        finally:
            if way.batch != NULL:
                del way.batch
                way.handle.end_guard()
        return sent

    def send_zero_copy(self, size, type_id=0, *, timeout=None):
        """Claim room for `size` bytes, to be written in place within a `with` block.

        Returns a TxGuard with a writable buffer. Leaving the block sends the message, cut to `actual_size`; an
        exception in the block gives the room back. One claim at a time: until then nothing else can be sent
        (BusBusyError). Raises as send.
        """
        cdef uint32_t kind = as_type_id(type_id)
        cdef core.BusHandle* handle = handle_of(self)
        cdef uint64_t wanted = as_size(handle, size), deadline = deadline_after(timeout)
        cdef TxGuard guard = new_tx_guard(self, handle, kind)
        enter(handle)
        try:
            return claim_for(guard, handle.bus(), wanted, deadline)
        finally:
            handle.leave()

    def wait_read(self, *, timeout=None):
        """Wait until the consumer has let go of everything sent so far: copied it, or left its guards.

        timeout: seconds; None waits as long as the consumer lives. Raises TachyonTimeoutError; PeerClosedError or
        PeerDeadError if the consumer is gone and left something unread; BusBusyError, BusClosedError. The consumer may
        still be at work on what it copied; only an answer, or finish(), tells more.
        """
        await_consumer(handle_of(self), deadline_after(timeout), False)

    def finish(self, *, timeout=None):
        """End the stream, wait until the consumer has read everything and closed its end, then close ours.

        The consumer sees the end as after close(). Returning means that it left in good order: by close(), or by
        leaving its `with` block without an exception. timeout: seconds; None waits as long as the consumer lives.
        Raises TachyonTimeoutError (the stream has been ended all the same; wait again, or close), PeerClosedError if it
        closed and left something unread, PeerDeadError if it died or aborted, BusBusyError, BusClosedError.
        """
        await_consumer(handle_of(self), deadline_after(timeout), True)
        handle_of(self).close(core.End.closed)

    # -- receiving --

    def __iter__(self):
        check_open(handle_of(self))
        return self

    def __next__(self):
        cdef core.Frame frame
        if next_message(handle_of(self), &frame, core.kNever) != <int>Status.ok:
            raise StopIteration
        return take(handle_of(self), &frame)

    def recv(self, *, timeout=None):
        """Wait for the next message and return it as a Message with its own bytes.

        timeout: seconds to wait; None waits as long as the peer lives.
        Raises BusEmptyError, PeerClosedError (everything has been read), PeerDeadError, BusBusyError, BusClosedError.
        """
        cdef core.Frame frame
        expect_message(handle_of(self), &frame, deadline_after(timeout))
        return take(handle_of(self), &frame)

    def try_recv(self):
        """Return the next message if there is one now, else None. Otherwise as recv."""
        return try_take(handle_of(self))

    def recv_into(self, buffer, *, timeout=None):
        """Wait for the next message and copy it into a writable, contiguous buffer. Returns (size, type_id).

        A message that does not fit raises MessageTooLargeError and stays the next one. Otherwise as recv.
        """
        cdef Py_buffer view
        cdef core.Frame frame
        cdef uint64_t deadline = deadline_after(timeout)
        cdef core.BusHandle* handle = handle_of(self)
        get_target(buffer, &view)
        try:
            expect_message(handle, &frame, deadline)
            if frame.size > view.len:
                handle.bus().put_back(frame)
                handle.leave()
                raise MessageTooLargeError(
                    f"the next message has {frame.size} bytes, the buffer {view.len}; "
                    "pass a larger one, the message waits"
                )
            copy_out(<uint8_t*>view.buf, &frame)
            handle.bus().let_go(frame)
            handle.leave()
        finally:
            PyBuffer_Release(&view)
        return frame.size, frame.type_id

    def recv_zero_copy(self, *, timeout=None):
        """Wait for the next message and return it in place, as an RxGuard with a read-only buffer, for a `with` block.

        Leaving the block, or release(), frees the frame. Several may be held at once, as many as the ring holds, and
        let go of in any order and by any thread; the producer gets the room back in order, behind the oldest that is
        held. Who holds all that the ring can hold and waits for more waits for one of them to be let go of. Raises as
        recv.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        cdef RxGuard guard = new_rx_guard(self, handle_of(self))
        enter(guard._handle)
        return receive_into(guard, guard._handle.bus(), deadline)

    def drain_batch(self, max_msgs=1024, spin_threshold=10000, *, timeout=None):
        """Wait for a message, then take up to `max_msgs` in place, as an RxBatchGuard for a `with` block.

        spin_threshold: looks at the ring before the thread is put to sleep. timeout: seconds to wait for the first
        message.
        Leaving the block frees all of them. Raises as recv.
        """
        most = operator.index(max_msgs)
        if most < 1:
            raise ValueError(f"max_msgs must be at least 1, not {most}")
        looks = operator.index(spin_threshold)
        if looks < 0:
            raise ValueError(f"spin_threshold must not be negative: {looks}")
        return drain(self, handle_of(self), min(most, MAX_CAPACITY // 64), min(looks, 1 << 20), deadline_after(timeout))

    # -- in a loop --

    def fileno(self):
        """Return a descriptor for select, epoll, Qt, GLib and their like, for reading; take it out before close()."""
        return descriptor_of(handle_of(self))

    def arm(self, for_writing=False):
        """Before you wait for fileno(): ask the peer to ring. False: do not wait, something may be there already.

        A round: try; if there was nothing, arm; if that is True, wait until fileno() is readable, and disarm. It may
        ring for nothing, and rings at the peer's end. for_writing: for what the last try_send, or wait_read or finish
        with a timeout, lacked. Raises BusBusyError, BusClosedError, HandshakeError (no free descriptor).
        """
        return arm(handle_of(self), bool(for_writing))

    def disarm(self):
        """Once fileno() is readable: silence it; then try. False: the peer is gone, and nothing silences it now."""
        return disarm(handle_of(self))

    # -- the rest --

    def flush(self):
        """Make everything done so far visible to the peer now, and wake it. send and the guards do so by themselves."""
        cdef core.BusHandle* handle = handle_of(self)
        check_open(handle)
        enter(handle)
        handle.bus().wake_consumer()
        handle.bus().hand_back()
        handle.leave()

    def set_polling_mode(self, pure_spin):
        """True: waits never sleep, for the lowest latency at the price of a core. False: they spin, then sleep."""
        set_polling_mode(handle_of(self), bool(pure_spin))

    def set_numa_node(self, node):
        """Move the ring's memory to a NUMA node. Best before the first message. ValueError if there is none such."""
        set_numa_node(handle_of(self), as_numa_node(node))

    def stats(self):
        """Return counters of this side: role, messages, bytes of ring so far, waits that parked, wakes of the peer."""
        return stats_of(handle_of(self))

    @property
    def capacity(self):
        """Bytes of ring, as given to listen."""
        return handle_of(self).capacity()

    @property
    def max_message_size(self):
        """Largest message in bytes: capacity - 16. It goes through whenever the consumer has freed the rest."""
        return most_bytes(handle_of(self))

    @property
    def peer_pid(self):
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
        return handle_of(self).peer_pid()

    @property
    def closed(self):
        """True after close(), and in a forked child."""
        return handle_of(self).state() != Status.ok

    def close(self):
        """Tell the peer that nothing more will come, and let go. Idempotent, never waits; allowed from any thread.

        What was sent can still be read by the peer. A wait in another thread ends with BusClosedError. The memory
        stays mapped as long as a guard or a view of one lives; where nogil code was using this bus, as long as the bus.
        """
        handle_of(self).close(core.End.closed)

    def __enter__(self):
        check_open(handle_of(self))
        return self

    def __exit__(self, exc_type, exc, traceback):
        handle_of(self).close(end_of_block(exc))

    def __repr__(self):
        cdef core.BusHandle* handle = handle_of(self)
        if handle.state() != Status.ok:
            return f"<tachyon.Bus {path_of(handle)!r} closed>"
        role = role_of(handle.bus()) or "undecided"
        return f"<tachyon.Bus {path_of(handle)!r} {role} capacity={handle.capacity()} peer_pid={handle.peer_pid()}>"

    def __reduce__(self):
        raise TypeError("a Bus cannot be pickled or copied: it belongs to one process; open one in each")

    # -- for other Cython code: see _tachyon.pxd --

    cdef int try_claim(self, unsigned long long size, unsigned char** payload) noexcept nogil:
        return <int>handle_of(self).try_claim(size, payload[0])

    cdef int commit(self, unsigned int size, unsigned int type_id) noexcept nogil:
        return <int>handle_of(self).commit(size, type_id)

    cdef int abort(self) noexcept nogil:
        return <int>handle_of(self).abort()

    cdef int wait_writable(self, unsigned long long size, long long timeout_ns) noexcept nogil:
        return <int>handle_of(self).wait_writable(size, tachyon_deadline(timeout_ns))

    cdef int try_peek(self, Frame* frame) noexcept nogil:
        return <int>handle_of(self).try_peek((<core.Frame*>frame)[0])

    cdef int release(self, const Frame* frame) noexcept nogil:
        return <int>handle_of(self).release((<const core.Frame*>frame)[0])

    cdef int wait_readable(self, long long timeout_ns) noexcept nogil:
        return <int>handle_of(self).wait_readable(tachyon_deadline(timeout_ns))

    cdef int raise_for_status(self, int status) except -1:
        if status == <int>Status.ok:
            return 0
        if status == <int>Status.interrupted:
            return PyErr_CheckSignals()
        return raise_status(handle_of(self), <Status>status)

    cdef int claim(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil:
        return free_status(handle_of(self).claim(size, payload[0], tachyon_free_waiting(timeout_ns)))

    cdef int try_send_bytes(self, const void* data, unsigned long long size, unsigned int type_id) noexcept nogil:
        return <int>handle_of(self).try_send(data, size, type_id)

    cdef int send_bytes(
        self, const void* data, unsigned long long size, unsigned int type_id, long long timeout_ns
    ) except -1 nogil:
        cdef Status status = handle_of(self).try_send(data, size, type_id)
        if status != Status.full:
            return <int>status
        return free_status(handle_of(self).send(data, size, type_id, tachyon_free_waiting(timeout_ns)))

    cdef int peek(self, Frame* frame, long long timeout_ns) except -1 nogil:
        cdef Status status = handle_of(self).try_peek((<core.Frame*>frame)[0])
        if status != Status.empty:
            return <int>status
        return free_status(handle_of(self).peek((<core.Frame*>frame)[0], tachyon_free_waiting(timeout_ns)))

    cdef int try_drain(self, Frame* frames, size_t most, size_t* count) noexcept nogil:
        return <int>handle_of(self).try_drain(<core.Frame*>frames, most, count[0])

    cdef int drain(self, Frame* frames, size_t most, size_t* count, long long timeout_ns) except -1 nogil:
        cdef Status status = handle_of(self).try_drain(<core.Frame*>frames, most, count[0])
        if status != Status.empty:
            return <int>status
        return free_status(
            handle_of(self).drain(<core.Frame*>frames, most, count[0], tachyon_free_waiting(timeout_ns))
        )

    cdef int release_all(self, const Frame* frames, size_t count) noexcept nogil:
        return <int>handle_of(self).release_all(<const core.Frame*>frames, count)

    cdef int check(self) noexcept nogil:
        return <int>handle_of(self).check()

    cdef void* lend(self, bint producer, unsigned long long layout) except NULL:
        return lend_ring(handle_of(self), producer, layout)

    cdef int take_back(self) except -1:
        if handle_of(self).take_back() != Status.ok:
            raise BusBusyError("the ring of this bus is not lent; borrow it first, and give it back once")
        return 0
