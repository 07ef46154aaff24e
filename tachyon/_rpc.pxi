# Included by _tachyon.pyx: RpcBus, two buses that answer each other.


cdef inline core.Caller* rpc_caller(RpcBus self) noexcept nogil:
    return <core.Caller*>self._caller


cdef inline core.Callee* rpc_callee(RpcBus self) noexcept nogil:
    return <core.Callee*>self._callee


cdef void rpc_sent(RpcBus self, uint64_t correlation_id) noexcept:
    """A claimed call or reply has been committed."""
    if self._caller != NULL:
        rpc_caller(self).called(correlation_id)
    else:
        rpc_callee(self).replied(correlation_id)


cdef RpcBus new_rpc_bus(core.RpcRings* rings, object path, bint calls):
    cdef RpcBus bus = RpcBus.__new__(RpcBus)
    try:
        if calls:
            bus._caller = new core.Caller(rings[0])
        else:
            bus._callee = new core.Callee(rings[0])
        bus._calls = new_bus(rings.calls.release(), path)
        bus._replies = new_bus(rings.replies.release(), path)
    finally:
        del rings
    return bus


cdef enum:
    MOST_REPLY_TYPE = 0xffff
    MOST_CALL_TYPE = 0xfffe  # the last one says that a call has failed


cdef uint32_t as_msg_type(object value) except? 0xffffffff:
    cdef int overflow = 0
    if type(value) is not int:
        value = operator.index(value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or not 0 <= number <= MOST_REPLY_TYPE:
        raise OverflowError(f"msg_type must be between 0 and 65535, not {value}")
    return <uint32_t>number


cdef uint32_t as_call_type(object value) except? 0xffffffff:
    cdef uint32_t msg_type = as_msg_type(value)
    if msg_type > MOST_CALL_TYPE:
        raise ValueError("msg_type 65535 means a failed call and is for replies; choose another")
    return msg_type


cdef uint64_t as_correlation_id(object value) except? 0:
    cdef int overflow = 0
    if type(value) is not int:
        value = operator.index(value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return number if overflow == 0 and number > 0 else 0  # 0 is nobody's, and nobody gets as far as 2**63


cdef int need_caller(RpcBus self, str verb) except -1:
    check_open(self._calls)
    if self._caller == NULL:
        raise BusBusyError(f"{verb} is for the side that connected; this one listened: it serves and replies")
    return 0


cdef int need_callee(RpcBus self, str verb) except -1:
    check_open(self._calls)
    if self._callee == NULL:
        raise BusBusyError(f"{verb} is for the side that listened; this one connected: it calls and waits")
    return 0


cdef void as_call(RpcBus self, Origin* origin) noexcept:
    origin.caller = rpc_caller(self)
    origin.callee = NULL
    origin.correlation_id = 0  # begin_origin gives it one
    origin.replies = <PyObject*>self._replies


cdef int as_reply(RpcBus self, object correlation_id, Origin* origin) except -1:
    cdef uint64_t number = as_correlation_id(correlation_id)
    if not rpc_callee(self).can_reply(number):
        raise nothing_to_answer(correlation_id)
    as_answer(self, number, origin)
    return 0


cdef inline void as_answer(RpcBus self, uint64_t correlation_id, Origin* origin) noexcept:
    origin.caller = NULL
    origin.callee = rpc_callee(self)
    origin.correlation_id = correlation_id


cdef inline void want_reply(RpcBus self, uint64_t correlation_id, Wanted* wanted) noexcept:
    wanted.caller = rpc_caller(self)
    wanted.callee = NULL
    wanted.correlation_id = correlation_id


cdef inline void want_call(RpcBus self, Wanted* wanted) noexcept:
    wanted.caller = NULL
    wanted.callee = rpc_callee(self)
    wanted.correlation_id = 0


cdef int end_both(RpcBus self, core.End how) except -1:
    if self._calls is not None:
        end(self._calls, how)
    if self._replies is not None:
        end(self._replies, how)
    return 0


cdef RxGuard receive_guard(RpcBus self, Bus bus, uint64_t deadline, Wanted* wanted):
    return hold_frame(bus, deadline, wanted, self)


cdef class RpcBus:
    """Calls and replies between two processes. The listener serves, the connector calls. A context manager.

    Any number of calls (up to 65,536) may be in flight, and be waited for in any order. A reply that comes before it
    is waited for is set aside; of those, more than 64 MiB are not kept: the oldest are dropped, and counted in
    stats(). One thread at a time may call, and one may wait, on the caller's side; one may serve, and one may reply,
    on the callee's. A second one gets BusBusyError. close() may come from any thread. Not picklable, not copyable, of
    no use in a forked child.
    """

    def __init__(self, *args, **kwargs):
        raise TypeError("an RpcBus is made by RpcBus.listen(path, cap_fwd, cap_rev) or RpcBus.connect(path)")

    def __dealloc__(self):
        cdef core.Caller* caller = rpc_caller(self)
        cdef core.Callee* callee = rpc_callee(self)
        self._caller = NULL
        self._callee = NULL
        del caller
        del callee

    @staticmethod
    def listen(socket_path, cap_fwd=1 << 20, cap_rev=1 << 20, *, timeout=None, mode=_OWNER_ONLY):
        """Create rings of `cap_fwd` bytes for calls and `cap_rev` for replies, and wait until a caller has connected.

        Everything else as Bus.listen. If a plain Bus connects, both sides get a HandshakeError.
        """
        cdef string path = as_path(socket_path)
        cdef core.ListenOptions options = listen_options(Kind.rpc, cap_fwd, cap_rev, timeout, mode)
        cdef core.RpcRings* rings = NULL
        cdef SetupOutcome outcome
        cdef list raised = []
        cdef core.Interrupt interrupt = interrupted_by_signals(raised)
        with nogil:
            rings = tachyon_listen_rpc(outcome, path, options, interrupt)
        if rings == NULL:
            raise setup_failed(&outcome, socket_path, raised)
        return new_rpc_bus(rings, socket_path, False)

    @staticmethod
    def connect(socket_path, *, timeout=0.0, uid=None, max_capacity=1 << 30):
        """Attach to the callee that listens at `socket_path`. As Bus.connect; max_capacity is for each ring."""
        cdef string path = as_path(socket_path)
        cdef core.ConnectOptions options = connect_options(timeout, uid, max_capacity)
        cdef core.RpcRings* rings = NULL
        cdef SetupOutcome outcome
        cdef list raised = []
        cdef core.Interrupt interrupt = interrupted_by_signals(raised)
        with nogil:
            rings = tachyon_connect_rpc(outcome, path, options, interrupt)
        if rings == NULL:
            raise setup_failed(&outcome, socket_path, raised)
        return new_rpc_bus(rings, socket_path, True)

    # -- the caller --

    def call(self, data, msg_type, *, timeout=None):
        """Send a request, the bytes of any buffer, and return its id, for wait().

        Waits while the ring is full (replies that arrive meanwhile are set aside). msg_type: 0 … 65534.
        Raises BusFullError, MessageTooLargeError, PeerClosedError, PeerDeadError, BusBusyError, BusClosedError.
        """
        cdef uint32_t kind = as_call_type(msg_type)
        cdef Origin origin
        need_caller(self, "call")
        as_call(self, &origin)
        send_object(self._calls, data, kind, deadline_after(timeout), True, False, &origin)
        return origin.correlation_id

    def call_zero_copy(self, size, msg_type, *, timeout=None):
        """Claim room for a request, to be written in place: a TxGuard that knows its `correlation_id`."""
        cdef uint32_t kind = as_call_type(msg_type)
        cdef Origin origin
        cdef TxGuard guard
        need_caller(self, "call_zero_copy")
        as_call(self, &origin)
        guard = claim_frame(self._calls, size, kind, deadline_after(timeout), &origin)
        guard._rpc = self
        guard._correlation_id = origin.correlation_id
        return guard

    def wait(self, correlation_id, *, timeout=None):
        """Wait for the reply to a call and return it in place, as an RxGuard for a `with` block.

        Its type_id is the reply's msg_type. A reply can be had once. ValueError for an id that was never issued, is
        answered already, was cancelled, or whose reply was dropped. BusEmptyError when the timeout (seconds) runs
        out: wait again, or cancel. PeerClosedError, PeerDeadError: it will never come. BusBusyError, BusClosedError.
        """
        cdef Wanted wanted
        cdef uint64_t deadline = deadline_after(timeout)
        need_caller(self, "wait")
        want_reply(self, as_correlation_id(correlation_id), &wanted)
        return receive_guard(self, self._replies, deadline, &wanted)

    def cancel(self, correlation_id):
        """Give up a call: its reply will be dropped when it comes. False if there is nothing to give up."""
        need_caller(self, "cancel")
        if self._calls._in_use == kInUseByNogil or self._replies._in_use == kInUseByNogil:
            raise BusBusyError("this RpcBus is in use by nogil code in another thread")
        return rpc_caller(self).cancel(as_correlation_id(correlation_id))

    # -- the callee --

    def serve(self, *, timeout=None):
        """Wait for the next call and return it in place: an RxGuard with `correlation_id` and `type_id`, its msg_type.

        Leave its block before you reply. Raises BusEmptyError, PeerClosedError, PeerDeadError, BusBusyError,
        BusClosedError.
        """
        cdef Wanted wanted
        cdef uint64_t deadline = deadline_after(timeout)
        need_callee(self, "serve")
        want_call(self, &wanted)
        return receive_guard(self, self._calls, deadline, &wanted)

    def reply(self, correlation_id, data, msg_type=0, *, timeout=None):
        """Answer a call, once, with the bytes of any buffer. In any order. ValueError if there is no such call to
        answer.

        Otherwise as Bus.send.
        """
        cdef uint32_t kind = as_msg_type(msg_type)
        cdef Origin origin
        need_callee(self, "reply")
        as_reply(self, correlation_id, &origin)
        send_object(self._replies, data, kind, deadline_after(timeout), True, False, &origin)

    def reply_zero_copy(self, correlation_id, size, msg_type=0, *, timeout=None):
        """Claim room for an answer of `size` bytes, to be written in place: a TxGuard."""
        cdef uint32_t kind = as_msg_type(msg_type)
        cdef Origin origin
        cdef TxGuard guard
        need_callee(self, "reply_zero_copy")
        as_reply(self, correlation_id, &origin)
        guard = claim_frame(self._replies, size, kind, deadline_after(timeout), &origin)
        guard._rpc = self
        guard._correlation_id = origin.correlation_id
        return guard

    # -- either --

    def set_polling_mode(self, pure_spin):
        """As Bus.set_polling_mode, for both rings."""
        check_open(self._calls)
        self._calls.set_polling_mode(pure_spin)
        self._replies.set_polling_mode(pure_spin)

    def set_numa_node(self, node):
        """As Bus.set_numa_node, for both rings."""
        check_open(self._calls)
        self._calls.set_numa_node(node)
        self._replies.set_numa_node(node)

    def stats(self):
        """Return counters: role, those of both rings, and, for a caller, calls in flight, replies set aside and
        dropped."""
        check_open(self._calls)
        calls, replies = self._calls.stats(), self._replies.stats()
        result = {"role": "caller" if self._caller != NULL else "callee", "calls": calls, "replies": replies}
        if self._caller != NULL:
            result["in_flight"] = rpc_caller(self).in_flight()
            result["set_aside"] = rpc_caller(self).set_aside()
            result["dropped"] = rpc_caller(self).dropped()
        return result

    @property
    def max_request_size(self):
        """Largest request in bytes."""
        return 0 if self._calls is None else self._calls.max_message_size

    @property
    def max_reply_size(self):
        """Largest reply in bytes."""
        return 0 if self._replies is None else self._replies.max_message_size

    @property
    def peer_pid(self):
        """Process id of the peer; 0 if it lives in a PID namespace that we cannot see."""
        return 0 if self._calls is None else self._calls.peer_pid

    @property
    def closed(self):
        """True after close(), and in a forked child."""
        return self._calls is None or self._calls.closed

    def close(self):
        """Close both rings. Idempotent, never waits; allowed from any thread, and ends its waits with
        BusClosedError."""
        end_both(self, core.End.closed)

    def abort(self):
        """Give up: as close(), but the peer gets PeerDeadError, whose `reason` is "aborted". So does leaving a `with`
        block by an exception."""
        end_both(self, core.End.aborted)

    def __enter__(self):
        check_open(self._calls)
        return self

    def __exit__(self, exc_type, exc, traceback):
        end_both(self, end_of_block(exc))

    def __repr__(self):
        if self.closed:
            return f"<tachyon.RpcBus {None if self._calls is None else self._calls._path!r} closed>"
        role = "caller" if self._caller != NULL else "callee"
        return f"<tachyon.RpcBus {self._calls._path!r} {role} peer_pid={self._calls._peer_pid}>"

    def __reduce__(self):
        raise TypeError("an RpcBus cannot be pickled or copied: it belongs to one process; open one in each")

    # -- for other Cython code: see _tachyon.pxd and _nogil.pxi --

    cdef int try_claim_call(self, unsigned long long size, unsigned char** payload) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        return self._calls.try_claim(size, payload)

    cdef int claim_call(self, unsigned long long size, unsigned char** payload, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_claim_call(size, payload)
            if status != <int>Status.full:
                return status
            status = wait_to_call(self, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int commit_call(
        self, unsigned int size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        if msg_type > MOST_CALL_TYPE:
            return <int>Status.bad_type
        if not enter_both(self):
            let_go_refused(self._calls, 1)
            return refused_both(self)
        correlation_id[0] = rpc_caller(self).next_id()
        cdef Status status = tachyon_core(self._calls._core).commit(size, msg_type, correlation_id[0])
        if status == Status.ok:
            rpc_caller(self).called(correlation_id[0])
        if is_over(status) and self._calls._held != 0:
            let_go(self._calls, 1)
        leave_both(self)
        return <int>status

    cdef int abort_call(self) noexcept nogil:
        return not_this_side(self) if self._caller == NULL else self._calls.abort()

    cdef int try_call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id
    ) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        if msg_type > MOST_CALL_TYPE:
            return <int>Status.bad_type
        if not enter_both(self):
            return refused_both(self)
        cdef uint64_t issued = 0
        cdef Status status = rpc_caller(self).try_call(data, size, msg_type, issued)
        leave_both(self)
        correlation_id[0] = issued
        return <int>status

    cdef int call_bytes(
        self, const void* data, unsigned long long size, unsigned int msg_type, unsigned long long* correlation_id,
        long long timeout_ns
    ) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_call_bytes(data, size, msg_type, correlation_id)
            if status != <int>Status.full:
                return status
            status = wait_to_call(self, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int try_peek_reply(self, unsigned long long correlation_id, Frame* frame) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        if not enter_both(self):
            return refused_both(self)
        cdef uint64_t before = rpc_caller(self).passed()
        cdef Status status = Status.claim_open  # nogil code holds one at a time
        if self._replies._held == 0:
            status = rpc_caller(self).try_wait(correlation_id, (<core.Frame*>frame)[0])
        while status == Status.empty and rpc_caller(self).unfinished():  # see is_unseen
            if rpc_caller(self).passed() - before >= self._replies._capacity:
                break
            status = rpc_caller(self).try_wait(correlation_id, (<core.Frame*>frame)[0])
        if status == Status.ok:
            memcpy(&self._reply, frame, sizeof(Frame))
            hold(self._replies, 1)
        leave_both(self)
        return <int>status

    cdef int peek_reply(self, unsigned long long correlation_id, Frame* frame, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_peek_reply(correlation_id, frame)
            if status != <int>Status.empty:
                return status
            status = wait_for_message(self._replies, timeout_ns, &until)
            if status != <int>Status.ok:
                return status
            if rpc_caller(self).unfinished():  # that was no wait
                after_wait(Status.empty)

    cdef int release_reply(self, const Frame* frame) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        if not enter_both(self):
            let_go_refused(self._replies, 1)
            return refused_both(self)
        cdef Status status = Status.no_claim
        cdef core.Frame ours
        # What is released is our own copy of it.
        if self._replies._held != 0 and self._reply.correlation_id == frame.correlation_id:
            memcpy(&ours, &self._reply, sizeof(Frame))
            rpc_caller(self).release(ours)
            let_go(self._replies, 1)
            status = tachyon_core(self._replies._core).state()
        leave_both(self)
        return <int>status

    cdef int cancel_call(self, unsigned long long correlation_id) noexcept nogil:
        if self._caller == NULL:
            return not_this_side(self)
        if not enter_both(self):
            return refused_both(self)
        cdef Status status = Status.ok if rpc_caller(self).cancel(correlation_id) else Status.unknown_call
        leave_both(self)
        return <int>status

    cdef int try_peek_call(self, Frame* frame) noexcept nogil:
        if self._callee == NULL:
            return not_this_side(self)
        if not enter_both(self):
            return refused_both(self)
        cdef Status status = rpc_callee(self).try_serve((<core.Frame*>frame)[0])
        if status == Status.ok:
            hold(self._calls, 1)
        leave_both(self)
        return <int>status

    cdef int peek_call(self, Frame* frame, long long timeout_ns) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_peek_call(frame)
            if status != <int>Status.empty:
                return status
            status = wait_for_message(self._calls, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int release_call(self, const Frame* frame) noexcept nogil:
        return not_this_side(self) if self._callee == NULL else self._calls.release(frame)

    cdef int try_claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload
    ) noexcept nogil:
        if self._callee == NULL:
            return not_this_side(self)
        if not enter_both(self):
            return refused_both(self)
        cdef Status status = Status.unknown_call
        if rpc_callee(self).can_reply(correlation_id):
            status = tachyon_core(self._replies._core).try_claim(size, payload[0])
        if status == Status.ok:
            hold(self._replies, 1)
        leave_both(self)
        return <int>status

    cdef int claim_reply(
        self, unsigned long long correlation_id, unsigned long long size, unsigned char** payload, long long timeout_ns
    ) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_claim_reply(correlation_id, size, payload)
            if status != <int>Status.full:
                return status
            status = wait_for_room(self._replies, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int commit_reply(
        self, unsigned long long correlation_id, unsigned int size, unsigned int msg_type
    ) noexcept nogil:
        if self._callee == NULL:
            return not_this_side(self)
        if msg_type > MOST_REPLY_TYPE:
            return <int>Status.bad_type
        if not enter_both(self):
            let_go_refused(self._replies, 1)
            return refused_both(self)
        cdef Status status = Status.unknown_call
        if rpc_callee(self).can_reply(correlation_id):
            status = tachyon_core(self._replies._core).commit(size, msg_type, correlation_id)
            if status == Status.ok:
                rpc_callee(self).replied(correlation_id)
            if is_over(status) and self._replies._held != 0:
                let_go(self._replies, 1)
        leave_both(self)
        return <int>status

    cdef int abort_reply(self) noexcept nogil:
        return not_this_side(self) if self._callee == NULL else self._replies.abort()

    cdef int try_reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type
    ) noexcept nogil:
        if self._callee == NULL:
            return not_this_side(self)
        if msg_type > MOST_REPLY_TYPE:
            return <int>Status.bad_type
        if not enter_both(self):
            return refused_both(self)
        cdef Status status = rpc_callee(self).try_reply(correlation_id, data, size, msg_type)
        leave_both(self)
        return <int>status

    cdef int reply_bytes(
        self, unsigned long long correlation_id, const void* data, unsigned long long size, unsigned int msg_type,
        long long timeout_ns
    ) except -1 nogil:
        cdef uint64_t until = 0
        cdef int status
        while True:
            status = self.try_reply_bytes(correlation_id, data, size, msg_type)
            if status != <int>Status.full:
                return status
            status = wait_for_room(self._replies, size, timeout_ns, &until)
            if status != <int>Status.ok:
                return status

    cdef int raise_for_status(self, int status) except -1:
        if self._calls is None:
            check_open(self._calls)
        return self._calls.raise_for_status(status)
