# Included by _tachyon.pyx: what tachyon.aio does for each message. What comes once in a while is in Python there.
#
# These are coroutines, not functions that have done their work by the time they return: whoever is cancelled before
# the first step has taken nothing.

cdef enum:
    _MOST_AT_ONCE = 64  # that are done without a pass of the loop between
    _LOOKS = 128        # at a ring before the loop is let on: 2 … 6 µs


cdef class _Turn:
    """How long somebody may go on before the loop has its turn: 64 messages, or some 100 µs."""

    cdef int _left
    cdef uint64_t _since
    cdef public bint _closing  # closed, as far as its users are concerned

    cdef bint _over(self) noexcept:
        if self._since == 0:
            self._begin()
        if self._left > 0 and core.ticks() - self._since <= core.kTicksBetweenChecks:
            self._left -= 1
            return False
        return True

    cpdef void _begin(self) noexcept:
        """Begin a turn: the loop has just had its own."""
        self._left = _MOST_AT_ONCE
        self._since = core.ticks()

    def _is_over(self):
        """Is it the loop's turn? One message is counted."""
        return self._over()

    async def _rest(self):
        """Let the loop have its turn, if ours is over."""
        if self._over():
            await Pass()
            self._begin()


@cython.final
cdef class Pass:
    """`await Pass()` lets the loop have one pass."""

    def __await__(self):
        yield


cdef class _AsyncBus(_Turn):
    """The quick half of tachyon.aio.Bus: what needs no wait."""

    cdef readonly Bus bus
    cdef public object _receiver  # who waits for a message, or None
    cdef public list _line        # those who wait for room, in their order

    def __init__(self, Bus bus not None):
        check_open(handle_of(bus))
        self.bus = bus
        self._line = []

    def _check_alone(self):
        """May a task wait for a message now?"""
        self._alone()

    cdef int _alone(self) except -1:
        if self._closing:
            raise_status(handle_of(self.bus), Status.closed)
        if self._receiver is not None:
            raise BusBusyError("another task waits for a message of this bus; one at a time may")
        return 0

    cdef bint _send_now(self, object data, uint32_t type_id) except -1:
        if self._closing:
            raise_status(handle_of(self.bus), Status.closed)
        if self._line or not send_message(handle_of(self.bus), data, type_id, 0):
            return False
        if self._receiver is not None:  # by this it is the side that sends
            self._receiver.wake()
        return True

    # The next message, looked for a little.
    cdef Message _take_now(self):
        cdef Message message = try_take(handle_of(self.bus))
        if message is None and handle_of(self.bus).bus().spin_readable(_LOOKS):
            message = try_take(handle_of(self.bus))
        return message

    async def send(self, data, type_id=0, *, timeout=None):
        """As Bus.send. Who is cancelled has sent nothing. Several tasks may send: in the order in which they came."""
        cdef uint32_t kind = as_type_id(type_id)
        if timeout is not None:
            deadline_after(timeout)
        if self._over():
            await Pass()
            self._begin()
        if not self._send_now(data, kind):
            await self._send_slowly(data, kind, timeout)

    async def recv(self, *, timeout=None):
        """As Bus.recv. Who is cancelled has taken nothing. One task at a time: BusBusyError."""
        cdef Message message
        if timeout is not None:
            deadline_after(timeout)
        self._alone()
        if self._over():
            await Pass()
            self._begin()
            self._alone()
        message = self._take_now()
        return message if message is not None else await self._recv_slowly(timeout)

    def __aiter__(self):
        check_open(handle_of(self.bus))
        return self

    async def __anext__(self):
        cdef Message message
        self._alone()
        if self._over():
            await Pass()
            self._begin()
            self._alone()
        try:
            message = self._take_now()
            return message if message is not None else await self._recv_slowly(None)
        except PeerClosedError:
            raise StopAsyncIteration from None


def take_replies(RpcBus bus not None, dict wanted not None, dict watched not None, int most):
    """Take up to `most` replies of a caller. Returns how many; raises how the callee ended once there are none.

    wanted: id: future; it gets the reply, as a Message. watched: the same; it gets None, and bus.wait(id, timeout=0)
    the reply. Both are taken out of their dict. A reply that is in neither is set aside.
    """
    cdef core.RpcHandle* rpc = rpc_of(bus)
    cdef core.Frame frame
    cdef Status status
    cdef bytes data
    cdef int count = 0
    need_caller(rpc, "taking replies")
    enter(&rpc.replies())
    try:
        while count < most:
            status = rpc.caller().try_next(frame)
            if status == Status.empty:
                break
            if status != Status.ok:
                if count != 0:
                    break
                raise_status(&rpc.replies(), status)
            count += 1
            future = wanted.pop(frame.correlation_id, None)
            if future is not None and not future.done():
                data = copy_of(&frame)
                rpc.caller().take(frame)
                rpc.caller().release(frame)
                future.set_result(new_message(frame.type_id, data))
                continue
            rpc.caller().set_aside(frame)
            future = watched.pop(frame.correlation_id, None)
            if future is not None and not future.done():
                future.set_result(None)
    finally:
        rpc.replies().leave()
    return count
