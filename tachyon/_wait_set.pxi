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


@cython.final
cdef class WaitSet:
    """Waits for calls on many RpcBus, and for an RpcListener: what RpcServer is made of. For one thread.

    A bus must be removed before it is closed, and nobody else may use it.
    """

    cdef core.WaitSet* _core
    cdef dict _members  # token: RpcBus or RpcListener
    cdef dict _tokens   # id of that: token
    cdef uint64_t _last

    def __cinit__(self):
        cdef SetupOutcome outcome
        self._core = tachyon_new_wait_set(outcome)
        if self._core == NULL:
            raise_setup_failure(&outcome, None)
        self._members = {}
        self._tokens = {}

    def __dealloc__(self):
        cdef core.WaitSet* mine = self._core
        self._core = NULL
        del mine

    def add(self, member):
        """Wait for calls on an RpcBus that serves, or for clients of an RpcListener."""
        cdef SetupOutcome outcome
        cdef core.Bus* bus = NULL
        cdef int descriptor = -1
        self._check()
        if isinstance(member, RpcBus):
            need_callee(rpc_of(member), "waiting for calls")
            bus = rpc_of(member).calls().bus()
        else:
            descriptor = member.fileno()
        self._last += 1
        if tachyon_watch(outcome, self._core[0], self._last, bus, descriptor) == NULL:
            raise_setup_failure(&outcome, None)
        self._members[self._last] = member
        self._tokens[id(member)] = self._last

    def remove(self, member):
        """Forget a member. No effect if it is none."""
        token = self._tokens.pop(id(member), None)
        if token is not None:
            del self._members[token]
            self._core.remove(token)

    def await_call(self, RpcBus bus not None):
        """From now on wait for a call on `bus`, a member."""
        check_opened(rpc_of(bus))
        self._core.await_frame(self._tokens[id(bus)], rpc_of(bus).calls().bus()[0])

    def await_room(self, RpcBus bus not None, Py_ssize_t size):
        """From now on wait for room for a reply of `size` bytes on `bus`, a member."""
        check_opened(rpc_of(bus))
        self._core.await_room(self._tokens[id(bus)], rpc_of(bus).replies().bus()[0], <uint64_t>size)

    def wait(self, timeout=None):
        """Return a member that may have what is waited for, or has ended; None after `timeout` seconds.

        All of them in turn: who was returned last is looked at last.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        cdef uint64_t token = 0
        self._check()
        cdef Status status = self._core.poll(token)
        while status != Status.ok:
            with nogil:
                status = self._core.wait(deadline, token)
            PyErr_CheckSignals()
            if status == Status.forked:
                raise BusClosedError("this WaitSet belongs to the parent of this process; make one here")
            if status != Status.ok and core.now_ns() >= deadline:
                return None
        return self._members[token]

    def close(self):
        """Forget all members and give the descriptor back. Idempotent. By the thread that waits, or once none does."""
        cdef core.WaitSet* mine = self._core
        self._core = NULL
        self._members.clear()
        self._tokens.clear()
        del mine

    cdef int _check(self) except -1:
        if self._core == NULL:
            raise BusClosedError("this WaitSet is closed; make a new one")
        return 0

    def __len__(self):
        return len(self._members)

    def __reduce__(self):
        raise TypeError("a WaitSet cannot be pickled or copied")
