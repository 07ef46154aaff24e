# cython: language_level=3, freethreading_compatible=False
"""The bridge between the C++ core and Python: Bus, its guards, and Message."""

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_FULL_RO, PyBUF_WRITABLE,
    PyBuffer_FillInfo, PyBuffer_IsContiguous, PyBuffer_Release, PyBuffer_ToContiguous,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_RawFree
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.math cimport isnan
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.vector cimport vector
from posix.types cimport uid_t

from tachyon cimport _core as core
from tachyon._core cimport Kind, Side, Status
from tachyon._dlpack cimport DLManagedTensor, DLManagedTensorVersioned, unversioned_capsule, versioned_capsule

import operator
import os

from tachyon._errors import (
    BusBusyError, BusClosedError, BusEmptyError, BusFullError, CapacityError, HandshakeError, MessageTooLargeError,
    PeerClosedError, PeerDeadError, TachyonError, TachyonTimeoutError,
)

cdef extern from *:
    """
    #include "tachyon/rpc.hpp"

    #include <new>

    static_assert(sizeof(tachyon::Frame) == 32 && offsetof(tachyon::Frame, position) == 8 &&
                  offsetof(tachyon::Frame, correlation_id) == 16 && offsetof(tachyon::Frame, size) == 24 &&
                  offsetof(tachyon::Frame, type_id) == 28, "Frame in _tachyon.pxd mirrors tachyon::Frame");

    // Null after close(). The nogil methods are public and may be called then.
    static inline tachyon::Bus* tachyon_core(void* bus) { return static_cast<tachyon::Bus*>(bus); }
    """
    core.Bus* tachyon_core(void* bus) noexcept nogil
    const char* TACHYON_VERSION

__version__ = TACHYON_VERSION.decode()
MIN_CAPACITY = core.kMinCapacity
MAX_CAPACITY = core.kMaxCapacity

# Looks at the ring with the GIL held before it is released to wait: 2 … 6 µs, where releasing and taking it costs
# 30 ns.
cdef enum:
    LOOKS_WITH_GIL = 128
    LARGE_COPY = 1 << 16  # bytes; from here on other threads may run during the copy
    GATHER_EVERY = 1_000_000  # ns; how often a caller that waits for room looks for replies meanwhile

# What Bus does is in functions, not methods: _tachyon.pxd shows the methods of Bus to everybody.
include "_support.pxi"
include "_open.pxi"
include "_in_use.pxi"
include "_sending.pxi"
include "_receiving.pxi"
include "_guards.pxi"
include "_nogil.pxi"


# ---- Bus -------------------------------------------------------------------------------------------------------------


cdef object role_of(Bus self):
    cdef core.Stats stats = tachyon_core(self._core).stats()
    if stats.producer == Side.undecided:
        return None
    return "producer" if stats.producer == stats.side else "consumer"


cdef class _Abortable:
    """What Bus has under a name that its C methods have too."""

    def abort(self):
        """Give up: as close(), but the peer learns that what it got is not the whole.

        It reads what was sent, then gets PeerDeadError, whose `reason` is "aborted". Leaving a `with` block by an
        exception does the same. Without effect on a bus that is closed already.
        """
        end(<Bus?>self, core.End.aborted)


cdef class Bus(_Abortable):
    """One direction between two processes. Made by Bus.listen and Bus.connect; a context manager.

    Either side may be the producer: the first send decides. One thread at a time; a second one gets BusBusyError,
    except that close() may come from any thread and ends a wait. Not picklable, not copyable, of no use in a forked
    child.
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("a Bus is made by Bus.listen(path, capacity) or Bus.connect(path)")

    def __dealloc__(self):
        cdef core.Bus* opened = tachyon_core(self._core)
        self._core = NULL
        del opened

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
        cdef string path = as_path(socket_path)
        cdef core.ListenOptions options = listen_options(Kind.bus, capacity, None, timeout, mode)
        cdef core.Bus* opened = NULL
        cdef SetupOutcome outcome
        cdef list raised = []
        cdef core.Interrupt interrupt = interrupted_by_signals(raised)
        with nogil:
            opened = tachyon_listen(outcome, path, options, interrupt)
        if opened == NULL:
            raise setup_failed(&outcome, socket_path, raised)
        return new_bus(opened, socket_path)

    @staticmethod
    def connect(socket_path, *, timeout=0.0, uid=None, max_capacity=1 << 30):
        """Attach to the bus that a listener offers at `socket_path`.

        timeout: 0 tries once; more waits so many seconds for a listener to appear; None waits for ever.
        uid: the user whose listener is trusted; by default our own effective user, or root.
        max_capacity: the most bytes that the listener may have chosen for the ring, a GiB by default; None is any.
        Raises HandshakeError (no listener, refused, …), TachyonTimeoutError (none within a timeout > 0), MemoryError.
        """
        cdef string path = as_path(socket_path)
        cdef core.ConnectOptions options = connect_options(timeout, uid, max_capacity)
        cdef core.Bus* opened = NULL
        cdef SetupOutcome outcome
        cdef list raised = []
        cdef core.Interrupt interrupt = interrupted_by_signals(raised)
        with nogil:
            opened = tachyon_connect(outcome, path, options, interrupt)
        if opened == NULL:
            raise setup_failed(&outcome, socket_path, raised)
        return new_bus(opened, socket_path)

    # -- sending --

    def send(self, data, type_id=0, *, timeout=None):
        """Send the bytes of any buffer (strided ones in C order); wait while the ring is full.

        timeout: seconds to wait for room; None waits as long as the peer lives.
        Raises BusFullError, MessageTooLargeError, PeerClosedError, PeerDeadError, BusBusyError, BusClosedError. After a
        PeerClosedError or PeerDeadError nobody will read this message.
        """
        send_until(self, data, as_type_id(type_id), deadline_after(timeout), True, False)

    def try_send(self, data, type_id=0):
        """Send if there is room now. False if the ring is full. Otherwise as send."""
        return send_until(self, data, as_type_id(type_id), 0, False, False) == 1

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
        cdef bint quietly = isinstance(items, (list, tuple))
        try:
            for item in items:
                item_type = default_type
                data = item
                if isinstance(item, tuple):
                    if len(<tuple>item) != 2:
                        raise ValueError(f"a pair is (buffer, type_id); this tuple has {len(<tuple>item)} items")
                    data = (<tuple>item)[0]
                    item_type = as_type_id((<tuple>item)[1])
                elif type(item) is Message:
                    data = (<Message>item).data
                    item_type = (<Message>item).type_id
                send_until(self, data, item_type, deadline, True, quietly)
                sent += 1
                if sent % 1024 == 0:  # with room enough, nothing else in here looks at signals
                    PyErr_CheckSignals()
        except BusFullError as error:
            error.sent = sent
            raise
        finally:
            if self._core != NULL:
                tachyon_core(self._core).wake_consumer()
        return sent

    def send_zero_copy(self, size, type_id=0, *, timeout=None):
        """Claim room for `size` bytes, to be written in place within a `with` block.

        Returns a TxGuard with a writable buffer. Leaving the block sends the message, cut to `actual_size`; an
        exception in the block gives the room back. One claim at a time: until then nothing else can be sent
        (BusBusyError). Raises as send.
        """
        cdef Origin origin
        as_message(&origin)
        return claim_frame(self, size, as_type_id(type_id), deadline_after(timeout), &origin)

    def wait_read(self, *, timeout=None):
        """Wait until the consumer has let go of everything sent so far: copied it, or left its guards.

        timeout: seconds; None waits as long as the consumer lives. Raises TachyonTimeoutError; PeerClosedError or
        PeerDeadError if the consumer is gone and left something unread; BusBusyError, BusClosedError. The consumer may
        still be at work on what it copied; only an answer, or finish(), tells more.
        """
        await_consumer(self, deadline_after(timeout), False)

    def finish(self, *, timeout=None):
        """End the stream, wait until the consumer has read everything and closed its end, then close ours.

        The consumer sees the end as after close(). Returning means that it left in good order: by close(), or by
        leaving its `with` block without an exception. timeout: seconds; None waits as long as the consumer lives.
        Raises TachyonTimeoutError (the stream has been ended all the same; wait again, or close), PeerClosedError if it
        closed and left something unread, PeerDeadError if it died or aborted, BusBusyError, BusClosedError.
        """
        await_consumer(self, deadline_after(timeout), True)
        end(self, core.End.closed)

    # -- receiving --

    def __iter__(self):
        check_open(self)
        return self

    def __next__(self):
        cdef core.Frame frame
        if next_frame(self, &frame, core.kNever, LOOKS_WITH_GIL, NULL) != <int>Status.ok:
            leave(self)
            raise StopIteration
        return take(self, &frame)

    def recv(self, *, timeout=None):
        """Wait for the next message and return it as a Message with its own bytes.

        timeout: seconds to wait; None waits as long as the peer lives.
        Raises BusEmptyError, PeerClosedError (everything has been read), PeerDeadError, BusBusyError, BusClosedError.
        """
        cdef core.Frame frame
        expect_frame(self, &frame, deadline_after(timeout), LOOKS_WITH_GIL)
        return take(self, &frame)

    def try_recv(self):
        """Return the next message if there is one now, else None. Otherwise as recv."""
        cdef core.Frame frame
        enter(self)
        cdef Status status = tachyon_core(self._core).try_peek(frame)
        if status == Status.ok:
            return take(self, &frame)
        try:
            if status != Status.empty:
                raise_status(self, status, 0)
        finally:
            leave(self)
        return None

    def recv_into(self, buffer, *, timeout=None):
        """Wait for the next message and copy it into a writable, contiguous buffer. Returns (size, type_id).

        A message that does not fit raises MessageTooLargeError and stays the next one. Otherwise as recv.
        """
        cdef Py_buffer view
        cdef core.Frame frame
        cdef uint64_t deadline = deadline_after(timeout)
        get_target(buffer, &view)
        try:
            expect_frame(self, &frame, deadline, LOOKS_WITH_GIL)
            try:
                if frame.size > view.len:
                    tachyon_core(self._core).put_back(frame)
                    raise MessageTooLargeError(
                        f"the next message has {frame.size} bytes, the buffer {view.len}; "
                        "pass a larger one, the message waits"
                    )
                copy_out(<uint8_t*>view.buf, frame.payload, frame.size)
                tachyon_core(self._core).release_and_tell(frame)
            finally:
                leave(self)
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
        return hold_frame(self, deadline_after(timeout), NULL)

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
        cdef size_t limit = min(most, MAX_CAPACITY // 64)
        cdef RxBatchGuard batch = RxBatchGuard.__new__(RxBatchGuard)
        cdef core.Frame frame
        expect_guard(self)
        expect_frame(self, &frame, deadline_after(timeout), min(looks, 1 << 20))
        try:
            batch._frames.push_back(frame)
            batch._frames.reserve(64)
            while batch._frames.size() < limit and tachyon_core(self._core).try_peek(frame) == Status.ok:
                batch._frames.push_back(frame)
            batch._bus = self
            batch._open = True
            self._guards += 1
        except BaseException:  # no memory for the list: all of them stay the next ones
            tachyon_core(self._core).put_back(frame)
            while not batch._frames.empty():
                if batch._frames.back().position != frame.position:
                    tachyon_core(self._core).put_back(batch._frames.back())
                batch._frames.pop_back()
            raise
        finally:
            leave(self)
        return batch

    # -- the rest --

    def flush(self):
        """Make everything done so far visible to the peer now, and wake it. send and the guards do so by themselves."""
        check_open(self)
        enter(self)
        tachyon_core(self._core).wake_consumer()
        tachyon_core(self._core).hand_back()
        leave(self)

    def set_polling_mode(self, pure_spin):
        """True: waits never sleep, for the lowest latency at the price of a core. False: they spin, then sleep."""
        cdef cpp_bool wanted = bool(pure_spin)  # may raise: before enter
        check_open(self)
        enter(self)
        tachyon_core(self._core).set_polling_mode(wanted)
        leave(self)

    def set_numa_node(self, node):
        """Move the ring's memory to a NUMA node. Best before the first message. ValueError if there is none such."""
        cdef unsigned int wanted
        number = operator.index(node)
        if not 0 <= number < 1024:
            raise ValueError(f"NUMA node must be between 0 and 1023, not {number}")
        wanted = number
        check_open(self)
        enter(self)
        cdef int error = tachyon_core(self._core).set_numa_node(wanted)
        leave(self)
        if error == 22:
            raise ValueError(f"this machine has no NUMA node {number}")
        if error != 0:
            raise OSError(error, os.strerror(error))

    def stats(self):
        """Return counters of this side: role, messages, bytes of ring so far, waits that parked, wakes of the peer."""
        check_open(self)
        cdef core.Stats stats = tachyon_core(self._core).stats()
        role = role_of(self)
        return {
            "role": role,
            "messages": stats.messages,
            "position": stats.position,
            "parks": stats.parks,
            "wakes": stats.wakes,
            "spin_budget_ns": stats.spin_budget_ns,
            "capacity": self._capacity,
        }

    @property
    def capacity(self):
        """Bytes of ring, as given to listen."""
        return self._capacity

    @property
    def max_message_size(self):
        """Largest message in bytes: capacity - 16. It goes through whenever the consumer has freed the rest."""
        return self._capacity - 16 if self._capacity else 0

    @property
    def peer_pid(self):
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
        return self._peer_pid

    @property
    def closed(self):
        """True after close(), and in a forked child."""
        if self._core == NULL or self._closing:
            return True
        cdef Status status = tachyon_core(self._core).state()
        return status == Status.closed or status == Status.forked

    def close(self):
        """Tell the peer that nothing more will come, and let go. Idempotent, never waits; allowed from any thread.

        What was sent can still be read by the peer. A wait in another thread ends with BusClosedError. The memory
        stays mapped as long as a guard or a view of one lives; where nogil code was using this bus, as long as the bus.
        """
        end(self, core.End.closed)

    def __enter__(self):
        check_open(self)
        return self

    def __exit__(self, exc_type, exc, traceback):
        end(self, end_of_block(exc))

    def __repr__(self):
        if self.closed:
            return f"<tachyon.Bus {self._path!r} closed>"
        role = role_of(self) or "undecided"
        return f"<tachyon.Bus {self._path!r} {role} capacity={self._capacity} peer_pid={self._peer_pid}>"

    def __reduce__(self):
        raise TypeError("a Bus cannot be pickled or copied: it belongs to one process; open one in each")

    # -- for other Cython code: see _tachyon.pxd and _nogil.pxi --

    cdef int try_claim(self, unsigned long long size, unsigned char** payload) noexcept nogil:
        if not enter_nogil(self):
            return refused_nogil(self)
        cdef Status status = tachyon_core(self._core).try_claim(size, payload[0])
        if status == Status.ok:
            hold(self, 1)
        leave_nogil(self)
        return <int>status

    cdef int commit(self, unsigned int size, unsigned int type_id) noexcept nogil:
        if not enter_nogil(self):
            return let_go_refused(self, 1)
        cdef Status status = tachyon_core(self._core).commit(size, type_id, 0, core.Look.sometimes)
        if is_over(status) and self._held != 0:
            let_go(self, 1)
        leave_nogil(self)
        return <int>status

    cdef int abort(self) noexcept nogil:
        if not enter_nogil(self):
            return let_go_refused(self, 1)
        cdef Status status = tachyon_core(self._core).abort()
        if is_over(status) and self._held != 0:
            let_go(self, 1)
        leave_nogil(self)
        return <int>status

    cdef int wait_writable(self, unsigned long long size, long long timeout_ns) noexcept nogil:
        return wait_once(self, False, size, timeout_ns)

    cdef int try_peek(self, Frame* frame) noexcept nogil:
        if not enter_nogil(self):
            return refused_nogil(self)
        cdef Status status = tachyon_core(self._core).try_peek((<core.Frame*>frame)[0])
        if status == Status.ok:
            hold(self, 1)
        leave_nogil(self)
        return <int>status

    cdef int release(self, const Frame* frame) noexcept nogil:
        if not enter_nogil(self):
            return let_go_refused(self, 1)
        cdef Status status = tachyon_core(self._core).release_checked((<const core.Frame*>frame)[0])
        if is_over(status) and self._held != 0:
            let_go(self, 1)
        leave_nogil(self)
        return <int>status

    cdef int wait_readable(self, long long timeout_ns) noexcept nogil:
        return wait_once(self, True, 0, timeout_ns)

    cdef int raise_for_status(self, int status) except -1:
        if status == <int>Status.ok:
            return 0
        if status == <int>Status.interrupted:
            return PyErr_CheckSignals()
        if status == <int>Status.too_large:  # of what size is not known here
            raise too_large(self, None)
        return raise_status(self, <Status>status, 0)

    cdef int claim(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = Bus.try_claim(self, size, payload)
            if status != <int>Status.full:
                return status
            status = wait_for_room(self, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int try_send_bytes(self, const void* data, unsigned long long size, unsigned int type_id) noexcept nogil:
        if not enter_nogil(self):
            return refused_nogil(self)
        cdef Status status = tachyon_core(self._core).try_send(data, size, type_id, 0, core.Look.sometimes)
        leave_nogil(self)
        return <int>status

    cdef int send_bytes(
        self, const void* data, unsigned long long size, unsigned int type_id, long long timeout_ns
    ) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = Bus.try_send_bytes(self, data, size, type_id)
            if status != <int>Status.full:
                return status
            status = wait_for_room(self, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int peek(self, Frame* frame, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = Bus.try_peek(self, frame)
            if status != <int>Status.empty:
                return status
            status = wait_for_message(self, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int try_drain(self, Frame* frames, size_t most, size_t* count) noexcept nogil:
        count[0] = 0
        if not enter_nogil(self):
            return refused_nogil(self)
        cdef Status status = Status.ok
        cdef size_t found = 0
        while found < most:
            status = tachyon_core(self._core).try_peek((<core.Frame*>&frames[found])[0])
            if status != Status.ok:
                break
            found += 1
        if found != 0:  # what came after them is the next call's
            status = Status.ok
            hold(self, <int>found)
        leave_nogil(self)
        count[0] = found
        return <int>status

    cdef int drain(self, Frame* frames, size_t most, size_t* count, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = Bus.try_drain(self, frames, most, count)
            if status != <int>Status.empty:
                return status
            status = wait_for_message(self, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int release_all(self, const Frame* frames, size_t count) noexcept nogil:
        cdef size_t i
        if not enter_nogil(self):
            return let_go_refused(self, <int>count)
        cdef Status status = Status.ok
        for i in range(count):
            status = tachyon_core(self._core).release_checked((<const core.Frame*>&frames[i])[0])
            if is_over(status) and self._held != 0:
                let_go(self, 1)
            if status == Status.no_claim or status == Status.wrong_side:
                break
        tachyon_core(self._core).hand_back()
        leave_nogil(self)
        return <int>status

    cdef int check(self) noexcept nogil:
        if not enter_nogil(self):
            return check_lent(self) if is_lent_here(self) else refused_nogil(self)
        cdef Status status = tachyon_core(self._core).check()
        leave_nogil(self)
        return <int>status

    cdef void* lend(self, bint producer, unsigned long long layout) except NULL:
        cdef Status status
        cdef core.Producer* its_producer = NULL
        cdef core.Consumer* its_consumer = NULL
        if layout != core.ring_layout():
            raise TachyonError(
                "this module was compiled against the headers of another tachyon than the one that is imported "
                f"(ring layout {layout:#x}, not {core.ring_layout():#x}); rebuild it"
            )
        enter(self)
        if self._guards != 0:
            leave(self)
            raise BusBusyError(
                "a guard of this bus is still open, or a view of one still lives; leave its block and drop the view"
            )
        if producer:
            status = tachyon_core(self._core).lend_producer(its_producer)
        else:
            status = tachyon_core(self._core).lend_consumer(its_consumer)
        if status != Status.ok:
            leave(self)
            raise_status(self, status, 0)
        self._lent_to = tachyon_this_thread()
        tachyon_set(&self._in_use, kLentProducer if producer else kLentConsumer)
        return <void*>its_producer if producer else <void*>its_consumer

    cdef int take_back(self) except -1:
        if self._core == NULL or not is_lent(self):
            raise BusBusyError("the ring of this bus is not lent; borrow it first, and give it back once")
        tachyon_core(self._core).give_back()
        leave(self)
        return 0


include "_rpc.pxi"
include "_exchange.pxi"
include "_loops.pxi"
include "_listener.pxi"
