# Included by _tachyon.pyx: a whole call, and a whole answer, in one step for the Python layer above. What is unusual
# is left to it: these are the common cases of RpcEndpoint.call and RpcDispatcher, without an object per step.


from cpython.memoryview cimport PyMemoryView_FromObject


def call_and_wait(RpcBus bus not None, data, msg_type, timeout, on_response=None):
    """Call and wait for the reply, for `timeout` seconds in all, and return it as a Message with its own bytes.

    on_response: gets a reply that is no error reply in place, as a memoryview; (its result,) is returned then.
    A call that is not answered, for whatever reason, is cancelled. Otherwise raises as RpcBus.call and RpcBus.wait.
    """
    cdef core.RpcHandle* rpc = rpc_of(bus)
    cdef uint32_t kind = as_call_type(msg_type)
    cdef uint64_t deadline = deadline_after(timeout), id = 0
    cdef RxGuard guard = None
    cdef core.Frame frame
    cdef bytes answer = None
    need_caller(rpc, "call")
    if on_response is not None:
        guard = new_rx_guard(bus, &rpc.replies())
        guard._rpc = rpc
        enter(guard._handle)
        expect_guard(guard._handle)
        guard._handle.leave()
    id = send_call(rpc, data, kind, deadline)
    try:
        enter(&rpc.replies())
        if next_frame(&rpc.replies(), rpc.reply_to(id), &frame, deadline) != <int>Status.ok:
            raise_status(&rpc.replies(), Status.peer_closed)
        if on_response is not None and frame.type_id != core.kMostReplyType:
            guard._frame = frame
            guard.start(<uint8_t*>frame.payload, frame.size, True)
            rpc.replies().leave()
            with guard, PyMemoryView_FromObject(guard) as view:
                return (on_response(view),)
        try:
            answer = copy_of(&frame)
        finally:
            rpc.caller().release(frame)
            rpc.replies().leave()
    except BaseException:
        if not bus.closed and not in_use_by_nogil(rpc):
            rpc.caller().cancel(id)
        raise
    return new_message(frame.type_id, answer)


def peer_is_gone(RpcBus bus not None):
    """Is it known that a call would find nobody? Of a caller; does not wait. True of a closed bus."""
    cdef core.BusHandle* calls = &rpc_of(bus).calls()
    if calls.state() != Status.ok:
        return True
    if not calls.enter():  # another thread is in there, and will find out
        return False
    cdef Status status = calls.bus().check()
    calls.leave()
    return status != Status.ok


def last_call(RpcBus bus not None):
    """Return the id of the last call that was sent; 0 before the first."""
    return rpc_of(bus).caller().last_id()


@cython.final
cdef class Unfinished:
    """A served call with something unusual left to do, and with what."""

    cdef readonly RxGuard guard      # the request, still held
    cdef readonly object request     # the memoryview of it that the handler got
    cdef readonly object failure     # what the handler raised, or why its answer could not be sent
    cdef readonly object answer      # that had no room
    cdef readonly bint answered      # what is left is a view of the request, or a failure to tell of here


def answer_one(RpcBus bus not None, dict endpoints not None, timeout, bint wait_for_room):
    """Serve one call: pass it to the handler of its endpoint, send the answer, free the request.

    timeout: seconds to wait for the call. Returns None when all of that is done, else an Unfinished. Raises what is
    wrong with the bus.
    """
    cdef core.RpcHandle* rpc = rpc_of(bus)
    cdef uint64_t deadline = deadline_after(timeout)
    cdef uint32_t msg_type
    cdef RxGuard guard
    cdef Unfinished left
    cdef bint answered = False
    need_callee(rpc, "serve")
    guard = receive_call(bus, deadline)
    msg_type = guard._frame.type_id
    request = PyMemoryView_FromObject(guard)
    failure = answer = None
    try:
        endpoint = endpoints.get(msg_type)
        if endpoint is None:
            raise RpcError(f"there is no handler for msg_type {msg_type}", msg_type)
        answer = endpoint.handler(request)
        if answer is None or isinstance(answer, str):
            raise TypeError(f"{endpoint!r} must return a bytes-like object, not {type(answer).__name__}")
    except BaseException as error:
        failure = error
    if not rpc.callee().can_reply(guard._frame.correlation_id):
        answered = True
        if failure is None:
            failure = ValueError(
                f"the handler of msg_type {msg_type} has answered the call itself; its result is dropped"
            )
    if failure is None:
        try:
            # While the request is held, because the answer may be a view of it. No deadlock comes of it: a caller that
            # waits for room takes replies out meanwhile.
            need_callee(rpc, "reply")
            answered = send_answer(
                rpc, guard._frame.correlation_id, answer, msg_type, core.kNever if wait_for_room else 0
            )
        except (PeerDeadError, BusClosedError):
            raise
        except KeyboardInterrupt as error:
            if wait_for_room:
                raise
            failure = error
        except BaseException as error:  # not a buffer, or too large
            failure = error
    if answered and failure is None:
        answer = None
        try:
            request.release()
        except BufferError:
            pass
        if guard._views == 0 and guard._open:
            guard._end(False)
            return None
    left = Unfinished.__new__(Unfinished)
    left.guard = guard
    left.request = request
    left.failure = failure
    left.answer = answer
    left.answered = answered
    return left
