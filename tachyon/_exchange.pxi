# Included by _tachyon.pyx: a whole call, and a whole answer, in one step for the Python layer above. What is unusual
# is left to it: these are the common cases of RpcEndpoint.call and RpcDispatcher, without an object per step.


from cpython.memoryview cimport PyMemoryView_FromObject

from tachyon._errors import RpcError


def call_and_wait(RpcBus bus not None, data, msg_type, timeout, on_response=None):
    """Call and wait for the reply, for `timeout` seconds in all, and return it as a Message with its own bytes.

    on_response: gets a reply that is no error reply in place, as a memoryview; (its result,) is returned then.
    A call that is not answered, for whatever reason, is cancelled. Otherwise raises as RpcBus.call and RpcBus.wait.
    """
    cdef RxGuard guard
    cdef uint32_t kind = as_call_type(msg_type)
    cdef uint64_t deadline = deadline_after(timeout)
    cdef Origin origin
    cdef Wanted wanted
    cdef core.Frame frame
    cdef bytes answer = None
    need_caller(bus, "call")
    as_call(bus, &origin)
    guard = None
    if on_response is not None:
        guard = RxGuard.__new__(RxGuard)
        expect_guard(bus._replies)
    send_object(bus._calls, data, kind, deadline, True, False, &origin)
    want_reply(bus, origin.correlation_id, &wanted)
    try:
        expect_frame(bus._replies, &frame, deadline, LOOKS_WITH_GIL, &wanted)
        if on_response is not None and frame.type_id != MOST_REPLY_TYPE:
            guard._frame = frame
            start_guard(guard, bus._replies, bus)
            with guard, PyMemoryView_FromObject(guard) as view:
                return (on_response(view),)
        try:
            answer = PyBytes_FromStringAndSize(NULL, frame.size)
            copy_out(<uint8_t*>PyBytes_AS_STRING(answer), frame.payload, frame.size)
        finally:
            rpc_caller(bus).release(frame)
            leave(bus._replies)
    except BaseException:
        if not bus.closed:
            rpc_caller(bus).cancel(origin.correlation_id)
        raise
    return new_message(frame.type_id, answer)


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
    cdef Origin origin
    cdef Wanted wanted
    cdef uint64_t deadline = deadline_after(timeout)
    cdef uint32_t msg_type
    cdef RxGuard guard
    cdef Unfinished left
    cdef bint answered = False
    need_callee(bus, "serve")
    want_call(bus, &wanted)
    guard = receive_guard(bus, bus._calls, deadline, &wanted)
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
    if not rpc_callee(bus).can_reply(guard._frame.correlation_id):
        answered = True
        if failure is None:
            failure = ValueError(
                f"the handler of msg_type {msg_type} has answered the call itself; its result is dropped"
            )
    if failure is None:
        try:
            # While the request is held, because the answer may be a view of it. No deadlock comes of it: a caller that
            # waits for room takes replies out meanwhile.
            need_callee(bus, "reply")
            as_answer(bus, guard._frame.correlation_id, &origin)
            answered = send_object(bus._replies, answer, msg_type, core.kNever, wait_for_room, False, &origin)
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
