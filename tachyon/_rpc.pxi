# Included by _tachyon.pyx: RpcBus, two rings that answer each other.


cdef RpcBus new_rpc_bus(core.Established* established, object path, bint calls):
    cdef core.RpcHandle* handle = new_rpc_handle(established, path, calls)
    cdef RpcBus bus
    try:
        bus = RpcBus.__new__(RpcBus)
    except BaseException:  # no memory
        del handle
        raise
    bus._handle = handle
    return bus


cdef class RpcBus(_RpcArrays):
    """Calls and replies between two processes. The listener serves, the connector calls. A context manager.

    Any number of calls (up to 65,536) may be in flight, and be waited for in any order. A reply that comes before it
    is waited for is set aside; of those, more than 64 MiB are not kept: the oldest are dropped, and counted in
    stats(). One thread at a time may call, and one may wait, on the caller's side; one may serve, and one may reply,
    on the callee's. A second one gets BusBusyError. close() may come from any thread. Not picklable, not copyable, of
    no use in a forked child.
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("an RpcBus is made by RpcBus.listen(path, cap_fwd, cap_rev) or RpcBus.connect(path)")

    def __cinit__(self):
        self._handle = core.RpcHandle.never_opened()

    def __dealloc__(self):
        cdef core.RpcHandle* handle = rpc_of(self)
        self._handle = core.RpcHandle.never_opened()
        if handle != self._handle:
            del handle

    @staticmethod
    def listen(
        socket_path, cap_fwd=1 << 20, cap_rev=1 << 20, *, timeout=None, mode=_OWNER_ONLY, max_large=1 << 30
    ):
        """Create rings of `cap_fwd` bytes for calls and `cap_rev` for replies, and wait until a caller has connected.

        Everything else as Bus.listen. If a plain Bus connects, both sides get a HandshakeError.
        """
        cdef core.Established* established = listen_at(
            socket_path, listen_options(Kind.rpc, (cap_fwd, cap_rev), timeout, mode, max_large)
        )
        return new_rpc_bus(established, socket_path, False)

    @staticmethod
    def connect(socket_path, *, timeout=0.0, uid=None, max_capacity=1 << 30, max_large=1 << 30):
        """Attach to the callee that listens at `socket_path`. As Bus.connect; max_capacity and max_large are for each
        ring."""
        cdef core.Established* established = connect_to(
            socket_path, connect_options(Kind.rpc, timeout, uid, max_capacity, max_large)
        )
        return new_rpc_bus(established, socket_path, True)

    # -- the caller --

    def call(self, data, msg_type, *, timeout=None):
        """Send a request, the bytes of any buffer, and return its id, for wait().

        Waits while the ring is full (replies that arrive meanwhile are set aside). msg_type: 0 … 65534.
        Raises BusFullError, MessageTooLargeError, PeerClosedError, PeerDeadError, BusBusyError, BusClosedError.
        """
        cdef uint32_t kind = as_call_type(msg_type)
        need_caller(rpc_of(self), "call")
        return send_call(rpc_of(self), data, kind, deadline_after(timeout))

    def call_zero_copy(self, size, msg_type, *, timeout=None):
        """Claim room for a request, to be written in place: a TxGuard that knows its `correlation_id`."""
        cdef uint32_t kind = as_call_type(msg_type)
        cdef core.RpcHandle* rpc = rpc_of(self)
        need_caller(rpc, "call_zero_copy")
        return claim_request(self, as_size(&rpc.calls(), size), kind, deadline_after(timeout))

    def wait(self, correlation_id, *, timeout=None):
        """Wait for the reply to a call and return it in place, as an RxGuard for a `with` block.

        Its type_id is the reply's msg_type. A reply can be had once. ValueError for an id that was never issued, is
        answered already, was cancelled, or whose reply was dropped. BusEmptyError when the timeout (seconds) runs
        out: wait again, or cancel. PeerClosedError, PeerDeadError: it will never come. BusBusyError, BusClosedError.
        The callee gets no room back behind the oldest reply that is held: leave one before you wait for many.
        """
        cdef core.RpcHandle* rpc = rpc_of(self)
        cdef uint64_t deadline = deadline_after(timeout)
        need_caller(rpc, "wait")
        cdef uint64_t id = as_correlation_id(correlation_id)
        cdef RxGuard guard = new_rx_guard(self, &rpc.replies())
        guard._rpc = rpc
        enter(guard._handle)
        return receive_into(guard, rpc.reply_to(id), deadline)

    def cancel(self, correlation_id):
        """Give up a call: its reply will be dropped when it comes. False if there is nothing to give up."""
        cdef core.RpcHandle* rpc = rpc_of(self)
        need_caller(rpc, "cancel")
        if in_use_by_nogil(rpc):
            raise BusBusyError("this RpcBus is in use by nogil code in another thread")
        return rpc.caller().cancel(as_correlation_id(correlation_id))

    # -- the callee --

    def serve(self, *, timeout=None):
        """Wait for the next call and return it in place: an RxGuard with `correlation_id` and `type_id`, its msg_type.

        Leave its block before you reply. Raises BusEmptyError, PeerClosedError, PeerDeadError, BusBusyError,
        BusClosedError.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        need_callee(rpc_of(self), "serve")
        return receive_call(self, deadline)

    def reply(self, correlation_id, data, msg_type=0, *, timeout=None):
        """Answer a call, once, with the bytes of any buffer. In any order. ValueError if there is no such call to
        answer.

        Otherwise as Bus.send.
        """
        cdef uint32_t kind = as_msg_type(msg_type)
        need_callee(rpc_of(self), "reply")
        cdef uint64_t id = answerable(rpc_of(self), correlation_id)
        send_answer(rpc_of(self), id, data, kind, deadline_after(timeout))

    def reply_zero_copy(self, correlation_id, size, msg_type=0, *, timeout=None):
        """Claim room for an answer of `size` bytes, to be written in place: a TxGuard."""
        cdef uint32_t kind = as_msg_type(msg_type)
        cdef core.RpcHandle* rpc = rpc_of(self)
        need_callee(rpc, "reply_zero_copy")
        cdef uint64_t wanted = as_size(&rpc.replies(), size), deadline = deadline_after(timeout)
        return claim_answer(self, answerable(rpc, correlation_id), wanted, kind, deadline)

    # -- either --

    def fileno(self):
        """As Bus.fileno, for both rings."""
        return descriptor_of(&rpc_of(self).calls())

    def arm(self, for_writing=False):
        """As Bus.arm, for replies (a caller) or calls (a callee), or for room. Look for both if both are armed. A
        caller that waits for room waits for replies too, and takes them: its callee may need room for them."""
        check_opened(rpc_of(self))
        cdef bint for_room = bool(for_writing)
        cdef bint calls = for_room == (rpc_of(self).caller() != NULL)
        return arm(&rpc_of(self).calls() if calls else &rpc_of(self).replies(), for_room)

    def disarm(self):
        """As Bus.disarm."""
        check_opened(rpc_of(self))
        disarm(&rpc_of(self).calls())
        return disarm(&rpc_of(self).replies())

    def set_polling_mode(self, pure_spin):
        """As Bus.set_polling_mode, for both rings."""
        cdef cpp_bool wanted = bool(pure_spin)
        check_opened(rpc_of(self))
        set_polling_mode(&rpc_of(self).calls(), wanted)
        set_polling_mode(&rpc_of(self).replies(), wanted)

    def set_numa_node(self, node):
        """As Bus.set_numa_node, for both rings."""
        cdef unsigned int wanted = as_numa_node(node)
        check_opened(rpc_of(self))
        set_numa_node(&rpc_of(self).calls(), wanted)
        set_numa_node(&rpc_of(self).replies(), wanted)

    def stats(self):
        """Return counters: role, those of both rings, and, for a caller, calls in flight, replies set aside and
        dropped."""
        cdef core.RpcHandle* rpc = rpc_of(self)
        cdef core.Caller* caller = rpc.caller()
        check_opened(rpc)
        calls, replies = stats_of(&rpc.calls()), stats_of(&rpc.replies())
        result = {"role": "callee" if caller == NULL else "caller", "calls": calls, "replies": replies}
        if caller != NULL:
            result |= {
                "in_flight": caller.in_flight(), "set_aside": caller.count_aside(), "dropped": caller.dropped(),
            }
        return result

    @property
    def max_request_size(self):
        """Largest request in bytes that goes through its ring."""
        return most_bytes(&rpc_of(self).calls())

    @property
    def max_reply_size(self):
        """Largest reply in bytes that goes through its ring."""
        return most_bytes(&rpc_of(self).replies())

    @property
    def max_large_size(self):
        """Largest request, or reply, in bytes at all: as Bus.max_large_size, of the smaller ring."""
        return min(rpc_of(self).calls().max_large_size(), rpc_of(self).replies().max_large_size())

    @property
    def peer_pid(self):
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
        return rpc_of(self).calls().peer_pid()

    @property
    def closed(self):
        """True after close(), and in a forked child."""
        return rpc_of(self).calls().state() != Status.ok

    def close(self):
        """Close both rings. Idempotent, never waits; allowed from any thread, and ends its waits with
        BusClosedError."""
        rpc_of(self).close(core.End.closed)

    def abort(self):
        """Give up: as close(), but the peer gets PeerDeadError, whose `reason` is "aborted". So does leaving a `with`
        block by an exception."""
        rpc_of(self).close(core.End.aborted)

    def __enter__(self):
        check_opened(rpc_of(self))
        return self

    def __exit__(self, exc_type, exc, traceback):
        rpc_of(self).close(end_of_block(exc))

    def __repr__(self):
        cdef core.BusHandle* calls = &rpc_of(self).calls()
        path = path_of(calls)
        if calls.state() != Status.ok:
            return f"<tachyon.RpcBus {path!r} closed>"
        role = "caller" if rpc_of(self).caller() != NULL else "callee"
        return f"<tachyon.RpcBus {path!r} {role} peer_pid={calls.peer_pid()}>"

    def __reduce__(self):
        raise TypeError("an RpcBus cannot be pickled or copied: it belongs to one process; open one in each")

    # -- for other Cython code: see _tachyon.pxd --

    cdef int try_claim_call(self, unsigned long long size, unsigned char** payload) noexcept nogil:
        return <int>rpc_of(self).claim_call(size, payload[0], tachyon_free_waiting(0))

    cdef int claim_call(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil:
        return free_status(rpc_of(self).claim_call(size, payload[0], tachyon_free_waiting(timeout_ns)))

    cdef int commit_call(
        self, unsigned int size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil:
        return <int>rpc_of(self).commit_call(size, msg_type, (<uint64_t*>correlation_id)[0])

    cdef int abort_call(self) noexcept nogil:
        return <int>rpc_of(self).abort_call()

    cdef int try_call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil:
        return <int>rpc_of(self).call(data, size, msg_type, (<uint64_t*>correlation_id)[0], tachyon_free_waiting(0))

    cdef int call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id,
        long long timeout_ns
    ) except -1 nogil:
        return free_status(
            rpc_of(self).call(data, size, msg_type, (<uint64_t*>correlation_id)[0], tachyon_free_waiting(timeout_ns))
        )

    cdef int try_peek_reply(self, unsigned long long correlation_id, Frame* frame) noexcept nogil:
        return <int>rpc_of(self).peek_reply(correlation_id, (<core.Frame*>frame)[0], tachyon_free_waiting(0))

    cdef int peek_reply(self, unsigned long long correlation_id, Frame* frame, long long timeout_ns) except -1 nogil:
        return free_status(
            rpc_of(self).peek_reply(correlation_id, (<core.Frame*>frame)[0], tachyon_free_waiting(timeout_ns))
        )

    cdef int release_reply(self, const Frame* frame) noexcept nogil:
        return <int>rpc_of(self).release_reply((<const core.Frame*>frame)[0])

    cdef int cancel_call(self, unsigned long long correlation_id) noexcept nogil:
        return <int>rpc_of(self).cancel(correlation_id)

    cdef int try_peek_call(self, Frame* frame) noexcept nogil:
        return <int>rpc_of(self).peek_call((<core.Frame*>frame)[0], tachyon_free_waiting(0))

    cdef int peek_call(self, Frame* frame, long long timeout_ns) except -1 nogil:
        return free_status(rpc_of(self).peek_call((<core.Frame*>frame)[0], tachyon_free_waiting(timeout_ns)))

    cdef int release_call(self, const Frame* frame) noexcept nogil:
        return <int>rpc_of(self).release_call((<const core.Frame*>frame)[0])

    cdef int try_claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload
    ) noexcept nogil:
        return <int>rpc_of(self).claim_reply(correlation_id, size, payload[0], tachyon_free_waiting(0))

    cdef int claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload, long long timeout_ns
    ) except -1 nogil:
        return free_status(
            rpc_of(self).claim_reply(correlation_id, size, payload[0], tachyon_free_waiting(timeout_ns))
        )

    cdef int commit_reply(
        self, unsigned long long correlation_id, unsigned int size, unsigned int msg_type
    ) noexcept nogil:
        return <int>rpc_of(self).commit_reply(correlation_id, size, msg_type)

    cdef int abort_reply(self) noexcept nogil:
        return <int>rpc_of(self).abort_reply()

    cdef int try_reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type
    ) noexcept nogil:
        return <int>rpc_of(self).reply(correlation_id, data, size, msg_type, tachyon_free_waiting(0))

    cdef int reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type,
        long long timeout_ns
    ) except -1 nogil:
        return free_status(rpc_of(self).reply(correlation_id, data, size, msg_type, tachyon_free_waiting(timeout_ns)))

    cdef int raise_for_status(self, int status) except -1:
        if status == <int>Status.ok:
            return 0
        check_opened(rpc_of(self))
        if status == <int>Status.interrupted:
            return PyErr_CheckSignals()
        return raise_status(&rpc_of(self).calls(), <Status>status)
