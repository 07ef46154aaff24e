# Included by _tachyon.pyx: what tachyon.aio does for each message. What has to wait is in Python there.
#
# What send() and recv() return are coroutines of our own kind: a compiled `async def` costs twice what a message does.
# They do nothing until they are awaited, so that whoever is cancelled before has taken nothing.

from cpython.exc cimport PyErr_WarnEx, PyErr_WriteUnraisable
from cpython.object cimport PyObject

cdef extern from *:
    """
    static void tachyon_set_am_send(PyObject* type, void* function) {
        reinterpret_cast<PyTypeObject*>(type)->tp_as_async->am_send = reinterpret_cast<sendfunc>(function);
    }
    """
    void tachyon_set_am_send(object type, void* function) noexcept
    # 0: returned, 1: it waits, -1: raised; *result: what it returned, or yields
    int PyIter_Send(object coroutine, object value, PyObject** result) except -1

cdef enum:
    _FEW = 4
    _LOOKS = 128  # at a ring before the loop is let on: 2 … 6 µs


cdef class _Turn:
    """How long somebody may go on before the loop has its turn: some 100 µs, and a few messages.

    By the clock: a pass of the loop costs as much as 50 messages of ours. Not by the clock alone: who sends one now and
    then has let the loop have its turn between.
    """

    cdef uint64_t _since
    cdef int _done
    cdef public bint _closing  # closed, as far as its users are concerned

    cdef inline bint _over(self) noexcept:
        self._done += 1
        return self._done > _FEW and core.ticks() - self._since > core.kTicksBetweenChecks

    cpdef void _begin(self) noexcept:
        """Begin a turn: the loop has just had its own."""
        self._done = 0
        self._since = core.ticks()

    def _is_over(self):
        """Is it the loop's turn?"""
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
        if self._receiver is not None and not self._forget_closed_loop():
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
        self._alone()
        if self._over():
            return None
        cdef Message message = try_take(handle_of(self.bus))
        if message is None and handle_of(self.bus).bus().spin_readable(_LOOKS):
            message = try_take(handle_of(self.bus))
        return message

    def send(self, data, type_id=0, *, timeout=None):
        """As Bus.send. Who is cancelled has sent nothing. Several tasks may send: in the order in which they came."""
        cdef _Sending step = _Sending.__new__(_Sending)
        step._bus = self
        step._data = data
        step._type_id = as_type_id(type_id)
        step._timeout = timeout
        if timeout is not None:
            deadline_after(timeout)
        return step

    def recv(self, *, timeout=None):
        """As Bus.recv. Who is cancelled has taken nothing. One task at a time: BusBusyError."""
        cdef _Taking step = _Taking.__new__(_Taking)
        step._bus = self
        step._timeout = timeout
        if timeout is not None:
            deadline_after(timeout)
        return step

    def __aiter__(self):
        check_open(handle_of(self.bus))
        return self

    def __anext__(self):
        cdef _Taking step = _Taking.__new__(_Taking)
        step._bus = self
        step._iterates = True
        return step


cdef enum:
    _NOT_STARTED = 0
    _WAITS = 1
    _ENDED = 2


@cython.freelist(16)  # of all that are no larger: what is in one of them only is here
cdef class _Step:
    """A coroutine: done at once, or by another one that waits."""

    cdef _AsyncBus _bus
    cdef object _timeout
    cdef object _waiting  # the coroutine that does the rest
    cdef int _state
    cdef object _data
    cdef uint32_t _type_id
    cdef bint _iterates

    # Do it, or set _waiting.
    cdef object _do(self):
        raise NotImplementedError

    cdef int _advance(self, object value, PyObject** result) except -1:
        cdef int what
        cdef object done
        if self._state == _NOT_STARTED:
            self._state = _ENDED
            done = self._do()
            if self._waiting is None:
                Py_INCREF(done)
                result[0] = <PyObject*>done
                return 0
            self._state = _WAITS
        elif self._state == _ENDED:
            raise RuntimeError("cannot reuse already awaited coroutine")
        try:
            what = PyIter_Send(self._waiting, value, result)
        except BaseException:
            self._end()
            raise
        if what == 0:
            self._end()
        return what

    cdef int _end(self) except -1:
        self._state = _ENDED
        self._waiting = None
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """As every coroutine has it."""
        cdef PyObject* result = NULL
        cdef int what = self._advance(value, &result)
        got = <object>result
        Py_DECREF(got)
        if what == 0:
            raise StopIteration(got)
        return got

    def throw(self, *raised):
        """As every coroutine has it."""
        if self._state == _NOT_STARTED:
            self._state = _ENDED
        if self._waiting is None:
            error = raised[1] if len(raised) > 1 and raised[1] is not None else raised[0]
            raise error
        try:
            return self._waiting.throw(*raised)
        except BaseException:
            self._end()
            raise

    def close(self):
        """As every coroutine has it."""
        waiting = self._waiting
        self._end()
        if waiting is not None:
            waiting.close()


cdef int advance(_Step step, object value, PyObject** result) except -1:
    return step._advance(value, result)


@cython.final
cdef class _Sending(_Step):
    """What send() returns."""

    def __dealloc__(self):
        if self._state == _NOT_STARTED and self._bus is not None:
            warn_of_unawaited("send")

    cdef object _do(self):
        if self._bus._over() or not self._bus._send_now(self._data, self._type_id):
            self._waiting = self._bus._send_slowly(self._data, self._type_id, self._timeout)


@cython.final
cdef class _Taking(_Step):
    """What recv() and __anext__ return."""

    def __dealloc__(self):
        if self._state == _NOT_STARTED and self._bus is not None:
            warn_of_unawaited("recv")

    cdef object _do(self):
        cdef Message message
        try:
            message = self._bus._take_now()
        except PeerClosedError:
            if self._iterates:
                raise StopAsyncIteration from None
            raise
        if message is None:
            self._waiting = self._bus._next_slowly() if self._iterates else self._bus._recv_slowly(self._timeout)
        return message


tachyon_set_am_send(_Sending, <void*>advance)
tachyon_set_am_send(_Taking, <void*>advance)


cdef int warn_of_unawaited(str method) except -1:
    try:
        PyErr_WarnEx(RuntimeWarning, f"coroutine 'Bus.{method}' was never awaited".encode(), 1)
    except BaseException:
        PyErr_WriteUnraisable(None)
    return 0


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
