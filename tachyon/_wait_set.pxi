# Included by _tachyon.pyx: one thread that waits for many.

cdef extern from *:
    """
    #include "tachyon/wait_set.hpp"

    static tachyon::WaitSet* tachyon_new_wait_set(SetupOutcome& outcome) {
        return tachyon_set_up(outcome, [] { return new tachyon::WaitSet(); });
    }
    static tachyon::WaitSet* tachyon_watch(SetupOutcome& outcome, tachyon::WaitSet& set, uint64_t token,
                                           tachyon::Bus* bus, int descriptor) {
        return tachyon_set_up(outcome, [&] {
            bus != nullptr ? set.add(token, *bus) : set.add_descriptor(token, descriptor);
            return &set;
        });
    }
    """
    core.WaitSet* tachyon_new_wait_set(SetupOutcome& outcome) noexcept
    core.WaitSet* tachyon_watch(SetupOutcome& outcome, core.WaitSet& wait_set, uint64_t token, core.Bus* bus,
                                int descriptor) noexcept


# A bus of a WaitSet: nobody else comes in during its sleeps, and the memory stays until it is removed.
cdef struct Watched:
    uint64_t token
    core.BusHandle* handle


# NULL: it is no bus.
cdef core.BusHandle* handle_to_watch(object member, bint for_frame) except? NULL:
    cdef core.RpcHandle* rpc
    if isinstance(member, Bus):
        return handle_of(member)
    if not isinstance(member, RpcBus):
        return NULL
    rpc = rpc_of(member)
    return &rpc.calls() if for_frame == (rpc.callee() != NULL) else &rpc.replies()


@cython.final
@cython.no_gc_clear
cdef class WaitSet:
    """One thread waits for many: for messages on a Bus, for calls or replies on an RpcBus, for room on either, for the
    clients of a listener, and for whatever has a fileno(). RpcServer is made of it.

    wait() returns a member that may be ready, or has ended: then try. A member that is closed, by any thread, is ready:
    remove it. Nobody else may use a member during a wait (BusBusyError).
    """

    cdef core.WaitSet* _core
    cdef dict _members  # token: member
    cdef dict _tokens   # id of that: token
    cdef vector[Watched] _watched
    cdef uint64_t _last
    cdef bint _waiting

    def __cinit__(self):
        cdef SetupOutcome outcome
        self._core = tachyon_new_wait_set(outcome)
        if self._core == NULL:
            raise_setup_failure(&outcome, None)
        self._members = {}
        self._tokens = {}

    def __dealloc__(self):
        self._forget()

    cdef void _forget(self) noexcept:
        cdef core.WaitSet* mine = self._core
        self._core = NULL
        del mine
        while not self._watched.empty():
            self._watched.back().handle.end_guard()
            self._watched.pop_back()

    def add(self, member):
        """Wait for a message on a Bus, a call or a reply on an RpcBus, a client of a listener, or until the fileno() of
        another object is readable. ValueError if it is a member already."""
        cdef SetupOutcome outcome
        cdef core.Bus* bus = NULL
        cdef int descriptor = -1
        cdef Watched watched
        self._check()
        if id(member) in self._tokens:
            raise ValueError(f"{member!r} is a member already")
        watched.handle = handle_to_watch(member, True)
        if watched.handle == NULL:
            descriptor = member.fileno()
        else:
            check_open(watched.handle)
            bus = watched.handle.bus()
        watched.token = self._last = self._last + 1
        self._members[self._last] = member
        self._tokens[id(member)] = self._last
        if tachyon_watch(outcome, self._core[0], self._last, bus, descriptor) == NULL:
            del self._members[self._last], self._tokens[id(member)]
            raise_setup_failure(&outcome, None)
        if bus != NULL:
            watched.handle.open_guard()
            self._watched.push_back(watched)

    def remove(self, member):
        """Forget a member. No effect if it is none."""
        cdef size_t i
        if id(member) not in self._tokens:
            return
        self._check()
        token = self._tokens.pop(id(member))
        del self._members[token]
        self._core.remove(token)
        for i in range(self._watched.size()):
            if self._watched[i].token == token:
                self._watched[i].handle.end_guard()
                self._watched[i] = self._watched.back()
                self._watched.pop_back()
                return

    cdef Watched* _find(self, object bus) except NULL:
        cdef size_t i
        cdef uint64_t token = self._tokens.get(id(bus), 0)
        self._check()
        for i in range(self._watched.size()):
            if self._watched[i].token == token:
                check_open(self._watched[i].handle)
                return &self._watched[i]
        raise ValueError(f"{bus!r} is not a bus of this WaitSet; add it first")

    # The same bus, from now on by this handle of it: that of calls, or that of replies.
    cdef core.Bus* _turn_to(self, Watched* watched, core.BusHandle* handle) except NULL:
        check_open(handle)
        handle.open_guard()
        watched.handle.end_guard()
        watched.handle = handle
        return handle.bus()

    def await_message(self, bus):
        """From now on wait for a message on `bus`, a member; of an RpcBus, a call or a reply. So it is after add()."""
        cdef Watched* watched = self._find(bus)
        self._core.await_frame(watched.token, self._turn_to(watched, handle_to_watch(bus, True))[0])

    def await_room(self, bus, Py_ssize_t size):
        """From now on wait for room for `size` bytes on `bus`, a member: a message, a call or a reply."""
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        cdef Watched* watched = self._find(bus)
        self._core.await_room(watched.token, self._turn_to(watched, handle_to_watch(bus, False))[0], <uint64_t>size)

    def wait(self, timeout=None):
        """Return a member that may have what is waited for, or has ended; None after `timeout` seconds.

        All of them in turn: who was returned last is looked at last.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        cdef uint64_t token = 0
        self._check()
        cdef Status status = self._core.poll(token)
        while status != Status.ok:
            status = self._wait(deadline, token)
            PyErr_CheckSignals()
            if status == Status.forked:
                raise BusClosedError("this WaitSet belongs to the parent of this process; make one here")
            if status != Status.ok and core.now_ns() >= deadline:
                return None
        return self._members[token]

    # Inside all of them, so that close() from another thread leaves the closing to us.
    cdef Status _wait(self, uint64_t deadline, uint64_t& token) except *:
        cdef size_t i, inside = 0
        cdef Status status = Status.empty
        self._waiting = True
        try:
            for i in range(self._watched.size()):
                if self._watched[i].handle.enter():
                    inside += 1
                    continue
                refuse_use(self._watched[i].handle)
            with nogil:
                status = self._core.wait(deadline, token)
        finally:
            for i in range(inside):
                self._watched[i].handle.leave()
            self._waiting = False
        return status

    def close(self):
        """Forget all members and give the descriptor back. Idempotent. By the thread that waits, or once none does."""
        if self._waiting:
            self._check()
        self._forget()
        self._members.clear()
        self._tokens.clear()

    cdef int _check(self) except -1:
        if self._core == NULL:
            raise BusClosedError("this WaitSet is closed; make a new one")
        if self._waiting:
            raise BusBusyError("another thread waits with this WaitSet; it serves one thread at a time")
        return 0

    def __len__(self):
        return len(self._members)

    def __reduce__(self):
        raise TypeError("a WaitSet cannot be pickled or copied")
