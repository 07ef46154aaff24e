# Included by _tachyon.pyx: what Bus and RpcBus have in common: who may use a ring now, and what can be asked of it. The
# gate itself is C++: tachyon/host/gate.hpp.


cdef inline core.BusHandle* handle_of(Bus self) noexcept nogil:
    return <core.BusHandle*>self._handle


cdef inline core.RpcHandle* rpc_of(RpcBus self) noexcept nogil:
    return <core.RpcHandle*>self._handle


cdef int check_open(core.BusHandle* handle) except -1:
    cdef Status status = handle.state()
    if status != Status.ok:
        raise_status(handle, status)
    return 0


cdef inline int enter(core.BusHandle* handle) except -1:
    if not handle.enter():
        return refuse_use(handle)
    return 0


cdef int refuse_use(core.BusHandle* handle) except -1:
    check_open(handle)
    if handle.gate().held() != 0:
        raise BusBusyError("nogil code holds a claim or a frame of this bus; commit, abort or release it")
    if handle.gate().is_lent():
        raise BusBusyError("the ring of this bus is lent to code that inlines it; give it back first")
    raise BusBusyError(
        "this bus is in use by another thread, or by a caller of this one; a Bus serves one thread at a time"
    )


cdef void* lend_ring(core.BusHandle* handle, bint producer, unsigned long long layout) except NULL:
    """The ring itself, to code that was compiled against the same headers."""
    cdef core.Producer* its_producer = NULL
    cdef core.Consumer* its_consumer = NULL
    if layout != core.ring_layout():
        raise TachyonError(
            "this module was compiled against the headers of another tachyon than the one that is imported "
            f"(ring layout {layout:#x}, not {core.ring_layout():#x}); rebuild it"
        )
    cdef Status status = handle.lend(its_producer) if producer else handle.lend(its_consumer)
    if status == Status.busy or (status == Status.claim_open and handle.gate().held() != 0):
        refuse_use(handle)
    if status == Status.claim_open and handle.gate().guards() != 0:
        raise BusBusyError(
            "a guard of this bus is still open, or a view of one still lives; leave its block and drop the view"
        )
    if status != Status.ok:
        raise_status(handle, status)
    return <void*>its_producer if producer else <void*>its_consumer


# How a `with` block was left. SystemExit without an error and GeneratorExit are ways to leave it in good order.
cdef core.End end_of_block(object raised) noexcept:
    if raised is None or isinstance(raised, GeneratorExit):
        return core.End.closed
    if isinstance(raised, SystemExit):
        code = (<object>raised).code
        if code is None or (isinstance(code, int) and code == 0):
            return core.End.closed
    return core.End.aborted


cdef object role_of(core.Bus* bus):
    cdef core.Stats stats = bus.stats()
    if stats.producer == Side.undecided:
        return None
    return "producer" if stats.producer == stats.side else "consumer"


cdef dict stats_of(core.BusHandle* handle):
    check_open(handle)
    cdef core.Stats stats = handle.bus().stats()
    return {
        "role": role_of(handle.bus()),
        "messages": stats.messages,
        "position": stats.position,
        "parks": stats.parks,
        "wakes": stats.wakes,
        "spin_budget_ns": stats.spin_budget_ns,
        "capacity": handle.capacity(),
    }


cdef int set_polling_mode(core.BusHandle* handle, cpp_bool pure_spin) except -1:
    check_open(handle)
    enter(handle)
    handle.bus().set_polling_mode(pure_spin)
    handle.leave()
    return 0


cdef int set_numa_node(core.BusHandle* handle, unsigned int node) except -1:
    check_open(handle)
    enter(handle)
    cdef int error = handle.bus().set_numa_node(node)
    handle.leave()
    if error == 22:
        raise ValueError(f"this machine has no NUMA node {node}")
    if error != 0:
        raise OSError(error, os.strerror(error))
    return 0
